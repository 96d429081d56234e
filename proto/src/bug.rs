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
    /// An ack may say that more has arrived than was sent.
    AckUnchecked,
    /// A block that the image does not have may be asked for again.
    AgainUnchecked,
    /// A feed does not call its head again.
    RetryForgotten,
    /// What the head wants again is not sent.
    AgainForgotten,
    /// An agent does not call a server again that it has lost.
    ReconnectForgotten,
    /// An order that ends another deployment ends the one that the node takes part in.
    EndOfAnother,
    /// A run is not told that the server was away.
    RecapForgotten,
    /// A node that has a place gives up as soon as the server is away.
    ImpatientNode,
    /// A silent server is never found out.
    ServerSilenceUnseen,
    /// A frame counts as sent when it is begun.
    SentWhenStarted,
    /// A node says nothing of how far it is.
    ReportForgotten,
    /// The disk is not started when the manifest comes.
    DiskNotStarted,
    /// Sector 0 is written before the tables are flushed.
    TablesUnflushed,
    /// Blocks are written before the wiped head is flushed.
    WipeUnflushed,
    /// A disk that lacks no block keeps the head that it has.
    OldHeadStays,
    /// A part of which the sample is there counts as held, all of it.
    SampleStandsForAll,
    /// A disk is compared before what an older process wrote is flushed.
    ComparedUnflushed,
    /// A flush counts for what was written while it ran.
    FlushCoversLater,
    /// The server is not told which blocks the disk held.
    HeldUnreported,
    /// A feed does not count for how long it waits for its head.
    WaitUncounted,
    /// Agents are let go before it is kept that they are done.
    LetGoBeforeState,
}

#[cfg(slidecast_bugs)]
mod switch {
    use super::Bug;
    use std::cell::Cell;
    use std::sync::OnceLock;

    thread_local! {
        static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    impl Bug {
        /// Those that the simulator must catch.
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
            Self::RetryForgotten,
            Self::AgainForgotten,
            Self::ReconnectForgotten,
            Self::EndOfAnother,
            Self::RecapForgotten,
            Self::ImpatientNode,
            Self::ServerSilenceUnseen,
            Self::SentWhenStarted,
            Self::ReportForgotten,
            Self::DiskNotStarted,
            Self::TablesUnflushed,
            Self::WipeUnflushed,
            Self::OldHeadStays,
            Self::SampleStandsForAll,
            Self::ComparedUnflushed,
            Self::FlushCoversLater,
            Self::HeldUnreported,
            Self::WaitUncounted,
            Self::LetGoBeforeState,
        ];
        /// Those that the lab's forged peers must catch. Most of them only a peer that breaks the rules can show, and the simulator has
        /// none.
        pub const OF_FORGED_PEERS: &'static [Self] = &[Self::AckUnchecked, Self::AgainUnchecked, Self::AcksSwapped];
    }

    /// The bug of the whole process: the one that the environment names. A real program has threads, and no test chooses for them.
    fn of_process() -> Option<Bug> {
        static NAMED: OnceLock<Option<Bug>> = OnceLock::new();
        let named = || {
            let name = std::env::var("SLIDECAST_BUG").ok()?;
            Bug::ALL.iter().chain(Bug::OF_FORGED_PEERS).find(|bug| format!("{bug:?}") == name).copied()
        };
        *NAMED.get_or_init(named)
    }

    /// Chooses the bug of this thread.
    pub fn choose(bug: Option<Bug>) {
        CHOSEN.set(bug);
    }

    /// Whether this bug was chosen.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        CHOSEN.get().or_else(of_process) == Some(bug)
    }
}

#[cfg(slidecast_bugs)]
pub use switch::{choose, is};

/// Whether this bug was chosen: never.
#[cfg(not(slidecast_bugs))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
