//! Lost nodes: which node is dead, which is given up although it responds, and how its chain closes around it.
//!
//! A node is dead when nothing is heard of it and a neighbour says so too, or when its control link has been gone for
//! [`RECONNECT_TIMEOUT`]. Silence of [`SUSPECT_AFTER`] is enough for that if its kernel is silent too; an agent that may only be
//! stopped or starved has until its neighbour ends the link. What is done about a link that broke between two living nodes is in
//! `mend.rs`.

use super::ledger::Meter;
use super::presence::Suspicion;
use super::repairs::Entry;
use super::timers::{
    COMPLAINT_WINDOW, DEAD_AFTER, DEAF_AFTER, RECONNECT_TIMEOUT, STALL_EXTENSION, STALL_TIMEOUT, SUSPECT_AFTER,
};
use super::topology::{Arrival, Rank};
use super::{Deployment, DeploymentEvent, NodeRecord, Outcome, RepairKind, Standing};
use crate::control::{LinkEvent, LinkState, Side};
use crate::reason::Reason;
use crate::units::{NodeId, Time};
use core::time::Duration;

impl Deployment {
    /// Whether nothing is heard of a node over its own control link.
    pub(super) fn is_quiet(&self, id: NodeId, now: Time) -> bool {
        self.is_quiet_for(id, SUSPECT_AFTER, now).unwrap_or(true)
    }

    /// Whether nothing has been heard of a node for `span`, or its control link is gone.
    fn is_quiet_for(&self, id: NodeId, span: Duration, now: Time) -> Option<bool> {
        let node = self.node(id)?;
        Some(self.is_cut_off(&node, now) || now.since(node.member.presence.heard()) >= span)
    }

    /// A node says that a link is gone, or stands again.
    /// Before that nothing was heard of it for `silence`.
    pub(super) fn on_link(&mut self, id: NodeId, event: &LinkEvent, silence: Duration, now: Time) {
        let newest = self.topology.seat(id).join().map(|join| join.epoch) == Some(event.epoch);
        match (event.state, event.side) {
            (LinkState::Up, Side::Upstream) => self.repairs.on_link_up(id, event.epoch, now),
            (LinkState::Down, _) if newest => self.on_link_down(id, event, now),
            (LinkState::Down, _) => self.on_old_link_down(id, event, now),
            (LinkState::Suspect, _) if event.reason == Reason::LinkCorrupt => self.on_damage_told(id, event, now),
            (LinkState::Suspect, _) if newest && event.reason == Reason::TimedOut && silence < DEAF_AFTER => {
                let said = format!("node {id} says: {}", event.detail);
                self.roster.change(event.peer, |peer| peer.presence.suspect(SUSPECT_AFTER, said));
            }
            _ => {}
        }
    }

    /// The control link of a node is gone. If a neighbour has just lost it too, it is dead.
    pub(super) fn on_control_gone(&mut self, id: NodeId, detail: &str, now: Time) {
        let node = self.node(id).filter(|node| node.chain().is_some());
        let blamed = node.and_then(|node| node.member.presence.contact()?.blamed.clone());
        if let Some((at, said)) = blamed
            && now.since(at) < COMPLAINT_WINDOW
            && !self.attention.is_dazed(now)
        {
            self.lose(id, &format!("{detail}, and {said}"), now);
        }
    }

