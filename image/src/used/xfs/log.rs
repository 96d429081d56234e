//! The log: whether its newest record says that the file system was unmounted.
//!
//! The log is a ring of blocks of 512 bytes. Each begins with the number of the cycle in which it was written, but a
//! record's first block, which has a magic number there and the cycle behind it. So the block with the highest cycle,
//! and of those the last one, was written last.

use super::layout::Layout;
use crate::be::{u32_at, u64_at};
use crate::used::volume::{Kept, Volume};

const BLOCK: u64 = 512;
const MAGIC: u32 = 0xFEED_BABE;
/// A header of version 2 stands for so many bytes of a record; for larger records more blocks follow it.
const HEADER_COVERS: u32 = 32 << 10;
/// The largest record that Linux writes, and more.
const MAX_RECORD: u32 = 1 << 20;
const FLAG_UNMOUNT: u8 = 0x20;
/// How much is read at once.
const PIECE: u64 = 1 << 20;

/// When a block of the log was written: its cycle and its number in the log.
type When = (u32, u64);

/// An error if there may be anything in the log that the rest of the volume lacks.
pub(super) fn is_empty(volume: &Volume<'_>, layout: &Layout) -> Result<(), Kept> {
    let blocks = (layout.log.end - layout.log.start) / BLOCK;
    let (last_block, last_header) = newest(volume, layout)?;
    let Some((cycle, at)) = last_header else { return Err(Kept::Corrupt("log")) };
    let read = |number: u64| volume.bytes_at(layout.log.start + number % blocks * BLOCK, 512);
    let header = Header::parse(&read(at)?, layout).ok_or(Kept::Corrupt("log"))?;
    if header.lsn != (cycle, at) {
        return Err(Kept::Corrupt("log"));
    }
    let (first, end) = (at + header.blocks, at + header.blocks + header.data_blocks);
    let record = read(first)?;
    // A record that does not end before the ring does goes on at its start, one cycle later.
    let when = |number: u64| (cycle.saturating_add(u32::from(number >= blocks)), number % blocks);
    let unmounted = header.operations == 1
        && header.data_blocks > 0
        && u32_at(&record, 0) == Some(when(first).0)
        && record[9] & FLAG_UNMOUNT != 0;
    if unmounted && end <= 2 * blocks && when(end - 1) == last_block { Ok(()) } else { Err(Kept::Journal) }
}

/// The block that was written last, and the header that was.
fn newest(volume: &Volume<'_>, layout: &Layout) -> Result<(When, Option<When>), Kept> {
    let (mut last_block, mut last_header) = ((0, 0), None);
    let mut at = layout.log.start;
    let mut piece = vec![0; usize::try_from(PIECE).unwrap_or(0)];
    while at < layout.log.end {
        let len = PIECE.min(layout.log.end - at);
        let piece = &mut piece[..usize::try_from(len).unwrap_or(0)];
        volume.read(at, piece)?;
        let first = (at - layout.log.start) / BLOCK;
        for (number, block) in (first..).zip(piece.chunks_exact(512)) {
            let word = |at| u32_at(block, at).unwrap_or(0);
            let is_header = word(0) == MAGIC;
            let when = (if is_header { word(4) } else { word(0) }, number);
            last_block = last_block.max(when);
            if is_header {
                last_header = last_header.max(Some(when));
            }
        }
        at += len;
    }
    Ok((last_block, last_header))
}

/// The header of a record.
struct Header {
    lsn: When,
    /// Its own blocks and those of the record.
    blocks: u64,
    data_blocks: u64,
    operations: u32,
}

impl Header {
    fn parse(raw: &[u8], layout: &Layout) -> Option<Self> {
        let (version, bytes, size) = (u32_at(raw, 8)?, u32_at(raw, 12)?, u32_at(raw, 320)?);
        let lsn = u64_at(raw, 16)?;
        let is_ours = raw.get(304..320)? == layout.uuid;
        if !matches!(version, 1 | 2) || bytes > MAX_RECORD || !is_ours {
            return None;
        }
        let blocks = if version == 2 && size > HEADER_COVERS { size.div_ceil(HEADER_COVERS) } else { 1 };
        Some(Self {
            lsn: (u32::try_from(lsn >> 32).ok()?, lsn & 0xFFFF_FFFF),
            blocks: blocks.into(),
            data_blocks: u64::from(bytes).div_ceil(BLOCK),
            operations: u32_at(raw, 40)?,
        })
    }
}
