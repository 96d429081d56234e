//! The superblock of btrfs and its copies.

use super::sums::Sum;
use crate::le::{array_at, u16_at, u32_at, u64_at};
use crate::used::volume::{Kept, Volume};

/// Where it is.
pub(super) const AT: usize = 64 << 10;
/// Where copies are, on devices that reach so far.
pub(super) const MIRRORS: [u64; 2] = [64 << 20, 256 << 30];
/// No extent is within so many bytes of a copy.
pub(super) const STRIPE: u64 = 64 << 10;
pub(super) const MAGIC: &[u8] = b"_BHRfS_M";
const BYTES: usize = 4096;
const CORRUPT: Kept = Kept::Corrupt("superblock");

/// Known and harmless to the maps: backrefs of both kinds, default subvolume, mixed groups, lzo and zstd, large metadata,
/// extended references, RAID5/6 (of which chunks are refused), skinny metadata, no holes, another UUID in the metadata,
/// RAID1C3/4, simple quotas.
const INCOMPAT_KNOWN: u64 = 0xFFF | 0x1_0000;
const INCOMPAT_METADATA_UUID: u64 = 0x400;
/// Free-space tree, its validity, verity, block-group tree.
const RO_KNOWN: u64 = 0xF;
const RO_BLOCK_GROUP_TREE: u64 = 8;
/// Written; all others are errors, seed devices, dumps and unfinished conversions.
const FLAG_WRITTEN: u64 = 1;

/// A tree of which the place stands in the superblock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub(super) logical: u64,
    pub(super) generation: u64,
    pub(super) level: u8,
}

/// What the superblock says.
#[derive(Debug)]
pub(super) struct Superblock {
    /// The identifier that stands in all nodes.
    pub(super) uuid: [u8; 16],
    pub(super) sum: Sum,
    pub(super) generation: u64,
    pub(super) root: Root,
    pub(super) chunk_root: Root,
    pub(super) used: u64,
    pub(super) device: u64,
    pub(super) device_bytes: u64,
    pub(super) sector: u64,
    pub(super) node: usize,
    pub(super) has_block_group_tree: bool,
    /// The chunks that are needed to read the chunk tree.
    pub(super) chunks: Vec<u8>,
}

impl Superblock {
    /// Reads the superblock and refuses what is not one device at rest with known features.
    pub(super) fn read(volume: &Volume<'_>) -> Result<Self, Kept> {
        let raw = volume.bytes_at(AT as u64, BYTES)?;
        let number = |at| u64_at(&raw, at).ok_or(CORRUPT);
        let sum = u16_at(&raw, 196).and_then(Sum::numbered);
        let sum = sum.ok_or(Kept::NotRead("Btrfs with checksums of an unknown kind"))?;
        if !is_whole(&raw, AT as u64, sum) {
            return Err(CORRUPT);
        }
        let (compat, read_only, incompat) = (number(172)?, number(180)?, number(188)?);
        for (set, unknown) in [
            ("compatible", compat),
            ("read-only compatible", read_only & !RO_KNOWN),
            ("incompatible", incompat & !INCOMPAT_KNOWN),
        ] {
            if unknown != 0 {
                return Err(Kept::Feature(set, u32::try_from(unknown).unwrap_or(u32::MAX)));
            }
        }
        if number(56)? != FLAG_WRITTEN {
            return Err(Kept::Feature("superblock", u32::try_from(number(56)?).unwrap_or(u32::MAX)));
        }
        if number(136)? != 1 {
            return Err(Kept::NotRead("Btrfs on several devices"));
        }
        if number(96)? != 0 {
            return Err(Kept::Journal);
        }
        let found = Self::numbers(&raw, incompat, read_only, sum).ok_or(CORRUPT)?;
        if found.device_bytes > volume.bytes() {
            return Err(Kept::TooLong);
        }
        Ok(found)
    }

    fn numbers(raw: &[u8], incompat: u64, read_only: u64, sum: Sum) -> Option<Self> {
        let generation = u64_at(raw, 72)?;
        let root = Root { logical: u64_at(raw, 80)?, generation, level: *raw.get(198)? };
        let chunk_root = Root { logical: u64_at(raw, 88)?, generation: u64_at(raw, 164)?, level: *raw.get(199)? };
        let (sector, node) = (u32_at(raw, 144)?, u32_at(raw, 148)?);
        let device_bytes = u64_at(raw, 209)?;
        let sizes = [sector, node];
        let powers = sizes.iter().all(|size| size.is_power_of_two() && (4096..=65536).contains(size));
        let len = usize::try_from(u32_at(raw, 160)?).ok().filter(|len| *len <= 2048)?;
        if !powers || node < sector || u64_at(raw, 112)? != device_bytes || device_bytes < (1 << 20) {
            return None;
        }
        let uuid = if incompat & INCOMPAT_METADATA_UUID == 0 { 32 } else { 571 };
        Some(Self {
            uuid: array_at(raw, uuid)?,
            sum,
            generation,
            root,
            chunk_root,
            used: u64_at(raw, 120)?,
            device: u64_at(raw, 201)?,
            device_bytes,
            sector: u64::from(sector),
            node: usize::try_from(node).ok()?,
            has_block_group_tree: read_only & RO_BLOCK_GROUP_TREE != 0,
            chunks: raw.get(811..811 + len)?.to_vec(),
        })
    }

    /// Whether the copies of the superblock are of the same state of the file system.
    pub(super) fn copies_agree(&self, volume: &Volume<'_>) -> Result<(), Kept> {
        for at in MIRRORS.into_iter().filter(|at| at + BYTES as u64 <= self.device_bytes) {
            let raw = volume.bytes_at(at, BYTES)?;
            let same = is_whole(&raw, at, self.sum)
                && u64_at(&raw, 72) == Some(self.generation)
                && u64_at(&raw, 80) == Some(self.root.logical);
            if !same {
                return Err(Kept::Disagree("superblock", "copy"));
            }
        }
        Ok(())
    }
}

/// Whether these are the bytes of a superblock that belongs at `at`.
fn is_whole(raw: &[u8], at: u64, sum: Sum) -> bool {
    raw.get(64..).is_some_and(|magic| magic.starts_with(MAGIC)) && u64_at(raw, 48) == Some(at) && sum.is_right(raw)
}
