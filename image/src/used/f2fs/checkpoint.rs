//! The checkpoint: which of the tables' blocks count, and whether the file system was left properly.
//!
//! There are two packs, written in turn. A pack begins and ends with the same block, so that one that was not written to
//! its end is noticed.

use super::layout::{BLOCK, Layout, SEGMENT};
use super::sum;
use crate::le::{u16_at, u32_at, u64_at};
use crate::used::volume::{Kept, Volume};

const UNMOUNTED: u32 = 0x1;
const COMPACT_SUMMARY: u32 = 0x4;
const LARGE_NAT_BITMAP: u32 = 0x400;
/// Errors, a check that is needed, quotas that need one.
const TROUBLE: u32 = 0x8 | 0x10 | 0x800;
/// Orphans that are still to be removed, checkpoints switched off, a change of size under way.
const UNFINISHED: u32 = 0x2 | 0x1000 | 0x2000 | 0x4000;
/// Where the bits begin in the first block, and the place of its checksum that is usual and the last one.
const BITS: usize = 192;
const SUM: usize = 4092;
/// Where the number of the checkpoint stands in a node.
const NODE_VERSION: usize = 4096 - 12;
/// Types of current segments: data (hot, warm, cold), then nodes.
const DATA_TYPES: usize = 3;
/// Where the journal begins in a summary block, and its length.
const JOURNAL: usize = 3584;
const JOURNAL_BYTES: usize = 507;
const CORRUPT: Kept = Kept::Corrupt("checkpoint");

/// A pack that was written to its end.
pub(super) struct Checkpoint {
    version: u64,
    flags: u32,
    /// Valid blocks of the main area.
    pub(super) valid: u64,
    pub(super) nodes: u64,
    /// The current segments and the next block in each; those of data first.
    pub(super) current: Vec<(u32, u16)>,
    /// Bits of the blocks of each table, the highest bit of a byte first: set where the second copy counts.
    pub(super) sit_bits: Vec<u8>,
    pub(super) nat_bits: Vec<u8>,
    pub(super) nat_journal: Vec<u8>,
    pub(super) sit_journal: Vec<u8>,
}

impl Checkpoint {
    /// The newer one of the two packs, which must both be whole. Programs for unmounted volumes leave two of one version:
    /// then the first one counts, as for the kernel.
    pub(super) fn newest(volume: &Volume<'_>, layout: &Layout) -> Result<Self, Kept> {
        let first = Self::read(volume, layout, layout.checkpoints)?;
        let second = Self::read(volume, layout, layout.checkpoints + SEGMENT)?;
        let ahead = second.version.wrapping_sub(first.version);
        if ahead == 0 || ahead > u64::MAX / 2 { Ok(first) } else { Ok(second) }
    }

