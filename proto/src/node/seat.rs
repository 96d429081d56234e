//! The place of a node in its deployment.

use crate::bug::{self, Bug};
use crate::units::Epoch;

/// The place that the newest order gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// No order came yet.
    Waiting,
    /// The node stands in a chain.
    Joined { epoch: Epoch, pass: u32 },
}

impl Seat {
    /// The highest epoch seen.
    pub(super) fn epoch(self) -> Epoch {
        match self {
            Self::Waiting => Epoch(0),
            Self::Joined { epoch, .. } => epoch,
        }
    }

    pub(super) fn is_joined(self) -> bool {
        matches!(self, Self::Joined { .. })
    }

    /// Whether it is a place for comparing: parts come, no blocks.
    pub(super) fn is_comparing(self) -> bool {
        matches!(self, Self::Joined { pass: 0, .. })
    }

    /// Whether an order of this epoch counts. One below the highest epoch seen is older than what the node does already.
    pub(super) fn obeys(self, order: Epoch) -> bool {
        match self {
            Self::Waiting => true,
            Self::Joined { epoch, .. } => order >= epoch || bug::is(Bug::EpochUnchecked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_obeys_its_first_order_whatever_its_epoch_and_then_none_that_is_older() {
        assert!(Seat::Waiting.obeys(Epoch(0)) && !Seat::Waiting.is_comparing());
        let seat = Seat::Joined { epoch: Epoch(7), pass: 0 };
        assert!(seat.obeys(Epoch(7)) && seat.obeys(Epoch(8)) && !seat.obeys(Epoch(6)) && seat.is_comparing());
    }
}
