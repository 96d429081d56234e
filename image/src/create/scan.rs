//! Which grains of the source are read at all: not those in no use, not holes.

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
}

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
        Self { zeros: intersection(&unused, &zeros), unused }
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
    let edges = free.unused.iter().cloned().chain(core::iter::once(end..end));
    for skip in edges {
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
        let free = Free { unused: vec![0..10, 800..1000], zeros: vec![0..2, 900..1000] };
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
            Segment::Read(1000..1024),
            Segment::Hole(1024..2561),
        ];
        assert_eq!(segments, expected);
        assert_eq!(to_be_read(&source, &free, 4096).unwrap(), 56);
    }
}
