//! Pass 0: the parts of the manifest slide down the chain, no blocks. Each node whose disk may hold something of the image
//! compares it part by part; then the server knows what is lacking, and the main pass begins on new links.
//!
//! A part that waits to be compared costs credit, so a slow disk slows its chain down instead of filling the memory.

use super::{Act, Node};
use crate::units::{BlockNo, PartNo};
use std::sync::Arc;

impl Node {
    /// Whether the place in the chain is one for comparing: parts come, no blocks.
    #[must_use]
    pub fn is_comparing(&self) -> bool {
        self.seat.is_comparing()
    }

    /// Whether a block is lacking.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.manifest.shape().is_some() && self.blocks.accepted().is_full()
    }

    /// In the pass that compares, part `part` was read. If this node `compares`, the part is
    /// held until [`Self::on_compared`].
    pub fn on_part_to_compare(&mut self, part: PartNo, compares: bool) {
        self.manifest.learn(part);
        if compares {
            self.manifest.hold(part);
        }
        self.queue_part(part);
    }

    /// The encoded part, as long as it is held.
    #[must_use]
    pub fn part_bytes(&self, part: PartNo) -> Option<Arc<[u8]>> {
        self.manifest.part(part).cloned()
    }

    /// Part `part` was compared; the disk holds the blocks in `same`, which were read past the cache and hashed.
    pub fn on_compared(&mut self, part: PartNo, same: &[BlockNo]) {
        for block in same {
            self.blocks.on_held(*block);
        }
        self.manifest.on_compared(part);
        self.check_complete();
        if self.is_comparing() && self.has_compared() {
            self.report();
        }
    }

    /// Whether nothing is left to be compared in this pass.
    pub(super) fn has_compared(&self) -> bool {
        self.upstream.ended() == Some(0) && !self.manifest.holds_any()
    }

    /// The main pass brings the parts again, to those that lack blocks of them.
    pub(super) fn end_comparing(&mut self) {
        self.manifest.forget_parts();
        // What was asked for but not done yet is about parts that are gone.
        self.acts.retain(|act| !matches!(act, Act::UsePart(..)));
    }
}
