//! Passes: which node joins a chain that runs, when a pass is over, which nodes lack something then, and which may go.
//!
//! A node that comes while a pass runs (late, back, or moved) stands behind its core as a follower: it takes what comes and holds
//! nobody up. When the core of a pass has all it could get, those who still lack something form the next one: survivors of
//! the main pass first, then the late and those that came back, the slow last.

use super::timers::{FOLLOWER_LINGER, Timer};
use super::topology::{Arrival, Chain, Rank, number};
use super::{Deployment, DeploymentEvent, NodeRecord, RepairKind, Standing};
use crate::bug::{self, Bug};
use crate::control::{Finish, ToAgent};
use crate::plan::CardId;
use crate::set::BlockSet;
use crate::units::{NodeId, Time};
use core::time::Duration;
use std::collections::BTreeSet;

impl Deployment {
    /// Nodes that became ready after the start, came back or lost their place: they join behind the core of a pass that runs.
    pub(super) fn admit_late(&mut self, now: Time) {
        for id in self.ready() {
            self.begin_late(id, now);
        }
        let out: Vec<NodeId> = self.nodes().filter(|node| self.waits_for_pass(node)).map(|node| node.id).collect();
        for id in out {
            self.topology.wait(id);
        }
        let all = self.config.blocks;
        let waits = |node: &NodeRecord<'_>| {
            let served = node.chain().is_some() || self.blame.is_alone(node.id);
            node.is_running() && node.connected && !served && !node.has_all(all)
        };
        let waiting: Vec<NodeId> = self.nodes().filter(waits).map(|node| node.id).collect();
        for id in waiting {
            if let Some(chain) = self.open_chain(id) {
                self.append(chain, id, now);
            }
        }
    }

    /// A node is ready after the start.
    fn begin_late(&mut self, id: NodeId, now: Time) {
        let Some(node) = self.roster.get_mut(id) else { return };
        let Standing::Ready(ready) = &node.standing else { return };
        node.standing = Standing::Running(ready.clone());
        node.late |= node.place.is_none();
        let (kind, came) = if node.returned > 0 {
            (RepairKind::Returned, "was started again")
        } else {
            (RepairKind::Late, "came after the start")
        };
        let text = format!("{} {came}; what it lacks comes at the tail and in a catch-up pass", node.label());
        self.ledger.restart_stall_clock(id, now);
        self.topology.rank_behind(id, Rank::Behind);
        self.topology.arrive(id, Arrival { kind, since: now });
        self.note(text);
        if self.compares(id) {
            self.compare_late(id, now);
        }
    }

    /// The shortest of the running chains that can take in a node.
    fn open_chain(&self, id: NodeId) -> Option<usize> {
        let node = self.node(id)?;
        let is_open = |chain: &usize| {
            let state = self.topology.chain(*chain);
            let at = self.topology.place_behind(*chain, id, |id| self.blame.is_guilty(id));
            let above = at.checked_sub(1).map(|at| state.nodes()[at]);
            let corrupts = above.is_some_and(|above| self.blame.is_guilty(above));
            let fast = self.records(state.core()).any(|node| !node.moved);
            let flows = state.has_feed() && !state.is_through() && !state.is_comparing();
            state.card() == node.card && flows && fast && above != node.seat.avoid() && !corrupts
        };
        let open = (0..self.topology.len()).filter(is_open);
        open.min_by_key(|chain| self.topology.chain(*chain).nodes().len())
    }

    /// Whether a node stands in no chain because another pass goes on behind the same card: its time comes.
    pub(super) fn waits_for_pass(&self, node: &NodeRecord<'_>) -> bool {
        let goes_on = |chain: &Chain| {
            let mut core = self.records(chain.core());
            *chain.card() == *node.card && !chain.is_through() && core.any(|node| !self.is_settled(&node, chain.pass()))
        };
        node.chain().is_none() && self.topology.chains().any(goes_on)
    }

    fn is_settled(&self, node: &NodeRecord<'_>, pass: u32) -> bool {
        !node.is_running() || node.has_all(self.config.blocks) || node.pass_ended(pass)
    }

    /// Finds passes through whose core nothing more comes. Followers that still lack something leave them.
    pub(super) fn end_passes(&mut self, now: Time) {
        for chain in 0..self.topology.len() {
            let state = self.topology.chain(chain);
            let settled = |node: NodeRecord<'_>| self.is_settled(&node, state.pass());
            let core = self.records(state.core()).all(settled);
            let all = core && self.records(state.nodes()).all(settled);
            self.topology.settle(chain, core, if all { Duration::ZERO } else { FOLLOWER_LINGER }, now);
            let state = self.topology.chain(chain);
            if !state.is_through() {
                continue;
            }
            let total = self.config.blocks;
            let lacks = |node: &NodeRecord<'_>| node.is_running() && !node.has_all(total);
            let leaving: Vec<NodeId> = self.records(state.followers()).filter(lacks).map(|node| node.id).collect();
            for id in leaving {
                self.leave(id, now);
            }
        }
    }

    /// Once nothing more comes down the chains of a card, nodes that still lack something form a new chain, and the server
    /// sends the union of what they lack.
    pub(super) fn catch_up(&mut self, now: Time) {
        if self.timers.is_ahead(Timer::NextPass, now) {
            return;
        }
        let total = self.config.blocks;
        let cards: BTreeSet<CardId> = self.nodes().map(|node| node.card.clone()).collect();
        for card in cards {
            let lacking = self.next_lacking(&card);
            if lacking.is_empty() {
                continue;
            }
            let mut blocks = BlockSet::empty(total);
            lacking.iter().for_each(|node| blocks.union(&node.durable.complement()));
            let ids: Vec<NodeId> = lacking.iter().map(|node| node.id).collect();
            for id in &ids {
                self.leave(*id, now);
            }
            let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let (pass, count) = (self.topology.pass() + 1, blocks.count());
            self.note(format!("catch-up pass {pass}: {count} blocks for node {}", names.join(", ")));
            self.next_pass(card, ids, blocks, now);
        }
    }

    /// The nodes behind a card that form the next catch-up pass, in their order; none while one goes on that they wait for.
    fn next_lacking(&self, card: &CardId) -> Vec<NodeRecord<'_>> {
        let total = self.config.blocks;
        let is_free = |node: &NodeRecord<'_>| self.topology.chain_of(node.id).is_none_or(Chain::is_through);
        let mut lacking: Vec<NodeRecord<'_>> = self
            .nodes()
            .filter(|node| node.card == card && node.is_running() && node.connected && !node.has_all(total))
            .filter(is_free)
            .collect();
        // A pass of slow nodes goes on beside that of others: nobody waits for it.
        let fast_waits = lacking.iter().any(|node| !node.moved);
        let goes_on = |chain: &Chain| {
            let flows = !chain.is_comparing() && !chain.is_through();
            let is_awaited = !fast_waits || self.records(chain.core()).any(|node| !node.moved);
            chain.card() == card && flows && is_awaited
        };
        if self.topology.chains().any(goes_on) {
            return Vec::new();
        }
        // Those that nobody may be served by, and those that only the server serves, are the last, each by itself.
        let by_itself = |node: &NodeRecord<'_>| self.blame.is_guilty(node.id) || self.blame.is_alone(node.id);
        let group =
            |node: &NodeRecord<'_>| (node.moved, by_itself(node).then_some(node.id), node.seat.rank() != Rank::First);
        let first = lacking.iter().map(group).min();
        lacking.retain(|node| Some(group(node)) == first);
        // Those that lack least first; of the slow ones the fastest.
        let rate = |node: &NodeRecord<'_>| if node.moved { node.account.meter.rate() } else { 0.0 };
        lacking.sort_by(|a, b| {
            let left = |node: &NodeRecord<'_>| (total - node.durable.count(), node.id);
            rate(b).total_cmp(&rate(a)).then_with(|| left(a).cmp(&left(b)))
        });
        lacking
    }

    /// Sends `finish` to every ended node that nobody below it needs any more, and stops feeds that nobody needs.
    pub(super) fn release_done(&mut self) {
        let deployment = self.config.prepare.deployment;
        let then = self.config.prepare.then;
        let mut finish = Vec::new();
        for chain in 0..self.topology.len() {
            let mut below_runs = false;
            for id in self.topology.chain(chain).nodes().iter().rev() {
                let Some(node) = self.roster.get(*id) else { continue };
                // A running node may still fetch a block that was read back wrong: it needs its upstream to the end.
                below_runs |= node.is_running() && !bug::is(Bug::FinishTooEarly);
                if node.outcome().is_some() && !below_runs && !node.is_released() {
                    finish.push(*id);
                }
            }
            if !below_runs && self.topology.drop_feed(chain).is_some() {
                self.events.push_back(DeploymentEvent::StopFeed { chain: number(chain) });
            }
        }
        // A node that ended under a server that was killed may not have been let go by it: it is when it has called.
        let alone = |node: &NodeRecord<'_>| {
            let ended = node.outcome().is_some() && !node.member.is_released();
            node.chain().is_none() && ended && !node.member.presence.is_returning()
        };
        finish.extend(self.nodes().filter(alone).map(|node| node.id));
        for id in finish {
            let Some(node) = self.roster.get_mut(id) else { continue };
            node.set_released(true);
            if node.is_connected() && !node.is_lost() {
                self.orders.push_back((id, ToAgent::Finish(Finish { deployment, then })));
            }
        }
    }
}
