//! Blocks that came damaged over the link from the upstream: how often one is asked for again, and when the link is given up.

use crate::units::BlockNo;

/// What a damaged block weighs against blocks that came whole ...
const WEIGHT: u32 = 8;
/// ... and how much is too much: three damaged blocks in a row, or more than one in nine for a while.
const TOO_MUCH: u32 = 3 * WEIGHT;
/// The most blocks that are remembered as damaged.
const MOST_AWAITED: usize = 64;

/// What came damaged on one link.
#[derive(Debug, Default)]
pub(super) struct Damage {
    weight: u32,
    count: u32,
    /// Damaged blocks that have not come whole yet.
    awaited: Vec<BlockNo>,
}

/// What follows from a damaged block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is asked for again; the count of damaged blocks is worth telling, or not.
    Again(Option<u32>),
    /// The link can't go on.
    GiveUp,
}

impl Damage {
    /// `block` came damaged.
    pub(super) fn on_damaged(&mut self, block: BlockNo) -> Verdict {
        self.weight += WEIGHT;
        self.count += 1;
        let twice = self.awaited.contains(&block);
        if twice || self.weight >= TOO_MUCH || self.awaited.len() >= MOST_AWAITED {
            return Verdict::GiveUp;
        }
        self.awaited.push(block);
        // However many come, few words tell of them.
        Verdict::Again(self.count.is_power_of_two().then_some(self.count))
    }

    /// `block` came whole.
    pub(super) fn on_whole(&mut self, block: BlockNo) {
        self.weight = self.weight.saturating_sub(1);
        self.awaited.retain(|awaited| *awaited != block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_given_up_when_a_block_comes_damaged_twice_or_three_in_a_row_do() {
        let mut damage = Damage::default();
        assert_eq!(damage.on_damaged(BlockNo(1)), Verdict::Again(Some(1)));
        damage.on_whole(BlockNo(2));
        assert_eq!(damage.on_damaged(BlockNo(1)), Verdict::GiveUp);
        let mut damage = Damage::default();
        let verdicts = [1, 2, 3].map(|block| damage.on_damaged(BlockNo(block)));
        assert_eq!(verdicts, [Verdict::Again(Some(1)), Verdict::Again(Some(2)), Verdict::GiveUp]);
    }

    #[test]
    fn a_link_that_damages_one_block_in_ten_goes_on_and_few_words_tell_of_it() {
        let mut damage = Damage::default();
        let mut told = 0;
        for block in 0..10_000 {
            if block % 10 == 0 {
                let verdict = damage.on_damaged(BlockNo(block));
                assert!(matches!(verdict, Verdict::Again(_)));
                told += u32::from(verdict != Verdict::Again(None));
            }
            damage.on_whole(BlockNo(block));
        }
        assert_eq!(told, 10);
    }
}
