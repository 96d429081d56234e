//! The target: one disk (or regular file), opened so that nobody else writes it, and the system calls on it.
//!
//! A block device is opened with `O_EXCL`, which the kernel refuses while it is mounted, swapped on or part of something
//! (open(2)); a regular file is locked. Direct I/O is used where it works, found out by trying it.

use crate::inventory::{self, Roots};
use crate::sys::{AlignedBuf, blkdev};
use core::fmt;
use nix::errno::Errno;
use nix::fcntl::{
    FallocateFlags, FcntlArg, Flock, FlockArg, OFlag, PosixFadviseAdvice, fallocate, fcntl, posix_fadvise,
};
use nix::sys::uio::pwritev;
use slidecast_net::text::os_error_text;
use slidecast_proto::control::Disk;
use slidecast_proto::reason::Reason;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What the disk engine knows of its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetFacts {
    /// The device node or file.
    pub(crate) path: String,
    /// Its size in bytes, a multiple of the sector.
    pub(crate) bytes: u64,
    /// The logical sector in bytes; for a regular file the image's.
    pub(crate) sector: u32,
    /// It has heads that move.
    pub(crate) rotational: bool,
    /// Reads and writes go past the page cache.
    pub(crate) direct: bool,
    /// It is a regular file.
    pub(crate) file: bool,
}

/// What the disk engine does to a target. The real one is [`OpenTarget`]; tests record and break it.
///
/// Offsets and lengths are multiples of the sector, memory is aligned to 4,096 bytes.
pub(crate) trait TargetIo: Send + Sync {
    /// What is known of it.
    fn facts(&self) -> &TargetFacts;
    /// The size it has now.
    fn bytes_now(&self) -> io::Result<u64>;
    /// Writes all of `pieces` in a row. The slices are used up.
    fn write(&self, offset: u64, pieces: &mut [IoSlice<'_>]) -> io::Result<()>;
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Makes everything written so far survive a power cut.
    fn flush(&self) -> io::Result<()>;
    /// Makes a range read as zeros without writing them from here; `false` if the target has no such call.
    fn zero(&self, offset: u64, len: u64) -> io::Result<bool>;
    /// Says that the content of a range does not matter; `false` if the target has no such call.
    fn discard(&self, offset: u64, len: u64) -> io::Result<bool>;
    /// Without direct I/O: drops what the page cache holds, so that the next read comes from the disk.
    fn drop_cache(&self);
    /// Makes the kernel read the partition table again.
    fn reread_table(&self) -> io::Result<()>;
}

/// Why a target was not opened.
#[derive(Debug)]
pub(crate) struct TargetError {
    /// The device node or file.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) fault: TargetFault,
}

/// What is wrong with a target.
#[derive(Debug)]
pub(crate) enum TargetFault {
    /// There is nothing under that name (any more).
    Missing,
    /// It is neither a block device nor a regular file.
    NotADisk,
    /// Something else has it: a mount, a mapping, another agent.
    Busy,
    /// It refuses writes.
    ReadOnly,
    /// The image needs a disk with other sectors.
    Sector {
        /// What the target has, in bytes.
        has: u32,
        /// What the image needs, in bytes.
        needs: u32,
    },
    /// The node of that name is the node of another device.
    Another {
        /// The path.
        is: PathBuf,
    },
    /// It is smaller than the image's disk.
    Small {
        /// Bytes of the target.
        has: u64,
        /// Bytes of the image's disk.
        needs: u64,
    },
    /// It is not the disk that was chosen: the size is another.
    Changed {
        /// Bytes when the disks were listed.
        listed: u64,
        /// The size now, in bytes.
        has: u64,
    },
    /// Opening it, or asking for its size, failed.
    Open(io::Error),
}

impl TargetFault {
    /// The reason of the report.
    #[must_use]
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::Missing | Self::NotADisk | Self::Another { .. } | Self::Changed { .. } => Reason::TargetNotFound,
            Self::Busy => Reason::TargetHeld,
            Self::ReadOnly => Reason::TargetReadOnly,
            Self::Sector { .. } => Reason::TargetSectorSize,
            Self::Small { .. } => Reason::TargetTooSmall,
            Self::Open(_) => Reason::DiskOpen,
        }
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.fault {
            TargetFault::Missing => write!(f, "opening {path}: there is no such disk"),
            TargetFault::NotADisk => write!(f, "opening {path}: neither a block device nor a regular file"),
            TargetFault::Another { is } => {
                write!(
                    f,
                    "opening {path}: its device numbers are those of {}; the node is not the disk of that name",
                    is.display()
                )
            }
            TargetFault::Busy => write!(f, "opening {path}: something else uses it"),
            TargetFault::ReadOnly => write!(f, "opening {path}: it is read-only"),
            TargetFault::Sector { has, needs } => {
                write!(f, "{path} has sectors of {has} bytes, the image needs {needs}")
            }
            TargetFault::Small { has, needs } => write!(f, "{path} has {has} bytes, the image needs {needs}"),
            TargetFault::Changed { listed, has } => {
                write!(f, "{path} has {has} bytes, but had {listed} when it was chosen")
            }
            TargetFault::Open(source) => write!(f, "opening {path}: {}", os_error_text(source)),
        }
    }
}

