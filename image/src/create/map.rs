//! The stage that decides: for each grain of the source, in the order of the disk, whether it is absent (the parent has
//! it there), unused, a fill, a repeat of a stored grain, or to be stored.
//!
//! Short runs cost more in places than they save: a run of a fill or of repeated grains that is shorter than the least run
//! is stored like new data.

use super::grain::grain_hash;
use super::index::{GrainHash, Index};
use super::parent::{Indexed, Parent};
use crate::error::ImageError;
use crate::extent::{Extent, ExtentWriter, Kind};
use crate::format::MAX_EXTENT_BYTES;
use crate::manifest::MAX_BLOCK_PLACES;
use std::collections::HashSet;

/// The most patterns, zeros aside, that the fills of one layer have; what is more is stored.
const MAX_PATTERNS: usize = 1024;

/// Takes a full block of the layer.
pub(super) type Store<'a> = dyn FnMut(Vec<u8>) -> Result<Vec<u8>, ImageError> + 'a;

/// How many grains are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) absent: u64,
    pub(super) unused: u64,
    pub(super) fill: u64,
    pub(super) repeated: u64,
    pub(super) stored: u64,
}

/// A run of grains that repeats grains stored before.
#[derive(Clone, Copy, Debug)]
struct Run {
    target: u64,
    id: usize,
    len: u64,
    /// The first grain that the run's layer does not have.
    layer_end: usize,
    /// Long enough: in the extent map, and going on grain by grain.
    settled: bool,
}

/// A run of a fill that may still be too short.
#[derive(Clone, Copy, Debug)]
struct Fill {
    pattern: u64,
    target: u64,
    len: u64,
    settled: bool,
}

/// The state of the decision.
pub(super) struct Mapper<'a> {
    parent: Option<Parent<'a>>,
    index: Index,
    indexed: Vec<Indexed>,
    block_places: Vec<u32>,
    depth: u32,
    own_first: usize,
    own_first_block: usize,
    grain: usize,
    block: usize,
    least_run: u64,
    extents: ExtentWriter,
    run: Option<Run>,
    /// The content of a run that is not settled.
    held: Vec<u8>,
    fill: Option<Fill>,
    patterns: HashSet<u64>,
    filling: Vec<u8>,
    zero_hash: GrainHash,
    totals: Totals,
}

/// What the decisions came to.
pub(super) struct Mapped {
    pub(super) extents: Vec<u8>,
    pub(super) index: Index,
    pub(super) own_first: usize,
    pub(super) totals: Totals,
}

/// The sizes that a layer is made with, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) grain: u32,
    pub(super) block: u32,
    pub(super) least_run: u64,
}

impl<'a> Mapper<'a> {
    /// Decides for the layer at `depth`, over `parent`; `known` is what of its grains is indexed.
    pub(super) fn new(
        sizes: Sizes,
        depth: u32,
        parent: Option<Parent<'a>>,
        (index, indexed, block_places): (Index, Vec<Indexed>, Vec<u32>),
    ) -> Self {
        let grain = sizes.grain as usize;
        Self {
            parent,
            depth,
            own_first: index.len(),
            own_first_block: block_places.len(),
            index,
            indexed,
            block_places,
            grain,
            block: sizes.block as usize,
            least_run: sizes.least_run.div_ceil(u64::from(sizes.grain)).max(1),
            extents: ExtentWriter::default(),
            run: None,
            held: Vec::new(),
            fill: None,
            patterns: HashSet::new(),
            filling: Vec::with_capacity(sizes.block as usize),
            zero_hash: grain_hash(&vec![0; grain]),
            totals: Totals::default(),
        }
    }

    /// The content of grains `target..end` does not matter.
    pub(super) fn unused(&mut self, target: u64, end: u64, store: &mut Store<'_>) -> Result<(), ImageError> {
        let mut at = target;
        while at < end {
            let (state, until) = self.parent_at(at, end);
            if state == Some(Kind::Unused) {
                self.totals.absent += until - at;
            } else {
                self.settle(store)?;
                self.extents.push(Extent { start: at, grains: until - at, kind: Kind::Unused });
                self.totals.unused += until - at;
            }
            at = until;
        }
        Ok(())
    }

    /// Grains `target..end` are what the parent has there.
    pub(super) fn inherited(&mut self, target: u64, end: u64) {
        self.totals.absent += end - target;
    }

