//! The machine of one deployment, at the server: who is there, when it starts, which chains there are, who is done, who is
//! lost, and when it is over.
//!
//! The caller owns sockets, feeds and the image. It brings messages and the time, sends what [`Deployment::poll_order`]
//! gives, and acts on [`Deployment::poll_event`].

mod blame;
mod comparing;
mod lost;
mod mend;
mod orders;
mod passes;
mod places;
mod record;
mod repairs;
mod resume;
mod roster;
mod slow;
mod stalls;
mod standing;
#[cfg(test)]
mod tests;
mod topology;

pub use crate::feed::FeedEvent;
pub use places::NoRoom;
pub use record::NodeRecord;
pub use repairs::{Repair, RepairKind};
pub use resume::{Saved, SavedEnd, SavedNode};
pub use standing::{Outcome, Place, Standing};

use crate::control::{Abort, Hello, Prepare, ToAgent, ToServer, Welcome};
use crate::link::Terms;
use crate::plan::{CardId, Plan, PlanCard, PlanLimits};
use crate::reason::{EndState, Reason};
use crate::set::BlockSet;
use crate::units::{BlockNo, NodeId, Time};
use blame::Blame;
use core::time::Duration;
use repairs::RepairLog;
use resume::{Away, Resumed};
use roster::{Member, Roster};
use slow::Paces;
use stalls::Attention;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use topology::{Chain, Rank, Topology};

