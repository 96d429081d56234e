//! The merged extents of all layers, cut into pieces of blocks. Blocks are numbered as they first appear on the disk, which is the order of
//! their lowest targets.

use super::{FILL, Piece, RUN_BITS, Resolved, narrow};
use crate::error::ImageError;
use crate::extent::{Extent, Kind, extents};
use crate::layer::Layer;
use crate::manifest::MAX_BLOCK_PLACES;
use crate::resolve::newest_first;
use slidecast_proto::units::{MAX_BLOCKS, MAX_FILL_BYTES};
use std::collections::HashMap;

/// The most fill blocks that an image may have because fills are cut at [`MAX_FILL_BYTES`]: 512 TiB of them. They take
/// 16 MiB of memory.
const MAX_FULL_FILLS: u64 = 1 << 19;
/// The number of a stored block that has not appeared on the disk yet.
const UNSEEN: u32 = u32::MAX;

fn too_many(what: &'static str) -> ImageError {
    ImageError::TooMany { what }
}

/// The fill block of a pattern that more places may join.
struct OpenFill {
    block: u32,
    grains: u64,
    places: u32,
}

/// Puts the pieces into `resolved`, from the front of the disk to its end.
struct Cutter<'a> {
    resolved: &'a mut Resolved,
    block_grains: u64,
    fill_grains: u64,
    /// The number on the disk of each stored block of all layers.
    numbers: Vec<u32>,
    fills: HashMap<u64, OpenFill>,
    full_fills: u64,
    /// The pieces of each block so far, by its number: none gets so many that only the manifest would notice.
    piece_counts: Vec<u32>,
}

impl Resolved {
    /// Cuts the merged extents of `layers`, the base first.
    pub(super) fn cut(&mut self, layers: &[Layer]) -> Result<(), ImageError> {
        let superblock = self.layers[self.layers.len() - 1].superblock.clone();
        let total = self.before.last().copied().unwrap_or(0) + superblock.stored_blocks();
        let mut cutter = Cutter {
            resolved: self,
            block_grains: u64::from(superblock.block_grains()),
            fill_grains: MAX_FILL_BYTES / u64::from(superblock.grain),
            numbers: vec![UNSEEN; total as usize],
            fills: HashMap::new(),
            full_fills: 0,
            piece_counts: Vec::new(),
        };
        let (mut raw_grains, mut short) = (0, 0);
        let maps = layers.iter().rev().map(|layer| extents(&layer.extents));
        for extent in newest_first(maps, superblock.disk_grains()) {
            raw_grains += cutter.extent(extent)?;
            if extent.end() == superblock.disk_grains() && extent.kind != Kind::Unused {
                short = extent.end() * u64::from(superblock.grain) - superblock.disk_bytes;
            }
        }
        self.header.raw_bytes = raw_grains * u64::from(superblock.grain) - short;
        self.pieces.sort_unstable_by_key(Piece::key);
        for (at, piece) in self.pieces.iter().enumerate().rev() {
            self.blocks[piece.block as usize].1 = narrow(at as u64);
        }
        self.header.blocks = narrow(self.blocks.len() as u64);
        self.header.stored_blocks = narrow((self.blocks.len() - self.patterns.len()) as u64);
        Ok(())
    }
}

impl Cutter<'_> {
    /// Cuts an extent; gives how many of its grains are used.
    fn extent(&mut self, extent: Extent) -> Result<u64, ImageError> {
        let mut target = extent.start;
        while target < extent.end() {
            let left = extent.end() - target;
            target += match extent.kind.skip(target - extent.start) {
                Kind::Unused => break,
                Kind::Data { layer, grain } => self.data((layer, grain), target, left)?,
                Kind::Fill(pattern) => self.fill(pattern, target, left)?,
            };
        }
        Ok(target - extent.start)
    }

    /// Puts grains of a stored block at `target`: what there is of `left` in the block that has this grain of this layer. Gives how many.
    fn data(&mut self, (layer, grain): (u32, u64), target: u64, left: u64) -> Result<u64, ImageError> {
        let stored = self.resolved.before[layer as usize] + narrow(grain / self.block_grains);
        let number = &mut self.numbers[stored as usize];
        if *number == UNSEEN {
            *number = narrow(self.resolved.blocks.len() as u64);
            self.resolved.blocks.push((stored, 0));
        }
        let (block, source) = (*number, grain % self.block_grains);
        let grains = left.min(self.block_grains - source);
        self.add(block, Some(narrow(source)), target, grains)?;
        Ok(grains)
    }

    /// Puts a fill at `target`: what there is room for of `left` in the last block of its pattern, or a new one. Gives how many grains.
    fn fill(&mut self, pattern: u64, target: u64, left: u64) -> Result<u64, ImageError> {
        let full = |open: &OpenFill| open.grains >= self.fill_grains || open.places >= MAX_BLOCK_PLACES;
        let open = self.fills.get(&pattern);
        if open.is_none_or(full) {
            self.full_fills += u64::from(open.is_some_and(|open| open.grains >= self.fill_grains));
            if self.full_fills > MAX_FULL_FILLS {
                return Err(too_many("fill blocks: more than 512 TiB of fills"));
            }
            let block = narrow(self.resolved.blocks.len() as u64);
            self.resolved.blocks.push((FILL | narrow(self.resolved.patterns.len() as u64), 0));
            self.resolved.patterns.push(pattern);
            self.fills.insert(pattern, OpenFill { block, grains: 0, places: 0 });
        }
        let open = self.fills.get_mut(&pattern).expect("it was just put there");
        let grains = left.min(self.fill_grains - open.grains);
        open.grains += grains;
        if !continues(self.resolved.pieces.last(), open.block, None, target) {
            open.places += 1;
        }
        let block = open.block;
        self.add(block, None, target, grains)?;
        Ok(grains)
    }

    /// Adds a piece of a block, from its grain `source` on unless it is a fill, or makes the last piece longer.
    fn add(&mut self, block: u32, source: Option<u32>, target: u64, grains: u64) -> Result<(), ImageError> {
        let Resolved { blocks, pieces, .. } = &mut *self.resolved;
        if blocks.len() > MAX_BLOCKS as usize {
            return Err(too_many("blocks"));
        }
        if let Some(last) = pieces.last_mut()
            && continues(Some(&*last), block, source, target)
        {
            last.run += narrow(grains);
            return Ok(());
        }
        self.piece_counts.resize(blocks.len(), 0);
        let count = &mut self.piece_counts[block as usize];
        *count += 1;
        if *count > MAX_BLOCK_PLACES {
            return Err(too_many("places of one block"));
        }
        pieces.push(Piece { block, run: source.unwrap_or(0) << RUN_BITS | narrow(grains), target });
        if pieces.len() >= u32::MAX as usize {
            return Err(too_many("extents"));
        }
        Ok(())
    }
}

/// Whether a piece of `block` that begins at `target` (and at `source`, unless it is a fill) joins `last`.
fn continues(last: Option<&Piece>, block: u32, source: Option<u32>, target: u64) -> bool {
    last.is_some_and(|last| {
        let place = last.place();
        last.block == block
            && place.target + u64::from(place.grains) == target
            && source.is_none_or(|source| place.source + place.grains == source)
    })
}
