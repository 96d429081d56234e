//! The disk of an image, read at any place without being written out: for programs that look into an image.
//!
//! What is read is what `image export` writes to a file: unused space is zeros, and the backup GPT, which the image leaves
//! out, is at the end. Blocks are unpacked and checked when they are needed; those used last stay in memory.

mod source;

pub use source::ImageDisk;

use crate::backup_table::BackupTable;
use crate::error::ImageError;
use crate::manifest::Content;
use crate::recent::Recent;
use crate::resolved::{BlockReader, Resolved};
use core::fmt;
use core::ops::Range;
use slidecast_proto::units::BlockNo;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What a piece of the disk is to somebody who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Bytes, not all of them zero.
    Data,
    /// Zeros that belong to the disk's content.
    Zero,
    /// Space that the image says nothing about: it reads as zeros.
    Unused,
}

/// A run of grains of the disk, as one place of a block.
#[derive(Clone, Copy, Debug)]
struct Run {
    target: u64,
    block: u32,
    source: u32,
    grains: u32,
}

/// A piece of the disk within one run, or within what no run covers.
#[derive(Clone, Debug)]
enum Piece {
    Run(Run),
    /// The backup GPT.
    Backup,
    Unused,
}

/// The disk of an image.
///
/// Memory: 24 bytes for each run of grains, the unpacked blocks that it was given room for, and two blocks for each core.
pub struct DiskView {
    resolved: Resolved,
    /// Sorted by target, without overlaps.
    runs: Vec<Run>,
    cache: Recent<ImageError>,
    readers: Readers,
    backup: Option<(u64, Vec<u8>)>,
}

impl fmt::Debug for DiskView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, runs) = (self.bytes(), self.runs.len());
        f.debug_struct("DiskView").field("bytes", &bytes).field("runs", &runs).finish_non_exhaustive()
    }
}

impl DiskView {
    /// The disk of `resolved`. Unpacked blocks may take `cache_bytes` of memory, but four blocks are always kept.
    ///
    /// # Errors
    /// [`ImageError`] if the head of the disk cannot be read, which decides what the backup GPT is.
    pub fn new(resolved: Resolved, cache_bytes: usize) -> Result<Self, ImageError> {
        let header = resolved.header();
        let mut runs = Vec::with_capacity(usize::try_from(resolved.pieces()).unwrap_or(0));
        for block in 0..header.blocks {
            let places = resolved.block_places(BlockNo(block));
            runs.extend(places.map(|place| Run {
                target: place.target,
                block,
                source: place.source,
                grains: place.grains,
            }));
        }
        runs.sort_unstable_by_key(|run| run.target);
        let cache = Recent::new(cache_bytes.max(4 * header.block as usize));
        let (sector, bytes) = (header.sector, header.disk_bytes);
        let mut view = Self { resolved, runs, cache, readers: Readers::new(), backup: None };
        let path = view.path().to_owned();
        let backup = BackupTable::of_disk(&path, sector, bytes, |range| {
            let mut out = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
            let read = view.read_at(range.start, &mut out).map(|()| out);
            read.map_err(|error| Arc::into_inner(error).expect("nobody else reads yet"))
        })?;
        view.backup = backup.at;
        Ok(view)
    }

