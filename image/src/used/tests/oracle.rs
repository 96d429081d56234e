//! File systems in files, filled by the programs that know them.

use crate::source::{DiskSource, RawDisk, ReadAt};
use crate::testing::run;
use crate::used::sniff::Signs;
use crate::used::volume::{Kept, Volume};
use core::ops::Range;
use std::path::{Path, PathBuf};

pub(super) const MIB: u64 = 1 << 20;

/// An empty file of `bytes` in a folder of its own.
pub(super) fn empty(bytes: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    (dir, path)
}

/// Numbers that look random and are the same in every run.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A folder of `count` files of up to `most` bytes, three levels deep.
pub(super) fn files(count: u64, most: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    for number in 0..count {
        let folder = dir.path().join(format!("d{}", number % 5)).join(format!("e{}", number % 3));
        std::fs::create_dir_all(&folder).unwrap();
        let mut content = vec![0; usize::try_from(numbers.below(most)).unwrap()];
        content.fill_with(|| numbers.below(256).to_le_bytes()[0]);
        std::fs::write(folder.join(format!("f{number}")), content).unwrap();
    }
    dir
}

/// What is unused of a file system that fills a file, to the byte; and what it is called.
pub(super) fn unused(path: &Path) -> (&'static str, Result<Vec<Range<u64>>, Kept>) {
    let source = RawDisk::open(path).unwrap();
    unused_of(&source, source.bytes())
}

pub(super) fn unused_of(source: &dyn ReadAt, bytes: u64) -> (&'static str, Result<Vec<Range<u64>>, Kept>) {
    let volume = Volume::new(source, 0, bytes);
    match Signs::find(&volume) {
        Ok(signs) => (signs.name(), signs.unused(&volume).map(|unused| unused.ranges().to_vec())),
        Err(kept) => ("", Err(kept)),
    }
}

pub(super) fn sum(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Fills what should be unused with bytes that nothing expects.
pub(super) fn scribble(path: &Path, ranges: &[Range<u64>]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let noise: Vec<u8> = (0_u32..65536).map(|number| number.wrapping_mul(197).to_le_bytes()[1] | 1).collect();
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from((range.end - at).min(65536)).unwrap();
            file.write_all_at(&noise[..len], at).unwrap();
            at += len as u64;
        }
    }
}

/// Both folders hold the same files.
pub(super) fn assert_same_files(one: &Path, other: &Path) {
    run("diff", ["-r", "--exclude=lost+found", one.to_str().unwrap(), other.to_str().unwrap()]);
}

/// The front of a disk; what is behind `len` cannot be read, and what is behind the bytes that are there is zeros.
pub(super) struct Front<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) len: u64,
}

impl ReadAt for Front<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        if offset + buffer.len() as u64 > self.len {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let at = usize::try_from(offset).unwrap().min(self.bytes.len());
        let held = buffer.len().min(self.bytes.len() - at);
        buffer[..held].copy_from_slice(&self.bytes[at..at + held]);
        buffer[held..].fill(0);
        Ok(())
    }
}
