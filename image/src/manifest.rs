//! The manifest: what a resolved image is, as one header that is trusted and parts that are checked against it.
//!
//! The header names the hash of every part, and the BLAKE3 hash of the encoded header is the **root**: with the
//! root, header and parts can be accepted from anybody. Blocks are numbered in a canonical order (by the lowest grain of the
//! disk that they reach), so that the same layers give the same root everywhere.

pub use crate::part::{BlockInfo, Content, Part, PartWriter, Place};
use crate::varint::Reader;
use core::fmt;
use core::ops::Range;
use slidecast_proto::node::{PartShape, Shape};
use slidecast_proto::units::{
    BLOCK_MAX, BLOCK_MIN, BlockNo, GRAIN_MIN, Hash, MAX_BLOCKS, MAX_DISK_BYTES, MAX_HEADER_BYTES, MAX_PARTS, PartNo,
};
use slidecast_proto::wire::Malformed;

/// A part of the manifest is closed once it has this many blocks.
pub const PART_BLOCKS: u32 = 1024;
/// A part of the manifest is closed once its encoding has this many bytes.
pub const PART_BYTES: usize = 256 << 10;
/// The most places one block may have: what keeps a part within [`slidecast_proto::units::MAX_PART_BYTES`].
pub const MAX_BLOCK_PLACES: u32 = 1 << 16;

const MAGIC: &[u8; 8] = b"SLIDEMAN";
const VERSION: u16 = 1;
const ENTRY_BYTES: usize = 36;

/// The kind of partition table that the disk begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TableKind {
    /// No partition table that we know.
    #[default]
    None = 0,
    /// A master boot record.
    Mbr = 1,
    /// A GUID partition table.
    Gpt = 2,
}

impl TableKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::None, Self::Mbr, Self::Gpt].into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
        })
    }
}

/// One part as the header knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartEntry {
    /// The first block of the part; it ends where the next part begins.
    pub first: BlockNo,
    /// BLAKE3 of the encoded part.
    pub hash: Hash,
}

/// What a manifest header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHeader {
    /// The id of the newest layer.
    pub layer: Hash,
    /// The size of the disk in bytes, a multiple of the sector.
    pub disk_bytes: u64,
    /// The logical sector of the disk, in bytes.
    pub sector: u32,
    /// The grain in bytes: unit of places and of deduplication.
    pub grain: u32,
    /// The most bytes a stored block unpacks to: unit of compression and transport.
    pub block: u32,
    /// How many blocks there are, fills included.
    pub blocks: u32,
    /// How many of them are stored, that is, have a payload.
    pub stored_blocks: u32,
    /// The bytes of all places on one target, fills included; the short last grain counts as short.
    pub raw_bytes: u64,
    /// The partition table on the disk.
    pub table: TableKind,
    /// The parts, in block order.
    pub parts: Vec<PartEntry>,
}

/// Why a manifest was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// The bytes are no encoding of a header or part.
    Malformed(Malformed),
    /// A manifest of another version.
    Version(u16),
    /// A field of the header is beyond its limit or contradicts another.
    Header(&'static str),
    /// The part is not the one that the header names.
    PartHash(PartNo),
    /// The header has no such part.
    NoSuchPart(PartNo),
    /// A block of the part breaks a rule.
    Block {
        /// Which block.
        block: BlockNo,
        /// The rule.
        what: &'static str,
    },
}

impl From<Malformed> for ManifestError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Version(version) => write!(f, "manifest of version {version}, this program reads {VERSION}"),
            Self::Header(what) => write!(f, "manifest header: {what}"),
            Self::PartHash(part) => write!(f, "manifest part {part} is not the one that the header names"),
            Self::NoSuchPart(part) => write!(f, "the manifest has no part {part}"),
            Self::Block { block, what } => write!(f, "manifest block {block}: {what}"),
        }
    }
}

impl std::error::Error for ManifestError {}

