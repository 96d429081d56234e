//! The machine of one deployment, at the server: who is there, when it starts, which chains there are, who is done, who is
//! lost, and when it is over.
//!
//! The caller owns sockets, feeds and the image. It brings messages and the time, sends what [`Deployment::poll_order`]
//! gives, and acts on [`Deployment::poll_event`].

mod record;
#[cfg(test)]
mod tests;

pub use record::{NodeRecord, Outcome, Place, Standing};

use crate::control::{Abort, Finish, Hello, Join, LinkSpec, LinkState, Prepare, Side, ToAgent, ToServer, Welcome};
use crate::link::Terms;
use crate::plan::{CardId, Plan, PlanCard, PlanLimits, PlanNode, plan};
use crate::reason::{EndState, LinkClass, Reason};
use crate::units::{BlockNo, Epoch, LinkKey, NodeId, Time};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// How often the server says that it lives.
const BEAT: Duration = Duration::from_millis(500);
/// A control link that is silent for so long counts as gone.
const SILENT: Duration = Duration::from_secs(3);
/// How long a running node may be without its control link before it counts as lost.
const GRACE: Duration = Duration::from_secs(2);
/// How long nothing may move on a node whose links live.
const STALL: Duration = Duration::from_secs(120);

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
    /// Connect to the head at this address and feed it.
    StartFeed {
        /// The chain.
        chain: u16,
        /// The terms of the link.
        terms: Terms,
        /// Where the head listens.
        address: SocketAddr,
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
    /// All is over; the orders still waiting are to be sent, then everything may be closed.
    Over,
}

/// What happened on a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// The link stands.
    Up,
    /// The link is gone, and why.
    Down(String),
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

#[derive(Debug)]
struct ChainState {
    nodes: Vec<NodeId>,
    feed_needed: bool,
    feed_down: Option<(Time, String)>,
}

/// The machine of one deployment.
#[derive(Debug)]
pub struct Deployment {
    config: DeploymentConfig,
    stage: Stage,
    epoch: Epoch,
    nodes: BTreeMap<NodeId, NodeRecord>,
    last_id: u32,
    chains: Vec<ChainState>,
    began: Time,
    fixed: Option<Time>,
    over: Option<Time>,
    beat: Time,
    orders: VecDeque<(NodeId, ToAgent)>,
    events: VecDeque<DeploymentEvent>,
}

impl Deployment {
    /// A deployment that waits for its nodes.
    #[must_use]
    pub fn new(config: DeploymentConfig, now: Time) -> Self {
        Self {
            config,
            stage: Stage::Waiting,
            epoch: Epoch(0),
            nodes: BTreeMap::new(),
            last_id: 0,
            chains: Vec::new(),
            began: now,
            fixed: None,
            over: None,
            beat: now,
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
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values()
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&id)
    }

