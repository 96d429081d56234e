//! What a target held before its deployment: whether that is worth comparing with the manifest, which parts are on their way through
//! the comparison, and when the disk may be written.
//!
//! It is worth it when the disk carries the mark of an unfinished deployment, or when its front is not all zeros. A blank disk,
//! `--fresh` and `--free zero` (which writes all of the disk anyway) compare nothing.

use crate::node::Node;
use crate::reason::Free;
use crate::units::PartNo;
use std::collections::{BTreeSet, VecDeque};

/// How many parts the disk is given at a time.
const AT_ONCE: usize = 2;

/// What stands at the front of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Zeros, or nothing that could be read.
    Blank,
    /// The mark of an unfinished deployment of this very image.
    Marked,
    /// Something else.
    Other,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Not at all.
    No,
    /// A spread sample of each part first: the disk may hold something else.
    Sampled,
    /// At every block: the disk is marked with this very image.
    All,
}

/// See the file's head.
#[derive(Debug)]
pub struct Comparing {
    look: Look,
    /// The disk is written, or was told to begin.
    begun: bool,
    /// Parts that were taken once.
    seen: BTreeSet<PartNo>,
    waiting: VecDeque<PartNo>,
    /// Parts in the hands of the disk.
    running: VecDeque<PartNo>,
}

impl Comparing {
    /// A target with this front. With `fresh` nothing on it counts.
    #[must_use]
    pub fn new(front: Front, fresh: bool, free: Free) -> Self {
        let look = match front {
            _ if fresh || free == Free::Zero => Look::No,
            Front::Blank => Look::No,
            Front::Marked => Look::All,
            Front::Other => Look::Sampled,
        };
        Self { look, begun: false, seen: BTreeSet::new(), waiting: VecDeque::new(), running: VecDeque::new() }
    }

    /// Whether the target may hold something of the image.
    #[must_use]
    pub(crate) fn is_worth_it(&self) -> bool {
        self.look != Look::No
    }

    /// Whether a sample of each part comes first.
    #[must_use]
    pub(crate) fn is_sampled(&self) -> bool {
        self.look == Look::Sampled
    }

    /// A part came in the pass that compares, and was checked; `can`: there is a disk to compare it with. Gives whether it is new
    /// and will be compared.
    pub fn on_part(&mut self, no: PartNo, can: bool) -> bool {
        let compares = can && !self.begun && self.look != Look::No && self.seen.insert(no);
        if compares {
            self.waiting.push_back(no);
        }
        compares
    }

    /// The next part to hand to the disk. Packed, parts take less memory while they wait: they are unpacked now.
    pub fn poll(&mut self) -> Option<PartNo> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let no = self.waiting.pop_front()?;
        self.running.push_back(no);
        Some(no)
    }

    /// The disk has compared a part. Gives whether that still counts.
    pub fn on_compared(&mut self, no: PartNo) -> bool {
        !self.begun && self.running.pop_front() == Some(no)
    }

    /// Whether the disk, which is there, is to begin now: it has a place in a chain, is not being compared, and lacks something.
    pub fn begins(&mut self, joined: bool, node: &Node) -> bool {
        let begins = !self.begun && joined && !node.is_comparing() && !node.is_complete();
        if begins {
            self.begun = true;
            self.end();
        }
        begins
    }

    /// The disk is written from now on, or nothing of it needs to be.
    pub fn end(&mut self) {
        self.waiting.clear();
        self.running.clear();
        self.look = Look::No;
    }

    /// The disk is gone: the parts that wait for it, which are let go so that they hold up nobody.
    pub(crate) fn on_disk_gone(&mut self) -> impl Iterator<Item = PartNo> + use<> {
        let running = core::mem::take(&mut self.running).into_iter();
        running.chain(core::mem::take(&mut self.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_that_may_hold_something_is_compared() {
        let is_worth_it = |front, fresh, free| Comparing::new(front, fresh, free).is_worth_it();
        assert!(is_worth_it(Front::Marked, false, Free::Keep));
        assert!(is_worth_it(Front::Other, false, Free::Discard));
        assert!(!is_worth_it(Front::Blank, false, Free::Keep));
        assert!(!is_worth_it(Front::Marked, true, Free::Keep));
        assert!(!is_worth_it(Front::Marked, false, Free::Zero));
        assert!(!Comparing::new(Front::Marked, false, Free::Keep).is_sampled());
    }

    #[test]
    fn parts_are_handed_over_two_at_a_time_and_each_once() {
        let mut comparing = Comparing::new(Front::Other, false, Free::Keep);
        for no in [0, 1, 2] {
            assert!(comparing.on_part(PartNo(no), true));
            assert!(!comparing.on_part(PartNo(no), true));
        }
        assert_eq!(core::iter::from_fn(|| comparing.poll()).collect::<Vec<_>>(), [PartNo(0), PartNo(1)]);
        assert!(comparing.on_compared(PartNo(0)));
        assert_eq!(comparing.poll(), Some(PartNo(2)));
        assert_eq!(comparing.on_disk_gone().collect::<Vec<_>>(), [PartNo(1), PartNo(2)]);
        assert!(!comparing.on_compared(PartNo(1)));
    }
}
