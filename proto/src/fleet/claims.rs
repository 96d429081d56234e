//! Which agents say that they are the same machine: a machine is known by the hardware addresses of its network cards, and two that are
//! there with one address can't both be it.
//!
//! A machine that was restarted calls while its former link still stands for some seconds. So those concerned are held at once, and told
//! of only when that has lasted.

use crate::control::Hello;
use crate::units::{NodeId, Time};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// So long two agents must be there with one hardware address before that is told. The link of a machine that was switched off counts as
/// gone much earlier.
const TOLD_AFTER: Duration = Duration::from_secs(10);

/// Who is there with which hardware addresses.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_mac: HashMap<[u8; 6], BTreeSet<NodeId>>,
    /// Agents that share an address, since when, as long as that was not told.
    untold: BTreeMap<NodeId, Time>,
    /// Those of which it was told.
    told: BTreeSet<NodeId>,
}

/// The hardware addresses by which a machine is known. Cards without one, such as tunnels, have zeros.
fn macs(hello: &Hello) -> impl Iterator<Item = [u8; 6]> {
    hello.cards.iter().map(|card| card.mac).filter(|mac| *mac != [0; 6])
}

impl Claims {
    /// This agent is there.
    pub(super) fn on_here(&mut self, node: NodeId, hello: &Hello, now: Time) {
        for mac in macs(hello) {
            self.by_mac.entry(mac).or_default().insert(node);
        }
        for rival in self.rivals(Some(node), hello) {
            for each in [node, rival].into_iter().filter(|each| !self.told.contains(each)) {
                self.untold.entry(each).or_insert(now);
            }
        }
    }

    /// It is there no longer. Gives those that may share no address any more: see [`Self::settle`].
    pub(super) fn on_away(&mut self, node: NodeId, hello: &Hello) -> BTreeSet<NodeId> {
        self.settle(node);
        let mut alone = BTreeSet::new();
        for mac in macs(hello) {
            let Some(nodes) = self.by_mac.get_mut(&mac) else { continue };
            nodes.remove(&node);
            match nodes.len() {
                0 => drop(self.by_mac.remove(&mac)),
                1 => alone.extend(nodes.iter().copied()),
                _ => {}
            }
        }
        alone
    }

    /// The others that are there with an address of this hello.
    pub(super) fn rivals(&self, node: Option<NodeId>, hello: &Hello) -> BTreeSet<NodeId> {
        let nodes = macs(hello).filter_map(|mac| self.by_mac.get(&mac)).flatten().copied();
        nodes.filter(|other| Some(*other) != node).collect()
    }

    /// Whether another agent is there with an address of this hello.
    pub(super) fn is_contested(&self, node: Option<NodeId>, hello: &Hello) -> bool {
        let mut sets = macs(hello).filter_map(|mac| self.by_mac.get(&mac));
        sets.any(|nodes| nodes.iter().any(|other| Some(*other) != node))
    }

    /// This agent shares no address any more. Gives whether it had been told that it does; nothing if it had shared none.
    pub(super) fn settle(&mut self, node: NodeId) -> Option<bool> {
        let (untold, told) = (self.untold.remove(&node).is_some(), self.told.remove(&node));
        (untold || told).then_some(told)
    }

    /// An agent of which is to be told now that it shares an address.
    pub(super) fn poll(&self, now: Time) -> Option<NodeId> {
        self.untold.iter().find(|(_, since)| now.since(**since) >= TOLD_AFTER).map(|(node, _)| *node)
    }

    /// It is told that these share an address.
    pub(super) fn on_told(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.untold.remove(node);
            self.told.insert(*node);
        }
    }

    /// Whether anything is still to be told.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }
}