impl ManifestHeader {
    /// The header's only encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(84 + self.parts.len() * ENTRY_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[self.table as u8, 0]);
        out.extend_from_slice(&self.sector.to_le_bytes());
        out.extend_from_slice(&self.disk_bytes.to_le_bytes());
        out.extend_from_slice(&self.raw_bytes.to_le_bytes());
        for field in [self.grain, self.block, self.blocks, self.stored_blocks] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.layer.0);
        out.extend_from_slice(&u32::try_from(self.parts.len()).unwrap_or(u32::MAX).to_le_bytes());
        for part in &self.parts {
            out.extend_from_slice(&part.first.0.to_le_bytes());
            out.extend_from_slice(&part.hash.0);
        }
        out
    }

    /// Reads a header and holds it to every limit.
    ///
    /// # Errors
    /// [`ManifestError`] for bytes that are not the encoding of a header within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new(bytes, "manifest header");
        if bytes.len() > MAX_HEADER_BYTES as usize || reader.array::<8>()? != *MAGIC {
            return Err(reader.malformed().into());
        }
        let version = reader.fixed_u16()?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let table = TableKind::from_byte(reader.byte()?).ok_or(ManifestError::Header("unknown partition table"))?;
        if reader.byte()? != 0 {
            return Err(reader.malformed().into());
        }
        let sector = reader.fixed_u32()?;
        let (disk_bytes, raw_bytes) = (reader.fixed_u64()?, reader.fixed_u64()?);
        let (grain, block) = (reader.fixed_u32()?, reader.fixed_u32()?);
        let (blocks, stored_blocks) = (reader.fixed_u32()?, reader.fixed_u32()?);
        let layer = Hash(reader.array()?);
        let count = reader.fixed_u32()?;
        if count > MAX_PARTS {
            return Err(ManifestError::Header("too many parts"));
        }
        let entries = reader.take(count as usize * ENTRY_BYTES)?;
        if !reader.is_empty() {
            return Err(reader.malformed().into());
        }
        let mut reader = Reader::new(entries, "manifest header");
        let parts = (0..count)
            .map(|_| Ok(PartEntry { first: BlockNo(reader.fixed_u32()?), hash: Hash(reader.array()?) }))
            .collect::<Result<_, Malformed>>()?;
        let header = Self { layer, disk_bytes, sector, grain, block, blocks, stored_blocks, raw_bytes, table, parts };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), ManifestError> {
        check_geometry(self.disk_bytes, self.sector, self.grain, self.block).map_err(ManifestError::Header)?;
        let rules = [
            (self.raw_bytes <= self.disk_bytes, "places exceed the disk"),
            (self.blocks <= MAX_BLOCKS, "too many blocks"),
            (self.stored_blocks <= self.blocks, "more stored blocks than blocks"),
            (self.parts.is_empty() == (self.blocks == 0), "parts and blocks do not agree"),
            (self.parts.first().is_none_or(|part| part.first.0 == 0), "the first part does not begin at block 0"),
        ];
        if let Some((_, what)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(ManifestError::Header(what));
        }
        let ends = self.parts.iter().skip(1).map(|part| part.first.0).chain([self.blocks]);
        for (part, end) in self.parts.iter().zip(ends) {
            if end <= part.first.0 || end - part.first.0 > PART_BLOCKS {
                return Err(ManifestError::Header("a part is empty or too long"));
            }
        }
        Ok(())
    }

    /// The root: the hash of an encoded header.
    #[must_use]
    pub fn root(encoded: &[u8]) -> Hash {
        Hash::of(encoded)
    }

    /// The sizes of the parts, for nodes that pass them on.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let part = |part: &PartEntry| PartShape { first: part.first.0, hash: part.hash };
        Shape { blocks: self.blocks, parts: self.parts.iter().map(part).collect() }
    }

    /// The part that `block` is in. The block must exist.
    #[must_use]
    pub fn part_of(&self, block: BlockNo) -> PartNo {
        let after = self.parts.partition_point(|part| part.first <= block);
        PartNo(u32::try_from(after.saturating_sub(1)).unwrap_or(u32::MAX))
    }

    /// The numbers of the blocks in `part`; empty if there is no such part.
    #[must_use]
    pub fn part_blocks(&self, part: PartNo) -> Range<u32> {
        let index = part.0 as usize;
        let Some(entry) = self.parts.get(index) else { return 0..0 };
        entry.first.0..self.parts.get(index + 1).map_or(self.blocks, |next| next.first.0)
    }

    /// How many grains the disk has; the last one may be short.
    #[must_use]
    pub fn disk_grains(&self) -> u64 {
        self.disk_bytes.div_ceil(u64::from(self.grain))
    }
}

