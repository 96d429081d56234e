//! The readers one by one, for the fuzz targets: a disk chooses its reader by its signatures, a target by its name.

use super::volume::Volume;
use super::{btrfs, exfat, ext, f2fs, fat, lvm, md, ntfs, swap, xfs};
use crate::source::ReadAt;
use core::ops::Range;

/// A reader of free space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2, ext3 and ext4.
    Ext,
    /// FAT12, FAT16 and FAT32.
    Fat,
    /// NTFS.
    Ntfs,
    /// Linux swap.
    Swap,
    /// LVM2 physical volumes.
    Lvm,
    /// Members of md arrays with their superblock at the front.
    Md,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// exFAT.
    Exfat,
    /// F2FS.
    F2fs,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Ext,
        Self::Fat,
        Self::Ntfs,
        Self::Swap,
        Self::Lvm,
        Self::Md,
        Self::Xfs,
        Self::Btrfs,
        Self::Exfat,
        Self::F2fs,
    ];
}

/// The free bytes of a volume that is all of `source`; `None` where it is kept as a whole.
pub(crate) fn unused_of(kind: FileSystem, source: &dyn ReadAt, bytes: u64) -> Option<Vec<Range<u64>>> {
    let volume = Volume::new(source, 0, bytes);
    let head = volume.bytes_at(0, usize::try_from(bytes.min(256 << 10)).unwrap_or(0)).ok()?;
    let reader = match kind {
        FileSystem::Ext => ext::READER,
        FileSystem::Fat => fat::READER,
        FileSystem::Ntfs => ntfs::READER,
        FileSystem::Swap => swap::READER,
        FileSystem::Lvm => lvm::READER,
        FileSystem::Md => md::READER,
        FileSystem::Xfs => xfs::READER,
        FileSystem::Btrfs => btrfs::READER,
        FileSystem::Exfat => exfat::READER,
        FileSystem::F2fs => f2fs::READER,
    };
    let unused = (reader.unused)(&volume, &head);
    Some(unused.ok()?.ranges().to_vec())
}
