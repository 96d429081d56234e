//! Making a layer: the source is read once, looked at, compared with the parent, deduplicated, packed and written.
//!
//! ```text
//! reader --chunks--> workers (fill? hash) --in order--> decide --blocks--> workers (BLAKE3, pack) --in order--> writer
//! ```
//!
//! Every arrow is bounded. Memory: at most 2 GiB for the deduplication index (a coarser grain is chosen where a finer one
//! would take more), [`CHUNKS`](pipeline::CHUNKS) chunks of a megabyte, four blocks for each core, and the extent map.
//! What comes out depends on the input and the options alone, not on timing, and neither does the layer id.

mod finish;
mod grain;
mod index;
mod layers;
mod map;
mod options;
mod output;
mod parent;
mod pipeline;
mod pool;
mod prepare;
mod scan;
#[cfg(test)]
mod tests;

pub(crate) use finish::live_hash;
pub use layers::create_layers;
pub use options::{CreateOptions, CreateProgress, CreateReport};

use crate::chain::Image;
use crate::error::{ImageError, Operation};
use crate::format::{MAX_LAYERS, Superblock};
use crate::layer::Layer;
use crate::room;
use crate::source::{self, Asked, DiskSource, Padded, is_same_file};
use map::Mapper;
use output::Output;
use parent::Parent;
use prepare::{DEFAULT_SECTOR, Job, check_output, check_sizes, parent_name, prepare, sector_of};
use slidecast_proto::units::Hash;
use std::path::Path;

/// The block size that is chosen when none is given, in bytes.
pub const DEFAULT_BLOCK: u32 = 1 << 20;
/// The shortest run of repeated grains that is not stored again, in bytes, when none is given.
pub const DEFAULT_DEDUP_RUN: u64 = 16 << 10;
/// The longest such run that may be asked for, in bytes.
pub const MAX_DEDUP_RUN: u64 = 16 << 20;

/// The least that any image takes: superblock, manifest and footer.
const LEAST_FILE: u64 = 3 * 4096;

/// Makes a layer of a disk.
///
/// The file appears under its name when it is complete and safely on the disk, or not at all. `progress` is called from
/// this thread about once for every megabyte.
///
/// # Errors
/// [`ImageError`] saying what could not be read or written, or what does not fit together.
pub fn create(options: &CreateOptions, progress: impl Fn(CreateProgress)) -> Result<CreateReport, ImageError> {
    check_output(&options.output, std::slice::from_ref(&options.source))?;
    check_sizes(options)?;
    let source = opened(options, &progress)?;
    create_from(&*source, options, progress)
}

/// Opens the source that `options` name.
fn opened(options: &CreateOptions, progress: &impl Fn(CreateProgress)) -> Result<Box<dyn DiskSource>, ImageError> {
    // What has to be unpacked lies where the image will be: there is room for it, more likely than anywhere else.
    let spool = options.output.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let preparing = |done_bytes, all_bytes| progress(CreateProgress::Preparing { done_bytes, all_bytes });
    let (format, snapshot, table) = (options.format.as_deref(), options.snapshot.as_deref(), options.table.as_deref());
    source::open(
        &options.source,
        &Asked {
            format,
            snapshot,
            table,
            partition: options.partition,
            disk: options.disk.as_deref(),
            spool,
            preparing: &preparing,
        },
    )
}

/// Makes a layer of the disk that `source` gives, as [`create`] does of a path. The source in `options` is not looked at.
///
/// # Errors
/// [`ImageError`] saying what could not be read or written, or what does not fit together.
pub fn create_from(
    source: &dyn DiskSource,
    options: &CreateOptions,
    progress: impl Fn(CreateProgress),
) -> Result<CreateReport, ImageError> {
    create_on(source, false, options, progress)
}

