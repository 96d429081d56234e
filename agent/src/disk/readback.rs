//! Read-back: what stands on the disk against the manifest.
//!
//! A stored block is put together again from its places and hashed once, over its live grains in block order. Grains that stand in
//! more than one place are read from each and compared. What belongs to the shadow is not on the disk yet and comes from there; the
//! shadow itself is compared when it has been written.

use super::fault::{Fault, Object};
use super::fill::Pattern;
use super::look::SPOT_BYTES;
use super::runs::offset;
use super::shared::Shared;
use crate::sys::AlignedBuf;
use core::ops::Range;
use slidecast_image::manifest::{BlockInfo, Content, Part};
use slidecast_proto::schedule::{Read, Right, Spot, Written};
use slidecast_proto::units::{BlockNo, Hash};
use std::sync::Arc;

/// Second and further places are compared in pieces of this size.
const PIECE: usize = 128 << 10;
const _: () = assert!(SPOT_BYTES <= PIECE, "a spot is read into one piece");

/// One reader and its memory.
#[derive(Debug)]
pub(super) struct Reader {
    /// One block as it was before packing.
    raw: AlignedBuf,
    piece: AlignedBuf,
    pattern: Pattern,
    /// The part that blocks are looked at in, in a round over all of them.
    part: Option<Arc<Part>>,
}

impl Reader {
    pub(super) fn new(shared: &Shared) -> Result<Self, Fault> {
        let raw = AlignedBuf::new(shared.header.block as usize)?;
        Ok(Self { raw, piece: AlignedBuf::new(PIECE)?, pattern: Pattern::new()?, part: None })
    }

    pub(super) fn run(mut self, shared: &Shared) {
        while let Some(read) = shared.next_read() {
            let done = match read {
                Read::Back(written) => self.back(shared, written),
                Read::Compare(part, block) => self.compare(shared, &part, block),
                Read::Spot(spot) => self.spot(shared, spot),
                Read::Again(block, packed) => self.again(shared, block, &packed),
                Read::Wait | Read::Exit => Ok(()),
            };
            if let Err(fault) = done {
                shared.fail(&fault);
            }
        }
    }

    fn back(&mut self, shared: &Shared, written: Written<Part>) -> Result<(), Fault> {
        let Some(info) = written.part.block(written.block) else { return Ok(()) };
        let object = Object::Block(written.block);
        match self.find_difference(shared, object, &info)? {
            None => {
                let spots = shared.sample.spots(written.block, &info, &shared.layout, &self.raw);
                shared.with(|schedule| schedule.on_equal(&written, spots));
            }
            Some(at) => {
                log::warn!("reading back {object} at {at} on {}: not what was written", shared.path());
                if shared.with(|schedule| schedule.on_different(written)) {
                    return Err(Fault::Mismatch { object, at });
                }
            }
        }
        Ok(())
    }

    /// Whether the disk holds a block. The shadow holds the disk's own head while nothing is written.
    fn compare(&mut self, shared: &Shared, part: &Part, block: BlockNo) -> Result<(), Fault> {
        shared.shadow().load_once(&*shared.io)?;
        let Some(info) = part.block(block) else { return Ok(()) };
        let same = self.find_difference(shared, Object::Block(block), &info)?.is_none();
        if same {
            let ranges = info.places.iter().flat_map(|place| shared.layout.split(shared.layout.bytes_of(place)));
            for (_, range) in ranges.filter(|(in_shadow, _)| *in_shadow) {
                shared.shadow().hold(range);
            }
        }
        let spots = if same { shared.sample.spots(block, &info, &shared.layout, &self.raw) } else { Vec::new() };
        shared.with(|schedule| schedule.on_compared(part.first(), block, same, spots));
        Ok(())
    }

    /// A spot of the last look.
    fn spot(&mut self, shared: &Shared, spot: Spot) -> Result<(), Fault> {
        let found = &mut self.piece[..spot.len];
        shared.read(Object::Verified, spot.at, found)?;
        let right = match spot.right {
            Right::Pattern(pattern) => self.pattern.find_other(pattern, found).is_none(),
            Right::Hash(hash) => Hash::of(found) == hash,
        };
        if !right {
            log::warn!(
                "reading {} once more at {}: not what was verified before; all is read again",
                shared.path(),
                spot.at
            );
        }
        shared.with(|schedule| schedule.on_spot(right));
        Ok(())
    }

    /// A block in a round over all of them.
    fn again(&mut self, shared: &Shared, block: BlockNo, packed: &[u8]) -> Result<(), Fault> {
        let held = self.part.take().filter(|part| part.block(block).is_some());
        let no = shared.header.part_of(block);
        // It was checked when it came, so that it can be parsed.
        let part = held.or_else(|| Part::parse(&shared.header, no, packed).ok().map(Arc::new));
        let Some(part) = part else { return Err(Fault::Forgotten) };
        self.part = Some(Arc::clone(&part));
        let Some(info) = part.block(block) else { return Err(Fault::Forgotten) };
        let object = Object::Block(block);
        match self.find_difference(shared, object, &info)? {
            None => shared.with(|schedule| schedule.on_equal_again(block)),
            Some(at) => {
                log::warn!("reading {object} once more at {at} on {}: not what was verified before", shared.path());
                if shared.with(|schedule| schedule.on_different_again(Written { block, part })) {
                    return Err(Fault::Mismatch { object, at });
                }
            }
        }
        Ok(())
    }