    /// The nodes of each chain, head first.
    pub fn chains(&self) -> impl Iterator<Item = &[NodeId]> {
        self.chains.iter().map(|chain| chain.nodes.as_slice())
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

    /// An agent has said hello over its control link. Gives its number. An agent that was here before (same boot) gets its
    /// old number; `address` is where it called from, `card` the card of the server that it hangs on.
    pub fn on_agent(&mut self, hello: Hello, card: CardId, address: IpAddr, now: Time) -> NodeId {
        let known = self.nodes.values().find(|node| node.hello.boot == hello.boot).map(|node| node.id);
        let welcome = |node| ToAgent::Welcome(Welcome { node, server_version: self.config.version.clone() });
        if let Some(id) = known
            && let Some(node) = self.nodes.get_mut(&id)
        {
            self.orders.push_back((id, welcome(id)));
            (node.connected, node.gone, node.heard) = (true, None, now);
            if node.is_running() {
                let join = node.last_join.clone();
                self.orders.extend(join.map(|join| (id, ToAgent::Join(join))));
                self.events.push_back(DeploymentEvent::NodeChanged(id));
                return id;
            }
            (node.hello, node.card, node.address) = (hello, card, address);
            self.greet(id);
            return id;
        }
        self.last_id += 1;
        let id = NodeId(self.last_id);
        self.orders.push_back((id, welcome(id)));
        let mut node = NodeRecord::new(id, hello, card, address, self.config.blocks, now);
        node.late = self.stage != Stage::Waiting;
        self.nodes.insert(id, node);
        self.greet(id);
        id
    }

    /// Tells a node what is to be deployed, or that it came too late.
    fn greet(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if self.stage == Stage::Waiting {
            node.standing = Standing::Preparing;
            self.orders.push_back((id, ToAgent::Prepare(self.config.prepare.clone())));
        } else if node.outcome().is_none() {
            let detail = "the deployment had started".to_owned();
            node.standing = Standing::Refused { reason: Reason::JoinedTooLate, detail: detail.clone() };
            self.order_abort(id, Reason::JoinedTooLate, detail);
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
    }

    fn order_abort(&mut self, id: NodeId, reason: Reason, detail: String) {
        let deployment = self.config.prepare.deployment;
        self.orders.push_back((id, ToAgent::Abort(Abort { deployment, reason, detail })));
    }

    /// A message of a node's control link.
    pub fn on_message(&mut self, id: NodeId, message: ToServer, now: Time) {
        let deployment = self.config.prepare.deployment;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.heard = now;
        match message {
            ToServer::Hello(_) | ToServer::Heartbeat | ToServer::Log(_) => return,
            ToServer::Ready(ready) => {
                if ready.deployment == deployment && node.standing == Standing::Preparing {
                    node.standing = Standing::Ready(ready);
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
                    let target = node.target().to_owned();
                    node.standing = Standing::Ended(Outcome::of(ended, target, now));
                    node.moved_on = now;
                }
            }
            ToServer::BadBlock(bad) => {
                if bad.deployment == deployment && bad.block.0 < self.config.blocks && node.is_running() {
                    self.events.push_back(DeploymentEvent::CheckBlock(bad.block));
                }
            }
            ToServer::Link(event) => {
                if event.deployment == deployment && event.state == LinkState::Down && event.epoch == self.epoch {
                    self.on_link_down(id, event.peer, event.side, event.reason, &event.detail, now);
                }
            }
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
        self.settle(now);
    }

    /// A node says that the link to `peer` is gone.
    fn on_link_down(&mut self, id: NodeId, peer: NodeId, side: Side, reason: Reason, detail: &str, now: Time) {
        let peer_gone = self.nodes.get(&peer).is_some_and(|node| !node.connected && node.is_running());
        if peer_gone {
            return self.lose(peer, format!("its control link is gone and node {id} says: {detail}"), now);
        }
        // Both neighbours live: the link itself is bad. What is below it can't be reached.
        let lost_side = if side == Side::Downstream { peer } else { id };
        if self.nodes.get(&lost_side).is_some_and(|node| node.is_running() && !node.has_all(self.config.blocks)) {
            let reason = if reason == Reason::DownstreamLost { Reason::UpstreamLost } else { reason };
            self.fail(lost_side, reason, format!("link between node {id} and node {peer}: {detail}"), now);
            self.fail_below(lost_side, now);
        }
    }

    /// The control link of a node is gone.
    pub fn on_gone(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if !node.connected {
            return;
        }
        (node.connected, node.gone) = (false, Some(now));
        if matches!(node.standing, Standing::Preparing | Standing::Ready(_)) && self.stage == Stage::Waiting {
            let detail = format!("it left before the start: {detail}");
            node.standing = Standing::Refused { reason: Reason::NodeLost, detail };
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
        self.settle(now);
    }

    /// Something happened on the feed of `chain`.
    pub fn on_feed(&mut self, chain: u16, event: FeedEvent, now: Time) {
        let Some(state) = self.chains.get_mut(usize::from(chain)) else { return };
        state.feed_down = match event {
            FeedEvent::Up => None,
            FeedEvent::Down(detail) => Some((now, detail)),
        };
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
        if now.since(self.beat) >= BEAT && !matches!(self.stage, Stage::Over { .. }) {
            self.beat = now;
            let connected: Vec<NodeId> = self.nodes().filter(|node| node.connected).map(|node| node.id).collect();
            self.orders.extend(connected.into_iter().map(|id| (id, ToAgent::Heartbeat)));
        }
        let silent: Vec<NodeId> =
            self.nodes().filter(|node| node.connected && now.since(node.heard) >= SILENT).map(|node| node.id).collect();
        for id in silent {
            self.on_gone(id, &format!("silent for {} s", SILENT.as_secs()), now);
        }
        let late = self.config.timeout.is_some_and(|timeout| now.since(self.began) >= timeout);
        if self.stage == Stage::Waiting && late {
            let ready = self.ready().len();
            let detail = format!("{ready} of {} nodes were ready in time", self.config.wait_for);
            return self.call_off(&detail, false);
        }
        self.settle(now);
    }

    /// When [`Self::on_time`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.beat.after(BEAT)
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
        match self.stage {
            Stage::Waiting => {
                let ready = self.ready();
                if ready.len() >= self.config.wait_for.max(1) as usize {
                    self.arm(&ready, now);
                }
            }
            Stage::Running => {
                self.find_lost(now);
                self.release_done();
                let running = self.nodes().any(NodeRecord::is_running);
                if !running {
                    self.finish(false, now);
                }
            }
            Stage::Over { .. } => {}
        }
    }

    /// Fixes the plan and sends the orders: tails first, so that a downstream knows who will call before it is called.
    fn arm(&mut self, ready: &[NodeId], now: Time) {
        let nodes: Vec<PlanNode> = ready.iter().filter_map(|id| self.plan_node(*id)).collect();
        let plan = plan(&self.config.cards, &nodes, &self.config.limits);
        self.stage = Stage::Running;
        self.fixed = Some(now);
        self.epoch = Epoch(1);
        self.events.push_back(DeploymentEvent::PlanFixed(plan.clone()));
        for (chain, planned) in (0u16..).zip(&plan.chains) {
            self.chains.push(ChainState { nodes: planned.nodes.clone(), feed_needed: true, feed_down: None });
            for (position, id) in (1u16..).zip(&planned.nodes) {
                if let Some(node) = self.nodes.get_mut(id) {
                    node.place = Some(Place { chain, position });
                    node.moved_on = now;
                    if let Standing::Ready(ready) = &node.standing {
                        node.standing = Standing::Running(ready.clone());
                    }
                }
            }
            self.order_chain(chain);
        }
    }

    fn plan_node(&self, id: NodeId) -> Option<PlanNode> {
        let node = self.nodes.get(&id)?;
        let Standing::Ready(ready) = &node.standing else { return None };
        let card = node.hello.cards.iter().find(|card| card.addresses.contains(&node.address));
        let mbits = card.map_or(0, |card| card.mbits);
        let (card, address, rotational) = (node.card.clone(), node.address, ready.rotational);
        Some(PlanNode { node: id, card, address, mbits, rotational })
    }

    /// Sends every node of a chain its place in it.
    fn order_chain(&mut self, chain: u16) {
        let Some(ids) = self.chains.get(usize::from(chain)).map(|state| state.nodes.clone()) else { return };
        let deployment = self.config.prepare.deployment;
        let chain_len = u16::try_from(ids.len()).unwrap_or(u16::MAX);
        let specs: Vec<LinkSpec> = ids
            .iter()
            .enumerate()
            .filter_map(|(at, id)| {
                let node = self.nodes.get(id)?;
                let upstream = at.checked_sub(1).map_or(NodeId::SERVER, |before| ids[before]);
                let address = SocketAddr::new(node.address, node.hello.link_port);
                Some(LinkSpec { node: *id, address, key: self.link_key(upstream, *id), class: LinkClass::Paced })
            })
            .collect();
        for (at, spec) in specs.iter().enumerate().rev() {
            let upstream = at.checked_sub(1).map_or(NodeId::SERVER, |before| ids[before]);
            let join = Join {
                deployment,
                epoch: self.epoch,
                pass: 1,
                chain,
                position: u16::try_from(at + 1).unwrap_or(u16::MAX),
                chain_len,
                upstream: LinkSpec { node: upstream, ..spec.clone() },
                downstream: specs.get(at + 1).cloned(),
            };
            if let Some(node) = self.nodes.get_mut(&spec.node) {
                node.last_join = Some(join.clone());
            }
            self.orders.push_back((spec.node, ToAgent::Join(join)));
        }
        if let Some(head) = specs.into_iter().next() {
            let terms = Terms {
                deployment,
                epoch: self.epoch,
                pass: 1,
                from: NodeId::SERVER,
                to: head.node,
                key: head.key,
                class: head.class,
            };
            self.events.push_back(DeploymentEvent::StartFeed { chain, terms, address: head.address });
        }
    }

    /// The key of the link between two nodes in this epoch: nobody else can derive it.
    fn link_key(&self, from: NodeId, to: NodeId) -> LinkKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.config.secret);
        hasher.update(b"slidecast link key 1");
        hasher.update(&self.epoch.0.to_le_bytes()).update(&from.0.to_le_bytes()).update(&to.0.to_le_bytes());
        LinkKey(*hasher.finalize().as_bytes())
    }

    /// Gives up nodes whose control link is gone for too long, heads that can't be fed, and nodes on which nothing moves.
    fn find_lost(&mut self, now: Time) {
        let over = |since: Option<Time>, span| since.is_some_and(|at| now.since(at) >= span);
        let lost: Vec<NodeId> = self
            .nodes()
            .filter(|node| node.is_running() && !node.connected && over(node.gone, GRACE))
            .map(|node| node.id)
            .collect();
        for id in lost {
            self.lose(id, format!("its control link has been gone for {} s", GRACE.as_secs()), now);
        }
        for chain in 0..self.chains.len() {
            let state = &self.chains[chain];
            let (Some((_, detail)), Some(head)) = (&state.feed_down, state.nodes.first().copied()) else { continue };
            let detail = format!("the server can't feed it: {detail}");
            let waiting =
                self.nodes.get(&head).is_some_and(|node| node.is_running() && !node.has_all(self.config.blocks));
            if waiting {
                self.fail(head, Reason::UpstreamLost, detail, now);
                self.fail_below(head, now);
            }
        }
        let stalled: Vec<(NodeId, String)> = self
            .nodes()
            .filter(|node| node.is_running() && node.connected && now.since(node.moved_on) >= STALL)
            .map(|node| {
                let waits = node.progress.as_ref().map_or("its first report", |progress| {
                    let waits = [
                        (progress.wait_disk_ms, "its disk"),
                        (progress.wait_downstream_ms, "its downstream"),
                        (progress.wait_upstream_ms, "its upstream"),
                    ];
                    waits.into_iter().max_by_key(|(ms, _)| *ms).map_or("", |(_, what)| what)
                });
                (node.id, format!("nothing has moved for {} s; it waits for {waits}", STALL.as_secs()))
            })
            .collect();
        for (id, detail) in stalled {
            self.fail(id, Reason::TimedOut, detail, now);
        }
    }

    /// A node is dead. Whoever is below it and lacks anything can't get it any more.
    fn lose(&mut self, id: NodeId, detail: String, now: Time) {
        self.fail(id, Reason::NodeLost, detail, now);
        self.fail_below(id, now);
    }

    fn fail_below(&mut self, id: NodeId, now: Time) {
        let Some(place) = self.nodes.get(&id).and_then(|node| node.place) else { return };
        let name = self.nodes.get(&id).map(NodeRecord::name).unwrap_or_default();
        let below = self.chains[usize::from(place.chain)].nodes.iter().skip(usize::from(place.position)).copied();
        for node in below.collect::<Vec<_>>() {
            let lacking =
                self.nodes.get(&node).is_some_and(|node| node.is_running() && !node.has_all(self.config.blocks));
            if lacking {
                let detail = format!("node {id}, {name}, up the chain was lost");
                self.fail(node, Reason::UpstreamLost, detail, now);
            }
        }
    }

    fn fail(&mut self, id: NodeId, reason: Reason, detail: String, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if !node.is_running() {
            return;
        }
        let target = node.target().to_owned();
        node.standing = Standing::Ended(Outcome::failed(reason, detail.clone(), target, now));
        let connected = node.connected;
        self.events.push_back(DeploymentEvent::NodeChanged(id));
        if connected {
            self.order_abort(id, reason, detail);
        }
    }

    fn fail_all(&mut self, reason: Reason, detail: &str, now: Time) {
        let running: Vec<NodeId> = self.nodes().filter(|node| node.is_running()).map(|node| node.id).collect();
        for id in running {
            self.fail(id, reason, detail.to_owned(), now);
        }
    }

    /// Sends `finish` to every ended node that nobody below it needs any more, and stops feeds that nobody needs.
    fn release_done(&mut self) {
        let deployment = self.config.prepare.deployment;
        for chain in 0..self.chains.len() {
            let mut below_needs = false;
            let mut head_needs = false;
            for id in self.chains[chain].nodes.clone().into_iter().rev() {
                let Some(node) = self.nodes.get_mut(&id) else { continue };
                let ended = node.outcome().is_some();
                if ended && !below_needs && !node.finished {
                    node.finished = true;
                    if node.connected {
                        let then = self.config.prepare.then;
                        self.orders.push_back((id, ToAgent::Finish(Finish { deployment, then })));
                    }
                }
                // A running node may still fetch a block that was read back wrong, so it needs its upstream to the end.
                below_needs |= node.is_running();
                head_needs |= below_needs;
            }
            let state = &mut self.chains[chain];
            if state.feed_needed && !head_needs {
                state.feed_needed = false;
                self.events.push_back(DeploymentEvent::StopFeed { chain: u16::try_from(chain).unwrap_or(0) });
            }
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
