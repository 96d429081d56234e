//! What is flushed and not read back, the manifest parts that it holds in memory, and what was read back and not told.

use super::{ManifestPart, Written};
use crate::units::BlockNo;
use std::collections::{BTreeMap, VecDeque};

/// Writing waits for reading once the parts of blocks that are not read back take this many bytes.
pub const RETAINED_LIMIT: usize = 8 << 20;
/// So many blocks are told of at once when they are verified, or all there are.
const VERIFIED_BATCH: usize = 64;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Unread<P> {
    queue: VecDeque<Written<P>>,
    /// A pass of reading on a disk with heads; nothing is written meanwhile.
    pass: bool,
    /// Parts that blocks between fresh and done hold: heap bytes and number of blocks, by first block.
    retained: BTreeMap<BlockNo, (usize, usize)>,
    retained_bytes: usize,
    /// Verified, but not told yet.
    verified: Vec<BlockNo>,
}

impl<P: ManifestPart> Unread<P> {
    pub(super) fn new() -> Self {
        Self { queue: VecDeque::new(), pass: false, retained: BTreeMap::new(), retained_bytes: 0, verified: Vec::new() }
    }

    /// A block was written that will be read back: its part is held until then.
    pub(super) fn retain(&mut self, part: &P) {
        let (heap, blocks) = self.retained.entry(part.first()).or_insert((0, 0));
        if *blocks == 0 {
            *heap = part.heap_bytes();
            self.retained_bytes += *heap;
        }
        *blocks += 1;
    }

    /// A block of this part was read back.
    pub(super) fn release(&mut self, part: &P) {
        if let Some((heap, blocks)) = self.retained.get_mut(&part.first()) {
            *blocks -= 1;
            if *blocks == 0 {
                self.retained_bytes -= *heap;
                self.retained.remove(&part.first());
            }
        }
    }

    /// Whether the parts that are held take too much memory: writing has to wait for reading.
    pub(super) const fn presses(&self) -> bool {
        self.retained_bytes > RETAINED_LIMIT
    }

    /// A flush covers these blocks.
    pub(super) fn on_flushed(&mut self, batch: Vec<Written<P>>) {
        self.queue.extend(batch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether nothing may be written because a disk with heads is being read.
    pub(super) const fn in_pass(&self) -> bool {
        self.pass
    }

    /// A pass over all that is flushed, in the order of the disk.
    pub(super) fn begin_pass(&mut self) {
        self.pass = true;
        self.queue.make_contiguous().sort_unstable_by_key(|written| written.block);
    }

    /// The pass is over once nothing is left and nobody reads.
    pub(super) fn end_pass(&mut self, reading: usize) {
        if self.queue.is_empty() && reading == 0 {
            self.pass = false;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Written<P>> {
        self.queue.pop_front()
    }

    /// A block was read and is right.
    pub(super) fn on_verified(&mut self, block: BlockNo) {
        self.verified.push(block);
    }

    /// The blocks that are verified and were not told of: when they are enough, or `all`.
    pub(super) fn take_verified(&mut self, all: bool) -> Option<Vec<BlockNo>> {
        let due = !self.verified.is_empty() && (all || self.verified.len() >= VERIFIED_BATCH);
        due.then(|| core::mem::take(&mut self.verified))
    }

    pub(super) fn clear(&mut self) {
        self.queue = VecDeque::new();
    }

    /// Pretends that parts of so many bytes more are held.
    #[cfg(test)]
    pub(super) fn press(&mut self, bytes: isize) {
        self.retained_bytes = self.retained_bytes.saturating_add_signed(bytes);
    }
}
