//! Making a layer: the source is read once, looked at, compared with the parent, deduplicated, packed and written.
//!
//! ```text
//! reader --chunks--> workers (fill? hash) --in order--> decide --blocks--> workers (BLAKE3, pack) --in order--> writer
//! ```
//!
//! Every arrow is bounded. Memory: at most 2 GiB for the deduplication index (a coarser grain is chosen where a finer one
//! would take more), [`CHUNKS`] chunks of a megabyte, four blocks for each core, and the extent map.
//! What comes out depends on the input and the options alone, not on timing, and neither does the layer id.

mod grain;
mod index;
mod map;
mod output;
mod parent;
mod pool;
mod scan;

use crate::chain::Image;
use crate::codec::{Encoder, Packing};
use crate::container;
use crate::error::{ImageError, Operation};
use crate::export::looks_like_a_key;
use crate::format::{MAX_LAYERS, MAX_NAME_BYTES, Row, Section, SectionEntry, Superblock};
use crate::layer::{Layer, LayerFile, LiveHash, encode_live};
use crate::manifest::check_geometry;
use crate::part::live_runs;
use crate::report::Report;
use crate::resolved::{BlockReader, Resolved};
use crate::room;
use crate::sector::Proof;
use crate::source::{Source, is_same_file, names_a_device};
use crate::used::{self, DiskReport};
use core::ops::Range;
use grain::Grain;
use index::{GRAIN_BYTES, INDEX_BYTES};
use map::{Mapped, Mapper, Sizes};
use output::Output;
use parent::Parent;
use pool::{Looked, Packed, Pool};
use scan::{Free, Segment};
use slidecast_proto::units::{BLOCK_MAX, BlockNo, GRAIN_MIN, Hash, MAX_BLOCKS};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, available_parallelism, scope};

/// The block size that is chosen when none is given, in bytes.
pub const DEFAULT_BLOCK: u32 = 1 << 20;
/// The shortest run of repeated grains that is not stored again, in bytes, when none is given.
pub const DEFAULT_DEDUP_RUN: u64 = 16 << 10;
/// The longest such run that may be asked for, in bytes.
pub const MAX_DEDUP_RUN: u64 = 16 << 20;

/// The least that any image takes: superblock, manifest and footer.
const LEAST_FILE: u64 = 3 * 4096;
/// The sector of a disk in a file of which nothing proves another.
const DEFAULT_SECTOR: u32 = 512;

/// The longest name of a new file: with what it is called while it passes, no name is longer than 255 bytes.
const MAX_OUTPUT_NAME: usize = 220;

/// How much of the source is read at a time, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;
/// The most chunks that are on their way.
const CHUNKS: usize = 16;

/// What to make an image of, and how.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// A raw disk image or a block device.
    pub source: PathBuf,
    /// The file to make.
    pub output: PathBuf,
    /// The layer to build on.
    pub parent: Option<PathBuf>,
    /// The block size in bytes; a child keeps its parent's.
    pub block: Option<u32>,
    /// The grain in bytes; a child keeps its parent's.
    pub grain: Option<u32>,
    /// How blocks are packed.
    pub codec: Packing,
    /// Shorter runs of repeated grains, in bytes, are stored again.
    pub dedup_run: u64,
    /// The sector in bytes of the disk in a file, 512 or 4096; what its table proves, its parent's, or 512 where none is given.
    pub sector: Option<u32>,
    /// A file in a container format is imaged as it is.
    pub raw: bool,
    /// A source whose content changes meanwhile is no error.
    pub allow_changes: bool,
}

impl CreateOptions {
    /// A base of `source` in `output` with the usual sizes.
    #[must_use]
    pub fn new(source: &Path, output: &Path) -> Self {
        Self {
            source: source.to_owned(),
            output: output.to_owned(),
            parent: None,
            block: None,
            grain: None,
            codec: Packing::default(),
            dedup_run: DEFAULT_DEDUP_RUN,
            sector: None,
            raw: false,
            allow_changes: false,
        }
    }
}