impl core::error::Error for TargetError {}

/// A target that is ours alone.
#[derive(Debug)]
pub(crate) struct OpenTarget {
    file: File,
    block_device: bool,
    facts: TargetFacts,
    /// Writers of a regular file take turns: the file system lets only one of them in and makes the others spin.
    turn: Mutex<()>,
    /// Held until the target is closed: keeps other agents off a file, and udev from looking at a device meanwhile.
    _lock: Option<Flock<File>>,
}

impl OpenTarget {
    /// Opens the chosen disk for an image of `disk_bytes` bytes and sectors of `sector` bytes. Writes nothing.
    ///
    /// # Errors
    /// [`TargetError`] when the disk is not (or no longer) fit to be written, with the reason.
    pub(crate) fn open(disk: &Disk, disk_bytes: u64, sector: u32) -> Result<Self, TargetError> {
        Self::try_open(disk, disk_bytes, sector).map_err(|fault| TargetError { path: disk.path.clone(), fault })
    }

    fn try_open(disk: &Disk, disk_bytes: u64, sector: u32) -> Result<Self, TargetFault> {
        let path = PathBuf::from(&disk.path);
        let open_fault = |error| open_fault(error, disk.read_only);
        let kind = std::fs::metadata(&path).map_err(open_fault)?.file_type();
        let block_device = kind.is_block_device();
        if !block_device && !kind.is_file() {
            return Err(TargetFault::NotADisk);
        }
        let exclusive = if block_device { OFlag::O_EXCL } else { OFlag::empty() };
        let open = |flags: OFlag| OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(&path);
        let direct = open(exclusive | OFlag::O_DIRECT);
        let mut target = match direct {
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                Self::new(open(exclusive).map_err(open_fault)?, disk, block_device, false)?
            }
            other => Self::new(other.map_err(open_fault)?, disk, block_device, true)?,
        };
        if !block_device {
            // A file takes any image; what it must not do is force sectors on direct I/O that the image does not have.
            target.facts.sector = sector;
            target.facts.bytes -= target.facts.bytes % u64::from(sector.max(1));
        }
        let facts = &target.facts;
        if facts.sector != sector {
            return Err(TargetFault::Sector { has: facts.sector, needs: sector });
        }
        if facts.bytes < disk_bytes {
            return Err(TargetFault::Small { has: facts.bytes, needs: disk_bytes });
        }
        target.try_direct()?;
        Ok(target)
    }

    fn new(file: File, disk: &Disk, block_device: bool, direct: bool) -> Result<Self, TargetFault> {
        let meta = file.metadata().map_err(TargetFault::Open)?;
        // The disk was chosen by what the kernel says of that name; the node could be anything.
        let numbers = inventory::kernel_numbers(&meta);
        let is = numbers.and_then(|numbers| inventory::device_path(&Roots::default(), &numbers));
        if let Some(is) = is.filter(|is| *is != Path::new(&disk.path)) {
            return Err(TargetFault::Another { is });
        }
        let bytes = size(&file, block_device).map_err(TargetFault::Open)?;
        if bytes != disk.bytes {
            return Err(TargetFault::Changed { listed: disk.bytes, has: bytes });
        }
        let os = |errno: Errno| TargetFault::Open(errno.into());
        let sector = if block_device { blkdev::sector(&file).map_err(os)? } else { disk.logical_sector };
        if block_device && blkdev::read_only(&file).map_err(os)? {
            return Err(TargetFault::ReadOnly);
        }
        // The lock belongs to the open file, which the clone shares. On a device it only asks udev to wait; O_EXCL does the rest.
        let lock = file.try_clone().map_err(TargetFault::Open)?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Some(lock),
            Err((_, Errno::EWOULDBLOCK)) if !block_device => return Err(TargetFault::Busy),
            Err(_) => None,
        };
        let facts = TargetFacts {
            path: disk.path.clone(),
            bytes,
            sector,
            rotational: disk.rotational,
            direct,
            file: !block_device,
        };
        Ok(Self { file, block_device, facts, turn: Mutex::new(()), _lock: lock })
    }

    /// Direct I/O must work in units of one sector, or it is switched off: some file systems want larger ones.
    fn try_direct(&mut self) -> Result<(), TargetFault> {
        let short = |_| TargetFault::Open(io::Error::from(io::ErrorKind::OutOfMemory));
        let mut buffer = AlignedBuf::new(self.facts.sector as usize).map_err(short)?;
        match self.file.read_at(&mut buffer, 0) {
            Err(error) if self.facts.direct && error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                fcntl(&self.file, FcntlArg::F_SETFL(OFlag::empty()))
                    .map_err(|errno| TargetFault::Open(errno.into()))?;
                self.facts.direct = false;
                Ok(())
            }
            Err(error) => Err(TargetFault::Open(error)),
            Ok(_) => Ok(()),
        }
    }

    /// What is known of the target.
    #[must_use]
    pub(crate) const fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    fn answer(&self, result: nix::Result<()>) -> io::Result<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS | Errno::EINVAL) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn punch(&self, offset: u64, len: u64, mode: FallocateFlags) -> nix::Result<()> {
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, mode, offset.cast_signed(), len.cast_signed())
    }
}

