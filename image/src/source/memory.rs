//! A disk in memory, for tests: its holes, its unused ranges and its change are what the test says.

use super::{DiskSource, ReadAt};
use core::ops::Range;
use std::io;
use std::path::Path;

/// A disk in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryDisk {
    pub(crate) content: Vec<u8>,
    /// Ranges of zeros that are not read.
    pub(crate) holes: Vec<Range<u64>>,
    pub(crate) unused: Vec<Range<u64>>,
    pub(crate) change: Option<&'static str>,
    pub(crate) sector: Option<u32>,
}

impl ReadAt for MemoryDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = offset..offset + buffer.len() as u64;
        let skipped = |hole: &Range<u64>| hole.start <= range.start && range.end <= hole.end;
        assert!(!self.holes.iter().any(skipped), "a hole was read: {range:?}");
        self.content.read_at(offset, buffer)
    }
}

impl DiskSource for MemoryDisk {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn bytes(&self) -> u64 {
        self.content.len() as u64
    }

    fn sector(&self) -> Option<u32> {
        self.sector
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let mut start = from;
        for hole in &self.holes {
            if hole.contains(&start) {
                start = hole.end;
            }
        }
        let end = self.holes.iter().map(|hole| hole.start).find(|hole| *hole > start).unwrap_or(self.bytes());
        Ok((start < end).then_some(start..end))
    }

    fn unused(&self) -> &[Range<u64>] {
        &self.unused
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        Ok(self.change)
    }
}
