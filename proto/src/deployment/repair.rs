//! Repair: who is dead, who can't be reached, and how a chain closes around it.
//!
//! A node is dead when nothing is heard of it and a neighbour says so too, or when its control link has been gone for
//! [`GRACE`]. Silence of [`SUSPECT`] is enough for that if its kernel is silent too; an agent that may only be stopped or starved
//! has until its neighbour ends the link. What is done about a link that broke between two living nodes is in `mend.rs`. Each change is kept for the report, with the time from the
//! first sign to the moment when blocks could flow again.

use super::chains::ChainState;
use super::{Deployment, DeploymentEvent, NodeRecord, Outcome, Standing};
use crate::control::{LinkEvent, LinkState, Side};
use crate::reason::Reason;
use crate::units::{Epoch, NodeId, Time};
use core::time::Duration;

/// How long a running node may be without its control link before it counts as lost.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How long nothing may move on a node whose links live.
const STALL: Duration = Duration::from_secs(120);
/// How much longer nothing may move below a node that was given up for that.
const STALL_MORE: Duration = Duration::from_secs(30);
/// Nothing heard for so long makes a neighbour's complaint about a node believable.
const SUSPECT: Duration = Duration::from_secs(1);
/// A neighbour that was itself not heard for so long may have been cut off: its word on the silence of others counts nothing.
const DEAF: Duration = Duration::from_millis(600);
/// Quiet for longer than a busy machine would be.
const DEAD_QUIET: Duration = Duration::from_millis(1500);
/// Who was silent no longer than this, its control link not closed, may be heard again: a cable that is out for a second is heard over
/// after 1.4 s, one that is out for longer after 3 s (RFC 6298 with Linux's least time-out). The deployment does not end before.
const HEARD_AGAIN: Duration = Duration::from_millis(3200);
/// A neighbour's complaint counts for so long when the control link goes, too.
const BLAMED: Duration = Duration::from_secs(2);
/// The most repairs that are kept for the report.
const MOST_REPAIRS: usize = 4096;

/// Why a chain was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairKind {
    /// A node was lost: the chain closed around it.
    Lost,
    /// A node that lives was given up.
    GivenUp,
    /// A slow node was moved behind the tail.
    Slow,
    /// A node that its upstream can't reach was moved behind the tail.
    Unreachable,
    /// The link to a node was made anew.
    Relinked,
    /// A node that was given up or started again came back.
    Returned,
    /// A node came after the start.
    Late,
    /// Two neighbours, between which the link broke twice, changed places.
    Swapped,
    /// A node damages what it sends: it was put behind everybody.
    Corrupting,
    /// A node that complained of several living neighbours was moved behind the tail.
    Complaining,
}

impl RepairKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::GivenUp,
        Self::Slow,
        Self::Unreachable,
        Self::Relinked,
        Self::Returned,
        Self::Late,
        Self::Swapped,
        Self::Corrupting,
        Self::Complaining,
    ];

    /// The word for the report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::GivenUp => "given-up",
            Self::Slow => "slow",
            Self::Unreachable => "unreachable",
            Self::Relinked => "relinked",
            Self::Returned => "returned",
            Self::Late => "late",
            Self::Swapped => "swapped",
            Self::Corrupting => "corrupting",
            Self::Complaining => "complaining",
        }
    }
}

/// One change of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Why.
    pub kind: RepairKind,
    /// The node that it is about.
    pub node: NodeId,
    /// The facts behind it.
    pub detail: String,
    /// The first sign.
    pub began: Time,
    /// When blocks could flow again; nothing if that did not come about.
    pub ended: Option<Time>,
    /// The node whose upstream link is awaited.
    awaited: Option<NodeId>,
    /// The epoch that it must be of.
    epoch: Epoch,
}

impl Repair {
    /// From the first sign to the moment when blocks could flow again.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.ended.map(|ended| ended.since(self.began))
    }
}

impl Deployment {
    /// Every change of a chain since the plan was fixed, oldest first.
    #[must_use]
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// Keeps a change for the report. `awaited` is the node whose upstream link must stand before blocks flow again;
    /// the times are those of the first sign and of the order.
    pub(super) fn log_repair(
        &mut self,
        kind: RepairKind,
        node: NodeId,
        chain: usize,
        awaited: Option<NodeId>,
        detail: &str,
        (began, now): (Time, Time),
    ) {
        if self.repairs.len() < MOST_REPAIRS {
            let epoch = self.chains.get(chain).map_or(Epoch(0), ChainState::epoch);
            let (ended, detail) = (awaited.is_none().then_some(now), detail.to_owned());
            self.repairs.push(Repair { kind, node, detail, began, ended, awaited, epoch });
        }
    }

    /// The upstream link of `id` stands.
    pub(super) fn on_link_up(&mut self, id: NodeId, event: &LinkEvent, now: Time) {
        let open = self.repairs.iter_mut().filter(|repair| repair.ended.is_none());
        for repair in open.filter(|repair| repair.awaited == Some(id) && event.epoch >= repair.epoch) {
            repair.ended = Some(now);
        }
    }

