//! The superblock: geometry and features.

use super::sum_holds;
use crate::be::{u16_at, u32_at, u64_at};
use crate::le::array_at;
use crate::used::volume::Kept;
use core::ops::Range;

/// Flags of the version field of version 4: all that Linux mounts, but shared read-only volumes.
const VERSION_KNOWN: u16 = 0xFDFF;
const VERSION_MORE: u16 = 0x8000;
/// Known: lazy counters, attr2, 32-bit project numbers, checksums, types in directories.
const FEATURES2_KNOWN: u32 = 0x2 | 0x8 | 0x80 | 0x100 | 0x200;
const FEATURES2_LAZY: u32 = 0x2;
/// Known: tree of free inodes, reverse map, reflink, counts of inode trees.
const RO_KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8;
const RO_FREE_INODES: u32 = 0x1;
const RO_REVERSE_MAP: u32 = 0x2;
const RO_REFLINK: u32 = 0x4;
/// Known and harmless to the trees: types in directories, sparse inodes, a UUID for metadata, times after 2038, large
/// counts of extents, exchange of ranges, parent pointers.
const INCOMPAT_KNOWN: u32 = 0x1 | 0x2 | INCOMPAT_META_UUID | 0x8 | 0x20 | 0x40 | 0x80;
const INCOMPAT_META_UUID: u32 = 0x4;
const INCOMPAT_NEEDS_REPAIR: u32 = 0x10;
/// Extended attributes are logged as such.
const LOG_KNOWN: u32 = 0x1;
/// No allocation group is smaller.
const MIN_GROUP_BLOCKS: u64 = 64;
const CORRUPT: Kept = Kept::Corrupt("superblock");

/// What the superblock says, each number checked against the others.
pub(super) struct Layout {
    /// Bytes of a block and of a sector.
    pub(super) block: u64,
    pub(super) sector: u64,
    pub(super) blocks: u64,
    pub(super) group_blocks: u64,
    pub(super) groups: u32,
    /// The log, in bytes of the volume.
    pub(super) log: Range<u64>,
    /// The UUID that stands in the log, and that in the metadata of version 5.
    pub(super) uuid: [u8; 16],
    pub(super) metadata_uuid: [u8; 16],
    pub(super) version: Version,
    /// Free blocks.
    pub(super) free: u64,
    /// The number of free blocks is put right only by an unmount, and counts the blocks of the trees.
    pub(super) lazy: bool,
    /// The first block of the root directory's inode, as a number in its group and the group.
    pub(super) root: (u32, u64),
}

/// Version 4, or version 5 with its features.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Four,
    Five { free_inodes: bool, reverse_map: bool, reflink: bool },
}

impl Layout {
    /// Parses the head of a volume.
    pub(super) fn parse(head: &[u8]) -> Result<Self, Kept> {
        let version = u16_at(head, 100).ok_or(CORRUPT)?;
        if !matches!(version & 15, 4 | 5) {
            return Err(Kept::NotRead("this version of XFS"));
        }
        let sector = u16_at(head, 102).filter(|sector| sector.is_power_of_two() && (512..=32768).contains(sector));
        let sector = head.get(..sector.ok_or(CORRUPT)?.into()).ok_or(CORRUPT)?;
        if version & 15 == 5 && !sum_holds(sector, 224) {
            return Err(Kept::Disagree("superblock", "checksum"));
        }
        check_features(head, version).ok_or(CORRUPT)??;
        Self::numbers(head, version, sector.len() as u64).ok_or(CORRUPT)
    }

