//! Pass 0: the parts of the manifest slide down the chain, no blocks. Each node whose disk may hold something of the image
//! compares it part by part; then the server knows what is lacking, and the main pass begins on new links.
//!
//! A part that waits to be compared costs credit, so a slow disk slows its chain down instead of filling the memory.

use super::{Act, Node};
use crate::bug::{self, Bug};
use crate::set::BlockSet;
use crate::units::{BlockNo, PartNo};
use std::sync::Arc;

impl Node {
    /// Whether the place in the chain is one for comparing: parts come, no blocks.
    #[must_use]
    pub fn is_comparing(&self) -> bool {
        self.joined && self.pass == 0
    }

    /// Whether a block is lacking.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.shape.is_some() && self.accepted.is_full()
    }

    /// In the pass that compares, part `part` was read. If this node `compares`, the part is
    /// held until [`Self::on_compared`].
    pub fn on_part_to_compare(&mut self, part: PartNo, compares: bool) {
        self.known_parts.insert(BlockNo(part.0));
        if let (true, Some(cached)) = (compares, self.parts.get_mut(&part.0))
            && cached.compare == 0
        {
            cached.compare = (cached.bytes.len() as u64).next_multiple_of(4096);
            self.parts_charge += cached.compare;
        }
        self.queue_part(part);
    }

    /// The encoded part, as long as it is held.
    #[must_use]
    pub fn part_bytes(&self, part: PartNo) -> Option<Arc<[u8]>> {
        self.parts.get(&part.0).map(|cached| cached.bytes.clone())
    }

    /// Part `part` was compared; the disk holds the blocks in `same`, which were read past the cache and hashed.
    pub fn on_compared(&mut self, part: PartNo, same: &[BlockNo]) {
        for block in same {
            self.accepted.insert(*block);
            self.verified.insert(*block);
            if self.durable.insert(*block) && !bug::is(Bug::HeldUnreported) {
                self.unreported.insert(*block);
            }
        }
        if let Some(cached) = self.parts.get_mut(&part.0) {
            self.parts_charge = self.parts_charge.saturating_sub(cached.compare);
            cached.compare = 0;
        }
        self.trim_parts();
        self.check_complete();
        if self.is_comparing() && self.has_compared() {
            self.report();
        }
    }

    /// Whether nothing is left to be compared in this pass.
    pub(super) fn has_compared(&self) -> bool {
        self.upstream.ended == Some(0) && !self.holds_part_to_compare()
    }

    /// Whether a part came that the disk was not compared with yet.
    pub(super) fn holds_part_to_compare(&self) -> bool {
        self.parts.values().any(|part| part.compare != 0)
    }

    /// The main pass brings the parts again, to those that lack blocks of them.
    pub(super) fn end_comparing(&mut self) {
        self.known_parts = BlockSet::empty(self.known_parts.universe());
        self.parts.clear();
        (self.parts_bytes, self.parts_charge) = (0, 0);
        // What was asked for but not done yet is about parts that are gone.
        self.acts.retain(|act| !matches!(act, Act::UsePart(..)));
    }
}
