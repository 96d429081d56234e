//! A disk put together out of a partition table and files with one partition each, which are read from the front to the end only.
//!
//! `image create` reads a disk in this order too, so each file is read once, one after the other, and nothing of it is kept. What a file holds of
//! its partition is known before: that is used, and the rest of the partition is not. A place that was passed is read
//! by beginning the file anew: right, and slow.
//!
//! Memory: what unpacks one file.

use super::pieces::Pieces;
use super::{Content, DiskSource, ImportFault, ReadAt};
use crate::error::ImageError;
use crate::signatures::joined;
use crate::used::Unused;
use core::fmt::Debug;
use core::ops::Range;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file with one partition.
pub(super) trait Volume: Debug + Send + Sync {
    /// The bytes that it holds, as places of the partition: sorted and apart.
    fn used(&self) -> &[Range<u64>];

    /// The file.
    fn pieces(&self) -> &Pieces;

    /// What the file is, as messages call it.
    fn format(&self) -> &'static str;

    /// Begins to read.
    fn forward(&self) -> Result<Box<dyn Forward>, ImportFault>;
}

/// A volume that is being read.
pub(super) trait Forward: Send {
    /// The lowest place that can still be read.
    fn at(&self) -> u64;

    /// Fills `bytes` from `at`, all of which is used, and not below [`at`](Self::at).
    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<(), ImportFault>;
}

/// Some of the disk.
#[derive(Debug)]
enum Part {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A partition, or as much of it as the volume has.
    Volume(Box<dyn Volume>),
}

/// The disk.
pub(super) struct PartedDisk {
    path: PathBuf,
    format: &'static str,
    bytes: u64,
    sector: u32,
    /// With the place of each, sorted and apart.
    parts: Vec<(Range<u64>, Part)>,
    contents: Vec<Content>,
    unused: Vec<Range<u64>>,
    /// Where nothing is to be left of what was there before.
    blank: Vec<Range<u64>>,
    /// The first place that two parts were put to.
    taken_twice: Option<u64>,
    /// Files besides those of the volumes.
    files: Pieces,
    pub(super) notes: Vec<String>,
    /// The volume that is being read, by its place in `parts`.
    open: Mutex<Option<(usize, Box<dyn Forward>)>>,
}

impl Debug for PartedDisk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PartedDisk").field("path", &self.path).field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl PartedDisk {
    /// A disk of `bytes` bytes without anything on it. `files` are those that say what is on it.
    pub(super) fn new(path: &Path, format: &'static str, (bytes, sector): (u64, u32), files: Pieces) -> Self {
        Self {
            path: path.to_owned(),
            format,
            bytes,
            sector,
            parts: Vec::new(),
            contents: Vec::new(),
            unused: Vec::new(),
            blank: Vec::new(),
            taken_twice: None,
            files,
            notes: Vec::new(),
            open: Mutex::default(),
        }
    }

    /// Puts bytes somewhere. What lies outside the disk is left out.
    pub(super) fn put(&mut self, at: u64, mut bytes: Vec<u8>) {
        bytes.truncate(usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX));
        self.insert(at, bytes.len() as u64, Part::Bytes(bytes));
    }

    /// Puts a volume into the partition `place` with the content `what`, which the caller has found to fit.
    pub(super) fn put_volume(&mut self, place: Range<u64>, what: &str, volume: Box<dyn Volume>) {
        self.put_inner_volume(place.start, volume);
        self.describe(place, what);
    }

    /// Puts a volume somewhere inside a partition that is described otherwise.
    pub(super) fn put_inner_volume(&mut self, at: u64, volume: Box<dyn Volume>) {
        let end = volume.used().last().map_or(0, |run| run.end);
        self.insert(at, end, Part::Volume(volume));
    }

    /// Says that what is unused of `range` has to become zeros.
    pub(super) fn blank(&mut self, range: Range<u64>) {
        self.blank.push(range);
    }

    /// Says that what lies in the partition `place` is known, and that all that is not put there is unused.
    pub(super) fn describe(&mut self, place: Range<u64>, what: &str) {
        self.contents.push(Content { range: place, what: what.to_owned() });
    }

    fn insert(&mut self, at: u64, bytes: u64, part: Part) {
        let index = self.parts.partition_point(|(range, _)| range.start < at);
        let end = at.saturating_add(bytes);
        let apart = self.parts.get(index).is_none_or(|(next, _)| next.start >= end)
            && index.checked_sub(1).is_none_or(|before| self.parts[before].0.end <= at);
        if bytes == 0 {
            return;
        }
        if apart {
            self.parts.insert(index, (at..end, part));
        } else {
            self.taken_twice.get_or_insert(at);
        }
    }

    /// The disk, when everything is there. It is refused if two things were put to one place: one of them would be lost.
    pub(super) fn complete(mut self) -> Result<Box<dyn DiskSource>, ImageError> {
        if let Some(offset) = self.taken_twice {
            let fault = ImportFault::Damaged { what: "partition table, by which two things lie in one place,", offset };
            return Err(ImageError::Import { path: self.path, format: self.format, fault });
        }
        // Of very many ranges the shorter ones are forgotten: these are zeros then.
        let mut unused = Unused::default();
        let mut at = 0;
        for (place, part) in &self.parts {
            let mut used = |range: Range<u64>| {
                unused.push(at..range.start.max(at));
                at = at.max(range.end);
            };
            match part {
                Part::Bytes(_) => used(place.clone()),
                Part::Volume(volume) => {
                    volume.used().iter().for_each(|run| used(place.start + run.start..place.start + run.end));
                }
            }
        }
        unused.push(at..self.bytes.max(at));
        self.unused = without(&unused.into_ranges(), &joined(core::mem::take(&mut self.blank)));
        self.contents.sort_by_key(|content| content.range.start);
        Ok(Box::new(self))
    }

    /// The parts that end behind `from`, with their numbers.
    fn behind(&self, from: u64) -> impl Iterator<Item = (usize, &Range<u64>, &Part)> {
        let first = self.parts.partition_point(|(place, _)| place.end <= from);
        (first..).zip(&self.parts[first..]).map(|(index, (place, part))| (index, place, part))
    }

    /// Reads used bytes of the volume `index`.
    fn read_volume(&self, index: usize, volume: &dyn Volume, at: u64, bytes: &mut [u8]) -> Result<(), ImportFault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not gone on with is closed before something else is opened.
        let begun = open.take().filter(|(which, forward)| *which == index && forward.at() <= at);
        let mut forward = match begun {
            Some((_, forward)) => forward,
            None => volume.forward()?,
        };
        forward.read(at, bytes)?;
        *open = Some((index, forward));
        Ok(())
    }
}

