//! A block map (`.bmap`, bmap-tools) beside a raw image: which ranges of the image hold data, each with its checksum.
//!
//! What no range covers was a hole when the map was made, so it is zeros here and is not read. Everything else is read once and compared
//! with its checksum before an image is made of it.
//!
//! Memory: the map itself (at most 64 MiB of text) while it is read, and 56 bytes for each range.

mod text;

use super::{DiskSource, ImportFault, ReadAt};
use crate::error::{ImageError, Operation};
use core::ops::Range;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const NAME: &str = "bmap";
/// No larger map is read: 64 MiB have some 500,000 ranges.
const MAX_BYTES: u64 = 64 << 20;
/// How much is read at once to compare it.
const STEP: usize = 1 << 20;

/// A map that fits its image.
#[derive(Debug)]
pub(super) struct Map {
    path: PathBuf,
    /// The ranges with data, sorted and apart, and the SHA-256 of each where the map has one.
    ranges: Vec<(Range<u64>, Option<[u8; 32]>)>,
}

/// The names that the map of `image` may have: with `.bmap` behind its name, or behind what is left of it without one ending
/// after the other.
fn names(image: &Path) -> impl Iterator<Item = PathBuf> {
    let name = |path: &Path| path.file_name().map(|name| Path::new(name).to_owned());
    let mut rest = name(image);
    let folder = image.to_owned();
    core::iter::from_fn(move || {
        let now = rest.take()?;
        let mut map = now.clone().into_os_string();
        map.push(".bmap");
        rest = now.extension().is_some().then(|| now.with_extension(""));
        Some(folder.with_file_name(map))
    })
}

/// The map that lies beside `image`, which has `bytes` bytes when it is unpacked; `None` if there is none.
pub(super) fn beside(image: &Path, bytes: u64) -> Result<Option<Map>, ImageError> {
    let Some(path) = names(image).find(|path| path != image && path.is_file()) else { return Ok(None) };
    let read = |error| ImageError::io(Operation::Read, &path, None)(error);
    let refused = |fault| ImageError::Import { path: path.clone(), format: NAME, fault };
    let file = File::open(&path).map_err(ImageError::io(Operation::Open, &path, None))?;
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(read)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(refused(ImportFault::TooLarge { what: "list of ranges" }));
    }
    let ranges = text::parse(&content, bytes).map_err(refused)?;
    Ok(Some(Map { path, ranges }))
}

impl Map {
    /// The ranges that have a checksum.
    fn checked(&self) -> impl Iterator<Item = &Range<u64>> {
        self.ranges.iter().filter(|(_, sum)| sum.is_some()).map(|(range, _)| range)
    }

    /// Compares all ranges of `disk` with their checksums. `checking` is told how many bytes are compared, and of how many.
    fn check(&self, disk: &dyn DiskSource, checking: &dyn Fn(u64, u64)) -> Result<(), ImageError> {
        let all = self.checked().map(|range| range.end - range.start).sum();
        let mut buffer = vec![0; STEP];
        let mut done = 0;
        for (range, expected) in &self.ranges {
            let Some(expected) = expected else { continue };
            let mut sum = Sha256::new();
            let mut at = range.start;
            while at < range.end {
                let len = usize::try_from(range.end - at).unwrap_or(STEP).min(STEP);
                let piece = &mut buffer[..len];
                disk.read_at(at, piece).map_err(ImageError::io(Operation::Read, disk.path(), at))?;
                sum.update(&*piece);
                (at, done) = (at + len as u64, done + len as u64);
                checking(done, all);
            }
            if sum.finalize().as_slice() != expected {
                let fault = ImportFault::Differs { what: "the image", offset: range.start };
                return Err(ImageError::Import { path: self.path.clone(), format: NAME, fault });
            }
        }
        Ok(())
    }
}

/// A raw image and its map, which agree.
#[derive(Debug)]
pub(super) struct MappedImage {
    disk: Box<dyn DiskSource>,
    map: Map,
}

impl MappedImage {
    /// Compares the image with its map first.
    pub(super) fn open(
        disk: Box<dyn DiskSource>,
        map: Map,
        checking: &dyn Fn(u64, u64),
    ) -> Result<Box<dyn DiskSource>, ImageError> {
        map.check(&*disk, checking)?;
        Ok(Box::new(Self { disk, map }))
    }

    /// The ranges with data that end behind `from`, in order.
    fn behind(&self, from: u64) -> impl Iterator<Item = &Range<u64>> {
        let first = self.map.ranges.partition_point(|(range, _)| range.end <= from);
        self.map.ranges[first..].iter().map(|(range, _)| range)
    }
}

impl ReadAt for MappedImage {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.bytes());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        for range in self.behind(offset).take_while(|range| range.start < end) {
            let (from, to) = (range.start.max(offset), range.end.min(end));
            let place = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            self.disk.read_at(from, &mut buffer[place(from)..place(to)])?;
        }
        Ok(())
    }
}

impl DiskSource for MappedImage {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn format(&self) -> &'static str {
        self.disk.format()
    }

    fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        for range in self.behind(from) {
            if let Some(data) = self.disk.next_data(range.start.max(from))?.filter(|data| data.start < range.end) {
                return Ok(Some(data.start..data.end.min(range.end)));
            }
        }
        Ok(None)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.disk.files().into_iter().chain([self.map.path.clone()]).collect()
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        self.disk.change()
    }

    fn notes(&self) -> Vec<String> {
        let (map, count) = (self.map.path.display(), self.map.checked().count());
        let checked =
            format!("{} agrees with the checksums of {map} (ranges compared: {count})", self.path().display());
        self.disk.notes().into_iter().chain([checked]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_looked_for_behind_the_name_and_behind_what_is_left_of_it() {
        let all: Vec<_> = names(Path::new("/a/disk.img.gz")).collect();
        assert_eq!(all, ["/a/disk.img.gz.bmap", "/a/disk.img.bmap", "/a/disk.bmap"].map(PathBuf::from));
    }
}
