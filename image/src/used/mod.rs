//! What of a disk does not matter: the free space of the file systems in its partitions.
//!
//! An image holds the blocks that a file system uses and leaves the rest unwritten. So everything here answers one question,
//! and is careful with one of its two answers: **any doubt means used.** A file system that was not unmounted cleanly, that
//! has a feature unknown to us, whose counts, checksums or copies disagree, or that shares its partition with the signs of
//! another one, is kept as a whole, and the report says why. Only bytes that a file system states to be free, inside its own
//! bounds, are unused; what lies outside all partitions is used, but for the old backup GPT, which
//! [`fit`](crate::fit::fit) makes anew.
//!
//! No number read from the disk sizes an allocation or a loop without a bound, and nothing here writes.

mod bitmap;
mod btrfs;
#[cfg(any(fuzzing, test))]
mod each;
mod exfat;
mod ext;
mod ext_sums;
mod f2fs;
mod fat;
mod inside;
mod lvm;
mod mapped;
mod md;
mod ntfs;
mod ntfs_files;
mod ntfs_record;
mod raid;
mod reader;
mod scan;
mod sniff;
mod swap;
mod volume;
mod xfs;

#[cfg(test)]
mod tests;

#[cfg(any(fuzzing, test))]
pub use each::FileSystem;
#[cfg(any(fuzzing, test))]
pub(crate) use each::unused_of;
#[cfg(any(fuzzing, test))]
pub(crate) use exfat::boot_sum as boot_sum_of_exfat;
pub(crate) use ext_sums::crc32c;
#[cfg(any(fuzzing, test))]
pub(crate) use f2fs::sum as f2fs_sum;
#[cfg(any(fuzzing, test))]
pub(crate) use lvm::sum as lvm_sum;
pub(crate) use lvm::{RebuiltVolume, rebuild as rebuild_lvm};
#[cfg(any(fuzzing, test))]
pub(crate) use md::sum as md_sum;
pub(crate) use scan::is_anything;
pub use scan::{DiskReport, Known, scan, scan_with};
pub(crate) use volume::Unused;
