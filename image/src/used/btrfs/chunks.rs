//! The chunks of btrfs: where logical bytes lie on the device.

use super::superblock::Superblock;
use super::tree::Key;
use crate::le::{u16_at, u64_at};
use crate::used::volume::Kept;
use core::ops::Range;

/// A chunk is usually 1 GiB; so many are 100 TiB with chunks of 100 MiB.
const MAX_CHUNKS: usize = 1 << 20;
const CORRUPT: Kept = Kept::Corrupt("chunk tree");
/// What is in a chunk: data, system, metadata.
const CONTENT: u64 = 7;
const DUP: u64 = 32;
/// The type of a chunk's key, and the object that all of them belong to.
pub(super) const CHUNK_ITEM: u8 = 228;
const CHUNK_TREE: u64 = 256;

/// One chunk, with one copy on the device or two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) logical: Range<u64>,
    first: u64,
    second: Option<u64>,
}

impl Chunk {
    /// Reads a chunk item; returns its length too.
    fn parse(key: Key, raw: &[u8], superblock: &Superblock) -> Result<(Self, usize), Kept> {
        let numbers = (u64_at(raw, 0), u64_at(raw, 24), u16_at(raw, 44));
        let (Some(bytes), Some(kind), Some(count)) = numbers else { return Err(CORRUPT) };
        if kind & !(CONTENT | DUP) != 0 {
            return Err(Kept::NotRead("Btrfs with chunks of a RAID profile"));
        }
        let end = key.offset.checked_add(bytes).filter(|_| bytes > 0).ok_or(CORRUPT)?;
        let aligned = key.offset.is_multiple_of(superblock.sector) && bytes.is_multiple_of(superblock.sector);
        if key.object != CHUNK_TREE
            || key.kind != CHUNK_ITEM
            || !aligned
            || usize::from(count) != 1 + usize::from(kind & DUP != 0)
        {
            return Err(CORRUPT);
        }
        let stripe = |no: usize| {
            let at = 48 + no * 32;
            let (device, place) = (u64_at(raw, at)?, u64_at(raw, at + 8)?);
            let fits = place.checked_add(bytes)? <= superblock.device_bytes && place.is_multiple_of(superblock.sector);
            (device == superblock.device && fits).then_some(place)
        };
        let first = stripe(0).ok_or(CORRUPT)?;
        let second = if count == 2 { Some(stripe(1).ok_or(CORRUPT)?) } else { None };
        let len = 48 + usize::from(count) * 32;
        Ok((Self { logical: key.offset..end, first, second }, len))
    }

    /// Where `range` of the chunk lies.
    fn places(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let (start, end) = (range.start - self.logical.start, range.end - self.logical.start);
        core::iter::once(self.first).chain(self.second).map(move |at| at + start..at + end)
    }
}

/// All chunks, in logical order.
#[derive(Debug, Default)]
pub(super) struct Chunks(Vec<Chunk>);

impl Chunks {
    /// Those that stand in the superblock.
    pub(super) fn of_superblock(superblock: &Superblock) -> Result<Self, Kept> {
        let mut chunks = Vec::new();
        let mut rest = superblock.chunks.as_slice();
        while !rest.is_empty() {
            let key = Key::parse(rest).ok_or(CORRUPT)?;
            let (chunk, len) = Chunk::parse(key, rest.get(17..).ok_or(CORRUPT)?, superblock)?;
            rest = rest.get(17 + len..).ok_or(CORRUPT)?;
            chunks.push(chunk);
        }
        chunks.sort_unstable_by_key(|chunk| chunk.logical.start);
        let apart = chunks.windows(2).all(|pair| pair[0].logical.end <= pair[1].logical.start);
        if apart { Ok(Self(chunks)) } else { Err(CORRUPT) }
    }

    /// Adds the chunk behind all others.
    pub(super) fn add(&mut self, key: Key, raw: &[u8], superblock: &Superblock) -> Result<(), Kept> {
        let (chunk, len) = Chunk::parse(key, raw, superblock)?;
        if raw.len() != len || self.0.last().is_some_and(|last| last.logical.end > chunk.logical.start) {
            return Err(CORRUPT);
        }
        if self.0.len() == MAX_CHUNKS {
            return Err(Kept::TooLarge);
        }
        self.0.push(chunk);
        Ok(())
    }

    /// Whether all of `others` are among them.
    pub(super) fn have(&self, others: &Self) -> bool {
        others.0.iter().all(|other| {
            let found = self.0.binary_search_by_key(&other.logical.start, |chunk| chunk.logical.start);
            found.is_ok_and(|no| self.0[no] == *other)
        })
    }

    pub(super) fn all(&self) -> &[Chunk] {
        &self.0
    }

    /// Where a range lies that is in one chunk.
    pub(super) fn places(&self, range: &Range<u64>) -> Option<impl Iterator<Item = Range<u64>> + use<>> {
        let no = self.0.partition_point(|chunk| chunk.logical.end <= range.start);
        let chunk =
            self.0.get(no).filter(|chunk| chunk.logical.start <= range.start && range.end <= chunk.logical.end)?;
        Some(chunk.places(range))
    }

    /// What of a device of `bytes` bytes is in no chunk. No two may have the same bytes.
    pub(super) fn unmapped(&self, bytes: u64) -> Result<Vec<Range<u64>>, Kept> {
        let mut mapped: Vec<Range<u64>> = self.0.iter().flat_map(|chunk| chunk.places(&chunk.logical)).collect();
        mapped.sort_unstable_by_key(|range| range.start);
        let (mut end, mut found) = (0, Vec::new());
        for range in mapped {
            if range.start < end {
                return Err(CORRUPT);
            }
            found.push(end..range.start);
            end = range.end;
        }
        found.push(end..bytes);
        Ok(found)
    }
}