    /// Whoever waited for the link of `gone` waits for that of `successor` now.
    pub(super) fn hand_on_repairs(&mut self, gone: NodeId, successor: Option<NodeId>, epoch: Epoch, now: Time) {
        for repair in self.repairs.iter_mut().filter(|repair| repair.ended.is_none() && repair.awaited == Some(gone)) {
            (repair.awaited, repair.epoch) = (successor, epoch);
            repair.ended = successor.is_none().then_some(now);
        }
    }

    /// Whether nothing is heard of a node over its own control link.
    pub(super) fn is_quiet(&self, id: NodeId, now: Time) -> bool {
        self.nodes.get(&id).is_none_or(|node| self.is_cut_off(node, now) || now.since(node.heard) >= SUSPECT)
    }

    /// A node says that a link is gone, or stands again.
    /// Before that nothing was heard of it for `silence`.
    pub(super) fn on_link(&mut self, id: NodeId, event: &LinkEvent, silence: Duration, now: Time) {
        let last = self.nodes.get(&id).and_then(|node| node.last_join.as_ref()).map(|join| join.epoch);
        let newest = last == Some(event.epoch);
        match (event.state, event.side) {
            (LinkState::Up, Side::Upstream) => self.on_link_up(id, event, now),
            (LinkState::Down, _) if newest => self.on_link_down(id, event, now),
            (LinkState::Down, _) => self.on_old_link_down(id, event, now),
            (LinkState::Suspect, _) if event.reason == Reason::LinkCorrupt => self.on_damage_told(id, event, now),
            (LinkState::Suspect, _) if newest && event.reason == Reason::TimedOut && silence < DEAF => {
                if let Some(peer) = self.nodes.get_mut(&event.peer) {
                    peer.suspected = Some((SUSPECT, format!("node {id} says: {}", event.detail)));
                }
            }
            _ => {}
        }
    }

    /// Nodes that are suspected, and of which nothing is heard here either.
    fn believed_dead(&self, now: Time) -> Vec<(NodeId, String)> {
        let believed = |node: &NodeRecord| {
            let (span, said) = node.suspected.as_ref()?;
            let quiet = self.is_cut_off(node, now) || now.since(node.heard) >= *span;
            (node.chain.is_some() && quiet).then(|| (node.id, said.clone()))
        };
        self.nodes().filter_map(believed).collect()
    }

    /// The control link of a node is gone. If a neighbour has just lost it too, it is dead.
    pub(super) fn on_control_gone(&mut self, id: NodeId, detail: &str, now: Time) {
        let blamed = self.nodes.get(&id).filter(|node| node.chain.is_some()).and_then(|node| node.blamed.clone());
        if let Some((at, said)) = blamed
            && now.since(at) < BLAMED
            && !self.attention.is_dazed(now)
        {
            self.lose(id, &format!("{detail}, and {said}"), now);
        }
    }

    /// Gives up nodes whose control link is gone for too long, and nodes on which nothing moves.
    pub(super) fn find_lost(&mut self, now: Time) {
        for (id, said) in self.believed_dead(now) {
            self.lose(id, &format!("no contact with it, and {said}"), now);
        }
        let lost: Vec<NodeId> = self
            .nodes()
            .filter(|node| node.chain.is_some() || node.is_running())
            .filter(|node| node.gone.is_some_and(|at| now.since(at) >= GRACE))
            .map(|node| node.id)
            .collect();
        for id in lost {
            self.lose(id, &format!("its control link has been gone for {} s", GRACE.as_secs()), now);
        }
        let stalled: Vec<&NodeRecord> = self
            .nodes()
            .filter(|node| node.is_running() && node.connected && now.since(node.moved_on) >= STALL)
            .filter(|node| !self.is_comparing(node) && !self.waits_for_pass(node))
            .collect();
        // Of nodes that wait for each other, the one that waits for its own disk is to blame.
        let by_disk = |node: &&&NodeRecord| node.waits_for_disk();
        let guilty: Vec<NodeId> = stalled.iter().filter(by_disk).map(|node| node.id).collect();
        let chains: Vec<Option<usize>> = stalled.iter().filter(by_disk).map(|node| node.chain).collect();
        let excused = |node: &&NodeRecord| node.chain.is_some() && chains.contains(&node.chain);
        let (with_guilty, alone): (Vec<&NodeRecord>, Vec<&NodeRecord>) = stalled.into_iter().partition(excused);
        let excused: Vec<NodeId> = with_guilty.iter().map(|node| node.id).filter(|id| !guilty.contains(id)).collect();
        let mut ends: Vec<(NodeId, &str)> = guilty.iter().map(|id| (*id, "its disk does not accept writes")).collect();
        let alone: Vec<&NodeRecord> = alone.into_iter().filter(|node| !guilty.contains(&node.id)).collect();
        // Those below the first one of a chain wait for it, and have some time when it is gone.
        let (first, below): (Vec<&NodeRecord>, Vec<&NodeRecord>) = alone.iter().partition(|node| {
            let nodes = node.chain.map(|chain| self.chains[chain].nodes()).unwrap_or_default();
            let mut above = nodes.iter().take_while(|id| **id != node.id);
            !above.any(|id| alone.iter().any(|other| other.id == *id))
        });
        let below: Vec<NodeId> = below.iter().map(|node| node.id).collect();
        ends.extend(first.iter().map(|node| (node.id, node.waits_for())));
        for (id, waits) in ends {
            let detail = format!("no progress for {} s although it responds: {waits}", STALL.as_secs());
            self.fail(id, Reason::TimedOut, detail, now);
        }
        for id in excused {
            self.nodes.entry(id).and_modify(|node| node.moved_on = now);
        }
        for id in below {
            self.nodes.entry(id).and_modify(|node| node.moved_on = node.moved_on.after(STALL_MORE));
        }
    }