    /// The image.
    #[must_use]
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// The size of the disk in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.resolved.header().disk_bytes
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`ImageError`] naming the block that is damaged or cannot be read.
    ///
    /// # Panics
    /// If the range is not within the disk.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Arc<ImageError>> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.bytes());
        let end = end.expect("the caller keeps within the disk");
        let mut rest = buffer;
        for (range, piece) in self.pieces(offset..end) {
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let (out, behind) = rest.split_at_mut(len);
            rest = behind;
            self.fill(&piece, range.start, out)?;
        }
        Ok(())
    }

    fn fill(&self, piece: &Piece, at: u64, out: &mut [u8]) -> Result<(), Arc<ImageError>> {
        match (piece, &self.backup) {
            (Piece::Run(run), _) => match self.resolved.content(BlockNo(run.block)) {
                Content::Fill { pattern } => {
                    // Places are whole grains, so a pattern begins anew at each multiple of eight bytes of the disk.
                    let phase = usize::try_from(at % 8).unwrap_or(0);
                    let bytes = pattern.to_le_bytes();
                    out.iter_mut().zip(bytes.iter().cycle().skip(phase)).for_each(|(to, from)| *to = *from);
                }
                Content::Stored { .. } => {
                    let grain = u64::from(self.resolved.header().grain);
                    let from = u64::from(run.source) * grain + (at - run.target * grain);
                    let from = usize::try_from(from).unwrap_or(usize::MAX);
                    let raw = self.unpacked(run.block)?;
                    out.copy_from_slice(&raw[from..from + out.len()]);
                }
            },
            (Piece::Backup, Some((start, bytes))) => {
                let from = usize::try_from(at - start).unwrap_or(usize::MAX);
                out.copy_from_slice(&bytes[from..from + out.len()]);
            }
            _ => out.fill(0),
        }
        Ok(())
    }

    fn unpacked(&self, block: u32) -> Result<Arc<[u8]>, Arc<ImageError>> {
        self.cache.get(block.into(), || {
            let mut reader = self.readers.take();
            let raw = self.resolved.unpack(BlockNo(block), &mut reader).map(|raw| self.cache.piece(raw));
            self.readers.give_back(reader);
            raw
        })
    }

    /// What `range` is made of, in order and without gaps; neighbours differ. The range must be within the disk.
    pub fn allocations(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Allocation)> {
        let mut pieces = self.pieces(range).map(|(range, piece)| (range, self.allocation(&piece))).peekable();
        core::iter::from_fn(move || {
            let (mut range, kind) = pieces.next()?;
            while let Some((next, _)) = pieces.next_if(|(_, next)| *next == kind) {
                range.end = next.end;
            }
            Some((range, kind))
        })
    }

    fn allocation(&self, piece: &Piece) -> Allocation {
        match piece {
            Piece::Run(run) => match self.resolved.content(BlockNo(run.block)) {
                Content::Fill { pattern: 0 } => Allocation::Zero,
                _ => Allocation::Data,
            },
            Piece::Backup => Allocation::Data,
            Piece::Unused => Allocation::Unused,
        }
    }

    /// Has the store read ahead the blocks of `range`, as far as they are stored.
    pub fn prefetch(&self, range: Range<u64>) {
        let mut last = None;
        for (_, piece) in self.pieces(range) {
            let Piece::Run(run) = piece else { continue };
            if let Some(stored) = self.resolved.stored(BlockNo(run.block)).filter(|_| last != Some(run.block)) {
                let end = stored.offset + u64::from(stored.stored_len);
                self.resolved.layer(stored.layer).prefetch(stored.offset..end);
            }
            last = Some(run.block);
        }
    }

    fn path(&self) -> &Path {
        // The newest layer is the last one, and there is always one.
        self.resolved.path(self.resolved.newest())
    }

    /// Cuts `range` where runs and the backup GPT begin and end.
    fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Piece)> {
        let grain = u64::from(self.resolved.header().grain);
        let end_of = move |run: &Run| (run.target + u64::from(run.grains)) * grain;
        let backup = self.backup.as_ref().map(|(at, bytes)| *at..*at + bytes.len() as u64);
        let mut next = self.runs.partition_point(|run| end_of(run) <= range.start);
        let mut at = range.start;
        core::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let start = at;
            let mut end = range.end;
            let mut piece = Piece::Unused;
            while self.runs.get(next).is_some_and(|run| end_of(run) <= start) {
                next += 1;
            }
            if let Some(run) = self.runs.get(next) {
                if run.target * grain <= start {
                    piece = Piece::Run(*run);
                    end = end.min(end_of(run));
                } else {
                    end = end.min(run.target * grain);
                }
            }
            match &backup {
                Some(backup) if backup.contains(&start) => {
                    piece = Piece::Backup;
                    end = range.end.min(backup.end);
                }
                Some(backup) if backup.start > start => end = end.min(backup.start),
                _ => {}
            }
            at = end;
            Some((start..end, piece))
        })
    }
}

/// The buffers of those who unpack, one for each core: unpacking by more threads at once would take memory and no less time.
struct Readers {
    free: Mutex<Vec<BlockReader>>,
    returned: Condvar,
}

