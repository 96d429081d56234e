//! Pass 0: chains in which some node's disk may hold something of the image begin with comparing. Parts of the manifest slide
//! down the chain, no blocks; when all have compared, or when it takes too long, the main pass begins.
//!
//! A node that comes late and may hold something compares alone, in a chain of its own, so that nobody waits for it.

use super::timers::MIN_COMPARING;
use super::topology::{NewChain, Phase};
use super::{Deployment, NodeRecord, Standing};
use crate::set::BlockSet;
use crate::units::{NodeId, Time};
use core::time::Duration;

/// A disk that compares fewer bytes a second than this is not waited for.
const MIN_COMPARE_RATE: u64 = 100_000_000;

impl Deployment {
    /// Whether a node that is ready, or was until now, may hold something of the image.
    pub(super) fn compares(&self, id: NodeId) -> bool {
        let Some(Standing::Ready(ready) | Standing::Running(ready)) = self.roster.get(id).map(|node| &node.standing)
        else {
            return false;
        };
        ready.comparable && !self.config.prepare.fresh
    }

    /// Whether a node stands in a chain that compares.
    pub(super) fn is_comparing(&self, node: &NodeRecord<'_>) -> bool {
        node.chain().is_some_and(|chain| self.topology.chain(chain).is_comparing())
    }

    /// How long a chain that begins to compare may take.
    pub(super) fn compares_until(&self, now: Time) -> Time {
        let bytes = u64::from(self.config.blocks) * u64::from(self.config.prepare.block);
        now.after(MIN_COMPARING + Duration::from_secs(bytes / MIN_COMPARE_RATE))
    }

    /// A late node compares before it is taken into a chain.
    pub(super) fn compare_late(&mut self, id: NodeId, now: Time) {
        let Some(card) = self.roster.get(id).map(|node| node.card.clone()) else { return };
        let phase = Phase::Comparing { until: self.compares_until(now), of_plan: false };
        let blocks = BlockSet::full(self.config.blocks);
        self.form(NewChain { card, nodes: vec![id], blocks, pass: 0, phase }, now);
    }

    /// Chains in which every node has compared, or has had the time to, go on.
    pub(super) fn end_comparing(&mut self, now: Time) {
        for chain in 0..self.topology.len() {
            let state = self.topology.chain(chain);
            let Phase::Comparing { until, .. } = state.phase() else { continue };
            // One that was moved because it got nothing, and still gets nothing, is not waited for.
            let starves = |node: &NodeRecord<'_>| node.moved && node.account.meter.is_starved();
            let is_awaited = |node: NodeRecord<'_>| !node.has_compared() && !node.is_mute(now) && !starves(&node);
            let waits = now < until && self.records(state.nodes()).any(is_awaited);
            if waits || !self.records(state.nodes()).any(|node| node.is_running()) {
                continue;
            }
            let nodes = state.nodes().to_vec();
            for id in &nodes {
                self.ledger.restart_stall_clock(*id, now);
            }
            if self.topology.end_comparing(chain) {
                self.order(chain);
            } else {
                nodes.into_iter().for_each(|id| self.leave(id, now));
            }
        }
    }
}
