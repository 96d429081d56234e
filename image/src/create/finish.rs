//! The end of a layer: its sections, among them the manifest of the whole chain.

use super::map::Mapped;
use super::output::Output;
use super::prepare::Job;
use crate::error::{ImageError, Operation};
use crate::format::{Row, Section, SectionEntry, Superblock};
use crate::layer::{Layer, LayerFile, LiveHash, encode_live};
use crate::part::live_runs;
use crate::report::Report;
use crate::resolved::{BlockReader, Resolved};
use crate::store::LocalFile;
use core::ops::Range;
use slidecast_proto::units::{BlockNo, Hash};
use std::sync::Arc;

/// What a finished layer is.
pub(super) struct Finished {
    pub(super) layer: Hash,
    pub(super) root: Hash,
    pub(super) blocks: u32,
    pub(super) file_bytes: u64,
}

/// Makes the sections, among them the manifest of the whole chain, and completes the file.
pub(super) fn finish(
    mut output: Output,
    mut superblock: Superblock,
    mapped: Mapped,
    rows: Vec<Row>,
    mut chain: Vec<Layer>,
    parent: Option<&Resolved>,
    job: &Job<'_>,
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
    let path = output.path().to_owned();
    let written = LocalFile::new(output.try_clone()?).map_err(ImageError::io(Operation::Open, &path, None))?;
    let core = LayerFile { path, bytes: Arc::new(written), superblock: superblock.clone(), rows };
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