impl Readers {
    fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let free = core::iter::repeat_with(BlockReader::default).take(cores).collect();
        Self { free: Mutex::new(free), returned: Condvar::new() }
    }

    fn take(&self) -> BlockReader {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match free.pop() {
                Some(reader) => return reader,
                None => free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn give_back(&self, reader: BlockReader) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        self.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateOptions, ExportOptions, Image, create, export};
    use proptest::prelude::*;

    /// A disk of three layers with text, zeros, a pattern and a hole, 8 MiB and a short last grain.
    fn layered(dir: &Path) -> (DiskView, Vec<u8>) {
        let path = |name: &str| dir.join(name);
        let mut disk = vec![0; (8 << 20) + 512];
        disk[..3 << 20].copy_from_slice(&b"monday and tuesday".repeat(200_000)[..3 << 20]);
        blake3::Hasher::new().finalize_xof().fill(&mut disk[6 << 20..7 << 20]);
        disk[4 << 20..5 << 20].copy_from_slice(&b"\x55\xaa\x01\x02\x03\x04\x05\x06".repeat(1 << 17));
        let mut parent = None;
        for (day, change) in [(0, 0), (1, 70_000), (2, 8 << 20)] {
            disk[change..change + 300].fill(day);
            std::fs::write(path("disk"), &disk).unwrap();
            let output = path(&format!("{day}.slide"));
            let options = CreateOptions { parent, ..CreateOptions::new(&path("disk"), &output) };
            create(&options, |_| ()).unwrap();
            parent = Some(output);
        }
        let image = path("2.slide");
        export(&ExportOptions { image: image.clone(), to: path("out"), verify: None }, |_| ()).unwrap();
        let view = DiskView::new(Image::open(&image).unwrap().resolve().unwrap(), 0).unwrap();
        (view, std::fs::read(path("out")).unwrap())
    }

    #[test]
    fn any_range_reads_as_the_exported_file_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (view, file) = layered(dir.path());
        assert_eq!(view.bytes(), file.len() as u64);
        let mut runner = proptest::test_runner::TestRunner::default();
        let ranges = (0..=file.len(), 0..3_000_000_usize);
        runner
            .run(&ranges, |(start, len)| {
                let end = (start + len).min(file.len());
                let mut out = vec![0xff; end - start];
                view.read_at(start as u64, &mut out).unwrap();
                prop_assert!(out == file[start..end], "{start}..{end}");
                let mut at = start as u64;
                for (range, kind) in view.allocations(start as u64..end as u64) {
                    prop_assert_eq!(range.start, at);
                    at = range.end;
                    let bytes = &file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
                    prop_assert!(kind == Allocation::Data || bytes.iter().all(|byte| *byte == 0));
                }
                prop_assert_eq!(at, end as u64);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_damaged_block_is_named_each_time_and_the_rest_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (view, file) = layered(dir.path());
        let grain = view.resolved().header().grain as usize;
        let in_head = view.runs.first().unwrap().block;
        let is_stored = |block: &u32| view.resolved().stored(BlockNo(*block)).is_some();
        let middle = (6 << 20) / grain as u64..(7 << 20) / grain as u64;
        let is_inside = |block: &u32| view.runs.iter().all(|run| run.block != *block || middle.contains(&run.target));
        let mut blocks = (0..view.resolved().header().blocks).filter(is_stored);
        let other = blocks.find(is_inside).unwrap();
        let damaged = |block: u32| {
            let stored = view.resolved().stored(BlockNo(block)).unwrap();
            let path = view.resolved().path(stored.layer);
            let mut bytes = std::fs::read(path).unwrap();
            bytes[usize::try_from(stored.offset).unwrap() + 40] ^= 1;
            std::fs::write(path, bytes).unwrap();
            DiskView::new(Image::open(&dir.path().join("2.slide")).unwrap().resolve().unwrap(), 0)
        };
        let half = damaged(other).unwrap();
        let (mut good, mut bad) = (0, 0);
        for range in (0..file.len()).step_by(grain).map(|at| at..file.len().min(at + grain)) {
            let at = range.start as u64;
            let mut pieces = half.pieces(at..range.end as u64);
            let in_block = pieces.any(|(_, piece)| matches!(piece, Piece::Run(run) if run.block == other));
            let mut out = vec![0xff; range.len()];
            for _ in 0..2 {
                match half.read_at(at, &mut out) {
                    Ok(()) => {
                        assert!(!in_block && out == file[range.clone()], "{range:?}");
                        good += 1;
                    }
                    Err(error) => {
                        assert!(in_block && matches!(*error, ImageError::Block { .. }), "{range:?}: {error}");
                        bad += 1;
                    }
                }
            }
        }
        assert!(good > 0 && bad > 0, "{good} good, {bad} bad");
        let error = damaged(in_head).unwrap_err();
        assert!(matches!(error, ImageError::Block { .. }), "the head is read to know the table: {error}");
    }
}
