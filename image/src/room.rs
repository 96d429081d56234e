//! Whether the file system of a new file has room for it, asked before the work begins.
//!
//! Only what is sure is refused: file systems that pack or share what they store may take more than they say.

use crate::error::ImageError;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, MSDOS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use slidecast_proto::quantity::Bytes;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// File systems on which a byte that is stored takes a byte: ext2/3/4, XFS, tmpfs, FAT and exFAT.
const PLAIN: [FsType; 5] = [EXT4_SUPER_MAGIC, XFS, TMPFS_MAGIC, MSDOS_SUPER_MAGIC, EXFAT];
/// What musl's headers do not name (linux/magic.h).
const XFS: FsType = FsType(0x5846_5342);
const EXFAT: FsType = FsType(0x2011_BAB0);

/// The room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    free: u64,
    /// It takes no more than that.
    plain: bool,
}

impl Room {
    /// The room in `folder`, if the system says it.
    fn of(folder: &Path) -> Option<Self> {
        let said = statfs(folder).ok().filter(|said| said.blocks() > 0)?;
        let block = u64::try_from(said.block_size()).ok()?;
        // What only root may use, and what quotas take away, decides nothing here.
        let free = said.blocks_free().saturating_mul(block);
        Some(Self { free, plain: PLAIN.contains(&said.filesystem_type()) })
    }
}

/// Refuses to write at least `least` bytes to `path` where there is surely no room for them. A file of that name that will
/// be `emptied` makes room itself. Warns where `most` bytes, or `least` on a file system that may pack them, might not fit.
pub(crate) fn check(path: &Path, emptied: bool, least: u64, most: u64) -> Result<(), ImageError> {
    let Some(room) = Room::of(crate::passing::folder_of(path)) else { return Ok(()) };
    let old = if emptied { std::fs::metadata(path).map_or(0, |old| old.blocks().saturating_mul(512)) } else { 0 };
    let free = room.free.saturating_add(old);
    if free < least && room.plain {
        return Err(ImageError::NoRoom { path: path.to_owned(), free, least });
    }
    if free < most.max(least) {
        log::warn!(
            "{}: its file system has {} left, and up to {} may be needed",
            path.display(),
            Bytes(free),
            Bytes(most.max(least))
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surely_does_not_fit_is_refused_and_what_might_is_not() {
        // The memory of the system has some megabytes, and no exabyte.
        let path = Path::new("/dev/shm/none/../a.slide");
        let Some(room) = Room::of(Path::new("/dev/shm")) else { return };
        assert!(check(Path::new("/dev/shm/a.slide"), false, 1, u64::MAX).is_ok());
        let refused = check(Path::new("/dev/shm/a.slide"), true, 1 << 60, 0);
        assert_eq!(refused.is_err(), room.plain && room.free < 1 << 60);
        assert!(check(path, false, 1 << 60, 0).is_ok(), "nothing is known of a folder that is not there");
    }

    #[test]
    fn a_file_that_will_be_emptied_makes_room_for_the_new_one() {
        let Some(room) = Room::of(Path::new("/dev/shm")).filter(|room| room.plain) else { return };
        let old = tempfile::Builder::new().prefix("slidecast-room").tempfile_in("/dev/shm").unwrap();
        std::fs::write(old.path(), vec![1; 8 << 20]).unwrap();
        // Others write there, too: only that it counts is shown.
        let held = std::fs::metadata(old.path()).unwrap().blocks() * 512;
        assert!(held >= 8 << 20);
        assert!(check(old.path(), true, 4 << 20, 0).is_ok() || room.free < 8 << 20);
    }
}
