//! The readers of used space: one row for each family of file systems.

use super::volume::{Kept, Unused, Volume};
use super::{btrfs, exfat, ext, f2fs, fat, lvm, md, ntfs, swap, xfs};

/// How the free space of one family of file systems is found. Another family is a new file with such a row.
#[derive(Debug)]
pub(super) struct Reader {
    /// The name of the file system whose first bytes these are, if it is of this family.
    pub(super) probe: fn(&[u8]) -> Option<&'static str>,
    /// The free ranges of such a volume, given with its first bytes.
    pub(super) unused: fn(&Volume<'_>, &[u8]) -> Result<Unused, Kept>,
}

/// All that is read. Whatever else is recognised ([`sniff`](super::sniff)) is kept as a whole.
pub(super) const READERS: &[Reader] = &[
    ext::READER,
    fat::READER,
    ntfs::READER,
    swap::READER,
    lvm::READER,
    md::READER,
    xfs::READER,
    btrfs::READER,
    exfat::READER,
    f2fs::READER,
];
