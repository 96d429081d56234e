//! The closed lists: reasons, phases, end states and the choices an operator has.
//!
//! Each value has one byte on the wire and one word for people, reports and command lines; both are frozen by a test.

use crate::wire::Parsed;
use core::fmt;
use core::str::FromStr;
use nom::Parser;
use nom::combinator::map_opt;
use nom::number::complete::le_u8;

/// A word that is not in the closed list it was looked up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The word.
    pub word: String,
    /// The words there are.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is none of: {}", self.word, self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

/// An enum whose values have one byte and one word each.
macro_rules! closed_list {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $code:literal $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $value = $code,)* }

        impl $name {
            /// Every value, in the order of its byte.
            pub const ALL: &'static [Self] = &[$(Self::$value,)*];
            /// The words of [`Self::ALL`], in the same order.
            pub const WORDS: &'static [&'static str] = &[$($word,)*];

            /// The word for people, reports and command lines.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)* }
            }

            /// The byte on the wire.
            #[must_use]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The value of a byte from the wire.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$value),)* _ => None }
            }

            /// Reads the byte; one that has no value is an error.
            ///
            /// # Errors
            /// The input is empty or the byte unknown.
            pub fn read(input: &[u8]) -> Parsed<'_, Self> {
                map_opt(le_u8, Self::from_code).parse(input)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
                    .ok_or_else(|| UnknownWord { word: word.to_owned(), known: Self::WORDS })
            }
        }
    };
}
closed_list! {
    /// Why something failed: the closed list of the report. Grouped by where to act.
    Reason {
        /// Nothing failed.
        None = 0 "none",
        /// No disk of the node is what the selectors ask for.
        TargetNotFound = 1 "target-not-found",
        /// More than one disk is what the selectors ask for.
        TargetAmbiguous = 2 "target-ambiguous",
        /// The disk is smaller than the image's disk.
        TargetTooSmall = 3 "target-too-small",
        /// The disk's logical sector is not the image's.
        TargetSectorSize = 4 "target-sector-size",
        /// A file system on the disk is mounted.
        TargetMounted = 5 "target-mounted",
        /// Something else has the disk: swap, LVM, RAID, a mapping, another program.
        TargetHeld = 6 "target-held",
        /// The disk cannot be written.
        TargetReadOnly = 7 "target-read-only",
        /// The disk is removable.
        TargetRemovable = 8 "target-removable",
        /// The running system was booted from the disk.
        TargetBootMedium = 9 "target-boot-medium",
        /// The agent's own `--target` does not allow the disk.
        TargetRefused = 10 "target-refused",
        /// The node has too little memory.
        MemoryShort = 11 "memory-short",
        /// The target could not be opened.
        DiskOpen = 12 "disk-open",
        /// Writing to the target failed.
        DiskWrite = 13 "disk-write",
        /// Flushing the target failed; final for that disk in that run.
        DiskFlush = 14 "disk-flush",
        /// Reading the target failed.
        DiskRead = 15 "disk-read",
        /// Read-back gave other bytes than were written, twice.
        DiskMismatch = 16 "disk-mismatch",
        /// A stored block of the image on the server is not what its manifest says.
        ImageCorrupt = 17 "image-corrupt",
        /// A manifest part does not belong to the root that was announced.
        ManifestMismatch = 18 "manifest-mismatch",
        /// The link to the upstream is gone.
        UpstreamLost = 19 "upstream-lost",
        /// The link to the downstream is gone.
        DownstreamLost = 20 "downstream-lost",
        /// The node neither answers the server nor its neighbours.
        NodeLost = 21 "node-lost",
        /// The server is gone.
        ServerLost = 22 "server-lost",
        /// A link delivered a wrong checksum more than once.
        LinkCorrupt = 23 "link-corrupt",
        /// The peer said what it may not say.
        ProtocolError = 24 "protocol-error",
        /// The peer speaks another version of the protocol.
        VersionMismatch = 25 "version-mismatch",
        /// The server's key is not the pinned one.
        KeyMismatch = 26 "key-mismatch",
        /// `--insecure` was given on one side only.
        InsecureMismatch = 27 "insecure-mismatch",
        /// The operator stopped the deployment.
        Aborted = 28 "aborted",
        /// The node came after the deployment stopped taking nodes.
        JoinedTooLate = 29 "joined-too-late",
        /// Something took longer than it may.
        TimedOut = 30 "timed-out",
        /// A mistake in our own program.
        Internal = 31 "internal",
        /// The disk is not as large as it says: what is written in one place appears in another.
        DiskWraps = 32 "disk-wraps",
        /// The server takes only machines that are approved, and nobody approved this one.
        NotApproved = 33 "not-approved",
    }
}

closed_list! {
    /// How much of the disk is read back and compared before the node says it is finished (`--verify`).
    Verify {
        /// Every place of every block.
        Full = 0 "full",
        /// Only the head of the disk: the state at the end is `written`.
        Head = 1 "head",
        /// Nothing: the state at the end is `written`.
        None = 2 "none",
        /// Every place of every block, and once more when all is written and flushed.
        Twice = 3 "twice",
    }
}

impl Verify {
    /// Whether every block is read back: only then can a node be `done`.
    #[must_use]
    pub const fn reads_back(self) -> bool {
        matches!(self, Self::Full | Self::Twice)
    }
}

closed_list! {
    /// What happens to the parts of the disk that the image says nothing of (`--free`).
    Free {
        /// They stay as they are.
        Keep = 0 "keep",
        /// They are discarded where the disk can do that.
        Discard = 1 "discard",
        /// They are overwritten with zeros.
        Zero = 2 "zero",
    }
}

