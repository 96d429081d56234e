//! The order of writes and flushes around the body of a disk. It keeps a disk from ever looking complete before it is.
//!
//! 1. the mark replaces sector 0; flush
//! 2. the rest of the head and the backup table are zeroed; flush; they must read as zeros
//! 3. the disk is probed: whether it is as large as it says
//! 4. body: written, flushed and read back; nothing of it is written before 3 is done
//! 5. the last look: head and backup table must still be as 1 and 2 left them; some blocks or all are read once more
//! 6. zeros over old signatures behind the image on a larger disk; flush; read back
//! 7. backup table, then the head except sector 0; flush; read back
//! 8. sector 0; flush; read back
//!
//! A power cut before 1 is flushed leaves the disk as it was; from then until 8 it has the mark and no boot signature; and after 2
//! neither a partition table in front nor one at the end until all of the body is proven.

use super::Unprovable;
use crate::bug::{self, Bug};
use crate::reason::{Free, Verify};
use std::collections::VecDeque;

/// A part of the disk outside of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The first sector.
    SectorZero,
    /// The head without its first sector.
    Head,
    /// The backup partition table.
    Backup,
    /// Old signatures behind the image on a larger disk.
    Behind,
}

/// One thing for the control thread to do. Those that ask something are answered with yes or no, all others with yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadStep {
    /// Write the mark to sector 0, unless the disk has another size than before.
    Mark,
    /// Write zeros to the rest of the head and to the backup table.
    Wipe,
    /// Flush everything.
    Flush,
    /// Do the rest of the head and the backup table read as zeros?
    IsWiped,
    /// Is the disk as large as it says, and was that seen at the first try?
    Probe,
    /// Forget what was on the disk's head before, but for what is the image's.
    Forget,
    /// Discard the whole body.
    Discard,
    /// Write zeros where the image uses nothing.
    ClearUnused,
    /// Is the mark still there, with zeros in the rest of the head and in the backup table?
    IsUntouched,
    /// Fit the partition table to the size of the disk, in memory.
    Fit,
    /// Has the disk its right head and backup table already, and nothing behind the image?
    Stands,
    /// Write an area.
    Write(Area),
    /// Read an area back; it must be what was written.
    Prove(Area),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Steps 1 to 3; how often the wipe was tried before, and whether blocks are kept.
    Begin { again: bool, keeps: bool },
    /// What comes before each round of the last look.
    Settle,
    /// Steps 6 to 8.
    Finish,
}

/// What is known of a disk's head from the start.
#[derive(Clone, Copy, Debug)]
pub struct HeadConfig {
    /// What is read back.
    pub verify: Verify,
    /// What becomes of space that the image says nothing of.
    pub free: Free,
    /// Whether signatures of what the disk was before may stand behind the image.
    pub behind: bool,
}

const WIPE: [HeadStep; 4] = [HeadStep::Mark, HeadStep::Flush, HeadStep::Wipe, HeadStep::Flush];

/// See the file's head.
#[derive(Debug)]
pub(super) struct HeadOrder {
    config: HeadConfig,
    task: Task,
    steps: VecDeque<HeadStep>,
    /// Unused space was cleared.
    cleared: bool,
}

impl HeadOrder {
    pub(super) fn new(config: HeadConfig) -> Self {
        Self { config, task: Task::Settle, steps: VecDeque::new(), cleared: config.free != Free::Zero }
    }

    /// The disk is going to be compared: a process that wrote it before may have left something that no flush covered, and what
    /// is found equal counts as durable.
    pub(super) fn compare(&mut self) {
        self.task = Task::Settle;
        self.steps.push_back(HeadStep::Flush);
    }

    /// The disk is going to be written; some of its blocks are kept, or none.
    pub(super) fn begin(&mut self, keeps: bool) {
        self.task = Task::Begin { again: false, keeps };
        self.steps.extend(WIPE);
        if bug::is(Bug::WipeUnflushed) {
            self.steps.pop_back();
        }
        self.steps.push_back(HeadStep::IsWiped);
    }

    /// All blocks are done; the last look comes next.
    pub(super) fn settle(&mut self) {
        self.task = Task::Settle;
        self.clear_unused();
        self.steps.extend([HeadStep::Flush, HeadStep::IsUntouched]);
    }

    /// Nothing is lacking but the head. If nothing was begun, the head may be right as well.
    pub(super) fn finish(&mut self, begun: bool) {
        self.task = Task::Finish;
        self.steps.push_back(HeadStep::Fit);
        if begun {
            self.write_head();
        } else if !bug::is(Bug::OldHeadStays) {
            self.steps.push_back(HeadStep::Stands);
        }
    }

    fn clear_unused(&mut self) {
        if !core::mem::replace(&mut self.cleared, true) {
            self.steps.extend([HeadStep::ClearUnused, HeadStep::Flush]);
        }
    }

    fn write_head(&mut self) {
        self.clear_unused();
        if self.config.behind {
            self.write([Area::Behind]);
        }
        self.write([Area::Backup, Area::Head]);
        self.write([Area::SectorZero]);
    }

    /// Writes these areas, flushes them, and reads them back unless nothing is to be read back.
    fn write<const N: usize>(&mut self, areas: [Area; N]) {
        self.steps.extend(areas.map(HeadStep::Write));
        if !(bug::is(Bug::TablesUnflushed) && N > 1) {
            self.steps.push_back(HeadStep::Flush);
        }
        if self.config.verify != Verify::None {
            self.steps.extend(areas.map(HeadStep::Prove));
        }
    }

    /// The next step; `None`: all are done.
    pub(super) fn next(&mut self) -> Option<HeadStep> {
        self.steps.pop_front()
    }

    /// Whether no step is left.
    pub(super) fn is_over(&self) -> bool {
        self.steps.is_empty()
    }

    /// A step is done. Gives whether the disk was right: a write that went elsewhere destroyed something there, perhaps of a
    /// block that was verified.
    pub(super) fn on_done(&mut self, step: HeadStep, yes: bool) -> Result<bool, Unprovable> {
        match (step, &mut self.task) {
            (HeadStep::IsWiped, Task::Begin { again: true, .. }) if !yes => return Err(Unprovable::Head),
            (HeadStep::IsWiped, Task::Begin { again, .. }) if !yes => {
                *again = true;
                self.steps.extend(WIPE);
                self.steps.push_back(HeadStep::IsWiped);
            }
            (HeadStep::IsWiped, Task::Begin { keeps, .. }) => {
                self.steps.extend([HeadStep::Probe, HeadStep::Forget]);
                // Kept blocks would be lost with a discard; nothing of the image stands on the disk otherwise.
                if self.config.free == Free::Discard && !*keeps {
                    self.steps.push_back(HeadStep::Discard);
                }
            }
            // Nothing was written there since it was wiped. If something stands there, a block landed where it does not belong, or the
            // disk wraps and the head would land on a block. Wiped again, in the second case the wipe destroys that block before
            // everything is read once more: it cannot come to an end.
            (HeadStep::IsUntouched, _) if !yes => self.steps.extend(WIPE),
            (HeadStep::Stands, _) => {
                if !yes {
                    // With the rest goes the backup table that was fitted before.
                    self.steps.extend([HeadStep::Forget, HeadStep::Fit]);
                    self.steps.extend(WIPE);
                    self.write_head();
                }
                return Ok(true);
            }
            _ => {}
        }
        Ok(yes)
    }
}