/// As [`create_from`]; `is_below` where the parent is the image of the disk below `source`, of which nothing has to be read again then.
fn create_on(
    source: &dyn DiskSource,
    is_below: bool,
    options: &CreateOptions,
    progress: impl Fn(CreateProgress),
) -> Result<CreateReport, ImageError> {
    check_output(&options.output, &source.files())?;
    check_sizes(options)?;
    let parent = options.parent.as_deref().map(|path| Image::open_in(options.store, path)).transpose()?;
    let parent_resolved = parent.as_ref().map(Image::resolve).transpose()?;
    let mut notes = Vec::new();
    let sector = sector_of(&Padded::to(source, DEFAULT_SECTOR), options, parent.as_ref(), &mut notes)?;
    let source = &Padded::to(source, sector);
    let job = prepare(source, sector, options, (parent.as_ref(), is_below), notes)?;
    let layers = parent.as_ref().map_or(&[][..], Image::chain);
    let depth = depth_above(layers, &options.output)?;
    // What repeats, or packs well, takes next to nothing: the frame of the file is all that is surely needed.
    room::check(&options.output, false, LEAST_FILE, LEAST_FILE + job.most * u64::from(job.sizes.grain))?;
    let known = parent::index(layers, parent_resolved.as_ref(), job.most)?;
    let walk = (!layers.is_empty()).then(|| Parent::new(layers));
    let mapper = Mapper::new(job.sizes, depth, walk, known);
    let mut output = Output::begin(&options.output)?;
    let (mapped, rows, read_bytes) = pipeline::run(options, &job, mapper, &mut output, &progress)?;
    let change = source.change().map_err(ImageError::io(Operation::Read, source.path(), None))?;
    if let Some(what) = change.filter(|what| !options.allow_changes || *what == "size") {
        return Err(ImageError::Changed { path: source.path().to_owned(), what });
    }
    let superblock = superblock_of(&job, layers, depth, (mapped.index.len() - mapped.own_first) as u64)?;
    let totals = mapped.totals;
    let stored_bytes = rows.iter().map(|row| u64::from(row.stored_len())).sum();
    let parent_view = parent_resolved;
    let chain = parent.map_or_else(Vec::new, Image::into_chain);
    let finished = finish::finish(output, superblock, mapped, rows, chain, parent_view.as_ref(), &job)?;
    let mut notes = job.notes;
    notes.extend(options.parent.as_deref().and_then(|parent| not_beside(parent, &options.output)));
    let grain = u64::from(job.sizes.grain);
    Ok(CreateReport {
        layer: finished.layer,
        root: finished.root,
        disk_bytes: source.bytes(),
        grain: job.sizes.grain,
        block: job.sizes.block,
        blocks: finished.blocks,
        read_bytes,
        absent_bytes: totals.absent * grain,
        unused_bytes: totals.unused * grain,
        fill_bytes: totals.fill * grain,
        repeated_bytes: totals.repeated * grain,
        new_bytes: totals.stored * grain,
        stored_bytes,
        file_bytes: finished.file_bytes,
        notes,
    })
}

/// How many layers the one in `output` builds on.
fn depth_above(layers: &[Layer], output: &Path) -> Result<u32, ImageError> {
    if layers.iter().any(|layer| is_same_file(&layer.core.path, output)) {
        return Err(ImageError::Output { path: output.to_owned(), what: "it is a layer that this one builds on" });
    }
    let depth = u32::try_from(layers.len()).ok().filter(|depth| *depth < MAX_LAYERS);
    depth.ok_or(ImageError::TooMany { what: "layers" })
}

/// The superblock of the new layer, as far as it is known before its end is written.
fn superblock_of(job: &Job<'_>, layers: &[Layer], depth: u32, stored_grains: u64) -> Result<Superblock, ImageError> {
    Ok(Superblock {
        table: job.survey.table,
        sector: job.sector,
        disk_bytes: job.source.bytes(),
        grain: job.sizes.grain,
        block: job.sizes.block,
        depth,
        stored_grains,
        footer: 0,
        layer: Hash::default(),
        parent: layers.last().map_or(Hash::default(), |layer| layer.core.superblock.layer),
        parent_name: layers.last().map_or(Ok(String::new()), |layer| parent_name(&layer.core.path))?,
    })
}

/// Says so where a finished layer does not find its parent, because it was made in another folder.
fn not_beside(parent: &Path, output: &Path) -> Option<String> {
    match Image::open(output) {
        Err(ImageError::ParentMissing { .. } | ImageError::ParentReplaced { .. }) => {
            let (output, parent) = (output.display(), parent.display());
            Some(format!("{output} can be used once {parent} and the layers below it lie in the same folder"))
        }
        _ => None,
    }
}
