//! Free blocks of XFS, versions 4 and 5 (`fs/xfs/libxfs/xfs_format.h` and `xfs_log_format.h` of the kernel).
//!
//! The disk is cut into allocation groups. Each has two B+trees of its free extents, one by place and one by length.
//! Blocks of the trees and of the lists that feed them are in use, as far as an image is concerned.
//!
//! The trees on the disk are those of the last checkpoint: what was allocated after it stands in the log only. So they
//! count only where the newest record of the log says that the file system was unmounted. Then these must agree: the
//! checksums and UUIDs (version 5), both trees of a group with each other and with the counts of the group, the counts of
//! all groups with the superblock, and the trees with the places of all metadata that are known here.

mod group;
mod layout;
mod log;
mod tree;

use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use crate::le;
use group::Group;
use layout::Layout;

/// The row of the table of readers.
pub(super) const READER: Reader = Reader { probe: |head| head.starts_with(b"XFSB").then_some("XFS"), unused };

/// The free blocks of the file system on `volume`, whose first bytes are `head`.
fn unused(volume: &Volume<'_>, head: &[u8]) -> Result<Unused, Kept> {
    let layout = Layout::parse(head)?;
    if layout.blocks * layout.block > volume.bytes() {
        return Err(Kept::TooLong);
    }
    log::is_empty(volume, &layout)?;
    let mut unused = Unused::default();
    let mut free = 0;
    for number in 0..layout.groups {
        let group = Group::read(volume, &layout, number)?;
        group.free(volume, &layout, &mut unused)?;
        free += group.counted_by_superblock(layout.lazy);
    }
    if free != layout.free {
        return Err(Kept::Counts { stated: layout.free, counted: free });
    }
    Ok(unused)
}

/// Whether the CRC-32C at `at` of a structure of version 5 is that of the whole structure with zeros in its place.
fn sum_holds(bytes: &[u8], at: usize) -> bool {
    use super::crc32c;
    let (Some(head), Some(tail)) = (bytes.get(..at), bytes.get(at + 4..)) else { return false };
    le::u32_at(bytes, at) == Some(!crc32c(crc32c(crc32c(!0, head), &[0; 4]), tail))
}
