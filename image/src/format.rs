//! The bytes of a layer file: superblock, block headers, block table rows and footer. `docs/IMAGE.md` has the tables.
//!
//! ```text
//! superblock | block header, payload | block header, payload | ... | sections | footer
//! ```
//!
//! Nothing lies between these, so every byte of the file is under some checksum. All numbers are little-endian.

use crate::codec::Codec;
use crate::manifest::{TableKind, check_geometry};
use crate::varint::Reader;
use slidecast_proto::units::{Hash, MAX_BLOCKS};
use slidecast_proto::wire::Malformed;

/// The length of the superblock and of the footer, in bytes.
pub(crate) const SUPERBLOCK_BYTES: u64 = 4096;
/// The length of the footer, in bytes.
pub(crate) const FOOTER_BYTES: u64 = 4096;
/// The length of the header in front of each payload, in bytes.
pub(crate) const BLOCK_HEADER_BYTES: u64 = 64;
/// The length of one row of the block table, in bytes.
pub(crate) const ROW_BYTES: usize = 41;
/// The length of a grain hash, in bytes: the beginning of the grain's BLAKE3.
pub(crate) const GRAIN_HASH_BYTES: usize = 16;
/// The most layers one image may have.
pub(crate) const MAX_LAYERS: u32 = 256;
/// The longest name of a parent, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 255;
/// The longest extent map, in bytes.
pub(crate) const MAX_EXTENT_BYTES: u64 = 1 << 30;
/// The longest partition report, in bytes.
pub(crate) const MAX_REPORT_BYTES: u64 = 1 << 20;

const MAGIC: &[u8; 8] = b"SLIDEIMG";
const END_MAGIC: &[u8; 8] = b"SLIDEEND";
const BLOCK_MAGIC: &[u8; 4] = b"SLBK";
const VERSION: u16 = 1;
const HASHED_BYTES: usize = 4096 - 32;
const BUILDING: u8 = 1;
const COMPLETE: u8 = 2;

/// The first 4 KiB of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) table: TableKind,
    pub(crate) sector: u32,
    pub(crate) disk_bytes: u64,
    pub(crate) grain: u32,
    pub(crate) block: u32,
    /// 0 for a base, one more than its parent's for a child.
    pub(crate) depth: u32,
    /// How many grains the blocks of this file hold; every block but the last is full.
    pub(crate) stored_grains: u64,
    pub(crate) footer: u64,
    pub(crate) layer: Hash,
    /// Zero for a base.
    pub(crate) parent: Hash,
    /// The name that the parent's file had.
    pub(crate) parent_name: String,
}

/// Why 4 KiB are no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockError {
    Magic,
    Version(u16),
    Unfinished,
    Damaged,
}

impl From<Malformed> for SuperblockError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

impl Superblock {
    /// How many grains a full block holds.
    pub(crate) fn block_grains(&self) -> u32 {
        self.block / self.grain
    }

    /// How many grains the disk has; the last one may be short.
    pub(crate) fn disk_grains(&self) -> u64 {
        self.disk_bytes.div_ceil(u64::from(self.grain))
    }

    /// How many blocks the file holds.
    pub(crate) fn stored_blocks(&self) -> u32 {
        u32::try_from(self.stored_grains.div_ceil(u64::from(self.block_grains()))).unwrap_or(u32::MAX)
    }

    /// How many grains block `block` of the file holds.
    pub(crate) fn grains_of(&self, block: u32) -> u32 {
        let before = u64::from(block) * u64::from(self.block_grains());
        let rest = self.stored_grains.saturating_sub(before);
        u32::try_from(rest).unwrap_or(u32::MAX).min(self.block_grains())
    }

