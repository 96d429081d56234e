//! One part of the manifest against what stands on the disk: which block is looked at next, and what came of it.
//!
//! A disk with something else on it is told by a sample: when none of [`SAMPLE`] stored blocks, spread over the part, is
//! there, the rest of the part is not looked at.

use super::ManifestPart;
use crate::bug::{self, Bug};
use crate::units::BlockNo;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many stored blocks of a part stand for all of them.
const SAMPLE: usize = 16;

/// See the file's head.
#[derive(Debug)]
pub struct Comparison<P> {
    part: Arc<P>,
    /// Blocks that nobody has looked at, those of the sample first.
    todo: VecDeque<BlockNo>,
    /// Blocks of the sample without an answer.
    sample: Vec<BlockNo>,
    /// Blocks in the hands of readers.
    open: usize,
    same: Vec<BlockNo>,
}

impl<P: ManifestPart> Comparison<P> {
    /// All blocks of `part`, by a sample first if that is wanted.
    #[must_use]
    pub fn new(part: Arc<P>, sampled: bool) -> Self {
        let blocks = part.first().0..part.first().0.saturating_add(part.blocks());
        let is_stored = |block: &BlockNo| !part.is_fill(*block);
        let stored: Vec<BlockNo> =
            if sampled { blocks.clone().map(BlockNo).filter(is_stored).collect() } else { Vec::new() };
        let sample: Vec<BlockNo> = if stored.len() > SAMPLE {
            (0..SAMPLE).map(|at| stored[at * stored.len() / SAMPLE]).collect()
        } else {
            Vec::new()
        };
        let rest = blocks.map(BlockNo).filter(|block| sample.binary_search(block).is_err());
        let todo = sample.iter().copied().chain(rest).collect();
        Self { part, todo, sample, open: 0, same: Vec::new() }
    }

    /// Nothing of `part` counts as held.
    #[must_use]
    pub fn of_nothing(part: Arc<P>) -> Self {
        Self { part, todo: VecDeque::new(), sample: Vec::new(), open: 0, same: Vec::new() }
    }

    pub(super) fn first(&self) -> BlockNo {
        self.part.first()
    }

    /// How many blocks the part has.
    pub(super) fn blocks(&self) -> u32 {
        self.part.blocks()
    }

    pub(super) fn has_more(&self) -> bool {
        !self.todo.is_empty()
    }

    /// The next block to look at.
    pub(super) fn next(&mut self) -> Option<(Arc<P>, BlockNo)> {
        let block = self.todo.pop_front()?;
        self.open += 1;
        Some((Arc::clone(&self.part), block))
    }

    pub(super) fn on_compared(&mut self, block: BlockNo, same: bool) {
        self.open -= 1;
        if same {
            self.same.push(block);
        }
        let sampling = !self.sample.is_empty();
        self.sample.retain(|waiting| *waiting != block);
        if sampling && self.sample.is_empty() && self.same.is_empty() {
            self.todo.clear();
        } else if sampling && self.sample.is_empty() && bug::is(Bug::SampleStandsForAll) {
            self.same.extend(self.todo.drain(..));
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.todo.is_empty() && self.open == 0
    }

    /// The blocks that the disk holds, rising.
    pub(super) fn into_same(mut self) -> Vec<BlockNo> {
        self.same.sort_unstable();
        self.same
    }
}
