//! Grain by grain: what of a block is on the old disk already.

use crate::chain::Image;
use crate::error::ImageError;
use crate::extent::{Extent, Kind, extents};
use crate::format::{GRAIN_HASH_BYTES, Section};
use crate::layer::Layer;
use crate::manifest::{Content, Place};
use crate::resolve::newest_first;
use core::ops::Range;
use slidecast_proto::units::Hash;
use std::collections::HashMap;

/// How many grain hashes are read at once.
const STEP: u64 = 16 << 10;
/// The most fill patterns of which the hash is kept.
const MAX_KEPT_FILLS: usize = 4096;

type GrainHash = [u8; GRAIN_HASH_BYTES];

/// The old disk, and the layers of the new image that are compared with it.
pub(super) struct Old<'a> {
    old: &'a [Layer],
    new: &'a [Layer],
    /// For each layer of the new image, the same layer of the old one.
    shared: Vec<Option<u32>>,
    /// The old disk: sorted, without gaps.
    map: Vec<Extent>,
    grain: u32,
    fills: HashMap<u64, GrainHash>,
    /// The sections with grain hashes that were found good.
    checked: Vec<Hash>,
    buffers: [Vec<u8>; 2],
}

/// What one side has in a run of grains.
#[derive(Clone, Copy)]
enum Side<'a> {
    /// From that grain of a layer on.
    Stored(&'a Layer, u64),
    Fill(u64),
}

impl<'a> Old<'a> {
    pub(super) fn new(from: &'a Image, to: &'a Image) -> Result<Self, ImageError> {
        let (old, new) = (from.chain(), to.chain());
        let (before, after) = (&from.newest().core, &to.newest().core);
        let grain = before.superblock.grain;
        if grain != after.superblock.grain {
            let (path, other) = (after.path.clone(), before.path.clone());
            return Err(ImageError::Incomparable { path, other, what: "grain" });
        }
        let same = |layer: &Layer| old.iter().position(|old| old.core.superblock.layer == layer.core.superblock.layer);
        let shared = new.iter().map(|layer| same(layer).and_then(|at| u32::try_from(at).ok())).collect();
        let maps = old.iter().rev().map(|layer| extents(&layer.extents));
        let map = newest_first(maps, before.superblock.disk_grains()).collect();
        Ok(Self {
            old,
            new,
            shared,
            map,
            grain,
            fills: HashMap::new(),
            checked: Vec::new(),
            buffers: Default::default(),
        })
    }

    /// Adds to `out` the grains of the disk in `place` that are not on the old disk. The block is `content`; a stored one is
    /// block number `own.1` of layer `own.0`.
    pub(super) fn differing(
        &mut self,
        own: Option<(u32, u32)>,
        content: Content,
        place: Place,
        out: &mut Vec<Range<u64>>,
    ) -> Result<(), ImageError> {
        let (mut at, end) = (place.target, place.target + u64::from(place.grains));
        let mut next = self.map.partition_point(|extent| extent.end() <= at);
        while at < end {
            let Some(extent) = self.map.get(next).copied() else {
                push(out, at..end);
                return Ok(());
            };
            let stop = end.min(extent.end());
            let new = match (content, own) {
                (Content::Fill { pattern }, _) => Kind::Fill(pattern),
                (Content::Stored { .. }, Some((layer, block))) => {
                    let first = u64::from(block) * u64::from(self.new[layer as usize].core.superblock.block_grains());
                    Kind::Data { layer, grain: first + u64::from(place.source) + (at - place.target) }
                }
                // A stored block has an origin.
                (Content::Stored { .. }, None) => Kind::Unused,
            };
            self.compare(new, extent.kind.skip(at - extent.start), at..stop, out)?;
            (at, next) = (stop, next + 1);
        }
        Ok(())
    }

    /// Compares the grains in `run` of the disk.
    fn compare(&mut self, new: Kind, old: Kind, run: Range<u64>, out: &mut Vec<Range<u64>>) -> Result<(), ImageError> {
        let (new_side, old_side) = match (new, old) {
            (Kind::Unused, _) | (_, Kind::Unused) => {
                push(out, run);
                return Ok(());
            }
            (Kind::Fill(new), Kind::Fill(old)) if new == old => return Ok(()),
            (Kind::Data { layer, grain }, Kind::Data { layer: old_layer, grain: old_grain })
                if self.shared[layer as usize] == Some(old_layer) && grain == old_grain =>
            {
                return Ok(());
            }
            _ => (side(self.new, new), side(self.old, old)),
        };
        let mut at = run.start;
        while at < run.end {
            let count = (run.end - at).min(STEP);
            let by = at - run.start;
            let [mut ours, mut theirs] = core::mem::take(&mut self.buffers);
            self.hashes(new_side, by, count, &mut ours)?;
            self.hashes(old_side, by, count, &mut theirs)?;
            let pairs = ours.chunks_exact(GRAIN_HASH_BYTES).zip(theirs.chunks_exact(GRAIN_HASH_BYTES));
            for (grain, _) in (at..).zip(pairs).filter(|(_, (ours, theirs))| ours != theirs) {
                push(out, grain..grain + 1);
            }
            self.buffers = [ours, theirs];
            at += count;
        }
        Ok(())
    }

    /// The hashes of `count` grains, `by` grains behind the beginning of `side`.
    fn hashes(&mut self, side: Side<'_>, by: u64, count: u64, out: &mut Vec<u8>) -> Result<(), ImageError> {
        let count = usize::try_from(count).unwrap_or(0);
        match side {
            Side::Fill(pattern) => {
                if self.fills.len() >= MAX_KEPT_FILLS {
                    self.fills.clear();
                }
                let grain = self.grain as usize;
                let hash = self.fills.entry(pattern).or_insert_with(|| {
                    let hash = blake3::hash(&pattern.to_le_bytes().repeat(grain / 8));
                    core::array::from_fn(|at| hash.as_bytes()[at])
                });
                *out = hash.repeat(count);
                Ok(())
            }
            Side::Stored(layer, grain) => {
                let section = layer.section(Section::GrainHashes);
                // Opening an image leaves it unread: only a comparison needs it.
                if !self.checked.contains(&section.hash) {
                    layer.core.read_section(section, |_| Ok(()))?;
                    self.checked.push(section.hash);
                }
                out.resize(count * GRAIN_HASH_BYTES, 0);
                layer.core.read_at(section.offset + (grain + by) * GRAIN_HASH_BYTES as u64, out)
            }
        }
    }
}

fn side(layers: &[Layer], kind: Kind) -> Side<'_> {
    match kind {
        Kind::Data { layer, grain } => Side::Stored(&layers[layer as usize], grain),
        Kind::Fill(pattern) => Side::Fill(pattern),
        Kind::Unused => Side::Fill(0),
    }
}

/// Adds a run, joined with the last one where they touch.
fn push(out: &mut Vec<Range<u64>>, run: Range<u64>) {
    match out.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => out.push(run),
    }
}