/// How far making an image has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateProgress {
    /// How much of the disk is decided, in bytes.
    pub done_bytes: u64,
    /// The size of the disk in bytes.
    pub disk_bytes: u64,
    /// The bytes of the payloads written so far.
    pub stored_bytes: u64,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateReport {
    /// The id of the layer.
    pub layer: Hash,
    /// The manifest root of the image.
    pub root: Hash,
    /// The size of the disk in bytes.
    pub disk_bytes: u64,
    /// The grain in bytes.
    pub grain: u32,
    /// The block size in bytes.
    pub block: u32,
    /// How many blocks the layer has.
    pub blocks: u32,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes of the disk that the parent already has there.
    pub absent_bytes: u64,
    /// Bytes of the disk whose content does not matter.
    pub unused_bytes: u64,
    /// Bytes of the disk that are fills, zeros above all.
    pub fill_bytes: u64,
    /// Bytes of the disk that repeat what is stored elsewhere.
    pub repeated_bytes: u64,
    /// Bytes that the layer stores, before packing.
    pub new_bytes: u64,
    /// The bytes of the layer's payloads.
    pub stored_bytes: u64,
    /// The length of the file.
    pub file_bytes: u64,
    /// What somebody should know: doubts about used space, sizes that were raised.
    pub notes: Vec<String>,
}

/// What is settled before the source is read.
struct Job {
    source: Source,
    survey: DiskReport,
    free: Free,
    sizes: Sizes,
    /// The most grains that may be stored.
    most: u64,
    notes: Vec<String>,
}

