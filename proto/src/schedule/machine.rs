//! The schedule: in which phase who may do what.

use super::blocks::Blocks;
use super::comparison::Comparison;
use super::fills::{FillWork, Fills};
use super::flush::Unflushed;
use super::head::{HeadOrder, HeadStep};
use super::ledger::{Next, Rereading, Spot};
use super::phase::Phase;
use super::readback::Unread;
use super::{Control, DiskFailure, Event, ManifestPart, Read, ScheduleConfig, Unprovable, Wants, Write, Written};
use crate::bug::{self, Bug};
use crate::look::Scope;
use crate::reason::{Verified, Verify};
use crate::units::{BlockNo, Time};
use std::collections::VecDeque;
use std::sync::Arc;

/// The state of a disk. `J` is a received block, `P` a part of the manifest.
#[derive(Debug)]
pub struct Schedule<J, P> {
    phase: Phase,
    verify: Verify,
    rotational: bool,
    readers: usize,
    begin: bool,
    finish: bool,
    blocks: Blocks,
    head: HeadOrder,
    jobs: VecDeque<J>,
    fills: Fills<P>,
    /// Jobs and fills in the hands of writers, or in the sort window.
    writing: usize,
    unflushed: Unflushed<P>,
    compares: VecDeque<Comparison<P>>,
    unread: Unread<P>,
    /// Blocks in the hands of readers.
    reading: usize,
    rereading: Rereading,
    events: VecDeque<Event>,
}

