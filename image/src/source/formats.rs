//! The formats that a disk is imported from, one row each. What a file is, is told by its content, never by its name.

use super::bmap::{self, MappedImage};
use super::packed::{self, Packer};
use super::{
    DiskSource, ImportFault, Opening, RawDisk, ReadAt, android, folder, partclone, qcow2, vdi, vhd, vhdx, vmdk,
};
use crate::container;
use crate::error::{ImageError, Operation};
use std::io;
use std::path::Path;

/// The bytes of a disk as they are: what a file is that has the signs of nothing else.
pub const RAW: &str = "raw";

/// How much of the front and of the end is looked at.
const LOOKED_AT: u64 = 512;

/// Opens a file of one format as the disk that it holds.
type Open = fn(RawDisk, &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError>;

/// How a disk is read out of one format. Another format is a new file with such a row.
struct Format {
    /// What `--format` calls it.
    name: &'static str,
    /// What messages call it.
    called: &'static str,
    /// Whether a file with this front and this end is of the format.
    probe: fn(&[u8], &[u8]) -> bool,
    open: Open,
}

/// The row of a packer.
macro_rules! packed {
    ($packer:ident) => {
        Format {
            name: Packer::$packer.name(),
            called: Packer::$packer.name(),
            probe: |head, _| Packer::$packer.probe(head),
            open: |file, opening| packed::open(file, Packer::$packer, opening),
        }
    };
}

const FORMATS: &[Format] = &[
    Format { name: "qcow2", called: qcow2::NAME, probe: qcow2::probe, open: qcow2::open },
    Format { name: "vhdx", called: vhdx::NAME, probe: vhdx::probe, open: vhdx::open },
    Format { name: "vmdk", called: vmdk::NAME, probe: vmdk::probe, open: vmdk::open },
    Format { name: "vdi", called: vdi::NAME, probe: vdi::probe, open: vdi::open },
    Format { name: "partclone", called: partclone::NAME, probe: partclone::probe, open: partclone::open },
    Format { name: "android-sparse", called: android::NAME, probe: android::probe, open: android::open },
    packed!(Gzip),
    packed!(Xz),
    packed!(Zstd),
    packed!(Bzip2),
    packed!(Lz4),
    packed!(Lzip),
    // A fixed disk has its sign at the end alone, so whatever shows itself in front comes first.
    Format { name: "vhd", called: vhd::NAME, probe: vhd::probe, open: vhd::open },
];

/// What `--format` takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    let folders = folder::FORMATS.iter().map(|format| format.name);
    core::iter::once(RAW).chain(FORMATS.iter().map(|format| format.name)).chain(folders)
}

/// The format whose signs a disk or a file has.
fn by_signs(disk: &dyn ReadAt, bytes: u64) -> io::Result<Option<&'static Format>> {
    let len = LOOKED_AT.min(bytes);
    let [mut head, mut tail] = [(); 2].map(|()| vec![0; usize::try_from(len).unwrap_or(0)]);
    disk.read_at(0, &mut head)?;
    disk.read_at(bytes - len, &mut tail)?;
    Ok(FORMATS.iter().find(|format| (format.probe)(&head, &tail)))
}

fn recognised(disk: &RawDisk) -> io::Result<Option<&'static Format>> {
    let found = by_signs(disk, disk.bytes())?;
    // An image of partclone is read where it is packed, too.
    if found.is_some_and(|format| Packer::of(format.called).is_some()) && packed::holds(disk, partclone::MAGIC) {
        return Ok(FORMATS.iter().find(|format| format.called == partclone::NAME));
    }
    Ok(found)
}

/// What a file that is no raw disk is called, whether it is imported or not.
pub(super) fn found(disk: &RawDisk) -> io::Result<Option<&'static str>> {
    match recognised(disk)? {
        Some(format) => Ok(Some(format.called)),
        None => container::format_of(disk, disk.bytes()),
    }
}

/// What begins on a device where a disk should. The end of one tells nothing: the last sector of a fixed VHD stays there where such a file was
/// written to a disk, and the disk is raw nevertheless.
fn on_device(disk: &RawDisk) -> io::Result<Option<&'static str>> {
    let mut head = vec![0; usize::try_from(LOOKED_AT.min(disk.bytes())).unwrap_or(0)];
    disk.read_at(0, &mut head)?;
    match FORMATS.iter().find(|format| (format.probe)(&head, &[])) {
        Some(format) => Ok(Some(format.called)),
        None => container::format_of(disk, disk.bytes()),
    }
}

/// Refuses a disk whose own content is such a file: who converted it took one for a raw disk.
fn is_no_container(disk: &dyn DiskSource) -> Result<(), ImageError> {
    let found = by_signs(disk, disk.bytes()).and_then(|format| match format {
        Some(format) => Ok(Some(format.called)),
        None => container::format_of(disk, disk.bytes()),
    });
    let Some(inside) = found.map_err(ImageError::io(Operation::Read, disk.path(), None))? else { return Ok(()) };
    let why = "is no raw disk either; convert the file that is inside, or give --format to image it as it is";
    let fault = ImportFault::Named { what: "content", name: inside.to_owned(), why };
    Err(ImageError::Import { path: disk.path().to_owned(), format: disk.format(), fault })
}

