//! One agent: its control link and its run, driven by the machine that stays with a server ([`Visit`]), in virtual time.
//!
//! Left out: discovery (the server's address is known), the Noise handshake, log lines, signals.

use crate::core::Core;
use crate::disk::Platter;
use crate::image::Image;
use crate::listener::Listener;
use crate::network::{CALLED, CALLER, ConnId, Frame, HostNo, SERVER, address_of};
use crate::queue::{DiskOp, Event};
use crate::quirks::{self, Quirks};
use crate::run::Run;
use crate::scenario::NodePlan;
use slidecast_proto::control::{Card, HOLD, Hello, Join, Prepare, Ready, ToAgent, ToServer};
use slidecast_proto::plan::CardId;
use slidecast_proto::reason::Then;
use slidecast_proto::run::RunConfig;
use slidecast_proto::units::{DeploymentId, Time};
use slidecast_proto::visit::{ControlClock, Leave, Task, Visit, VisitAct, VisitConfig};
use std::time::Duration;

/// The pause between two searches.
const SEARCH: Duration = Duration::from_secs(1);
/// The most that may wait for a server that does not read, in bytes.
const BACKLOG: u64 = 1 << 20;
/// The port on which chain links are taken.
pub(crate) const LINK_PORT: u16 = 4000;
/// The time that is never.
const NEVER: Time = Time(u64::MAX);

/// The agent's end of the control link.
#[derive(Debug)]
struct Control {
    conn: ConnId,
    open: bool,
    clock: ControlClock,
}

/// One agent and its node.
#[derive(Debug)]
pub(crate) struct Agent {
    index: usize,
    card: u32,
    mbits: u32,
    ring: u64,
    turn: u64,
    /// The machine is its own: it may do at the end what the server says.
    owns_machine: bool,
    /// Counts processes and runs, so that what was meant for an older one is dropped.
    runs: u64,
    boot: [u8; 16],
    alive: bool,
    control: Option<Control>,
    /// The time with the server that was found.
    visit: Option<Visit<Run>>,
    /// When it is looked for again.
    search_at: Time,
    /// The target is being opened for this order.
    opening: Option<(u64, Prepare)>,
    listener: Listener,
    pub(crate) platter: Platter,
    /// What is wrong with it.
    pub(crate) quirks: Quirks,
    /// The last orders, for faults.
    joins: Vec<Join>,
    /// The deployment that it was told to prepare last.
    newest: Option<DeploymentId>,
    /// The last orders of the run before.
    past: Vec<Join>,
    timer: Time,
}

impl Agent {
    pub(crate) fn new(index: usize, plan: &NodePlan, then: Then, image: &Image) -> Self {
        Self {
            index,
            card: plan.card,
            mbits: plan.mbits,
            ring: plan.ring,
            turn: plan.turn,
            owns_machine: then != Then::Hold,
            runs: 0,
            boot: [0; 16],
            alive: false,
            control: None,
            visit: None,
            search_at: Time(0),
            opening: None,
            listener: Listener::new(index),
            platter: Platter::new(image, plan.disk.clone()),
            quirks: Quirks::default(),
            joins: Vec::new(),
            newest: None,
            past: Vec::new(),
            timer: NEVER,
        }
    }

