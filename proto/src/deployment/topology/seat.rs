//! The seat of one node: the chain that it stands in, and the links that it was ordered to have.

use crate::control::Join;
use crate::deployment::RepairKind;
use crate::units::{Epoch, NodeId, Time};
use std::collections::VecDeque;

/// How many of the neighbours that served a node are remembered: its report on one may come when another one serves it.
const MAX_SERVED_BY: usize = 4;

/// Why a node is new to the chains, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::deployment) struct Arrival {
    pub(in crate::deployment) kind: RepairKind,
    pub(in crate::deployment) since: Time,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    /// In no chain.
    Out {
        /// It waited for a pass of its own: the time in which nothing moved on it does not count.
        waited: bool,
        arrival: Option<Arrival>,
    },
    /// In a chain of its own, in which it compares its disk before another chain takes it in.
    Comparing { chain: usize, arrival: Option<Arrival> },
    /// In a chain.
    In { chain: usize },
}

/// In which order nodes are served in catch-up passes, and stand behind the core of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::deployment) enum Rank {
    /// It has kept its place.
    #[default]
    First,
    /// It came late or back, or its upstream could not reach it.
    Behind,
    /// It was slow, or made others slow.
    Slow,
}

/// What ended when a chain took a node in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::deployment) struct TakenIn {
    pub(in crate::deployment) node: NodeId,
    /// It had come late or back.
    pub(in crate::deployment) arrival: Option<Arrival>,
    /// It had waited for a pass of its own.
    pub(in crate::deployment) waited: bool,
}

/// The seat of one node.
#[derive(Debug)]
pub(in crate::deployment) struct Seat {
    spot: Spot,
    pub(super) rank: Rank,
    /// The epoch in which the link from its upstream was made; none: the next order makes it anew.
    pub(super) link: Option<Epoch>,
    /// The upstream that it can't be reached from, although both live.
    pub(super) avoid: Option<NodeId>,
    /// The upstreams that it was ordered to have of late, the newest last.
    served_by: VecDeque<NodeId>,
    /// The newest order.
    pub(super) join: Option<Join>,
}

impl Seat {
    /// The seat of a node that no chain ever had.
    pub(super) const fn new() -> Self {
        Self {
            spot: Spot::Out { waited: false, arrival: None },
            rank: Rank::First,
            link: None,
            avoid: None,
            served_by: VecDeque::new(),
            join: None,
        }
    }

    /// The chain that it stands in.
    pub(in crate::deployment) fn chain(&self) -> Option<usize> {
        match self.spot {
            Spot::Out { .. } => None,
            Spot::Comparing { chain, .. } | Spot::In { chain } => Some(chain),
        }
    }

    pub(in crate::deployment) fn rank(&self) -> Rank {
        self.rank
    }

    pub(in crate::deployment) fn avoid(&self) -> Option<NodeId> {
        self.avoid
    }

    /// The newest order.
    pub(in crate::deployment) fn join(&self) -> Option<&Join> {
        self.join.as_ref()
    }

    /// Whether `upstream` served it of late.
    pub(in crate::deployment) fn was_served_by(&self, upstream: NodeId) -> bool {
        self.served_by.contains(&upstream)
    }

    pub(super) fn serve_by(&mut self, upstream: NodeId) {
        if self.served_by.back() != Some(&upstream) {
            self.served_by.push_back(upstream);
        }
        if self.served_by.len() > MAX_SERVED_BY {
            self.served_by.pop_front();
        }
    }

    /// It came late or is back. Nothing changes for one that a chain has.
    pub(super) fn arrive(&mut self, new: Arrival) {
        if let Spot::Out { arrival, .. } | Spot::Comparing { arrival, .. } = &mut self.spot {
            *arrival = Some(new);
        }
    }

    /// It waits for a pass of its own.
    pub(super) fn wait(&mut self) {
        if let Spot::Out { waited, .. } = &mut self.spot {
            *waited = true;
        }
    }

    /// It compares in a chain of its own.
    pub(super) fn compare_in(&mut self, chain: usize) {
        let (Spot::Out { arrival, .. } | Spot::Comparing { arrival, .. }) = self.spot else { return };
        self.spot = Spot::Comparing { chain, arrival };
    }

    /// A chain takes it in; gives what it had come for, and whether it had waited.
    pub(super) fn take_in(&mut self, chain: usize) -> (Option<Arrival>, bool) {
        match core::mem::replace(&mut self.spot, Spot::In { chain }) {
            Spot::Out { waited, arrival } => (arrival, waited),
            Spot::Comparing { arrival, .. } => (arrival, false),
            Spot::In { .. } => (None, false),
        }
    }

    /// It leaves its chain; gives which one that was. If it comes back to the same upstream, that is another link.
    pub(super) fn leave(&mut self) -> Option<usize> {
        self.link = None;
        let (chain, arrival) = match self.spot {
            Spot::Out { .. } => return None,
            Spot::Comparing { chain, arrival } => (chain, arrival),
            Spot::In { chain } => (chain, None),
        };
        self.spot = Spot::Out { waited: false, arrival };
        Some(chain)
    }
}
