//! Writing out to a block device, with the care of a deployment: nobody else has it, it is not bootable until everything
//! stands and was read back, and nothing of its past shows.
//!
//! Front and end of the device are kept in memory and written last, sector 0 at the very end. They are wiped first, as are all
//! places where an old signature could be found ([`signatures`]) and the image may say nothing.

use super::{Disk, ExportProgress, ExportReport, each_block, on_disk, part_of, to_len, write_blocks, write_pattern};
use crate::chain::Image;
use crate::error::{ImageError, Operation};
use crate::fit::{Geometry, HEAD_BYTES, fit, tail_area};
use crate::manifest::{Content, ManifestHeader};
use crate::resolved::Resolved;
use crate::signatures;
use crate::source::{DiskSource, RawDisk, has_partitions};
use core::ops::Range;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, PosixFadviseAdvice, fallocate, posix_fadvise};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// How much is read back at once.
const READ_BYTES: usize = 1 << 20;
/// What direct I/O wants memory to be aligned to.
const ALIGN: usize = 4096;

/// A block device that nobody else uses.
struct Device<'a> {
    file: File,
    path: &'a Path,
    bytes: u64,
    geometry: Geometry,
    head: Range<u64>,
    tail: Range<u64>,
    /// What will be in `head` and `tail`.
    shadow: Mutex<[Vec<u8>; 2]>,
}

/// Writes `image` to the block device `to`.
pub(super) fn export(
    image: &Image,
    to: &Path,
    verify: bool,
    progress: impl Fn(ExportProgress),
) -> Result<ExportReport, ImageError> {
    let resolved = image.resolve()?;
    let header = resolved.header();
    let device = Device::open(to, header)?;
    let (mut done_bytes, raw_bytes) = (0, header.raw_bytes * if verify { 2 } else { 1 });
    let mut count = |bytes| {
        done_bytes += bytes;
        progress(ExportProgress { done_bytes, raw_bytes });
    };
    device.wipe(image, header)?;
    write_blocks(&resolved, &device, to, &mut count)?;
    device.flush()?;
    if verify {
        let areas = [device.head.clone(), device.tail.clone()];
        read_back(&resolved, &device.file, to, &areas, &mut count)?;
    }
    let mut notes = Vec::from_iter(device.finish(header, verify)?);
    let bytes = device.bytes;
    drop(device);
    if has_partitions(to) && !reread_table(to) {
        notes.push(format!("the kernel has not read the partition table of {} again", to.display()));
    }
    Ok(ExportReport {
        root: resolved.root(),
        disk_bytes: header.disk_bytes,
        raw_bytes: header.raw_bytes,
        destination_bytes: bytes,
        verified: verify,
        notes,
    })
}