    pub(crate) fn host(&self) -> HostNo {
        self.index + 1
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    /// The connection to the server.
    pub(crate) fn control_conn(&self) -> Option<ConnId> {
        self.control.as_ref().map(|control| control.conn)
    }

    /// The deployment that it has part in.
    pub(crate) fn run(&self) -> Option<&Run> {
        self.visit.as_ref().and_then(Visit::task)
    }

    fn run_mut(&mut self) -> Option<&mut Run> {
        self.visit.as_mut().and_then(Visit::task_mut)
    }

    /// The name of the server's card that it hangs on.
    pub(crate) fn card(&self) -> CardId {
        CardId(format!("eth{}", self.card))
    }

    pub(crate) fn boot(&mut self, core: &mut Core) {
        if self.alive {
            return;
        }
        core.note(format_args!("agent {}: starts", self.index));
        let host = &mut core.network.hosts[self.index + 1];
        (host.powered, host.listening) = (true, true);
        self.runs += 1;
        self.alive = true;
        self.boot = core.rng.bytes();
        self.boot[..4].copy_from_slice(&u32::try_from(self.index).unwrap_or(u32::MAX).to_le_bytes());
        self.advance(core);
    }

    /// Its process is no more. With `power`, its kernel neither.
    pub(crate) fn die(&mut self, core: &mut Core, power: bool) {
        if !self.alive {
            return;
        }
        core.note(format_args!("agent {}: {}", self.index, if power { "loses its power" } else { "is killed" }));
        self.end(core, power);
    }

    /// Its machine is turned off, in order: its connections are closed. What it has not flushed is lost.
    fn shut_down(&mut self, core: &mut Core) {
        core.note(format_args!("agent {}: turns its machine off", self.index));
        self.end(core, false);
        self.platter.power_cut();
    }

    fn end(&mut self, core: &mut Core, power: bool) {
        let host = self.host();
        if power {
            core.network.power_off(host);
            self.platter.power_cut();
        } else {
            core.network.hosts[host].listening = false;
            for (conn, end) in core.network.of_host(host) {
                core.close(conn, end);
            }
        }
        core.network.hosts[host].still = Time(0);
        self.alive = false;
        self.runs += 1;
        (self.control, self.visit, self.opening, self.search_at) = (None, None, None, Time(0));
        self.listener = Listener::new(self.index);
        self.joins.clear();
        self.past.clear();
        self.timer = NEVER;
    }

    fn call(&mut self, core: &mut Core) {
        let conn = core.connect(self.host(), SERVER);
        let now = core.now;
        self.control = Some(Control { conn, open: false, clock: ControlClock::new(now) });
    }

    /// A call of its own was answered.
    pub(crate) fn on_called(&mut self, conn: ConnId, accepted: bool, core: &mut Core) {
        if let Some(control) = self.control.as_mut().filter(|control| control.conn == conn) {
            control.open = accepted;
            control.clock.on_heard(core.now);
            if !accepted {
                self.on_lost("no connection", core);
            }
        } else if let Some(run) = self.run_mut() {
            run.on_called(conn, accepted, core);
        }
        self.advance(core);
    }

    pub(crate) fn on_closed(&mut self, conn: ConnId, why: &str, core: &mut Core) {
        if self.control_conn() == Some(conn) {
            self.on_lost(why, core);
        } else if let Some(run) = self.run_mut() {
            run.on_closed(conn, why, core);
        }
        self.listener.on_closed(conn);
        self.advance(core);
    }

    pub(crate) fn on_frame(&mut self, conn: ConnId, frame: Frame, told: bool, core: &mut Core) {
        if let Frame::Message(bytes) = &frame {
            if let Some(control) = self.control.as_mut().filter(|control| control.conn == conn) {
                control.clock.on_heard(core.now);
                match ToAgent::parse(bytes) {
                    Ok(order) => self.obey(order, core),
                    Err(error) => core.checker.fail(format!("agent {}: an order does not parse: {error}", self.index)),
                }
            }
        } else if let Some(run) = self.run_mut().filter(|run| run.has(conn)) {
            run.on_frame(conn, frame, told, core);
        } else {
            let run = self.visit.as_mut().and_then(Visit::task_mut);
            if self.listener.on_frame(conn, &frame, run, core).is_none() {
                core.close(conn, CALLED);
            }
        }
        self.advance(core);
    }

    /// The header of a block came.
    pub(crate) fn on_head(&mut self, conn: ConnId, head: &[u8; 48], core: &mut Core) {
        if let Some(run) = self.run_mut() {
            run.on_head(conn, head, core);
        }
        self.advance(core);
    }

    pub(crate) fn on_trickle(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(run) = self.run_mut() {
            run.on_trickle(conn, core);
        }
        self.advance(core);
    }

    /// A frame that waited is out.
    pub(crate) fn on_out(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(run) = self.run_mut() {
            run.on_out(conn, core);
        }
        self.advance(core);
    }

    /// The disk has done something.
    pub(crate) fn on_disk(&mut self, number: u64, op: DiskOp, core: &mut Core) {
        let run = self.visit.as_mut().and_then(Visit::task_mut).filter(|run| run.number() == number);
        if let Some(run) = run {
            run.on_disk(op, &mut self.platter, core);
            self.advance(core);
        }
    }

    /// It wanted to be woken.
    pub(crate) fn on_timer(&mut self, core: &mut Core) {
        if self.timer <= core.now {
            self.timer = NEVER;
            self.advance(core);
        }
    }

    pub(crate) fn stale_order(&mut self, core: &mut Core) {
        if let Some(order) = quirks::late_order(self.newest, &self.joins, &self.past, &mut core.rng) {
            core.note(format_args!("agent {}: an old order comes", self.index));
            self.obey(order, core);
            self.advance(core);
        }
    }

    fn obey(&mut self, order: ToAgent, core: &mut Core) {
        if !matches!(order, ToAgent::Heartbeat) {
            core.note(format_args!("agent {}: obeys {}", self.index, quirks::short(&order)));
        }
        let before = self.run().map(Run::epoch);
        let Some(visit) = &mut self.visit else { return };
        visit.on_order(order.clone(), core.now);
        if let (ToAgent::Join(join), Some(before)) = (order, before)
            && let Some(run) = self.run().filter(|run| run.deployment() == join.deployment)
        {
            core.checker.on_join(self.index, run.number(), &join, before, run.epoch());
            if self.joins.last() != Some(&join) {
                self.joins.push(join);
            }
        }
    }

    /// Does what the machine of the visit asks for.
    fn carry_out(&mut self, core: &mut Core) {
        while let Some(act) = self.visit.as_mut().and_then(Visit::poll) {
            match act {
                VisitAct::Connect => self.call(core),
                VisitAct::Greet => {
                    let hello = self.hello();
                    self.control.iter_mut().for_each(|control| control.clock.on_greeted(core.now));
                    self.say(&hello, core);
                }
                VisitAct::Say(message) => self.report(&message, core),
                VisitAct::Prepare { prepare, .. } => {
                    self.runs += 1;
                    self.newest = Some(prepare.deployment);
                    self.opening = Some((self.runs, prepare));
                    core.wake(core.now.after(self.platter.opens_in()), Event::Opened(self.index, self.runs));
                }
                VisitAct::GaveUp(reason, detail) => {
                    core.note(format_args!("agent {}: gives up: {reason}: {detail}", self.index));
                }
                VisitAct::Stop(run, _) => {
                    run.stop(core);
                    self.past = std::mem::take(&mut self.joins);
                }
                VisitAct::Leave(Leave::Exit(_)) => return self.shut_down(core),
                VisitAct::Leave(Leave::Search) => {
                    self.visit = None;
                    self.search_at = core.now.after(SEARCH);
                }
                VisitAct::NotPrepared(_)
                | VisitAct::Ask(_)
                | VisitAct::StopAsking
                | VisitAct::AwaitApproval(_)
                | VisitAct::CodeIsFalse
                | VisitAct::Approved => {}
            }
        }
    }

    pub(crate) fn on_opened(&mut self, number: u64, core: &mut Core) {
        let Some((_, prepare)) = self.opening.take_if(|(of, _)| *of == number) else { return };
        let Some(visit) = &mut self.visit else { return };
        let deployment = prepare.deployment;
        let front = self.platter.front();
        let config = RunConfig { node: visit.node(), ring: self.ring, front, turn: self.turn };
        let bytes = prepare.disk_bytes;
        let run = Run::new(self.index, number, prepare, config, core.now);
        let ready = Ready {
            deployment,
            target: "/dev/sda".to_owned(),
            describe: String::new(),
            bytes,
            rotational: false,
            direct: true,
            comparable: run.is_comparable(),
            ring: self.ring,
        };
        visit.on_prepared(deployment, Ok((run, ready)));
        self.advance(core);
    }

    fn say(&mut self, message: &ToServer, core: &mut Core) {
        let Some(control) = &mut self.control else { return };
        if core.network.backlog(control.conn, CALLER) > BACKLOG {
            return self.on_lost("send backlog full: the server is not reading", core);
        }
        if control.open {
            control.clock.on_said(core.now);
            core.start(control.conn, CALLER, Frame::Message(message.encode()));
        }
    }

    fn on_lost(&mut self, why: &str, core: &mut Core) {
        let Some(control) = self.control.take() else { return };
        core.note(format_args!("agent {}: loses the server: {why}", self.index));
        core.close(control.conn, CALLER);
        self.search_at = core.now.after(SEARCH);
        if let Some(visit) = &mut self.visit {
            visit.on_lost(core.now);
        }
    }

    fn hello(&self) -> ToServer {
        let card = Card {
            name: "eth0".to_owned(),
            mac: [2; 6],
            addresses: vec![address_of(self.host())],
            mbits: self.mbits,
            up: true,
        };
        ToServer::Hello(Hello {
            agent_version: "0".to_owned(),
            hostname: String::new(),
            boot: self.boot,
            ram_bytes: 1 << 30,
            cards: vec![card],
            disks: Vec::new(),
            link_port: LINK_PORT,
            target: String::new(),
        })
    }

    fn report(&mut self, message: &ToServer, core: &mut Core) {
        if matches!(message, ToServer::Progress(_)) {
            if self.quirks.mute {
                return;
            }
        } else {
            core.note(format_args!("agent {}: says {message:?}", self.index));
        }
        core.checker.on_message(self.index, message, &self.platter, &core.image);
        self.say(message, core);
    }

    /// Says what is not so, if it is one that does.
    fn complain(&mut self, core: &mut Core) {
        let greeted = self.visit.as_ref().is_some_and(|visit| !visit.awaits_link()) && self.control.is_some();
        if greeted && let Some(complaint) = self.joins.last().and_then(|join| self.quirks.complaint(join, core.now)) {
            core.note(format_args!("agent {}: says falsely {complaint:?}", self.index));
            self.say(&complaint, core);
        }
    }

    /// One turn of the loop.
    pub(crate) fn advance(&mut self, core: &mut Core) {
        if !self.alive {
            return;
        }
        let now = core.now;
        self.listener.on_time(core);
        if let Some(Err(quiet)) = self.control.as_ref().map(|control| control.clock.check(control.open, now)) {
            self.on_lost(&quiet.to_string(), core);
        }
        match &mut self.visit {
            Some(visit) => visit.on_time(now),
            None if self.control.is_none() && self.search_at <= now => self.call(core),
            None => {}
        }
        if self.control.as_ref().is_some_and(|control| control.open) {
            // Nobody sits in front of it.
            let owns_machine = self.owns_machine;
            let config = VisitConfig { patience: HOLD, once: false, owns_machine, attended: false };
            let visit = self.visit.get_or_insert_with(|| Visit::new(config));
            if visit.awaits_link() {
                visit.on_open(None, None);
            }
        }
        self.carry_out(core);
        let stuck = self.quirks.stuck;
        if let Some(run) = self.visit.as_mut().and_then(Visit::task_mut) {
            run.stuck = stuck;
            run.advance(&mut self.platter, core);
        }
        self.complain(core);
        self.carry_out(core);
        if !self.alive {
            return;
        }
        if let Some(control) = &self.control
            && control.clock.check(control.open, now) == Ok(true)
        {
            self.say(&ToServer::Heartbeat, core);
        }
        self.sleep(core);
    }

    fn sleep(&mut self, core: &mut Core) {
        let mut deadline = match (&self.control, &self.visit) {
            (Some(control), _) => control.clock.deadline(control.open),
            (None, None) => self.search_at,
            (None, Some(_)) => NEVER,
        };
        if let Some(visit) = &self.visit {
            deadline = deadline.min(visit.deadline());
        }
        if let Some(run) = self.run() {
            deadline = deadline.min(run.deadline());
        }
        // A turn takes its time, too: a loop that always has something to do must not stop the clock.
        let deadline = self.listener.first(deadline).max(core.now.after(Duration::from_micros(50)));
        if deadline < self.timer {
            self.timer = deadline;
            core.wake(deadline, Event::Agent(self.index));
        }
    }
}
