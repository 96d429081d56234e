//! The extents of btrfs, counted against what the block groups and the superblock state.

use super::tree::{Key, Trees};
use crate::le::u64_at;
use crate::used::volume::Kept;
use core::ops::Range;

const EXTENT_TREE: u64 = 2;
const BLOCK_GROUP_TREE: u64 = 11;
const EXTENT_ITEM: u8 = 168;
const METADATA_ITEM: u8 = 169;
const BLOCK_GROUP_ITEM: u8 = 192;
/// What refers to an extent, where that does not fit into its own item.
const REFERENCES: [u8; 5] = [172, 176, 178, 182, 184];
const CORRUPT: Kept = Kept::Corrupt("extent tree");

/// What is in use, counted.
pub(super) struct Extents<'g> {
    /// Called with what no extent has, in logical bytes of one chunk.
    gap: &'g mut dyn FnMut(Range<u64>),
    /// The chunk that extents are counted in, how many of its bytes they have, and where the last one ends.
    chunk: usize,
    used: u64,
    end: u64,
    /// Bytes of all extents in each chunk.
    sums: Vec<u64>,
}

/// Counts all extents, compares with the block groups and the superblock, and calls `gap` with what no extent has, in logical
/// bytes of one chunk. If this fails, nothing of that is known to be free.
pub(super) fn count(trees: &Trees<'_>, gap: &mut dyn FnMut(Range<u64>)) -> Result<(), Kept> {
    let end = trees.chunks.all().first().map_or(0, |chunk| chunk.logical.start);
    Extents { gap, chunk: 0, used: 0, end, sums: Vec::new() }.count(trees)
}

impl Extents<'_> {
    fn count(&mut self, trees: &Trees<'_>) -> Result<(), Kept> {
        let mut groups = Groups::default();
        let own = trees.superblock.has_block_group_tree;
        let node = trees.superblock.node as u64;
        trees.walk(EXTENT_TREE, trees.root_of(EXTENT_TREE)?, &mut |key, raw| match key.kind {
            EXTENT_ITEM => self.add(trees, key.object, key.offset),
            METADATA_ITEM => self.add(trees, key.object, node),
            BLOCK_GROUP_ITEM if !own => groups.add(trees, key, raw),
            kind if REFERENCES.contains(&kind) => Ok(()),
            _ => Err(Kept::NotRead("Btrfs with unknown items in its extent tree")),
        })?;
        while self.chunk < trees.chunks.all().len() {
            self.next_chunk(trees);
        }
        if own {
            trees.walk(BLOCK_GROUP_TREE, trees.root_of(BLOCK_GROUP_TREE)?, &mut |key, raw| match key.kind {
                BLOCK_GROUP_ITEM => groups.add(trees, key, raw),
                _ => Err(CORRUPT),
            })?;
        }
        if groups.used != self.sums {
            return Err(Kept::Disagree("block groups", "extents"));
        }
        let sum = self.sums.iter().try_fold(0_u64, |sum, used| sum.checked_add(*used)).ok_or(CORRUPT)?;
        if sum == trees.superblock.used { Ok(()) } else { Err(Kept::Disagree("superblock", "extents")) }
    }

    /// Adds an extent behind all others.
    fn add(&mut self, trees: &Trees<'_>, start: u64, bytes: u64) -> Result<(), Kept> {
        let end = start.checked_add(bytes).filter(|_| bytes > 0).ok_or(CORRUPT)?;
        let sector = trees.superblock.sector;
        if !start.is_multiple_of(sector) || !bytes.is_multiple_of(sector) {
            return Err(CORRUPT);
        }
        while trees.chunks.all().get(self.chunk).ok_or(CORRUPT)?.logical.end <= start {
            self.next_chunk(trees);
        }
        if start < self.end || end > trees.chunks.all()[self.chunk].logical.end {
            return Err(CORRUPT);
        }
        self.gap(self.end..start);
        self.used += bytes;
        self.end = end;
        Ok(())
    }

    /// Ends a chunk: what is behind its last extent is a gap.
    fn next_chunk(&mut self, trees: &Trees<'_>) {
        let all = trees.chunks.all();
        self.gap(self.end..all[self.chunk].logical.end);
        self.sums.push(core::mem::take(&mut self.used));
        self.chunk += 1;
        self.end = all.get(self.chunk).map_or(u64::MAX, |chunk| chunk.logical.start);
    }

    fn gap(&mut self, gap: Range<u64>) {
        if !gap.is_empty() {
            (self.gap)(gap);
        }
    }
}

/// What the block groups state, in the order of the chunks.
#[derive(Debug, Default)]
struct Groups {
    used: Vec<u64>,
}

impl Groups {
    /// Adds the block group of the next chunk.
    fn add(&mut self, trees: &Trees<'_>, key: Key, raw: &[u8]) -> Result<(), Kept> {
        let chunk = trees.chunks.all().get(self.used.len());
        let same = chunk.is_some_and(|chunk| {
            chunk.logical.start == key.object && key.object.checked_add(key.offset) == Some(chunk.logical.end)
        });
        if !same {
            return Err(Kept::Disagree("block groups", "chunks"));
        }
        self.used.push(u64_at(raw, 0).ok_or(CORRUPT)?);
        Ok(())
    }
}