    /// Nodes that are suspected, and of which nothing is heard here either.
    pub(super) fn lose_suspected(&mut self, now: Time) {
        let believed = |node: NodeRecord<'_>| {
            let Suspicion { quiet, said } = node.member.presence.contact()?.suspected.as_ref()?;
            let quiet = self.is_quiet_for(node.id, *quiet, now) == Some(true);
            (node.chain().is_some() && quiet).then(|| (node.id, said.clone()))
        };
        let dead: Vec<_> = self.nodes().filter_map(believed).collect();
        for (id, said) in dead {
            self.lose(id, &format!("no contact with it, and {said}"), now);
        }
    }

    /// Gives up nodes whose control link is gone for too long.
    pub(super) fn lose_gone(&mut self, now: Time) {
        let lost: Vec<NodeId> = self
            .nodes()
            .filter(|node| node.chain().is_some() || node.is_running())
            .filter(|node| node.member.presence.gone().is_some_and(|at| now.since(at) >= RECONNECT_TIMEOUT))
            .map(|node| node.id)
            .collect();
        for id in lost {
            self.lose(id, &format!("its control link has been gone for {} s", RECONNECT_TIMEOUT.as_secs()), now);
        }
    }

    /// Gives up nodes on which nothing moves although they respond. Of nodes that wait for each other one is to blame, and the
    /// others get more time.
    pub(super) fn fail_stalled(&mut self, now: Time) {
        let stalls = |node: &NodeRecord<'_>| {
            let still = node.is_running() && node.connected && now.since(node.account.moved_on) >= STALL_TIMEOUT;
            still && !self.may_stall(node)
        };
        let stalled: Vec<NodeRecord<'_>> = self.nodes().filter(stalls).collect();
        // The one that waits for its own disk.
        let (by_disk, others): (Vec<_>, Vec<_>) = stalled.into_iter().partition(NodeRecord::waits_for_disk);
        let by_chain =
            |node: &NodeRecord<'_>| node.chain().is_some_and(|at| by_disk.iter().any(|n| n.chain() == Some(at)));
        let (excused, alone): (Vec<_>, Vec<_>) = others.into_iter().partition(by_chain);
        // If there is none, the first of its chain. Those below it wait for it.
        let is_first = |node: &NodeRecord<'_>| {
            let nodes = self.topology.chain_of(node.id).map(super::topology::Chain::nodes).unwrap_or_default();
            let mut above = nodes.iter().take_while(|id| **id != node.id);
            !above.any(|id| alone.iter().any(|other| other.id == *id))
        };
        let (first, below): (Vec<_>, Vec<_>) = alone.iter().partition(|node| is_first(node));
        let to_blame = by_disk.iter().chain(first).map(|node| (node.id, node.waits_for()));
        let to_blame: Vec<(NodeId, &str)> = to_blame.collect();
        let excused: Vec<NodeId> = excused.iter().map(|node| node.id).collect();
        let below: Vec<NodeId> = below.into_iter().map(|node| node.id).collect();
        for (id, waits) in to_blame {
            let detail = format!("no progress for {} s although it responds: {waits}", STALL_TIMEOUT.as_secs());
            self.fail(id, Reason::TimedOut, detail, now);
        }
        for id in excused {
            self.ledger.restart_stall_clock(id, now);
        }
        for id in below {
            self.ledger.change(id, |account| account.moved_on = account.moved_on.after(STALL_EXTENSION));
        }
    }

    /// Whether nothing need move on a node: it compares its disk, or its pass is still to come.
    fn may_stall(&self, node: &NodeRecord<'_>) -> bool {
        self.is_comparing(node) || self.waits_for_pass(node)
    }

    /// A node is dead, and so is every neighbour that is as silent: the chain closes around them.
    pub(super) fn lose(&mut self, id: NodeId, detail: &str, now: Time) {
        let around = self.topology.around(id);
        self.lose_one(id, detail, now);
        let said = format!("nor with its neighbour, node {id}");
        for other in around {
            let dead = self.is_quiet_for(other, DEAD_AFTER, now) == Some(true);
            if self.topology.seat(other).chain().is_none() {
                continue;
            }
            let Some(node) = self.roster.get_mut(other) else { continue };
            if dead {
                self.lose(other, &format!("no contact with it, {said}"), now);
            } else if now.since(node.presence.heard()) >= DEAF_AFTER
                && node.presence.contact().is_some_and(|contact| contact.suspected.is_none())
            {
                // Between two dead nodes no live neighbour is left to report it.
                node.presence.suspect(DEAD_AFTER, said.clone());
            }
        }
    }

    fn lose_one(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(node) = self.roster.get_mut(id) else { return };
        let began = node.presence.lose(now);
        // A node that was told to finish may hang up: that is no loss.
        let (label, was, let_go) = (node.label(), node.is_running(), node.is_released());
        self.end_node(id, Reason::NodeLost, detail.to_owned(), now);
        if let Some(gap) = self.splice_out(id, now)
            && !let_go
        {
            let awaited = self.link_of(gap.chain, gap.successor);
            self.repairs.add(Entry { kind: RepairKind::Lost, node: id, detail, began, awaited }, now);
        }
        if was {
            self.note(format!("{label} is lost: {detail}"));
        }
    }

    pub(super) fn end_node(&mut self, id: NodeId, reason: Reason, detail: String, now: Time) {
        let Some(node) = self.roster.get_mut(id) else { return };
        if let Standing::Running(ready) = &node.standing {
            let outcome = Outcome::failed(reason, detail, ready.clone(), now);
            node.standing = Standing::Ended(outcome);
            self.unsaved = true;
            self.events.push_back(DeploymentEvent::NodeChanged(id));
        }
    }

    /// Gives a node up that can still be told so, and takes it out of its chain.
    pub(super) fn fail(&mut self, id: NodeId, reason: Reason, detail: String, now: Time) {
        let Some(node) = self.roster.get(id).filter(|node| node.is_running()) else { return };
        let (label, connected) = (node.label(), node.is_connected());
        self.end_node(id, reason, detail.clone(), now);
        if connected {
            self.order_abort(id, reason, detail.clone());
        }
        self.note(format!("{label} is given up: {detail}"));
        if let Some(gap) = self.splice_out(id, now) {
            self.log_repair(RepairKind::GivenUp, id, &detail, (gap.chain, gap.successor), now);
        }
    }

    /// A node that was given up and is heard again goes on where it was.
    pub(super) fn revive(&mut self, id: NodeId, now: Time) {
        let Some(node) = self.roster.get_mut(id) else { return };
        let Standing::Ended(outcome) = &node.standing else { return };
        node.standing = Standing::Running(outcome.ready.clone());
        node.returned += 1;
        let text = format!("{} is back; what it lacks comes at the tail and in a catch-up pass", node.label());
        self.ledger.restart_stall_clock(id, now);
        self.ledger.change(id, |account| account.meter = Meter::default());
        self.topology.rank_behind(id, Rank::Behind);
        self.topology.arrive(id, Arrival { kind: RepairKind::Returned, since: now });
        self.blame.on_back(id);
        self.note(text);
    }
}
