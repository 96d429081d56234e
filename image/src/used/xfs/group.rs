//! An allocation group: its headers, its list of blocks for the trees, and its free extents.

use super::layout::{Layout, Version};
use super::sum_holds;
use super::tree::{Order, Tree};
use crate::be::u32_at;
use crate::used::volume::{Kept, Unused, Volume};

const FREE: Kept = Kept::Corrupt("header of free space");
const LIST: Kept = Kept::Corrupt("list of free blocks");
const INODES: Kept = Kept::Corrupt("header of inodes");

/// What the headers of a group say. All places are blocks of the group.
pub(super) struct Group {
    number: u32,
    blocks: u64,
    by_place: Root,
    by_length: Root,
    free: u32,
    longest: u32,
    /// How many blocks the list has, and how many the trees have beside their roots.
    listed: u32,
    tree_blocks: u32,
    /// Blocks that are in use for certain.
    used: Vec<u64>,
}

/// The root of a tree, and how many levels it has.
#[derive(Clone, Copy)]
struct Root {
    block: u32,
    levels: u32,
}

impl Group {
    /// Reads the headers: copy of the superblock, free space, inodes and list have a sector each.
    pub(super) fn read(volume: &Volume<'_>, layout: &Layout, number: u32) -> Result<Self, Kept> {
        let sector = usize::try_from(layout.sector).unwrap_or(0);
        let headers = volume.bytes_at(layout.start_of(number) * layout.block, 4 * sector)?;
        let part = |index: usize| &headers[index * sector..][..sector];
        let mut group = Self::parse(part(1), layout, number)?;
        let inodes = part(2);
        if !is_header(inodes, *b"XAGI", layout, number, [296, 312]) {
            return Err(INODES);
        }
        let mut roots = vec![u32_at(inodes, 20).ok_or(INODES)?];
        if matches!(layout.version, Version::Five { free_inodes: true, .. }) {
            roots.push(u32_at(inodes, 328).ok_or(INODES)?);
        }
        group.used.extend(roots.into_iter().map(u64::from));
        let list = list(part(1), part(3), layout, number)?;
        group.used.extend(list.into_iter().map(u64::from));
        if layout.root.0 == number {
            group.used.push(layout.root.1);
        }
        if group.used.iter().any(|block| *block >= group.blocks) {
            return Err(Kept::Corrupt("places of its metadata"));
        }
        Ok(group)
    }

    /// The header of free space.
    fn parse(raw: &[u8], layout: &Layout, number: u32) -> Result<Self, Kept> {
        if !is_header(raw, *b"XAGF", layout, number, [64, 216]) {
            return Err(FREE);
        }
        let word = |at| u32_at(raw, at).ok_or(FREE);
        let mut used = Vec::new();
        if let Version::Five { reverse_map, reflink, .. } = layout.version {
            let roots = [(reverse_map, word(24)?), (reflink, word(88)?)];
            used.extend(roots.into_iter().filter(|(is_there, _)| *is_there).map(|(_, root)| u64::from(root)));
        }
        let group = Self {
            number,
            blocks: layout.blocks_of(number),
            by_place: Root { block: word(16)?, levels: word(28)? },
            by_length: Root { block: word(20)?, levels: word(32)? },
            free: word(52)?,
            longest: word(56)?,
            listed: word(48)?,
            tree_blocks: word(60)?,
            used,
        };
        let counts = group.longest <= group.free && u64::from(group.free) <= group.blocks;
        if counts { Ok(group) } else { Err(FREE) }
    }

    /// How many blocks of it the superblock counts as free.
    pub(super) fn counted_by_superblock(&self, lazy: bool) -> u64 {
        let of_trees = if lazy { self.tree_blocks } else { 0 };
        u64::from(self.free) + u64::from(self.listed) + u64::from(of_trees)
    }

    /// Adds its free extents to `unused`.
    pub(super) fn free(&self, volume: &Volume<'_>, layout: &Layout, unused: &mut Unused) -> Result<(), Kept> {
        let headers = (4 * layout.sector).div_ceil(layout.block);
        let start = layout.start_of(self.number);
        let tree = |root: Root, order| Tree {
            volume,
            layout,
            group: self.number,
            root: root.block,
            levels: root.levels,
            order,
            within: headers..self.blocks,
            free: self.free.into(),
        };
        let by_length = tree(self.by_length, Order::Length).walk(|_| ())?;
        let by_place = tree(self.by_place, Order::Place).walk(|extent| {
            unused.push((start + extent.start) * layout.block..(start + extent.end) * layout.block);
        })?;
        if by_place.fingerprint != by_length.fingerprint {
            return Err(Kept::Disagree("tree of free extents by place", "tree by length"));
        }
        if by_place.free != u64::from(self.free) || by_place.longest != u64::from(self.longest) {
            return Err(Kept::Counts { stated: self.free.into(), counted: by_place.free });
        }
        let blocks = self.used.iter().chain(&by_place.blocks).chain(&by_length.blocks);
        let mut places = blocks.map(|block| (start + block) * layout.block);
        let is_free = places.any(|at| unused.contains(at)) || unused.meets(&layout.log);
        if is_free { Err(Kept::Disagree("trees of free extents", "places of its metadata")) } else { Ok(()) }
    }
}

/// Whether a sector is such a header of the group: magic number, version, group and length are the same in all of
/// them. `sums` has the places of UUID and checksum.
fn is_header(raw: &[u8], magic: [u8; 4], layout: &Layout, number: u32, [uuid, sum]: [usize; 2]) -> bool {
    raw.starts_with(&magic)
        && u32_at(raw, 4) == Some(1)
        && u32_at(raw, 8) == Some(number)
        && u32_at(raw, 12).map(u64::from) == Some(layout.blocks_of(number))
        && (layout.version == Version::Four || (layout.owns(raw, uuid) && sum_holds(raw, sum)))
}

/// The blocks in the list: a ring of which the header of free space knows first, last and count.
fn list(header: &[u8], raw: &[u8], layout: &Layout, number: u32) -> Result<Vec<u32>, Kept> {
    let entries = if layout.version == Version::Four {
        raw
    } else {
        let holds = raw.starts_with(b"XAFL") && u32_at(raw, 4) == Some(number) && layout.owns(raw, 8);
        raw.get(36..).filter(|_| holds && sum_holds(raw, 32)).ok_or(LIST)?
    };
    let len = u32::try_from(entries.len() / 4).map_err(|_| LIST)?;
    let word = |at| u32_at(header, at).ok_or(LIST);
    let (first, last, count) = (word(40)?, word(44)?, word(48)?);
    if count == 0 {
        return Ok(Vec::new());
    }
    if first >= len || last >= len || count > len || (first + count - 1) % len != last {
        return Err(LIST);
    }
    let entry = |index: u32| u32_at(entries, ((first + index) % len) as usize * 4).ok_or(LIST);
    (0..count).map(entry).collect()
}
