//! Which spots of which blocks the last look reads: chosen and noted when their blocks are verified, with what they held.

use super::layout::Layout;
use slidecast_image::manifest::{BlockInfo, Content, Part};
use slidecast_proto::schedule::{Right, Spot};
use slidecast_proto::units::{BlockNo, Hash};
use std::sync::Arc;

/// Of so many blocks one is looked at ...
const ONE_OF: u32 = 64;
/// ... but at least and at most so many.
const MIN_SAMPLE: u32 = 64;
const MOST: u32 = 2048;
/// How much is read in one spot, at most.
pub(super) const SPOT_BYTES: usize = 64 << 10;
/// A long fill has a spot for each so many bytes.
const FILL_BYTES: u64 = 64 << 20;

/// Which blocks are in the sample: one of each stretch of block numbers, by a seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    seed: u64,
    blocks: u64,
    count: u64,
}

impl Sample {
    pub(super) fn new(blocks: u32, seed: u64) -> Self {
        let count = (blocks / ONE_OF).clamp(MIN_SAMPLE, MOST).min(blocks);
        Self { seed, blocks: blocks.into(), count: count.into() }
    }

    fn start(&self, stretch: u64) -> u64 {
        stretch * self.blocks / self.count.max(1)
    }

    pub(super) fn has(&self, block: BlockNo) -> bool {
        let block = u64::from(block.0);
        if block >= self.blocks {
            return false;
        }
        let mut stretch = block * self.count / self.blocks;
        while stretch + 1 < self.count && self.start(stretch + 1) <= block {
            stretch += 1;
        }
        let (start, end) = (self.start(stretch), self.start(stretch + 1));
        start + mix(self.seed ^ stretch) % (end - start).max(1) == block
    }

    /// Spots of a block that was just read and found right; `raw` has its live grains. None for blocks that are not in the sample.
    pub(super) fn spots(&self, block: BlockNo, info: &BlockInfo<'_>, layout: &Layout, raw: &[u8]) -> Vec<Spot> {
        if !self.has(block) || info.places.is_empty() {
            return Vec::new();
        }
        let mut dice = self.seed ^ u64::from(block.0).rotate_left(32);
        let mut roll = |below: u64| {
            dice = mix(dice);
            dice % below.max(1)
        };
        let covered: u64 = info.places.iter().map(|place| u64::from(place.grains) * layout.grain).sum();
        let count = match info.content {
            Content::Fill { .. } => 1 + covered / FILL_BYTES,
            Content::Stored { .. } => 1,
        };
        let spot = |_| {
            let no = usize::try_from(roll(info.places.len() as u64)).unwrap_or(0);
            let place = info.places.get(no)?;
            let disk = layout.bytes_of(place);
            let from = disk.start + roll((disk.end - disk.start).div_ceil(layout.grain)) * layout.grain;
            let (_, bytes) = layout.split(from..disk.end.min(from + SPOT_BYTES as u64)).find(|(shadow, _)| !shadow)?;
            let len = usize::try_from(bytes.end - bytes.start).ok()?;
            let right = match info.content {
                Content::Fill { pattern } => Right::Pattern(pattern),
                Content::Stored { .. } => {
                    let source = u64::from(place.source) * layout.grain + (bytes.start - disk.start);
                    let source = usize::try_from(source).ok()?;
                    Right::Hash(Hash::of(raw.get(source..source + len)?))
                }
            };
            Some(Spot { at: bytes.start, len, right })
        };
        (0..count).filter_map(spot).collect()
    }
}

/// Spreads the bits of a number over all 64 (the finalizer of splitmix64).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What a part takes at the least while it is kept, for each of its blocks: a hash and a place.
pub(super) const MIN_PACKED: u64 = 12;

/// Packs a part as it came.
pub(super) fn pack(part: &Part) -> Arc<[u8]> {
    part.encode().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_block_of_each_stretch_is_in_the_sample(blocks in 0_u32..20_000, seed in any::<u64>()) {
            let sample = Sample::new(blocks, seed);
            let chosen: Vec<u32> = (0..blocks).filter(|block| sample.has(BlockNo(*block))).collect();
            prop_assert_eq!(chosen.len() as u64, sample.count);
            prop_assert!(sample.count >= u64::from(MIN_SAMPLE.min(blocks)));
            for (stretch, block) in (0..).zip(chosen) {
                prop_assert!((sample.start(stretch)..sample.start(stretch + 1)).contains(&u64::from(block)));
            }
        }
    }

    #[test]
    fn another_run_looks_elsewhere() {
        let chosen = |seed| {
            let sample = Sample::new(10_000, seed);
            (0..10_000).filter(|block| sample.has(BlockNo(*block))).collect::<Vec<u32>>()
        };
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
    }
}