/// Whether disk, sector, grain and block fit together; if not, the rule that is broken.
pub(crate) fn check_geometry(disk_bytes: u64, sector: u32, grain: u32, block: u32) -> Result<(), &'static str> {
    let rules = [
        ((1..=MAX_DISK_BYTES).contains(&disk_bytes), "the disk is empty or too large"),
        (sector.is_power_of_two() && (512..=GRAIN_MIN).contains(&sector), "impossible sector size"),
        (disk_bytes.checked_rem(u64::from(sector)) == Some(0), "the disk is no whole number of sectors"),
        (block.is_power_of_two() && (BLOCK_MIN..=BLOCK_MAX).contains(&block), "impossible block size"),
        (grain.is_power_of_two() && (GRAIN_MIN..=block).contains(&grain), "impossible grain"),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn header() -> ManifestHeader {
        ManifestHeader {
            layer: Hash([7; 32]),
            disk_bytes: 10_000_000_512,
            sector: 512,
            grain: 4096,
            block: 1 << 20,
            blocks: 1500,
            stored_blocks: 1400,
            raw_bytes: 9_999_999_488,
            table: TableKind::Gpt,
            parts: vec![
                PartEntry { first: BlockNo(0), hash: Hash([1; 32]) },
                PartEntry { first: BlockNo(1024), hash: Hash([2; 32]) },
            ],
        }
    }

    #[test]
    fn the_header_has_its_golden_bytes() {
        let bytes = header().encode();
        let mut golden = b"SLIDEMAN\x01\x00\x02\x00\x00\x02\x00\x00".to_vec();
        golden.extend_from_slice(b"\x00\xe6\x0b\x54\x02\x00\x00\x00\x00\xe2\x0b\x54\x02\x00\x00\x00");
        golden.extend_from_slice(b"\x00\x10\x00\x00\x00\x00\x10\x00\xdc\x05\x00\x00\x78\x05\x00\x00");
        golden.extend_from_slice(&[7; 32]);
        golden.extend_from_slice(b"\x02\x00\x00\x00\x00\x00\x00\x00");
        golden.extend_from_slice(&[1; 32]);
        golden.extend_from_slice(b"\x00\x04\x00\x00");
        golden.extend_from_slice(&[2; 32]);
        assert_eq!(bytes, golden);
        assert_eq!(ManifestHeader::parse(&bytes), Ok(header()));
    }

    #[test]
    fn every_block_is_in_the_part_that_lists_it() {
        let header = header();
        for block in [0, 1, 1023, 1024, 1499] {
            assert!(header.part_blocks(header.part_of(BlockNo(block))).contains(&block));
        }
        assert_eq!(header.part_blocks(PartNo(1)), 1024..1500);
        assert_eq!(header.part_blocks(PartNo(2)), 0..0);
    }

    #[test]
    fn a_truncated_header_is_an_error() {
        let bytes = header().encode();
        for len in 0..bytes.len() {
            assert!(ManifestHeader::parse(&bytes[..len]).is_err(), "{len}");
        }
        assert!(ManifestHeader::parse(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        let changes: [fn(&mut ManifestHeader); 14] = [
            |h| h.grain = 2048,
            |h| h.grain = 2 << 20,
            |h| h.grain = 5000,
            |h| h.grain = 0,
            |h| h.sector = 0,
            |h| h.sector = 4096,
            |h| h.block = 32 << 20,
            |h| h.block = 0,
            |h| h.blocks = 2049,
            |h| h.blocks = 0,
            |h| h.blocks = MAX_BLOCKS + 1,
            |h| h.disk_bytes = 0,
            |h| h.raw_bytes = h.disk_bytes + 1,
            |h| h.parts[0].first = BlockNo(1),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut header = header();
            change(&mut header);
            assert!(ManifestHeader::parse(&header.encode()).is_err(), "change {index}");
        }
    }
}
