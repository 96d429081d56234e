//! The machine above the deployments of one port: it has every agent that is there, gives it its number and lends it to at most
//! one deployment at a time. An agent that no deployment wants is idle: it is kept waiting by heartbeats.
//!
//! A deployment that names its machines gets none that another agent, which is there, claims to be as well: both are held. One that is at
//! work already stays there.
//!
//! The caller owns the control links and the deployments. It brings agents, messages of idle ones and the time, sends what
//! [`Fleet::poll_order`] gives, and acts on [`Fleet::poll_event`].

mod agent;
mod claims;
#[cfg(test)]
mod tests;
mod wanted;

pub use agent::{Agent, Here};
pub use wanted::Wanted;

use crate::approval::{Boot, Caller};
use crate::control::{Hello, ToAgent, Welcome};
use crate::noise::PublicKey;
use crate::units::{DeploymentId, NodeId, Time};
use claims::Claims;
use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

/// How often an idle agent hears that the server lives.
const BEAT: Duration = Duration::from_millis(500);
/// A control link that is silent for so long counts as gone.
const SILENT: Duration = Duration::from_secs(3);
/// The most agents that are idle.
const MAX_IDLE: usize = 16_384;
/// The most idle agents from one address.
const MAX_IDLE_PER_ADDRESS: usize = 32;

/// Something for the caller to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetEvent {
    /// The deployment gets this agent: [`crate::deployment::Deployment::on_agent`]. It comes again whenever the agent has called again.
    Lent {
        /// The agent.
        node: NodeId,
        /// The deployment.
        deployment: DeploymentId,
    },
    /// No deployment wants this agent: it waits.
    Idle(NodeId),
    /// This idle agent has been silent for too long: its connection is to be closed.
    Silent(NodeId),
    /// This agent and others say that they are one machine. If the deployment that has it has not begun, it is to be given back.
    Claimed {
        /// The agent.
        node: NodeId,
        /// The deployment.
        deployment: DeploymentId,
    },
    /// These agents have said for some time that they are one machine: somebody has to look.
    Contested(Vec<NodeId>),
    /// This one of them is the only one again.
    Settled(NodeId),
}

/// Why an agent gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Too many idle agents call from its address.
    Address,
    /// Too many agents are idle.
    Full,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => write!(f, "{MAX_IDLE_PER_ADDRESS} idle agents call from its address already"),
            Self::Full => write!(f, "{MAX_IDLE} agents are idle already"),
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Fleet {
    /// What agents are told of the server.
    version: String,
    agents: BTreeMap<NodeId, Agent>,
    numbers: HashMap<Boot, NodeId>,
    last_id: u32,
    /// The deployments that take agents, the oldest first.
    deployments: Vec<(DeploymentId, Wanted)>,
    claims: Claims,
    beat: Time,
    /// When anything was last brought to this machine.
    looked: Time,
    orders: VecDeque<(NodeId, ToAgent)>,
    events: VecDeque<FleetEvent>,
}