    /// The length of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.footer.saturating_add(FOOTER_BYTES)
    }

    /// What the layer id covers of the superblock: all that does not follow from it or from the file's name.
    fn identity(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[COMPLETE, self.table as u8]);
        out.extend_from_slice(&self.sector.to_le_bytes());
        out.extend_from_slice(&self.disk_bytes.to_le_bytes());
        for field in [self.grain, self.block, self.depth, 0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.stored_grains.to_le_bytes());
        out.extend_from_slice(&self.parent.0);
    }

    /// The layer id: over the fields above and all sections but the manifest, which itself contains the id and follows
    /// from the rest.
    pub(crate) fn layer_id(&self, sections: &[SectionEntry]) -> Hash {
        let mut out = Vec::with_capacity(512);
        self.identity(&mut out);
        for section in sections.iter().filter(|section| section.kind != Section::Manifest) {
            out.push(section.kind as u8);
            out.extend_from_slice(&section.bytes.to_le_bytes());
            out.extend_from_slice(&section.hash.0);
        }
        Hash::of(&out)
    }

    /// The superblock of a finished file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        self.identity(&mut out);
        out.extend_from_slice(&self.footer.to_le_bytes());
        out.extend_from_slice(&self.layer.0);
        out.push(u8::try_from(self.parent_name.len()).unwrap_or(0));
        out.extend_from_slice(self.parent_name.as_bytes());
        seal(out)
    }

    /// The superblock of a file that is being made.
    pub(crate) fn encode_building() -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(BUILDING);
        seal(out)
    }

    /// Reads a superblock and holds it to every limit.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let mut reader = Reader::new(bytes, "superblock");
        if reader.array::<8>().ok() != Some(*MAGIC) {
            return Err(SuperblockError::Magic);
        }
        let version = reader.fixed_u16()?;
        if version != VERSION {
            return Err(SuperblockError::Version(version));
        }
        let fields = unseal(bytes).ok_or(SuperblockError::Damaged)?;
        let mut reader = Reader::new(&fields[10..], "superblock");
        match reader.byte()? {
            BUILDING => return Err(SuperblockError::Unfinished),
            COMPLETE => {}
            _ => return Err(SuperblockError::Damaged),
        }
        let table = TableKind::from_byte(reader.byte()?).ok_or(SuperblockError::Damaged)?;
        let (sector, disk_bytes) = (reader.fixed_u32()?, reader.fixed_u64()?);
        let (grain, block, depth, zero) =
            (reader.fixed_u32()?, reader.fixed_u32()?, reader.fixed_u32()?, reader.fixed_u32()?);
        let stored_grains = reader.fixed_u64()?;
        let parent = Hash(reader.array()?);
        let footer = reader.fixed_u64()?;
        let layer = Hash(reader.array()?);
        let len = reader.byte()?;
        let name = reader.take(usize::from(len))?;
        let parent_name = core::str::from_utf8(name).map_err(|_| SuperblockError::Damaged)?.to_owned();
        check_geometry(disk_bytes, sector, grain, block).map_err(|_| SuperblockError::Damaged)?;
        let superblock =
            Self { table, sector, disk_bytes, grain, block, depth, stored_grains, footer, layer, parent, parent_name };
        let sound = zero == 0
            && depth < MAX_LAYERS
            && (depth == 0) == (parent == Hash::default())
            && superblock.stored_blocks() <= MAX_BLOCKS
            && footer <= i64::MAX as u64 - FOOTER_BYTES
            && superblock.encode() == bytes;
        if sound { Ok(superblock) } else { Err(SuperblockError::Damaged) }
    }
}

/// Fills up to 4 KiB with zeros, the last 32 bytes being the hash of all before them.
fn seal(mut out: Vec<u8>) -> Vec<u8> {
    out.resize(HASHED_BYTES, 0);
    let hash = Hash::of(&out);
    out.extend_from_slice(&hash.0);
    out
}

/// What [`seal`] protected, if it is unharmed.
fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (fields, hash) = bytes.split_at_checked(HASHED_BYTES)?;
    (Hash::of(fields).0 == hash).then_some(fields)
}

/// One stored block, as the block table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// BLAKE3 of the unpacked block.
    pub(crate) hash: Hash,
    /// Where the block's header is in the file.
    pub(crate) offset: u64,
    /// CRC-32 of the payload.
    pub(crate) crc: u32,
    codec_and_len: u32,
}

impl Row {
    pub(crate) fn new(codec: Codec, stored_len: u32, crc: u32, hash: Hash, offset: u64) -> Self {
        Self { hash, offset, crc, codec_and_len: u32::from(codec as u8) << 28 | stored_len }
    }

    pub(crate) fn codec(&self) -> Codec {
        Codec::from_byte((self.codec_and_len >> 28) as u8).unwrap_or(Codec::Stored)
    }

    pub(crate) fn stored_len(&self) -> u32 {
        self.codec_and_len & 0x0fff_ffff
    }

    /// Where the payload is in the file.
    pub(crate) fn payload(&self) -> u64 {
        self.offset + BLOCK_HEADER_BYTES
    }

