//! Which grains of the source are read at all: not those in no use, not holes.

use super::parent::Parent;
use crate::extent::Kind;
use crate::layer::Layer;
use crate::signatures::intersection;
use crate::source::DiskSource;
use crate::used::DiskReport;
use core::ops::Range;
use std::io;

/// A run of grains of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// The content does not matter.
    Unused(Range<u64>),
    /// Zeros, without reading them.
    Hole(Range<u64>),
    /// What the parent has there.
    Inherited(Range<u64>),
    /// To be read.
    Read(Range<u64>),
}

/// The whole grains inside ranges of bytes; the last grain of the disk counts as whole.
pub(super) fn whole_grains(ranges: &[Range<u64>], grain: u64, disk_bytes: u64) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let end = if range.end >= disk_bytes { disk_bytes.div_ceil(grain) } else { range.end / grain };
        let start = range.start.div_ceil(grain).max(out.last().map_or(0, |last| last.end));
        match out.last_mut() {
            Some(last) if last.end == start => last.end = end.max(start),
            _ if start < end => out.push(start..end),
            _ => {}
        }
    }
    out
}

/// The grains of a disk that are not read, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Free {
    /// Those whose content does not matter, and among them those that are to be zeros.
    pub(super) unused: Vec<Range<u64>>,
    /// Those that are to be zeros, because old signatures could lie there.
    pub(super) zeros: Vec<Range<u64>>,
    /// Those that the parent is known to have just so; none of them is among the unused.
    pub(super) inherited: Vec<Range<u64>>,
}

/// The most inherited ranges that are remembered: 16 MiB of them. What lies behind them is read.
const MAX_INHERITED: usize = 1 << 20;

impl Free {
    /// What of the disk of a survey is free in grains of `grain` bytes.
    pub(super) fn of(survey: &DiskReport, grain: u64, disk_bytes: u64) -> Self {
        let unused = whole_grains(&survey.unused, grain, disk_bytes);
        // A grain in no use may become zeros as a whole though a signature could lie in a part of it only.
        let mut zeros: Vec<Range<u64>> = Vec::with_capacity(survey.zeros.len());
        for range in &survey.zeros {
            let reached = range.start / grain..range.end.div_ceil(grain);
            match zeros.last_mut() {
                Some(last) if reached.start <= last.end => last.end = last.end.max(reached.end),
                _ => zeros.push(reached),
            }
        }
        Self { zeros: intersection(&unused, &zeros), unused, inherited: Vec::new() }
    }

    /// Leaves out what the file of `source` does not have itself, and `parent`, an image of the disk below it, has, too. What that image
    /// calls unused or zeros may be in use here: zeros are also what it made of old signatures in free space.
    pub(super) fn inherit(&mut self, source: &dyn DiskSource, parent: &[Layer], grain: u64) -> io::Result<()> {
        let mut walk = Parent::new(parent);
        let whole = parent.last().map_or(0, |layer| layer.core.superblock.disk_bytes) / grain;
        let mut unused = self.unused.iter().peekable();
        let mut from = 0;
        while let Some(shown) = source.next_of_below(from)? {
            from = shown.end;
            let end = (shown.end / grain).min(whole);
            let mut at = shown.start.div_ceil(grain);
            while at < end {
                while unused.next_if(|range| range.end <= at).is_some() {}
                let next_unused = unused.peek().map_or(end..end, |range| (*range).clone());
                if next_unused.start <= at {
                    at = next_unused.end.max(at + 1);
                    continue;
                }
                let Some((kind, until)) = walk.at(at) else { return Ok(()) };
                let until = until.min(end).min(next_unused.start);
                let is_full = self.inherited.len() >= MAX_INHERITED;
                match self.inherited.last_mut() {
                    _ if matches!(kind, Kind::Unused | Kind::Fill(0)) => {}
                    Some(last) if last.end == at => last.end = until,
                    _ if is_full => return Ok(()),
                    _ => self.inherited.push(at..until),
                }
                at = until;
            }
        }
        Ok(())
    }

    /// What is not read, in order, and whether it is inherited.
    fn skipped(&self) -> impl Iterator<Item = (Range<u64>, bool)> {
        let mut unused = self.unused.iter().peekable();
        let mut inherited = self.inherited.iter().peekable();
        core::iter::from_fn(move || {
            let is_first =
                inherited.peek().is_some_and(|range| unused.peek().is_none_or(|other| range.start < other.start));
            let next = if is_first { inherited.next() } else { unused.next() };
            next.map(|range| (range.clone(), is_first))
        })
    }
}

