//! Writing an image out as a raw disk: to a file, sparse, or to a block device.

mod device;
mod file;

use crate::chain::Image;
use crate::error::{ImageError, Operation};
use crate::format;
use crate::manifest::{Content, ManifestHeader, Place};
use crate::resolved::{BlockReader, Resolved};
use crate::source::{backing_file, is_same_file, names_a_device};
use crate::work::{Steps, in_parallel};
use core::ops::Range;
use slidecast_proto::units::{BlockNo, Hash};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The most bytes of a fill that are written at once.
const FILL_BYTES: usize = 1 << 20;
/// A file that is no longer than this may be a key.
const MAX_KEY_BYTES: u64 = 256;

/// What to write out, and where to.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The file of the newest layer.
    pub image: PathBuf,
    /// A file that is made or replaced, or a block device.
    pub to: PathBuf,
    /// Read everything back and compare it. Without a word: on a device, not on a file.
    pub verify: Option<bool>,
}

/// How far writing out has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportProgress {
    /// Bytes of the disk written, fills included, and bytes read back.
    pub done_bytes: u64,
    /// Bytes of all places; twice that if they are read back.
    pub raw_bytes: u64,
}

/// What was written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportReport {
    /// The manifest root of the image.
    pub root: Hash,
    /// The size of the disk in bytes.
    pub disk_bytes: u64,
    /// Bytes of all places, fills included.
    pub raw_bytes: u64,
    /// The size of the destination in bytes.
    pub destination_bytes: u64,
    /// Everything was read back and is equal.
    pub verified: bool,
    /// What an operator should know: a partition table that was not fitted, or that the kernel did not read again.
    pub notes: Vec<String>,
}

/// Where the blocks of an image are written to.
trait Disk: Sync {
    /// Writes `bytes` at `at`.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Repeats `pattern` in `range`.
    fn fill(&self, pattern: u64, range: Range<u64>) -> io::Result<()>;
}

/// Writes the disk of an image to a file of its size, in which zeros and unused space are holes and of whose old content
/// nothing is left, or to a block device that is not in use. A GPT is fitted to the size of the device. Everything is
/// flushed in the end.
///
/// A new file appears when it is complete; one that was there before is emptied and removed if it could not be completed.
/// A device has zeros at its front and its end until all else is written (and read back); sector 0 comes last.
///
/// # Errors
/// [`ImageError`] saying what could not be read or written, or differed when it was read back.
pub fn export(options: &ExportOptions, progress: impl Fn(ExportProgress)) -> Result<ExportReport, ImageError> {
    export_image(&Image::open(&options.image)?, options, progress)
}

/// Writes the disk of `image` out, as [`export`] does of the image that `options` name.
///
/// # Errors
/// [`ImageError`] saying what could not be read or written, or differed when it was read back.
pub fn export_image(
    image: &Image,
    options: &ExportOptions,
    progress: impl Fn(ExportProgress),
) -> Result<ExportReport, ImageError> {
    let ExportOptions { to, verify, .. } = options;
    let refused = |what| ImageError::Output { path: to.clone(), what };
    let lies_on = backing_file(to);
    if image.layers().any(|layer| {
        is_same_file(&layer.path, to) || lies_on.as_deref().is_some_and(|file| is_same_file(&layer.path, file))
    }) {
        return Err(refused("it is a layer of the image"));
    }
    match std::fs::metadata(to).map(|metadata| metadata.file_type()) {
        Ok(kind) if kind.is_block_device() => device::export(image, to, verify.unwrap_or(true), progress),
        Ok(kind) if !kind.is_file() => Err(refused("it is neither a file nor a block device")),
        Err(_) if names_a_device(to) => Err(refused("there is no such device")),
        Ok(_) if looks_like_a_key(to) => Err(refused("it looks like a key file, which would be lost")),
        Ok(_) if format::is_layer(to) => Err(refused("it is an image, which would be lost: remove it first")),
        _ => file::export(image, to, verify.unwrap_or(false), progress),
    }
}

/// Whether a short file has a row of at least 64 hexadecimal digits.
pub(crate) fn looks_like_a_key(path: &Path) -> bool {
    let mut text = Vec::new();
    let short = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_KEY_BYTES);
    if !short {
        return false;
    }
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_KEY_BYTES).read_to_end(&mut text));
    read.is_ok() && text.split(|byte| !byte.is_ascii_hexdigit()).any(|digits| digits.len() >= 64)
}

/// Writes all blocks to `disk`, all cores at once. `done` is told the bytes of each.
fn write_blocks(resolved: &Resolved, disk: &dyn Disk, path: &Path, done: impl FnMut(u64)) -> Result<(), ImageError> {
    each_block(resolved, done, |block, raw| {
        let header = resolved.header();
        for place in resolved.block_places(block) {
            let range = on_disk(header, place);
            let at = range.start;
            let written = match resolved.content(block) {
                Content::Fill { pattern } => disk.fill(pattern, range),
                Content::Stored { .. } => disk.write(at, part_of(raw, header, place, &range)),
            };
            written.map_err(ImageError::io(Operation::Write, path, at))?;
        }
        Ok(())
    })
}

/// Unpacks all blocks, all cores at once, and gives each to `work`; fills are empty. `done` is told the bytes of its places.
fn each_block(
    resolved: &Resolved,
    done: impl FnMut(u64),
    work: impl Fn(BlockNo, &[u8]) -> Result<(), ImageError> + Sync,
) -> Result<(), ImageError> {
    let header = resolved.header();
    in_parallel(
        Steps { count: header.blocks as usize },
        BlockReader::default,
        |reader, at| {
            let block = BlockNo(u32::try_from(at).unwrap_or(u32::MAX));
            work(block, resolved.unpack(block, reader)?)?;
            let ranges = resolved.block_places(block).map(|place| on_disk(header, place));
            Ok(ranges.map(|range| range.end - range.start).sum())
        },
        done,
    )
}

/// The bytes of a block that belong in `range`, which is a place of it.
fn part_of<'a>(raw: &'a [u8], header: &ManifestHeader, place: Place, range: &Range<u64>) -> &'a [u8] {
    let from = place.source as usize * header.grain as usize;
    &raw[from..from + to_len(range.end - range.start)]
}

/// Where a place is on the disk, in bytes: the last grain may be short.
fn on_disk(header: &ManifestHeader, place: Place) -> Range<u64> {
    let grain = u64::from(header.grain);
    let at = place.target * grain;
    at..(at + u64::from(place.grains) * grain).min(header.disk_bytes)
}

/// Lengths of what is in memory.
fn to_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Repeats `pattern` in a file by writing it.
fn write_pattern(file: &std::fs::File, pattern: u64, range: Range<u64>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let piece = FILL_BYTES.min(to_len(range.end - range.start));
    let bytes = pattern.to_le_bytes().repeat(piece.div_ceil(8));
    let mut at = range.start;
    while at < range.end {
        let step = piece.min(to_len(range.end - at));
        file.write_all_at(&bytes[..step], at)?;
        at += step as u64;
    }
    Ok(())
}