    /// The pack whose first block is `at`.
    fn read(volume: &Volume<'_>, layout: &Layout, at: u64) -> Result<Self, Kept> {
        let block = |number: u64| volume.bytes_at(number * BLOCK, 4096);
        let raw = block(at)?;
        let word = |place| u32_at(&raw, place).ok_or(CORRUPT);
        let (flags, total, first_summary) = (word(132)?, u64::from(word(136)?), u64::from(word(140)?));
        if !(2 + layout.payload..=SEGMENT).contains(&total) || first_summary >= total {
            return Err(CORRUPT);
        }
        for raw in [&raw, &block(at + total - 1)?] {
            if !holds(raw) || raw[..8] != block(at)?[..8] {
                return Err(Kept::Disagree("checkpoint", "checksum"));
            }
        }
        let payload = volume.bytes_at((at + 1) * BLOCK, usize::try_from(layout.payload * BLOCK).unwrap_or(0))?;
        let (nat_bits, sit_bits) = bits(&raw, &payload, flags).ok_or(CORRUPT)?;
        let current = (0..DATA_TYPES).map(|kind| (84 + 4 * kind, 116 + 2 * kind));
        let current = current.chain((0..3).map(|kind| (36 + 4 * kind, 68 + 2 * kind)));
        let current = current.map(|(segment, next)| Some((u32_at(&raw, segment)?, u16_at(&raw, next)?)));
        let current: Vec<_> = current.collect::<Option<_>>().ok_or(CORRUPT)?;
        if current.iter().any(|(segment, next)| *segment >= layout.segments || u64::from(*next) > SEGMENT) {
            return Err(CORRUPT);
        }
        let (nat_journal, sit_journal) = if flags & COMPACT_SUMMARY != 0 {
            let summary = block(at + first_summary)?;
            (summary[..JOURNAL_BYTES].to_vec(), summary[JOURNAL_BYTES..2 * JOURNAL_BYTES].to_vec())
        } else {
            // One block for each current segment stands before the last block of the pack; an unmount writes all six.
            let first = (at + total).checked_sub(7).filter(|first| *first > at).ok_or(CORRUPT)?;
            let journal = |number| Ok(block(first + number)?[JOURNAL..JOURNAL + JOURNAL_BYTES].to_vec());
            (journal(0)?, journal(2)?)
        };
        Ok(Self {
            version: u64_at(&raw, 0).ok_or(CORRUPT)?,
            flags,
            valid: u64_at(&raw, 16).ok_or(CORRUPT)?,
            nodes: word(144)?.into(),
            current,
            sit_bits,
            nat_bits,
            nat_journal,
            sit_journal,
        })
    }

    /// It was written by an unmount, and no node was written after it.
    pub(super) fn was_left_properly(&self, volume: &Volume<'_>, layout: &Layout) -> Result<(), Kept> {
        if self.flags & TROUBLE != 0 {
            return Err(Kept::Errors);
        }
        if self.flags & UNMOUNTED == 0 || self.flags & UNFINISHED != 0 {
            return Err(Kept::NotClean);
        }
        for (segment, next) in &self.current[DATA_TYPES..] {
            let at = layout.main + u64::from(*segment) * SEGMENT + u64::from(*next);
            if u64::from(*next) == SEGMENT {
                continue;
            }
            let node = volume.bytes_at(at * BLOCK, 4096)?;
            // The upper half may hold the checkpoint's checksum instead.
            let version = u64_at(&node, NODE_VERSION).unwrap_or(0);
            if version != 0 && version & 0xFFFF_FFFF == self.version & 0xFFFF_FFFF {
                return Err(Kept::Journal);
            }
        }
        Ok(())
    }
}

/// Whether the checksum of a pack's first or last block holds.
fn holds(raw: &[u8]) -> bool {
    let at = u32_at(raw, 164).and_then(|at| usize::try_from(at).ok()).filter(|at| (BITS..=SUM).contains(at));
    at.is_some_and(|at| {
        let rest = if at < SUM { &raw[at + 4..] } else { &[] };
        u32_at(raw, at) == Some(sum(&[&raw[..at], rest]))
    })
}

/// The bits of NAT and SIT; where the latter are too many, they fill the next blocks.
fn bits(raw: &[u8], payload: &[u8], flags: u32) -> Option<(Vec<u8>, Vec<u8>)> {
    let len = |at| u32_at(raw, at).and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= 1 << 22);
    let (sit, nat) = (len(156)?, len(160)?);
    let all = [raw.get(BITS..)?, payload].concat();
    let piece = |from: usize, len: usize| Some(all.get(from..from + len)?.to_vec());
    if flags & LARGE_NAT_BITMAP != 0 {
        // Behind the checksum.
        return Some((piece(4, nat)?, piece(4 + nat, sit)?));
    }
    if payload.is_empty() {
        Some((piece(sit, nat)?, piece(0, sit)?))
    } else {
        Some((piece(0, nat)?, payload.get(..sit)?.to_vec()))
    }
}