impl Fleet {
    /// A fleet without agents. Agents are told `version` as that of the server.
    #[must_use]
    pub fn new(version: String, now: Time) -> Self {
        Self {
            version,
            agents: BTreeMap::new(),
            numbers: HashMap::new(),
            last_id: 0,
            deployments: Vec::new(),
            claims: Claims::default(),
            beat: now,
            looked: now,
            orders: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// All agents that are there or that a deployment waits for, by number.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// One of them.
    #[must_use]
    pub fn agent(&self, node: NodeId) -> Option<&Agent> {
        self.agents.get(&node)
    }

    /// The agent with this run.
    #[must_use]
    pub fn by_boot(&self, boot: &Boot) -> Option<&Agent> {
        self.numbers.get(boot).and_then(|node| self.agents.get(node))
    }

    /// The deployment that has this agent.
    #[must_use]
    pub fn loan(&self, node: NodeId) -> Option<DeploymentId> {
        self.agents.get(&node)?.loan
    }

    /// A number that no agent has or had.
    pub fn new_id(&mut self) -> NodeId {
        self.last_id += 1;
        NodeId(self.last_id)
    }

    /// Numbers up to this one were given by an earlier run of the server.
    pub fn reserve(&mut self, last_id: u32) {
        self.last_id = self.last_id.max(last_id);
    }

    /// An earlier run of the server had lent this agent to `deployment`, under this number. It may come back.
    pub fn expect_back(&mut self, node: NodeId, boot: Boot, key: Option<PublicKey>, deployment: DeploymentId) {
        self.reserve(node.0);
        self.numbers.insert(boot, node);
        self.agents.insert(node, Agent { id: node, boot, key, loan: Some(deployment), here: None });
    }

    /// From now on this deployment gets the agents that it wants: idle ones at once, others when they call. Where several want the same
    /// agent, the oldest gets it.
    pub fn open(&mut self, deployment: DeploymentId, wanted: Wanted) {
        self.deployments.push((deployment, wanted));
        self.lend_idle();
    }

    /// This deployment is over: its agents that are there are idle, or go to the next deployment that wants them.
    pub fn close(&mut self, deployment: DeploymentId) {
        self.deployments.retain(|(id, _)| *id != deployment);
        let of_it = |agent: &&Agent| agent.loan == Some(deployment);
        let nodes: Vec<NodeId> = self.agents().filter(of_it).map(|agent| agent.id).collect();
        nodes.into_iter().for_each(|node| self.give_back(node));
        self.lend_idle();
    }

    /// The deployment does not take this agent, or needs it no longer.
    pub fn give_back(&mut self, node: NodeId) {
        let Some(agent) = self.agents.get_mut(&node) else { return };
        agent.loan = None;
        match &mut agent.here {
            None => self.forget(node),
            Some(here) => {
                here.heard = self.looked;
                self.events.push_back(FleetEvent::Idle(node));
            }
        }
    }

    fn lend_idle(&mut self) {
        let idle: Vec<NodeId> = self.agents().filter(|agent| agent.is_idle()).map(|agent| agent.id).collect();
        for node in idle {
            let Some(agent) = self.agents.get(&node) else { continue };
            let Some(here) = &agent.here else { continue };
            let Some(deployment) = self.wanting(Some(node), &here.hello, agent.key) else { continue };
            self.agents.entry(node).and_modify(|agent| agent.loan = Some(deployment));
            self.events.push_back(FleetEvent::Lent { node, deployment });
        }
    }

    /// The oldest deployment that wants an agent with this hello and may have it.
    fn wanting(&self, node: Option<NodeId>, hello: &Hello, key: Option<PublicKey>) -> Option<DeploymentId> {
        let contested = self.claims.is_contested(node, hello);
        let may = |wanted: &Wanted| !contested || !wanted.names_machines();
        self.deployments.iter().find(|(_, wanted)| may(wanted) && wanted.takes(hello, key)).map(|(id, _)| *id)
    }

    /// Whether this agent is there and another one, which is there as well, says that it is the same machine.
    #[must_use]
    pub fn is_contested(&self, node: NodeId) -> bool {
        let here = self.agents.get(&node).and_then(|agent| agent.here.as_ref());
        here.is_some_and(|here| self.claims.is_contested(Some(node), &here.hello))
    }

    /// The deployment that has this agent has heard it again, or hears nothing of it: a machine that is off claims nothing.
    pub fn set_heard(&mut self, node: NodeId, heard: bool) {
        let Some(here) = self.agents.get(&node).and_then(|agent| agent.here.as_ref()) else { return };
        let hello = here.hello.clone();
        match heard {
            true => self.claim(node, &hello),
            false => self.unclaim(node, &hello),
        }
    }

    fn claim(&mut self, node: NodeId, hello: &Hello) {
        self.claims.on_here(node, hello, self.looked);
        let rivals = self.claims.rivals(Some(node), hello);
        if rivals.is_empty() {
            return;
        }
        for node in rivals.into_iter().chain([node]) {
            let Some(deployment) = self.loan(node) else { continue };
            if self.deployments.iter().any(|(id, wanted)| *id == deployment && wanted.names_machines()) {
                self.events.push_back(FleetEvent::Claimed { node, deployment });
            }
        }
    }

    fn unclaim(&mut self, node: NodeId, hello: &Hello) {
        let alone = self.claims.on_away(node, hello);
        self.settle(alone);
    }

    /// Whoever of these shares no address any more is held no longer.
    fn settle(&mut self, nodes: BTreeSet<NodeId>) {
        for other in nodes {
            if self.is_contested(other) {
                continue;
            }
            let Some(told) = self.claims.settle(other) else { continue };
            if told {
                self.events.push_back(FleetEvent::Settled(other));
            }
            if self.agents.get(&other).is_some_and(Agent::is_idle) {
                self.events.push_back(FleetEvent::Idle(other));
                self.lend_idle();
            }
        }
    }

    /// Whether this run of an agent is known with another key: then it is not what it says.
    #[must_use]
    pub fn has_other_key(&self, boot: &Boot, key: Option<PublicKey>) -> bool {
        self.by_boot(boot).is_some_and(|agent| agent.key != key)
    }

    /// The deployment that an agent would be lent to if it came in now.
    ///
    /// # Errors
    /// [`NoPlace`]: no deployment wants it, and it can't wait.
    pub fn destination(&self, caller: &Caller) -> Result<Option<DeploymentId>, NoPlace> {
        let known = self.by_boot(&caller.hello.boot);
        let new = || self.wanting(known.map(|agent| agent.id), &caller.hello, caller.key);
        let destination = known.and_then(|agent| agent.loan).or_else(new);
        if destination.is_none() && known.is_none() {
            let idle = |from: Option<IpAddr>| {
                let here = self.agents().filter(|agent| agent.is_idle()).filter_map(|agent| agent.here.as_ref());
                here.filter(|here| from.is_none_or(|from| from == here.address)).count()
            };
            if !caller.address.is_loopback() && idle(Some(caller.address)) >= MAX_IDLE_PER_ADDRESS {
                return Err(NoPlace::Address);
            }
            if idle(None) >= MAX_IDLE {
                return Err(NoPlace::Full);
            }
        }
        Ok(destination)
    }

    /// An agent has come in: gives its number, which a run of an agent keeps. To be asked before: [`Self::has_other_key`] and
    /// [`Self::destination`].
    pub fn on_agent(&mut self, caller: Caller, now: Time) -> NodeId {
        self.look_up(now);
        let loan = self.destination(&caller).ok().flatten();
        let Caller { hello, key, address, card, .. } = caller;
        let node = self.numbers.get(&hello.boot).copied().unwrap_or_else(|| self.new_id());
        let boot = hello.boot;
        self.numbers.insert(boot, node);
        // Those that it shared an address with are looked at only when it has said anew which it has.
        let before = self.agents.get(&node).and_then(|agent| agent.here.as_ref());
        let before = before.filter(|before| before.hello.cards != hello.cards).map(|before| before.hello.clone());
        let alone = before.map(|before| self.claims.on_away(node, &before)).unwrap_or_default();
        let claimed = hello.clone();
        let here = Some(Here { hello, card, address, since: now, heard: now });
        self.agents.insert(node, Agent { id: node, boot, key, loan, here });
        match loan {
            Some(deployment) => self.events.push_back(FleetEvent::Lent { node, deployment }),
            None => {
                let welcome = Welcome { node, server_version: self.version.clone() };
                self.orders.push_back((node, ToAgent::Welcome(welcome)));
                self.events.push_back(FleetEvent::Idle(node));
            }
        }
        self.claim(node, &claimed);
        self.settle(alone);
        node
    }

    /// An agent that is idle has said something.
    pub fn on_message(&mut self, node: NodeId, now: Time) {
        self.look_up(now);
        if let Some(here) = self.agents.get_mut(&node).and_then(|agent| agent.here.as_mut()) {
            here.heard = now;
        }
    }

    /// The control link of an agent is gone. A deployment that has it keeps it: it may call again.
    pub fn on_gone(&mut self, node: NodeId) {
        let Some(agent) = self.agents.get_mut(&node) else { return };
        let (here, idle) = (agent.here.take(), agent.loan.is_none());
        here.into_iter().for_each(|here| self.unclaim(node, &here.hello));
        if idle {
            self.forget(node);
        }
    }

    /// Nobody needs this agent's number any longer: if its run calls again, it gets another one.
    pub fn forget(&mut self, node: NodeId) {
        if let Some(agent) = self.agents.remove(&node) {
            self.numbers.remove(&agent.boot);
            agent.here.into_iter().for_each(|here| self.unclaim(node, &here.hello));
        }
    }

    /// If the server itself stood still, silence of others means nothing.
    fn look_up(&mut self, now: Time) {
        if now.since(self.looked) >= BEAT * 3 / 2 {
            let here = self.agents.values_mut().filter_map(|agent| agent.here.as_mut());
            here.for_each(|here| here.heard = now);
        }
        self.looked = now;
    }

    /// Lets time pass.
    pub fn on_time(&mut self, now: Time) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        self.look_up(now);
        self.beat = now;
        while let Some(node) = self.claims.poll(now) {
            let here = self.agents.get(&node).and_then(|agent| agent.here.as_ref());
            let rivals = here.map(|here| self.claims.rivals(Some(node), &here.hello)).unwrap_or_default();
            let nodes: Vec<NodeId> = rivals.into_iter().chain([node]).collect();
            self.claims.on_told(&nodes);
            self.events.push_back(FleetEvent::Contested(nodes));
        }
        for agent in self.agents.values().filter(|agent| agent.loan.is_none()) {
            let Some(here) = &agent.here else { continue };
            if now.since(here.heard) >= SILENT {
                self.events.push_back(FleetEvent::Silent(agent.id));
            } else {
                self.orders.push_back((agent.id, ToAgent::Heartbeat));
            }
        }
    }

    /// When [`Self::on_time`] must be called at the latest; nothing while no agent is idle and nothing is to be told.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        (self.agents().any(Agent::is_idle) || self.claims.has_untold()).then(|| self.beat.after(BEAT))
    }

    /// The next order to send.
    pub fn poll_order(&mut self) -> Option<(NodeId, ToAgent)> {
        self.orders.pop_front()
    }

    /// The next thing to act on.
    pub fn poll_event(&mut self) -> Option<FleetEvent> {
        self.events.pop_front()
    }
}