    /// The geometry; `None` if its numbers cannot be.
    fn numbers(head: &[u8], version: u16, sector: u64) -> Option<Self> {
        let block = u64::from(u32_at(head, 4)?);
        let (blocks, group_blocks, groups) = (u64_at(head, 8)?, u64::from(u32_at(head, 84)?), u32_at(head, 88)?);
        let group_log = u32::from(*head.get(124)?);
        let inodes_log = u32::from(*head.get(123)?);
        let powers = block.is_power_of_two() && (512..=65536).contains(&block) && sector <= block;
        let logs = u32::from(*head.get(120)?) == block.trailing_zeros()
            && group_blocks >= MIN_GROUP_BLOCKS
            && group_log == group_blocks.next_power_of_two().trailing_zeros()
            && inodes_log < 16;
        if !powers || !logs || blocks.div_ceil(group_blocks) != u64::from(groups) {
            return None;
        }
        blocks.checked_mul(block)?;
        let place = |number: u64, log: u32| {
            let group = u32::try_from(number >> log).ok().filter(|group| *group < groups)?;
            let at = number & ((1 << log) - 1);
            Some((group, at))
        };
        let (log_group, log_at) = place(u64_at(head, 48)?, group_log)?;
        let (root_group, root_inode) = place(u64_at(head, 56)?, group_log + inodes_log)?;
        let first = u64::from(log_group) * group_blocks;
        let log = first + log_at..first + log_at + u64::from(u32_at(head, 96)?);
        if log.is_empty() || log.end > blocks || log.end > first + group_blocks {
            return None;
        }
        let features2 = if version & VERSION_MORE == 0 { 0 } else { u32_at(head, 200)? };
        let read_only = u32_at(head, 212)?;
        let five = version & 15 == 5;
        let own_uuid = !five || u32_at(head, 216)? & INCOMPAT_META_UUID == 0;
        Some(Self {
            block,
            sector,
            blocks,
            group_blocks,
            groups,
            log: log.start * block..log.end * block,
            uuid: array_at(head, 32)?,
            metadata_uuid: array_at(head, if own_uuid { 32 } else { 248 })?,
            version: if five {
                Version::Five {
                    free_inodes: read_only & RO_FREE_INODES != 0,
                    reverse_map: read_only & RO_REVERSE_MAP != 0,
                    reflink: read_only & RO_REFLINK != 0,
                }
            } else {
                Version::Four
            },
            free: u64_at(head, 144)?,
            lazy: five || features2 & FEATURES2_LAZY != 0,
            root: (root_group, root_inode >> inodes_log),
        })
    }

    /// The number of blocks of a group: the last one may be shorter.
    pub(super) fn blocks_of(&self, group: u32) -> u64 {
        (self.blocks - self.start_of(group)).min(self.group_blocks)
    }

    /// The first block of a group.
    pub(super) fn start_of(&self, group: u32) -> u64 {
        u64::from(group) * self.group_blocks
    }

    /// Whether the 16 bytes at `at` are the UUID that all metadata of version 5 have.
    pub(super) fn owns(&self, bytes: &[u8], at: usize) -> bool {
        array_at(bytes, at) == Some(self.metadata_uuid)
    }
}

/// What changes the meaning of the free-space trees, or is unknown, is not read. `None` if the superblock ends before.
fn check_features(head: &[u8], version: u16) -> Option<Result<(), Kept>> {
    let unknown = |set, bits: u32| (bits != 0).then_some(Err(Kept::Feature(set, bits)));
    let features2 = if version & VERSION_MORE == 0 { 0 } else { u32_at(head, 200)? };
    let mut kept = unknown("version", (version & !VERSION_KNOWN).into());
    kept = kept.or(unknown("version", features2 & !FEATURES2_KNOWN));
    if version & 15 == 5 {
        let incompat = u32_at(head, 216)?;
        if incompat & INCOMPAT_NEEDS_REPAIR != 0 {
            kept = kept.or(Some(Err(Kept::Errors)));
        }
        kept = kept.or(unknown("incompatible", incompat & !INCOMPAT_KNOWN));
        kept = kept.or(unknown("read-only compatible", u32_at(head, 212)? & !RO_KNOWN));
        kept = kept.or(unknown("log", u32_at(head, 220)? & !LOG_KNOWN));
    }
    if *head.get(126)? != 0 {
        kept = kept.or(Some(Err(Kept::NotClean)));
    }
    if u64_at(head, 48)? == 0 {
        kept = kept.or(Some(Err(Kept::NotRead("XFS with an external log"))));
    }
    if u64_at(head, 16)? != 0 {
        kept = kept.or(Some(Err(Kept::NotRead("XFS with a realtime device"))));
    }
    Some(kept.unwrap_or(Ok(())))
}