impl<'a> Device<'a> {
    fn open(path: &'a Path, header: &ManifestHeader) -> Result<Self, ImageError> {
        let open = |error| ImageError::io(Operation::Open, path, None)(error);
        let found = RawDisk::open(path).map_err(open)?;
        let (bytes, sector) = (found.bytes(), found.sector().unwrap_or(512));
        let refused = |what| ImageError::Destination { path: path.into(), bytes, sector, what };
        if sector != header.sector {
            return Err(refused("the image is of a disk with other sectors"));
        }
        let geometry = Geometry::new(sector, header.disk_bytes, bytes);
        let geometry = geometry.map_err(|_| refused("smaller than the disk of the image"))?;
        if found.is_read_only() {
            return Err(refused("it is read-only"));
        }
        let flags = OFlag::O_EXCL.bits();
        let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                return Err(refused("it is in use: mounted, or part of something"));
            }
            opened => opened.map_err(open)?,
        };
        let tail = tail_area(bytes, sector);
        let (head, tail) = match HEAD_BYTES.min(bytes) {
            head if !tail.is_empty() && head <= tail.start => (0..head, tail),
            // Where both would meet, all is head.
            _ => (0..bytes, bytes..bytes),
        };
        let shadow = [&head, &tail].map(|area| vec![0; to_len(area.end - area.start)]);
        Ok(Self { file, path, bytes, geometry, head, tail, shadow: Mutex::new(shadow) })
    }

    /// From now on the device neither boots nor shows what was on it.
    fn wipe(&self, image: &Image, header: &ManifestHeader) -> Result<(), ImageError> {
        let partitions = image.report()?.partitions;
        let mut places = vec![self.head.clone(), self.tail.clone()];
        if !self.geometry.is_own_size() {
            // The backup GPT of a smaller disk is none of the image's, nor is what lay there before.
            places.push(tail_area(header.disk_bytes, header.sector));
        }
        places.extend(signatures::places(0, self.bytes));
        places.extend(partitions.iter().flat_map(|found| signatures::places(found.start, found.bytes)));
        for range in signatures::joined(places) {
            // What stands in the report is only believed within the disk.
            let range = range.start.min(self.bytes)..range.end.min(self.bytes);
            if !range.is_empty() {
                let at = range.start;
                self.zero(range).map_err(ImageError::io(Operation::Write, self.path, at))?;
            }
        }
        self.flush()
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (at, len) = (range.start.cast_signed(), (range.end - range.start).cast_signed());
        if fallocate(&self.file, flags, at, len).is_ok() { Ok(()) } else { write_pattern(&self.file, 0, range) }
    }

    fn flush(&self) -> Result<(), ImageError> {
        self.file.sync_all().map_err(ImageError::io(Operation::Flush, self.path, None))
    }

    /// Calls `work` with each part of `range` and the shadow that it lies in, if it does.
    fn split(
        &self,
        range: &Range<u64>,
        mut work: impl FnMut(Range<u64>, Option<&mut [u8]>) -> io::Result<()>,
    ) -> io::Result<()> {
        for part in outside(range, &[self.head.clone(), self.tail.clone()]) {
            work(part, None)?;
        }
        let mut shadow = self.shadow.lock().unwrap_or_else(PoisonError::into_inner);
        for (area, bytes) in [&self.head, &self.tail].into_iter().zip(shadow.iter_mut()) {
            let part = range.start.max(area.start)..range.end.min(area.end);
            if part.start < part.end {
                let inside = to_len(part.start - area.start)..to_len(part.end - area.start);
                work(part, Some(&mut bytes[inside]))?;
            }
        }
        Ok(())
    }

    /// Fits the table, then writes end, front and sector 0. Gives what an operator should know of the table.
    fn finish(&self, header: &ManifestHeader, verify: bool) -> Result<Option<String>, ImageError> {
        let mut shadow = self.shadow.lock().unwrap_or_else(PoisonError::into_inner);
        let [head, tail] = &mut *shadow;
        let outcome = fit(head, tail, self.geometry);
        let sector = (header.sector as usize).min(head.len());
        let steps = [(self.tail.start, &tail[..]), (sector as u64, &head[sector..]), (0, &head[..sector])];
        for (no, (at, bytes)) in steps.into_iter().enumerate() {
            self.file.write_all_at(bytes, at).map_err(ImageError::io(Operation::Write, self.path, at))?;
            // The first two in any order, sector 0 when they stand.
            if no > 0 {
                self.flush()?;
            }
            if no == 1 && verify {
                self.prove(steps[0].0, steps[0].1)?;
            }
            if no > 0 && verify {
                self.prove(at, bytes)?;
            }
        }
        Ok(outcome.warning())
    }

    /// Reads a range back; it must be `bytes`.
    fn prove(&self, at: u64, bytes: &[u8]) -> Result<(), ImageError> {
        let mut reader = ReadBack::new(&self.file, self.path);
        reader.compare(at..at + bytes.len() as u64, |offset, found| found == &bytes[offset..offset + found.len()])
    }
}

