//! The machine of one deployment, at the server: when it starts, which chains there are, which nodes are done or lost, and when
//! it is over.
//!
//! It is made of owners. [`roster`] knows which nodes there are and whether each is heard, [`topology`] which node stands where and
//! with which orders, [`ledger`] what each node has and how fast it is. Only [`Deployment`] sees all three, and decides: what reaches it
//! is in [`inputs`], what follows from that, and in which order, in [`rules`].
//!
//! The caller owns sockets, feeds and the image. It brings messages and the time, sends what [`Deployment::poll_order`]
//! gives, and acts on [`Deployment::poll_event`].

mod blame;
mod comparing;
mod inputs;
mod ledger;
mod lost;
mod mend;
mod orders;
mod passes;
mod places;
mod presence;
mod record;
mod repairs;
mod resume;
mod roster;
mod rules;
mod saved;
mod slow;
mod stalls;
mod standing;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod topology;
mod turn;

pub use crate::feed::FeedEvent;
pub use places::NoRoom;
pub use record::NodeRecord;
pub use repairs::{Repair, RepairKind};
pub use saved::{Saved, SavedEnd, SavedNode};
pub use standing::{Outcome, Place, Standing};

use crate::control::{Prepare, ToAgent};
use crate::link::Terms;
use crate::plan::{Plan, PlanCard, PlanLimits};
use crate::reason::EndState;
use crate::set::BlockSet;
use crate::units::{BlockNo, NodeId, Time};
use blame::Blame;
use core::time::Duration;
use ledger::Ledger;
use repairs::RepairLog;
use resume::Resumption;
use roster::{Member, Roster};
use stalls::Attention;
use std::collections::VecDeque;
use std::net::SocketAddr;
use timers::{HEARTBEAT, MIN_PASS_INTERVAL, Timer, Timers};
use topology::{Chain, Topology};

/// What a deployment is told at the start.
#[derive(Clone, Debug)]
pub struct DeploymentConfig {
    /// What every agent is told.
    pub prepare: Prepare,
    /// The number of blocks.
    pub blocks: u32,
    /// From this all link keys are derived; random, used for this deployment only.
    pub secret: [u8; 32],
    /// How many ready nodes start it.
    pub wait_for: u32,
    /// How long to wait for them.
    pub timeout: Option<Duration>,
    /// How long after the start nodes may still come; nothing for as long as it runs.
    pub join_window: Option<Duration>,
    /// The cards of the server.
    pub cards: Vec<PlanCard>,
    /// Bounds of the plan.
    pub limits: PlanLimits,
    /// The version that agents are told.
    pub version: String,
}

/// Something for the caller to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeploymentEvent {
    /// The chains are fixed and the orders are on their way.
    PlanFixed(Plan),
    /// Connect to the head at this address and feed it. A feed that the chain has already is replaced.
    StartFeed {
        /// The chain.
        chain: u16,
        /// The terms of the link.
        terms: Terms,
        /// Where the head listens.
        address: SocketAddr,
        /// The blocks to send, of which the head takes what its chain lacks.
        blocks: BlockSet,
    },
    /// Nobody of the chain needs its feed any more.
    StopFeed {
        /// The chain.
        chain: u16,
    },
    /// A node says that this block is wrong: check it in the image file, then [`Deployment::on_block_checked`].
    CheckBlock(BlockNo),
    /// Something about this node is new.
    NodeChanged(NodeId),
    /// A deployment that another run of the server began goes on.
    Resumed,
    /// A node that was lost is back as another one, after its agent was started again.
    Replaced {
        /// The one that is no more.
        old: NodeId,
        /// The one that is there for it.
        new: NodeId,
    },
    /// This record is no more: its agent took no part, and is gone or makes room for others. Its connection is to be closed.
    Forgotten {
        /// The node.
        node: NodeId,
        /// The run of the agent that it was.
        boot: [u8; 16],
    },
    /// A line for the operator: who was lost, moved, late or is back, and why.
    Note(String),
    /// All is over; the orders still waiting are to be sent, then everything may be closed.
    Over,
}

/// How far the deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nodes come; nothing is written.
    Waiting,
    /// The plan is fixed.
    Running,
    /// Every node has ended.
    Over {
        /// Whether anything was ever written.
        started: bool,
        /// Whether somebody stopped it.
        stopped: bool,
    },
}

