//! What a disk does next: comparing, writes, flushes, read-back, the last look and the head, in the order that makes a disk
//! trustworthy. No system call is made here and no clock is read: the threads of the agent's disk engine ask for the next step and
//! say what came of it, and so does the virtual disk of the simulator.
//!
//! A block goes job -> (writing) -> fresh -> (flushing) -> unread -> (reading) -> done. A fill goes the same way without a job.
//! Blocks that the disk held before count as done from the start. When all are done the last look reads some or all of them once
//! more; what it finds wrong goes through all this again.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `machine`, `phase` | [`Schedule`]: the phases, and who may do what in which |
//! | `blocks` | what is known of each block |
//! | `comparing` | whether a target is compared, which parts are on their way through that, and when it is written |
//! | `comparison` | which block of a part is compared next, before the first write |
//! | `fills` | fills that are still to be written |
//! | `head` | the order of writes and flushes around the body |
//! | `flush` | what is written and not flushed, and when a flush is due |
//! | `readback` | what is flushed and not read back, and the memory that it holds |
//! | `ledger` | what the last look needs, and its rounds |

mod blocks;
mod comparing;
mod comparison;
mod fills;
mod flush;
mod head;
mod ledger;
mod machine;
mod phase;
mod readback;
#[cfg(test)]
mod tests;

pub use comparing::{Comparing, Front};
pub use comparison::Comparison;
pub use fills::{FillWork, Reached};
pub use flush::FlushWindow;
pub use head::{Area, HeadConfig, HeadStep};
pub use ledger::{Right, Spot};
pub use machine::Schedule;
pub use readback::RETAINED_LIMIT;

use crate::reason::{LookedAt, Reason, Verified};
use crate::units::{BlockNo, Time};
use core::fmt;
use std::sync::Arc;

/// A part of the manifest that was checked, as far as the schedule looks into it.
pub trait ManifestPart {
    /// The first block.
    fn first(&self) -> BlockNo;
    /// How many blocks there are.
    fn blocks(&self) -> u32;
    /// Whether `block` is in this part and has no payload.
    fn is_fill(&self, block: BlockNo) -> bool;
    /// The memory that the part takes on the heap, in bytes.
    fn heap_bytes(&self) -> usize;
}

/// What a schedule needs to know from the start.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleConfig {
    /// How many blocks the image has.
    pub blocks: u32,
    /// What is read back, and what becomes of the rest of the disk.
    pub head: HeadConfig,
    /// Read back in passes of their own, not between writes.
    pub rotational: bool,
    /// When to flush.
    pub window: FlushWindow,
    /// Blocks that are read back at the same time, at most. Before the first write all readers compare.
    pub readers: usize,
    /// How much memory parts may take that are kept as they came.
    pub ledger_bytes: usize,
}

/// A block that stands on the disk, with what is needed to read it back.
#[derive(Debug)]
pub struct Written<P> {
    /// Its number.
    pub block: BlockNo,
    /// The part that it is in.
    pub part: Arc<P>,
}

/// For a writer.
#[derive(Debug)]
pub enum Write<J, P> {
    /// A received block: answered by [`Schedule::on_written`] or [`Schedule::on_bad_content`].
    Block(J),
    /// A fill: answered by [`Schedule::on_written`] or [`Schedule::on_fill_paused`].
    Fill(FillWork<P>),
}

/// For the control thread.
#[derive(Debug)]
pub enum Control<P> {
    /// A step around the body: answered by [`Schedule::on_head`].
    Head(HeadStep),
    /// Flush; these blocks are covered by it: answered by [`Schedule::on_flushed`].
    Flush(Vec<Written<P>>),
    /// The disk has its head: answered by [`Schedule::on_ended`].
    End,
    /// Nothing before that time, or before something happens.
    Wait(Option<Time>),
    /// The thread is to end.
    Exit,
}

/// For a reader.
#[derive(Debug)]
pub enum Read<P> {
    /// Compare a block that was written: answered by [`Schedule::on_equal`] or [`Schedule::on_different`].
    Back(Written<P>),
    /// See whether the disk holds this block of a part already: answered by [`Schedule::on_compared`].
    Compare(Arc<P>, BlockNo),
    /// A spot of the last look: answered by [`Schedule::on_spot`].
    Spot(Spot),
    /// A block in a round over all of them, with its part as it came: answered by [`Schedule::on_equal_again`] or
    /// [`Schedule::on_different_again`].
    Again(BlockNo, Arc<[u8]>),
    /// Nothing now.
    Wait,
    /// The thread is to end.
    Exit,
}

/// Which threads have something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// A writer.
    pub write: bool,
    /// The control thread.
    pub control: bool,
    /// A reader.
    pub read: bool,
    /// All threads are to end.
    pub over: bool,
}

/// Why a target is lost, for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFailure {
    /// The reason of the report.
    pub reason: Reason,
    /// Operation, object and position, in one line.
    pub detail: String,
}

/// Why a disk is lost though every call went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unprovable {
    /// The head does not read as zeros though it was wiped twice.
    Head,
    /// Verified blocks differ in every round.
    Unstable {
        /// How many rounds over everything were begun.
        rounds: u32,
    },
    /// All would have to be read again, and not every part of the manifest was kept.
    Forgotten,
}

impl fmt::Display for Unprovable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the head is not what was written, after a second try"),
            Self::Unstable { rounds } => write!(f, "blocks that had been verified differed, in {rounds} rounds"),
            Self::Forgotten => f.write_str("all must be read again, and the manifest was not kept"),
        }
    }
}

/// What the disk has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The disk is wiped and marked; blocks are written from now on.
    Began,
    /// A part was compared: these of its blocks stand on the disk already.
    Compared {
        /// The first block of the part.
        first: BlockNo,
        /// The blocks that need not come.
        same: Vec<BlockNo>,
    },
    /// The block is not what its manifest says. Nothing was written.
    BadContent(BlockNo),
    /// The block is written to all its places.
    Written(BlockNo),
    /// These blocks survive a power cut (those of the head: once all is ended).
    Durable(Vec<BlockNo>),
    /// Nothing that was verified so far counts: all is read again.
    Unverified,
    /// These blocks were read back and are right.
    Verified(Vec<BlockNo>),
    /// The disk gave other bytes than were written: the block must come again. The second time is a failure.
    Mismatch(BlockNo),
    /// The target is lost for this run.
    Failed(DiskFailure),
    /// All is written, flushed and (if that was asked for) proven; the disk has its head.
    Ended {
        /// How it was read back. `No` unless all of it was.
        verified: Verified,
        /// Blocks written in this run.
        written: u32,
        /// Blocks that stood there already.
        kept: u32,
        /// How much was read once more before the head was written, and how many blocks that were.
        last_look: (LookedAt, u32),
        /// What the operator should know all the same; empty: nothing.
        note: String,
    },
}