/// Makes a layer of a disk.
///
/// The file appears under its name when it is complete and safely on the disk, or not at all. `progress` is called from
/// this thread about once for every megabyte.
///
/// # Errors
/// [`ImageError`] saying what could not be read or written, or what does not fit together.
pub fn create(options: &CreateOptions, progress: impl Fn(CreateProgress)) -> Result<CreateReport, ImageError> {
    check_output(options)?;
    check_sizes(options)?;
    let parent = options.parent.as_deref().map(Image::open).transpose()?;
    let parent_resolved = parent.as_ref().map(Image::resolve).transpose()?;
    let job = prepare(options, parent.as_ref())?;
    let layers = parent.as_ref().map_or(&[][..], Image::chain);
    if layers.iter().any(|layer| is_same_file(&layer.core.path, &options.output)) {
        return Err(ImageError::Output { path: options.output.clone(), what: "it is a layer that this one builds on" });
    }
    let depth = u32::try_from(layers.len()).unwrap_or(u32::MAX);
    if depth >= MAX_LAYERS {
        return Err(ImageError::TooMany { what: "layers" });
    }
    // What repeats, or packs well, takes next to nothing: the frame of the file is all that is surely needed.
    room::check(&options.output, false, LEAST_FILE, LEAST_FILE + job.most * u64::from(job.sizes.grain))?;
    let known = parent::index(layers, parent_resolved.as_ref(), job.most)?;
    let walk = (!layers.is_empty()).then(|| Parent::new(layers));
    let mapper = Mapper::new(job.sizes, depth, walk, known);
    let mut output = Output::begin(&options.output)?;
    let (mapped, rows, read_bytes) = run(options, &job, mapper, &mut output, &progress)?;
    let change = job.source.change().map_err(ImageError::io(Operation::Read, &options.source, None))?;
    if let Some(what) = change.filter(|what| !options.allow_changes || *what == "size") {
        return Err(ImageError::Changed { path: options.source.clone(), what });
    }
    let superblock = Superblock {
        table: job.survey.table,
        sector: job.source.sector(),
        disk_bytes: job.source.bytes(),
        grain: job.sizes.grain,
        block: job.sizes.block,
        depth,
        stored_grains: (mapped.index.len() - mapped.own_first) as u64,
        footer: 0,
        layer: Hash::default(),
        parent: layers.last().map_or(Hash::default(), |layer| layer.core.superblock.layer),
        parent_name: layers.last().map_or(Ok(String::new()), |layer| parent_name(&layer.core.path))?,
    };
    let totals = mapped.totals;
    let stored_bytes = rows.iter().map(|row| u64::from(row.stored_len())).sum();
    let parent_view = parent_resolved;
    let chain = parent.map_or_else(Vec::new, Image::into_chain);
    let finished = finish(output, superblock, mapped, rows, chain, parent_view.as_ref(), &job)?;
    let mut notes = job.notes;
    notes.extend(options.parent.as_deref().and_then(|parent| not_beside(parent, &options.output)));
    let grain = u64::from(job.sizes.grain);
    Ok(CreateReport {
        layer: finished.layer,
        root: finished.root,
        disk_bytes: job.source.bytes(),
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

fn check_output(options: &CreateOptions) -> Result<(), ImageError> {
    let path = options.output.clone();
    if is_same_file(&options.source, &options.output) {
        return Err(ImageError::Output { path, what: "it is the source" });
    }
    if options.output.file_name().is_none() {
        return Err(ImageError::Output { path, what: "it has no name" });
    }
    // The parent's name is kept in its children, and a name must not fail at the end.
    if options.output.file_name().is_some_and(|name| name.len() > MAX_OUTPUT_NAME) {
        return Err(ImageError::Output { path, what: "its name is longer than 220 bytes" });
    }
    if options.output.exists() && looks_like_a_key(&options.output) {
        return Err(ImageError::Output { path, what: "it looks like a key file, which would be lost" });
    }
    match std::fs::metadata(&options.output) {
        Ok(metadata) if !metadata.is_file() => Err(ImageError::Output { path, what: "it is no regular file" }),
        Err(_) if names_a_device(&options.output) => {
            Err(ImageError::Output { path, what: "an image is a regular file" })
        }
        _ => Ok(()),
    }
}

/// Whether the sizes that were asked for are possible at all.
fn check_sizes(options: &CreateOptions) -> Result<(), ImageError> {
    let size = |what| ImageError::Size { what };
    if !(1..=MAX_DEDUP_RUN).contains(&options.dedup_run) {
        return Err(size("the least run to deduplicate is 1 byte to 16 MiB"));
    }
    let grain = options.grain.unwrap_or(GRAIN_MIN);
    let block = options.block.unwrap_or(DEFAULT_BLOCK.max(grain));
    check_geometry(1 << 30, 512, grain, block)
        .map_err(|_| size("a block is a power of two, 64 KiB to 16 MiB; a grain is one too, 4 KiB up to the block"))
}

fn parent_name(path: &Path) -> Result<String, ImageError> {
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.len() <= MAX_NAME_BYTES);
    let what = "its name is too long, or no text";
    name.map(str::to_owned).ok_or_else(|| ImageError::Parent { path: path.to_owned(), what })
}

/// Opens the source, finds out what of it is in use, and settles the sizes.
fn prepare(options: &CreateOptions, parent: Option<&Image>) -> Result<Job, ImageError> {
    let path = &options.source;
    let mut source = Source::open(path).map_err(ImageError::io(Operation::Open, path, None))?;
    if !source.is_device() && !options.raw {
        let format = container::format_of(source.file(), source.bytes());
        if let Some(format) = format.map_err(ImageError::io(Operation::Read, path, None))? {
            return Err(ImageError::Container { path: path.clone(), format });
        }
    }
    let mut sector_note = None;
    match (options.sector, source.proof()) {
        (Some(sector), _) if source.is_device() && sector != source.sector() => {
            return Err(ImageError::Size { what: "the sectors of a device are those that the kernel says" });
        }
        (Some(sector), proof) => {
            source.set_sector(sector);
            if let Some(Proof { sector: proven, by }) = proof.filter(|proof| proof.sector != sector) {
                sector_note =
                    Some(format!("sectors of {sector} bytes, as asked for; {proven} would be taken because of {by}"));
            }
        }
        (None, Some(Proof { sector, by })) if sector != DEFAULT_SECTOR => {
            sector_note =
                Some(format!("{} is taken to have sectors of {sector} bytes because of {by}", path.display()));
        }
        (None, None) if !source.is_device() => {
            // Nothing says anything else: it is the disk of its parent.
            if let Some(sector) = parent.map(|parent| parent.header().sector) {
                source.set_sector(sector);
            }
        }
        (None, _) => {}
    }
    let survey = used::scan(&source, source.bytes(), source.sector());
    let mut notes = survey.all_notes();
    notes.extend(sector_note);
    if source.is_in_use() {
        notes.push(format!(
            "{} is in use: if it is written to meanwhile, the image mixes older and newer content",
            path.display()
        ));
    }
    let (mut grain, mut block);
    if let Some(parent) = parent {
        let header = parent.header();
        (grain, block) = (header.grain, header.block);
        for (what, parent, asked) in [("grain", grain, options.grain), ("block size", block, options.block)] {
            if let Some(asked) = asked.filter(|asked| *asked != parent) {
                return Err(ImageError::Inherited { what, parent: parent.into(), asked: asked.into() });
            }
        }
        if source.sector() != header.sector {
            let (source, parent) = (source.sector().into(), header.sector.into());
            return Err(ImageError::Unlike { path: path.clone(), what: "sector", source, parent });
        }
        let (before, now) = (header.disk_bytes, source.bytes());
        if before != now {
            let how = if now > before { "grown" } else { "shrunk" };
            notes.push(format!("the disk has {how} since its parent was made, from {before} to {now} bytes"));
        }
    } else {
        grain = options.grain.unwrap_or(GRAIN_MIN);
        block = options.block.unwrap_or(DEFAULT_BLOCK.max(grain));
    }
    let (bytes, sector) = (source.bytes(), source.sector());
    check_geometry(bytes, sector, grain, block).map_err(|what| ImageError::Source {
        path: path.clone(),
        bytes,
        sector,
        what,
    })?;
    let free_of = |grain: u32| Free::of(&survey, grain.into(), source.bytes());
    let count = |free: &Free, grain: u32| {
        scan::to_be_read(&source, free, grain.into()).map_err(ImageError::io(Operation::Read, path, None))
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
        while source.bytes() / u64::from(block) > u64::from(MAX_BLOCKS / 2) && block < BLOCK_MAX {
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
    Ok(Job { survey, free, sizes: Sizes { grain, block, least_run: options.dedup_run }, most, notes, source })
}

/// What the reader hands on, in the order of the disk.
enum Read {
    Unused(Range<u64>),
    Hole(Range<u64>),
    Chunk(u64, Receiver<Looked>),
    Failed(ImageError),
}

/// Runs all threads. Gives what was decided, the rows of the written blocks, and how many bytes were read.
fn run(
    options: &CreateOptions,
    job: &Job,
    mut mapper: Mapper<'_>,
    output: &mut Output,
    progress: &impl Fn(CreateProgress),
) -> Result<(Mapped, Vec<Row>, u64), ImageError> {
    let workers = available_parallelism().map_or(1, usize::from);
    let pool = Pool::new(CHUNKS + 4 * workers);
    let start = |error| ImageError::io(Operation::Start, &options.output, None)(error);
    let encoders: Vec<_> = (0..workers)
        .map(|_| Encoder::new(options.codec, job.sizes.block as usize))
        .collect::<Result<_, _>>()
        .map_err(start)?;
    let stored = AtomicU64::new(0);
    let (read_sender, reads) = sync_channel(CHUNKS);
    let (slot_sender, slots) = sync_channel::<Receiver<Packed>>(2 * workers);
    let grain = job.sizes.grain as usize;
    scope(|scope| {
        let (pool, stored) = (&pool, &stored);
        // Whatever way this closure is left, the workers must end.
        let closing = Closing(pool);
        for (no, encoder) in encoders.into_iter().enumerate() {
            let name = format!("slidecast-pack{no}");
            Builder::new().name(name).spawn_scoped(scope, move || pool.work(encoder, grain)).map_err(start)?;
        }
        let reader = Builder::new().name("slidecast-read".into());
        let reader = reader.spawn_scoped(scope, move || read(job, pool, &read_sender)).map_err(start)?;
        let writer = Builder::new().name("slidecast-save".into());
        let writer = writer
            .spawn_scoped(scope, move || {
                let slots = slots;
                output.write_blocks(&slots, pool, |bytes| stored.store(bytes, Ordering::Relaxed))
            })
            .map_err(start)?;

        let decided = {
            let slot_sender = slot_sender;
            let mut store = |raw: Vec<u8>| {
                let block = job.sizes.block as usize;
                // The writer only goes away when it has failed; its own error is the one to tell.
                slot_sender.send(pool.pack(raw)).map_err(|_| ImageError::Worker)?;
                Ok(pool.buffer(block))
            };
            decide(job, pool, &reads, &mut mapper, &mut store, |done_bytes| {
                let stored_bytes = stored.load(Ordering::Relaxed);
                progress(CreateProgress { done_bytes, disk_bytes: job.source.bytes(), stored_bytes });
            })
            .and_then(|()| mapper.finish(&mut store))
        };
        drop(reads);
        let read_bytes = reader.join().map_err(|_| ImageError::Worker)?;
        let rows = writer.join().map_err(|_| ImageError::Worker)?;
        drop(closing);
        match (decided, rows) {
            (Ok(mapped), Ok(rows)) => Ok((mapped, rows, read_bytes)),
            (Err(ImageError::Worker) | Ok(_), Err(error)) | (Err(error), _) => Err(error),
        }
    })
}

struct Closing<'a>(&'a Pool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The reader: hands on all segments until there are no more or nobody takes them. Gives the bytes read.
fn read(job: &Job, pool: &Pool, reads: &SyncSender<Read>) -> u64 {
    /// Why reading ends early.
    enum Stop {
        Failed(ImageError),
        NobodyListens,
    }
    impl From<std::io::Error> for Stop {
        fn from(error: std::io::Error) -> Self {
            Self::Failed(ImageError::io(Operation::Read, PathBuf::new(), None)(error))
        }
    }
    let grain = u64::from(job.sizes.grain);
    let mut sum = 0;
    let ended = scan::scan(&job.source, &job.free, grain, CHUNK_BYTES.div_ceil(grain), |segment| {
        let read = match segment {
            Segment::Unused(range) => Read::Unused(range),
            Segment::Hole(range) => Read::Hole(range),
            Segment::Read(range) => {
                let len = usize::try_from((range.end - range.start) * grain).unwrap_or(0);
                let offset = range.start * grain;
                let on_disk = usize::try_from(job.source.bytes() - offset).unwrap_or(usize::MAX).min(len);
                let mut buffer = pool.buffer(len);
                buffer.resize(len, 0);
                let result = job.source.read_at(offset, &mut buffer[..on_disk]);
                result
                    .map_err(|error| Stop::Failed(ImageError::io(Operation::Read, job.source.path(), offset)(error)))?;
                sum += on_disk as u64;
                Read::Chunk(range.start, pool.look(buffer))
            }
        };
        reads.send(read).map_err(|_| Stop::NobodyListens)
    });
    if let Err(Stop::Failed(error)) = ended {
        let _ = reads.send(Read::Failed(error));
    }
    sum
}

/// Decides about everything that was read, in order.
fn decide(
    job: &Job,
    pool: &Pool,
    reads: &Receiver<Read>,
    mapper: &mut Mapper<'_>,
    store: &mut map::Store<'_>,
    mut done: impl FnMut(u64),
) -> Result<(), ImageError> {
    let grain = job.sizes.grain as usize;
    let mut end = 0;
    while let Ok(read) = reads.recv() {
        match read {
            Read::Failed(error) => return Err(error),
            Read::Unused(range) => {
                mapper.unused(range.start, range.end, store)?;
                end = range.end;
            }
            Read::Hole(range) => {
                mapper.fill(0, range.start, range.end, store)?;
                end = range.end;
            }
            Read::Chunk(first, looked) => {
                let looked = looked.recv().map_err(|_| ImageError::Worker)?;
                for (target, (kind, bytes)) in (first..).zip(looked.grains.iter().zip(looked.bytes.chunks_exact(grain)))
                {
                    match *kind {
                        Grain::Fill(pattern) => mapper.fill(pattern, target, target + 1, store)?,
                        Grain::Data(hash) => mapper.data(target, hash, bytes, store)?,
                    }
                    end = target + 1;
                }
                pool.give_back(looked.bytes);
            }
        }
        done((end * grain as u64).min(job.source.bytes()));
    }
    // The reader that was cut short has said so; one that is simply gone has not.
    if end == job.source.bytes().div_ceil(grain as u64) { Ok(()) } else { Err(ImageError::Worker) }
}

struct Finished {
    layer: Hash,
    root: Hash,
    blocks: u32,
    file_bytes: u64,
}

/// Makes the sections, among them the manifest of the whole chain, and completes the file.
fn finish(
    mut output: Output,
    mut superblock: Superblock,
    mapped: Mapped,
    rows: Vec<Row>,
    mut chain: Vec<Layer>,
    parent: Option<&Resolved>,
    job: &Job,
) -> Result<Finished, ImageError> {
    let Mapped { extents, index, own_first, .. } = mapped;
    let mut table = Vec::with_capacity(rows.len() * crate::format::ROW_BYTES);
    rows.iter().for_each(|row| row.put(&mut table));
    let mut sections: Vec<SectionEntry> = vec![
        output.section(Section::BlockTable, &table)?,
        output.section(Section::ExtentMap, &extents)?,
        output.section(Section::GrainHashes, index.hashes_from(own_first).as_flattened())?,
    ];
    drop((table, index));
    let core =
        LayerFile { path: output.path().to_owned(), file: output.try_clone()?, superblock: superblock.clone(), rows };
    let blocks = superblock.stored_blocks();
    chain.push(Layer { core: Arc::new(core), sections: Vec::new(), extents });
    let mut resolved = Resolved::merge(&chain, LiveHashes::new(&chain, parent).finder())?;
    sections.push(output.section(Section::LiveHashes, &encode_live(resolved.live()))?);
    sections.push(output.section(Section::Report, &Report::of(&job.survey).encode())?);
    let layer = superblock.layer_id(&sections);
    resolved.set_layer(layer);
    sections.push(output.section(Section::Manifest, resolved.header_bytes())?);
    superblock.layer = layer;
    superblock.footer = output.bytes();
    output.finish(&superblock, &sections)?;
    Ok(Finished { layer, root: resolved.root(), blocks, file_bytes: superblock.file_bytes() })
}

/// Finds live hashes: the parent's, where the same grains are live, or by unpacking the block.
struct LiveHashes<'a> {
    chain: &'a [Layer],
    parent: Option<&'a Resolved>,
    /// The parent's partly live blocks with their numbers in its manifest, sorted by layer and block.
    numbers: Vec<(u32, u32, BlockNo)>,
}

impl<'a> LiveHashes<'a> {
    fn new(chain: &'a [Layer], parent: Option<&'a Resolved>) -> Self {
        let mut numbers = Vec::new();
        if let Some(parent) = parent.filter(|parent| !parent.live().is_empty()) {
            let known = |layer, block| parent.live().binary_search_by_key(&(layer, block), LiveHash::key).is_ok();
            for number in (0..parent.header().blocks).map(BlockNo) {
                if let Some((layer, block)) = parent.origin(number).filter(|(layer, block)| known(*layer, *block)) {
                    numbers.push((layer, block, number));
                }
            }
            numbers.sort_unstable_by_key(|(layer, block, _)| (*layer, *block));
        }
        Self { chain, parent, numbers }
    }

    fn finder(self) -> impl FnMut(u32, u32, &mut dyn Iterator<Item = Range<u32>>) -> Result<Hash, ImageError> {
        let mut reader = BlockReader::default();
        move |layer, block, runs| {
            let runs: Vec<_> = runs.collect();
            let at = self.numbers.binary_search_by_key(&(layer, block), |(layer, block, _)| (*layer, *block));
            if let (Some(parent), Ok(at)) = (self.parent, at) {
                let same = live_runs(parent.block_places(self.numbers[at].2)).eq(runs.iter().cloned());
                let known = parent.live().binary_search_by_key(&(layer, block), LiveHash::key);
                if let (true, Ok(known)) = (same, known) {
                    return Ok(parent.live()[known].hash);
                }
            }
            let file = &self.chain[layer as usize].core;
            let raw = reader.read(file, block)?;
            Ok(live_hash(raw, file.superblock.grain, runs.into_iter()))
        }
    }
}

/// BLAKE3 over the live runs of a block.
pub(crate) fn live_hash(raw: &[u8], grain: u32, runs: impl Iterator<Item = Range<u32>>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for run in runs {
        hasher.update(&raw[run.start as usize * grain as usize..run.end as usize * grain as usize]);
    }
    Hash(*hasher.finalize().as_bytes())
}
