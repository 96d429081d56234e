//! Writing an image out as a raw disk: to a file, sparse, or to a block device.

use crate::chain::Image;
use crate::error::{ImageError, Operation};
use crate::fit::{HEAD_BYTES, backup_area, fit};
use crate::manifest::{Content, ManifestHeader, Place};
use crate::passing::PassingFile;
use crate::resolved::{BlockReader, Resolved};
use crate::source::{Source, names_a_device, same_file};
use crate::work::{Steps, in_parallel};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use slidecast_proto::units::{BlockNo, Hash};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The most bytes of a fill that are written at once.
const FILL_BYTES: usize = 1 << 20;

/// How far writing out has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportProgress {
    /// Bytes of the disk written, fills included.
    pub done_bytes: u64,
    /// Bytes of all places.
    pub raw_bytes: u64,
}

/// What was written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportReport {
    /// The manifest root of the image.
    pub root: Hash,
    /// The size of the disk in bytes.
    pub disk_bytes: u64,
    /// Bytes of all places, fills included.
    pub raw_bytes: u64,
    /// The size of the destination in bytes.
    pub destination_bytes: u64,
}

/// Where a disk is written out to.
struct Destination<'a> {
    file: Opened,
    path: &'a Path,
    bytes: u64,
}

/// What kind of destination it is.
enum Opened {
    Device(File),
    /// A file that was there, emptied.
    Old(File),
    /// A file that gets its name when the whole disk is in it.
    New(PassingFile),
}

impl Opened {
    fn file(&self) -> &File {
        match self {
            Self::Device(file) | Self::Old(file) => file,
            Self::New(passing) => passing.file(),
        }
    }
}

/// Writes the disk of the image at `path` to `to`: a file of its size, in which zeros and unused space are holes and of
/// whose old content nothing is left, or a block device that is not in use. A GPT is fitted to the size of the
/// destination. Everything is flushed in the end.
///
/// A new file appears when it is complete; one that was there before is emptied and removed if it could not be completed.
///
/// # Errors
/// [`ImageError`] saying what could not be read or written.
pub fn export(path: &Path, to: &Path, progress: impl Fn(ExportProgress)) -> Result<ExportReport, ImageError> {
    let image = Image::open(path)?;
    if image.layers().any(|layer| same_file(&layer.path, to)) {
        return Err(ImageError::Output { path: to.into(), what: "it is a layer of the image" });
    }
    let resolved = image.resolve()?;
    let mut destination = Destination::open(to, resolved.header())?;
    let written = destination.write(&resolved, progress);
    let written = written.and_then(|report| match &mut destination.file {
        Opened::New(passing) => passing.finish().map(|()| report),
        Opened::Device(_) | Opened::Old(_) => Ok(report),
    });
    if written.is_err() && matches!(destination.file, Opened::Old(_)) {
        let _ = std::fs::remove_file(to);
    }
    written
}

