//! The queue of fills: which ones nobody has begun, in the order in which their parts came.

use super::ManifestPart;
use crate::set::BlockSet;
use crate::units::BlockNo;
use std::collections::VecDeque;
use std::sync::Arc;

/// Fills go before blocks once the parts that wait for theirs take this many bytes.
const LIMIT: usize = 4 << 20;

/// A fill block and how far it got.
#[derive(Debug)]
pub struct FillWork<P> {
    /// Its number.
    pub block: BlockNo,
    /// The part that it is in.
    pub part: Arc<P>,
    /// Only plain writes: the read-back found something else where the kernel was to make zeros.
    pub plain: bool,
    /// What was written of it before it was put back.
    pub reached: Reached,
}

/// How far a fill got. The schedule only keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Places before this one are done ...
    pub place: usize,
    /// ... and this many bytes of it.
    pub at: u64,
    /// The bytes filled so far.
    pub bytes: u64,
}

impl<P> FillWork<P> {
    /// A fill that nobody has begun.
    #[must_use]
    pub fn new(block: BlockNo, part: Arc<P>) -> Self {
        Self { block, part, plain: false, reached: Reached::default() }
    }

    /// A fill that was read back wrong.
    #[must_use]
    pub fn again(block: BlockNo, part: Arc<P>) -> Self {
        Self { plain: true, ..Self::new(block, part) }
    }
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Fills<P> {
    /// Parts with fills that were not begun, and the first such fill of each.
    parts: VecDeque<(Arc<P>, BlockNo)>,
    parts_bytes: usize,
    /// Fills that were begun and put back.
    works: VecDeque<FillWork<P>>,
    /// Fills that were begun, or that the disk held.
    taken: BlockSet,
}

impl<P: ManifestPart> Fills<P> {
    pub(super) fn new(blocks: u32) -> Self {
        Self { parts: VecDeque::new(), parts_bytes: 0, works: VecDeque::new(), taken: BlockSet::empty(blocks) }
    }

    pub(super) fn push(&mut self, part: Arc<P>) {
        if let Some(first) = self.next(&part, part.first()) {
            self.parts_bytes += part.heap_bytes();
            self.parts.push_back((part, first));
        }
    }

    /// The fill need not be written, or somebody is at it.
    pub(super) fn take(&mut self, block: BlockNo) {
        self.taken.insert(block);
    }

    /// A fill is to be gone on with, before all others.
    pub(super) fn put_back(&mut self, work: FillWork<P>) {
        self.works.push_front(work);
    }

    pub(super) fn pop(&mut self) -> Option<FillWork<P>> {
        if let Some(work) = self.works.pop_front() {
            return Some(work);
        }
        while let Some((part, from)) = self.parts.pop_front() {
            // Whatever is left of the part goes back to the front.
            self.parts_bytes -= part.heap_bytes();
            let found = self.next(&part, from);
            if let Some(block) = found {
                self.taken.insert(block);
                if let Some(next) = self.next(&part, BlockNo(block.0 + 1)) {
                    self.parts_bytes += part.heap_bytes();
                    self.parts.push_front((Arc::clone(&part), next));
                }
                return Some(FillWork::new(block, part));
            }
        }
        None
    }

    /// The first fill of `part` at or after `from` that nobody has begun.
    fn next(&self, part: &P, from: BlockNo) -> Option<BlockNo> {
        let end = part.first().0.saturating_add(part.blocks());
        (from.0..end).map(BlockNo).find(|block| part.is_fill(*block) && !self.taken.contains(*block))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.works.is_empty()
    }

    /// Whether the parts that wait take too much memory.
    pub(super) const fn presses(&self) -> bool {
        self.parts_bytes > LIMIT
    }

    pub(super) fn clear(&mut self) {
        self.parts = VecDeque::new();
        self.works = VecDeque::new();
        self.parts_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::part;
    use super::*;

    fn popped<P: ManifestPart>(fills: &mut Fills<P>) -> Vec<u32> {
        core::iter::from_fn(|| fills.pop()).map(|work| work.block.0).collect()
    }

    #[test]
    fn fills_come_out_once_in_order() {
        let part = part(&[true, false, true, true]);
        let mut fills = Fills::new(4);
        fills.take(BlockNo(2));
        fills.push(Arc::clone(&part));
        fills.push(Arc::clone(&part));
        assert_eq!(popped(&mut fills), [0, 3]);
        assert!(fills.is_empty() && fills.parts_bytes == 0);
        fills.push(part);
        assert!(fills.is_empty());
    }

    #[test]
    fn a_fill_that_was_put_back_goes_on_first() {
        let mut fills = Fills::new(2);
        fills.push(part(&[true, true]));
        let first = fills.pop().unwrap();
        fills.put_back(first);
        assert_eq!(popped(&mut fills), [0, 1]);
    }
}
