//! Passes: who joins a chain that runs, when a pass is over, who lacks something then, and who may go.
//!
//! Whoever comes while a pass runs (late, back, or moved) stands behind its core as a follower: it takes what comes and holds
//! nobody up. When the core of a pass has all it could get, those who still lack something form the next one: survivors of
//! the main pass first, then the late and those that came back, the slow last.

use super::chains::ChainState;
use super::{Away, Deployment, DeploymentEvent, NodeRecord, Place, RepairKind, Standing};
use crate::bug::{self, Bug};
use crate::control::{Finish, ToAgent};
use crate::plan::CardId;
use crate::set::BlockSet;
use crate::units::{NodeId, Time};
use core::time::Duration;
use std::collections::BTreeSet;

/// The least time from one catch-up pass to the next, so that one that brings nothing costs little.
const PASS_PAUSE: Duration = Duration::from_millis(250);
/// How long followers may take what is left in the rings above them once the core is through.
const LINGER: Duration = Duration::from_secs(1);

impl Deployment {
    /// Nodes that became ready after the start, came back or lost their place: they join behind the core of a pass that runs.
    pub(super) fn admit_late(&mut self, now: Time) {
        for id in self.ready() {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let Standing::Ready(ready) = &node.standing else { continue };
            node.standing = Standing::Running(ready.clone());
            (node.behind, node.moved_on) = (true, now);
            node.late |= node.place.is_none();
            let (kind, came) = if node.returned > 0 {
                (RepairKind::Returned, "was started again")
            } else {
                (RepairKind::Late, "came after the start")
            };
            node.joins = Some((kind, now));
            let text = format!("{} {came}; what it lacks comes at the tail and in a catch-up pass", node.label());
            self.note(text);
            if self.compares(id) {
                self.compare_late(id, now);
            }
        }
        let all = self.config.blocks;
        let out: Vec<NodeId> = self.nodes().filter(|node| self.waits_for_pass(node)).map(|node| node.id).collect();
        for id in out {
            self.nodes.entry(id).and_modify(|node| node.waited = true);
        }
        let waiting: Vec<NodeId> = self
            .nodes()
            .filter(|node| node.is_running() && node.connected && node.chain.is_none() && !node.has_all(all))
            .map(|node| node.id)
            .collect();
        for id in waiting {
            let Some(node) = self.nodes.get(&id).filter(|_| !self.blame.is_alone(id)) else { continue };
            let open = (0..self.chains.len()).filter(|chain| {
                let state = &self.chains[*chain];
                let above = self.place_behind(*chain, id).checked_sub(1).map(|at| state.nodes()[at]);
                let corrupts = above.is_some_and(|above| self.blame.is_guilty(above));
                let fast = state.core().iter().filter_map(|id| self.nodes.get(id)).any(|node| !node.moved);
                *state.card() == node.card
                    && state.comparing.is_none()
                    && state.has_feed()
                    && !state.is_through()
                    && fast
                    && above != node.avoid
                    && !corrupts
            });
            let Some(chain) = open.min_by_key(|chain| self.chains[*chain].nodes().len()) else { continue };
            let at = self.insert_behind(chain, id);
            let position = u16::try_from(at + 1).unwrap_or(u16::MAX);
            let number = u16::try_from(chain).unwrap_or(u16::MAX);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.place.get_or_insert(Place { chain: number, position });
            }
            self.order(chain);
            self.log_joining(id, chain, now);
        }
    }

    /// If `id` has just come, it is kept for the report that `chain` took it in.
    pub(super) fn log_joining(&mut self, id: NodeId, chain: usize, now: Time) {
        if let Some((kind, since)) = self.nodes.get_mut(&id).and_then(|node| node.joins.take()) {
            self.log_repair(kind, id, chain, Some(id), "", (since, now));
        }
    }

    /// Whether a node stands in no chain because another pass goes on behind the same card: its time comes.
    pub(super) fn waits_for_pass(&self, node: &NodeRecord) -> bool {
        let goes_on = |chain: &ChainState| {
            let moves = |id: &NodeId| self.nodes.get(id).is_some_and(|node| !self.is_settled(node, chain.pass()));
            *chain.card() == node.card && !chain.is_through() && chain.core().iter().any(moves)
        };
        node.chain.is_none() && self.chains.iter().any(goes_on)
    }

    fn is_settled(&self, node: &NodeRecord, pass: u32) -> bool {
        !node.is_running() || node.has_all(self.config.blocks) || node.pass_ended(pass)
    }

    /// Finds passes through whose core nothing more comes. Followers that still lack something leave them.
    pub(super) fn end_passes(&mut self, now: Time) {
        for chain in 0..self.chains.len() {
            let state = &self.chains[chain];
            if state.comparing.is_some() {
                continue;
            }
            let settled = |id: &NodeId| self.nodes.get(id).is_none_or(|node| self.is_settled(node, state.pass()));
            let core = state.core().iter().all(settled);
            let all = core && state.nodes().iter().all(settled);
            self.chains[chain].set_settled(core, now);
            if !self.chains[chain].settled_for(if all { Duration::ZERO } else { LINGER }, now) {
                self.chains[chain].set_through(false);
                continue;
            }
            self.chains[chain].set_through(true);
            let total = self.config.blocks;
            let leaving: Vec<NodeId> = self.chains[chain]
                .followers()
                .iter()
                .filter_map(|id| self.nodes.get(id))
                .filter(|node| node.is_running() && !node.has_all(total))
                .map(|node| node.id)
                .collect();
            for id in leaving {
                self.leave(id, now);
            }
        }
    }

    /// Once nothing more comes down the chains of a card, whoever still lacks something forms a new chain, and the server
    /// sends the union of what they lack.
    pub(super) fn catch_up(&mut self, now: Time) {
        if now.since(self.passed) < PASS_PAUSE {
            return;
        }
        let total = self.config.blocks;
        let cards: BTreeSet<CardId> = self.nodes().map(|node| node.card.clone()).collect();
        for card in cards {
            let mut lacking: Vec<&NodeRecord> = self
                .nodes()
                .filter(|node| node.card == card && node.is_running() && node.connected && !node.has_all(total))
                .filter(|node| node.chain.is_none_or(|chain| self.chains[chain].is_through()))
                .collect();
            // A pass of slow nodes goes on beside that of others: nobody waits for it.
            let fast_waits = lacking.iter().any(|node| !node.moved);
            let busy = self.chains.iter().any(|chain| {
                let slow = || chain.core().iter().filter_map(|id| self.nodes.get(id)).all(|node| node.moved);
                *chain.card() == card && chain.comparing.is_none() && !chain.is_through() && !(fast_waits && slow())
            });
            if busy || lacking.is_empty() {
                continue;
            }
            // Those that nobody may be served by, and those that only the server serves, are the last, each by itself.
            let by_itself = |node: &NodeRecord| self.blame.is_guilty(node.id) || self.blame.is_alone(node.id);
            let group = |node: &NodeRecord| (node.moved, by_itself(node).then_some(node.id), node.behind);
            let first = lacking.iter().map(|node| group(node)).min();
            lacking.retain(|node| Some(group(node)) == first);
            // Those that lack least first; of the slow ones the fastest.
            let rate = |node: &NodeRecord| if node.moved { node.meter.rate() } else { 0.0 };
            lacking.sort_by(|a, b| {
                let left = |node: &NodeRecord| (total - node.durable.count(), node.id);
                rate(b).total_cmp(&rate(a)).then_with(|| left(a).cmp(&left(b)))
            });
            let mut blocks = BlockSet::empty(total);
            lacking.iter().for_each(|node| blocks.union(&node.durable.complement()));
            let ids: Vec<NodeId> = lacking.iter().map(|node| node.id).collect();
            for id in &ids {
                self.leave(*id, now);
            }
            self.pass += 1;
            self.passed = now;
            let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let (pass, count) = (self.pass, blocks.count());
            self.note(format!("catch-up pass {pass}: {count} blocks for node {}", names.join(", ")));
            let chain = self.new_chain(card, ids, blocks, self.pass, now);
            for (position, id) in (1u16..).zip(self.chains[chain].nodes().to_vec()) {
                self.log_joining(id, chain, now);
                let number = u16::try_from(chain).unwrap_or(u16::MAX);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.place.get_or_insert(Place { chain: number, position });
                    if node.waited {
                        (node.waited, node.moved_on) = (false, now);
                    }
                }
            }
        }
    }

    /// Takes a node out of its chain because it goes on in another.
    pub(super) fn leave(&mut self, id: NodeId, now: Time) {
        if let Some((chain, _)) = self.take_out(id, now) {
            self.order(chain);
        }
    }

    /// Sends `finish` to every ended node that nobody below it needs any more, and stops feeds that nobody needs.
    pub(super) fn release_done(&mut self) {
        let deployment = self.config.prepare.deployment;
        let then = self.config.prepare.then;
        let mut finish = Vec::new();
        for chain in 0..self.chains.len() {
            let mut below_runs = false;
            for id in self.chains[chain].nodes().iter().rev() {
                let Some(node) = self.nodes.get(id) else { continue };
                // A running node may still fetch a block that was read back wrong: it needs its upstream to the end.
                below_runs |= node.is_running() && !bug::is(Bug::FinishTooEarly);
                if node.outcome().is_some() && !below_runs && !node.finished {
                    finish.push(*id);
                }
            }
            if !below_runs && self.chains[chain].drop_feed().is_some() {
                let chain = u16::try_from(chain).unwrap_or(u16::MAX);
                self.events.push_back(DeploymentEvent::StopFeed { chain });
            }
        }
        // Whoever ended under a server that was killed may not have been let go by it: it is when it has called.
        let alone = self.nodes().filter(|node| node.chain.is_none() && !node.finished && node.outcome().is_some());
        finish.extend(alone.filter(|node| node.away == Away::No).map(|node| node.id));
        for id in finish {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            node.finished = true;
            if node.connected && !node.is_lost() {
                self.orders.push_back((id, ToAgent::Finish(Finish { deployment, then })));
            }
        }
    }
}
