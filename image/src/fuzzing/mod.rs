//! What the fuzz targets of `fuzz/` call: one function per reader of foreign bytes that is private to this crate.
//!
//! Each takes one input of any content, runs the reader and checks what must hold whatever it read. Built with
//! `--cfg fuzzing`, which `cargo fuzz` sets, and in unit tests; no program contains it.

mod seal;
mod sparse;

use crate::fit::{Geometry, HEAD_BYTES, fit, tail_area, unfit};
use crate::manifest::{ManifestHeader, Part, PartEntry, TableKind};
use crate::source::ReadAt as _;
use crate::used;
pub use crate::used::FileSystem;
use crate::{Image, table};
use core::ops::Range;
use slidecast_proto::units::{BlockNo, Hash, PartNo};
pub use sparse::{SparseDisk, encode};
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A partition table, and its backup fitted to a larger disk. With the first byte odd, the checksums of a GPT are put right
/// first, so that its numbers are looked at.
///
/// # Panics
/// If a partition lies outside the disk, or fitting writes elsewhere than at the end.
pub fn partition_table(input: &[u8]) {
    let Some((flags, input)) = input.split_first() else { return };
    let mut disk = SparseDisk::parse(input);
    let sector = if flags & 2 == 0 { 512 } else { 4096 };
    if flags & 1 == 1 {
        seal::gpt(&mut disk, sector);
    }
    let bytes = disk.bytes();
    if let Ok(table) = table::read(&disk, bytes, sector) {
        assert!(table.partitions.iter().all(|found| found.start > 0 && found.start + found.bytes <= bytes));
    }
    let larger = bytes + u64::from(flags >> 2) * u64::from(sector) * 64;
    let Ok(geometry) = Geometry::new(sector, bytes, larger) else { return };
    let tail = tail_area(larger, sector);
    let head_bytes = if tail.is_empty() { larger } else { HEAD_BYTES.min(larger) };
    let read = |range: Range<u64>| {
        let mut out = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        let held = usize::try_from(bytes.saturating_sub(range.start)).unwrap_or(0).min(out.len());
        disk.read_at(range.start, &mut out[..held]).map(|()| out)
    };
    let (Ok(mut head), Ok(mut tail)) = (read(0..head_bytes), read(tail)) else { return };
    if let crate::fit::Outcome::Fitted(area) = fit(&mut head, &mut tail, geometry) {
        assert!(area.start < area.end && area.end <= larger);
    }
    unfit(&mut head, sector, bytes);
}

/// The free space of one file system on a volume.
///
/// # Panics
/// If something is called free that is not on the volume, or twice.
pub fn file_system(kind: FileSystem, input: &[u8]) {
    let mut disk = SparseDisk::parse(input);
    match kind {
        FileSystem::Ext => seal::ext(&mut disk),
        FileSystem::Lvm => seal::lvm(&mut disk),
        FileSystem::Md => seal::md(&mut disk),
        FileSystem::Btrfs => seal::btrfs(&mut disk),
        FileSystem::Fat | FileSystem::Ntfs | FileSystem::Swap => {}
        FileSystem::Xfs => seal::xfs(&mut disk),
        FileSystem::Exfat => seal::exfat(&mut disk),
        FileSystem::F2fs => seal::f2fs(&mut disk),
    }
    let bytes = disk.bytes();
    let Some(unused) = used::unused_of(kind, &disk, bytes) else { return };
    let mut end = 0;
    for (index, range) in unused.iter().enumerate() {
        assert!(range.start < range.end && (index == 0 || range.start > end), "{range:?} after {end}");
        end = range.end;
    }
    assert!(end <= bytes, "free up to {end} of {bytes}");
}

/// A whole disk: its table and what is in each partition.
///
/// # Panics
/// If something is called unused that is not on the disk.
pub fn disk(input: &[u8]) {
    let disk = SparseDisk::parse(input);
    let report = used::scan(&disk, disk.bytes(), 512);
    assert!(report.unused.windows(2).all(|pair| pair[0].end < pair[1].start));
    assert!(report.unused.iter().all(|range| range.start < range.end && range.end <= disk.bytes()));
    assert!(report.all_notes().iter().all(|note| !note.is_empty()));
}

