//! What is known of each block of the image on this disk: the only place that says so.

use crate::set::BlockSet;
use crate::units::BlockNo;
use std::collections::BTreeSet;

/// A disk that gives wrong bytes for more blocks than this is lost.
const MISMATCH_LIMIT: usize = 1024;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Written, or held from before.
    settled: BlockSet,
    /// Written in this run.
    written: BlockSet,
    /// As far as they will get: read back, or flushed if nothing is to be read back.
    done: BlockSet,
    /// Read back wrong once.
    mismatched: BTreeSet<BlockNo>,
}

impl Blocks {
    /// Nothing is known of any of `blocks` blocks.
    pub(super) fn new(blocks: u32) -> Self {
        let none = BlockSet::empty(blocks);
        Self { settled: none.clone(), written: none.clone(), done: none, mismatched: BTreeSet::new() }
    }

    /// The disk held it before the first write.
    pub(super) fn on_held(&mut self, block: BlockNo) {
        self.settled.insert(block);
        self.done.insert(block);
    }

    /// All its places are written.
    pub(super) fn on_written(&mut self, block: BlockNo) {
        self.settled.insert(block);
        self.written.insert(block);
    }

    /// It is as far as it will get.
    pub(super) fn on_done(&mut self, block: BlockNo) {
        self.done.insert(block);
    }

    /// The disk gave other bytes. Gives whether the block may be written once more.
    pub(super) fn on_wrong(&mut self, block: BlockNo) -> bool {
        self.settled.remove(block);
        self.done.remove(block);
        self.mismatched.len() < MISMATCH_LIMIT && self.mismatched.insert(block)
    }

    /// Whether every block is written or was held.
    pub(super) fn all_settled(&self) -> bool {
        self.settled.is_full()
    }

    /// Whether every block is as far as it will get.
    pub(super) fn all_done(&self) -> bool {
        self.done.is_full()
    }

    /// How many blocks the image has.
    pub(super) fn count(&self) -> u32 {
        self.done.universe()
    }

    /// How many blocks were written in this run.
    pub(super) fn written(&self) -> u32 {
        self.written.count()
    }

    /// How many blocks stood on the disk before.
    pub(super) fn kept(&self) -> u32 {
        self.done.count().saturating_sub(self.written.count())
    }
}
