//! What follows from what is new, and in which order.

use super::timers::{INVITE_TIMEOUT, Timer};
use super::topology::Rank;
use super::{Deployment, DeploymentEvent, NodeRecord, Stage, Standing};
use crate::reason::Reason;
use crate::units::{NodeId, Time};

/// The rules for a deployment that runs. Each sees what those before it have changed, and whatever follows for an earlier one is
/// drawn at the next look, at the latest with the next heartbeat.
const RULES: [fn(&mut Deployment, Time); 9] = [
    // Before every rule that gives orders: a node that goes in the same turn must not be linked to any more. The node above it would
    // call a machine that turns itself off, until that counts as lost.
    |deployment, _| deployment.release_done(),
    // Then the dead: every other rule must neither count on them nor wait for them. Suspected ones before those that are only
    // gone, because the report of a neighbour tells the operator more than the age of a closed link.
    Deployment::lose_suspected,
    Deployment::lose_gone,
    // Which node holds up the others is asked among the living only: a node below a dead one has an excuse.
    Deployment::fail_stalled,
    // Before passes and admissions: a chain that waited only for a node that was just lost goes on, and a late node that has
    // compared leaves its chain of one, so that a running chain can take it in.
    Deployment::end_comparing,
    // Passes end before nodes are admitted, so that none is put behind a core to which nothing comes any more. Nodes that a pass
    // leaves lacking something stand in no chain then.
    Deployment::end_passes,
    // A place in a chain that runs comes before a pass of its own, which costs the server the blocks once more.
    Deployment::admit_late,
    // Only nodes for which no running chain has a place get the next pass.
    Deployment::catch_up,
    // Again at the end: what the rules above have changed may be the last thing that nodes were needed for.
    |deployment, _| deployment.release_done(),
];

impl Deployment {
    /// Draws the consequences of whatever is new.
    pub(super) fn settle(&mut self, now: Time) {
        self.settled = now;
        self.timers.clear(Timer::Reports);
        self.time_returned(now);
        match self.stage {
            Stage::Waiting => {
                if !self.waits_for_turn && self.has_enough() {
                    self.arm(now);
                }
            }
            Stage::Running => {
                if self.gather(now) {
                    // A resumed deployment has no chains yet.
                    return;
                }
                for rule in RULES {
                    rule(self, now);
                }
                if !self.nodes().any(|node| self.holds_open(&node, now)) {
                    self.finish(false, now);
                }
            }
            Stage::Over { .. } => {}
        }
    }

    /// Whether the deployment goes on because of this node: it works, it is just coming, or it may be heard again.
    fn holds_open(&self, node: &NodeRecord<'_>, now: Time) -> bool {
        let looks = node.connected && *node.standing == Standing::Preparing;
        let is_coming = looks && now.since(node.account.moved_on) < INVITE_TIMEOUT;
        let may_be_heard = node.member.presence.heard_again_until().is_some_and(|until| now < until);
        node.is_running() || is_coming || may_be_heard || self.is_awaited(node, now)
    }

    pub(super) fn ready(&self) -> Vec<NodeId> {
        self.nodes().filter(|node| matches!(node.standing, Standing::Ready(_))).map(|node| node.id).collect()
    }

    /// A node whose agent was started again is there a second time: same address, same target. The first one is no more.
    pub(super) fn replace_lost(&mut self, id: NodeId, now: Time) {
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
        self.ledger.forget(old.id);
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

    pub(super) fn fail_all(&mut self, reason: Reason, detail: &str, now: Time) {
        let running: Vec<NodeId> = self.nodes().filter(|node| node.is_running()).map(|node| node.id).collect();
        for id in running {
            self.end_node(id, reason, detail.to_owned(), now);
            self.order_abort(id, reason, detail.to_owned());
        }
    }

    /// Ends a deployment that never started.
    pub(super) fn call_off(&mut self, detail: &str, stopped: bool) {
        let reason = if stopped { Reason::Aborted } else { Reason::TimedOut };
        self.stage = Stage::Over { started: false, stopped };
        let connected: Vec<NodeId> = self.nodes().filter(|node| node.connected).map(|node| node.id).collect();
        for id in connected {
            self.order_abort(id, reason, detail.to_owned());
        }
        self.events.push_back(DeploymentEvent::Over);
    }

    pub(super) fn finish(&mut self, stopped: bool, now: Time) {
        self.release_done();
        self.stage = Stage::Over { started: true, stopped };
        self.over = self.nodes().filter_map(|node| node.outcome().map(|outcome| outcome.at)).max().or(Some(now));
        self.events.push_back(DeploymentEvent::Over);
    }
}
