//! Parts of the manifest: blocks with their hashes and places, in one canonical encoding.
//!
//! A part begins with its first block and its number of blocks; then, for each block, a flags byte (bit 0: fill, bit 1:
//! partly live), the content, the number of places and the places as differences. `docs/IMAGE.md` has the byte table.

use crate::manifest::{MAX_BLOCK_PLACES, ManifestError, ManifestHeader, PART_BLOCKS, PART_BYTES};
use crate::varint::{self, Reader};
use core::ops::Range;
use slidecast_proto::schedule::ManifestPart;
use slidecast_proto::units::{BlockNo, Hash, MAX_FILL_BYTES, MAX_PART_BYTES, PartNo};

const FILL: u8 = 1;
const PARTLY_LIVE: u8 = 2;

/// Where grains of a block belong: a run in the block and where on the disk it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The first grain within the block; 0 for fills.
    pub source: u32,
    /// How many grains.
    pub grains: u32,
    /// The first grain on the disk.
    pub target: u64,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A block with a payload.
    Stored {
        /// The length of the unpacked block, in grains.
        grains: u32,
        /// BLAKE3 of the whole unpacked block.
        hash: Hash,
        /// BLAKE3 over its live grains in block order; equal to `hash` when all are live.
        live: Hash,
    },
    /// Eight bytes repeated, without a payload. Zeros are pattern 0.
    Fill {
        /// The eight bytes, read as a little-endian number.
        pattern: u64,
    },
}

/// One block of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo<'a> {
    /// What it holds.
    pub content: Content,
    /// Everywhere it belongs, sorted by source, then target.
    pub places: &'a [Place],
}

impl BlockInfo<'_> {
    /// The lowest grain of the disk that the block reaches.
    #[must_use]
    pub fn lowest_target(&self) -> u64 {
        self.places.iter().map(|place| place.target).min().unwrap_or(0)
    }

    /// The grains of a stored block that some place uses, as runs in block order.
    pub fn live_runs(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        live_runs(self.places.iter().copied())
    }
}

/// The union of the source ranges of `places`, which are sorted by source.
pub(crate) fn live_runs(places: impl Iterator<Item = Place>) -> impl Iterator<Item = Range<u32>> {
    let mut places = places.peekable();
    core::iter::from_fn(move || {
        let first = places.next()?;
        let mut run = first.source..first.source + first.grains;
        while let Some(next) = places.next_if(|next| next.source <= run.end) {
            run.end = run.end.max(next.source + next.grains);
        }
        Some(run)
    })
}

/// A part of the manifest, parsed and checked against the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    first: BlockNo,
    blocks: Vec<(Content, Range<u32>)>,
    places: Vec<Place>,
}

impl Part {
    /// Reads part `no`: first its hash is compared with the one in the header, then every number is checked.
    ///
    /// # Errors
    /// [`ManifestError`] saying which rule a block breaks, or that these bytes are not the part that the header names.
    pub fn parse(header: &ManifestHeader, no: PartNo, bytes: &[u8]) -> Result<Self, ManifestError> {
        let entry = header.parts.get(no.0 as usize).ok_or(ManifestError::NoSuchPart(no))?;
        if bytes.len() > MAX_PART_BYTES as usize || Hash::of(bytes) != entry.hash {
            return Err(ManifestError::PartHash(no));
        }
        Self::parse_trusted(header, header.part_blocks(no), bytes)
    }

    fn parse_trusted(header: &ManifestHeader, range: Range<u32>, bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new(bytes, "manifest part");
        if reader.fixed_u32()? != range.start || reader.fixed_u32()? != range.end - range.start {
            return Err(ManifestError::Header("a part has other blocks than the header says"));
        }
        let mut part = Self { first: BlockNo(range.start), blocks: Vec::new(), places: Vec::new() };
        for block in range {
            let fault = |what| ManifestError::Block { block: BlockNo(block), what };
            let flags = reader.byte()?;
            let begin = part.places.len();
            let content = match flags {
                FILL => {
                    let pattern = reader.fixed_u64()?;
                    read_places(header, &mut reader, None, &mut part.places)?.map_err(fault)?;
                    Content::Fill { pattern }
                }
                0 | PARTLY_LIVE => {
                    let grains = reader.varint_u32()?;
                    if grains == 0 || grains > header.block / header.grain {
                        return Err(fault("impossible block length"));
                    }
                    let hash = Hash(reader.array()?);
                    let live = if flags == 0 { hash } else { Hash(reader.array()?) };
                    read_places(header, &mut reader, Some(grains), &mut part.places)?.map_err(fault)?;
                    let whole = live_runs(part.places[begin..].iter().copied()).eq(core::iter::once(0..grains));
                    if whole != (flags == 0) {
                        return Err(fault("places and live hash do not agree"));
                    }
                    Content::Stored { grains, hash, live }
                }
                _ => return Err(reader.malformed().into()),
            };
            part.blocks.push((content, index(begin)..index(part.places.len())));
        }
        if reader.is_empty() { Ok(part) } else { Err(reader.malformed().into()) }
    }