    /// Where the next block's header is, or the first section.
    pub(crate) fn end(&self) -> u64 {
        self.payload() + u64::from(self.stored_len())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.codec() as u8);
        out.extend_from_slice(&self.stored_len().to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&self.hash.0);
    }

    /// Reads the row of a block of `raw_len` bytes whose header is at `offset`.
    pub(crate) fn parse(bytes: &[u8], raw_len: u32, offset: u64) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "block table");
        let codec = Codec::from_byte(reader.byte()?).ok_or(reader.malformed())?;
        let (stored_len, crc) = (reader.fixed_u32()?, reader.fixed_u32()?);
        let hash = Hash(reader.array()?);
        let sound = match codec {
            Codec::Stored => stored_len == raw_len,
            Codec::Lz4 | Codec::Zstd => (1..raw_len).contains(&stored_len),
        };
        if sound { Ok(Self::new(codec, stored_len, crc, hash, offset)) } else { Err(reader.malformed()) }
    }

    /// The header in front of the payload of block `number`, which unpacks to `raw_len` bytes.
    pub(crate) fn block_header(&self, number: u32, raw_len: u32) -> [u8; 64] {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(BLOCK_MAGIC);
        for field in [number, u32::from(self.codec() as u8), raw_len, self.stored_len(), self.crc] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.hash.0);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        let mut header = [0; 64];
        header.copy_from_slice(&out);
        header
    }
}

/// The sections, in the order in which they stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Section {
    BlockTable = 1,
    ExtentMap = 2,
    GrainHashes = 3,
    LiveHashes = 4,
    Report = 5,
    Manifest = 6,
}

impl Section {
    pub(crate) const ALL: [Self; 6] =
        [Self::BlockTable, Self::ExtentMap, Self::GrainHashes, Self::LiveHashes, Self::Report, Self::Manifest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BlockTable => "block table",
            Self::ExtentMap => "extent map",
            Self::GrainHashes => "grain hashes",
            Self::LiveHashes => "live hashes",
            Self::Report => "partition report",
            Self::Manifest => "manifest",
        }
    }
}

/// Where a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectionEntry {
    pub(crate) kind: Section,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) hash: Hash,
}

