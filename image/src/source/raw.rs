//! A raw disk image in a file, or a block device: what the system says of its size, sector and holes.

use super::{DiskSource, ReadAt};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A raw disk image or a block device, open for reading.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    path: PathBuf,
    /// The sector of a device.
    sector: Option<u32>,
    opened_as: Stamp,
}

/// What tells that a file was written to: size, and seconds and nanoseconds of mtime and ctime. A device has its size alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: u64,
    times: Option<[i64; 4]>,
}

impl Stamp {
    pub(super) fn of(file: &File, device: bool) -> io::Result<Self> {
        if device {
            return Ok(Self { bytes: io::Seek::seek(&mut &*file, io::SeekFrom::End(0))?, times: None });
        }
        let metadata = file.metadata()?;
        let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        Ok(Self { bytes: metadata.len(), times: Some(times) })
    }

    /// What is different `now`.
    pub(super) fn changed(&self, now: Self) -> Option<&'static str> {
        match *self {
            then if then.bytes != now.bytes => Some("size"),
            then if then != now => Some("content"),
            _ => None,
        }
    }
}

impl RawDisk {
    /// Opens a regular file or a block device.
    ///
    /// # Errors
    /// The error of the system; [`io::ErrorKind::InvalidInput`] for anything that is neither file nor device.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Looked at before it is opened: opening a pipe waits for somebody at its other end.
        let metadata = std::fs::metadata(path)?;
        let device = metadata.file_type().is_block_device();
        if !device && !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
        }
        let file = File::open(path)?;
        let opened_as = Stamp::of(&file, device)?;
        let sector = if device { Some(device_sector(metadata.rdev())?) } else { None };
        Ok(Self { file, path: path.to_owned(), sector, opened_as })
    }

    /// A file that is open already, under the path that messages name it by.
    pub(super) fn adopt(file: File, path: PathBuf) -> io::Result<Self> {
        let opened_as = Stamp::of(&file, false)?;
        Ok(Self { file, path, sector: None, opened_as })
    }

    /// Whether this is a block device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.sector.is_some()
    }

    /// Whether this is a block device that something else uses: a mount, a mapping, swap. The kernel lets nobody else open
    /// such a device for itself alone (open(2), `O_EXCL`).
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let alone = || OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(&self.path);
        self.is_device() && alone().is_err_and(|error| error.raw_os_error() == Some(Errno::EBUSY as i32))
    }

    /// Whether this is a block device that takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        let read_only = |metadata: std::fs::Metadata| {
            let text = std::fs::read_to_string(sysfs(metadata.rdev()).join("ro")).unwrap_or_default();
            text.trim() == "1"
        };
        self.is_device() && self.file.metadata().is_ok_and(read_only)
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for RawDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl DiskSource for RawDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn bytes(&self) -> u64 {
        self.opened_as.bytes
    }

    /// The kernel's word for a device.
    fn sector(&self) -> Option<u32> {
        self.sector
    }

    /// Where the system knows no holes, everything is data.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let bytes = self.bytes();
        if from >= bytes {
            return Ok(None);
        }
        let seek = |at: u64, whence| lseek(&self.file, at.cast_signed(), whence);
        let start = match seek(from, Whence::SeekData) {
            Ok(start) => start.cast_unsigned().max(from),
            // Beyond the end of a file that has shrunk meanwhile there is no hole.
            Err(Errno::ENXIO) if Stamp::of(&self.file, self.is_device())?.bytes < bytes => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Err(Errno::ENXIO) => return Ok(None),
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some(from..bytes)),
            Err(error) => return Err(error.into()),
        };
        let end = seek(start, Whence::SeekHole)?.cast_unsigned();
        Ok((start < bytes).then(|| start..end.clamp(start + 1, bytes)))
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        Ok(self.opened_as.changed(Stamp::of(&self.file, self.is_device())?))
    }

    fn notes(&self) -> Vec<String> {
        let in_use = self.is_in_use().then(|| {
            let path = self.path.display();
            format!("{path} is in use: if it is written to meanwhile, the image mixes older and newer content")
        });
        Vec::from_iter(in_use)
    }
}