    /// The part's only encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = PartWriter::new(self.first);
        for block in self.first.0..self.first.0 + self.len() {
            if let Some(info) = self.block(BlockNo(block)) {
                writer.push(info.content, info.places.len(), info.places.iter().copied());
            }
        }
        writer.finish()
    }

    /// The first block.
    #[must_use]
    pub fn first(&self) -> BlockNo {
        self.first
    }

    /// How many blocks there are.
    #[expect(clippy::len_without_is_empty, reason = "a part is never empty")]
    #[must_use]
    pub fn len(&self) -> u32 {
        index(self.blocks.len())
    }

    /// The block of that number, if it is in this part.
    #[must_use]
    pub fn block(&self, block: BlockNo) -> Option<BlockInfo<'_>> {
        let (content, places) = self.blocks.get(block.0.checked_sub(self.first.0)? as usize)?;
        Some(BlockInfo { content: *content, places: &self.places[places.start as usize..places.end as usize] })
    }

    /// The memory that the part takes on the heap, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<(Content, Range<u32>)>() + self.places.capacity() * size_of::<Place>()
    }
}

impl ManifestPart for Part {
    fn first(&self) -> BlockNo {
        self.first
    }

    fn blocks(&self) -> u32 {
        self.len()
    }

    fn is_fill(&self, block: BlockNo) -> bool {
        self.block(block).is_some_and(|info| matches!(info.content, Content::Fill { .. }))
    }

    fn heap_bytes(&self) -> usize {
        Self::heap_bytes(self)
    }
}

/// Positions inside a part: far below 2^32, as a part has at most a megabyte.
fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Reads the places of a block of `stored` grains, or of a fill. The outer error is one of the bytes, the inner one of
/// the numbers.
fn read_places(
    header: &ManifestHeader,
    reader: &mut Reader<'_>,
    stored: Option<u32>,
    places: &mut Vec<Place>,
) -> Result<Result<(), &'static str>, ManifestError> {
    let count = reader.varint_u32()?;
    if count == 0 || count > MAX_BLOCK_PLACES {
        return Ok(Err("no places or too many"));
    }
    let disk = header.disk_grains();
    let mut last: Option<Place> = None;
    let mut covered = 0u64;
    for _ in 0..count {
        let step = if stored.is_some() { reader.varint_u32()? } else { 0 };
        let grains = reader.varint_u32()?;
        let delta = if stored.is_some() {
            reader.signed()?
        } else {
            i64::try_from(reader.varint()?).map_err(|_| reader.malformed())?
        };
        let (before, base) = last.map_or((0, 0), |last| (last.source, last.target + u64::from(last.grains)));
        let source = before.checked_add(step);
        let target = base.checked_add_signed(delta);
        let (Some(source), Some(target)) = (source, target) else { return Ok(Err("a place beyond all numbers")) };
        let place = Place { source, grains, target };
        let source_end = u64::from(source) + u64::from(grains);
        if grains == 0 || stored.is_some_and(|stored| source_end > u64::from(stored)) {
            return Ok(Err("a place outside the block"));
        }
        if target.checked_add(u64::from(grains)).is_none_or(|end| end > disk) {
            return Ok(Err("a place outside the disk"));
        }
        if last.is_some_and(|last| (last.source, last.target) >= (source, target)) {
            return Ok(Err("places out of order"));
        }
        covered += u64::from(grains);
        if stored.is_none() && covered * u64::from(header.grain) > MAX_FILL_BYTES {
            return Ok(Err("a fill that is too long"));
        }
        places.push(place);
        last = Some(place);
    }
    Ok(Ok(()))
}