    /// Grains `target..end` repeat `pattern`.
    pub(super) fn fill(
        &mut self,
        pattern: u64,
        target: u64,
        end: u64,
        store: &mut Store<'_>,
    ) -> Result<(), ImageError> {
        let mut at = target;
        while at < end {
            let (state, until) = self.parent_at(at, end);
            match state {
                Some(Kind::Fill(same)) if same == pattern => {
                    self.totals.absent += until - at;
                    at = until;
                }
                Some(Kind::Data { layer, grain }) => {
                    let hash = self.fill_hash(pattern);
                    if self.parent_hash(layer, grain)? == hash {
                        self.totals.absent += 1;
                    } else {
                        self.fill_run(pattern, at, 1, store)?;
                    }
                    at += 1;
                }
                _ => {
                    self.fill_run(pattern, at, until - at, store)?;
                    at = until;
                }
            }
        }
        Ok(())
    }

    /// Grain `target` is `bytes` with that hash, and no fill.
    pub(super) fn data(
        &mut self,
        target: u64,
        hash: GrainHash,
        bytes: &[u8],
        store: &mut Store<'_>,
    ) -> Result<(), ImageError> {
        if let (Some(Kind::Data { layer, grain }), _) = self.parent_at(target, target + 1)
            && self.parent_hash(layer, grain)? == Some(hash)
        {
            self.totals.absent += 1;
            return Ok(());
        }
        self.settle_fill(store)?;
        self.place(target, hash, bytes, store)
    }

    /// Nothing more comes: stores what is left.
    pub(super) fn finish(mut self, store: &mut Store<'_>) -> Result<Mapped, ImageError> {
        self.settle(store)?;
        if !self.filling.is_empty() {
            store(core::mem::take(&mut self.filling))?;
        }
        let Self { extents, index, own_first, totals, .. } = self;
        Ok(Mapped { extents: extents.finish(), index, own_first, totals })
    }

    /// What the parent says of `at`, and how far it says so before `end`. Without a parent: nothing.
    fn parent_at(&mut self, at: u64, end: u64) -> (Option<Kind>, u64) {
        match self.parent.as_mut().and_then(|parent| parent.at(at)) {
            Some((kind, until)) => (Some(kind), until.min(end)),
            None => (None, end),
        }
    }

    fn parent_hash(&mut self, layer: u32, grain: u64) -> Result<Option<GrainHash>, ImageError> {
        self.parent.as_mut().map(|parent| parent.hash(layer, grain)).transpose()
    }

    fn fill_hash(&self, pattern: u64) -> Option<GrainHash> {
        Some(if pattern == 0 { self.zero_hash } else { grain_hash(&self.filled(pattern)) })
    }

    fn filled(&self, pattern: u64) -> Vec<u8> {
        pattern.to_le_bytes().repeat(self.grain / 8)
    }

    /// Adds `len` grains of a fill, which is not what the parent has there.
    fn fill_run(&mut self, pattern: u64, target: u64, len: u64, store: &mut Store<'_>) -> Result<(), ImageError> {
        let goes_on = |fill: &Fill| fill.pattern == pattern && fill.target + fill.len == target;
        if !self.fill.as_ref().is_some_and(goes_on) {
            self.settle_fill(store)?;
            self.fill = Some(Fill { pattern, target, len: 0, settled: false });
        }
        let Some(fill) = &mut self.fill else { return Ok(()) };
        fill.len += len;
        let fill = *fill;
        if fill.settled {
            self.push(Extent { start: target, grains: len, kind: Kind::Fill(pattern) })?;
            self.totals.fill += len;
        } else if fill.len >= self.least_run && self.knows_pattern(pattern) {
            self.settle_run(store)?;
            self.push(Extent { start: fill.target, grains: fill.len, kind: Kind::Fill(pattern) })?;
            self.totals.fill += fill.len;
            self.fill = Some(Fill { settled: true, ..fill });
        } else if fill.len >= self.least_run {
            self.settle_fill(store)?;
        }
        Ok(())
    }

    fn knows_pattern(&mut self, pattern: u64) -> bool {
        pattern == 0
            || self.patterns.contains(&pattern)
            || (self.patterns.len() < MAX_PATTERNS && self.patterns.insert(pattern))
    }

    /// Ends the fill; if it was too short, its grains are data after all.
    fn settle_fill(&mut self, store: &mut Store<'_>) -> Result<(), ImageError> {
        let Some(fill) = self.fill.take().filter(|fill| !fill.settled) else { return Ok(()) };
        let bytes = self.filled(fill.pattern);
        let hash = grain_hash(&bytes);
        (fill.target..fill.target + fill.len).try_for_each(|target| self.place(target, hash, &bytes, store))
    }

    fn settle(&mut self, store: &mut Store<'_>) -> Result<(), ImageError> {
        self.settle_fill(store)?;
        self.settle_run(store)
    }

