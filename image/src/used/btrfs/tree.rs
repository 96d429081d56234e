//! Walking through the trees of btrfs. Each node has a checksum, its own place, and the generation that its parent expects.

use super::chunks::{CHUNK_ITEM, Chunks};
use super::superblock::{Root, Superblock};
use crate::le::{u32_at, u64_at};
use crate::used::volume::{Kept, Volume};

/// Bytes of a node before its items or pointers.
const HEADER: usize = 101;
const ITEM: usize = 25;
const POINTER: usize = 33;
const MAX_LEVEL: u8 = 7;
const CORRUPT: Kept = Kept::Corrupt("tree");
/// The type of the key of a tree's place in the tree of trees.
const ROOT_ITEM: u8 = 132;
/// The type of the key of a device in the chunk tree.
const DEVICE_ITEM: u8 = 216;

/// The key of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) fn parse(raw: &[u8]) -> Option<Self> {
        Some(Self { object: u64_at(raw, 0)?, kind: *raw.get(8)?, offset: u64_at(raw, 9)? })
    }
}

/// Called with each item of a tree, in the order of the keys.
type Each<'e> = &'e mut dyn FnMut(Key, &[u8]) -> Result<(), Kept>;

/// The trees of a file system.
pub(super) struct Trees<'a> {
    volume: Volume<'a>,
    pub(super) superblock: &'a Superblock,
    pub(super) chunks: Chunks,
}

/// A place in a walk: the last key so far, and the tree.
struct Walk<'e> {
    owner: u64,
    last: Option<Key>,
    each: Each<'e>,
}

impl<'a> Trees<'a> {
    /// With the chunks of the superblock, in which the chunk tree lies.
    pub(super) fn new(volume: Volume<'a>, superblock: &'a Superblock, chunks: Chunks) -> Self {
        Self { volume, superblock, chunks }
    }

    /// Reads the chunk tree: from then on all trees can be read.
    pub(super) fn read_chunks(&mut self) -> Result<(), Kept> {
        let mut chunks = Chunks::default();
        let mut devices = 0;
        self.walk(3, self.superblock.chunk_root, &mut |key, raw| match key.kind {
            CHUNK_ITEM => chunks.add(key, raw, self.superblock),
            DEVICE_ITEM => {
                devices += 1;
                let same = u64_at(raw, 0) == Some(self.superblock.device)
                    && u64_at(raw, 8) == Some(self.superblock.device_bytes);
                if same && devices == 1 { Ok(()) } else { Err(Kept::NotRead("Btrfs on several devices")) }
            }
            _ => Err(CORRUPT),
        })?;
        if !chunks.have(&self.chunks) {
            return Err(Kept::Disagree("superblock", "chunk tree"));
        }
        self.chunks = chunks;
        Ok(())
    }

    /// The place of the tree with this number.
    pub(super) fn root_of(&self, tree: u64) -> Result<Root, Kept> {
        let wanted = Key { object: tree, kind: ROOT_ITEM, offset: 0 };
        let mut at = self.superblock.root;
        loop {
            let node = self.node(1, at)?;
            if at.level > 0 {
                let below = (0..count(&node)?).rev().find_map(|no| {
                    let (key, child) = pointer(&node, no, at.level)?;
                    (key <= wanted).then_some(child)
                });
                at = below.ok_or(CORRUPT)?;
                continue;
            }
            for no in 0..count(&node)? {
                let (key, raw) = item(&node, no).ok_or(CORRUPT)?;
                if key == wanted {
                    let level = *raw.get(238).ok_or(CORRUPT)?;
                    let root = (u64_at(raw, 176), u64_at(raw, 160));
                    let (Some(logical), Some(generation)) = root else { return Err(CORRUPT) };
                    return Ok(Root { logical, generation, level });
                }
            }
            return Err(CORRUPT);
        }
    }

    /// Calls `each` with all items of the tree `owner`, whose root is at `root`.
    pub(super) fn walk(&self, owner: u64, root: Root, each: Each<'_>) -> Result<(), Kept> {
        self.visit(root, &mut Walk { owner, last: None, each })
    }

    /// Keys only grow, so no leaf comes twice and the walk ends.
    fn visit(&self, at: Root, walk: &mut Walk<'_>) -> Result<(), Kept> {
        let node = self.node(walk.owner, at)?;
        for no in 0..count(&node)? {
            if at.level > 0 {
                let (key, child) = pointer(&node, no, at.level).ok_or(CORRUPT)?;
                if walk.last.is_some_and(|last| key <= last) {
                    return Err(CORRUPT);
                }
                self.visit(child, walk)?;
                if walk.last.is_none_or(|last| last < key) {
                    return Err(CORRUPT);
                }
            } else {
                let (key, raw) = item(&node, no).ok_or(CORRUPT)?;
                if walk.last.is_some_and(|last| key <= last) {
                    return Err(CORRUPT);
                }
                walk.last = Some(key);
                (walk.each)(key, raw)?;
            }
        }
        Ok(())
    }

    /// The node at a place, if it is what its parent says.
    fn node(&self, owner: u64, at: Root) -> Result<Vec<u8>, Kept> {
        let len = self.superblock.node;
        let end = at.logical.checked_add(len as u64).ok_or(CORRUPT)?;
        let place = self.chunks.places(&(at.logical..end)).and_then(|mut places| places.next()).ok_or(CORRUPT)?;
        let node = self.volume.bytes_at(place.start, len)?;
        let right = self.superblock.sum.is_right(&node)
            && node.get(32..48) == Some(&self.superblock.uuid)
            && u64_at(&node, 48) == Some(at.logical)
            && u64_at(&node, 80) == Some(at.generation)
            && at.generation <= self.superblock.generation
            && u64_at(&node, 88) == Some(owner)
            && node.get(100) == Some(&at.level)
            && at.level <= MAX_LEVEL;
        if right { Ok(node) } else { Err(CORRUPT) }
    }
}

/// How many items or pointers a node has.
fn count(node: &[u8]) -> Result<usize, Kept> {
    let count = u32_at(node, 96).and_then(|count| usize::try_from(count).ok()).ok_or(CORRUPT)?;
    if count <= node.len() / ITEM { Ok(count) } else { Err(CORRUPT) }
}

/// Pointer `no` of a node of `level`.
fn pointer(node: &[u8], no: usize, level: u8) -> Option<(Key, Root)> {
    let raw = node.get(HEADER + no * POINTER..)?.get(..POINTER)?;
    Some((
        Key::parse(raw)?,
        Root { logical: u64_at(raw, 17)?, generation: u64_at(raw, 25)?, level: level.checked_sub(1)? },
    ))
}

/// Item `no` of a leaf, with its bytes.
fn item(node: &[u8], no: usize) -> Option<(Key, &[u8])> {
    let raw = node.get(HEADER + no * ITEM..)?.get(..ITEM)?;
    let start = HEADER.checked_add(usize::try_from(u32_at(raw, 17)?).ok()?)?;
    let end = start.checked_add(usize::try_from(u32_at(raw, 21)?).ok()?)?;
    Some((Key::parse(raw)?, node.get(start..end)?))
}