    /// Where on the disk a block is not what it should be.
    fn find_difference(&mut self, shared: &Shared, object: Object, info: &BlockInfo<'_>) -> Result<Option<u64>, Fault> {
        match info.content {
            Content::Fill { pattern } => self.fill_difference(shared, object, info, pattern),
            Content::Stored { grains, live, .. } => self.stored_difference(shared, object, info, grains, live),
        }
    }

    fn stored_difference(
        &mut self,
        shared: &Shared,
        object: Object,
        info: &BlockInfo<'_>,
        grains: u32,
        live: Hash,
    ) -> Result<Option<u64>, Fault> {
        let layout = &shared.layout;
        let len = offset(u64::from(grains) * layout.grain);
        // Places are sorted by source: all of the block that a place shares with earlier ones lies below this byte.
        let mut seen = 0;
        for place in info.places {
            let disk = layout.bytes_of(place);
            let start = offset(u64::from(place.source) * layout.grain);
            let end = start + offset(u64::from(place.grains) * layout.grain);
            let (again, new) = (start..end.min(seen), start.max(seen)..end);
            if !again.is_empty() {
                let raw = &self.raw[again.clone()];
                if let Some(at) = same(shared, object, &disk, raw, &mut self.piece)? {
                    return Ok(Some(at));
                }
            }
            if !new.is_empty() {
                let first = disk.start + (new.start - start) as u64;
                read_padded(shared, object, first.min(disk.end)..disk.end, &mut self.raw[new])?;
            }
            seen = seen.max(end);
        }
        let bytes =
            |run: Range<u32>| offset(u64::from(run.start) * layout.grain)..offset(u64::from(run.end) * layout.grain);
        let mut runs = info.live_runs().map(bytes);
        let found = match (runs.next(), runs.next()) {
            (Some(only), None) => Hash::of(&self.raw[only]),
            (Some(first), Some(second)) => {
                let mut hasher = blake3::Hasher::new();
                for run in [first, second].into_iter().chain(runs) {
                    hasher.update(&self.raw[run]);
                }
                Hash(*hasher.finalize().as_bytes())
            }
            (None, _) => return Ok(None),
        };
        debug_assert!(len <= self.raw.len(), "a stored block is at most one block long");
        let first = info.places.first().map_or(0, |place| layout.bytes_of(place).start);
        Ok((found != live).then_some(first))
    }

    fn fill_difference(
        &mut self,
        shared: &Shared,
        object: Object,
        info: &BlockInfo<'_>,
        pattern: u64,
    ) -> Result<Option<u64>, Fault> {
        let chunk = self.raw.len().min(1 << 20);
        for place in info.places {
            let mut disk = shared.layout.bytes_of(place);
            while !disk.is_empty() {
                let len = usize::try_from(disk.end - disk.start).map_or(chunk, |rest| rest.min(chunk));
                let now = disk.start..disk.start + len as u64;
                read_padded(shared, object, now.clone(), &mut self.raw[..len])?;
                if let Some(wrong) = self.pattern.find_other(pattern, &self.raw[..len]) {
                    return Ok(Some(now.start + wrong as u64));
                }
                disk.start = now.end;
                if shared.is_over() {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

/// Reads a range of the disk, from the shadow what belongs there; what `into` has beyond the range becomes zero.
fn read_padded(shared: &Shared, object: Object, disk: Range<u64>, into: &mut [u8]) -> Result<(), Fault> {
    let (bytes, padding) = into.split_at_mut(offset(disk.end - disk.start));
    padding.fill(0);
    for (in_shadow, range) in shared.layout.split(disk.clone()) {
        let into = &mut bytes[offset(range.start - disk.start)..offset(range.end - disk.start)];
        if in_shadow {
            into.copy_from_slice(shared.shadow().at(&range));
        } else {
            shared.read(object, range.start, into)?;
        }
    }
    Ok(())
}

/// Where the disk, from the start of `disk` on, differs from `raw` (as far as `disk` goes).
fn same(
    shared: &Shared,
    object: Object,
    disk: &Range<u64>,
    raw: &[u8],
    piece: &mut [u8],
) -> Result<Option<u64>, Fault> {
    let mut at = disk.start;
    for right in raw.chunks(piece.len()) {
        let end = (at + right.len() as u64).min(disk.end);
        let found = &mut piece[..right.len()];
        read_padded(shared, object, at.min(end)..end, found)?;
        if found != right {
            return Ok(Some(at));
        }
        at += right.len() as u64;
    }
    Ok(None)
}
