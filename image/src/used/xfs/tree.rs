//! The B+trees of free extents: one by place, one by length and place.

use super::layout::{Layout, Version};
use super::sum_holds;
use crate::be::{u16_at, u32_at, u64_at};
use crate::used::volume::{Kept, Volume};
use core::ops::Range;

/// No tree of so small a key is higher.
const MAX_LEVELS: u32 = 16;
/// No tree has more blocks that are read: with blocks of 4 KiB, half full, 256 million extents in one group.
const MAX_BLOCKS: usize = 1 << 20;
const CORRUPT: Kept = Kept::Corrupt("tree of free extents");

/// By what a tree is sorted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Place,
    Length,
}

/// A tree of a group.
pub(super) struct Tree<'a> {
    pub(super) volume: &'a Volume<'a>,
    pub(super) layout: &'a Layout,
    pub(super) group: u32,
    pub(super) root: u32,
    pub(super) levels: u32,
    pub(super) order: Order,
    /// Where free extents can be, as blocks of the group.
    pub(super) within: Range<u64>,
    /// How many free blocks there are at most.
    pub(super) free: u64,
}

/// What was found in a tree.
#[derive(Default)]
pub(super) struct Walk {
    /// Its own blocks.
    pub(super) blocks: Vec<u64>,
    /// The free blocks, and those of the longest extent.
    pub(super) free: u64,
    pub(super) longest: u64,
    /// Of the set of extents, whatever their order.
    pub(super) fingerprint: u64,
    /// What the last extent was sorted by.
    last: Option<(u64, u64)>,
}

impl Tree<'_> {
    /// Calls `each` with all the extents, in the order of the tree.
    ///
    /// Each extent lies behind the one before it (by length: is longer than it, or lies behind) and takes at least one of
    /// the free blocks, so the walk ends after as many, however its blocks refer to each other.
    pub(super) fn walk(&self, mut each: impl FnMut(Range<u64>)) -> Result<Walk, Kept> {
        if self.levels == 0 || self.levels > MAX_LEVELS {
            return Err(CORRUPT);
        }
        let mut walk = Walk::default();
        // Blocks that are still to be read, with their levels; those of the same level are in reverse order.
        let mut waiting = vec![(self.root, self.levels - 1)];
        while let Some((number, level)) = waiting.pop() {
            if walk.blocks.len() == MAX_BLOCKS {
                return Err(Kept::TooLarge);
            }
            let block = self.block(number, level)?;
            walk.blocks.push(number.into());
            let records = u16_at(&block, 6).map(usize::from).ok_or(CORRUPT)?;
            let entries = block.get(self.head()..).ok_or(CORRUPT)?;
            let most = if level == 0 { entries.len() / 8 } else { entries.len() / 12 };
            // Only a root that is a leaf may be empty.
            if records > most || (records == 0 && self.levels > 1) {
                return Err(CORRUPT);
            }
            if level == 0 {
                for record in entries.chunks_exact(8).take(records) {
                    each(self.extent(record, &mut walk)?);
                }
            } else {
                let pointers = entries[8 * most..].chunks_exact(4).take(records).rev();
                waiting.extend(pointers.map(|raw| (u32_at(raw, 0).unwrap_or(u32::MAX), level - 1)));
            }
        }
        Ok(walk)
    }

    /// Bytes of the head of a block.
    fn head(&self) -> usize {
        if self.layout.version == Version::Four { 16 } else { 56 }
    }

    /// A block of the tree, which must be at that level.
    fn block(&self, number: u32, level: u32) -> Result<Vec<u8>, Kept> {
        if !self.within.contains(&number.into()) {
            return Err(CORRUPT);
        }
        let at = (self.layout.start_of(self.group) + u64::from(number)) * self.layout.block;
        let block = self.volume.bytes_at(at, usize::try_from(self.layout.block).unwrap_or(0))?;
        let five = self.layout.version != Version::Four;
        let magic = match (self.order, five) {
            (Order::Place, false) => b"ABTB",
            (Order::Place, true) => b"AB3B",
            (Order::Length, false) => b"ABTC",
            (Order::Length, true) => b"AB3C",
        };
        if !block.starts_with(magic) || u16_at(&block, 4).map(u32::from) != Some(level) {
            return Err(CORRUPT);
        }
        let owned = || {
            u64_at(&block, 16) == Some(at / 512)
                && u32_at(&block, 48) == Some(self.group)
                && self.layout.owns(&block, 32)
        };
        if five && !(owned() && sum_holds(&block, 52)) {
            return Err(Kept::Disagree("tree of free extents", "checksum"));
        }
        Ok(block)
    }

    /// The extent of a record, if it can follow what was found so far.
    fn extent(&self, record: &[u8], walk: &mut Walk) -> Result<Range<u64>, Kept> {
        let word = |at| u32_at(record, at).map(u64::from).ok_or(CORRUPT);
        let (start, blocks) = (word(0)?, word(4)?);
        let extent = start..start + blocks;
        let (key, follows) = match self.order {
            Order::Place => ((extent.end, 0), walk.last.is_none_or(|(end, _)| end <= start)),
            Order::Length => ((blocks, start), walk.last.is_none_or(|last| last < (blocks, start))),
        };
        walk.free += blocks;
        let inside = self.within.start <= extent.start && extent.end <= self.within.end;
        if blocks == 0 || !follows || !inside || walk.free > self.free {
            return Err(CORRUPT);
        }
        walk.last = Some(key);
        walk.longest = walk.longest.max(blocks);
        walk.fingerprint = walk.fingerprint.wrapping_add(mixed(start << 32 | blocks));
        Ok(extent)
    }
}

/// A number of which every bit depends on every bit of `number` (the last steps of MurmurHash3, which are one to one).
fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let number = (number ^ number >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    number ^ number >> 33
}
