//! What the last look reads, and its rounds: spots that were noted when their blocks were verified, or every block by the manifest.
//!
//! The sample needs nothing of the manifest: where a chosen block was found right, a few places of it are kept with what they
//! held. For a round over everything the parts are kept as they came, packed, as far as there is room for them.

use super::Unprovable;
use crate::look::{LastLook, Scope};
use crate::reason::{LookedAt, Verify};
use crate::units::{BlockNo, Hash};
use core::ops::Range;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A few sectors of the body and what they must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Where on the disk, in bytes.
    pub at: u64,
    /// How long it is, in bytes.
    pub len: usize,
    /// What must be there.
    pub right: Right,
}

/// See [`Spot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Eight bytes over and over.
    Pattern(u64),
    /// Bytes with this hash.
    Hash(Hash),
}

/// The last look at a disk: what is due, what is known for it, and the round that is under way.
#[derive(Debug)]
pub(super) struct Rereading {
    look: LastLook,
    ledger: Ledger,
    round: Option<Round>,
}

impl Rereading {
    pub(super) const fn new(verify: Verify, ledger_bytes: usize) -> Self {
        Self { look: LastLook::new(verify), ledger: Ledger::new(ledger_bytes), round: None }
    }

    /// Keeps a part as it came, if there is room.
    pub(super) fn keep(&mut self, first: BlockNo, blocks: u32, packed: Arc<[u8]>) {
        self.ledger.keep(first, blocks, packed);
    }

    /// The part of a block as it came, if it is kept.
    pub(super) fn part_of(&self, block: BlockNo) -> Option<Arc<[u8]>> {
        self.ledger.part_of(block)
    }

    /// A block was found right.
    pub(super) fn note(&mut self, block: BlockNo, spots: Vec<Spot>) {
        self.ledger.note(block, spots);
    }

    /// A block is not what it was.
    pub(super) fn forget(&mut self, block: BlockNo) {
        self.ledger.forget(block);
    }

    /// The disk was wrong somewhere.
    pub(super) fn on_mismatch(&mut self) {
        self.look.on_mismatch();
    }

    /// What must still be read before the head may be written.
    pub(super) fn due(&self) -> Option<Scope> {
        self.look.due()
    }

    /// Begins the round that is due over `blocks` blocks; gives what it reads.
    pub(super) fn begin(&mut self, blocks: u32) -> Result<Option<Scope>, Unprovable> {
        let Some(scope) = self.look.due() else { return Ok(None) };
        self.look.on_begin(scope);
        if self.look.is_hopeless() {
            return Err(Unprovable::Unstable { rounds: self.look.rounds() });
        }
        if scope == Scope::All && !self.ledger.has_all(blocks) {
            return Err(Unprovable::Forgotten);
        }
        self.round = Some(self.ledger.round(scope, blocks));
        Ok(Some(scope))
    }

    pub(super) const fn in_round(&self) -> bool {
        self.round.is_some()
    }

    pub(super) fn has_more(&self) -> bool {
        self.round.as_ref().is_some_and(Round::has_more)
    }

    /// The next thing to look at.
    pub(super) fn next(&mut self) -> Option<Next> {
        self.round.as_mut()?.next()
    }

    /// Something was looked at.
    pub(super) fn on_read(&mut self) {
        self.round.iter_mut().for_each(Round::on_read);
    }

    /// Ends the round if all of it was read; gives whether it was.
    pub(super) fn end(&mut self) -> bool {
        let over = self.round.take_if(|round| round.is_over());
        if let Some(round) = &over {
            self.look.on_end(round.scope, round.read);
        }
        over.is_some()
    }

    pub(super) fn stop(&mut self) {
        self.round = None;
    }

    /// For the report.
    pub(super) fn report(&self) -> (LookedAt, u32) {
        self.look.report()
    }
}

/// What is known for the last look.
#[derive(Debug)]
struct Ledger {
    spots: BTreeMap<BlockNo, Vec<Spot>>,
    /// Parts as they came, by first block, with the number of blocks.
    parts: BTreeMap<BlockNo, (Arc<[u8]>, u32)>,
    bytes: usize,
    limit: usize,
}

impl Ledger {
    const fn new(limit: usize) -> Self {
        Self { spots: BTreeMap::new(), parts: BTreeMap::new(), bytes: 0, limit }
    }

    /// Keeps a part if there is room.
    fn keep(&mut self, first: BlockNo, blocks: u32, packed: Arc<[u8]>) {
        if self.bytes + packed.len() <= self.limit && !self.parts.contains_key(&first) {
            self.bytes += packed.len();
            self.parts.insert(first, (packed, blocks));
        }
    }

    /// A block was found right.
    fn note(&mut self, block: BlockNo, spots: Vec<Spot>) {
        if !spots.is_empty() {
            self.spots.insert(block, spots);
        }
    }

    /// A block is not what it was.
    fn forget(&mut self, block: BlockNo) {
        self.spots.remove(&block);
    }

    fn part_of(&self, block: BlockNo) -> Option<Arc<[u8]>> {
        let (first, (packed, blocks)) = self.parts.range(..=block).next_back()?;
        (block.0 - first.0 < *blocks).then(|| Arc::clone(packed))
    }

    /// Whether every one of `blocks` blocks can be read again.
    fn has_all(&self, blocks: u32) -> bool {
        self.parts.values().map(|(_, blocks)| u64::from(*blocks)).sum::<u64>() >= u64::from(blocks)
    }

    /// The beginning of a round over `blocks` blocks.
    fn round(&self, scope: Scope, blocks: u32) -> Round {
        let mut spots: VecDeque<Spot> = VecDeque::new();
        let mut todo = 0..blocks;
        let mut read = blocks;
        if scope == Scope::Sample {
            spots = self.spots.values().flatten().copied().collect();
            spots.make_contiguous().sort_unstable_by_key(|spot| spot.at);
            (todo, read) = (0..0, u32::try_from(self.spots.len()).unwrap_or(u32::MAX));
        }
        Round { scope, spots, blocks: todo, open: 0, read }
    }
}

/// One round of the last look.
#[derive(Debug)]
struct Round {
    scope: Scope,
    spots: VecDeque<Spot>,
    blocks: Range<u32>,
    /// In the hands of readers.
    open: usize,
    /// How many blocks it looks at.
    read: u32,
}

/// The next thing to look at.
#[derive(Debug)]
pub(super) enum Next {
    Spot(Spot),
    Block(BlockNo),
}

impl Round {
    fn has_more(&self) -> bool {
        !self.spots.is_empty() || !self.blocks.is_empty()
    }

    fn next(&mut self) -> Option<Next> {
        let next =
            self.spots.pop_front().map(Next::Spot).or_else(|| self.blocks.next().map(BlockNo).map(Next::Block))?;
        self.open += 1;
        Some(next)
    }

    fn on_read(&mut self) {
        self.open -= 1;
    }

    fn is_over(&self) -> bool {
        !self.has_more() && self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_as_far_as_there_is_room() {
        let mut ledger = Ledger::new(100);
        ledger.keep(BlockNo(0), 7, vec![1; 60].into());
        ledger.keep(BlockNo(7), 7, vec![2; 60].into());
        assert_eq!(ledger.part_of(BlockNo(6)).as_deref(), Some(&[1; 60][..]));
        assert_eq!(ledger.part_of(BlockNo(7)), None);
        assert!(ledger.has_all(7) && !ledger.has_all(14));
    }
}
