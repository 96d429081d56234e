//! Free blocks of F2FS (`include/linux/f2fs_fs.h` and `fs/f2fs` of the kernel).
//!
//! The main area is cut into segments of 512 blocks. A table (SIT) has a bit for each of their blocks; another (NAT) says
//! where each node is. Both exist twice, block by block, and the checkpoint says which of the two counts; the newest few
//! changes stand in journals in the checkpoint's pack instead.
//!
//! They count only if the newest checkpoint was written by an unmount and nothing was written behind it: files that were
//! synced after it are found by their nodes, which begin where the current node segment ends. For the same reason the
//! current segments are used to their ends. A disk on which the image was used before would have such nodes there.

mod checkpoint;
mod layout;
mod tables;

use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use checkpoint::Checkpoint;
use layout::{BLOCK, Layout};

const MAGIC: u32 = 0xF2F5_2010;
const SUPER_AT: usize = 1024;

/// The row of the table of readers.
pub(super) const READER: Reader =
    Reader { probe: |head| head.get(SUPER_AT..)?.starts_with(&MAGIC.to_le_bytes()).then_some("F2FS"), unused };

/// The free blocks of the file system on `volume`, whose first bytes are `head`.
fn unused(volume: &Volume<'_>, head: &[u8]) -> Result<Unused, Kept> {
    let layout = Layout::parse(head)?;
    if layout.blocks * BLOCK > volume.bytes() {
        return Err(Kept::TooLong);
    }
    let checkpoint = Checkpoint::newest(volume, &layout)?;
    checkpoint.was_left_properly(volume, &layout)?;
    let unused = tables::free(volume, &layout, &checkpoint)?;
    tables::nodes_are_used(volume, &layout, &checkpoint, &unused)?;
    Ok(unused)
}

/// The checksum of F2FS: CRC-32 without inversions, which begins with the magic number.
pub(crate) fn sum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!MAGIC);
    parts.iter().for_each(|part| hasher.update(part));
    !hasher.finalize()
}
