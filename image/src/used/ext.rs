//! Free blocks of ext2, ext3 and ext4 (`Documentation/filesystems/ext4` and `fs/ext4` of the kernel).
//!
//! The disk is cut into groups; each has a descriptor, which names the block with the group's bitmap. A group may lack its
//! bitmap ("uninit"): then only its own metadata are used. Bits stand for clusters, one block or (bigalloc) several.
//!
//! Three things must agree before a single block counts as free: the checksums, where there are any; the number of free
//! clusters in bitmap, descriptor and superblock; and the maps with the places of all metadata, which must be in use.

use super::bitmap;
use super::ext_sums::{crc16, crc32c};
use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use crate::le::{array_at, u16_at, u32_at};
use core::ops::Range;

const COMPAT_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
/// Known and harmless to the maps: filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, dirdata,
/// metadata_csum_seed, large_dir, inline_data, encrypt, casefold.
const INCOMPAT_KNOWN: u32 = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x3_E000;
const INCOMPAT_OF_EXT4: u32 = INCOMPAT_KNOWN & !(0x2 | 0x4 | 0x10);
const RO_SPARSE_SUPER: u32 = 0x1;
const RO_GDT_CSUM: u32 = 0x10;
const RO_BIGALLOC: u32 = 0x200;
const RO_METADATA_CSUM: u32 = 0x400;
/// Known: sparse_super, large_file, btree_dir, huge_file, uninit_bg, dir_nlink, extra_isize, quota, bigalloc,
/// metadata_csum, read-only, project, verity, orphan_present.
const RO_KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x1_8000;

/// No more groups are read: 128 TiB in blocks of 4 KiB.
const MAX_GROUPS: u64 = 1 << 20;
const SUPER_AT: usize = 1024;
const CORRUPT: Kept = Kept::Corrupt("superblock");

/// The row of the table of readers.
pub(super) const READER: Reader = Reader { probe: name, unused: |volume, _| unused(volume) };

/// What the file system is called, if the head of a volume is that of one.
fn name(head: &[u8]) -> Option<&'static str> {
    let raw = head.get(SUPER_AT..2 * SUPER_AT)?;
    if u16_at(raw, 0x38)? != 0xEF53 {
        return None;
    }
    let extended = u32_at(raw, 0x60)? & INCOMPAT_OF_EXT4 != 0 || u32_at(raw, 0x64)? & RO_KNOWN & !0x7 != 0;
    let journal = u32_at(raw, 0x5C)? & COMPAT_JOURNAL != 0;
    Some(if extended {
        "ext4"
    } else if journal {
        "ext3"
    } else {
        "ext2"
    })
}

/// The free blocks of the file system on `volume`.
fn unused(volume: &Volume<'_>) -> Result<Unused, Kept> {
    let layout = Layout::read(volume)?;
    let groups = layout.groups(volume)?;
    let metadata = layout.metadata(&groups);
    let mut unused = Unused::default();
    let mut free_clusters = 0;
    for (number, group) in (0..).zip(&groups) {
        let blocks = layout.blocks_of(number);
        let clusters = (blocks.end - blocks.start).div_ceil(layout.ratio);
        let mut map = layout.map(volume, group)?;
        let first = metadata.partition_point(|range| range.end <= blocks.start);
        for range in metadata[first..].iter().take_while(|range| range.start < blocks.end) {
            let start = (range.start.max(blocks.start) - blocks.start) / layout.ratio;
            let end = (range.end.min(blocks.end) - blocks.start).div_ceil(layout.ratio);
            if group.uninit {
                bitmap::set(&mut map, start..end);
            } else if !bitmap::all_set(&map, start..end) {
                return Err(Kept::Disagree("block bitmap", "places of its metadata"));
            }
        }
        let mut free = 0;
        bitmap::clear_runs(&map, clusters, |run| {
            free += run.end - run.start;
            let end = (blocks.start + run.end * layout.ratio).min(blocks.end);
            unused.push((blocks.start + run.start * layout.ratio) * layout.block..end * layout.block);
        });
        if free != group.free {
            return Err(Kept::Counts { stated: group.free, counted: free });
        }
        free_clusters += free;
    }
    if layout.free_blocks != free_clusters * layout.ratio {
        return Err(Kept::Counts { stated: layout.free_blocks, counted: free_clusters * layout.ratio });
    }
    Ok(unused)
}

