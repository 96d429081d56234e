//! The last look at a disk before it gets its head: how much of it is read again, and when it may be trusted.
//!
//! Read-back looks at each block once, soon after its write. A later write that lands in the wrong place destroys what was
//! verified before, and nothing of that shows where it was meant to go but a mismatch there. Therefore a spread sample is read
//! again when all is written, flushed and read back; and after any mismatch nothing that was verified before it counts: all is
//! read again, until one whole round finds nothing wrong.

use crate::bug::{self, Bug};
use crate::reason::{LookedAt, Verify};

/// So many rounds over the whole disk may find something wrong; a disk that is wrong once more is lost.
const ROUNDS: u8 = 3;

/// How much a round reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// A spread sample.
    Sample,
    /// Every block.
    All,
}

/// See the file's head.
#[derive(Clone, Debug)]
pub(crate) struct LastLook {
    verify: Verify,
    /// Something was wrong since the last round began.
    doubt: bool,
    /// Rounds over everything that were begun.
    rounds: u8,
    /// The round that found nothing wrong, and how many blocks it read.
    clean: Option<(Scope, u32)>,
}

impl LastLook {
    /// For a disk of which nothing is written yet.
    #[must_use]
    pub(crate) const fn new(verify: Verify) -> Self {
        Self { verify, doubt: false, rounds: 0, clean: None }
    }

    /// The disk gave other bytes than were written, anywhere: what was verified before does not count.
    pub(crate) fn on_mismatch(&mut self) {
        if !bug::is(Bug::MismatchForgetsNothing) {
            self.doubt = true;
            self.clean = None;
        }
    }

    /// What must still be read before the head may be written; `None`: nothing.
    #[must_use]
    pub(crate) fn due(&self) -> Option<Scope> {
        if !self.verify.reads_back() || self.clean.is_some() {
            None
        } else if self.doubt || self.verify == Verify::Twice {
            Some(Scope::All)
        } else {
            Some(Scope::Sample)
        }
    }

    /// A round begins, after a flush.
    pub(crate) fn on_begin(&mut self, scope: Scope) {
        self.doubt = false;
        if scope == Scope::All {
            self.rounds = self.rounds.saturating_add(1);
        }
    }

    /// A round that read `blocks` blocks is over.
    pub(crate) fn on_end(&mut self, scope: Scope, blocks: u32) {
        if !self.doubt {
            self.clean = Some((scope, blocks));
        }
    }

    /// Whether the disk was wrong in so many rounds that another one proves nothing.
    #[must_use]
    pub(crate) const fn is_hopeless(&self) -> bool {
        self.rounds > ROUNDS
    }

    /// How many rounds over everything there were.
    #[must_use]
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.into()
    }

    /// What the report says: how much was looked at in the end, and how many blocks that were.
    #[must_use]
    pub(crate) fn report(&self) -> (LookedAt, u32) {
        match self.clean {
            None => (LookedAt::No, 0),
            Some((Scope::Sample, blocks)) => (LookedAt::Sample, blocks),
            Some((Scope::All, blocks)) => (LookedAt::All, blocks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_a_mismatch_is_trusted_after_a_sample() {
        let mut look = LastLook::new(Verify::Full);
        assert_eq!(look.due(), Some(Scope::Sample));
        look.on_begin(Scope::Sample);
        look.on_end(Scope::Sample, 64);
        assert_eq!((look.due(), look.report()), (None, (LookedAt::Sample, 64)));
    }

    #[test]
    fn after_a_mismatch_everything_is_read_until_a_whole_round_is_right() {
        let mut look = LastLook::new(Verify::Full);
        look.on_mismatch();
        for _ in 0..2 {
            assert_eq!(look.due(), Some(Scope::All));
            look.on_begin(Scope::All);
            look.on_mismatch();
            look.on_end(Scope::All, 100);
        }
        assert!(!look.is_hopeless());
        look.on_begin(Scope::All);
        look.on_end(Scope::All, 100);
        assert_eq!((look.due(), look.report()), (None, (LookedAt::All, 100)));
    }

    #[test]
    fn a_sample_that_is_wrong_makes_everything_be_read() {
        let mut look = LastLook::new(Verify::Full);
        look.on_begin(Scope::Sample);
        look.on_mismatch();
        look.on_end(Scope::Sample, 64);
        assert_eq!(look.due(), Some(Scope::All));
    }

    #[test]
    fn everything_is_read_again_where_that_is_asked_for_and_nothing_where_nothing_is() {
        assert_eq!(LastLook::new(Verify::Twice).due(), Some(Scope::All));
        for verify in [Verify::Head, Verify::None] {
            let look = LastLook::new(verify);
            assert_eq!((look.due(), look.report()), (None, (LookedAt::No, 0)));
        }
    }

    #[test]
    fn a_disk_that_is_wrong_in_every_round_is_given_up() {
        let mut look = LastLook::new(Verify::Twice);
        for _ in 0..=ROUNDS {
            assert!(!look.is_hopeless());
            look.on_begin(Scope::All);
            look.on_mismatch();
            look.on_end(Scope::All, 1);
        }
        assert!(look.is_hopeless());
    }
}