impl<J, P: ManifestPart> Schedule<J, P> {
    /// A disk of which nothing is known.
    #[must_use]
    pub fn new(config: ScheduleConfig) -> Self {
        let ScheduleConfig { blocks, head, rotational, window, readers, ledger_bytes } = config;
        Self {
            phase: Phase::Idle,
            verify: head.verify,
            rotational,
            readers,
            begin: false,
            finish: false,
            blocks: Blocks::new(blocks),
            head: HeadOrder::new(head),
            jobs: VecDeque::new(),
            fills: Fills::new(blocks),
            writing: 0,
            unflushed: Unflushed::new(window),
            compares: VecDeque::new(),
            unread: Unread::new(),
            reading: 0,
            rereading: Rereading::new(head.verify, ledger_bytes),
            events: VecDeque::new(),
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether [`Self::poll_event`] has something.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Which threads have something to do.
    #[must_use]
    pub fn wants(&self, now: Time) -> Wants {
        let over = self.phase == Phase::Over;
        let compares = self.phase == Phase::Comparing && self.compares.iter().any(Comparison::has_more);
        let may_read = self.reading < self.readers;
        let may_read_back = may_read && (!self.rotational || self.unread.in_pass() || self.pass_may_begin());
        let looks = may_read && self.rereading.has_more();
        let read = compares || looks || (!self.unread.is_empty() && may_read_back);
        let control = match self.phase {
            Phase::Idle if !self.compares.is_empty() => true,
            Phase::Idle | Phase::Comparing => (self.begin && self.compared()) || (self.finish && self.body_is_done()),
            Phase::Body => {
                (self.finish && self.body_is_done()) || self.unflushed.wants_control(self.flush_hurries(), now)
            }
            _ => false,
        };
        Wants { write: self.may_write() && !(self.fills.is_empty() && self.jobs.is_empty()), control, read, over }
    }

    // What comes from outside.

    /// The disk is to be written. What was not compared by now counts as lacking: the server knows no better.
    pub fn on_begin(&mut self) {
        self.begin = true;
        self.compares.clear();
    }

    /// Every block has been handed over.
    pub fn on_finish(&mut self) {
        self.finish = true;
    }

    /// A block to be written.
    pub fn on_block(&mut self, job: J) {
        if self.phase != Phase::Over {
            self.jobs.push_back(job);
        }
    }

    /// A part of the manifest, ahead of its blocks; `packed` is how it came, if the last look may need it.
    pub fn on_part(&mut self, part: Arc<P>, packed: Option<Arc<[u8]>>) {
        if self.phase != Phase::Over {
            packed.into_iter().for_each(|packed| self.rereading.keep(part.first(), part.blocks(), packed));
            self.fills.push(part);
        }
    }

    /// A part to be compared with what the disk holds: answered by [`Event::Compared`], unless [`Self::on_begin`] comes before.
    pub fn on_compare(&mut self, comparison: Comparison<P>, packed: Option<Arc<[u8]>>) {
        let in_time = matches!(self.phase, Phase::Idle | Phase::Flushing | Phase::Comparing) && !self.begin;
        if in_time {
            packed.into_iter().for_each(|packed| self.rereading.keep(comparison.first(), comparison.blocks(), packed));
            self.compares.push_back(comparison);
            self.end_comparisons();
        }
    }

    /// Something failed for good. Only the first is told.
    pub fn on_failure(&mut self, failure: DiskFailure) {
        if self.phase != Phase::Over {
            self.events.push_back(Event::Failed(failure));
            self.on_over();
        }
    }

    /// The disk has its head; `note` is for the operator.
    pub fn on_ended(&mut self, verified: Verified, note: String) {
        if self.phase != Phase::Over {
            let (written, kept) = (self.blocks.written(), self.blocks.kept());
            let last_look = self.rereading.report();
            self.events.push_back(Event::Ended { verified, written, kept, last_look, note });
            self.on_over();
        }
    }

    /// Stops everything and lets go of all memory of the ring.
    pub fn on_over(&mut self) {
        self.phase = Phase::Over;
        self.jobs = VecDeque::new();
        self.fills.clear();
        self.unflushed.clear();
        self.compares = VecDeque::new();
        self.unread.clear();
        self.rereading.stop();
    }

    /// The part of a block as it came, if it is kept.
    #[must_use]
    pub fn packed_part(&self, block: BlockNo) -> Option<Arc<[u8]>> {
        self.rereading.part_of(block)
    }

    /// Whether it ended, failed or was stopped.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    // Writers.

    /// The next thing to write; `None`: nothing now.
    pub fn poll_write(&mut self) -> Option<Write<J, P>> {
        if !self.may_write() {
            return None;
        }
        let fills_first = self.fills.presses() || self.jobs.is_empty();
        let write = if fills_first { self.fills.pop().map(Write::Fill) } else { None };
        let write = write.or_else(|| self.jobs.pop_front().map(Write::Block))?;
        self.writing += 1;
        Some(write)
    }

    fn may_write(&self) -> bool {
        self.phase == Phase::Body && !self.unread.in_pass() && !self.unread.presses()
    }

    /// Whether blocks wait while a writer is busy with a long fill.
    #[must_use]
    pub fn jobs_wait(&self) -> bool {
        !self.jobs.is_empty() || self.is_over()
    }

    /// A fill is put back half-way.
    pub fn on_fill_paused(&mut self, work: FillWork<P>) {
        self.writing -= 1;
        if self.phase != Phase::Over {
            self.fills.put_back(work);
        }
    }

    /// A job ended without a write: the block was not what its manifest says.
    pub fn on_bad_content(&mut self, block: BlockNo) {
        self.writing -= 1;
        if self.phase != Phase::Over {
            self.events.push_back(Event::BadContent(block));
        }
    }

    /// Every place of a block is written, or in memory for the end; `bytes` of it went to the disk.
    pub fn on_written(&mut self, written: Written<P>, bytes: u64, now: Time) {
        self.writing -= 1;
        if self.phase == Phase::Over {
            return;
        }
        self.events.push_back(Event::Written(written.block));
        self.blocks.on_written(written.block);
        self.rereading.forget(written.block);
        if self.verify.reads_back() {
            self.unread.retain(&written.part);
        }
        self.unflushed.on_written(written, bytes, now);
    }

    /// Whether every block is written, or will not come any more.
    fn nothing_to_write(&self) -> bool {
        let all = self.blocks.all_settled() || self.finish;
        all && self.writing == 0 && self.jobs.is_empty() && self.fills.is_empty()
    }

    /// Whether the body is proven and nobody touches it.
    fn body_is_done(&self) -> bool {
        let quiet =
            self.unflushed.is_empty() && self.unread.is_empty() && self.reading == 0 && !self.rereading.in_round();
        self.blocks.all_done() && quiet && self.nothing_to_write()
    }

    // The control thread.

    /// The next thing for the control thread to do.
    pub fn poll_control(&mut self, now: Time) -> Control<P> {
        match self.phase {
            Phase::Over => return Control::Exit,
            Phase::Idle if !self.compares.is_empty() && bug::is(Bug::ComparedUnflushed) => {
                self.phase = Phase::Comparing;
            }
            Phase::Idle if !self.compares.is_empty() => {
                self.phase = Phase::Flushing;
                self.head.compare();
            }
            Phase::Idle | Phase::Comparing if self.begin && self.compared() => {
                self.phase = Phase::Beginning;
                self.head.begin(self.blocks.kept() > 0);
            }
            Phase::Body if self.finish && self.body_is_done() && self.rereading.due().is_some() => {
                self.phase = Phase::Settling;
                self.head.settle();
            }
            Phase::Idle | Phase::Comparing | Phase::Body if self.finish && self.body_is_done() => {
                self.head.finish(self.phase == Phase::Body);
                self.phase = Phase::Finishing;
            }
            _ => {}
        }
        if self.phase != Phase::Body {
            let end = if self.phase == Phase::Finishing { Control::End } else { Control::Wait(None) };
            return self.head.next().map_or(end, Control::Head);
        }
        if self.unflushed.is_due(self.flush_hurries(), now) {
            Control::Flush(self.unflushed.begin())
        } else {
            Control::Wait(self.unflushed.wait())
        }
    }

    /// Whether nothing is compared any more: a wipe must not come between.
    fn compared(&self) -> bool {
        self.compares.is_empty() && self.reading == 0
    }

    /// Whether nothing is gained by a flush that comes later.
    fn flush_hurries(&self) -> bool {
        self.unread.presses() || self.nothing_to_write()
    }

    /// A step around the body is done. Where it asks something: `yes` or no.
    ///
    /// # Errors
    /// The disk is lost.
    pub fn on_head(&mut self, step: HeadStep, yes: bool) -> Result<(), Unprovable> {
        if !self.head.on_done(step, yes)? {
            self.rereading.on_mismatch();
        }
        match self.phase {
            Phase::Flushing => self.phase = Phase::Comparing,
            Phase::Beginning if self.head.is_over() => {
                self.phase = Phase::Body;
                self.events.push_back(Event::Began);
            }
            Phase::Settling if self.head.is_over() => {
                self.phase = Phase::Body;
                if self.rereading.begin(self.blocks.count())? == Some(Scope::All) {
                    self.events.push_back(Event::Unverified);
                }
                self.end_round();
            }
            _ => {}
        }
        Ok(())
    }

    /// A flush covers these blocks.
    pub fn on_flushed(&mut self, mut batch: Vec<Written<P>>) {
        if bug::is(Bug::FlushCoversLater) {
            batch.extend(self.unflushed.begin());
        }
        self.unflushed.on_flushed();
        if self.phase == Phase::Over {
            return;
        }
        self.events.push_back(Event::Durable(batch.iter().map(|written| written.block).collect()));
        if self.verify.reads_back() {
            self.unread.on_flushed(batch);
        } else {
            batch.iter().for_each(|written| self.blocks.on_done(written.block));
        }
    }

    // Readers.

    /// The next thing for a reader to do.
    pub fn poll_read(&mut self) -> Read<P> {
        let read = self.next_read();
        if !matches!(read, Read::Wait | Read::Exit) {
            self.reading += 1;
        }
        read
    }

    fn next_read(&mut self) -> Read<P> {
        if self.phase == Phase::Over {
            return Read::Exit;
        }
        if self.phase == Phase::Comparing
            && let Some((part, block)) = self.compares.iter_mut().find_map(Comparison::next)
        {
            return Read::Compare(part, block);
        }
        if self.reading >= self.readers {
            return Read::Wait;
        }
        match self.rereading.next() {
            Some(Next::Spot(spot)) => return Read::Spot(spot),
            Some(Next::Block(block)) => return Read::Again(block, self.rereading.part_of(block).unwrap_or_default()),
            None => {}
        }
        if self.rotational && !self.unread.in_pass() {
            if self.unread.is_empty() || !self.pass_may_begin() {
                return Read::Wait;
            }
            self.unread.begin_pass();
        }
        self.unread.pop().map_or(Read::Wait, Read::Back)
    }

    /// A pass begins once nothing is left to write, or nothing more may be written before.
    fn pass_may_begin(&self) -> bool {
        let still = self.writing == 0 && self.unflushed.is_still();
        still && (self.unread.presses() || self.nothing_to_write())
    }

    /// A block of the part that begins with `first` was compared; `spots` are for the last look, if the disk holds it.
    pub fn on_compared(&mut self, first: BlockNo, block: BlockNo, same: bool, spots: Vec<Spot>) {
        self.reading -= 1;
        self.rereading.note(block, spots);
        if let Some(comparison) = self.compares.iter_mut().find(|comparison| comparison.first() == first) {
            comparison.on_compared(block, same);
        }
        self.end_comparisons();
    }

    /// Tells of the parts that are compared, in their order.
    fn end_comparisons(&mut self) {
        while self.compares.front().is_some_and(Comparison::is_over)
            && let Some(comparison) = self.compares.pop_front()
        {
            let (first, same) = (comparison.first(), comparison.into_same());
            for block in &same {
                self.blocks.on_held(*block);
                self.fills.take(*block);
            }
            self.events.push_back(Event::Compared { first, same });
        }
    }

    /// A block was read back and is what it should be; `spots` are for the last look.
    pub fn on_equal(&mut self, written: &Written<P>, spots: Vec<Spot>) {
        self.after_reading(written);
        if self.phase == Phase::Over {
            return;
        }
        self.rereading.note(written.block, spots);
        self.blocks.on_done(written.block);
        self.unread.on_verified(written.block);
        let last = self.unread.is_empty() && self.reading == 0;
        self.events.extend(self.unread.take_verified(last).map(Event::Verified));
    }

    /// A block was read back and differs. The first time it is written again: a fill by the disk itself, another once it has come
    /// again. Gives whether the disk is lost: this was the second time.
    pub fn on_different(&mut self, written: Written<P>) -> bool {
        self.after_reading(&written);
        self.on_wrong(written)
    }

    fn on_wrong(&mut self, written: Written<P>) -> bool {
        self.rereading.on_mismatch();
        self.rereading.forget(written.block);
        if !self.blocks.on_wrong(written.block) {
            return true;
        }
        if self.phase == Phase::Over {
            return false;
        }
        if written.part.is_fill(written.block) {
            self.fills.put_back(FillWork::again(written.block, written.part));
        } else {
            self.events.push_back(Event::Mismatch(written.block));
        }
        false
    }

    fn after_reading(&mut self, written: &Written<P>) {
        self.reading -= 1;
        self.unread.end_pass(self.reading);
        self.unread.release(&written.part);
    }

    // The last look.

    /// A spot was read.
    pub fn on_spot(&mut self, right: bool) {
        if !right {
            self.rereading.on_mismatch();
        }
        self.after_look();
    }

    /// A block was read once more and is still right.
    pub fn on_equal_again(&mut self, block: BlockNo) {
        if self.phase != Phase::Over {
            self.unread.on_verified(block);
        }
        self.after_look();
    }

    /// A block was read once more and is not what it was: as with [`Self::on_different`].
    pub fn on_different_again(&mut self, written: Written<P>) -> bool {
        let lost = self.on_wrong(written);
        self.after_look();
        lost
    }

    fn after_look(&mut self) {
        self.reading -= 1;
        self.rereading.on_read();
        self.end_round();
    }

    fn end_round(&mut self) {
        let over = self.rereading.end();
        self.events.extend(self.unread.take_verified(over).map(Event::Verified));
    }

    /// Pretends that parts of so many bytes more wait to be read back.
    #[cfg(test)]
    pub(super) fn press(&mut self, bytes: isize) {
        self.unread.press(bytes);
    }
}