impl TargetIo for OpenTarget {
    fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    fn bytes_now(&self) -> io::Result<u64> {
        let bytes = size(&self.file, self.block_device)?;
        Ok(bytes - bytes % u64::from(self.facts.sector.max(1)))
    }

    fn write(&self, mut offset: u64, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        let _turn = (!self.block_device).then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        while !pieces.is_empty() {
            let written = match pwritev(&self.file, pieces, offset.cast_signed()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            offset += written as u64;
            IoSlice::advance_slices(&mut pieces, written);
        }
        Ok(())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<bool> {
        if self.block_device {
            return self.answer(blkdev::zero_out(&self.file, offset, len));
        }
        // A hole reads as zeros by definition and takes no space; where there are no holes, unwritten space does the same.
        Ok(self.answer(self.punch(offset, len, FallocateFlags::FALLOC_FL_PUNCH_HOLE))?
            || self.answer(self.punch(offset, len, FallocateFlags::FALLOC_FL_ZERO_RANGE))?)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<bool> {
        if self.block_device {
            self.answer(blkdev::discard(&self.file, offset, len))
        } else {
            self.answer(self.punch(offset, len, FallocateFlags::FALLOC_FL_PUNCH_HOLE))
        }
    }

    fn drop_cache(&self) {
        if !self.facts.direct {
            // Advice: if it is not followed, the report still only says "cached".
            let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    fn reread_table(&self) -> io::Result<()> {
        if self.block_device { Ok(blkdev::reread_table(&self.file)?) } else { Ok(()) }
    }
}

fn size(file: &File, block_device: bool) -> io::Result<u64> {
    if block_device { Ok(blkdev::size(file)?) } else { Ok(file.metadata()?.len()) }
}

fn open_fault(error: io::Error, read_only: bool) -> TargetFault {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV | Errno::ENOMEDIUM) => TargetFault::Missing,
        Some(Errno::EBUSY) => TargetFault::Busy,
        Some(Errno::EROFS) => TargetFault::ReadOnly,
        // What the kernel says to writing a read-only device; without that flag it is about permissions.
        Some(Errno::EACCES) if read_only => TargetFault::ReadOnly,
        _ => TargetFault::Open(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slidecast_proto::control::Held;
    use tempfile::TempDir;

    fn file(dir: &TempDir, bytes: u64) -> PathBuf {
        let path = dir.path().join("disk.img");
        File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    fn listed(path: &Path, bytes: u64) -> Disk {
        Disk {
            path: path.to_str().unwrap().to_owned(),
            model: String::new(),
            serial: String::new(),
            wwn: String::new(),
            transport: "file".into(),
            bytes,
            logical_sector: 512,
            physical_sector: 512,
            rotational: false,
            removable: false,
            read_only: false,
            held: Held::No,
            file: true,
            other_paths: Vec::new(),
        }
    }

    fn refusal(disk: &Disk, bytes: u64) -> Reason {
        OpenTarget::open(disk, bytes, 512).unwrap_err().fault.reason()
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, 1 << 20);
        let target = OpenTarget::open(&listed(&path, 1 << 20), 1 << 20, 4096).unwrap();
        assert_eq!(target.bytes_now().unwrap(), 1 << 20);
        let mut buffer = AlignedBuf::new(8192).unwrap();
        buffer.fill(7);
        let (first, second) = buffer.split_at(4096);
        target.write(4096, &mut [IoSlice::new(second), IoSlice::new(first)]).unwrap();
        target.flush().unwrap();
        target.drop_cache();
        let mut back = AlignedBuf::new(16384).unwrap();
        target.read(0, &mut back).unwrap();
        assert!(back.iter().enumerate().all(|(at, &byte)| (byte == 7) == (4096..12288).contains(&at)));
        if target.zero(8192, 4096).unwrap() {
            target.read(0, &mut back).unwrap();
            assert!(back.iter().enumerate().all(|(at, &byte)| (byte == 7) == (4096..8192).contains(&at)));
        }
        assert!(target.read(1 << 20, &mut back).is_err());
    }

    #[test]
    fn a_target_is_opened_by_one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let disk = listed(&file(&dir, 4096), 4096);
        let first = OpenTarget::open(&disk, 4096, 512).unwrap();
        assert_eq!(refusal(&disk, 4096), Reason::TargetHeld);
        drop(first);
        OpenTarget::open(&disk, 4096, 512).unwrap();
    }

    #[test]
    fn a_target_that_is_one_sector_short_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = listed(&file(&dir, 8192), 8192);
        assert_eq!(refusal(&disk, 8704), Reason::TargetTooSmall);
        assert_eq!(refusal(&disk, 8192 + 1), Reason::TargetTooSmall);
        OpenTarget::open(&disk, 8192, 512).unwrap();
    }

    #[test]
    fn a_target_that_changed_since_it_was_listed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, 8192);
        assert_eq!(refusal(&listed(&path, 4096), 4096), Reason::TargetNotFound);
        assert_eq!(refusal(&listed(&dir.path().join("missing"), 4096), 4096), Reason::TargetNotFound);
        assert_eq!(refusal(&listed(dir.path(), 4096), 4096), Reason::TargetNotFound);
    }

    #[test]
    fn a_file_counts_in_whole_sectors() {
        let dir = tempfile::tempdir().unwrap();
        let disk = listed(&file(&dir, 10_000), 10_000);
        let target = OpenTarget::open(&disk, 8192, 4096).unwrap();
        assert_eq!((target.facts().bytes, target.facts().sector), (8192, 4096));
    }

    #[test]
    fn errors_say_which_disk_and_what_is_wrong() {
        let error = TargetError { path: "/dev/sdx".into(), fault: TargetFault::Small { has: 512, needs: 1024 } };
        assert_eq!(error.to_string(), "/dev/sdx has 512 bytes, the image needs 1024");
        let fault = TargetFault::Open(io::Error::from_raw_os_error(Errno::EIO as i32));
        let error = TargetError { path: "/dev/sdx".into(), fault };
        assert_eq!(error.to_string(), "opening /dev/sdx: Input/output error");
    }
}