closed_list! {
    /// What a node does once it is finished (`--then`).
    Then {
        /// It stays up and shows its state.
        Hold = 0 "hold",
        /// It reboots.
        Reboot = 1 "reboot",
        /// It powers off.
        Poweroff = 2 "poweroff",
    }
}

closed_list! {
    /// How the read-back was done.
    Verified {
        /// Not at all.
        No = 0 "no",
        /// From the disk, past the page cache.
        Direct = 1 "direct",
        /// Through the page cache, dropped before: the target takes no direct I/O.
        Cached = 2 "cached",
    }
}

closed_list! {
    /// How much of the disk was read once more after the last flush, before it got its head.
    LookedAt {
        /// Nothing.
        No = 0 "no",
        /// A spread sample.
        Sample = 1 "sample",
        /// Every place of every block.
        All = 2 "all",
    }
}

closed_list! {
    /// How a node ended.
    EndState {
        /// Written, flushed, read back and equal.
        Done = 0 "done",
        /// Written and flushed, but not wholly read back, as was asked for.
        Written = 1 "written",
        /// Neither; the disk stays marked if anything was written.
        Failed = 2 "failed",
    }
}

closed_list! {
    /// What a node is busy with.
    Phase {
        /// It has said hello and waits for a deployment.
        Waiting = 0 "waiting",
        /// It compares its target with the manifest.
        Preparing = 1 "preparing",
        /// Blocks arrive and are written.
        Receiving = 2 "receiving",
        /// Every block is there; the rest of the read-back runs.
        Verifying = 3 "verifying",
        /// Backup table, head and sector 0 are written and read back.
        Finishing = 4 "finishing",
        /// It is done, written or failed.
        Ended = 5 "ended",
    }
}

closed_list! {
    /// An end of a link, as seen from the node that speaks.
    Side {
        /// Towards the server.
        Upstream = 0 "upstream",
        /// Towards the tail.
        Downstream = 1 "downstream",
    }
}

closed_list! {
    /// What became of a link.
    LinkState {
        /// Both ends proved themselves; frames flow.
        Up = 0 "up",
        /// Nothing was heard for a second.
        Suspect = 1 "suspect",
        /// It is gone.
        Down = 2 "down",
    }
}

closed_list! {
    /// Whether a link may hold the sender's ring.
    LinkClass {
        /// It may: the sender waits for it.
        Paced = 0 "paced",
        /// It may not: what it misses stays lacking until a catch-up pass.
        Follower = 1 "follower",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_of_the_report_are_frozen_with_their_bytes() {
        let words = "none target-not-found target-ambiguous target-too-small target-sector-size target-mounted \
                     target-held target-read-only target-removable target-boot-medium target-refused memory-short \
                     disk-open disk-write disk-flush disk-read disk-mismatch image-corrupt manifest-mismatch \
                     upstream-lost downstream-lost node-lost server-lost link-corrupt protocol-error \
                     version-mismatch key-mismatch insecure-mismatch aborted joined-too-late timed-out internal \
                     disk-wraps not-approved";
        assert_eq!(Reason::WORDS, words.split_whitespace().collect::<Vec<_>>());
        for (code, reason) in (0..).zip(Reason::ALL) {
            assert_eq!(reason.code(), code);
            assert_eq!(Reason::from_code(code), Some(*reason));
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert_eq!(Reason::from_code(34), None);
    }

    #[test]
    fn the_other_lists_are_frozen_with_their_bytes() {
        assert_eq!(Verify::WORDS, ["full", "head", "none", "twice"]);
        assert_eq!(LookedAt::WORDS, ["no", "sample", "all"]);
        assert!((0..3).all(|code| LookedAt::ALL[usize::from(code)].code() == code));
        assert_eq!(Free::WORDS, ["keep", "discard", "zero"]);
        assert_eq!(Then::WORDS, ["hold", "reboot", "poweroff"]);
        assert_eq!(Verified::WORDS, ["no", "direct", "cached"]);
        assert_eq!(EndState::WORDS, ["done", "written", "failed"]);
        assert_eq!(Phase::WORDS, ["waiting", "preparing", "receiving", "verifying", "finishing", "ended"]);
        assert_eq!(Side::WORDS, ["upstream", "downstream"]);
        assert_eq!(LinkState::WORDS, ["up", "suspect", "down"]);
        assert_eq!(LinkClass::WORDS, ["paced", "follower"]);
        assert!((0..2).all(|code| Side::ALL[usize::from(code)].code() == code));
        assert!((0..3).all(|code| LinkState::ALL[usize::from(code)].code() == code));
        assert!((0..2).all(|code| LinkClass::ALL[usize::from(code)].code() == code));
        assert!((0..4).all(|code| Verify::ALL[usize::from(code)].code() == code));
        assert!((0..3).all(|code| Free::ALL[usize::from(code)].code() == code));
        assert!((0..3).all(|code| Then::ALL[usize::from(code)].code() == code));
        assert!((0..3).all(|code| Verified::ALL[usize::from(code)].code() == code));
        assert!((0..3).all(|code| EndState::ALL[usize::from(code)].code() == code));
        assert!((0..6).all(|code| Phase::ALL[usize::from(code)].code() == code));
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        let error = "some".parse::<Verify>().unwrap_err();
        assert_eq!(error.to_string(), r#""some" is none of: full, head, none, twice"#);
    }
}
