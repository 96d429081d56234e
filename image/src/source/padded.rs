//! A disk whose bytes are no whole number of sectors, as most ISO images and many files that were cut by hand: zeros follow
//! up to the end of its last sector.

use super::{Content, DiskSource, ReadAt};
use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};

/// A disk with zeros behind its end.
#[derive(Debug)]
pub(crate) struct Padded<'a> {
    disk: &'a dyn DiskSource,
    bytes: u64,
}

impl<'a> Padded<'a> {
    /// The disk with as many zeros as its last sector of `sector` bytes lacks.
    pub(crate) fn to(disk: &'a dyn DiskSource, sector: u32) -> Self {
        let bytes = disk.bytes().checked_next_multiple_of(sector.into()).unwrap_or(disk.bytes());
        Self { disk, bytes }
    }

    /// What an operator should know of the zeros, if there are any.
    pub(crate) fn note(&self) -> Option<String> {
        let added = self.bytes - self.disk.bytes();
        let (path, bytes) = (self.disk.path().display(), self.disk.bytes());
        (added > 0).then(|| {
            format!(
                "{path} has {bytes} bytes, which is no whole number of sectors: {added} zeros are added behind its end"
            )
        })
    }
}

impl ReadAt for Padded<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let has = usize::try_from(self.disk.bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (inside, behind) = buffer.split_at_mut(has.min(buffer.len()));
        behind.fill(0);
        if inside.is_empty() { Ok(()) } else { self.disk.read_at(offset, inside) }
    }
}

impl DiskSource for Padded<'_> {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn format(&self) -> &'static str {
        self.disk.format()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn sector(&self) -> Option<u32> {
        self.disk.sector()
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.disk.next_data(from)
    }

    fn unused(&self) -> &[Range<u64>] {
        self.disk.unused()
    }

    fn contents(&self) -> &[Content] {
        self.disk.contents()
    }

    fn next_of_below(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.disk.next_of_below(from)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.disk.files()
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        self.disk.change()
    }

    fn notes(&self) -> Vec<String> {
        self.disk.notes().into_iter().chain(self.note()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryDisk;
    use super::*;

    #[test]
    fn behind_a_disk_of_odd_size_are_zeros_up_to_the_end_of_its_last_sector() {
        let disk = MemoryDisk { content: vec![7; 1000], ..MemoryDisk::default() };
        let padded = Padded::to(&disk, 512);
        assert_eq!((padded.bytes(), padded.next_data(0).unwrap()), (1024, Some(0..1000)));
        let mut bytes = [1; 600];
        padded.read_at(424, &mut bytes).unwrap();
        assert!(bytes[..576].iter().all(|byte| *byte == 7) && bytes[576..].iter().all(|byte| *byte == 0));
        assert!(padded.read_at(1000, &mut [0; 25]).is_err());
        assert!(padded.note().is_some_and(|note| note.contains("24 zeros")));
        assert_eq!(Padded::to(&MemoryDisk { content: vec![7; 4096], ..MemoryDisk::default() }, 512).note(), None);
    }
}