/// The machine of one deployment.
#[derive(Debug)]
pub struct Deployment {
    config: DeploymentConfig,
    stage: Stage,
    roster: Roster,
    /// The highest number that a node has or had.
    last_id: u32,
    topology: Topology,
    ledger: Ledger,
    timers: Timers,
    fixed: Option<Time>,
    over: Option<Time>,
    /// When consequences were drawn last.
    settled: Time,
    attention: Attention,
    resumption: Resumption,
    /// Enough ready nodes do not start it: [`Self::begin`] does.
    waits_for_turn: bool,
    /// Something is new that must be kept for another run of the server.
    unsaved: bool,
    repairs: RepairLog,
    blame: Blame,
    orders: VecDeque<(NodeId, ToAgent)>,
    events: VecDeque<DeploymentEvent>,
}

impl Deployment {
    /// A deployment that waits for its nodes.
    #[must_use]
    pub fn new(config: DeploymentConfig, now: Time) -> Self {
        let topology = Topology::new(config.prepare.deployment, config.secret);
        let ledger = Ledger::new(config.blocks);
        let mut timers = Timers::default();
        timers.set(Timer::Heartbeat, now.after(HEARTBEAT));
        timers.set(Timer::NextPass, now.after(MIN_PASS_INTERVAL));
        if let Some(timeout) = config.timeout {
            timers.set(Timer::Start, now.after(timeout));
        }
        Self {
            config,
            stage: Stage::Waiting,
            roster: Roster::default(),
            last_id: 0,
            topology,
            ledger,
            timers,
            fixed: None,
            over: None,
            settled: now,
            attention: Attention::new(now),
            resumption: Resumption::No,
            waits_for_turn: false,
            unsaved: false,
            repairs: RepairLog::default(),
            blame: Blame::default(),
            orders: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// How far it is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// All nodes that ever came, by number.
    pub fn nodes(&self) -> impl Iterator<Item = NodeRecord<'_>> {
        self.roster.members().filter_map(|member| self.record(member))
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<NodeRecord<'_>> {
        self.roster.get(id).and_then(|member| self.record(member))
    }

    fn record<'a>(&'a self, member: &'a Member) -> Option<NodeRecord<'a>> {
        let account = self.ledger.account(member.id)?;
        Some(NodeRecord::new(member, self.topology.seat(member.id), account))
    }

    /// What is known of these nodes.
    fn records(&self, ids: &[NodeId]) -> impl Iterator<Item = NodeRecord<'_>> {
        ids.iter().filter_map(|id| self.node(*id))
    }

    /// Every change of a chain since the plan was fixed, oldest first.
    #[must_use]
    pub fn repairs(&self) -> &[Repair] {
        self.repairs.all()
    }

    /// The nodes of each chain as it stands, head first; those of catch-up passes come after those of the plan.
    pub fn chains(&self) -> impl Iterator<Item = &[NodeId]> {
        self.topology.chains().map(Chain::nodes)
    }

    /// When the plan was fixed, and when the last node ended.
    #[must_use]
    pub fn times(&self) -> (Option<Time>, Option<Time>) {
        (self.fixed, self.over)
    }

    /// The exit code of the contract, once all is over: 0 every node done (or written where that was asked for), 3 some
    /// node failed or it was stopped after arming, 1 nothing was started.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        let Stage::Over { started, stopped } = self.stage else { return None };
        if !started {
            return Some(1);
        }
        let good = self
            .nodes()
            .filter(|node| node.place.is_some())
            .all(|node| node.outcome().is_some_and(|outcome| outcome.state != EndState::Failed));
        Some(if good && !stopped { 0 } else { 3 })
    }

    /// The number of a run of an agent that takes part, or took part when another run of the server had this deployment. It keeps
    /// this number for as long as the deployment lasts.
    #[must_use]
    pub fn number_of(&self, boot: &[u8; 16]) -> Option<NodeId> {
        let known = self.roster.of_boot(boot);
        known.or_else(|| self.expected(boot))
    }

    /// When [`Self::on_time`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.timers.next().unwrap_or(self.settled)
    }

    /// The next order to send.
    pub fn poll_order(&mut self) -> Option<(NodeId, ToAgent)> {
        self.orders.pop_front()
    }

    /// The next thing to act on.
    pub fn poll_event(&mut self) -> Option<DeploymentEvent> {
        self.events.pop_front()
    }

    /// Something for the operator to read.
    fn note(&mut self, text: String) {
        self.events.push_back(DeploymentEvent::Note(text));
    }
}
