//! What a server does around its fleet and all its deployments: which of them hears an agent, gets it and loses it, and whose control
//! links are closed.
//!
//! The caller owns the control links. It brings agents, what they say and the time, and does what [`Host::poll`] gives, in that order.

use super::{Hosted, HostedAct};
use crate::approval::{Boot, Caller};
use crate::control::{Abort, ToAgent, ToServer};
use crate::deployment::{NoRoom, Stage};
use crate::fleet::{Fleet, FleetEvent, NoPlace, Wanted};
use crate::noise::PublicKey;
use crate::reason::Reason;
use crate::units::{DeploymentId, NodeId, Time};
use core::fmt;
use std::collections::{BTreeMap, VecDeque};

/// Why an agent is given back before the start.
const CLAIMED: &str = "another machine that is connected has the same hardware address";

/// Something for the caller to do.
#[derive(Debug)]
pub enum HostAct {
    /// Send this to an agent.
    Send(NodeId, ToAgent),
    /// An agent came in, is idle again, or was lent to a deployment.
    Machine(NodeId),
    /// This agent takes part in nothing any more: its control link is closed once everything was sent.
    Part(NodeId),
    /// This idle agent was silent for too long: [`Host::on_gone`] was called for it, its control link is to be closed.
    Silent(NodeId),
    /// These agents have said for some time that they are one machine: deployments that name their machines get none of them.
    Contested(Vec<NodeId>),
    /// This one of them is the only one again.
    Settled(NodeId),
    /// A deployment does not take this agent.
    NotTaken(DeploymentId, NodeId, NoRoom),
    /// Something for one deployment. Orders to agents come as [`HostAct::Send`].
    Of(DeploymentId, HostedAct),
}

/// Why an agent does not come in.
#[derive(Debug)]
pub enum Refused {
    /// It can't wait until a deployment wants it.
    NoPlace(NoPlace),
    /// The deployment that wants it has no room.
    NoRoom(NoRoom),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPlace(no_place) => no_place.fmt(f),
            Self::NoRoom(no_room) => no_room.fmt(f),
        }
    }
}

/// The fleet and all deployments of a server.
#[derive(Debug)]
pub struct Host {
    fleet: Fleet,
    deployments: BTreeMap<DeploymentId, Hosted>,
    acts: VecDeque<HostAct>,
}

impl Host {
    /// Neither agents nor deployments. Agents are told `version` as that of the server.
    #[must_use]
    pub fn new(version: String, now: Time) -> Self {
        Self { fleet: Fleet::new(version, now), deployments: BTreeMap::new(), acts: VecDeque::new() }
    }

    /// The agents.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// A number that no agent has or had.
    pub fn new_id(&mut self) -> NodeId {
        self.fleet.new_id()
    }

    /// A deployment.
    #[must_use]
    pub fn get(&self, id: DeploymentId) -> Option<&Hosted> {
        self.deployments.get(&id)
    }

    /// A deployment, to bring it what happens.
    pub fn get_mut(&mut self, id: DeploymentId) -> Option<&mut Hosted> {
        self.deployments.get_mut(&id)
    }

    /// The deployment that has this agent.
    #[must_use]
    pub fn of_agent(&self, node: NodeId) -> Option<DeploymentId> {
        self.fleet.loan(node).filter(|id| self.deployments.contains_key(id))
    }

    /// Whether this run of an agent is in and connected.
    #[must_use]
    pub fn is_here(&self, boot: &Boot) -> bool {
        let Some(agent) = self.fleet.by_boot(boot) else { return false };
        match agent.loan.and_then(|id| self.deployments.get(&id)) {
            Some(hosted) => hosted.deployment().node(agent.id).is_some_and(|node| node.connected),
            None => agent.here.is_some(),
        }
    }

    /// An earlier run of the server had lent these agents to a deployment, and given numbers up to `last_id`. They may come back.
    pub fn expect_back(
        &mut self,
        id: DeploymentId,
        last_id: u32,
        agents: impl IntoIterator<Item = (NodeId, Boot, Option<PublicKey>)>,
    ) {
        self.fleet.reserve(last_id);
        agents.into_iter().for_each(|(node, boot, key)| self.fleet.expect_back(node, boot, key, id));
    }

    /// A deployment begins, and gets the agents that it wants.
    pub fn open(&mut self, id: DeploymentId, hosted: Hosted, wanted: Wanted, now: Time) {
        self.deployments.insert(id, hosted);
        self.fleet.open(id, wanted);
        // At once: an agent that goes must be known to the deployment that it was lent to.
        self.carry_fleet(now);
    }

    /// A deployment that is over gives its agents back, and others get those that they want.
    pub fn close(&mut self, id: DeploymentId, now: Time) {
        self.deployments.remove(&id);
        self.fleet.close(id);
        self.carry_fleet(now);
    }

    /// All of them end with the server; no agent is told.
    pub fn clear(&mut self) {
        self.deployments.clear();
    }

    /// Takes a deployment out that is over. Its agents are its own until [`Self::close`].
    pub fn take(&mut self, id: DeploymentId) -> Option<Hosted> {
        self.deployments.remove(&id)
    }

    /// An agent that may take part has said hello; gives its number.
    ///
    /// # Errors
    /// [`Refused`]: there is no place for it.
    pub fn on_agent(&mut self, caller: Caller, now: Time) -> Result<NodeId, Refused> {
        let destination = self.fleet.destination(&caller).map_err(Refused::NoPlace)?;
        if let Some(hosted) = destination.and_then(|id| self.deployments.get_mut(&id)) {
            hosted.deployment_mut().make_room(&caller.hello, caller.address).map_err(Refused::NoRoom)?;
        }
        let node = self.fleet.on_agent(caller, now);
        self.carry_fleet(now);
        Ok(node)
    }