impl<'a> Destination<'a> {
    fn open(path: &'a Path, header: &ManifestHeader) -> Result<Self, ImageError> {
        let open = |error| ImageError::io(Operation::Open, path, None)(error);
        match std::fs::metadata(path).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_block_device() => {}
            Ok(kind) if !kind.is_file() => {
                return Err(ImageError::Output { path: path.into(), what: "it is neither a file nor a block device" });
            }
            Err(_) if names_a_device(path) => {
                return Err(ImageError::Output { path: path.into(), what: "there is no such device" });
            }
            _ => return Self::make_file(path, header.disk_bytes),
        }
        let found = Source::open(path).map_err(open)?;
        let (bytes, sector) = (found.bytes(), found.sector());
        let refused = |what| ImageError::Destination { path: path.into(), bytes, sector, what };
        if sector != header.sector {
            return Err(refused("the image is of a disk with other sectors"));
        }
        if bytes < header.disk_bytes {
            return Err(refused("smaller than the disk of the image"));
        }
        if found.is_read_only() {
            return Err(refused("it is read-only"));
        }
        let flags = OFlag::O_EXCL.bits();
        match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                Err(refused("it is in use: mounted, or part of something"))
            }
            opened => Ok(Self { file: Opened::Device(opened.map_err(open)?), path, bytes }),
        }
    }

    /// A file of that size with nothing in it.
    fn make_file(path: &'a Path, bytes: u64) -> Result<Self, ImageError> {
        let old = OpenOptions::new().read(true).write(true).truncate(true).open(path);
        let file = match old {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Opened::New(PassingFile::begin(path)?),
            old => Opened::Old(old.map_err(ImageError::io(Operation::Open, path, None))?),
        };
        file.file().set_len(bytes).map_err(|error| {
            if let Opened::Old(_) = file {
                let _ = std::fs::remove_file(path);
            }
            ImageError::io(Operation::Create, path, None)(error)
        })?;
        Ok(Self { file, path, bytes })
    }

    fn file(&self) -> &File {
        self.file.file()
    }

    fn write(&self, resolved: &Resolved, progress: impl Fn(ExportProgress)) -> Result<ExportReport, ImageError> {
        let header = resolved.header();
        let mut done_bytes = 0;
        in_parallel(
            Steps { count: header.blocks as usize },
            BlockReader::default,
            |reader, at| self.write_block(resolved, BlockNo(u32::try_from(at).unwrap_or(u32::MAX)), reader),
            |bytes| {
                done_bytes += bytes;
                progress(ExportProgress { done_bytes, raw_bytes: header.raw_bytes });
            },
        )?;
        self.fit_table(header)?;
        self.file().sync_all().map_err(ImageError::io(Operation::Flush, self.path, None))?;
        Ok(ExportReport {
            root: resolved.root(),
            disk_bytes: header.disk_bytes,
            raw_bytes: header.raw_bytes,
            destination_bytes: self.bytes,
        })
    }

    fn write_block(&self, resolved: &Resolved, block: BlockNo, reader: &mut BlockReader) -> Result<u64, ImageError> {
        let header = resolved.header();
        let raw = resolved.unpack(block, reader)?;
        let fill = match resolved.content(block) {
            Content::Fill { pattern } => Some(pattern),
            Content::Stored { .. } => None,
        };
        let mut sum = 0;
        for place in resolved.block_places(block) {
            let (at, len) = on_disk(header, place);
            let source = place.source as usize * header.grain as usize;
            let written = match fill {
                Some(pattern) => self.fill(pattern, at, len),
                None => self.file().write_all_at(&raw[source..source + usize::try_from(len).unwrap_or(0)], at),
            };
            written.map_err(ImageError::io(Operation::Write, self.path, at))?;
            sum += len;
        }
        Ok(sum)
    }

    fn fill(&self, pattern: u64, at: u64, len: u64) -> io::Result<()> {
        if pattern == 0 {
            let flags = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // A file was empty before: zeros need no writing.
            let blank = !matches!(self.file, Opened::Device(_));
            if blank || fallocate(self.file(), flags, at.cast_signed(), len.cast_signed()).is_ok() {
                return Ok(());
            }
        }
        let piece = usize::try_from(len).unwrap_or(FILL_BYTES).min(FILL_BYTES);
        let bytes = pattern.to_le_bytes().repeat(piece.div_ceil(8));
        let mut done = 0;
        while done < len {
            let step = (len - done).min(piece as u64);
            self.file().write_all_at(&bytes[..usize::try_from(step).unwrap_or(0)], at + done)?;
            done += step;
        }
        Ok(())
    }

    /// Fits a GPT to the size of the destination.
    fn fit_table(&self, header: &ManifestHeader) -> Result<(), ImageError> {
        let mut head = vec![0; usize::try_from(HEAD_BYTES.min(header.disk_bytes)).unwrap_or(0)];
        self.file().read_exact_at(&mut head, 0).map_err(ImageError::io(Operation::Read, self.path, 0))?;
        let fitted = fit(&mut head, header.sector, self.bytes)
            .map_err(|error| ImageError::Table { path: self.path.into(), error })?;
        let Some(backup) = fitted else { return Ok(()) };
        let at = backup_area(self.bytes, header.sector).start;
        let written = self.file().write_all_at(&backup, at).and_then(|()| self.file().write_all_at(&head, 0));
        written.map_err(ImageError::io(Operation::Write, self.path, at))
    }
}

/// Where a place is on the disk and how long it is there, in bytes: the last grain may be short.
fn on_disk(header: &ManifestHeader, place: Place) -> (u64, u64) {
    let grain = u64::from(header.grain);
    let at = place.target * grain;
    (at, (u64::from(place.grains) * grain).min(header.disk_bytes - at))
}
