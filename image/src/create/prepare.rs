//! What is settled before the first byte is read: whether the output may be made, the sizes, and what of the source is read.

use super::CreateOptions;
use super::index::{GRAIN_BYTES, INDEX_BYTES};
use super::map::Sizes;
use super::scan::{self, Free};
use super::{DEFAULT_BLOCK, MAX_DEDUP_RUN};
use crate::chain::Image;
use crate::error::{ImageError, Operation};
use crate::export::looks_like_a_key;
use crate::format::MAX_NAME_BYTES;
use crate::manifest::{ManifestHeader, check_geometry};
use crate::sector::{self, Proof};
use crate::source::{DiskSource, is_same_file, names_a_device};
use crate::used::{self, DiskReport, Known};
use slidecast_proto::units::{BLOCK_MAX, GRAIN_MIN, MAX_BLOCKS};
use std::path::{Path, PathBuf};

/// The longest name of a new file: with what it is called while it passes, no name is longer than 255 bytes.
const MAX_OUTPUT_NAME: usize = 220;
/// The sector of a disk in a file of which nothing proves another.
pub(super) const DEFAULT_SECTOR: u32 = 512;

/// What is settled before the source is read.
pub(super) struct Job<'a> {
    pub(super) source: &'a dyn DiskSource,
    /// The logical sector of the disk in bytes.
    pub(super) sector: u32,
    pub(super) survey: DiskReport,
    pub(super) free: Free,
    pub(super) sizes: Sizes,
    /// The most grains that may be stored.
    pub(super) most: u64,
    pub(super) notes: Vec<String>,
}

/// Whether the file `output` may be made, or replaced, from a source that is read from `files`.
pub(super) fn check_output(output: &Path, files: &[PathBuf]) -> Result<(), ImageError> {
    let path = output.to_owned();
    if files.iter().any(|file| is_same_file(file, output)) {
        return Err(ImageError::Output { path, what: "it is the source" });
    }
    let Some(name) = output.file_name() else {
        return Err(ImageError::Output { path, what: "it has no name" });
    };
    // The parent's name is kept in its children, and a name must not fail at the end.
    if name.len() > MAX_OUTPUT_NAME {
        return Err(ImageError::Output { path, what: "its name is longer than 220 bytes" });
    }
    if output.exists() && looks_like_a_key(output) {
        return Err(ImageError::Output { path, what: "it looks like a key file, which would be lost" });
    }
    match std::fs::metadata(output) {
        Ok(metadata) if !metadata.is_file() => Err(ImageError::Output { path, what: "it is no regular file" }),
        Err(_) if names_a_device(output) => Err(ImageError::Output { path, what: "an image is a regular file" }),
        _ => Ok(()),
    }
}

/// Whether the sizes that were asked for are possible at all.
pub(super) fn check_sizes(options: &CreateOptions) -> Result<(), ImageError> {
    let size = |what| ImageError::Size { what };
    if !(1..=MAX_DEDUP_RUN).contains(&options.dedup_run) {
        return Err(size("the least run to deduplicate is 1 byte to 16 MiB"));
    }
    let grain = options.grain.unwrap_or(GRAIN_MIN);
    let block = options.block.unwrap_or(DEFAULT_BLOCK.max(grain));
    check_geometry(1 << 30, 512, grain, block)
        .map_err(|_| size("a block is a power of two, 64 KiB to 16 MiB; a grain is one too, 4 KiB up to the block"))
}

pub(super) fn parent_name(path: &Path) -> Result<String, ImageError> {
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.len() <= MAX_NAME_BYTES);
    let what = "its name is too long, or no text";
    name.map(str::to_owned).ok_or_else(|| ImageError::Parent { path: path.to_owned(), what })
}

/// Finds out what of the source, which has sectors of `sector` bytes, is in use, and settles the sizes. The parent may be the image of
/// the disk below the source.
pub(super) fn prepare<'a>(
    source: &'a dyn DiskSource,
    sector: u32,
    options: &CreateOptions,
    (parent, is_below): (Option<&Image>, bool),
    mut notes: Vec<String>,
) -> Result<Job<'a>, ImageError> {
    let (path, bytes) = (source.path(), source.bytes());
    let survey = used::scan_with(source, bytes, sector, Known { unused: source.unused(), contents: source.contents() });
    notes.splice(0..0, survey.all_notes());
    notes.extend(source.notes());
    let (grain, block) = match parent {
        Some(parent) => inherited(source, sector, options, parent.header(), &mut notes)?,
        None => {
            let grain = options.grain.unwrap_or(GRAIN_MIN);
            (grain, options.block.unwrap_or(DEFAULT_BLOCK.max(grain)))
        }
    };
    check_geometry(bytes, sector, grain, block).map_err(|what| ImageError::Source {
        path: path.to_owned(),
        bytes,
        sector,
        what,
    })?;
    let mut sizes = Sizes { grain, block, least_run: options.dedup_run };
    let (free, most) = coarsened(source, &survey, &mut sizes, (parent, is_below), &mut notes)?;
    Ok(Job { source, sector, survey, free, sizes, most, notes })
}

