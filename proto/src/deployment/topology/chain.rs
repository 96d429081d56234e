//! One chain: its nodes in order, how many of them pace it, and how far its pass is.

use crate::link::Terms;
use crate::plan::CardId;
use crate::set::BlockSet;
use crate::units::{Epoch, NodeId, Time};
use core::time::Duration;

/// How far a chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::deployment) enum Phase {
    /// Pass 0: nodes compare their disks with the image, and get no blocks.
    Comparing {
        /// It goes on without those that have not compared by then.
        until: Time,
        /// It is a chain of the plan, which goes on to the main pass; otherwise its node leaves it then.
        of_plan: bool,
    },
    /// Blocks come.
    Flowing,
    /// Nothing more comes to the core; followers take what is left above them.
    Settled { since: Time },
    /// Nothing more comes down the chain.
    Through { since: Time },
}

/// A chain as it stands.
#[derive(Debug)]
pub(in crate::deployment) struct Chain {
    pub(super) card: CardId,
    pub(super) pass: u32,
    /// The number of its newest change within the pass.
    pub(super) change: u64,
    pub(super) nodes: Vec<NodeId>,
    /// How many of them, from the head on, pace the chain. The others follow: they take what they can.
    pub(super) core: usize,
    /// The terms of the feed that was asked for last; nothing when no feed is needed.
    pub(super) feed: Option<Terms>,
    /// What the feed has to send.
    pub(super) blocks: BlockSet,
    pub(super) phase: Phase,
}

impl Chain {
    pub(in crate::deployment) fn card(&self) -> &CardId {
        &self.card
    }

    pub(in crate::deployment) fn pass(&self) -> u32 {
        self.pass
    }

    /// Its newest epoch, as nodes know it.
    pub(in crate::deployment) fn epoch(&self) -> Epoch {
        super::overall(self.pass, self.change)
    }

    /// Its nodes, the head first.
    pub(in crate::deployment) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    pub(in crate::deployment) fn head(&self) -> Option<NodeId> {
        self.nodes.first().copied()
    }

    /// Those that pace it.
    pub(in crate::deployment) fn core(&self) -> &[NodeId] {
        &self.nodes[..self.core]
    }

    pub(in crate::deployment) fn followers(&self) -> &[NodeId] {
        &self.nodes[self.core..]
    }

    pub(super) fn position(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| *node == id)
    }

    pub(in crate::deployment) fn has_feed(&self) -> bool {
        self.feed.is_some()
    }

    pub(in crate::deployment) fn phase(&self) -> Phase {
        self.phase
    }

    pub(in crate::deployment) fn is_comparing(&self) -> bool {
        matches!(self.phase, Phase::Comparing { .. })
    }

    /// Whether nothing more comes down the chain.
    pub(in crate::deployment) fn is_through(&self) -> bool {
        matches!(self.phase, Phase::Through { .. })
    }

    /// Whether nothing more comes to the core. Once that is so for `linger`, the chain is through. A chain that compares
    /// has no blocks to wait for.
    pub(super) fn settle(&mut self, core_settled: bool, linger: Duration, now: Time) {
        let since = match self.phase {
            Phase::Comparing { .. } => return,
            Phase::Flowing => now,
            Phase::Settled { since } | Phase::Through { since } => since,
        };
        self.phase = match core_settled {
            false => Phase::Flowing,
            true if now.since(since) < linger => Phase::Settled { since },
            true => Phase::Through { since },
        };
    }
}
