//! A disk put together out of a partition table and files with one partition each, which are read from the front to the end only.
//!
//! `image create` reads a disk in this order too, so each file is read once, one after the other, and nothing of it is kept. What a file holds of
//! its partition is known before: that is used, and the rest of the partition is not. A place that was passed is read
//! by beginning the file anew: right, and slow.
//!
//! A volume may lie in several places of the disk: a logical volume in several segments. Its file stays open while another one is read that lies
//! between them.
//!
//! Memory: what unpacks one file, or two where a volume lies in several places.

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
    /// What is used of the volume with this number, from the byte `from` of the volume on.
    Volume { number: usize, from: u64 },
}

/// A volume of the disk.
#[derive(Debug)]
struct Placed {
    volume: Box<dyn Volume>,
    /// It lies in several places.
    scattered: bool,
}

/// The most volumes that are being read at once.
const MAX_OPEN: usize = 2;

/// The disk.
pub(super) struct PartedDisk {
    path: PathBuf,
    format: &'static str,
    bytes: u64,
    sector: u32,
    /// With the place of each, sorted and apart.
    parts: Vec<(Range<u64>, Part)>,
    volumes: Vec<Placed>,
    contents: Vec<Content>,
    unused: Vec<Range<u64>>,
    /// Where nothing is to be left of what was there before.
    blank: Vec<Range<u64>>,
    /// The first place that two parts were put to.
    taken_twice: Option<u64>,
    /// Files besides those of the volumes.
    files: Pieces,
    pub(super) notes: Vec<String>,
    /// The volumes that are being read, by number; the last one was read last.
    open: Mutex<Vec<(usize, Box<dyn Forward>)>>,
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
            volumes: Vec::new(),
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
        self.put_inner_volume(core::slice::from_ref(&place), volume);
        self.describe(place, what);
    }

    /// Puts a volume somewhere inside a partition that is described otherwise: into `places`, which are apart and have room for it together.
    pub(super) fn put_inner_volume(&mut self, places: &[Range<u64>], volume: Box<dyn Volume>) {
        let (number, mut from) = (self.volumes.len(), 0);
        for place in places {
            let room = place.end - place.start;
            let end = within(volume.used(), from..from + room).last().map_or(from, |run| run.end);
            self.insert(place.start, end - from, Part::Volume { number, from });
            from += room;
        }
        self.volumes.push(Placed { volume, scattered: places.len() > 1 });
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
                Part::Volume { number, from } => self.used(*number, *from, place, place).for_each(used),
            }
        }
        unused.push(at..self.bytes.max(at));
        self.unused = without(&unused.into_ranges(), &joined(core::mem::take(&mut self.blank)));
        self.contents.sort_by_key(|content| content.range.start);
        Ok(Box::new(self))
    }

    /// The parts that end behind `from`.
    fn behind(&self, from: u64) -> impl Iterator<Item = (&Range<u64>, &Part)> {
        let first = self.parts.partition_point(|(place, _)| place.end <= from);
        self.parts[first..].iter().map(|(place, part)| (place, part))
    }

    /// Where in `range` of the disk the volume `number` has used bytes, of which the byte `from` lies where `place` begins.
    fn used(
        &self,
        number: usize,
        from: u64,
        place: &Range<u64>,
        range: &Range<u64>,
    ) -> impl Iterator<Item = Range<u64>> {
        let (start, end) = (range.start.max(place.start), range.end.min(place.end));
        let outside = move |at: u64| place.start + (at - from);
        let inside = from + (start - place.start)..from + (end - place.start);
        within(self.volumes[number].volume.used(), inside).map(move |run| outside(run.start)..outside(run.end))
    }

    /// Reads used bytes of the volume `number`.
    fn read_volume(&self, number: usize, at: u64, bytes: &mut [u8]) -> Result<(), ImportFault> {
        let volume = &self.volumes[number].volume;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = open.iter().position(|(which, _)| *which == number).map(|index| open.remove(index).1);
        let mut forward = match begun.filter(|forward| forward.at() <= at) {
            Some(forward) => forward,
            None => {
                // What is not gone on with is closed before something else is opened.
                open.retain(|(which, _)| self.volumes[*which].scattered);
                let surplus = (open.len() + 1).saturating_sub(MAX_OPEN);
                open.drain(..surplus);
                volume.forward()?
            }
        };
        forward.read(at, bytes)?;
        if volume.used().last().is_some_and(|run| forward.at() < run.end) {
            open.push((number, forward));
        }
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
        for (place, part) in self.behind(offset).take_while(|(place, _)| place.start < end) {
            let (from, to) = (place.start.max(offset), place.end.min(end));
            let here = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            match part {
                Part::Bytes(bytes) => {
                    bytes.read_at(from - place.start, &mut buffer[here(from)..here(to)])?;
                }
                Part::Volume { number, from: first } => {
                    for run in self.used(*number, *first, place, &(from..to)) {
                        let out = &mut buffer[here(run.start)..here(run.end)];
                        self.read_volume(*number, first + (run.start - place.start), out).map_err(|fault| {
                            let volume = &self.volumes[*number].volume;
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
        for (place, part) in self.behind(from) {
            let from = from.max(place.start);
            match part {
                Part::Bytes(_) => return Ok(Some(from..place.end)),
                Part::Volume { number, from: first } => {
                    if let Some(run) = self.used(*number, *first, place, &(from..place.end)).next() {
                        return Ok(Some(run));
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
        let volumes = self.volumes.iter().map(|placed| placed.volume.pieces());
        // Several volumes may be of one file.
        let mut known = HashSet::new();
        let all = core::iter::once(&self.files).chain(volumes).flat_map(Pieces::paths);
        all.filter(|path| known.insert(*path)).map(Path::to_owned).collect()
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        for placed in &self.volumes {
            if let Some(change) = placed.volume.pieces().change()? {
                return Ok(Some(change));
            }
        }
        self.files.change()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PLACE: u64 = 100;

    /// How many volumes are open, the most that were, and how often one was opened.
    #[derive(Debug, Default)]
    struct Counts([AtomicUsize; 3]);

    /// A volume all of whose bytes are used, and are `byte`.
    #[derive(Debug)]
    struct Counted {
        byte: u8,
        used: Range<u64>,
        pieces: Pieces,
        counts: Arc<Counts>,
    }

    struct CountedData {
        byte: u8,
        at: u64,
        counts: Arc<Counts>,
    }

    impl Volume for Counted {
        fn used(&self) -> &[Range<u64>] {
            core::slice::from_ref(&self.used)
        }

        fn pieces(&self) -> &Pieces {
            &self.pieces
        }

        fn format(&self) -> &'static str {
            "counted"
        }

        fn forward(&self) -> Result<Box<dyn Forward>, ImportFault> {
            let [open, most, times] = &self.counts.0;
            most.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            times.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(CountedData { byte: self.byte, at: 0, counts: Arc::clone(&self.counts) }))
        }
    }

    impl Forward for CountedData {
        fn at(&self) -> u64 {
            self.at
        }

        fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<(), ImportFault> {
            assert!(at >= self.at);
            self.at = at + bytes.len() as u64;
            bytes.fill(self.byte);
            Ok(())
        }
    }

    impl Drop for CountedData {
        fn drop(&mut self) {
            self.counts.0[0].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A disk in whose places the volumes with these letters lie, each as long as its places; and what is counted.
    fn disk(letters: &str) -> (Box<dyn DiskSource>, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        let nothing = || Pieces::of(&[]).unwrap();
        let bytes = PLACE * letters.len() as u64;
        let mut disk = PartedDisk::new(Path::new("disk"), "test", (bytes, 1), nothing());
        for byte in letters.bytes().collect::<std::collections::BTreeSet<_>>() {
            let starts = (0..).step_by(100).zip(letters.bytes()).filter(|(_, letter)| *letter == byte);
            let places: Vec<_> = starts.map(|(start, _)| start..start + PLACE).collect();
            let used = 0..PLACE * places.len() as u64;
            let volume = Counted { byte, used, pieces: nothing(), counts: Arc::clone(&counts) };
            disk.put_inner_volume(&places, Box::new(volume));
        }
        (disk.complete().unwrap(), counts)
    }

    /// What is counted after the disk was read from the front to the end, 30 bytes at a time.
    fn counted(letters: &str) -> [usize; 3] {
        let (disk, counts) = disk(letters);
        let mut read = vec![0; usize::try_from(disk.bytes()).unwrap()];
        let starts = (0..).step_by(30);
        read.chunks_mut(30).zip(starts).for_each(|(chunk, at)| disk.read_at(at, chunk).unwrap());
        let expected: Vec<u8> = letters.bytes().flat_map(|letter| [letter; 100]).collect();
        assert!(read == expected, "{letters}");
        counts.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    #[test]
    fn each_volume_is_opened_once_and_closed_when_it_was_read() {
        assert_eq!(counted("abc"), [0, 1, 3]);
        assert_eq!(counted("aab"), [0, 1, 2]);
        assert_eq!(counted("aba"), [0, 2, 2], "a waits for its second place");
        assert_eq!(counted("abab"), [0, 2, 2]);
    }

    #[test]
    fn no_more_than_two_volumes_are_open_however_many_are_scattered() {
        let [open, most, times] = counted("abcdabcdabcd");
        assert_eq!((open, most), (0, 2));
        assert!(times > 4, "some were begun anew: {times}");
    }

    #[test]
    fn a_volume_in_one_place_is_closed_when_another_one_is_opened() {
        let (disk, counts) = disk("abc");
        let mut byte = [0];
        for at in [0, 100, 200, 10] {
            disk.read_at(at, &mut byte).unwrap();
            assert_eq!(counts.0[0].load(Ordering::Relaxed), 1);
        }
    }
}
