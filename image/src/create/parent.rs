//! What the parent says: the merged extents of its chain, read along with the source, and the hashes of its grains.

use super::index::{GRAIN_BYTES, GrainHash, INDEX_BYTES, Index};
use crate::error::ImageError;
use crate::extent::{Extent, Kind, extents};
use crate::format::{GRAIN_HASH_BYTES, Section};
use crate::layer::Layer;
use crate::resolve::newest_first;
use crate::resolved::Resolved;
use core::iter::Peekable;
use slidecast_proto::units::BlockNo;

/// How many grain hashes are read at a time.
const WINDOW: u64 = 4096;

/// Walks through the parent in the order of the disk.
pub(super) struct Parent<'a> {
    extents: Peekable<Box<dyn Iterator<Item = Extent> + 'a>>,
    hashes: Vec<Hashes<'a>>,
}

/// A window into the grain hashes of one layer.
struct Hashes<'a> {
    layer: &'a Layer,
    first: u64,
    bytes: Vec<u8>,
}

impl<'a> Parent<'a> {
    /// The parent whose chain is `layers`, the base first.
    pub(super) fn new(layers: &'a [Layer]) -> Self {
        let grains = layers.last().map_or(0, |layer| layer.core.superblock.disk_grains());
        let maps = layers.iter().rev().map(|layer| extents(&layer.extents));
        let extents: Box<dyn Iterator<Item = _>> = Box::new(newest_first(maps, grains));
        let hashes = layers.iter().map(|layer| Hashes { layer, first: 0, bytes: Vec::new() }).collect();
        Self { extents: extents.peekable(), hashes }
    }

    /// What the parent says of grain `at`, and up to which grain that goes on. Never goes back.
    pub(super) fn at(&mut self, at: u64) -> Option<(Kind, u64)> {
        while self.extents.next_if(|extent| extent.end() <= at).is_some() {}
        let extent = self.extents.peek()?;
        Some((extent.kind.skip(at - extent.start), extent.end()))
    }

    /// The hash of a grain stored in a layer.
    pub(super) fn hash(&mut self, layer: u32, grain: u64) -> Result<GrainHash, ImageError> {
        let hashes = &mut self.hashes[layer as usize];
        let len = GRAIN_HASH_BYTES as u64;
        let known = hashes.bytes.len() as u64 / len;
        if !(hashes.first..hashes.first + known).contains(&grain) {
            let core = &hashes.layer.core;
            let count = WINDOW.min(core.superblock.stored_grains - grain);
            hashes.bytes.resize(usize::try_from(count * len).unwrap_or(0), 0);
            core.read_at(hashes.layer.section(Section::GrainHashes).offset + grain * len, &mut hashes.bytes)?;
            hashes.first = grain;
        }
        let at = usize::try_from((grain - hashes.first) * len).unwrap_or(0);
        let mut hash = [0; GRAIN_HASH_BYTES];
        hash.copy_from_slice(&hashes.bytes[at..at + GRAIN_HASH_BYTES]);
        Ok(hash)
    }
}

/// A layer in the index: its grains are numbered from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    pub(super) layer: u32,
    pub(super) first: usize,
    /// The number of its first block, counted through the indexed layers.
    pub(super) first_block: usize,
}

/// Checks the grain hashes of all `layers` and indexes the newest that fit beside `own` grains. Gives the index, its
/// layers and the number of grain places in each of their blocks.
pub(super) fn index(
    layers: &[Layer],
    resolved: Option<&Resolved>,
    own: u64,
) -> Result<(Index, Vec<Indexed>, Vec<u32>), ImageError> {
    let room = (INDEX_BYTES / GRAIN_BYTES).saturating_sub(own);
    let mut sum = 0;
    let fits = |layer: &&Layer| {
        sum += layer.core.superblock.stored_grains;
        sum <= room
    };
    let first_indexed = layers.len() - layers.iter().rev().take_while(fits).count();
    let ancestors: u64 = layers[first_indexed..].iter().map(|layer| layer.core.superblock.stored_grains).sum();
    let mut index = Index::new(own + ancestors);
    let (mut indexed, mut block_places) = (Vec::new(), Vec::new());
    for (depth, layer) in (0..).zip(layers) {
        let wanted = depth as usize >= first_indexed;
        if wanted {
            indexed.push(Indexed { layer: depth, first: index.len(), first_block: block_places.len() });
            let blocks = layer.core.superblock.stored_blocks() as usize;
            block_places.resize(block_places.len() + blocks, 0);
        }
        layer.core.read_section(layer.section(Section::GrainHashes), |piece| {
            let (hashes, _) = piece.as_chunks::<GRAIN_HASH_BYTES>();
            for hash in hashes.iter().filter(|_| wanted) {
                let findable = index.find(hash).is_none();
                index.push(*hash, findable);
            }
            Ok(())
        })?;
    }
    if let Some(resolved) = resolved {
        count_places(resolved, &indexed, &mut index, &mut block_places);
    }
    Ok((index, indexed, block_places))
}

/// Counts the places that the parent's grains already have.
fn count_places(resolved: &Resolved, indexed: &[Indexed], index: &mut Index, block_places: &mut [u32]) {
    let block_grains = (resolved.header().block / resolved.header().grain) as usize;
    for number in (0..resolved.header().blocks).map(BlockNo) {
        let Some((layer, block)) = resolved.origin(number) else { continue };
        let Some(known) = indexed.iter().find(|known| known.layer == layer) else { continue };
        let first = known.first + block as usize * block_grains;
        for place in resolved.block_places(number) {
            let begin = first + place.source as usize;
            (begin..begin + place.grains as usize).for_each(|id| index.add_place(id));
            block_places[known.first_block + block as usize] += place.grains;
        }
    }
    index.prefer_used();
}
