//! The world: one server, its agents, and the time that goes from event to event.

mod again;

use crate::agent::Agent;
use crate::checker::Checker;
use crate::core::Core;
use crate::image::Image;
use crate::network::{Arrival, CALLER, ConnId, Frame, HostState, Network, SERVER};
use crate::queue::{Event, Queue};
use crate::rng::Rng;
use crate::scenario::{Fault, Scenario, at_ms};
use crate::server::Server;
use slidecast_proto::control::Prepare;
use slidecast_proto::deployment::{DeploymentConfig, RepairKind, Stage};
use slidecast_proto::plan::{CardId, PlanCard, PlanLimits};
use slidecast_proto::reason::{Free, Reason};
use slidecast_proto::units::{BlockNo, DeploymentId, NodeId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The one deployment there is.
pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId([0x5D; 16]);
/// Where one node is five times as slow as the others, which alone would take 32 s, they take no longer than this.
const SLOW_LIMIT: Duration = Duration::from_secs(75);
/// Of a part with more stored blocks than this, a sample is compared first.
const COMPARE_SAMPLE: usize = 16;
/// How long agents have for their last orders.
const LAST: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    /// From the plan to the last node's end; nothing if it did not come to that.
    pub(crate) took: Option<Duration>,
    pub(crate) events: u64,
    /// Bytes sent by the server.
    pub(crate) egress: u64,
    /// Nodes that are done (or written), and nodes that failed.
    pub(crate) nodes: (usize, usize),
    /// Chains there were, with those of catch-up passes.
    pub(crate) chains: usize,
    /// Agents that are done or written.
    pub(crate) done: Vec<usize>,
    /// Agents that were found to damage what they send.
    pub(crate) corrupting: Vec<usize>,
    /// From the plan to the last end of those that are done.
    pub(crate) last_done: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct World {
    core: Core,
    server: Server,
    agents: Vec<Agent>,
    scenario: Scenario,
    config: DeploymentConfig,
    /// It is the second deployment.
    second: bool,
}

/// What the server is told at the start.
fn config_of(scenario: &Scenario, image: &Image) -> DeploymentConfig {
    DeploymentConfig {
        prepare: Prepare {
            deployment: DEPLOYMENT,
            root: image.root(),
            image: "x.slide".to_owned(),
            disk_bytes: 1 << 30,
            sector: 512,
            block: image.block_bytes(),
            grain: 4096,
            selector: String::new(),
            verify: scenario.verify,
            free: Free::Keep,
            then: scenario.then,
            fresh: scenario.fresh,
        },
        blocks: image.blocks(),
        secret: [7; 32],
        wait_for: scenario.wait_for,
        timeout: Some(Duration::from_secs(120)),
        join_window: None,
        cards: (0u32..)
            .zip(&scenario.cards)
            .map(|(no, mbits)| PlanCard { card: CardId(format!("eth{no}")), mbits: *mbits })
            .collect(),
        limits: PlanLimits::default(),
        version: "0".to_owned(),
    }
}

impl World {
    /// The world of a scenario. With `shown` it tells what happens.
    pub(crate) fn new(scenario: Scenario, shown: bool) -> Self {
        let now = at_ms(0);
        let image = Arc::new(Image::new(&scenario.image, scenario.seed));
        let host = |rate, latency, card: u32| HostState {
            powered: false,
            listening: false,
            still: Time(0),
            latency,
            rate,
            card: card as usize,
            corrupts: None,
        };
        let mut hosts = vec![host(scenario.server_rate, Duration::from_micros(20), 0)];
        hosts.extend(scenario.nodes.iter().map(|node| host(node.rate, node.latency, node.card)));
        (hosts[SERVER].powered, hosts[SERVER].listening) = (true, true);
        let blocks = image.blocks();
        let mut checker = Checker::new(scenario.nodes.iter().map(|node| node.ring).collect(), blocks);
        crate::faults::excuse_disks(&scenario, &mut checker);
        let mut queue = Queue::default();
        for (index, node) in scenario.nodes.iter().enumerate() {
            queue.push(node.boot.max(now), Event::Boot(index));
        }
        for (index, (at, _)) in scenario.faults.iter().enumerate() {
            queue.push(*at, Event::Fault(index));
        }
        let agents = scenario.nodes.iter().enumerate();
        let agents = agents.map(|(index, plan)| Agent::new(index, plan, scenario.then, &image)).collect();
        let config = config_of(&scenario, &image);
        let core = Core {
            now,
            queue,
            network: Network::new(scenario.network, hosts, &scenario.card_rates),
            rng: Rng::new(scenario.seed, 2),
            image,
            checker,
            shown,
            strangers: BTreeMap::new(),
        };
        let mut server = Server::new(config.clone(), scenario.seed, scenario.state_write, now);
        server.kill = scenario.kill;
        Self { core, server, agents, scenario, config, second: false }
    }

    /// Runs until all is over, the limit is reached, or something does not hold.
    pub(crate) fn run(mut self) -> Outcome {
        let mut events = 0;
        self.server.turn(&mut self.core);
        while let Some((at, event)) = self.core.queue.pop() {
            debug_assert!(at >= self.core.now, "time goes one way");
            self.core.now = at;
            if self.core.checker.violation().is_some() {
                break;
            }
            if self.server.over.is_some_and(|over| at >= over.after(LAST)) {
                self.check_end();
                if self.core.checker.violation().is_some() || !self.begin_again() {
                    break;
                }
                self.second = true;
            }
            if at >= self.scenario.limit {
                let stage = self.server.machine().stage();
                self.core.checker.fail(format!("it is not over after {:?}: {stage:?}", at.since(at_ms(0))));
                break;
            }
            events += 1;
            self.on_event(event);
        }
        self.end(events)
    }

    /// A deployment is over: looks at what came of it.
    fn check_end(&mut self) {
        let machine = self.server.machine();
        if let (Stage::Over { .. }, Some(over)) = (machine.stage(), self.server.over) {
            self.core.checker.on_over(machine, self.scenario.verify, over);
            self.core.checker.on_verdicts(machine, self.scenario.culprit.filter(|_| !self.second));
            for (agent, of) in self.agents.iter().enumerate() {
                self.core.checker.on_disk_left(machine, agent, &of.platter, &self.core.image);
            }
            if !self.second {
                self.check_calm();
                self.check_slow();
            }
        } else {
            self.core.checker.fail("nothing happens any more, and it is not over".to_owned());
        }
    }

    fn end(mut self, events: u64) -> Outcome {
        self.check_end();
        let machine = self.server.machine();
        let (fixed, over) = machine.times();
        let ends = machine.nodes().filter_map(|node| node.outcome());
        let last_done = ends.filter(|end| end.reason == Reason::None).map(|end| end.at).max();
        let good = machine.nodes().filter_map(|node| node.outcome()).filter(|end| end.reason == Reason::None).count();
        let bad = machine.nodes().filter_map(|node| node.outcome()).filter(|end| end.reason != Reason::None).count();
        Outcome {
            violation: self.core.checker.violation().map(str::to_owned),
            took: fixed.zip(over).map(|(fixed, over)| over.since(fixed)),
            events,
            egress: self.server.egress,
            nodes: (good, bad),
            chains: machine.chains().count(),
            done: self.core.checker.done(machine),
            corrupting: self.core.checker.corrupting(machine).into_iter().collect(),
            last_done: fixed.zip(last_done).map(|(fixed, at)| at.since(fixed)),
        }
    }

    /// Where nothing goes wrong everybody is done in the main pass, and every block left the server once per chain.
    fn check_calm(&mut self) {
        if !self.scenario.is_calm() {
            return;
        }
        let machine = self.server.machine();
        if machine.exit_code() != Some(0) {
            let code = machine.exit_code();
            return self.core.checker.fail(format!("nothing went wrong, and the exit code is {code:?}"));
        }
        if machine.repairs().iter().any(|repair| repair.kind == RepairKind::Slow) {
            return;
        }
        let (least, most) = (self.blocks_lacking(false), self.blocks_lacking(true));
        let sent = self.server.blocks_sent;
        if !(least..=most).contains(&sent) {
            self.core
                .checker
                .fail(format!("nothing went wrong, and {sent} blocks were sent instead of {least} to {most}"));
        }
        if machine.nodes().any(|node| node.last_pass() > 1) {
            self.core.checker.fail("nothing went wrong, and there was a catch-up pass".to_owned());
        }
        if let Some(repair) = machine.repairs().iter().find(|repair| repair.kind == RepairKind::Relinked) {
            let detail = repair.detail.clone();
            self.core.checker.fail(format!("nothing went wrong, and a link was made anew: {detail}"));
        }
    }

    /// One slow node is moved out of the way: the others take what they would have taken, and the time until it was found.
    fn check_slow(&mut self) {
        let Some(slow) = self.scenario.slow else { return };
        let machine = self.server.machine();
        let (fixed, _) = machine.times();
        for node in machine.nodes() {
            let Some(agent) = self.core.checker.agent_of(node.id).filter(|agent| *agent != slow) else { continue };
            let took = fixed.zip(node.outcome()).map(|(fixed, end)| end.at.since(fixed));
            if took.is_none_or(|took| took > SLOW_LIMIT) {
                self.core.checker.fail(format!("agent {slow} is slow, and agent {agent} took {took:?}"));
                return;
            }
        }
    }

    /// How many blocks the server has to send, each once for a chain in which somebody lacks it. Of a long part a disk may count as
    /// lacking all: `most`.
    fn blocks_lacking(&self, most: bool) -> u64 {
        let image = &self.core.image;
        let is_stored = |block: &u32| !image.is_fill(*block);
        let is_long = |block: u32| {
            let part = image.shape.part_of(BlockNo(block));
            image.shape.blocks_of(part).filter(is_stored).count() > COMPARE_SAMPLE
        };
        let lacks = |agent: usize, block: u32| {
            let old = self.scenario.nodes[agent].disk.old;
            self.scenario.fresh || !old.holds(block) || (most && is_long(block))
        };
        let sent = |chain: &[NodeId]| {
            let agents: Vec<usize> = chain.iter().filter_map(|node| self.core.checker.agent_of(*node)).collect();
            (0..image.blocks())
                .filter(is_stored)
                .filter(|block| agents.iter().any(|agent| lacks(*agent, *block)))
                .count()
        };
        self.server.plan().iter().map(|chain| sent(chain) as u64).sum()
    }

    fn still(&self, host: usize) -> Option<Time> {
        let still = self.core.network.hosts[host].still;
        (still > self.core.now).then_some(still)
    }

    fn on_event(&mut self, event: Event) {
        // What stands still does nothing until it goes on.
        let host = match event {
            Event::Agent(agent) | Event::Opened(agent, _) | Event::Disk(agent, ..) => Some(agent + 1),
            Event::Server | Event::Written(_) | Event::Feed(_) => Some(SERVER),
            Event::Called { conn, .. } => Some(self.core.network.conn(conn).hosts[CALLER]),
            Event::Reset(conn, end) => Some(self.core.network.conn(conn).hosts[end]),
            _ => None,
        };
        if let Some(until) = host.and_then(|host| self.still(host)) {
            return self.core.queue.push(until, event);
        }
        let Self { core, server, agents, .. } = self;
        match event {
            Event::Boot(agent) => agents[agent].boot(core),
            Event::Agent(agent) => agents[agent].on_timer(core),
            Event::Opened(agent, run) => agents[agent].on_opened(run, core),
            Event::Disk(agent, run, op) => agents[agent].on_disk(run, op, core),
            Event::Server => server.on_timer(core),
            Event::Written(serial) => server.on_written(serial, core),
            Event::Kill(span, told) => server.crash(span, told, core),
            Event::Restart(told) => server.restart(told, core),
            Event::Feed(serial) => server.on_feed_timer(serial, core),
            Event::Fault(index) => {
                let (_, fault) = self.scenario.faults[index];
                self.inject(fault);
            }
            Event::Resume(host) => self.resume(host),
            event => self.on_network(event),
        }
    }

    /// Something happened on a connection.
    fn on_network(&mut self, event: Event) {
        let Self { core, server, agents, .. } = self;
        let now = core.now;
        match event {
            Event::Syn(conn) => core.network.on_syn(conn, now, &mut core.queue),
            Event::Called { conn, accepted } if core.strangers.contains_key(&conn) => {
                core.network.on_called(conn, accepted);
                crate::faults::stranger_called(conn, accepted, core);
            }
            Event::Called { conn, accepted } => {
                if core.network.on_called(conn, accepted) {
                    match core.network.conn(conn).hosts[CALLER] {
                        SERVER => server.on_called(conn, accepted, core),
                        host => agents[host - 1].on_called(conn, accepted, core),
                    }
                } else if accepted {
                    core.network.shut(conn, CALLER, now, &mut core.queue, &mut core.rng);
                }
            }
            Event::Wire(conn, dir) => {
                let out = core.network.on_wire(conn, dir, now, &mut core.queue, &mut core.rng);
                if out {
                    self.out(conn, dir);
                }
            }
            Event::Head(conn, dir) => {
                if let Some((end, head)) = core.network.on_head(conn, dir, now)
                    && let Some(agent) = core.network.conn(conn).hosts[end].checked_sub(1)
                {
                    agents[agent].on_head(conn, &head, core);
                }
            }
            Event::Trickle(conn, dir) => {
                if let Some(end) = core.network.on_trickle(conn, dir, now)
                    && let Some(agent) = core.network.conn(conn).hosts[end].checked_sub(1)
                {
                    agents[agent].on_trickle(conn, core);
                }
            }
            Event::Arrive(conn, dir) => {
                let (arrival, out) = core.network.on_arrive(conn, dir, now, &mut core.queue, &mut core.rng);
                self.deliver(conn, arrival);
                if out {
                    self.out(conn, dir);
                }
            }
            Event::Reset(conn, end) if core.network.is_open(conn, end) => self.closed(conn, end, "connection reset"),
            _ => {}
        }
    }

    /// Writes on and reads what came while a host stood still.
    fn resume(&mut self, host: usize) {
        let core = &mut self.core;
        if core.network.hosts[host].still > core.now {
            return;
        }
        for (conn, end) in core.network.of_host(host) {
            let core = &mut self.core;
            if core.network.take_pending(conn, end, core.now, &mut core.queue, &mut core.rng) {
                self.out(conn, end);
            }
            for _ in 0..self.core.network.unread(conn, end) {
                let core = &mut self.core;
                let (arrival, out) = core.network.read(conn, 1 - end, core.now, &mut core.queue, &mut core.rng);
                self.deliver(conn, arrival);
                if out {
                    self.out(conn, 1 - end);
                }
            }
        }
    }

    fn deliver(&mut self, conn: ConnId, arrival: Arrival) {
        let Arrival::Frame(end, frame, told) = arrival else { return };
        if end == CALLER && self.core.strangers.contains_key(&conn) {
            return;
        }
        if let Frame::Fin = frame {
            return self.closed(conn, end, "it hung up");
        }
        let Self { core, server, agents, .. } = self;
        let hosts = core.network.conn(conn).hosts;
        match hosts[end] {
            SERVER => {
                let card = hosts[CALLER].checked_sub(1).map(|agent| agents[agent].card());
                server.on_frame(conn, frame, card.unwrap_or(CardId(String::new())), core);
            }
            host => agents[host - 1].on_frame(conn, frame, told, core),
        }
    }

    fn closed(&mut self, conn: ConnId, end: usize, why: &str) {
        let Self { core, server, agents, .. } = self;
        if end == CALLER && core.strangers.contains_key(&conn) {
            return core.close(conn, end);
        }
        match core.network.conn(conn).hosts[end] {
            SERVER => server.on_closed(conn, why, core),
            host => {
                agents[host - 1].on_closed(conn, why, core);
                // Callers that never said anything.
                core.close(conn, end);
            }
        }
    }

    /// A frame that waited for the kernel of this end is out.
    fn out(&mut self, conn: ConnId, end: usize) {
        let Self { core, server, agents, .. } = self;
        if !core.network.is_open(conn, end) || (end == CALLER && core.strangers.contains_key(&conn)) {
            return;
        }
        match core.network.conn(conn).hosts[end] {
            SERVER => server.on_out(conn, core),
            host => agents[host - 1].on_out(conn, core),
        }
    }

    fn inject(&mut self, fault: Fault) {
        let Self { core, server, agents, .. } = self;
        if server.over.is_some() {
            return;
        }
        core.note(format_args!("fault: {fault:?}"));
        crate::faults::inject(fault, core, server, agents);
    }
}