/// How the checksums of descriptors and bitmaps are made.
#[derive(Clone, Copy)]
enum Sums {
    None,
    /// CRC-16 over descriptors, starting with this.
    Crc16(u16),
    /// CRC-32C over everything, starting with this.
    Crc32c(u32),
}

/// What the superblock says, each number checked against the others and the size of the volume.
struct Layout {
    /// Bytes of a block.
    block: u64,
    blocks: u64,
    free_blocks: u64,
    /// The first block that is in a group: 1 for blocks of 1 KiB.
    first: u64,
    /// Blocks in front of the superblock in group 0: with clusters of 1 KiB blocks the boot block is in a group.
    boot: u64,
    per_group: u64,
    /// Blocks of a cluster.
    ratio: u64,
    group_count: u64,
    descriptor: usize,
    table_blocks: u64,
    /// From this block of descriptors on they lie in their own groups.
    first_meta: u64,
    descriptor_blocks: u64,
    reserved: u64,
    backups: Backups,
    sums: Sums,
}

/// Which groups have a copy of the superblock.
enum Backups {
    All,
    /// 0, 1 and the powers of 3, 5 and 7.
    Sparse,
    /// 0 and these two.
    Two([u32; 2]),
}

/// What a descriptor says.
struct Group {
    bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    free: u64,
    uninit: bool,
    bitmap_sum: u32,
}