    /// An agent has said something; gives whether a deployment heard it.
    pub fn on_message(&mut self, node: NodeId, message: ToServer, now: Time) -> bool {
        match self.fleet.loan(node).and_then(|id| self.deployments.get_mut(&id)) {
            Some(hosted) => {
                hosted.deployment_mut().on_message(node, message, now);
                true
            }
            None => {
                self.fleet.on_message(node, now);
                false
            }
        }
    }

    /// The control link of an agent is gone.
    pub fn on_gone(&mut self, node: NodeId, why: &str, now: Time) {
        if let Some(hosted) = self.fleet.loan(node).and_then(|id| self.deployments.get_mut(&id)) {
            hosted.deployment_mut().on_gone(node, why, now);
        }
        self.fleet.on_gone(node);
    }

    /// Lets time pass.
    pub fn on_time(&mut self, now: Time) {
        self.deployments.values_mut().for_each(|hosted| hosted.on_time(now));
        self.fleet.on_time(now);
        self.carry_fleet(now);
    }

    /// When [`Self::on_time`] and [`Self::poll`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.deployments.values().map(Hosted::deadline).chain(self.fleet.deadline()).min()
    }

    /// The next thing to do.
    pub fn poll(&mut self, now: Time) -> Option<HostAct> {
        loop {
            self.carry_fleet(now);
            if let Some(act) = self.acts.pop_front() {
                return Some(act);
            }
            if let Some((node, order)) = self.fleet.poll_order() {
                return Some(HostAct::Send(node, order));
            }
            let next = |(id, hosted): (&DeploymentId, &mut Hosted)| Some((*id, hosted.poll(now)?));
            let (id, act) = self.deployments.iter_mut().find_map(next)?;
            match act {
                HostedAct::Send(node, order) => return Some(HostAct::Send(node, order)),
                // The same run may have called again meanwhile.
                HostedAct::Forgotten(node) if self.is_gone(id, node) => {
                    self.fleet.forget(node);
                    self.acts.push_back(HostAct::Part(node));
                }
                HostedAct::Forgotten(_) => {}
                act => {
                    if let HostedAct::Replaced { old, .. } = act
                        && self.is_gone(id, old)
                    {
                        self.fleet.forget(old);
                    }
                    if let HostedAct::NodeChanged(node) = act {
                        self.hear(id, node);
                    }
                    return Some(HostAct::Of(id, act));
                }
            }
        }
    }

    /// A deployment has heard a node again, or hears nothing of it any more.
    fn hear(&mut self, id: DeploymentId, node: NodeId) {
        let connected = self.deployments.get(&id).and_then(|hosted| Some(hosted.deployment().node(node)?.connected));
        if let Some(connected) = connected.filter(|_| self.fleet.loan(node) == Some(id)) {
            self.fleet.set_heard(node, connected);
        }
    }

    fn is_gone(&self, id: DeploymentId, node: NodeId) -> bool {
        self.deployments.get(&id).is_none_or(|hosted| hosted.deployment().node(node).is_none())
    }

    /// Does what the fleet decides.
    fn carry_fleet(&mut self, now: Time) {
        while let Some(event) = self.fleet.poll_event() {
            match event {
                FleetEvent::Lent { node, deployment } => self.lend(node, deployment, now),
                FleetEvent::Idle(node) => self.acts.push_back(HostAct::Machine(node)),
                FleetEvent::Silent(node) => {
                    self.on_gone(node, "silent", now);
                    self.acts.push_back(HostAct::Silent(node));
                }
                FleetEvent::Claimed { node, deployment } => self.take_back(node, deployment, now),
                FleetEvent::Contested(nodes) => self.acts.push_back(HostAct::Contested(nodes)),
                FleetEvent::Settled(node) => self.acts.push_back(HostAct::Settled(node)),
            }
        }
    }

    /// Another agent says that it is this one's machine: a deployment that has not begun gives it back. One that has goes on with it.
    fn take_back(&mut self, node: NodeId, id: DeploymentId, now: Time) {
        let Some(hosted) = self.deployments.get_mut(&id).filter(|_| self.fleet.loan(node) == Some(id)) else { return };
        if hosted.deployment().stage() != Stage::Waiting {
            return;
        }
        let abort = Abort { deployment: id, reason: Reason::Aborted, detail: CLAIMED.to_owned() };
        self.acts.push_back(HostAct::Send(node, ToAgent::Abort(abort)));
        hosted.deployment_mut().on_gone(node, CLAIMED, now);
        self.fleet.give_back(node);
    }

    fn lend(&mut self, node: NodeId, id: DeploymentId, now: Time) {
        let Some(here) = self.fleet.agent(node).and_then(|agent| agent.here.clone()) else { return };
        let Some(hosted) = self.deployments.get_mut(&id) else { return };
        if let Err(no_room) = hosted.deployment_mut().make_room(&here.hello, here.address) {
            self.acts.push_back(HostAct::NotTaken(id, node, no_room));
            return self.fleet.give_back(node);
        }
        hosted.deployment_mut().on_agent(node, here.hello, here.card, here.address, now);
        self.acts.push_back(HostAct::Machine(node));
    }
}
