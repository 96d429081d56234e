//! Writing out to a regular file.

use super::{Disk, ExportProgress, ExportReport, device, on_disk, to_len, write_blocks, write_pattern};
use crate::backup_table::BackupTable;
use crate::chain::Image;
use crate::error::{ImageError, Operation};
use crate::manifest::Content;
use crate::passing::PassingFile;
use crate::resolved::Resolved;
use crate::room;
use core::ops::Range;
use slidecast_proto::units::BlockNo;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What kind of file it is.
enum Opened {
    /// One that was there, emptied.
    Old(File),
    /// One that gets its name when the whole disk is in it.
    New(PassingFile),
}

impl Opened {
    fn file(&self) -> &File {
        match self {
            Self::Old(file) => file,
            Self::New(passing) => passing.file(),
        }
    }
}

impl Disk for Opened {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file().write_all_at(bytes, at)
    }

    fn fill(&self, pattern: u64, range: Range<u64>) -> io::Result<()> {
        // The file was empty before: zeros need no writing.
        if pattern == 0 { Ok(()) } else { write_pattern(self.file(), pattern, range) }
    }
}

/// Writes `image` to the file `to`.
pub(super) fn export(
    image: &Image,
    to: &Path,
    verify: bool,
    progress: impl Fn(ExportProgress),
) -> Result<ExportReport, ImageError> {
    let resolved = image.resolve()?;
    let landing = landing_bytes(&resolved);
    room::check(to, true, landing, landing)?;
    let mut file = open(to, resolved.header().disk_bytes)?;
    let written = write(&resolved, &file, to, verify, progress);
    let written = written.and_then(|report| match &mut file {
        Opened::New(passing) => passing.finish().map(|()| report),
        Opened::Old(_) => Ok(report),
    });
    if written.is_err() && matches!(file, Opened::Old(_)) {
        let _ = std::fs::remove_file(to);
    }
    written
}

/// The bytes that the file will hold: all but zeros and unused space, which are holes.
fn landing_bytes(resolved: &Resolved) -> u64 {
    let header = resolved.header();
    let lands = |block: &BlockNo| resolved.content(*block) != Content::Fill { pattern: 0 };
    let blocks = (0..header.blocks).map(BlockNo).filter(lands);
    let ranges = blocks.flat_map(|block| resolved.block_places(block)).map(|place| on_disk(header, place));
    ranges.map(|range| range.end - range.start).sum()
}

/// A file of that size with nothing in it.
fn open(path: &Path, bytes: u64) -> Result<Opened, ImageError> {
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
    Ok(file)
}

fn write(
    resolved: &Resolved,
    disk: &Opened,
    path: &Path,
    verify: bool,
    progress: impl Fn(ExportProgress),
) -> Result<ExportReport, ImageError> {
    let header = resolved.header();
    let (mut done_bytes, raw_bytes) = (0, header.raw_bytes * if verify { 2 } else { 1 });
    let mut count = |bytes| {
        done_bytes += bytes;
        progress(ExportProgress { done_bytes, raw_bytes });
    };
    write_blocks(resolved, disk, path, &mut count)?;
    if verify {
        disk.file().sync_all().map_err(ImageError::io(Operation::Flush, path, None))?;
        device::read_back(resolved, disk.file(), path, &[], &mut count)?;
    }
    let warning = fit_table(disk.file(), path, header.sector, header.disk_bytes)?;
    disk.file().sync_all().map_err(ImageError::io(Operation::Flush, path, None))?;
    Ok(ExportReport {
        root: resolved.root(),
        disk_bytes: header.disk_bytes,
        raw_bytes: header.raw_bytes,
        destination_bytes: header.disk_bytes,
        verified: verify,
        notes: warning.into_iter().collect(),
    })
}

/// Writes the backup GPT that the image leaves out.
fn fit_table(file: &File, path: &Path, sector: u32, bytes: u64) -> Result<Option<String>, ImageError> {
    let backup = BackupTable::of_disk(path, sector, bytes, |range| {
        let mut bytes = vec![0; to_len(range.end - range.start)];
        let done = file.read_exact_at(&mut bytes, range.start);
        done.map(|()| bytes).map_err(ImageError::io(Operation::Read, path, range.start))
    })?;
    if let Some((at, bytes)) = backup.at {
        file.write_all_at(&bytes, at).map_err(ImageError::io(Operation::Write, path, at))?;
    }
    Ok(backup.warning)
}
