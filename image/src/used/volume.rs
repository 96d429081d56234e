//! One partition, read within its bounds; and the reasons for keeping all of it.

use crate::source::ReadAt;
use core::fmt;
use core::ops::Range;
use std::io;

/// Why a whole partition is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// We know what it is, but not which of it is used.
    NotRead(&'static str),
    /// It has the signs of two file systems.
    Several(&'static str, &'static str),
    /// The system could not read it.
    Unreadable(io::ErrorKind),
    /// This part of its metadata cannot be right.
    Corrupt(&'static str),
    /// These two do not say the same.
    Disagree(&'static str, &'static str),
    /// It states another amount of free space (in its own units) than it has.
    Counts {
        /// What it states.
        stated: u64,
        /// What was counted.
        counted: u64,
    },
    /// Its journal has to be replayed first.
    Journal,
    /// It was not unmounted cleanly, or is in use.
    NotClean,
    /// Errors are recorded in it.
    Errors,
    /// A system sleeps in it.
    Hibernated,
    /// It has features that change what its maps mean, or that we do not know.
    Feature(&'static str, u32),
    /// It ends behind its partition.
    TooLong,
    /// Its metadata are larger than anything that is read here.
    TooLarge,
    /// It lies inside of more volumes than are looked into.
    TooDeep,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRead(name) => write!(f, "the free space of {name} is not read"),
            Self::Several(one, other) => write!(f, "it has the signs of {one} and of {other}"),
            Self::Unreadable(kind) => write!(f, "its metadata cannot be read: {kind}"),
            Self::Corrupt(what) => write!(f, "its {what} cannot be right"),
            Self::Disagree(one, other) => write!(f, "its {one} and its {other} disagree"),
            Self::Counts { stated, counted } => write!(f, "it states {stated} free units, {counted} were counted"),
            Self::Journal => f.write_str("its journal has to be replayed"),
            Self::NotClean => f.write_str("it was not unmounted cleanly"),
            Self::Errors => f.write_str("errors are recorded in it"),
            Self::Hibernated => f.write_str("a hibernated system is in it"),
            Self::Feature(set, bits) => write!(f, "it has unknown {set} features ({bits:#x})"),
            Self::TooLong => f.write_str("it ends behind its partition"),
            Self::TooLarge => f.write_str("its metadata are larger than what is read"),
            Self::TooDeep => f.write_str("it lies inside of too many other volumes"),
        }
    }
}

/// A range of the disk that may hold a file system.
#[derive(Clone, Copy)]
pub(crate) struct Volume<'a> {
    source: &'a dyn ReadAt,
    start: u64,
    bytes: u64,
    /// How many volumes it is inside of.
    depth: u8,
}

/// An array of a disk, a volume group on it, a file system in that; and one more.
const MAX_DEPTH: u8 = 4;

impl<'a> Volume<'a> {
    /// The `bytes` bytes of `source` from `start`.
    pub(crate) fn new(source: &'a dyn ReadAt, start: u64, bytes: u64) -> Self {
        Self { source, start, bytes, depth: 0 }
    }

    /// The `bytes` bytes of `source`, which lie inside `outer`.
    pub(super) fn inside(outer: &Volume<'_>, source: &'a dyn ReadAt, bytes: u64) -> Self {
        Self { source, start: 0, bytes, depth: outer.depth.saturating_add(1) }
    }

    /// Whether it is inside of more volumes than are looked into.
    pub(super) fn is_too_deep(&self) -> bool {
        self.depth > MAX_DEPTH
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` from `at`.
    pub(crate) fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), Kept> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(Kept::TooLong);
        }
        let at = self.start.checked_add(at).ok_or(Kept::TooLong)?;
        self.source.read_at(at, buffer).map_err(|error| Kept::Unreadable(error.kind()))
    }

    /// The `len` bytes from `at`; the caller has bounded `len`.
    pub(crate) fn bytes_at(&self, at: u64, len: usize) -> Result<Vec<u8>, Kept> {
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }
}

/// The most unused ranges of one volume that are remembered: 16 MiB of them.
const MAX_RANGES: usize = 1 << 20;

/// Unused bytes of a volume, in order. Where there are very many ranges the shortest ones are forgotten, and so count as
/// used.
#[derive(Debug, Default)]
pub(crate) struct Unused {
    ranges: Vec<Range<u64>>,
    bytes: u64,
    /// Where programs look for signatures in the volumes inside this one.
    pub(super) places: Vec<Range<u64>>,
    /// What an operator should know about the volumes inside this one.
    pub(super) notes: Vec<String>,
}

impl Unused {
    /// Adds a range behind all the others; touching ranges become one.
    pub(crate) fn push(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let bytes = range.end - range.start;
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => {
                if self.ranges.len() == MAX_RANGES {
                    self.forget();
                }
                self.ranges.push(range);
            }
        }
        self.bytes += bytes;
    }

    /// Forgets the shorter half of the ranges, or more where many are of one length.
    fn forget(&mut self) {
        let mut lengths: Vec<u64> = self.ranges.iter().map(|range| range.end - range.start).collect();
        let middle = lengths.len() / 2;
        let (_, longest, _) = lengths.select_nth_unstable(middle);
        self.ranges.retain(|range| range.end - range.start > *longest);
        self.bytes = self.ranges.iter().map(|range| range.end - range.start).sum();
    }

    /// Whether the byte at `at` is in one of the ranges.
    pub(crate) fn contains(&self, at: u64) -> bool {
        self.meets(&(at..at + 1))
    }

    /// Whether any byte of `range` is in one of the ranges.
    pub(crate) fn meets(&self, range: &Range<u64>) -> bool {
        let next = self.ranges.partition_point(|unused| unused.end <= range.start);
        self.ranges.get(next).is_some_and(|unused| unused.start < range.end)
    }

    /// How many bytes that is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The ranges, sorted and apart.
    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// The same, to be kept.
    pub(crate) fn into_ranges(self) -> Vec<Range<u64>> {
        self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_ranges_the_longest_are_remembered() {
        let mut unused = Unused::default();
        for number in 0..3 << 20 {
            let start = number * 100;
            unused.push(start..start + 1 + number % 50);
        }
        assert!(unused.ranges().len() <= MAX_RANGES);
        assert!(unused.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
        assert_eq!(unused.bytes(), unused.ranges().iter().map(|range| range.end - range.start).sum::<u64>());
        // The longest ones of the beginning are still there.
        assert!(unused.contains(100 * 49 + 49) && unused.meets(&(100 * 49 + 49..100 * 50)));
        assert!(!unused.contains(100 * 49 + 50) && !unused.contains(0) && !unused.meets(&(0..100 * 20)));
    }
}
