//! Checking an image: all layers, every byte of them, every hash.

use crate::chain::Image;
use crate::create::live_hash;
use crate::error::{BlockFault, ImageError};
use crate::format::{BLOCK_HEADER_BYTES, GRAIN_HASH_BYTES, Section};
use crate::layer::{Layer, LiveHash};
use crate::part::live_runs;
use crate::resolved::{BlockReader, Resolved};
use crate::work::{Steps, in_parallel};
use core::ops::Range;
use slidecast_proto::units::{BlockNo, Hash};
use std::collections::HashMap;
use std::path::Path;

/// How far checking has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Payload bytes checked.
    pub done_bytes: u64,
    /// Payload bytes in all layers.
    pub stored_bytes: u64,
}

/// What was checked and found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// The manifest root.
    pub root: Hash,
    /// How many layers.
    pub layers: u32,
    /// How many blocks in all layers.
    pub blocks: u32,
    /// The bytes of their payloads.
    pub stored_bytes: u64,
    /// Their bytes, unpacked.
    pub raw_bytes: u64,
}

/// Checks what can be checked without reading payloads: superblocks, sections, footers, the chain, block headers, grain
/// hashes against their own hash, and that the layers give the manifest that the newest carries.
///
/// # Errors
/// [`ImageError`] naming the file and what is wrong with it.
pub fn verify_quick(path: &Path) -> Result<VerifyReport, ImageError> {
    let image = Image::open(path)?;
    let resolved = image.resolve()?;
    check_sections(&image)?;
    Ok(report(&image, &resolved))
}

/// Checks everything: what [`verify_quick`] checks, and of every block of every layer the checksum, that it unpacks, its
/// BLAKE3, the hashes of its grains and its live hash. On all cores; `progress` is called from this thread.
///
/// # Errors
/// [`ImageError`] naming the file and what is wrong with it.
pub fn verify(path: &Path, progress: impl Fn(VerifyProgress)) -> Result<VerifyReport, ImageError> {
    verify_image(&Image::open(path)?, progress)
}

/// Checks everything of `image`, as [`verify`] does of the image at a path.
///
/// # Errors
/// [`ImageError`] naming the file and what is wrong with it.
pub fn verify_image(image: &Image, progress: impl Fn(VerifyProgress)) -> Result<VerifyReport, ImageError> {
    let resolved = image.resolve()?;
    check_sections(image)?;
    let report = report(image, &resolved);
    let runs = partly_live(&resolved);
    let blocks: Vec<(usize, u32)> = image
        .chain()
        .iter()
        .enumerate()
        .flat_map(|(at, layer)| (0..rows(layer)).map(move |block| (at, block)))
        .collect();
    let mut done_bytes = 0;
    in_parallel(
        Steps { count: blocks.len() },
        BlockReader::default,
        |reader, step| {
            let (at, block) = blocks[step];
            let layer = &image.chain()[at];
            let raw = check_block(layer, block, reader)?;
            let key = (u32::try_from(at).unwrap_or(u32::MAX), block);
            if let Some(runs) = runs.get(&key) {
                let known = image.live().binary_search_by_key(&key, LiveHash::key).map(|at| image.live()[at].hash);
                if known != Ok(live_hash(raw, layer.core.superblock.grain, runs.iter().cloned())) {
                    return Err(layer.core.block_error(block, BlockFault::LiveHash));
                }
            }
            Ok(u64::from(layer.core.rows[block as usize].stored_len()))
        },
        |bytes| {
            done_bytes += bytes;
            progress(VerifyProgress { done_bytes, stored_bytes: report.stored_bytes });
        },
    )?;
    Ok(report)
}

fn rows(layer: &Layer) -> u32 {
    u32::try_from(layer.core.rows.len()).unwrap_or(u32::MAX)
}

fn report(image: &Image, resolved: &Resolved) -> VerifyReport {
    let mut report = VerifyReport { root: resolved.root(), layers: 0, blocks: 0, stored_bytes: 0, raw_bytes: 0 };
    for layer in image.layers() {
        report.layers += 1;
        report.blocks += layer.blocks;
        report.stored_bytes += layer.stored_bytes;
        report.raw_bytes += layer.raw_bytes;
    }
    report
}

/// What opening does not read: reports, block headers, grain hashes, and the live hashes and manifests of older layers.
fn check_sections(image: &Image) -> Result<(), ImageError> {
    image.report()?;
    image.chain().iter().try_for_each(check_layer)
}

fn check_layer(layer: &Layer) -> Result<(), ImageError> {
    let core = &layer.core;
    let mut header = [0; 64];
    debug_assert_eq!(header.len() as u64, BLOCK_HEADER_BYTES);
    for (block, row) in (0..).zip(&core.rows) {
        core.read_at(row.offset, &mut header)?;
        if header != row.block_header(block, core.raw_len(block)) {
            return Err(core.block_error(block, BlockFault::Header));
        }
    }
    let rest = [Section::GrainHashes, Section::LiveHashes, Section::Report, Section::Manifest];
    rest.into_iter().try_for_each(|section| core.read_section(layer.section(section), |_| Ok(())))
}

/// One block: payload, content, the hashes of its grains. Gives it unpacked.
fn check_block<'a>(layer: &Layer, block: u32, reader: &'a mut BlockReader) -> Result<&'a [u8], ImageError> {
    let core = &layer.core;
    let superblock = &core.superblock;
    let mut hashes = vec![0; superblock.grains_of(block) as usize * GRAIN_HASH_BYTES];
    let first = u64::from(block) * u64::from(superblock.block_grains());
    core.read_at(layer.section(Section::GrainHashes).offset + first * GRAIN_HASH_BYTES as u64, &mut hashes)?;
    let raw = reader.read(core, block)?;
    let grains = raw.chunks_exact(superblock.grain as usize);
    let good = grains
        .zip(hashes.chunks_exact(GRAIN_HASH_BYTES))
        .all(|(grain, hash)| blake3::hash(grain).as_bytes()[..GRAIN_HASH_BYTES] == *hash);
    if good { Ok(raw) } else { Err(core.block_error(block, BlockFault::GrainHash)) }
}

/// The live runs of all blocks that are partly live, by layer and block.
fn partly_live(resolved: &Resolved) -> HashMap<(u32, u32), Vec<Range<u32>>> {
    let mut out = HashMap::new();
    if resolved.live().is_empty() {
        return out;
    }
    for number in (0..resolved.header().blocks).map(BlockNo) {
        let Some(key) = resolved.origin(number) else { continue };
        if resolved.live().binary_search_by_key(&key, LiveHash::key).is_ok() {
            out.insert(key, live_runs(resolved.block_places(number)).collect());
        }
    }
    out
}