/// Encodes parts, block by block.
#[derive(Debug)]
pub struct PartWriter {
    first: u32,
    count: u32,
    bytes: Vec<u8>,
}

impl PartWriter {
    /// Begins the part whose first block is `first`.
    #[must_use]
    pub fn new(first: BlockNo) -> Self {
        let mut bytes = first.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        Self { first: first.0, count: 0, bytes }
    }

    /// Adds the next block with its `count` places, sorted by source and target.
    pub fn push(&mut self, content: Content, count: usize, places: impl Iterator<Item = Place>) {
        let out = &mut self.bytes;
        let stored = match content {
            Content::Fill { pattern } => {
                out.push(FILL);
                out.extend_from_slice(&pattern.to_le_bytes());
                false
            }
            Content::Stored { grains, hash, live } => {
                out.push(if live == hash { 0 } else { PARTLY_LIVE });
                varint::put(out, u64::from(grains));
                out.extend_from_slice(&hash.0);
                if live != hash {
                    out.extend_from_slice(&live.0);
                }
                true
            }
        };
        varint::put(out, count as u64);
        let (mut before, mut base) = (0, 0);
        for place in places {
            let delta = place.target.cast_signed().wrapping_sub(base);
            if stored {
                varint::put(out, u64::from(place.source - before));
                varint::put(out, u64::from(place.grains));
                varint::put_signed(out, delta);
            } else {
                varint::put(out, u64::from(place.grains));
                varint::put(out, delta.cast_unsigned());
            }
            before = place.source;
            base = place.target.cast_signed() + i64::from(place.grains);
        }
        self.count += 1;
    }

