//! The table of valid blocks (SIT) and that of nodes (NAT), each with its journal.

use super::checkpoint::Checkpoint;
use super::layout::{BLOCK, Layout, SEGMENT};
use crate::le::{u16_at, u32_at};
use crate::used::volume::{Kept, Unused, Volume};

/// Entries of a block of each table, and bytes of each entry.
pub(super) const SIT_ENTRIES: u64 = 55;
const SIT_ENTRY: usize = 74;
const NAT_ENTRIES: u64 = 455;
const NAT_ENTRY: usize = 9;
/// The most entries in a journal.
const SIT_JOURNALED: u16 = 6;
const NAT_JOURNALED: u16 = 38;
/// Types of segments: data, nodes.
const FIRST_NODE_TYPE: u16 = 3;
const TYPES: u16 = 6;
/// A node that has a number, but no place yet.
const NEW: u32 = u32::MAX;
const SIT: Kept = Kept::Corrupt("table of valid blocks");
const NAT: Kept = Kept::Corrupt("table of nodes");

/// The blocks that the table says are not valid, but for those of the current segments.
pub(super) fn free(volume: &Volume<'_>, layout: &Layout, checkpoint: &Checkpoint) -> Result<Unused, Kept> {
    let copies = layout.sit_segments / 2 * SEGMENT;
    let journal = entries(&checkpoint.sit_journal, 4 + SIT_ENTRY, SIT_JOURNALED).ok_or(SIT)?;
    let mut unused = Unused::default();
    let (mut valid, mut nodes) = (0, 0);
    let mut block = Vec::new();
    for segment in 0..layout.segments {
        let (number, entry) = (u64::from(segment) / SIT_ENTRIES, u64::from(segment) % SIT_ENTRIES);
        if entry == 0 {
            let second = bit(&checkpoint.sit_bits, number).ok_or(SIT)?;
            let at = layout.sit + number + if second { copies } else { 0 };
            block = volume.bytes_at(at * BLOCK, 4096)?;
        }
        let from = usize::try_from(entry).unwrap_or(0) * SIT_ENTRY;
        let of_table = block.get(from..from + SIT_ENTRY).ok_or(SIT)?;
        let newer = journal.iter().find(|(of, _)| *of == segment).map(|(_, entry)| *entry);
        let entry = Segment::parse(newer.unwrap_or(of_table)).ok_or(SIT)?;
        valid += u64::from(entry.valid);
        nodes += if entry.kind >= FIRST_NODE_TYPE { u64::from(entry.valid) } else { 0 };
        if checkpoint.current.iter().all(|(current, _)| *current != segment) {
            let first = layout.main + u64::from(segment) * SEGMENT;
            entry.free(|run| unused.push((first + run.start) * BLOCK..(first + run.end) * BLOCK));
        }
    }
    let blocks = u64::from(layout.segments) * SEGMENT;
    if valid != checkpoint.valid || journal.iter().any(|(segment, _)| *segment >= layout.segments) {
        let free = |valid: u64| blocks.saturating_sub(valid);
        return Err(Kept::Counts { stated: free(checkpoint.valid), counted: free(valid) });
    }
    if nodes != checkpoint.nodes {
        return Err(Kept::Disagree("table of valid blocks", "count of nodes"));
    }
    Ok(unused)
}

/// No node lies where a block is unused, and there are as many as the checkpoint says.
pub(super) fn nodes_are_used(
    volume: &Volume<'_>,
    layout: &Layout,
    checkpoint: &Checkpoint,
    unused: &Unused,
) -> Result<(), Kept> {
    let journal = entries(&checkpoint.nat_journal, 4 + NAT_ENTRY, NAT_JOURNALED).ok_or(NAT)?;
    let mut nodes = 0;
    let mut check = |entry: &[u8]| {
        let place = u32_at(entry, 5).ok_or(NAT)?;
        if place == 0 || place == NEW {
            return Ok(());
        }
        nodes += 1;
        let place = u64::from(place);
        if !(layout.main..layout.end()).contains(&place) {
            return Err(NAT);
        }
        if unused.contains(place * BLOCK) {
            Err(Kept::Disagree("table of valid blocks", "table of nodes"))
        } else {
            Ok(())
        }
    };
    for number in 0..layout.nat_segments / 2 * SEGMENT {
        let second = bit(&checkpoint.nat_bits, number).ok_or(NAT)?;
        // Segments of the first copies and of the second ones alternate.
        let at = layout.nat + number / SEGMENT * 2 * SEGMENT + number % SEGMENT + if second { SEGMENT } else { 0 };
        let block = volume.bytes_at(at * BLOCK, 4096)?;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        for (node, entry) in (number * NAT_ENTRIES..(number + 1) * NAT_ENTRIES).zip(block.chunks_exact(NAT_ENTRY)) {
            let is_old = journal.iter().any(|(newer, _)| u64::from(*newer) == node);
            // The nodes 1 and 2 stand for the tables, and have no place.
            if node > 2 && !is_old {
                check(entry)?;
            }
        }
    }
    journal.iter().filter(|(node, _)| *node > 2).try_for_each(|(_, entry)| check(entry))?;
    if nodes == checkpoint.nodes { Ok(()) } else { Err(Kept::Disagree("table of nodes", "count of nodes")) }
}

/// The entries of a journal: what each is about, and what it says.
fn entries(journal: &[u8], bytes: usize, most: u16) -> Option<Vec<(u32, &[u8])>> {
    let count = u16_at(journal, 0).filter(|count| *count <= most)?;
    let entries = journal.get(2..)?.chunks_exact(bytes).take(count.into());
    entries.map(|entry| Some((u32_at(entry, 0)?, entry.get(4..)?))).collect()
}

/// A bit of a map whose bytes begin with their highest bit.
fn bit(map: &[u8], number: u64) -> Option<bool> {
    let byte = map.get(usize::try_from(number / 8).ok()?)?;
    Some(byte << (number % 8) & 0x80 != 0)
}

/// An entry of the table of valid blocks.
struct Segment<'a> {
    valid: u16,
    kind: u16,
    map: &'a [u8],
}

impl<'a> Segment<'a> {
    fn parse(entry: &'a [u8]) -> Option<Self> {
        let word = u16_at(entry, 0)?;
        let map = entry.get(2..66)?;
        let (valid, kind) = (word & 0x3FF, word >> 10);
        let counted: u32 = map.iter().map(|byte| byte.count_ones()).sum();
        (counted == u32::from(valid) && kind < TYPES).then_some(Self { valid, kind, map })
    }

    /// Calls `each` with the runs of blocks that are not valid.
    fn free(&self, mut each: impl FnMut(core::ops::Range<u64>)) {
        let mut start = None;
        for number in 0..=SEGMENT {
            let is_free = bit(self.map, number) == Some(false);
            match (is_free, start) {
                (true, None) => start = Some(number),
                (false, Some(first)) => {
                    each(first..number);
                    start = None;
                }
                _ => {}
            }
        }
    }
}
