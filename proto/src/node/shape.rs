//! How the manifest is cut into parts.

use crate::units::{BlockNo, Hash, PartNo};

/// How the manifest is cut: all that the machine needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The number of blocks.
    pub blocks: u32,
    /// The parts in order.
    pub parts: Vec<PartShape>,
}

/// What the manifest header says of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartShape {
    /// Its first block. The first blocks rise from part to part, starting with 0.
    pub first: u32,
    /// BLAKE3 of the encoded part.
    pub hash: Hash,
}

impl Shape {
    /// The part that `block` belongs to.
    #[must_use]
    pub fn part_of(&self, block: BlockNo) -> PartNo {
        let at = self.parts.partition_point(|part| part.first <= block.0);
        PartNo(u32::try_from(at.saturating_sub(1)).unwrap_or(0))
    }

    /// The blocks of `part`.
    #[must_use]
    pub fn blocks_of(&self, part: PartNo) -> core::ops::Range<u32> {
        let at = part.0 as usize;
        let first = |at: usize| self.parts.get(at).map_or(self.blocks, |part| part.first);
        first(at)..first(at + 1)
    }
}