impl Layout {
    fn read(volume: &Volume<'_>) -> Result<Self, Kept> {
        let raw = &volume.bytes_at(SUPER_AT as u64, 1024)?;
        let fields = (u32_at(raw, 0x5C), u32_at(raw, 0x60), u32_at(raw, 0x64), u16_at(raw, 0x3A));
        let (Some(compat), Some(incompat), Some(read_only), Some(state)) = fields else { return Err(CORRUPT) };
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(Kept::Feature("incompatible", incompat & !INCOMPAT_KNOWN));
        }
        if read_only & !RO_KNOWN != 0 {
            return Err(Kept::Feature("read-only compatible", read_only & !RO_KNOWN));
        }
        let sums = sums(raw, incompat, read_only)?;
        if incompat & INCOMPAT_RECOVER != 0 {
            return Err(Kept::Journal);
        }
        if state & 2 != 0 || u32_at(raw, 0x194) != Some(0) {
            return Err(Kept::Errors);
        }
        if state != 1 {
            return Err(Kept::NotClean);
        }
        let layout = Self::numbers(raw, [compat, incompat, read_only], sums).ok_or(CORRUPT)?;
        if layout.blocks.checked_mul(layout.block).is_none_or(|bytes| bytes > volume.bytes()) {
            return Err(Kept::TooLong);
        }
        if layout.group_count > MAX_GROUPS {
            return Err(Kept::TooLarge);
        }
        Ok(layout)
    }

    /// The geometry; `None` if its numbers cannot be.
    fn numbers(raw: &[u8], [compat, incompat, read_only]: [u32; 3], sums: Sums) -> Option<Self> {
        let wide = incompat & INCOMPAT_64BIT != 0;
        let joined =
            |low, high| Some(u64::from(u32_at(raw, low)?) | if wide { u64::from(u32_at(raw, high)?) << 32 } else { 0 });
        let (blocks, free_blocks) = (joined(4, 0x150)?, joined(12, 0x158)?);
        let (log_block, log_cluster) = (u32_at(raw, 24)?, u32_at(raw, 28)?);
        if log_block > 6 || log_cluster > 20 || log_cluster < log_block {
            return None;
        }
        let block = 1024_u64 << log_block;
        let bigalloc = read_only & RO_BIGALLOC != 0;
        let ratio = if bigalloc { 1 << (log_cluster - log_block) } else { 1 };
        let per_group = u64::from(u32_at(raw, 32)?);
        let first = u64::from(u32_at(raw, 20)?);
        let clusters = per_group / ratio;
        let first_is_right = first == u64::from(block == 1024 && !bigalloc);
        let group_is_right = per_group % ratio == 0
            && clusters % 8 == 0
            && (1..=block * 8).contains(&clusters)
            && (!bigalloc || u64::from(u32_at(raw, 36)?) == clusters);
        if !first_is_right || !group_is_right || blocks <= first {
            return None;
        }
        let group_count = (blocks - first).div_ceil(per_group);
        let descriptor = if wide { usize::from(u16_at(raw, 0xFE)?) } else { 32 };
        let inode = if u32_at(raw, 0x4C)? == 0 { 128 } else { u64::from(u16_at(raw, 0x58)?) };
        let inodes = u64::from(u32_at(raw, 40)?);
        if !descriptor.is_power_of_two() || !(32..=1024).contains(&descriptor) || (wide && descriptor < 64) {
            return None;
        }
        if !inode.is_power_of_two() || !(128..=block).contains(&inode) || !(1..=block * 8).contains(&inodes) {
            return None;
        }
        let descriptor_blocks = group_count.div_ceil(block / descriptor as u64);
        let meta = incompat & INCOMPAT_META_BG != 0;
        Some(Self {
            block,
            blocks,
            free_blocks,
            first,
            boot: u64::from(block == 1024 && bigalloc),
            per_group,
            ratio,
            group_count,
            descriptor,
            table_blocks: (inodes * inode).div_ceil(block),
            first_meta: if meta { u64::from(u32_at(raw, 0x104)?) } else { descriptor_blocks },
            descriptor_blocks,
            reserved: u64::from(u16_at(raw, 0xCE)?),
            backups: match (compat & COMPAT_SPARSE_SUPER2 != 0, read_only & RO_SPARSE_SUPER != 0) {
                (true, _) => Backups::Two([u32_at(raw, 0x24C)?, u32_at(raw, 0x250)?]),
                (false, true) => Backups::Sparse,
                (false, false) => Backups::All,
            },
            sums,
        })
    }

    /// The blocks of a group.
    fn blocks_of(&self, group: u64) -> Range<u64> {
        let start = self.first + group * self.per_group;
        start..(start + self.per_group).min(self.blocks)
    }

    fn has_super(&self, group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        match self.backups {
            Backups::All => true,
            Backups::Sparse => group < 2 || [3, 5, 7].into_iter().any(power_of),
            Backups::Two(two) => group == 0 || two.iter().any(|backup| u64::from(*backup) == group),
        }
    }

    /// Blocks at the start of a group with the superblock and the descriptors or their copies.
    fn leading_blocks(&self, group: u64) -> u64 {
        let per_block = self.block / self.descriptor as u64;
        let copy = u64::from(self.has_super(group));
        let boot = if group == 0 { self.boot } else { 0 };
        if group / per_block < self.first_meta {
            boot + copy * (1 + self.first_meta.min(self.descriptor_blocks) + self.reserved)
        } else {
            let place = group % per_block;
            boot + copy + u64::from(place < 2 || place == per_block - 1)
        }
    }

    /// Where block `number` of the descriptors is.
    fn descriptors_at(&self, number: u64) -> u64 {
        if number < self.first_meta {
            return self.first + self.boot + 1 + number;
        }
        let group = number * (self.block / self.descriptor as u64);
        let boot = if group == 0 { self.boot } else { 0 };
        self.blocks_of(group).start + boot + u64::from(self.has_super(group))
    }

    fn groups(&self, volume: &Volume<'_>) -> Result<Vec<Group>, Kept> {
        let mut groups = Vec::new();
        let mut buffer = vec![0; usize::try_from(self.block).unwrap_or(0)];
        for number in 0..self.descriptor_blocks {
            volume.read(self.descriptors_at(number).saturating_mul(self.block), &mut buffer)?;
            for raw in buffer.chunks_exact(self.descriptor) {
                let number = groups.len() as u64;
                if number == self.group_count {
                    break;
                }
                if !self.descriptor_holds(number, raw) {
                    return Err(Kept::Disagree("group descriptors", "checksums"));
                }
                groups.push(self.group(raw).ok_or(Kept::Corrupt("group descriptors"))?);
            }
        }
        Ok(groups)
    }

    fn group(&self, raw: &[u8]) -> Option<Group> {
        let wide = self.descriptor >= 64;
        let block = |low, high| {
            let high = if wide { u64::from(u32_at(raw, high)?) << 32 } else { 0 };
            Some(u64::from(u32_at(raw, low)?) | high)
        };
        let count = |low, high| {
            let high = if wide { u32::from(u16_at(raw, high)?) << 16 } else { 0 };
            Some(u32::from(u16_at(raw, low)?) | high)
        };
        let group = Group {
            bitmap: block(0, 0x20)?,
            inode_bitmap: block(4, 0x24)?,
            inode_table: block(8, 0x28)?,
            free: count(12, 0x2C)?.into(),
            uninit: !matches!(self.sums, Sums::None) && u16_at(raw, 0x12)? & 2 != 0,
            bitmap_sum: count(0x18, 0x38)?,
        };
        let inside =
            |start: u64, len: u64| start >= self.first && start.checked_add(len).is_some_and(|end| end <= self.blocks);
        let good =
            inside(group.bitmap, 1) && inside(group.inode_bitmap, 1) && inside(group.inode_table, self.table_blocks);
        good.then_some(group)
    }

    fn descriptor_holds(&self, number: u64, raw: &[u8]) -> bool {
        let number = u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let (head, tail) = (&raw[..0x1E], raw.get(0x20..).unwrap_or_default());
        let sum = match self.sums {
            Sums::None => return true,
            Sums::Crc16(seed) => crc16(crc16(crc16(seed, &number), head), tail),
            Sums::Crc32c(seed) => {
                let [low, high, ..] = crc32c(crc32c(crc32c(crc32c(seed, &number), head), &[0; 2]), tail).to_le_bytes();
                u16::from_le_bytes([low, high])
            }
        };
        u16_at(raw, 0x1E) == Some(sum)
    }

    /// The blocks that must be in use whatever the bitmaps say, sorted.
    fn metadata(&self, groups: &[Group]) -> Vec<Range<u64>> {
        let mut ranges = Vec::with_capacity(groups.len() * 4);
        for (number, group) in (0..).zip(groups) {
            let start = self.blocks_of(number).start;
            ranges.push(start..start + self.leading_blocks(number));
            ranges.push(group.bitmap..group.bitmap + 1);
            ranges.push(group.inode_bitmap..group.inode_bitmap + 1);
            ranges.push(group.inode_table..group.inode_table + self.table_blocks);
        }
        ranges.retain(|range| !range.is_empty());
        ranges.sort_unstable_by_key(|range| range.start);
        // Joined, so that their ends are sorted too.
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        joined
    }

    /// The bitmap of a group; an empty one where it was never written.
    fn map(&self, volume: &Volume<'_>, group: &Group) -> Result<Vec<u8>, Kept> {
        let len = usize::try_from(self.per_group / self.ratio / 8).unwrap_or(0);
        if group.uninit {
            return Ok(vec![0; len]);
        }
        let map = volume.bytes_at(group.bitmap.saturating_mul(self.block), len)?;
        if let Sums::Crc32c(seed) = self.sums {
            let mask = if self.descriptor >= 64 { u32::MAX } else { 0xFFFF };
            if crc32c(seed, &map) & mask != group.bitmap_sum {
                return Err(Kept::Disagree("block bitmaps", "checksums"));
            }
        }
        Ok(map)
    }
}

/// The kind of checksums; that of the superblock itself is checked.
fn sums(raw: &[u8], incompat: u32, read_only: u32) -> Result<Sums, Kept> {
    let uuid: [u8; 16] = array_at(raw, 0x68).ok_or(CORRUPT)?;
    if read_only & RO_METADATA_CSUM != 0 {
        if raw.get(0x175) != Some(&1) || read_only & RO_GDT_CSUM != 0 {
            return Err(CORRUPT);
        }
        if u32_at(raw, 0x3FC) != Some(crc32c(!0, &raw[..0x3FC])) {
            return Err(Kept::Disagree("superblock", "checksum"));
        }
        let stored = u32_at(raw, 0x270).filter(|_| incompat & INCOMPAT_CSUM_SEED != 0);
        return Ok(Sums::Crc32c(stored.unwrap_or_else(|| crc32c(!0, &uuid))));
    }
    Ok(if read_only & RO_GDT_CSUM != 0 { Sums::Crc16(crc16(!0, &uuid)) } else { Sums::None })
}
