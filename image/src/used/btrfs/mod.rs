//! btrfs on one device: what no extent has, and what of the device is in no chunk
//! (`include/uapi/linux/btrfs_tree.h` and `fs/btrfs` of the kernel).
//!
//! `superblock.rs` reads the superblock, `chunks.rs` maps logical to physical bytes, `tree.rs` walks through trees of which
//! each node has a checksum, and `extents.rs` counts what is in use against what the block groups state. Logical space is
//! cut into chunks of one profile; "single" has one copy on the device and DUP two, of which both are kept.
//!
//! The extent tree alone decides: a free-space tree or cache is only another view of it. A log tree is in no extent tree,
//! so a file system that has one is kept as a whole.

mod chunks;
mod extents;
mod sums;
mod superblock;
mod tree;

use super::inside::Inside;
use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use chunks::Chunks;
use core::ops::Range;
use superblock::{AT, MIRRORS, STRIPE, Superblock};
use tree::Trees;

/// The row of the table of readers.
pub(super) const READER: Reader = Reader {
    probe: |head| head.get(AT + 64..)?.starts_with(superblock::MAGIC).then_some("Btrfs"),
    unused: |volume, _| unused(volume),
};

/// Boot loaders lie in front of the first chunk; the file system leaves them alone.
const FRONT: u64 = 1 << 20;

/// The free bytes of the file system on `volume`.
fn unused(volume: &Volume<'_>) -> Result<Unused, Kept> {
    let superblock = Superblock::read(volume)?;
    superblock.copies_agree(volume)?;
    let mut trees = Trees::new(*volume, &superblock, Chunks::of_superblock(&superblock)?);
    trees.read_chunks()?;
    let used = kept_places(superblock.device_bytes);
    let mut inside = Inside::default();
    let mut free = |range: Range<u64>| without(range, &used, |rest| inside.free(rest));
    trees.chunks.unmapped(superblock.device_bytes)?.into_iter().for_each(&mut free);
    extents::count(&trees, &mut |gap| trees.chunks.places(&gap).into_iter().flatten().for_each(&mut free))?;
    // A file system that is mounted goes on to another generation before what was read here is imaged.
    if Superblock::read(volume)?.generation != superblock.generation {
        return Err(Kept::NotClean);
    }
    inside.finish()
}

/// What is kept whatever the trees say, sorted and apart: the front, and the places of the superblock's copies.
fn kept_places(bytes: u64) -> Vec<Range<u64>> {
    let copies = MIRRORS.into_iter().filter(|at| at + STRIPE <= bytes).map(|at| at..at + STRIPE);
    core::iter::once(0..FRONT).chain(copies).collect()
}

/// Calls `each` with the parts of `range` that are in none of `others`, which are sorted and apart.
fn without(range: Range<u64>, others: &[Range<u64>], mut each: impl FnMut(Range<u64>)) {
    let mut start = range.start;
    for other in others.iter().filter(|other| other.start < range.end && range.start < other.end) {
        if start < other.start {
            each(start..other.start);
        }
        start = other.end;
    }
    if start < range.end {
        each(start..range.end);
    }
}