    /// Whether the part must end here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count >= PART_BLOCKS || self.bytes.len() >= PART_BYTES
    }

    /// How many blocks it has.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The first block after it.
    #[must_use]
    pub fn end(&self) -> BlockNo {
        BlockNo(self.first + self.count)
    }

    /// The encoded part.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{PartEntry, TableKind};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn header(blocks: u32, bytes: &[u8]) -> ManifestHeader {
        ManifestHeader {
            layer: Hash([0; 32]),
            disk_bytes: 1 << 40,
            sector: 512,
            grain: 4096,
            block: 1 << 20,
            blocks,
            stored_blocks: 0,
            raw_bytes: 1 << 39,
            table: TableKind::None,
            parts: vec![PartEntry { first: BlockNo(0), hash: Hash::of(bytes) }],
        }
    }

    type Block = (Content, Vec<Place>);

    fn encode(blocks: &[Block]) -> Vec<u8> {
        let mut writer = PartWriter::new(BlockNo(0));
        blocks.iter().for_each(|(content, places)| writer.push(*content, places.len(), places.iter().copied()));
        writer.finish()
    }

    fn parse(blocks: &[Block]) -> Result<Part, ManifestError> {
        let bytes = encode(blocks);
        let count = u32::try_from(blocks.len()).unwrap();
        Part::parse(&header(count, &bytes), PartNo(0), &bytes)
    }

    fn stored() -> impl Strategy<Value = Block> {
        (1u32..=256, any::<[u8; 32]>(), vec((0u32..256, 1u32..256, 0u64..(1 << 28) - 256), 1..20)).prop_map(
            |(grains, hash, runs)| {
                let mut places: Vec<_> = runs
                    .into_iter()
                    .map(|(source, len, target)| {
                        let source = source % grains;
                        Place { source, grains: len.min(grains - source), target }
                    })
                    .collect();
                places.sort_by_key(|place| (place.source, place.target));
                places.dedup_by_key(|place| (place.source, place.target));
                let whole = live_runs(places.iter().copied()).eq(core::iter::once(0..grains));
                let live = if whole { hash } else { [9; 32] };
                (Content::Stored { grains, hash: Hash(hash), live: Hash(live) }, places)
            },
        )
    }

    fn fill() -> impl Strategy<Value = Block> {
        (any::<u64>(), vec((0u64..1000, 1u32..1000), 1..20)).prop_map(|(pattern, runs)| {
            let mut at = 0;
            let places = runs
                .into_iter()
                .map(|(gap, grains)| {
                    let target = at + gap;
                    at = target + u64::from(grains);
                    Place { source: 0, grains, target }
                })
                .collect();
            (Content::Fill { pattern }, places)
        })
    }

    proptest! {
        #[test]
        fn parts_come_back_as_they_were(blocks in vec(prop_oneof![stored(), fill()], 1..10)) {
            let part = parse(&blocks).unwrap();
            prop_assert_eq!(part.len() as usize, blocks.len());
            for (no, (content, places)) in (0..).zip(&blocks) {
                let info = part.block(BlockNo(no)).unwrap();
                prop_assert_eq!(info.content, *content);
                prop_assert_eq!(info.places, &places[..]);
            }
            prop_assert_eq!(part.encode(), encode(&blocks));
            prop_assert!(part.block(BlockNo(part.len())).is_none());
        }

        #[test]
        fn noise_never_panics_and_never_has_two_encodings(bytes in vec(any::<u8>(), 0..200), count in 0u32..3) {
            let mut bytes = [&[0; 4][..], &count.to_le_bytes(), &bytes].concat();
            bytes.truncate(150);
            if let Ok(part) = Part::parse_trusted(&header(count, &bytes), 0..count, &bytes) {
                prop_assert_eq!(part.encode(), bytes);
            }
        }

        #[test]
        fn a_changed_byte_is_caught_by_the_hash(blocks in vec(stored(), 1..4), at: prop::sample::Index, bit in 0u8..8) {
            let bytes = encode(&blocks);
            let header = header(u32::try_from(blocks.len()).unwrap(), &bytes);
            let mut bad = bytes;
            let at = at.index(bad.len());
            bad[at] ^= 1 << bit;
            prop_assert_eq!(Part::parse(&header, PartNo(0), &bad), Err(ManifestError::PartHash(PartNo(0))));
        }
    }

    #[test]
    fn a_part_has_its_golden_bytes() {
        let blocks = [
            (
                Content::Stored { grains: 3, hash: Hash([1; 32]), live: Hash([2; 32]) },
                vec![Place { source: 0, grains: 2, target: 300 }, Place { source: 0, grains: 1, target: 400 }],
            ),
            (Content::Fill { pattern: 0 }, vec![Place { source: 0, grains: 5, target: 7 }]),
        ];
        let mut golden = vec![0, 0, 0, 0, 2, 0, 0, 0, 2, 3];
        golden.extend_from_slice(&[1; 32]);
        golden.extend_from_slice(&[2; 32]);
        golden.extend_from_slice(&[2, 0, 2, 0xd8, 4, 0, 1, 0xc4, 1]);
        golden.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5, 7]);
        assert_eq!(encode(&blocks), golden);
        assert!(parse(&blocks).is_ok());
    }

    #[test]
    fn places_outside_block_and_disk_are_refused() {
        let whole = Content::Stored { grains: 4, hash: Hash([1; 32]), live: Hash([1; 32]) };
        let fill = Content::Fill { pattern: 1 };
        let grains = 1 << 28;
        let cases = [
            (whole, vec![Place { source: 0, grains: 5, target: 0 }]),
            (whole, vec![Place { source: 0, grains: 4, target: grains - 3 }]),
            (whole, vec![Place { source: 0, grains: 0, target: 0 }]),
            (whole, vec![Place { source: 0, grains: 3, target: 0 }]),
            (whole, vec![]),
            (fill, vec![]),
            (fill, vec![Place { source: 0, grains: (1 << 18) + 1, target: 0 }]),
        ];
        for (index, case) in cases.into_iter().enumerate() {
            assert!(matches!(parse(&[case]), Err(ManifestError::Block { .. })), "case {index}");
        }
    }

    #[test]
    fn a_block_with_the_most_places_keeps_the_part_within_its_limit() {
        let grains = 256;
        let places = (0..MAX_BLOCK_PLACES).map(|no| Place {
            source: no / 256,
            grains: 1,
            target: u64::from(no % 2) * (1 << 47) + u64::from(no) * 2,
        });
        let mut writer = PartWriter::new(BlockNo(0));
        let content = Content::Stored { grains, hash: Hash([1; 32]), live: Hash([1; 32]) };
        writer.push(content, MAX_BLOCK_PLACES as usize, places);
        assert!(writer.is_full() && writer.count() == 1 && writer.end() == BlockNo(1));
        assert!(writer.finish().len() + PART_BYTES <= MAX_PART_BYTES as usize);
    }
}
