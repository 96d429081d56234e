//! The queue of fills: which ones nobody has begun, in the order in which their parts came.

use super::fill::FillWork;
use slidecast_image::manifest::{Content, Part};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::BlockNo;
use std::collections::VecDeque;
use std::sync::Arc;

/// Fills go before blocks once the parts that wait for theirs take this many bytes.
const LIMIT: usize = 4 << 20;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Fills {
    /// Parts with fills that were not begun, and the first such fill of each.
    parts: VecDeque<(Arc<Part>, BlockNo)>,
    parts_bytes: usize,
    /// Fills that were begun and put back.
    works: VecDeque<FillWork>,
    /// Fills that were begun, or that the disk held.
    taken: BlockSet,
}

impl Fills {
    pub(super) fn new(blocks: u32) -> Self {
        Self { parts: VecDeque::new(), parts_bytes: 0, works: VecDeque::new(), taken: BlockSet::empty(blocks) }
    }

    pub(super) fn push(&mut self, part: Arc<Part>) {
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
    pub(super) fn put_back(&mut self, work: FillWork) {
        self.works.push_front(work);
    }

    pub(super) fn pop(&mut self) -> Option<FillWork> {
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
    fn next(&self, part: &Part, from: BlockNo) -> Option<BlockNo> {
        let end = part.first().0.saturating_add(part.len());
        (from.0..end).map(BlockNo).find(|block| {
            let fill = part.block(*block).is_some_and(|info| matches!(info.content, Content::Fill { .. }));
            fill && !self.taken.contains(*block)
        })
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
    use super::super::tests::manifest::{fill, part, stored};
    use super::*;

    fn popped(fills: &mut Fills) -> Vec<u32> {
        core::iter::from_fn(|| fills.pop()).map(|work| work.block.0).collect()
    }

    #[test]
    fn fills_come_out_once_in_order() {
        let (_, part) = part(&[fill(0, 1, 300), stored(1, 400), fill(1, 1, 500), fill(2, 1, 600)]);
        let part = Arc::new(part);
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
        let (_, part) = part(&[fill(0, 1, 300), fill(1, 1, 500)]);
        let mut fills = Fills::new(2);
        fills.push(Arc::new(part));
        let first = fills.pop().unwrap();
        fills.put_back(first);
        assert_eq!(popped(&mut fills), [0, 1]);
    }
}