    /// A node is dead, and so is every neighbour that is as silent: the chain closes around them.
    pub(super) fn lose(&mut self, id: NodeId, detail: &str, now: Time) {
        let near = |this: &Self| -> Vec<NodeId> {
            let Some(chain) = this.nodes.get(&id).and_then(|node| node.chain) else { return Vec::new() };
            let nodes = this.chains[chain].nodes();
            let Some(at) = nodes.iter().position(|node| *node == id) else { return Vec::new() };
            let around = [at.checked_sub(1), at.checked_add(1)];
            around.into_iter().flatten().filter_map(|at| nodes.get(at).copied()).collect()
        };
        let around = near(self);
        self.lose_one(id, detail, now);
        let said = format!("nor with its neighbour, node {id}");
        for other in around {
            let dead = self.is_dead_quiet(other, now);
            let Some(node) = self.nodes.get_mut(&other).filter(|node| node.chain.is_some()) else { continue };
            if dead {
                self.lose(other, &format!("no contact with it, {said}"), now);
            } else if now.since(node.heard) >= DEAF && node.suspected.is_none() {
                // Between two dead nodes no live neighbour is left to report it.
                node.suspected = Some((DEAD_QUIET, said.clone()));
            }
        }
    }

    fn is_dead_quiet(&self, id: NodeId, now: Time) -> bool {
        self.nodes.get(&id).is_some_and(|node| self.is_cut_off(node, now) || now.since(node.heard) >= DEAD_QUIET)
    }

    fn lose_one(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        // Closed at once, or silent since.
        let began = if now.since(node.heard) >= SUSPECT { node.heard } else { node.gone.unwrap_or(now) };
        node.awaited = node.connected.then(|| node.heard.after(HEARD_AGAIN));
        // Whatever comes from it after this shows that it is back.
        (node.gone, node.connected) = (node.gone.or(Some(now)), false);
        (node.blamed, node.suspected) = (None, None);
        // A node that was told to finish may hang up: that is no loss.
        let (label, was, let_go) = (node.label(), node.is_running(), node.finished);
        self.end_node(id, Reason::NodeLost, detail.to_owned(), now);
        if let Some((chain, successor)) = self.splice_out(id, now)
            && !let_go
        {
            self.log_repair(RepairKind::Lost, id, chain, successor, detail, (began, now));
        }
        if was {
            self.note(format!("{label} is lost: {detail}"));
        }
    }

    pub(super) fn end_node(&mut self, id: NodeId, reason: Reason, detail: String, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if let Standing::Running(ready) = &node.standing {
            let outcome = Outcome::failed(reason, detail, ready.clone(), now);
            node.standing = Standing::Ended(outcome);
            self.unsaved = true;
            self.events.push_back(DeploymentEvent::NodeChanged(id));
        }
    }

    /// Gives a node up that can still be told so, and takes it out of its chain.
    pub(super) fn fail(&mut self, id: NodeId, reason: Reason, detail: String, now: Time) {
        let Some(node) = self.nodes.get(&id).filter(|node| node.is_running()) else { return };
        let (label, connected) = (node.label(), node.connected);
        self.end_node(id, reason, detail.clone(), now);
        if connected {
            self.order_abort(id, reason, detail.clone());
        }
        self.note(format!("{label} is given up: {detail}"));
        if let Some((chain, successor)) = self.splice_out(id, now) {
            self.log_repair(RepairKind::GivenUp, id, chain, successor, &detail, (now, now));
        }
    }

    /// Whoever was given up and is heard again goes on where it was.
    pub(super) fn revive(&mut self, id: NodeId, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if let Standing::Ended(outcome) = &node.standing {
            node.standing = Standing::Running(outcome.ready.clone());
            (node.gone, node.moved_on, node.finished) = (None, now, false);
            (node.behind, node.returned) = (true, node.returned + 1);
            node.joins = Some((RepairKind::Returned, now));
            node.meter = super::slow::Meter::default();
            let text = format!("{} is back; what it lacks comes at the tail and in a catch-up pass", node.label());
            self.blame.on_back(id);
            self.note(text);
        }
    }
}
