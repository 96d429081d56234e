//! File systems in files, filled by the programs that know them.

use crate::source::{DiskSource, RawDisk, ReadAt};
use crate::testing::{LoopDevice, run, succeeds, tool};
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

/// Flips a bit in each byte of `places`, one after the other: never is anything called free that was not.
pub(super) fn assert_flips_free_nothing(image: &mut Vec<u8>, places: impl IntoIterator<Item = Range<usize>>) {
    let bytes = image.len() as u64;
    let before = unused_of(image, bytes).1.unwrap();
    let mut numbers = Numbers(0xD1B5_4A32_D192_ED03);
    for at in places.into_iter().flatten() {
        let bit = 1 << numbers.below(8);
        image[at] ^= bit;
        for range in unused_of(image, bytes).1.unwrap_or_default() {
            let inside = before.iter().any(|other| other.start <= range.start && range.end <= other.end);
            assert!(inside, "byte {at} with {bit:#x} flipped frees {range:?}");
        }
        image[at] ^= bit;
    }
}

/// A volume that is cut at a sector is kept, as is one of which a sector and all behind it cannot be read.
pub(super) fn assert_cuts_are_kept(image: &mut Vec<u8>, cuts: impl IntoIterator<Item = u64>) {
    let bytes = image.len() as u64;
    let mut cuts: Vec<u64> = cuts.into_iter().filter(|cut| cut * 512 < bytes).collect();
    cuts.sort_unstable_by(|one, other| other.cmp(one));
    for cut in cuts {
        image.truncate(usize::try_from(cut * 512).unwrap());
        assert!(unused_of(image, cut * 512).1.is_err(), "cut at sector {cut}");
        assert!(unused_of(image, bytes).1.is_err(), "unreadable from sector {cut}");
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

/// A file system that the kernel has mounted, until it is dropped.
pub(super) struct Mounted {
    at: tempfile::TempDir,
    _device: LoopDevice,
}

impl Mounted {
    /// `None`, and a line that says so, where it cannot be mounted.
    pub(super) fn new(path: &Path, options: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let device = LoopDevice::new(path, 512)?;
        let options = format!("noatime,{options}");
        let options = options.trim_end_matches(',');
        let folder = at.path().to_str()?;
        // For exFAT there is a driver outside of the kernel, too.
        let mounts = succeeds("mount", ["-o", options, device.path(), folder])
            || (tool("mount.exfat-fuse").is_some()
                && succeeds("mount.exfat-fuse", [device.path(), folder, "-o", options]));
        if !mounts {
            println!("SKIPPED: cannot mount {}", path.display());
            return None;
        }
        Some(Self { at, _device: device })
    }

    pub(super) fn path(&self) -> &Path {
        self.at.path()
    }

    /// The bytes that df says are used.
    pub(super) fn used(&self) -> u64 {
        run("sync", []);
        let said = run("df", ["-B1", "--output=used", self.path().to_str().unwrap()]);
        said.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", [self.at.path().to_str().unwrap()]);
    }
}

/// Fills a mounted file system and empties it again in part, in rounds, so that its free space is in many pieces.
pub(super) fn age(at: &Path, count: u64) {
    let mut numbers = Numbers(0xA076_1D64_78BD_642F);
    for round in 0..3 {
        for number in 0..count {
            let folder = at.join(format!("folder {}", number % 7));
            std::fs::create_dir_all(&folder).unwrap();
            let len = usize::try_from(1 + numbers.below(if number % 50 == 0 { 2_000_000 } else { 60_000 })).unwrap();
            let byte = numbers.below(256).to_le_bytes()[0];
            std::fs::write(folder.join(format!("{round} {number}")), vec![byte; len]).unwrap();
        }
        run("sync", []);
        for number in 0..count {
            if numbers.below(2) == 0 {
                std::fs::remove_file(at.join(format!("folder {}/{round} {number}", number % 7))).unwrap();
            }
        }
    }
}
