//! Sets of block numbers: what a node accepted, made durable, verified, or still lacks.
//!
//! A plain bitmap: 2 MiB for the largest image, a few KiB for usual ones. On a chain link it travels in segments of
//! [`SEGMENT_BLOCKS`] blocks; on the control link as ranges of what is new.

use crate::units::BlockNo;
use core::ops::Range;

/// How many blocks one segment on the wire tells of: 64 KiB of bits.
pub(crate) const SEGMENT_BLOCKS: u32 = 64 * 1024 * 8;

/// A set of the blocks 0..n of one image.
#[derive(Clone, PartialEq, Eq)]
pub struct BlockSet {
    universe: u32,
    count: u32,
    words: Vec<u64>,
}

impl core::fmt::Debug for BlockSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "BlockSet({} of {})", self.count, self.universe)
    }
}

fn split(block: u32) -> (usize, u64) {
    ((block / 64) as usize, 1 << (block % 64))
}

impl BlockSet {
    /// No block of an image of `universe` blocks.
    #[must_use]
    pub fn empty(universe: u32) -> Self {
        Self { universe, count: 0, words: vec![0; universe.div_ceil(64) as usize] }
    }

    /// Every block of an image of `universe` blocks.
    #[must_use]
    pub fn full(universe: u32) -> Self {
        let mut set = Self { universe, count: universe, words: vec![u64::MAX; universe.div_ceil(64) as usize] };
        set.trim();
        set
    }

    fn trim(&mut self) {
        if let (Some(last), tail @ 1..) = (self.words.last_mut(), self.universe % 64) {
            *last &= (1 << tail) - 1;
        }
    }

    /// How many blocks the image has.
    #[must_use]
    pub fn universe(&self) -> u32 {
        self.universe
    }

    /// How many blocks are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether no block is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether every block of the image is in the set.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == self.universe
    }

    /// Whether `block` is in the set; never for a block that the image does not have.
    #[must_use]
    pub fn contains(&self, block: BlockNo) -> bool {
        let (word, bit) = split(block.0);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Adds `block`; gives whether it is new. A block that the image does not have is left out.
    pub fn insert(&mut self, block: BlockNo) -> bool {
        let (word, bit) = split(block.0);
        if block.0 >= self.universe || self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.count += 1;
        true
    }

    /// Takes `block` out; gives whether it was there.
    pub fn remove(&mut self, block: BlockNo) -> bool {
        let (word, bit) = split(block.0);
        if !self.contains(block) {
            return false;
        }
        self.words[word] &= !bit;
        self.count -= 1;
        true
    }

    /// The first block of the set at or after `from`.
    #[must_use]
    pub fn next(&self, from: BlockNo) -> Option<BlockNo> {
        let mut word = (from.0 / 64) as usize;
        let mut bits = self.words.get(word)? & (u64::MAX << (from.0 % 64));
        loop {
            if bits != 0 {
                let at = u32::try_from(word).ok()? * 64 + bits.trailing_zeros();
                return Some(BlockNo(at));
            }
            word += 1;
            bits = *self.words.get(word)?;
        }
    }

    /// The blocks of the set in order.
    pub fn iter(&self) -> impl Iterator<Item = BlockNo> + '_ {
        let mut from = BlockNo(0);
        core::iter::from_fn(move || {
            let block = self.next(from)?;
            from = BlockNo(block.0 + 1);
            Some(block)
        })
    }

    /// Whether any block of `range` is in the set.
    #[must_use]
    pub(crate) fn any_in(&self, range: Range<u32>) -> bool {
        self.next(BlockNo(range.start)).is_some_and(|block| block.0 < range.end)
    }

    /// The set as maximal ranges of block numbers.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let start = self.next(BlockNo(from))?.0;
            let mut end = start + 1;
            while self.contains(BlockNo(end)) {
                end += 1;
            }
            from = end;
            Some(start..end)
        })
    }

    /// Adds every block of `other`, which must be of the same image.
    pub fn union(&mut self, other: &Self) {
        self.merge(other, |mine, theirs| mine | theirs);
    }

    /// Takes every block of `other` out.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.merge(other, |mine, theirs| mine & !theirs);
    }

    fn merge(&mut self, other: &Self, op: impl Fn(u64, u64) -> u64) {
        self.words.iter_mut().zip(&other.words).for_each(|(mine, theirs)| *mine = op(*mine, *theirs));
        self.trim();
        self.count = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// The blocks of the image that are not in the set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut all = Self::full(self.universe);
        all.subtract(self);
        all
    }

    /// How many segments carry the whole set.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.universe.div_ceil(SEGMENT_BLOCKS).max(1)
    }

    /// The bits of one segment, little-endian, lowest block first.
    #[must_use]
    pub fn segment(&self, index: u32) -> Vec<u8> {
        let words = (SEGMENT_BLOCKS / 64) as usize;
        let start = index as usize * words;
        let end = (start + words).min(self.words.len());
        self.words[start.min(end)..end].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Takes over one segment as it came from outside: bits of blocks that the image does not have are dropped.
    /// Gives whether its length was right.
    pub(crate) fn set_segment(&mut self, index: u32, bits: &[u8]) -> bool {
        let words = (SEGMENT_BLOCKS / 64) as usize;
        let Some(start) = (index as usize).checked_mul(words) else { return false };
        let end = (start.saturating_add(words)).min(self.words.len());
        if start > end || bits.len() != (end - start) * 8 {
            return false;
        }
        for (word, bytes) in self.words[start..end].iter_mut().zip(bits.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        self.trim();
        self.count = self.words.iter().map(|word| word.count_ones()).sum();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_full_set_has_no_block_beyond_the_image() {
        let set = BlockSet::full(130);
        assert_eq!((set.count(), set.iter().count()), (130, 130));
        assert!(!set.contains(BlockNo(130)) && !set.clone().insert(BlockNo(130)));
        assert!(set.complement().is_empty());
    }

    #[test]
    fn a_segment_of_the_wrong_length_is_refused() {
        let mut set = BlockSet::empty(100);
        assert!(!set.set_segment(0, &[0; 8]));
        assert!(!set.set_segment(1, &[0; 16]));
        assert!(!set.set_segment(u32::MAX, &[]) || set.universe() == 0);
        assert!(set.set_segment(0, &[255; 16]));
        assert_eq!(set.count(), 100);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(universe in 1u32..300, ops in prop::collection::vec((0u32..310, any::<bool>()), 0..200)) {
            let mut set = BlockSet::empty(universe);
            let mut naive = BTreeSet::new();
            for (block, add) in ops {
                if add {
                    prop_assert_eq!(set.insert(BlockNo(block)), block < universe && naive.insert(block));
                } else {
                    prop_assert_eq!(set.remove(BlockNo(block)), naive.remove(&block));
                }
            }
            prop_assert_eq!(set.count() as usize, naive.len());
            prop_assert_eq!(set.iter().map(|b| b.0).collect::<Vec<_>>(), naive.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.ranges().flatten().collect::<Vec<_>>(), naive.iter().copied().collect::<Vec<_>>());
            let mut copy = BlockSet::empty(universe);
            for index in 0..set.segments() {
                prop_assert!(copy.set_segment(index, &set.segment(index)));
            }
            prop_assert_eq!(&copy, &set);
            let mut all = set.complement();
            all.union(&set);
            prop_assert!(all.is_full());
        }
    }
}