/// The logical sector of the disk in bytes: what the source says, what is asked for, what is proven, or that of the parent.
pub(super) fn sector_of(
    source: &dyn DiskSource,
    options: &CreateOptions,
    parent: Option<&Image>,
    notes: &mut Vec<String>,
) -> Result<u32, ImageError> {
    let path = source.path();
    if let Some(known) = source.sector() {
        if options.sector.is_some_and(|asked| asked != known) {
            return Err(ImageError::Size {
                what: "the sectors of a device are those that the kernel says, and those of a VHDX are what the file says",
            });
        }
        return Ok(known);
    }
    let proof = sector::proven(source, source.bytes()).map_err(ImageError::io(Operation::Open, path, None))?;
    Ok(match (options.sector, proof) {
        (Some(sector), proof) => {
            if let Some(Proof { sector: proven, by }) = proof.filter(|proof| proof.sector != sector) {
                notes.push(format!("sectors of {sector} bytes, as asked for; {proven} would be taken because of {by}"));
            }
            sector
        }
        (None, Some(Proof { sector, by })) => {
            if sector != DEFAULT_SECTOR {
                let path = path.display();
                notes.push(format!("{path} is taken to have sectors of {sector} bytes because of {by}"));
            }
            sector
        }
        // Nothing says anything else: it is the disk of its parent.
        (None, None) => parent.map_or(DEFAULT_SECTOR, |parent| parent.header().sector),
    })
}

/// Grain and block size of the parent, unless others are asked for or the disk is unlike it.
fn inherited(
    source: &dyn DiskSource,
    sector: u32,
    options: &CreateOptions,
    parent: &ManifestHeader,
    notes: &mut Vec<String>,
) -> Result<(u32, u32), ImageError> {
    let (grain, block) = (parent.grain, parent.block);
    for (what, parent, asked) in [("grain", grain, options.grain), ("block size", block, options.block)] {
        if let Some(asked) = asked.filter(|asked| *asked != parent) {
            return Err(ImageError::Inherited { what, parent: parent.into(), asked: asked.into() });
        }
    }
    if sector != parent.sector {
        let (path, source, parent) = (source.path().to_owned(), sector.into(), parent.sector.into());
        return Err(ImageError::Unlike { path, what: "sector", source, parent });
    }
    let (before, bytes) = (parent.disk_bytes, source.bytes());
    if before != bytes {
        let how = if bytes > before { "grown" } else { "shrunk" };
        notes.push(format!("the disk has {how} since its parent was made, from {before} to {bytes} bytes"));
    }
    Ok((grain, block))
}

/// The ranges that are not read, and the most grains that may be stored. The first layer of a disk for which the index of
/// grains, or the number of blocks, would be too large gets coarser `sizes`.
fn coarsened(
    source: &dyn DiskSource,
    survey: &DiskReport,
    sizes: &mut Sizes,
    (parent, is_below): (Option<&Image>, bool),
    notes: &mut Vec<String>,
) -> Result<(Free, u64), ImageError> {
    let (path, bytes) = (source.path(), source.bytes());
    let Sizes { mut grain, mut block, .. } = *sizes;
    let free_of = |grain: u32| Free::of(survey, grain.into(), bytes);
    let count = |free: &Free, grain: u32| {
        scan::to_be_read(source, free, grain.into()).map_err(ImageError::io(Operation::Read, path, None))
    };
    let mut free = free_of(grain);
    if let Some(parent) = parent.filter(|_| is_below) {
        let inherited = free.inherit(source, parent.chain(), grain.into());
        inherited.map_err(ImageError::io(Operation::Read, path, None))?;
    }
    let mut most = count(&free, grain)?;
    if parent.is_some() {
        if most > INDEX_BYTES / GRAIN_BYTES {
            notes.push("the disk is too large for full deduplication with the grain of its parent".into());
        }
        return Ok((free, most));
    }
    while most > INDEX_BYTES / GRAIN_BYTES && grain < BLOCK_MAX {
        grain *= 2;
        free = free_of(grain);
        most = count(&free, grain)?;
    }
    block = block.max(grain);
    while bytes / u64::from(block) > u64::from(MAX_BLOCKS / 2) && block < BLOCK_MAX {
        block *= 2;
    }
    if grain != sizes.grain {
        notes.push(format!("the grain is {grain} bytes: a finer one would need more memory than 2 GiB"));
    }
    if block != sizes.block {
        notes.push(format!("the block size is {block} bytes, because of the grain or the number of blocks"));
    }
    (sizes.grain, sizes.block) = (grain, block);
    Ok((free, most))
}
