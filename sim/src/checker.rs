//! What must hold in every run. The first thing that does not is kept; the run ends there.

use crate::disk::Platter;
use crate::image::Image;
use crate::network::{HostNo, SERVER};
use crate::world::DEPLOYMENT;
use slidecast_proto::control::{Join, ToAgent, ToServer};
use slidecast_proto::deployment::{Deployment, RepairKind};
use slidecast_proto::feed::Source;
use slidecast_proto::frame::{Header, Kind};
use slidecast_proto::reason::{EndState, Reason, Verify};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, DeploymentId, Epoch, NodeId, PartNo, Time};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one agent.
#[derive(Debug, Default)]
struct Watched {
    /// Its run, and the host that may send to it.
    run: u64,
    upstream: Option<HostNo>,
    /// Who was the upstream in each epoch of this run.
    upstreams: BTreeMap<Epoch, NodeId>,
    verified: Option<(u64, BlockSet)>,
    causes: BTreeSet<Reason>,
    /// When the last thing that went wrong with it was over; nothing: never.
    whole_since: Option<Time>,
}

#[derive(Debug)]
pub(crate) struct Checker {
    violation: Option<String>,
    /// The deployment that runs; what is said of one before it came too late.
    deployment: DeploymentId,
    agents: Vec<Watched>,
    rings: Vec<u64>,
    nodes: BTreeMap<NodeId, usize>,
    /// The upstream that each node was told of last.
    upstreams: BTreeMap<NodeId, NodeId>,
    blocks: u32,
    pub(crate) lost_writes: bool,
    /// Agents that damage what they send.
    suspects: BTreeSet<usize>,
    /// Frames that were damaged one by one.
    single_damages: u32,
}

