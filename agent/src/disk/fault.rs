//! What can go wrong on a target: which operation, on which object, where.

use crate::sys::MapError;
use core::fmt;
use slidecast_image::fit::FitError;
use slidecast_net::text::os_error_text;
use slidecast_proto::reason::Reason;
use slidecast_proto::schedule::{DiskFailure, Unprovable};
use slidecast_proto::units::BlockNo;
use std::io;

/// A thing on the disk that is written, read or compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Block(BlockNo),
    Mark,
    Head,
    SectorZero,
    Backup,
    Unused,
    /// A place behind the image on a larger target.
    Behind,
    /// A test pattern.
    Probe,
    /// Something that was verified before.
    Verified,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(block) => write!(f, "block {block}"),
            Self::Mark => f.write_str("the mark"),
            Self::Head => f.write_str("the head"),
            Self::SectorZero => f.write_str("sector 0"),
            Self::Backup => f.write_str("the backup GPT"),
            Self::Unused => f.write_str("unused space"),
            Self::Behind => f.write_str("the space behind the image"),
            Self::Verified => f.write_str("a verified place"),
            Self::Probe => f.write_str("a test pattern"),
        }
    }
}

/// The first thing that went wrong; final for the target in this run.
#[derive(Debug)]
pub(super) enum Fault {
    Write {
        object: Object,
        at: u64,
        source: io::Error,
    },
    Read {
        object: Object,
        at: u64,
        source: io::Error,
    },
    Flush {
        source: io::Error,
    },
    /// The disk twice gave other bytes than were written.
    Mismatch {
        object: Object,
        at: u64,
    },
    /// What was written in one place appears in another.
    Wraps {
        /// The size that the disk claims.
        says: u64,
        at: u64,
        /// Where the content of `at` was written to.
        other: u64,
    },
    /// Verified blocks differ in every round.
    Unstable {
        rounds: u32,
    },
    /// All would have to be read again, and there is no room for the manifest of so large an image.
    Forgotten,
    Small {
        has: u64,
        needs: u64,
    },
    Size {
        source: io::Error,
    },
    /// The size is not what it was when the target was opened.
    Changed {
        had: u64,
        has: u64,
    },
    Fit(FitError),
    Memory(MapError),
    /// `--verify twice` has to keep the whole manifest.
    Ledger {
        needs: u64,
        has: u64,
    },
    Thread {
        source: io::Error,
    },
}

impl Fault {
    pub(super) fn report(&self, path: &str) -> DiskFailure {
        let (reason, detail) = match self {
            Self::Write { object, at, source } => {
                (Reason::DiskWrite, format!("writing {object} at {at} on {path}: {}", os_error_text(source)))
            }
            Self::Read { object, at, source } => {
                (Reason::DiskRead, format!("reading {object} at {at} on {path}: {}", os_error_text(source)))
            }
            Self::Flush { source } => (Reason::DiskFlush, format!("flushing {path}: {}", os_error_text(source))),
            Self::Mismatch { object, at } => (
                Reason::DiskMismatch,
                format!("reading back {object} at {at} on {path}: not what was written, after a second try"),
            ),
            Self::Wraps { says, at, other } => (
                Reason::DiskWraps,
                format!(
                    "{path} says that it has {says} bytes, but what was written at {other} appears at {at}: it is smaller \
                     than it says, or something between cuts addresses; no block of the image was written"
                ),
            ),
            Self::Unstable { rounds } => (
                Reason::DiskMismatch,
                format!("reading {path} again: blocks that had been verified differed, in {rounds} rounds"),
            ),
            Self::Forgotten => (
                Reason::DiskMismatch,
                format!(
                    "reading back {path}: not what was written, so that all must be read again, and this node has no \
                     memory for the manifest of so large an image; deploy again, which compares the disk"
                ),
            ),
            Self::Small { has, needs } => {
                (Reason::TargetTooSmall, format!("{path} has {has} bytes, the image needs {needs}"))
            }
            Self::Size { source } => {
                (Reason::DiskOpen, format!("asking {path} for its size: {}", os_error_text(source)))
            }
            Self::Changed { had, has } => {
                (Reason::DiskOpen, format!("{path} has {has} bytes, but had {had} when it was opened"))
            }
            Self::Fit(error) => (Reason::TargetTooSmall, format!("{path}: {error}")),
            Self::Memory(error) => (Reason::MemoryShort, format!("buffers for {path}: {error}")),
            Self::Ledger { needs, has } => (
                Reason::MemoryShort,
                format!(
                    "reading {path} twice: the manifest takes {needs} bytes at the least, and at most {has} are kept"
                ),
            ),
            Self::Thread { source } => (Reason::MemoryShort, format!("a thread for {path}: {}", os_error_text(source))),
        };
        DiskFailure { reason, detail }
    }
}

impl From<Unprovable> for Fault {
    fn from(why: Unprovable) -> Self {
        match why {
            Unprovable::Head => Self::Mismatch { object: Object::Head, at: 0 },
            Unprovable::Unstable { rounds } => Self::Unstable { rounds },
            Unprovable::Forgotten => Self::Forgotten,
        }
    }
}

impl From<MapError> for Fault {
    fn from(error: MapError) -> Self {
        Self::Memory(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_operation_object_position_and_cause() {
        let source = io::Error::from_raw_os_error(nix::errno::Errno::EIO as i32);
        let fault = Fault::Write { object: Object::Block(BlockNo(812)), at: 851_443_712, source };
        let failure = fault.report("/dev/nvme0n1");
        assert_eq!(failure.reason, Reason::DiskWrite);
        assert_eq!(failure.detail, "writing block 812 at 851443712 on /dev/nvme0n1: Input/output error");
    }
}
