//! The log of repairs: every change of a chain, for the report, with the time from the first sign to the moment when blocks could
//! flow again.

use super::topology::Gap;
use crate::units::{Epoch, NodeId, Time};
use core::time::Duration;

/// The most repairs that are kept for the report.
const MAX_REPAIRS: usize = 4096;

/// Why a chain was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairKind {
    /// A node was lost: the chain closed around it.
    Lost,
    /// A node that lives was given up.
    GivenUp,
    /// A slow node was moved behind the tail.
    Slow,
    /// A node that its upstream can't reach was moved behind the tail.
    Unreachable,
    /// The link to a node was made anew.
    Relinked,
    /// A node that was given up or started again came back.
    Returned,
    /// A node came after the start.
    Late,
    /// Two neighbours, between which the link broke twice, changed places.
    Swapped,
    /// A node damages what it sends: it was put behind everybody.
    Corrupting,
    /// A node that complained of several living neighbours was moved behind the tail.
    Complaining,
}

impl RepairKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::GivenUp,
        Self::Slow,
        Self::Unreachable,
        Self::Relinked,
        Self::Returned,
        Self::Late,
        Self::Swapped,
        Self::Corrupting,
        Self::Complaining,
    ];

    /// The word for the report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::GivenUp => "given-up",
            Self::Slow => "slow",
            Self::Unreachable => "unreachable",
            Self::Relinked => "relinked",
            Self::Returned => "returned",
            Self::Late => "late",
            Self::Swapped => "swapped",
            Self::Corrupting => "corrupting",
            Self::Complaining => "complaining",
        }
    }
}

/// One change of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Why.
    pub kind: RepairKind,
    /// The node that it is about.
    pub node: NodeId,
    /// The facts behind it.
    pub detail: String,
    /// The first sign.
    pub began: Time,
    /// When blocks could flow again; nothing if that did not come about.
    pub ended: Option<Time>,
    /// The node whose upstream link is awaited, and the epoch that it must be of.
    awaited: Option<(NodeId, Epoch)>,
}

impl Repair {
    /// From the first sign to the moment when blocks could flow again.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.ended.map(|ended| ended.since(self.began))
    }
}

/// A change of a chain that is to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) kind: RepairKind,
    pub(super) node: NodeId,
    pub(super) detail: &'a str,
    /// The first sign.
    pub(super) began: Time,
    /// The node whose upstream link, of this epoch, must stand before blocks flow again.
    pub(super) awaited: Option<(NodeId, Epoch)>,
}

/// All changes of chains.
#[derive(Debug, Default)]
pub(super) struct RepairLog {
    repairs: Vec<Repair>,
}

impl RepairLog {
    /// The oldest first.
    pub(super) fn all(&self) -> &[Repair] {
        &self.repairs
    }

    fn open(&mut self) -> impl Iterator<Item = &mut Repair> {
        self.repairs.iter_mut().filter(|repair| repair.ended.is_none())
    }

    pub(super) fn add(&mut self, entry: Entry<'_>, now: Time) {
        if self.repairs.len() < MAX_REPAIRS {
            let Entry { kind, node, detail, began, awaited } = entry;
            let (ended, detail) = (awaited.is_none().then_some(now), detail.to_owned());
            self.repairs.push(Repair { kind, node, detail, began, ended, awaited });
        }
    }

    /// The upstream link of `id` stands.
    pub(super) fn on_link_up(&mut self, id: NodeId, epoch: Epoch, now: Time) {
        for repair in self.open() {
            if repair.awaited.is_some_and(|(node, since)| node == id && epoch >= since) {
                repair.ended = Some(now);
            }
        }
    }

    /// What waited for the link of `gone` waits for that of the node in its place.
    pub(super) fn hand_on(&mut self, gone: NodeId, gap: Gap, now: Time) {
        for repair in self.open() {
            if repair.awaited.is_some_and(|(node, _)| node == gone) {
                repair.awaited = gap.successor.map(|successor| (successor, gap.epoch));
                repair.ended = gap.successor.is_none().then_some(now);
            }
        }
    }
}