/// What of `ranges` is in none of `others`; both sorted and apart.
fn without(ranges: &[Range<u64>], others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut at = range.start;
        for other in within(others, range.clone()) {
            left.push(at..other.start);
            at = other.end;
        }
        left.push(at..range.end);
    }
    left.retain(|range| !range.is_empty());
    left
}

/// The runs that reach into `range`, as far as they do.
pub(super) fn within(runs: &[Range<u64>], range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let first = runs.partition_point(|run| run.end <= range.start);
    let inside = runs[first..].iter().take_while(move |run| run.start < range.end);
    inside.map(move |run| run.start.max(range.start)..run.end.min(range.end))
}

impl ReadAt for PartedDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.bytes);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        for (index, place, part) in self.behind(offset).take_while(|(_, place, _)| place.start < end) {
            let (from, to) = (place.start.max(offset), place.end.min(end));
            let here = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            match part {
                Part::Bytes(bytes) => {
                    bytes.read_at(from - place.start, &mut buffer[here(from)..here(to)])?;
                }
                Part::Volume(volume) => {
                    for run in within(volume.used(), from - place.start..to - place.start) {
                        let out = &mut buffer[here(place.start + run.start)..here(place.start + run.end)];
                        self.read_volume(index, &**volume, run.start, out).map_err(|fault| {
                            let (path, format) = (volume.pieces().path().to_owned(), volume.format());
                            io::Error::new(io::ErrorKind::InvalidData, ImageError::Import { path, format, fault })
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl DiskSource for PartedDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn sector(&self) -> Option<u32> {
        Some(self.sector)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        for (_, place, part) in self.behind(from) {
            let from = from.max(place.start);
            match part {
                Part::Bytes(_) => return Ok(Some(from..place.end)),
                Part::Volume(volume) => {
                    let inside = from - place.start..place.end - place.start;
                    if let Some(run) = within(volume.used(), inside).next() {
                        return Ok(Some(place.start + run.start..place.start + run.end));
                    }
                }
            }
        }
        Ok(None)
    }

    fn unused(&self) -> &[Range<u64>] {
        &self.unused
    }

    fn contents(&self) -> &[Content] {
        &self.contents
    }

    fn files(&self) -> Vec<PathBuf> {
        let volumes = self.parts.iter().filter_map(|(_, part)| match part {
            Part::Volume(volume) => Some(volume.pieces()),
            Part::Bytes(_) => None,
        });
        // Several parts may be of one file.
        let mut known = HashSet::new();
        let all = core::iter::once(&self.files).chain(volumes).flat_map(Pieces::paths);
        all.filter(|path| known.insert(*path)).map(Path::to_owned).collect()
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        for (_, part) in &self.parts {
            if let Part::Volume(volume) = part
                && let Some(change) = volume.pieces().change()?
            {
                return Ok(Some(change));
            }
        }
        self.files.change()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