    /// Ends the run; if it was too short, its grains are stored again.
    fn settle_run(&mut self, store: &mut Store<'_>) -> Result<(), ImageError> {
        let Some(run) = self.run.take().filter(|run| !run.settled) else { return Ok(()) };
        let held = core::mem::take(&mut self.held);
        for (by, bytes) in (0..run.len).zip(held.chunks_exact(self.grain)) {
            // Its hash is that of the grain it would have repeated.
            let hash = self.index.hash(run.id + usize::try_from(by).unwrap_or(0)).copied().unwrap_or_default();
            self.store(run.target + by, hash, bytes, store)?;
        }
        self.held = held;
        self.held.clear();
        Ok(())
    }

    /// Finds the place of a grain in a run of repeats, or stores it.
    fn place(&mut self, target: u64, hash: GrainHash, bytes: &[u8], store: &mut Store<'_>) -> Result<(), ImageError> {
        if let Some(run) = self.run
            && self.goes_on(&run, target, &hash)
        {
            return self.lengthen(run, target, bytes);
        }
        self.settle_run(store)?;
        match self.index.find(&hash).filter(|id| self.has_room(*id, 0)) {
            Some(id) => {
                let layer_end = self.indexed.iter().map(|known| known.first).chain([self.own_first]);
                let layer_end = layer_end.filter(|first| *first > id).min().unwrap_or(usize::MAX);
                self.lengthen(Run { target, id, len: 0, layer_end, settled: false }, target, bytes)
            }
            None => self.store(target, hash, bytes, store),
        }
    }

    fn goes_on(&self, run: &Run, target: u64, hash: &GrainHash) -> bool {
        let next = run.id + usize::try_from(run.len).unwrap_or(usize::MAX);
        run.target + run.len == target
            && next < run.layer_end
            && self.index.hash(next) == Some(hash)
            && self.has_room(next, if run.settled { 0 } else { run.len })
    }

    /// Whether grain `id`, and its block with `more` grains not counted yet, may have another place.
    fn has_room(&self, id: usize, more: u64) -> bool {
        let places = self.block_places.get(self.block_of(id)).copied().unwrap_or(0);
        self.index.has_room(id) && u64::from(places) + more < u64::from(MAX_BLOCK_PLACES)
    }

    fn lengthen(&mut self, mut run: Run, target: u64, bytes: &[u8]) -> Result<(), ImageError> {
        run.len += 1;
        if run.settled {
            self.repeat(run.id + usize::try_from(run.len - 1).unwrap_or(0), target, 1)?;
        } else if run.len >= self.least_run {
            self.repeat(run.id, run.target, run.len)?;
            self.held.clear();
            run.settled = true;
        } else {
            self.held.extend_from_slice(bytes);
        }
        self.run = Some(run);
        Ok(())
    }

    /// Grains from `target` on are those from `id` on.
    fn repeat(&mut self, id: usize, target: u64, len: u64) -> Result<(), ImageError> {
        for id in id..id + usize::try_from(len).unwrap_or(0) {
            self.count(id);
        }
        self.totals.repeated += len;
        let (layer, first) = match self.indexed.iter().rfind(|known| known.first <= id) {
            Some(known) if id < self.own_first => (known.layer, known.first),
            _ => (self.depth, self.own_first),
        };
        self.push(Extent { start: target, grains: len, kind: Kind::Data { layer, grain: (id - first) as u64 } })
    }

    fn count(&mut self, id: usize) {
        self.index.add_place(id);
        let block = self.block_of(id);
        if let Some(places) = self.block_places.get_mut(block) {
            *places += 1;
        }
    }

    /// The block of a grain, counted through all indexed layers.
    fn block_of(&self, id: usize) -> usize {
        let (first, first_block) = match self.indexed.iter().rfind(|known| known.first <= id) {
            Some(known) if id < self.own_first => (known.first, known.first_block),
            _ => (self.own_first, self.own_first_block),
        };
        first_block + (id - first) / (self.block / self.grain)
    }

    /// Stores a grain in the layer's next block.
    fn store(&mut self, target: u64, hash: GrainHash, bytes: &[u8], store: &mut Store<'_>) -> Result<(), ImageError> {
        let id = self.index.len();
        let findable = self.index.find(&hash).is_none_or(|known| !self.has_room(known, 0));
        self.index.push(hash, findable);
        if self.filling.is_empty() {
            self.block_places.push(0);
        }
        self.count(id);
        self.totals.stored += 1;
        self.filling.extend_from_slice(bytes);
        if self.filling.len() >= self.block {
            let full = core::mem::take(&mut self.filling);
            self.filling = store(full)?;
        }
        let kind = Kind::Data { layer: self.depth, grain: (id - self.own_first) as u64 };
        self.push(Extent { start: target, grains: 1, kind })
    }

    fn push(&mut self, extent: Extent) -> Result<(), ImageError> {
        self.extents.push(extent);
        if self.extents.bytes() > MAX_EXTENT_BYTES { Err(ImageError::TooMany { what: "extents" }) } else { Ok(()) }
    }
}
