//! What the node has of each block: accepted, durable, verified, and reported to the server.

use crate::bug::{self, Bug};
use crate::reason::Verify;
use crate::set::BlockSet;
use crate::units::BlockNo;
use std::collections::BTreeMap;

/// How often a block whose content was wrong is fetched before the node gives up.
const CONTENT_TRIES: u8 = 2;

/// Why a block was rejected; each reason is counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wrong {
    /// What was read back from the disk.
    ReadBack,
    /// What the server sent.
    FromServer,
    /// What a neighbour sent.
    FromNode,
}

/// The sets. Before the number of blocks is known they are empty.
#[derive(Debug)]
pub(super) struct Blocks {
    accepted: BlockSet,
    durable: BlockSet,
    verified: BlockSet,
    unreported: BlockSet,
    /// How often a block was wrong in which way.
    tries: BTreeMap<(BlockNo, Wrong), u8>,
}

impl Blocks {
    /// Nothing of `blocks` blocks.
    pub(super) fn none(blocks: u32) -> Self {
        let none = || BlockSet::empty(blocks);
        Self { accepted: none(), durable: none(), verified: none(), unreported: none(), tries: BTreeMap::new() }
    }

    /// A block came, or needs not come; gives whether that is new.
    pub(super) fn accept(&mut self, block: BlockNo) -> bool {
        self.accepted.insert(block)
    }

    pub(super) fn accepted(&self) -> &BlockSet {
        &self.accepted
    }

    /// A flush covered this block.
    pub(super) fn on_durable(&mut self, block: BlockNo) {
        if self.accepted.contains(block) && self.durable.insert(block) {
            self.unreported.insert(block);
        }
    }

    /// The disk held this block before: it was read past the cache and hashed.
    pub(super) fn on_held(&mut self, block: BlockNo) {
        self.accepted.insert(block);
        self.verified.insert(block);
        if self.durable.insert(block) && !bug::is(Bug::HeldUnreported) {
            self.unreported.insert(block);
        }
    }

    /// A block was read back and is equal.
    pub(super) fn on_verified(&mut self, block: BlockNo) {
        self.verified.insert(block);
    }

    /// Nothing that was read back counts any more.
    pub(super) fn unverify(&mut self) {
        self.verified = BlockSet::empty(self.verified.universe());
    }

    /// A block is not what it must be: it is lacking again. Gives whether it was wrong in this way as often as it may be.
    pub(super) fn reject(&mut self, block: BlockNo, wrong: Wrong) -> bool {
        for set in [&mut self.durable, &mut self.verified, &mut self.unreported] {
            set.remove(block);
        }
        if !bug::is(Bug::MismatchStaysAccepted) {
            self.accepted.remove(block);
        }
        let tries = self.tries.entry((block, wrong)).or_insert(0);
        *tries = tries.saturating_add(1);
        *tries >= CONTENT_TRIES
    }

    /// Whether all blocks are proven as far as `verify` asks for it.
    pub(super) fn are_proven(&self, verify: Verify) -> bool {
        let read_back = verify.reads_back() && !bug::is(Bug::FinishUnverified);
        let proven = if read_back { &self.verified } else { &self.durable };
        self.accepted.is_full() && proven.is_full()
    }

    /// How many are accepted, durable and verified.
    pub(super) fn counts(&self) -> [u32; 3] {
        [&self.accepted, &self.durable, &self.verified].map(BlockSet::count)
    }

    /// The server knows nothing any more.
    pub(super) fn report_all_again(&mut self) {
        self.unreported = self.durable.clone();
    }

    /// What became durable since it was asked last, as ranges.
    pub(super) fn take_unreported(&mut self) -> Vec<(u32, u32)> {
        let ranges: Vec<(u32, u32)> =
            self.unreported.ranges().take(4096).map(|range| (range.start, range.end)).collect();
        for (start, end) in &ranges {
            for block in *start..*end {
                self.unreported.remove(BlockNo(block));
            }
        }
        ranges
    }
}