impl Disk for Device<'_> {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.split(&(at..at + bytes.len() as u64), |part, shadow| {
            let bytes = &bytes[to_len(part.start - at)..to_len(part.end - at)];
            match shadow {
                Some(shadow) => shadow.copy_from_slice(bytes),
                None => self.file.write_all_at(bytes, part.start)?,
            }
            Ok(())
        })
    }

    fn fill(&self, pattern: u64, range: Range<u64>) -> io::Result<()> {
        // All areas begin at multiples of 8 bytes, so the pattern begins anew in each.
        self.split(&range, |part, shadow| match shadow {
            Some(shadow) => {
                for eight in shadow.chunks_mut(8) {
                    eight.copy_from_slice(&pattern.to_le_bytes()[..eight.len()]);
                }
                Ok(())
            }
            None if pattern == 0 => self.zero(part),
            None => write_pattern(&self.file, pattern, part),
        })
    }
}

/// The parts of `range` outside of `areas`, which are sorted.
fn outside(range: &Range<u64>, areas: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut at, mut out) = (range.start, Vec::new());
    for area in areas.iter().filter(|area| area.start < range.end && area.end > range.start) {
        out.extend((at < area.start).then_some(at..area.start));
        at = at.max(area.end);
    }
    out.extend((at < range.end).then_some(at..range.end));
    out
}

/// Reads everything that the image says back from `file`, but for what lies in `areas`, and compares.
pub(super) fn read_back(
    resolved: &Resolved,
    file: &File,
    path: &Path,
    areas: &[Range<u64>],
    done: impl FnMut(u64),
) -> Result<(), ImageError> {
    // What was written must come from the disk, not from memory. Where that cannot be, it is still compared.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    each_block(resolved, done, |block, raw| {
        let (header, mut reader) = (resolved.header(), ReadBack::new(file, path));
        for place in resolved.block_places(block) {
            let range = on_disk(header, place);
            for part in outside(&range, areas) {
                let from = to_len(part.start - range.start);
                match resolved.content(block) {
                    Content::Fill { pattern } => reader.compare(part, |_, found| {
                        found.chunks(8).all(|eight| *eight == pattern.to_le_bytes()[..eight.len()])
                    })?,
                    Content::Stored { .. } => {
                        let right = &part_of(raw, header, place, &range)[from..];
                        reader.compare(part, |at, found| found == &right[at..at + found.len()])?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// Reads pieces past the page cache where that works.
struct ReadBack<'a> {
    file: &'a File,
    direct: Option<File>,
    path: &'a Path,
    buffer: Vec<u8>,
}

impl<'a> ReadBack<'a> {
    fn new(file: &'a File, path: &'a Path) -> Self {
        let direct = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(path);
        // A file that has no name yet cannot be opened again.
        let direct = direct.ok().filter(|_| is_device(file));
        Self { file, direct, path, buffer: vec![0; READ_BYTES + ALIGN] }
    }

    /// Reads `range`; `right` is asked for each piece, with where in the range it begins.
    fn compare(&mut self, range: Range<u64>, right: impl Fn(usize, &[u8]) -> bool) -> Result<(), ImageError> {
        let skip = self.buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
        let mut at = range.start;
        while at < range.end {
            let len = READ_BYTES.min(to_len(range.end - at));
            let piece = &mut self.buffer[skip..skip + len];
            let read = match &self.direct {
                Some(direct) => direct.read_exact_at(piece, at).or_else(|_| self.file.read_exact_at(piece, at)),
                None => self.file.read_exact_at(piece, at),
            };
            read.map_err(ImageError::io(Operation::Read, self.path, at))?;
            if !right(to_len(at - range.start), piece) {
                return Err(ImageError::ReadBack { path: self.path.into(), offset: at });
            }
            at += len as u64;
        }
        Ok(())
    }
}

fn is_device(file: &File) -> bool {
    use std::os::unix::fs::FileTypeExt;
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Lets the kernel read the partition table of a whole disk again, by a program of util-linux: the call itself is not to be
/// had without unsafe code.
fn reread_table(path: &Path) -> bool {
    let done = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--rereadpt").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    ["/usr/sbin/blockdev", "/sbin/blockdev", "blockdev"].into_iter().any(done)
}