/// Calls `take` with all segments of the source in order. What is read comes in pieces of at most `chunk` grains.
pub(super) fn scan<E: From<io::Error>>(
    source: &dyn DiskSource,
    free: &Free,
    grain: u64,
    chunk: u64,
    mut take: impl FnMut(Segment) -> Result<(), E>,
) -> Result<(), E> {
    let end = source.bytes().div_ceil(grain);
    let mut at = 0;
    let edges = free.skipped().chain(core::iter::once((end..end, false)));
    for (skip, is_inherited) in edges {
        while at < skip.start {
            let data = source.next_data(at * grain)?.filter(|data| data.start < skip.start * grain);
            let Some(data) = data else {
                take(Segment::Hole(at..skip.start))?;
                at = skip.start;
                break;
            };
            let first = data.start / grain;
            if first > at {
                take(Segment::Hole(at..first))?;
            }
            at = first.max(at);
            let data_end = data.end.div_ceil(grain).min(skip.start);
            while at < data_end {
                let next = data_end.min(at + chunk);
                take(Segment::Read(at..next))?;
                at = next;
            }
        }
        if is_inherited {
            at = skip.end;
            take(Segment::Inherited(skip))?;
            continue;
        }
        for zeros in intersection(core::slice::from_ref(&skip), &free.zeros) {
            if at < zeros.start {
                take(Segment::Unused(at..zeros.start))?;
            }
            at = zeros.end;
            take(Segment::Hole(zeros))?;
        }
        if skip.end > at {
            take(Segment::Unused(at..skip.end))?;
            at = skip.end;
        }
    }
    Ok(())
}

/// How many grains will be read.
pub(super) fn to_be_read(source: &dyn DiskSource, free: &Free, grain: u64) -> io::Result<u64> {
    let mut sum = 0;
    scan::<io::Error>(source, free, grain, u64::MAX / 2, |segment| {
        if let Segment::Read(range) = segment {
            sum += range.end - range.start;
        }
        Ok(())
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::RawDisk;
    use std::os::unix::fs::FileExt;

    #[test]
    fn only_whole_grains_are_unused_but_the_end_of_the_disk_counts_as_whole() {
        let ranges = [0..4096, 5000..12000, 12288..16384, 100_000..100_352];
        assert_eq!(whole_grains(&ranges, 4096, 100_352), [0..1, 3..4]);
        assert_eq!(whole_grains(&[0..1, 4096..100_352], 4096, 100_352), [1..25, 25..25][..1]);
        assert_eq!(whole_grains(&[0..4096, 4096..8192], 4096, 100_352), [0..2, 2..2][..1]);
    }

    #[test]
    fn grains_in_no_use_become_zeros_where_a_signature_may_lie_in_a_part_of_them() {
        let survey = DiskReport {
            unused: vec![4096..65536, 98304..131_072],
            zeros: vec![8192..12288, 61440..65536, 126_976..131_072],
            ..DiskReport::default()
        };
        let free = Free::of(&survey, 16384, 131_072);
        assert_eq!(free.unused, [1..4, 6..8]);
        assert_eq!(free.zeros, [3..4, 7..8]);
        let free = Free::of(&survey, 4096, 131_072);
        assert_eq!(free.zeros, [2..3, 15..16, 31..32]);
    }

    #[test]
    fn holes_unused_and_data_make_up_the_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len((10 << 20) + 512).unwrap();
        file.as_file().write_all_at(&[1; 1 << 20], 3 << 20).unwrap();
        let source = RawDisk::open(file.path()).unwrap();
        let mut segments = Vec::new();
        let free = Free {
            unused: vec![0..10, 800..1000],
            zeros: vec![0..2, 900..1000],
            inherited: vec![1010..1020, 2000..2561],
        };
        scan::<io::Error>(&source, &free, 4096, 200, |segment| {
            segments.push(segment);
            Ok(())
        })
        .unwrap();
        let expected = [
            Segment::Hole(0..2),
            Segment::Unused(2..10),
            Segment::Hole(10..768),
            Segment::Read(768..800),
            Segment::Unused(800..900),
            Segment::Hole(900..1000),
            Segment::Read(1000..1010),
            Segment::Inherited(1010..1020),
            Segment::Read(1020..1024),
            Segment::Hole(1024..2000),
            Segment::Inherited(2000..2561),
        ];
        assert_eq!(segments, expected);
        assert_eq!(to_be_read(&source, &free, 4096).unwrap(), 46);
    }
}
