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
use crate::manifest::check_geometry;
use crate::sector::{self, Proof};
use crate::source::{DiskSource, is_same_file, names_a_device};
use crate::used::{self, DiskReport};
use slidecast_proto::units::{BLOCK_MAX, GRAIN_MIN, MAX_BLOCKS};
use std::path::{Path, PathBuf};

/// The longest name of a new file: with what it is called while it passes, no name is longer than 255 bytes.
const MAX_OUTPUT_NAME: usize = 220;
/// The sector of a disk in a file of which nothing proves another.
const DEFAULT_SECTOR: u32 = 512;

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

/// Finds out what of the source is in use, and settles the sizes.
pub(super) fn prepare<'a>(
    source: &'a dyn DiskSource,
    options: &CreateOptions,
    parent: Option<&Image>,
) -> Result<Job<'a>, ImageError> {
    let path = source.path();
    let bytes = source.bytes();
    let proof = match source.sector() {
        Some(_) => None,
        None => sector::proven(source, bytes).map_err(ImageError::io(Operation::Open, path, None))?,
    };
    let mut sector_note = None;
    let sector = match (options.sector, source.sector(), proof) {
        (Some(asked), Some(known), _) if asked != known => {
            return Err(ImageError::Size {
                what: "the sectors of a device are those that the kernel says, and those of a VHDX are what the file says",
            });
        }
        (_, Some(sector), _) => sector,
        (Some(sector), None, proof) => {
            if let Some(Proof { sector: proven, by }) = proof.filter(|proof| proof.sector != sector) {
                sector_note =
                    Some(format!("sectors of {sector} bytes, as asked for; {proven} would be taken because of {by}"));
            }
            sector
        }
        (None, None, Some(Proof { sector, by })) => {
            if sector != DEFAULT_SECTOR {
                let path = path.display();
                sector_note = Some(format!("{path} is taken to have sectors of {sector} bytes because of {by}"));
            }
            sector
        }
        // Nothing says anything else: it is the disk of its parent.
        (None, None, None) => parent.map_or(DEFAULT_SECTOR, |parent| parent.header().sector),
    };
    let survey = used::scan_with(source, bytes, sector, source.unused());
    let mut notes = survey.all_notes();
    notes.extend(sector_note);
    notes.extend(source.notes());
    let (mut grain, mut block);
    if let Some(parent) = parent {
        let header = parent.header();
        (grain, block) = (header.grain, header.block);
        for (what, parent, asked) in [("grain", grain, options.grain), ("block size", block, options.block)] {
            if let Some(asked) = asked.filter(|asked| *asked != parent) {
                return Err(ImageError::Inherited { what, parent: parent.into(), asked: asked.into() });
            }
        }
        if sector != header.sector {
            let (source, parent) = (sector.into(), header.sector.into());
            return Err(ImageError::Unlike { path: path.to_owned(), what: "sector", source, parent });
        }
        let before = header.disk_bytes;
        if before != bytes {
            let how = if bytes > before { "grown" } else { "shrunk" };
            notes.push(format!("the disk has {how} since its parent was made, from {before} to {bytes} bytes"));
        }
    } else {
        grain = options.grain.unwrap_or(GRAIN_MIN);
        block = options.block.unwrap_or(DEFAULT_BLOCK.max(grain));
    }
    check_geometry(bytes, sector, grain, block).map_err(|what| ImageError::Source {
        path: path.to_owned(),
        bytes,
        sector,
        what,
    })?;
    let free_of = |grain: u32| Free::of(&survey, grain.into(), bytes);
    let count = |free: &Free, grain: u32| {
        scan::to_be_read(source, free, grain.into()).map_err(ImageError::io(Operation::Read, path, None))
    };
    let mut free = free_of(grain);
    let mut most = count(&free, grain)?;
    let asked = (grain, block);
    if parent.is_none() {
        while most > INDEX_BYTES / GRAIN_BYTES && grain < BLOCK_MAX {
            grain *= 2;
            free = free_of(grain);
            most = count(&free, grain)?;
        }
        block = block.max(grain);
        while bytes / u64::from(block) > u64::from(MAX_BLOCKS / 2) && block < BLOCK_MAX {
            block *= 2;
        }
        if grain != asked.0 {
            notes.push(format!("the grain is {grain} bytes: a finer one would need more memory than 2 GiB"));
        }
        if block != asked.1 {
            notes.push(format!("the block size is {block} bytes, because of the grain or the number of blocks"));
        }
    } else if most > INDEX_BYTES / GRAIN_BYTES {
        notes.push("the disk is too large for full deduplication with the grain of its parent".into());
    }
    let sizes = Sizes { grain, block, least_run: options.dedup_run };
    Ok(Job { source, sector, survey, free, sizes, most, notes })
}
