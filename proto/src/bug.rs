//! Bugs on purpose, to see whether the simulator finds them. They exist only in a build with `--cfg slidecast_bugs`, which no
//! manifest can ask for; in every other build [`is`] is a constant and nothing of this is left.

/// A bug in the code that asks for it by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An order below the highest epoch is obeyed.
    EpochUnchecked,
    /// A new downstream gets the ring without its first entry.
    ReplayOffByOne,
    /// What is written counts as durable before it is flushed.
    HaveSetBeforeFlush,
    /// An ack says the one count in the place of the other.
    AcksSwapped,
    /// A failed flush is taken for a passing trouble.
    FlushErrorIgnored,
    /// Blocks are sent whatever the credit.
    CreditIgnored,
    /// Credit is given for space that blocks hold already.
    CreditForHeldSpace,
    /// The ring lets go of what the disk has not got.
    ReleaseUnwritten,
    /// The ring lets go of what was not passed on.
    ReleaseUnsent,
    /// A damaged block is taken for a good one.
    CrcUnchecked,
    /// The disk is finished when all is flushed, read back or not.
    FinishUnverified,
    /// A block that was read back wrong still counts as accepted.
    MismatchStaysAccepted,
    /// The end of a pass is said before everything was sent.
    EndTooEarly,
    /// A chain does not close around a node that is taken out.
    SpliceForgotten,
    /// A new upstream is expected, and the old link goes on.
    OldUpstreamStays,
    /// A caller with the right Hello replaces the upstream before it has proven the link key.
    CandidateReplacesUpstream,
    /// A later pass does not outweigh the changes of an earlier one.
    PassOutranked,
    /// A silent neighbour is never found out.
    SilenceUnseen,
    /// A sender with nothing to send says nothing.
    BeatForgotten,
    /// A node that is done may go while others still need it.
    FinishTooEarly,
    /// Fill blocks count as durable when their part comes.
    FillsDurableAtOnce,
    /// The last word is not said again to a server that was away.
    LastWordForgotten,
    /// A server that goes on forms its chains in the pass that was.
    ResumedPassNotRaised,
    /// A part of the manifest is kept and passed on before its hash is looked at.
    PartUnchecked,
    /// Damaged frames are held against the end that found them damaged.
    BlameTheLowerEnd,
    /// Links that broke long ago count for ever.
    RelinksNeverForgotten,
    /// What was verified before a mismatch still counts.
    MismatchForgetsNothing,
}

#[cfg(slidecast_bugs)]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    impl Bug {
        /// All of them.
        pub const ALL: &'static [Self] = &[
            Self::EpochUnchecked,
            Self::ReplayOffByOne,
            Self::HaveSetBeforeFlush,
            Self::AcksSwapped,
            Self::FlushErrorIgnored,
            Self::CreditIgnored,
            Self::CreditForHeldSpace,
            Self::ReleaseUnwritten,
            Self::ReleaseUnsent,
            Self::CrcUnchecked,
            Self::FinishUnverified,
            Self::MismatchStaysAccepted,
            Self::EndTooEarly,
            Self::SpliceForgotten,
            Self::OldUpstreamStays,
            Self::CandidateReplacesUpstream,
            Self::PassOutranked,
            Self::SilenceUnseen,
            Self::BeatForgotten,
            Self::FinishTooEarly,
            Self::FillsDurableAtOnce,
            Self::LastWordForgotten,
            Self::ResumedPassNotRaised,
            Self::MismatchForgetsNothing,
            Self::PartUnchecked,
            Self::BlameTheLowerEnd,
            Self::RelinksNeverForgotten,
        ];
    }

    /// Chooses the bug of this thread.
    pub fn choose(bug: Option<Bug>) {
        CHOSEN.set(bug);
    }

    /// Whether this bug was chosen.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        CHOSEN.get() == Some(bug)
    }
}

#[cfg(slidecast_bugs)]
pub use switch::{choose, is};

/// Whether this bug was chosen: never.
#[cfg(not(slidecast_bugs))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
