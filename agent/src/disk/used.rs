//! Which grains of the target the image uses: what `--free zero` needs to know at the end. One bit for each grain.

use core::ops::Range;
use slidecast_image::manifest::Part;
use slidecast_proto::units::BlockNo;

pub(super) struct Used {
    words: Vec<u64>,
    grain: u64,
    target_bytes: u64,
}

impl Used {
    pub(super) fn new(target_bytes: u64, grain: u32) -> Self {
        let grain = u64::from(grain);
        let words = target_bytes.div_ceil(grain).div_ceil(64);
        Self { words: vec![0; usize::try_from(words).unwrap_or(usize::MAX)], grain, target_bytes }
    }

    /// Counts every place of a part as used.
    pub(super) fn note(&mut self, part: &Part) {
        let blocks = part.first().0..part.first().0 + part.len();
        for place in blocks.filter_map(|block| part.block(BlockNo(block))).flat_map(|info| info.places) {
            self.set(place.target..place.target + u64::from(place.grains));
        }
    }

    fn set(&mut self, grains: Range<u64>) {
        let mut at = grains.start;
        while at < grains.end {
            let (word, bit) = (at / 64, at % 64);
            let count = (64 - bit).min(grains.end - at);
            let bits = (u64::MAX >> (64 - count)) << bit;
            if let Some(word) = usize::try_from(word).ok().and_then(|word| self.words.get_mut(word)) {
                *word |= bits;
            }
            at += count;
        }
    }

    /// The ranges of the target that nothing uses, in bytes and in order.
    pub(super) fn unused(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let grains = self.target_bytes.div_ceil(self.grain);
        let mut at = 0;
        core::iter::from_fn(move || {
            let start = self.next(at, grains, false);
            at = self.next(start, grains, true);
            (start < at).then(|| start * self.grain..(at * self.grain).min(self.target_bytes))
        })
    }

    /// The first grain at or after `from` that is used or not; `end` if there is none.
    fn next(&self, from: u64, end: u64, used: bool) -> u64 {
        let mut at = from;
        while at < end {
            let word = usize::try_from(at / 64).ok().and_then(|word| self.words.get(word)).copied().unwrap_or(0);
            let bits = if used { word } else { !word } & (u64::MAX << (at % 64));
            if bits != 0 {
                return (at - at % 64 + u64::from(bits.trailing_zeros())).min(end);
            }
            at = at - at % 64 + 64;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::manifest::{fill, part, stored};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_no_place_covers_is_unused() {
        let (_, part) = part(&[stored(16, 0), fill(0, 200, 100)]);
        let mut used = Used::new(1_000_000, 4096);
        used.note(&part);
        let grains = |range: Range<u64>| range.start * 4096..range.end * 4096;
        assert_eq!(used.unused().collect::<Vec<_>>(), [grains(16..100)]);
        let mut used = Used::new(4 << 20, 4096);
        used.note(&part);
        assert_eq!(used.unused().collect::<Vec<_>>(), [grains(16..100), grains(300..1024)]);
    }

    proptest! {
        #[test]
        fn used_and_unused_are_all_grains(runs in proptest::collection::vec((0u64..500, 1u64..100), 0..20), size in 1u64..600) {
            let mut used = Used::new(size * 4096 - 512, 4096);
            let mut naive = vec![false; usize::try_from(size).unwrap()];
            for (start, len) in runs {
                used.set(start..start + len);
                naive.iter_mut().skip(usize::try_from(start).unwrap()).take(usize::try_from(len).unwrap()).for_each(|bit| *bit = true);
            }
            for range in used.unused() {
                for grain in range.start / 4096..range.end.div_ceil(4096) {
                    prop_assert!(!std::mem::replace(&mut naive[usize::try_from(grain).unwrap()], true));
                }
            }
            prop_assert!(naive.iter().all(|bit| *bit));
        }
    }
}