impl Checker {
    /// For agents with rings of these sizes.
    pub(crate) fn new(rings: Vec<u64>, blocks: u32) -> Self {
        let agents = rings.iter().map(|_| Watched { whole_since: Some(Time(0)), ..Watched::default() }).collect();
        Self {
            violation: None,
            deployment: DEPLOYMENT,
            agents,
            rings,
            nodes: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            blocks,
            lost_writes: false,
            suspects: BTreeSet::new(),
            single_damages: 0,
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Something goes wrong with an agent, for which it may fail with one of these reasons; it is over at `until`, if ever.
    pub(crate) fn excuse(&mut self, agent: usize, reasons: &[Reason], until: Option<Time>) {
        let watched = &mut self.agents[agent];
        watched.causes.extend(reasons);
        watched.whole_since = watched.whole_since.zip(until).map(|(since, until)| since.max(until));
    }

    /// This agent may be found to damage what it sends.
    pub(crate) fn suspect(&mut self, agent: usize) {
        self.suspects.insert(agent);
    }

    /// A frame is damaged that somebody sends: two of them may look like a sender that damages what it sends.
    pub(crate) fn on_single_damage(&mut self) {
        self.single_damages += 1;
    }

    /// An agent is as good as new.
    pub(crate) fn whole_again(&mut self, agent: usize, now: Time) {
        self.agents[agent].whole_since = Some(now);
    }

    /// Another server begins: it has names of its own for the agents.
    pub(crate) fn begin_again(&mut self, deployment: DeploymentId) {
        self.deployment = deployment;
        self.nodes.clear();
        self.upstreams.clear();
    }

    /// The server was started again, and forms new chains.
    pub(crate) fn on_restart(&mut self) {
        self.upstreams.clear();
    }

    /// The server calls this agent so.
    pub(crate) fn on_node(&mut self, node: NodeId, agent: usize) {
        self.nodes.insert(node, agent);
    }

    /// The agent that the server calls so.
    pub(crate) fn agent_of(&self, node: NodeId) -> Option<usize> {
        self.nodes.get(&node).copied()
    }

    /// An order to join came to an agent.
    pub(crate) fn on_join(&mut self, agent: usize, run: u64, join: &Join, before: Epoch, after: Epoch) {
        if after < before {
            self.fail(format!("agent {agent}: its epoch falls from {before} to {after}"));
        }
        let host = match join.upstream.node {
            NodeId::SERVER => Some(SERVER),
            node => self.nodes.get(&node).map(|agent| agent + 1),
        };
        let watched = &mut self.agents[agent];
        if watched.run != run {
            watched.run = run;
            watched.upstreams.clear();
        }
        if after != join.epoch || join.epoch < before {
            return;
        }
        watched.upstream = host;
        let first = *watched.upstreams.entry(join.epoch).or_insert(join.upstream.node);
        if first != join.upstream.node {
            let (epoch, other) = (join.epoch, join.upstream.node);
            self.fail(format!("agent {agent}: two upstreams in epoch {epoch}: node {first} and node {other}"));
        }
    }

    /// An agent takes a frame from its upstream, which is at this host.
    pub(crate) fn on_upstream_frame(&mut self, agent: usize, host: HostNo) {
        let expected = self.agents[agent].upstream;
        if expected != Some(host) {
            self.fail(format!("agent {agent}: takes a frame from host {host}, but its upstream is at {expected:?}"));
        }
    }

    /// What lies in an agent's ring.
    pub(crate) fn on_memory(&mut self, agent: usize, held: u64, engine: u64, spans: u64, outbox: usize) {
        let ring = self.rings[agent];
        if held > ring {
            self.fail(format!("agent {agent}: {held} bytes are held in a ring of {ring}"));
        }
        if engine > spans {
            self.fail(format!(
                "agent {agent}: blocks were let go before they were written ({engine} of {spans} bytes)"
            ));
        }
        if outbox > 256 {
            self.fail(format!("agent {agent}: {outbox} messages wait for the server"));
        }
    }

    /// An agent sends a block on.
    pub(crate) fn on_relay(&mut self, agent: usize, head: &[u8; 48], content: u64) {
        match Header::parse(head) {
            Ok(header) if crate::image::crc(content) == header.payload_crc => {}
            Ok(header) => {
                self.fail(format!("agent {agent}: passes on block {}, whose CRC does not hold", header.number))
            }
            Err(error) => self.fail(format!("agent {agent}: passes on a frame: {error}")),
        }
    }

    /// An agent sends the manifest header or a part of it on.
    pub(crate) fn on_relay_shared(&mut self, agent: usize, head: &[u8; 48], payload: &[u8], image: &Image) {
        match Header::parse(head) {
            Ok(Header { kind: Kind::Manifest, .. }) if *payload == *image.manifest() => {}
            Ok(Header { kind: Kind::Part, number, .. }) if *payload == *image.part(PartNo(number)) => {}
            Ok(Header { kind, number, .. }) => {
                self.fail(format!("agent {agent}: passes on {kind:?} {number}, whose hash does not hold"));
            }
            Err(error) => self.fail(format!("agent {agent}: passes on a frame: {error}")),
        }
    }

    /// Blocks were read back and are right.
    pub(crate) fn on_verified(&mut self, agent: usize, run: u64, blocks: &[BlockNo]) {
        let all = self.blocks;
        let verified = &mut self.agents[agent].verified;
        if verified.as_ref().is_none_or(|(of, _)| *of != run) {
            *verified = Some((run, BlockSet::empty(all)));
        }
        if let Some((_, verified)) = verified {
            for block in blocks {
                verified.insert(*block);
            }
        }
    }

    /// The machine wants the disk finished.
    pub(crate) fn on_finish(&mut self, agent: usize, run: u64, verify: Verify) {
        let proven = self.agents[agent].verified.as_ref().is_some_and(|(of, set)| *of == run && set.is_full());
        if verify.reads_back() && !proven {
            self.fail(format!("agent {agent}: the disk is to be finished before every block was read back"));
        }
    }

    /// An agent says something to the server.
    pub(crate) fn on_message(&mut self, agent: usize, message: &ToServer, platter: &Platter, image: &Image) {
        match message {
            ToServer::Progress(progress) if progress.deployment != self.deployment => {}
            ToServer::Ended(ended) if ended.deployment != self.deployment => {}
            ToServer::Progress(progress) if !self.lost_writes => {
                let claimed = progress.durable_new.iter().flat_map(|(start, end)| *start..*end);
                if let Some(block) = claimed.clone().find(|block| platter.stable(*block) != image.content(*block)) {
                    self.fail(format!("agent {agent}: says that block {block} is durable, and it is not"));
                }
            }
            ToServer::Ended(ended) if ended.state != EndState::Failed => {
                let wrong = (0..image.blocks()).find(|block| platter.stable(*block) != image.content(*block));
                let excused = ended.state == EndState::Written && self.lost_writes;
                if let Some(block) = wrong.filter(|_| !excused) {
                    self.fail(format!("agent {agent}: is {} and block {block} is not what it must be", ended.state));
                }
                if !platter.bootable() && !excused {
                    self.fail(format!("agent {agent}: is {} and the disk has no head", ended.state));
                }
            }
            _ => {}
        }
    }

    /// The server gives an order.
    pub(crate) fn on_order(&mut self, node: NodeId, order: &ToAgent, machine: &Deployment) {
        match order {
            ToAgent::Join(join) => drop(self.upstreams.insert(node, join.upstream.node)),
            ToAgent::Finish(_) => {
                let running = |id: NodeId| machine.node(id).is_some_and(|node| node.is_running());
                // An order may wait until the state is kept: by then the node may have been passed over.
                let mut above = BTreeSet::from([node]);
                let chain = machine.chains().find(|chain| chain.contains(&node)).unwrap_or(&[]);
                for below in chain.iter().skip_while(|id| **id != node).skip(1) {
                    if self.upstreams.get(below).is_none_or(|upstream| !above.contains(upstream)) {
                        continue;
                    }
                    above.insert(*below);
                    if running(*below) {
                        let what = format!("node {node} is told to finish while node {below} below it still runs");
                        return self.fail(what);
                    }
                }
            }
            _ => {}
        }
    }

    /// The agents that were found to damage what they send.
    pub(crate) fn corrupting(&self, machine: &Deployment) -> BTreeSet<usize> {
        let found = machine.repairs().iter().filter(|repair| repair.kind == RepairKind::Corrupting);
        found.filter_map(|repair| self.nodes.get(&repair.node).copied()).collect()
    }

    /// The agents that are done or written.
    pub(crate) fn done(&self, machine: &Deployment) -> Vec<usize> {
        let ended = machine.nodes().filter(|node| node.outcome().is_some_and(|end| end.state != EndState::Failed));
        ended.filter_map(|node| self.nodes.get(&node.id).copied()).collect()
    }

    /// All is over: nobody is said to damage what it sends but the one that does, and that one if it is all that went wrong.
    pub(crate) fn on_verdicts(&mut self, machine: &Deployment, culprit: Option<usize>) {
        let found = self.corrupting(machine);
        if let Some(agent) = found.iter().find(|agent| !self.suspects.contains(agent))
            && self.single_damages < 2
        {
            self.fail(format!("agent {agent} is said to damage what it sends, and does not"));
        }
        if let Some(agent) = culprit.filter(|agent| !found.contains(agent)) {
            self.fail(format!("agent {agent} damages all that it sends and is not named"));
        }
    }

    /// All is over: every end must have its cause.
    pub(crate) fn on_over(&mut self, machine: &Deployment, verify: Verify, over: Time) {
        let wanted = if verify.reads_back() { EndState::Done } else { EndState::Written };
        for node in machine.nodes() {
            let Some(agent) = self.nodes.get(&node.id).copied() else { continue };
            let watched = &self.agents[agent];
            let Some(outcome) = node.outcome() else { continue };
            if outcome.state == wanted {
                continue;
            }
            let (id, state, reason, detail) = (node.id, outcome.state, outcome.reason, &outcome.detail);
            let what = format!("agent {agent} (node {id}) is {state}: {reason}: {detail}");
            if state != EndState::Failed {
                self.fail(format!("{what}, but {wanted} was asked for"));
            } else if reason == Reason::None || detail.is_empty() {
                self.fail(format!("{what}: a failure without a name"));
            } else if !watched.causes.contains(&reason) {
                self.fail(format!("{what}: nothing that happened to it explains that"));
            } else if reason == Reason::NodeLost
                && watched.whole_since.is_some_and(|since| over.since(since) > std::time::Duration::from_secs(12))
                && !self.replaced(machine, node.id, agent)
            {
                self.fail(format!("{what}, although it was there for more than 12 s before the end"));
            }
        }
    }

    /// All is over: the disk of a node that is done is still what it was when the node said so. What came of a later node of
    /// the same agent counts, not what an earlier one had done.
    pub(crate) fn on_disk_left(&mut self, machine: &Deployment, agent: usize, platter: &Platter, image: &Image) {
        if let Some(violation) = platter.violation {
            self.fail(format!("agent {agent}: {violation}"));
        }
        let last = self.nodes.iter().rev().find(|(_, of)| **of == agent).map(|(node, _)| *node);
        let Some(outcome) = last.and_then(|node| machine.node(node)?.outcome()) else { return };
        if outcome.state == EndState::Failed || self.lost_writes {
            return;
        }
        let wrong = (0..image.blocks()).find(|block| platter.stable(*block) != image.content(*block));
        if wrong.is_some() || !platter.bootable() {
            let state = outcome.state;
            self.fail(format!(
                "agent {agent}: was {state}, and in the end its disk is not (first wrong block: {wrong:?})"
            ));
        }
    }

    /// Whether a later process of the same agent came in the place of this node.
    fn replaced(&self, machine: &Deployment, node: NodeId, agent: usize) -> bool {
        machine.nodes().any(|other| other.id > node && self.nodes.get(&other.id) == Some(&agent))
    }
}