/// The last 4 KiB of a layer: which sections there are.
pub(crate) fn encode_footer(layer: Hash, sections: &[SectionEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(END_MAGIC);
    out.extend_from_slice(&layer.0);
    for section in sections {
        out.extend_from_slice(&u64::from(section.kind as u8).to_le_bytes());
        out.extend_from_slice(&section.offset.to_le_bytes());
        out.extend_from_slice(&section.bytes.to_le_bytes());
        out.extend_from_slice(&section.hash.0);
    }
    seal(out)
}

/// Reads the footer that belongs to `superblock`: all six sections, one behind the other, up to the footer.
pub(crate) fn parse_footer(superblock: &Superblock, bytes: &[u8]) -> Result<Vec<SectionEntry>, Malformed> {
    let malformed = Malformed { what: "footer" };
    let fields = unseal(bytes).ok_or(malformed)?;
    let mut reader = Reader::new(fields, "footer");
    if reader.array::<8>()? != *END_MAGIC || reader.array::<32>()? != superblock.layer.0 {
        return Err(malformed);
    }
    let mut sections: Vec<SectionEntry> = Vec::new();
    for kind in Section::ALL {
        if reader.fixed_u64()? != u64::from(kind as u8) {
            return Err(malformed);
        }
        let (offset, bytes) = (reader.fixed_u64()?, reader.fixed_u64()?);
        let follows = sections.last().is_none_or(|last| last.offset.checked_add(last.bytes) == Some(offset));
        if !follows || offset < SUPERBLOCK_BYTES {
            return Err(malformed);
        }
        sections.push(SectionEntry { kind, offset, bytes, hash: Hash(reader.array()?) });
    }
    let end = sections.last().and_then(|last| last.offset.checked_add(last.bytes));
    if end == Some(superblock.footer) && superblock.layer_id(&sections) == superblock.layer {
        Ok(sections)
    } else {
        Err(malformed)
    }
}

/// Whether the file at `path` begins as a layer does.
pub(crate) fn is_layer(path: &std::path::Path) -> bool {
    std::fs::File::open(path).is_ok_and(|file| begins_as_layer(&file))
}

/// Whether an open file begins as a layer does, complete or not.
pub(crate) fn begins_as_layer(file: &std::fs::File) -> bool {
    let mut magic = [0; 8];
    let read = std::os::unix::fs::FileExt::read_exact_at(file, &mut magic, 0);
    read.is_ok() && magic == *MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            table: TableKind::Mbr,
            sector: 512,
            disk_bytes: 1 << 30,
            grain: 4096,
            block: 1 << 20,
            depth: 3,
            stored_grains: 1000,
            footer: 5_000_000,
            layer: Hash([1; 32]),
            parent: Hash([2; 32]),
            parent_name: "base.slide".into(),
        }
    }

    #[test]
    fn the_superblock_has_its_golden_bytes() {
        let bytes = superblock().encode();
        let mut golden = b"SLIDEIMG\x01\x00\x02\x01\x00\x02\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00".to_vec();
        golden.extend_from_slice(b"\x00\x10\x00\x00\x00\x00\x10\x00\x03\x00\x00\x00\x00\x00\x00\x00");
        golden.extend_from_slice(b"\xe8\x03\x00\x00\x00\x00\x00\x00");
        golden.extend_from_slice(&[2; 32]);
        golden.extend_from_slice(b"\x40\x4b\x4c\x00\x00\x00\x00\x00");
        golden.extend_from_slice(&[1; 32]);
        golden.extend_from_slice(b"\x0abase.slide");
        assert_eq!(bytes[..golden.len()], golden);
        assert!(bytes[golden.len()..HASHED_BYTES].iter().all(|byte| *byte == 0));
        assert_eq!(bytes.len(), 4096);
        assert_eq!(Superblock::parse(&bytes), Ok(superblock()));
    }

    fn row() -> Row {
        Row::new(Codec::Zstd, 0x1122, 0xaabb_ccdd, Hash([5; 32]), 4096)
    }

    #[test]
    fn a_block_has_its_golden_bytes_in_table_and_header() {
        let mut bytes = Vec::new();
        row().put(&mut bytes);
        let fixed = b"\x02\x22\x11\x00\x00\xdd\xcc\xbb\xaa";
        assert_eq!(bytes, [&fixed[..], &[5; 32]].concat());
        let header = row().block_header(9, 1 << 20);
        let fixed = b"SLBK\x09\x00\x00\x00\x02\x00\x00\x00\x00\x00\x10\x00\x22\x11\x00\x00\xdd\xcc\xbb\xaa";
        assert_eq!(header[..60], [&fixed[..], &[5; 32], &[0; 4]].concat());
        assert_eq!(header[60..], crc32fast::hash(&header[..60]).to_le_bytes());
    }

    #[test]
    fn the_footer_has_its_golden_bytes() {
        let mut superblock = superblock();
        let entry = |kind: Section| SectionEntry {
            kind,
            offset: 4096 + 100 * u64::from(kind as u8),
            bytes: 100,
            hash: Hash([kind as u8; 32]),
        };
        let sections = Section::ALL.map(entry);
        superblock.footer = 4096 + 700;
        superblock.layer = superblock.layer_id(&sections);
        let bytes = encode_footer(superblock.layer, &sections);
        let mut golden = b"SLIDEEND".to_vec();
        golden.extend_from_slice(&superblock.layer.0);
        for kind in 1..=6 {
            golden.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
            golden.extend_from_slice(&(4096 + 100 * u64::from(kind)).to_le_bytes());
            golden.extend_from_slice(b"\x64\x00\x00\x00\x00\x00\x00\x00");
            golden.extend_from_slice(&[kind; 32]);
        }
        assert_eq!(bytes[..golden.len()], golden);
        assert!(bytes[golden.len()..HASHED_BYTES].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[HASHED_BYTES..], Hash::of(&bytes[..HASHED_BYTES]).0);
        assert_eq!(parse_footer(&superblock, &bytes), Ok(sections.to_vec()));
    }

    #[test]
    fn any_flipped_bit_of_a_superblock_is_an_error() {
        let good = superblock().encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(Superblock::parse(&bad).is_err(), "{at}");
        }
        assert_eq!(Superblock::parse(&Superblock::encode_building()), Err(SuperblockError::Unfinished));
        assert_eq!(Superblock::parse(b"SLIDE"), Err(SuperblockError::Magic));
    }

    #[test]
    fn the_last_block_may_be_short() {
        let superblock = superblock();
        assert_eq!(superblock.stored_blocks(), 4);
        assert_eq!((superblock.grains_of(0), superblock.grains_of(3), superblock.grains_of(4)), (256, 232, 0));
    }

    #[test]
    fn rows_come_back_and_impossible_lengths_do_not() {
        let row = Row::new(Codec::Zstd, 1000, 77, Hash([5; 32]), 4096);
        let mut bytes = Vec::new();
        row.put(&mut bytes);
        assert_eq!(bytes.len(), ROW_BYTES);
        assert_eq!(Row::parse(&bytes, 4096, 4096), Ok(row));
        assert!(Row::parse(&bytes, 1000, 4096).is_err());
        assert_eq!(row.end(), 4096 + 64 + 1000);
        let header = row.block_header(9, 4096);
        assert_eq!(header[..8], *b"SLBK\x09\x00\x00\x00");
    }
}