/// Whether two paths lead to one file, by whatever names and links.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// The file that the loop device at `path` shows, if it is one.
pub(crate) fn backing_file(path: &Path) -> Option<PathBuf> {
    let metadata = std::fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_block_device())?;
    let text = std::fs::read_to_string(sysfs(metadata.rdev()).join("loop/backing_file")).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

/// Whether the kernel shows partitions of the block device at `path`: neither of a partition, nor of a loop device
/// without `--partscan`.
pub(crate) fn has_partitions(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    let folder = sysfs(metadata.rdev());
    let scanned = std::fs::read_to_string(folder.join("loop/partscan")).is_ok_and(|text| text.trim() == "0");
    !folder.join("partition").exists() && !scanned
}

/// Whether a path that leads to nothing was meant to lead to a device: a file made there would fill the memory of the
/// system instead.
pub(crate) fn names_a_device(path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    folder.is_some_and(|folder| folder.starts_with("/dev") && !folder.starts_with("/dev/shm"))
}

/// What the kernel tells of the block device `device`.
fn sysfs(device: u64) -> PathBuf {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// The logical sector of the block device `device`; a partition has that of its disk.
fn device_sector(device: u64) -> io::Result<u32> {
    let folder = sysfs(device);
    let text = std::fs::read_to_string(folder.join("queue/logical_block_size"))
        .or_else(|_| std::fs::read_to_string(folder.join("../queue/logical_block_size")))?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "unreadable logical_block_size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_of_a_file_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        file.as_file().write_all_at(&[1; 4096], 4 << 20).unwrap();
        let source = RawDisk::open(file.path()).unwrap();
        assert_eq!((source.bytes(), source.sector(), source.is_device()), (16 << 20, None, false));
        let data = source.next_data(0).unwrap().unwrap();
        assert!(data.start <= 4 << 20 && data.end >= (4 << 20) + 4096);
        assert_eq!(source.next_data(16 << 20).unwrap(), None);
    }

    #[test]
    fn a_file_that_shrinks_or_is_written_to_has_changed_and_what_it_lost_is_no_hole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        let source = RawDisk::open(file.path()).unwrap();
        assert_eq!((source.change().unwrap(), source.next_data(0).unwrap()), (None, None));
        file.as_file().set_times(std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).unwrap();
        assert_eq!(source.change().unwrap(), Some("content"));
        file.as_file().set_len(8 << 20).unwrap();
        assert_eq!(source.change().unwrap(), Some("size"));
        assert_eq!(source.next_data(9 << 20).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_is_the_same_by_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let [file, copy, hard, soft] = ["file", "copy", "hard", "soft"].map(|name| dir.path().join(name));
        std::fs::write(&file, "x").unwrap();
        std::fs::copy(&file, &copy).unwrap();
        std::fs::hard_link(&file, &hard).unwrap();
        std::os::unix::fs::symlink(&file, &soft).unwrap();
        assert!(is_same_file(&file, &hard) && is_same_file(&soft, &hard));
        assert!(!is_same_file(&file, &copy) && !is_same_file(&file, &dir.path().join("none")));
    }

    #[test]
    fn a_name_among_the_devices_is_that_of_a_device() {
        assert!(names_a_device(Path::new("/dev/no-such-disk")));
        assert!(!names_a_device(Path::new("/dev/shm/disk.raw")) && !names_a_device(Path::new("/tmp/disk.raw")));
        assert!(!names_a_device(Path::new("disk.raw")) && !names_a_device(Path::new("/nowhere/disk.raw")));
    }

    #[test]
    fn what_is_neither_file_nor_device_is_no_source_and_nobody_waits_for_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [Path::new("/"), Path::new("/dev/null"), &pipe] {
            assert_eq!(RawDisk::open(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
    }
}
