//! Pass 0: chains in which some node's disk may hold something of the image begin with comparing. Parts of the manifest slide
//! down the chain, no blocks; when all have compared, or when it takes too long, the main pass begins.
//!
//! A node that comes late and may hold something compares alone, in a chain of its own, so that nobody waits for it.

use super::{Deployment, NodeRecord, Place, Standing};
use crate::set::BlockSet;
use crate::units::{Epoch, NodeId, Time};
use core::time::Duration;

/// The least time that comparing may take.
const LEAST: Duration = Duration::from_secs(30);
/// A disk that compares fewer bytes a second than this is not waited for.
const SLOWEST: u64 = 100_000_000;

/// What there is to know of a chain that compares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparing {
    until: Time,
    of_plan: bool,
}

impl Deployment {
    /// Whether a node that is ready, or was until now, may hold something of the image.
    pub(super) fn compares(&self, id: NodeId) -> bool {
        let Some(Standing::Ready(ready) | Standing::Running(ready)) = self.nodes.get(&id).map(|node| &node.standing)
        else {
            return false;
        };
        ready.comparable && !self.config.prepare.fresh
    }

    /// Whether a node stands in a chain that compares.
    pub(super) fn is_comparing(&self, node: &NodeRecord) -> bool {
        node.chain.is_some_and(|chain| self.chains[chain].comparing.is_some())
    }

    /// From now on `chain` compares.
    pub(super) fn begin_comparing(&mut self, chain: usize, of_plan: bool, now: Time) {
        let bytes = u64::from(self.config.blocks) * u64::from(self.config.prepare.block);
        let until = now.after(LEAST + Duration::from_secs(bytes / SLOWEST));
        self.chains[chain].comparing = Some(Comparing { until, of_plan });
    }

    /// A late node compares before it is taken into a chain.
    pub(super) fn compare_late(&mut self, id: NodeId, now: Time) {
        let Some(card) = self.nodes.get(&id).map(|node| node.card.clone()) else { return };
        let chain = self.new_chain(card, vec![id], BlockSet::full(self.config.blocks), 0, now);
        self.begin_comparing(chain, false, now);
        if let Some(node) = self.nodes.get_mut(&id) {
            let number = u16::try_from(chain).unwrap_or(u16::MAX);
            node.place.get_or_insert(Place { chain: number, position: 1 });
        }
    }

    /// Chains in which everybody has compared, or has had the time to, go on.
    pub(super) fn end_comparing(&mut self, now: Time) {
        for chain in 0..self.chains.len() {
            let Some(Comparing { until, of_plan }) = self.chains[chain].comparing else { continue };
            let nodes = self.chains[chain].nodes.clone();
            let records = || nodes.iter().filter_map(|id| self.nodes.get(id));
            // One that was moved because it got nothing, and still gets nothing, is not waited for.
            let starves = |node: &NodeRecord| node.moved && node.meter.is_starved();
            let waits = records().any(|node| !node.has_compared() && !node.is_mute(now) && !starves(node));
            if (waits && now < until) || !records().any(NodeRecord::is_running) {
                continue;
            }
            self.chains[chain].comparing = None;
            for id in &nodes {
                if let Some(node) = self.nodes.get_mut(id) {
                    // Epoch 0 never stands: the main pass has links of its own.
                    (node.link_epoch, node.moved_on) = (Epoch(0), now);
                }
            }
            if of_plan {
                (self.chains[chain].pass, self.chains[chain].feed) = (1, None);
                self.order(chain);
            } else {
                nodes.into_iter().for_each(|id| self.leave(id, now));
            }
        }
    }
}