/// How often the server says that it lives.
const BEAT: Duration = Duration::from_millis(500);
/// A control link that is silent for so long counts as gone.
const SILENT: Duration = Duration::from_secs(3);
/// How long a node that was told of the image keeps a deployment open that is over otherwise.
const COMING: Duration = Duration::from_secs(5);

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
    /// What is remembered of who was slow, by chain.
    paces: BTreeMap<usize, Paces>,
    /// When the newest pass began.
    passed: Time,
    began: Time,
    fixed: Option<Time>,
    over: Option<Time>,
    beat: Time,
    /// When consequences were drawn last, and whether a report has come since.
    settled: Time,
    unsettled: bool,
    attention: Attention,
    /// Of another run of the server, whose agents may come back.
    saved: Option<Saved>,
    resumed: Option<Resumed>,
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
        Self {
            config,
            stage: Stage::Waiting,
            roster: Roster::default(),
            last_id: 0,
            topology,
            paces: BTreeMap::new(),
            passed: now,
            began: now,
            fixed: None,
            over: None,
            beat: now,
            settled: now,
            unsettled: false,
            attention: Attention::new(now),
            saved: None,
            resumed: None,
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
        self.roster.members().map(|member| NodeRecord::new(member, self.topology.seat(member.id)))
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<NodeRecord<'_>> {
        self.roster.get(id).map(|member| NodeRecord::new(member, self.topology.seat(id)))
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

    /// An agent has said hello over its control link. `id` is its number: [`Self::number_of`] its run where that has one, otherwise one that
    /// no other agent has or had here. `address` is where it called from, `card` the card of the server that it hangs on.
    pub fn on_agent(&mut self, id: NodeId, hello: Hello, card: CardId, address: IpAddr, now: Time) {
        self.last_id = self.last_id.max(id.0);
        let welcome = Welcome { node: id, server_version: self.config.version.clone() };
        self.orders.push_back((id, ToAgent::Welcome(welcome)));
        if let Some(node) = self.roster.get_mut(id) {
            (node.connected, node.gone, node.heard) = (true, None, now);
            (node.hello, node.card, node.address) = (hello, card, address);
            if node.away == Away::No {
                self.greet(id, now);
            } else {
                // First it is to say whether it kept its state.
                node.away = Away::Called(now);
            }
            return;
        }
        let expected = self.expected(&hello.boot) == Some(id);
        let mut node = Member::new(id, hello, card, address, self.config.blocks, now);
        node.late = self.stage != Stage::Waiting;
        node.away = if expected { Away::Called(now) } else { Away::No };
        self.roster.insert(node);
        if !expected {
            self.greet(id, now);
        }
    }

    /// Tells a node that said hello what is to be deployed, or where it left off.
    fn greet(&mut self, id: NodeId, now: Time) {
        let open = self.stage == Stage::Waiting || (self.stage == Stage::Running && self.join_open(now));
        let Some(node) = self.roster.get_mut(id) else { return };
        if node.was_unheard() {
            // It may never have got its first place, and then it knows of nothing: it begins from the start.
            node.begins = true;
            self.orders.push_back((id, ToAgent::Prepare(self.config.prepare.clone())));
        }
        match &node.standing {
            Standing::Running(_) => {
                let join = self.topology.seat(id).join().cloned();
                self.orders.extend(join.map(|join| (id, ToAgent::Join(join))));
            }
            // It was given up because nothing was heard of it; now it is back.
            Standing::Ended(outcome) if outcome.reason == Reason::NodeLost && self.stage == Stage::Running => {
                self.revive(id, now);
            }
            Standing::Ended(_) => {
                // Others may still need it: it must know of what was changed while it could not be told.
                let seat = self.topology.seat(id);
                let join = seat.join().filter(|_| seat.chain().is_some() && !node.finished).cloned();
                node.finished = false;
                self.orders.extend(join.map(|join| (id, ToAgent::Join(join))));
            }
            _ if open || node.place.is_some() => {
                (node.standing, node.begins) = (Standing::Preparing, true);
                self.orders.push_back((id, ToAgent::Prepare(self.config.prepare.clone())));
            }
            _ => {
                let detail = "the deployment had started".to_owned();
                node.standing = Standing::Refused { reason: Reason::JoinedTooLate, detail: detail.clone() };
                self.order_abort(id, Reason::JoinedTooLate, detail);
            }
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
    }

    /// Whether late nodes are taken in.
    fn join_open(&self, now: Time) -> bool {
        match (self.config.join_window, self.fixed) {
            (Some(window), Some(fixed)) => now.since(fixed) < window,
            _ => true,
        }
    }

    fn order_abort(&mut self, id: NodeId, reason: Reason, detail: String) {
        let deployment = self.config.prepare.deployment;
        self.orders.push_back((id, ToAgent::Abort(Abort { deployment, reason, detail })));
    }

    /// A message of a node's control link.
    pub fn on_message(&mut self, id: NodeId, message: ToServer, now: Time) {
        let deployment = self.config.prepare.deployment;
        self.look_up(now);
        self.hear_returned(id, &message, now);
        let Some(node) = self.roster.get_mut(id) else { return };
        let silence = now.since(node.heard);
        (node.heard, node.suspected) = (now, None);
        if !node.connected {
            (node.connected, node.gone) = (true, None);
            self.greet(id, now);
        }
        let Some(node) = self.roster.get_mut(id) else { return };
        match message {
            ToServer::Hello(_) | ToServer::Heartbeat | ToServer::Log(_) | ToServer::ApprovalShare(_) => return,
            // It was told to begin, and speaks of the run that it drops for that: what this one had done counts no more.
            ToServer::Progress(_) | ToServer::Ended(_) | ToServer::BadBlock(_) | ToServer::Link(_) if node.begins => {
                return;
            }
            ToServer::Ready(ready) => {
                node.begins &= ready.deployment != deployment;
                if ready.deployment == deployment && node.standing == Standing::Preparing {
                    node.standing = Standing::Ready(ready);
                    self.replace_lost(id, now);
                }
            }
            ToServer::Refused(refused) => {
                if refused.deployment == deployment && node.outcome().is_none() && node.place.is_none() {
                    let crate::control::Refused { reason, detail, .. } = refused;
                    node.standing = Standing::Refused { reason, detail };
                }
            }
            ToServer::Progress(progress) => {
                if progress.deployment == deployment {
                    node.take(progress, now);
                    self.on_received(id, now);
                }
                if now.since(self.settled) < self.report_pause() {
                    self.unsettled = true;
                    self.events.push_back(DeploymentEvent::NodeChanged(id));
                    return;
                }
            }
            ToServer::Ended(ended) => {
                if ended.deployment == deployment && node.is_running() {
                    let ended = if ended.root == self.config.prepare.root || ended.state == EndState::Failed {
                        ended
                    } else {
                        let detail = "the node reports another manifest root".to_owned();
                        crate::control::Ended {
                            state: EndState::Failed,
                            reason: Reason::ManifestMismatch,
                            detail,
                            ..ended
                        }
                    };
                    if let Standing::Running(ready) = &node.standing {
                        node.standing = Standing::Ended(Outcome::of(ended, ready.clone(), now));
                        if let Some(charge) = self.blame.charge(id) {
                            node.accuse(charge);
                        }
                        self.unsaved = true;
                    }
                }
            }
            ToServer::BadBlock(bad) => {
                if bad.deployment == deployment && bad.block.0 < self.config.blocks && node.is_running() {
                    self.events.push_back(DeploymentEvent::CheckBlock(bad.block));
                }
            }
            ToServer::Link(event) => {
                if event.deployment == deployment {
                    self.on_link(id, &event, silence, now);
                }
            }
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
        self.settle(now);
    }

    /// The control link of a node is gone.
    pub fn on_gone(&mut self, id: NodeId, detail: &str, now: Time) {
        self.look_up(now);
        let Some(node) = self.roster.get_mut(id) else { return };
        if !node.connected {
            return;
        }
        (node.connected, node.gone) = (false, Some(now));
        if matches!(node.standing, Standing::Preparing | Standing::Ready(_)) && self.stage == Stage::Waiting {
            let detail = format!("it left before the start: {detail}");
            node.standing = Standing::Refused { reason: Reason::NodeLost, detail };
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
        self.on_control_gone(id, detail, now);
        self.settle(now);
        self.forget_left_over();
    }

    /// Something happened on the feed of `chain`.
    pub fn on_feed(&mut self, chain: u16, event: FeedEvent, now: Time) {
        self.look_up(now);
        match event {
            _ if self.stage != Stage::Running => {}
            FeedEvent::Up => self.on_feed_up(chain),
            FeedEvent::Ended => {}
            FeedEvent::Broken { detail, damaged } => self.on_feed_broken(chain, &detail, damaged, now),
            FeedEvent::Down { detail, damaged } => self.on_feed_down(chain, &detail, damaged, now),
            FeedEvent::ImageCorrupt(detail) => self.fail_all(Reason::ImageCorrupt, &detail, now),
            FeedEvent::Waited { network, of } => {
                if self.topology.get(chain).is_some() {
                    self.paces(usize::from(chain)).on_feed_waited(network, of);
                }
            }
        }
        self.settle(now);
    }

    /// A block that a node complained of was checked in the image file; `bad` names file and block if it is rotten, which
    /// ends the deployment.
    pub fn on_block_checked(&mut self, bad: Option<&str>, now: Time) {
        if let Some(detail) = bad {
            self.fail_all(Reason::ImageCorrupt, detail, now);
            self.settle(now);
        }
    }

    /// The operator stops it.
    pub fn on_stop(&mut self, now: Time) {
        match self.stage {
            Stage::Waiting => self.call_off("stopped by the operator before the start", true),
            Stage::Running => {
                self.fail_all(Reason::Aborted, "stopped by the operator", now);
                self.finish(true, now);
            }
            Stage::Over { .. } => {}
        }
    }

    /// Lets time pass.
    pub fn on_time(&mut self, now: Time) {
        self.look_up(now);
        if now.since(self.beat) >= BEAT && !matches!(self.stage, Stage::Over { .. }) {
            self.beat = now;
            let connected: Vec<NodeId> = self.nodes().filter(|node| node.connected).map(|node| node.id).collect();
            self.orders.extend(connected.into_iter().map(|id| (id, ToAgent::Heartbeat)));
        }
        let silent: Vec<NodeId> = self
            .nodes()
            .filter(|node| node.connected && now.since(node.member.heard) >= SILENT)
            .map(|node| node.id)
            .collect();
        for id in silent {
            self.on_gone(id, &format!("silent for {} s", SILENT.as_secs()), now);
        }
        let late = self.config.timeout.is_some_and(|timeout| now.since(self.began) >= timeout);
        if self.stage == Stage::Waiting && late {
            let ready = self.ready().len();
            let detail = format!("{ready} of {} nodes were ready in time", self.config.wait_for);
            return self.call_off(&detail, false);
        }
        if self.stage == Stage::Running {
            self.find_slow(now);
        }
        self.settle(now);
    }

    /// Reports come from all nodes every second, and what follows from one is looked for at all nodes: of very many nodes'
    /// reports some are taken together.
    fn report_pause(&self) -> Duration {
        Duration::from_millis(self.roster.len() as u64 / 50)
    }

    /// When [`Self::on_time`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let deadline = self.beat.after(BEAT);
        if self.unsettled { deadline.min(self.settled.after(self.report_pause())) } else { deadline }
    }

    /// The next order to send.
    pub fn poll_order(&mut self) -> Option<(NodeId, ToAgent)> {
        self.orders.pop_front()
    }

    /// The next thing to act on.
    pub fn poll_event(&mut self) -> Option<DeploymentEvent> {
        self.events.pop_front()
    }

    fn ready(&self) -> Vec<NodeId> {
        self.nodes().filter(|node| matches!(node.standing, Standing::Ready(_))).map(|node| node.id).collect()
    }

    /// Draws the consequences of whatever is new.
    fn settle(&mut self, now: Time) {
        (self.settled, self.unsettled) = (now, false);
        self.time_returned(now);
        match self.stage {
            Stage::Waiting => {
                let ready = self.ready();
                if ready.len() >= self.config.wait_for.max(1) as usize {
                    self.arm(now);
                }
            }
            Stage::Running => {
                if self.gather(now) {
                    return;
                }
                self.lose_suspected(now);
                self.lose_gone(now);
                self.fail_stalled(now);
                self.end_comparing(now);
                self.end_passes(now);
                self.admit_late(now);
                self.catch_up(now);
                self.release_done();
                let coming = |node: &NodeRecord<'_>| {
                    node.connected && *node.standing == Standing::Preparing && now.since(node.member.moved_on) < COMING
                };
                let heard_again =
                    |node: &NodeRecord<'_>| !node.connected && node.member.awaited.is_some_and(|until| now < until);
                let goes_on = |node: &NodeRecord<'_>| {
                    node.is_running() || coming(node) || heard_again(node) || self.is_awaited(node, now)
                };
                if !self.nodes().any(|node| goes_on(&node)) {
                    self.finish(false, now);
                }
            }
            Stage::Over { .. } => {}
        }
    }

    /// A node whose agent was started again is there a second time: same address, same target. The first one is no more.
    fn replace_lost(&mut self, id: NodeId, now: Time) {
        let Some(node) = self.node(id) else { return };
        let same = |other: &NodeRecord<'_>| {
            let lost = matches!(other.standing, Standing::Running(_)) || other.is_lost();
            let placed = other.place.is_some() && !other.connected && lost;
            placed && other.id != id && (other.address, other.target()) == (node.address, node.target())
        };
        let Some(old) = self.nodes().find(same).map(|old| old.id) else { return };
        self.lose(old, "its agent was started again", now);
        let moved = self.topology.seat(old).rank() == Rank::Slow;
        let Some(old) = self.roster.remove(old) else { return };
        self.topology.forget(old.id);
        if moved {
            self.topology.rank_behind(id, Rank::Slow);
        }
        if let Some(node) = self.roster.get_mut(id) {
            (node.place, node.repairs) = (old.place, old.repairs + 1);
            node.returned = old.returned + 1;
        }
        self.blame.rename(old.id, id);
        self.unsaved = true;
        self.events.push_back(DeploymentEvent::Replaced { old: old.id, new: id });
    }

    /// Something for the operator to read.
    fn note(&mut self, text: String) {
        self.events.push_back(DeploymentEvent::Note(text));
    }

    fn fail_all(&mut self, reason: Reason, detail: &str, now: Time) {
        let running: Vec<NodeId> = self.nodes().filter(|node| node.is_running()).map(|node| node.id).collect();
        for id in running {
            self.end_node(id, reason, detail.to_owned(), now);
            self.order_abort(id, reason, detail.to_owned());
        }
    }

    /// Ends a deployment that never started.
    fn call_off(&mut self, detail: &str, stopped: bool) {
        let reason = if stopped { Reason::Aborted } else { Reason::TimedOut };
        self.stage = Stage::Over { started: false, stopped };
        let connected: Vec<NodeId> = self.nodes().filter(|node| node.connected).map(|node| node.id).collect();
        for id in connected {
            self.order_abort(id, reason, detail.to_owned());
        }
        self.events.push_back(DeploymentEvent::Over);
    }

    fn finish(&mut self, stopped: bool, now: Time) {
        self.release_done();
        self.stage = Stage::Over { started: true, stopped };
        self.over = self.nodes().filter_map(|node| node.outcome().map(|outcome| outcome.at)).max().or(Some(now));
        self.events.push_back(DeploymentEvent::Over);
    }
}