/// Whether it is a format that is imported.
pub(super) fn is_imported(disk: &RawDisk) -> io::Result<bool> {
    recognised(disk).map(|found| found.is_some())
}

/// Whether the disk has to be unpacked as a whole first.
pub(super) fn is_packed(disk: &RawDisk) -> io::Result<bool> {
    recognised(disk).map(|found| found.is_some_and(|format| Packer::of(format.called).is_some()))
}

/// What is asked for of a source, and where there is room for what opening it takes.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What the source is, whatever its content says: one of [`names`].
    pub format: Option<&'a str>,
    /// The snapshot inside it.
    pub snapshot: Option<&'a str>,
    /// A file with the partition table of the disk that a partclone image is a partition of.
    pub table: Option<&'a Path>,
    /// The number of that partition, where its size does not tell.
    pub partition: Option<u32>,
    /// Which disk of a folder with several: `sda` of one of Clonezilla, `1` of one of FOG.
    pub disk: Option<&'a str>,
    /// The folder for what has to be unpacked first.
    pub spool: &'a Path,
    /// Is told now and then how many bytes of a file were read before the image is begun, and of how many.
    pub preparing: &'a dyn Fn(u64, u64),
}

impl Asked<'_> {
    /// The disk as its content says; what has to be unpacked first lies in the folder `spool`.
    #[must_use]
    pub fn of(spool: &Path) -> Asked<'_> {
        Asked { format: None, snapshot: None, table: None, partition: None, disk: None, spool, preparing: &|_, _| {} }
    }
}

impl core::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Asked").field("format", &self.format).field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// Opens the disk at `path`: a device, a file of whatever format, or a folder of a program that saves disks.
///
/// # Errors
/// [`ImageError`] naming the file and what is wrong with it, or a format that is not imported.
pub fn open(path: &Path, asked: &Asked<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let Asked { format, snapshot, table, partition, disk, spool, preparing } = *asked;
    let chain = Vec::from_iter(path.canonicalize());
    let opening = Opening { snapshot, table, partition, disk, spool, chain, preparing };
    let is_folder = |name| folder::FORMATS.iter().any(|folder| folder.name == name);
    if path.is_dir() && format.is_none_or(is_folder) || format.is_some_and(is_folder) {
        return folder::open(path, format, &opening);
    }
    let one_disk = disk.is_none();
    let disk = RawDisk::open(path).map_err(ImageError::io(Operation::Open, path, None))?;
    let is_device = disk.is_device();
    let row = match asked.format {
        Some(name) => FORMATS.iter().find(|format| format.name == name),
        None if is_device => None,
        None => recognised(&disk).map_err(ImageError::io(Operation::Read, path, None))?,
    };
    if !one_disk {
        let fault = ImportFault::OneDisk;
        return Err(ImageError::Import { path: path.to_owned(), format: row.map_or(RAW, |row| row.called), fault });
    }
    if let Some(asked) = asked.snapshot.filter(|_| row.is_none_or(|format| format.name != "qcow2")) {
        let fault = ImportFault::NoSnapshot { asked: asked.to_owned(), has: Vec::new() };
        return Err(ImageError::Import { path: path.to_owned(), format: row.map_or(RAW, |row| row.called), fault });
    }
    if asked.table.is_some() && row.is_none_or(|format| format.called != partclone::NAME) {
        let fault = ImportFault::NoTable;
        return Err(ImageError::Import { path: path.to_owned(), format: row.map_or(RAW, |row| row.called), fault });
    }
    let disk: Box<dyn DiskSource> = match row {
        Some(row) => (row.open)(disk, &opening)?,
        None => {
            if asked.format.is_none() {
                let other = if is_device { on_device(&disk) } else { container::format_of(&disk, disk.bytes()) };
                if let Some(format) = other.map_err(ImageError::io(Operation::Read, path, None))? {
                    return Err(ImageError::Container { path: path.to_owned(), format });
                }
            }
            Box::new(disk)
        }
    };
    // What was unpacked was looked at, and an image of partclone is read from its front to its end only.
    if asked.format.is_none()
        && row.is_some_and(|row| Packer::of(row.called).is_none() && row.called != partclone::NAME)
    {
        is_no_container(&*disk)?;
    }
    // A map says what a raw image has to be, packed or not.
    let is_raw = row.is_none_or(|row| Packer::of(row.called).is_some());
    if asked.format.is_some() || is_device || !is_raw {
        return Ok(disk);
    }
    match bmap::beside(path, disk.bytes())? {
        Some(map) => MappedImage::open(disk, map, asked.preparing),
        None => Ok(disk),
    }
}

/// Opens the file at `path`, which is said to be of the format `name`; `None` if there is none of that name.
pub(super) fn open_as(
    path: &Path,
    name: &str,
    opening: &Opening<'_>,
) -> Option<Result<Box<dyn DiskSource>, ImageError>> {
    let row = FORMATS.iter().find(|format| format.name == name);
    if row.is_none() && name != RAW {
        return None;
    }
    Some(RawDisk::open(path).map_err(ImageError::io(Operation::Open, path, None)).and_then(|disk| match row {
        Some(row) => (row.open)(disk, opening),
        None => Ok(Box::new(disk) as Box<dyn DiskSource>),
    }))
}
