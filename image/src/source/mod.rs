//! What an image is made of: a disk that is read at any place, with its size, sector and holes.
//!
//! Raw files and block devices ([`RawDisk`]) are one source, the formats of [`open`] are others; each is a file here with one
//! row in the table of `formats.rs`. A source from elsewhere is a type with the two traits below, given to
//! [`create_from`](crate::create_from).
//!
//! The formats come from anywhere, so no length in a file sizes an allocation or a loop without a bound, a file that is cut or
//! contradicts itself is an error, and other files are read only where the first one lies.

mod android;
mod backing;
mod bmap;
mod bytes;
mod cache;
mod clonezilla;
mod describe;
mod fault;
mod fog;
mod folder;
mod formats;
mod mapped;
#[cfg(test)]
mod memory;
mod packed;
mod padded;
mod partclone;
mod parted;
mod pieces;
mod qcow2;
mod raw;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use backing::open_backing;
pub use describe::{SourceInfo, describe};
pub use fault::ImportFault;
pub use formats::{Asked, RAW, names, open};
#[cfg(test)]
pub(crate) use memory::MemoryDisk;
pub(crate) use padded::Padded;
#[cfg(any(fuzzing, test))]
pub(crate) use partclone::front as partclone_front;
pub use raw::RawDisk;
pub(crate) use raw::{backing_file, has_partitions, is_same_file, names_a_device};

use core::fmt::Debug;
use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that are read at any place: a [`DiskSource`], or a disk that is in memory.
pub trait ReadAt {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The error of the system; [`io::ErrorKind::UnexpectedEof`] beyond the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A disk to make an image of. It is read from its front to its end, after its partition table and the metadata of its
/// file systems were read here and there.
pub trait DiskSource: ReadAt + Debug + Send + Sync {
    /// The path that messages name it by.
    fn path(&self) -> &Path;

    /// What it is read out of, as messages call it.
    fn format(&self) -> &'static str {
        RAW
    }

    /// The size of the disk in bytes.
    fn bytes(&self) -> u64;

    /// The logical sector in bytes, where the source knows it. Else what lies on the disk may prove it.
    fn sector(&self) -> Option<u32> {
        None
    }

    /// The next range at or after `from` that may be other than zeros; `None` if only zeros follow.
    ///
    /// # Errors
    /// The error of the system.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>>;

    /// Ranges whose content does not matter, as far as the source itself knows them: sorted and apart. They are read as
    /// zeros.
    fn unused(&self) -> &[Range<u64>] {
        &[]
    }

    /// What lies in ranges of the disk, where the source itself knows it: sorted and apart. Nothing is looked up there, and what is not among the unused
    /// ranges is used.
    fn contents(&self) -> &[Content] {
        &[]
    }

    /// The disk of the file below this one, whose content shows where this one has none.
    fn below(&self) -> Option<&dyn DiskSource> {
        None
    }

    /// The next range at or after `from` in which the disk [`below`](Self::below) shows; `None` if there is no more.
    ///
    /// # Errors
    /// The error of the system.
    fn next_of_below(&self, _from: u64) -> io::Result<Option<Range<u64>>> {
        Ok(None)
    }

    /// Every file it is read from. None of them may be the output.
    fn files(&self) -> Vec<PathBuf> {
        vec![self.path().to_owned()]
    }

    /// What has changed since it was opened: "size", or "content" where the times of a file changed; `None` if nothing has.
    ///
    /// # Errors
    /// The error of the system.
    fn change(&self) -> io::Result<Option<&'static str>>;

    /// What an operator should know about it.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A partition, or the whole disk, of which the source knows what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Where it is.
    pub range: Range<u64>,
    /// The name of the file system, or of what else it is.
    pub what: String,
}

/// What a format is told when it opens a file.
struct Opening<'a> {
    /// The snapshot that is asked for.
    snapshot: Option<&'a str>,
    /// A file with the partition table of the disk that a partition is of, and the number of the partition.
    table: Option<&'a Path>,
    partition: Option<u32>,
    /// Which disk of a folder with several.
    disk: Option<&'a str>,
    /// The folder for what has to be unpacked first.
    spool: &'a Path,
    /// The files above this one, with all links followed, and this one.
    chain: Vec<PathBuf>,
    /// Is told how far reading a file before the image is begun has come, in bytes, and how far it goes.
    preparing: &'a dyn Fn(u64, u64),
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