/// A manifest part of a disk of 1 GiB, as it would come down a chain; or a header, if it begins like one.
///
/// # Panics
/// If what was accepted has another encoding than the one that was read.
pub fn manifest(input: &[u8]) {
    if let Ok(header) = ManifestHeader::parse(input) {
        assert_eq!(header.encode(), input);
        return;
    }
    let Some((blocks, bytes)) = input.split_first() else { return };
    let blocks = u32::from(*blocks % 16) + 1;
    let header = ManifestHeader {
        layer: Hash([1; 32]),
        disk_bytes: 1 << 30,
        sector: 512,
        grain: 4096,
        block: 1 << 20,
        blocks,
        stored_blocks: blocks,
        raw_bytes: 1 << 30,
        table: TableKind::None,
        parts: vec![PartEntry { first: BlockNo(0), hash: Hash::of(bytes) }],
    };
    if let Ok(part) = Part::parse(&header, PartNo(0), bytes) {
        assert_eq!(part.encode(), bytes);
        for no in 0..part.len() {
            let Some(block) = part.block(BlockNo(no)) else { panic!("block {no} of {} is missing", part.len()) };
            assert!(block.places.iter().all(|place| place.target + u64::from(place.grains) <= header.disk_grains()));
            block.live_runs().for_each(drop);
        }
    }
}

/// The header and the map of used blocks of an image of partclone. With the first byte odd, the checksum of the header is put right first.
///
/// # Panics
/// If blocks are called used that the file system does not have, or twice.
pub fn partclone(input: &[u8]) {
    let Some((flags, input)) = input.split_first() else { return };
    let mut bytes = input.to_vec();
    if flags & 1 == 1 && bytes.len() >= 110 {
        let crc = !crc32fast::hash(&bytes[..106]);
        bytes[106..110].copy_from_slice(&crc.to_le_bytes());
    }
    let Some((runs, end)) = crate::source::partclone_front(&bytes) else { return };
    assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
    assert!(runs.iter().all(|run| run.start < run.end && run.end <= end));
}

/// A file in whatever format its front says, opened as a disk: its ranges and the front of each are read.
///
/// # Panics
/// If a range lies outside the disk, or in front of what was asked for.
pub fn container(input: &[u8]) {
    with_file(|file, path| {
        if SparseDisk::parse(input).write_to(file).is_err() {
            return;
        }
        let Ok(disk) = crate::source::open(path, &crate::source::Asked::of(&std::env::temp_dir())) else { return };
        assert!(disk.unused().windows(2).all(|pair| pair[0].end < pair[1].start));
        assert!(disk.unused().iter().all(|range| range.start < range.end && range.end <= disk.bytes()));
        let mut at = 0;
        // Of a disk in very many pieces the first ones are enough.
        for _ in 0..1000 {
            let Ok(Some(data)) = disk.next_data(at) else { break };
            assert!(at <= data.start && data.start < data.end && data.end <= disk.bytes(), "{data:?} after {at}");
            let len = usize::try_from(data.end - data.start).unwrap_or(usize::MAX).min(4096);
            let _ = disk.read_at(data.start, &mut vec![0; len]);
            at = data.end;
        }
    });
}

/// A layer file. With the first byte odd, its checksums and its id are put right first.
pub fn layer(input: &[u8]) {
    let Some((flags, input)) = input.split_first() else { return };
    let mut bytes = input.to_vec();
    if flags & 1 == 1 {
        seal::layer(&mut bytes);
    }
    with_file(|file, path| {
        let written = file.set_len(0).and_then(|()| file.write_all_at(&bytes, 0));
        if written.is_err() {
            return;
        }
        let Ok(image) = Image::open(path) else { return };
        image.layers().for_each(drop);
        let _ = image.report();
        if image.header().disk_bytes <= 1 << 40 {
            let _ = image.resolve();
        }
    });
}

/// Calls `with` with a file of this thread, whatever is in it.
fn with_file(with: impl FnOnce(&File, &Path)) {
    thread_local! {
        static SCRATCH: RefCell<Option<(File, PathBuf)>> = const { RefCell::new(None) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let (file, path) = scratch.get_or_insert_with(in_memory);
        with(file, path);
    });
}

/// A file without a name in any folder, and the path by which this process reaches it.
fn in_memory() -> (File, PathBuf) {
    let fd: OwnedFd = nix::sys::memfd::memfd_create(c"layer", nix::sys::memfd::MFdFlags::empty())
        .expect("a kernel that runs this has memfd_create");
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    (File::from(fd), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_takes_any_input() {
        for input in [&[][..], &[1], &[0xFF; 64], &[0; 8192], &[0x55; 5000]] {
            partition_table(input);
            FileSystem::ALL.into_iter().for_each(|kind| file_system(kind, input));
            disk(input);
            manifest(input);
            partclone(input);
            container(input);
            layer(input);
        }
    }
}
