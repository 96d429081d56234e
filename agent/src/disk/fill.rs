//! Fill blocks: eight bytes repeated over every place. Long runs of zeros are left to the kernel or the disk.

use super::fault::{Fault, Object};
use super::layout::Layout;
use super::shared::Shared;
use crate::sys::{AlignedBuf, MapError};
use core::ops::Range;
use slidecast_image::manifest::{BlockInfo, Part};
use slidecast_proto::schedule::{FillWork, Reached};
use std::io::IoSlice;
use std::sync::atomic::Ordering;

/// Shorter runs of zeros are written: a call to the disk costs more than the bytes.
const ZERO_CALL_MIN: u64 = 128 << 10;
/// The longest piece of a fill that is done before blocks that wait are looked after.
const PIECE: u64 = 64 << 20;
/// Memory that holds a pattern.
const PATTERN_BYTES: usize = 128 << 10;
/// How often it is repeated in one write.
const REPEAT: usize = 32;

/// The next piece of a fill within one area of the disk; `None` when all is done.
fn piece(reached: &mut Reached, info: &BlockInfo<'_>, layout: &Layout) -> Option<(bool, Range<u64>)> {
    loop {
        let place = layout.bytes_of(info.places.get(reached.place)?);
        let rest = place.start + reached.at..place.end.min(place.start + reached.at + PIECE);
        let Some(piece) = layout.split(rest).next() else {
            (reached.place, reached.at) = (reached.place + 1, 0);
            continue;
        };
        let len = piece.1.end - piece.1.start;
        reached.at += len;
        reached.bytes += len;
        return Some(piece);
    }
}

/// Does one piece of a fill; gives whether that was the last.
pub(super) fn step(
    work: &mut FillWork<Part>,
    shared: &Shared,
    pattern: u64,
    memory: &mut Pattern,
) -> Result<bool, Fault> {
    let Some(info) = work.part.block(work.block) else { return Ok(true) };
    let Some((in_shadow, range)) = piece(&mut work.reached, &info, &shared.layout) else { return Ok(true) };
    if in_shadow {
        let mut shadow = shared.shadow();
        memory.fill_into(pattern, shadow.at(&range));
    } else {
        fill(shared, Object::Block(work.block), range, pattern, work.plain, memory)?;
    }
    Ok(false)
}

/// Fills a range of the body.
pub(super) fn fill(
    shared: &Shared,
    object: Object,
    range: Range<u64>,
    pattern: u64,
    plain: bool,
    memory: &mut Pattern,
) -> Result<(), Fault> {
    let len = range.end - range.start;
    if pattern == 0 && !plain && len >= ZERO_CALL_MIN && !shared.no_zero_call.load(Ordering::Relaxed) {
        match shared.io.zero(range.start, len) {
            Ok(true) => {
                shared.written_bytes.fetch_add(len, Ordering::Relaxed);
                return Ok(());
            }
            // Not known, or it broke: writing shows whether the disk is at fault.
            Ok(false) => shared.no_zero_call.store(true, Ordering::Relaxed),
            Err(error) => log::debug!("zeroing {len} bytes at {} on {}: {error}", range.start, shared.path()),
        }
    }
    let bytes = memory.hold(pattern);
    let mut at = range.start;
    while at < range.end {
        let mut pieces = [IoSlice::new(&[]); REPEAT];
        let mut count = 0;
        let start = at;
        while at < range.end && count < REPEAT {
            let len = usize::try_from(range.end - at).map_or(bytes.len(), |rest| rest.min(bytes.len()));
            pieces[count] = IoSlice::new(&bytes[..len]);
            at += len as u64;
            count += 1;
        }
        shared.write(object, start, &mut pieces[..count])?;
    }
    Ok(())
}

/// Memory that holds one pattern over and over, made anew only when another is asked for.
#[derive(Debug)]
pub(super) struct Pattern {
    memory: AlignedBuf,
    held: u64,
}

impl Pattern {
    pub(super) fn new() -> Result<Self, MapError> {
        Ok(Self { memory: AlignedBuf::new(PATTERN_BYTES)?, held: 0 })
    }

    pub(super) fn hold(&mut self, pattern: u64) -> &[u8] {
        if self.held != pattern {
            repeat(pattern, &mut self.memory);
            self.held = pattern;
        }
        &self.memory
    }

    fn fill_into(&mut self, pattern: u64, into: &mut [u8]) {
        let bytes = self.hold(pattern);
        for piece in into.chunks_mut(bytes.len()) {
            piece.copy_from_slice(&bytes[..piece.len()]);
        }
    }

    /// The first byte of `bytes` that is not the pattern's.
    pub(super) fn find_other(&mut self, pattern: u64, bytes: &[u8]) -> Option<usize> {
        let held = self.hold(pattern);
        let wrong = bytes.chunks(held.len()).position(|piece| *piece != held[..piece.len()])? * held.len();
        let within = bytes[wrong..].iter().zip(held).position(|(byte, right)| byte != right)?;
        Some(wrong + within)
    }
}

fn repeat(pattern: u64, into: &mut [u8]) {
    for piece in into.chunks_mut(8) {
        piece.copy_from_slice(&pattern.to_le_bytes()[..piece.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::header;
    use super::super::tests::manifest::{fill as fill_block, part};
    use super::*;
    use slidecast_proto::units::BlockNo;

    #[test]
    fn a_fill_is_done_in_pieces_that_keep_to_one_area() {
        let (_, part) = part(&[fill_block(0, 1 << 15, 0), fill_block(1, 3, 1 << 16)]);
        let layout = Layout::new(&header(1 << 30, 4096, 512), 1 << 30);
        let mut reached = Reached::default();
        let info = part.block(BlockNo(0)).unwrap();
        let pieces: Vec<_> = core::iter::from_fn(|| piece(&mut reached, &info, &layout)).collect();
        const MIB: u64 = 1 << 20;
        assert_eq!(pieces, [(true, 0..MIB), (false, MIB..65 * MIB), (false, 65 * MIB..128 * MIB)]);
        assert_eq!(reached.bytes, 128 * MIB);
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        let mut pattern = Pattern::new().unwrap();
        let mut bytes = vec![0; 300_000];
        repeat(0x0102_0304_0506_0708, &mut bytes);
        assert_eq!(pattern.find_other(0x0102_0304_0506_0708, &bytes), None);
        assert_eq!(pattern.find_other(0, &bytes), Some(0));
        for at in [0, 7, 131_071, 131_072, 299_999] {
            bytes[at] ^= 1;
            assert_eq!(pattern.find_other(0x0102_0304_0506_0708, &bytes), Some(at));
            bytes[at] ^= 1;
        }
    }
}
