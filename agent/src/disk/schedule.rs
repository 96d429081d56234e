//! What the threads of the engine do next. Pure: the time comes in, no system call is made.
//!
//! A block goes job -> (writing) -> fresh -> (flushing) -> unread -> (reading) -> done. A fill goes the same way without a
//! job. Blocks that the disk held before count as done from the start. When all are done the last look reads some or all of them once
//! more; what it finds wrong goes through all this again.

use super::comparison::Comparison;
use super::engine::{BlockJob, Event};
use super::fault::{DiskFailure, Fault};
use super::fill::FillWork;
use super::fills::Fills;
use super::look::{Ledger, Next, Round, Spot};
use core::time::Duration;
use slidecast_image::manifest::{Content, ManifestHeader, Part};
use slidecast_proto::look::{LastLook, Scope};
use slidecast_proto::reason::{Verified, Verify};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::BlockNo;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Writing waits for reading once the parts of blocks that are not read back take this many bytes.
pub(super) const RETAINED_LIMIT: usize = 8 << 20;
/// A disk that gives wrong bytes for more blocks than this is lost.
const MISMATCH_LIMIT: usize = 1024;
/// So many blocks are told of at once when they are verified, or all there are.
const VERIFIED_BATCH: usize = 64;

/// When to flush.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushWindow {
    pub(super) bytes: u64,
    pub(super) after: Duration,
}

/// A block that stands on the disk, with what is needed to read it back.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) block: BlockNo,
    pub(super) part: Arc<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has been written. Parts may be compared.
    Idle,
    /// The head is being wiped.
    Beginning,
    /// Blocks are written, and looked at once more in the end.
    Body,
    /// All blocks are done; what the image does not use is being cleared before the last look.
    Settling,
    /// The head is being written.
    Finishing,
    /// Ended, failed or stopped.
    Over,
}

/// For a writer.
#[derive(Debug)]
pub(super) enum Write {
    Block(BlockJob),
    Fill(FillWork),
}

/// For the control thread.
#[derive(Debug)]
pub(super) enum Control {
    /// Wipe and mark.
    Begin,
    /// Flush; these blocks are covered by it.
    Flush(Vec<Written>),
    /// All blocks are done: clear what the image does not use, flush, and let the last look begin.
    Settle,
    /// All is done but the head. Whether anything was written at all.
    Finish {
        begun: bool,
    },
    /// Nothing before that time, or before something happens.
    Wait(Option<Instant>),
    Exit,
}

/// For a reader.
#[derive(Debug)]
pub(super) enum Read {
    /// Compare a block that was written.
    Back(Written),
    /// See whether the disk holds this block of a part already.
    Compare(Arc<Part>, BlockNo),
    /// A spot of the last look.
    Spot(Spot),
    /// A block in a round over all of them, with its part.
    Again(BlockNo, Arc<[u8]>),
    Wait,
    Exit,
}

/// Which threads have something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) write: bool,
    pub(super) control: bool,
    pub(super) read: bool,
    /// All threads are to end.
    pub(super) over: bool,
}

/// The state of the engine.
#[derive(Debug)]
pub(super) struct Schedule {
    phase: Phase,
    verify: Verify,
    /// Read back in passes of their own, not between writes.
    rotational: bool,
    window: FlushWindow,
    /// Blocks that are read back at the same time, at most. Before the first write all readers compare.
    readers: usize,

    begin: bool,
    finish: bool,
    jobs: VecDeque<BlockJob>,
    fills: Fills,
    /// Jobs and fills in the hands of writers, or in the sort window.
    writing: usize,

    fresh: Vec<Written>,
    fresh_bytes: u64,
    fresh_since: Option<Instant>,
    flushing: bool,

    compares: VecDeque<Comparison>,
    unread: VecDeque<Written>,
    reading: usize,
    /// A pass of reading on a disk with heads; nothing is written meanwhile.
    pass: bool,
    /// Parts that blocks between fresh and done hold: heap bytes and number of blocks, by first block.
    retained: BTreeMap<BlockNo, (usize, usize)>,
    retained_bytes: usize,

    /// Written, or held from before.
    settled: BlockSet,
    /// Written in this run.
    written: BlockSet,
    /// As far as they will get: read back, or flushed if nothing is to be read back.
    done: BlockSet,
    mismatched: BTreeSet<BlockNo>,
    look: LastLook,
    ledger: Ledger,
    round: Option<Round>,

    /// When the control thread will look by itself.
    timer: Option<Instant>,
    /// Verified, but not told yet.
    verified: Vec<BlockNo>,
    events: VecDeque<Event>,
}

impl Schedule {
    pub(super) fn new(
        header: &ManifestHeader,
        verify: Verify,
        rotational: bool,
        window: FlushWindow,
        readers: usize,
        ledger_bytes: usize,
    ) -> Self {
        let none = BlockSet::empty(header.blocks);
        Self {
            phase: Phase::Idle,
            verify,
            rotational,
            window,
            readers,
            begin: false,
            finish: false,
            jobs: VecDeque::new(),
            fills: Fills::new(header.blocks),
            writing: 0,
            fresh: Vec::new(),
            fresh_bytes: 0,
            fresh_since: None,
            flushing: false,
            compares: VecDeque::new(),
            unread: VecDeque::new(),
            reading: 0,
            pass: false,
            retained: BTreeMap::new(),
            retained_bytes: 0,
            settled: none.clone(),
            written: none.clone(),
            done: none,
            mismatched: BTreeSet::new(),
            look: LastLook::new(verify),
            ledger: Ledger::new(ledger_bytes),
            round: None,
            timer: None,
            verified: Vec::new(),
            events: VecDeque::new(),
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn wants(&self, now: Instant) -> Wants {
        let over = self.phase == Phase::Over;
        let compares = self.phase == Phase::Idle && self.compares.iter().any(Comparison::has_more);
        let may_read_back = self.reading < self.readers && (!self.rotational || self.pass || self.pass_may_begin());
        let looks = self.reading < self.readers && self.round.as_ref().is_some_and(Round::has_more);
        let read = compares || looks || (!self.unread.is_empty() && may_read_back);
        let control = match self.phase {
            Phase::Idle => (self.begin && self.compared()) || (self.finish && self.body_is_done()),
            Phase::Body if self.finish && self.body_is_done() => true,
            Phase::Body => self.fresh_since.is_some() && (self.timer.is_none() || self.flush_is_due(now)),
            _ => false,
        };
        Wants { write: self.may_write() && !(self.fills.is_empty() && self.jobs.is_empty()), control, read, over }
    }

    // What comes from outside.

    /// What was not compared by now counts as lacking: the server knows no better.
    pub(super) fn on_begin(&mut self) {
        self.begin = true;
        self.compares.clear();
    }

    pub(super) fn on_finish(&mut self) {
        self.finish = true;
    }

    pub(super) fn on_block(&mut self, job: BlockJob) {
        if self.phase != Phase::Over {
            self.jobs.push_back(job);
        }
    }

    pub(super) fn on_part(&mut self, part: Arc<Part>, packed: Option<Arc<[u8]>>) {
        if self.phase != Phase::Over {
            packed.into_iter().for_each(|packed| self.ledger.keep(part.first(), part.len(), packed));
            self.fills.push(part);
        }
    }

    pub(super) fn on_compare(&mut self, comparison: Comparison, packed: Option<Arc<[u8]>>) {
        if self.phase == Phase::Idle && !self.begin {
            packed.into_iter().for_each(|packed| self.ledger.keep(comparison.first(), comparison.len(), packed));
            self.compares.push_back(comparison);
            self.end_comparisons();
        }
    }

    /// Something failed for good. Only the first is told.
    pub(super) fn on_failure(&mut self, failure: DiskFailure) {
        if self.phase != Phase::Over {
            self.events.push_back(Event::Failed(failure));
            self.on_over();
        }
    }

    /// The disk has its head; `note` is for the operator.
    pub(super) fn on_ended(&mut self, verified: Verified, note: String) {
        if self.phase != Phase::Over {
            let written = self.written.count();
            let kept = self.done.count().saturating_sub(written);
            let last_look = self.look.report();
            self.events.push_back(Event::Ended { verified, written, kept, last_look, note });
            self.on_over();
        }
    }

    /// Stops everything and lets go of all memory of the ring.
    pub(super) fn on_over(&mut self) {
        self.phase = Phase::Over;
        self.jobs = VecDeque::new();
        self.fills.clear();
        self.fresh = Vec::new();
        self.compares = VecDeque::new();
        self.unread = VecDeque::new();
        self.round = None;
    }

    /// The part of a block as it came, if it is kept.
    pub(super) fn packed_part(&self, block: BlockNo) -> Option<Arc<[u8]>> {
        self.ledger.part_of(block)
    }

    /// Whether some blocks stood on the disk before.
    pub(super) fn keeps_blocks(&self) -> bool {
        self.done.count() > self.written.count()
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    // Writers.

    /// The next thing to write; `None`: nothing now.
    pub(super) fn poll_write(&mut self) -> Option<Write> {
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
        self.phase == Phase::Body && !self.pass && !self.presses()
    }

    /// Whether blocks wait while a writer is busy with a long fill.
    pub(super) fn jobs_wait(&self) -> bool {
        !self.jobs.is_empty() || self.is_over()
    }

    /// A fill is put back half-way.
    pub(super) fn on_fill_paused(&mut self, work: FillWork) {
        self.writing -= 1;
        if self.phase != Phase::Over {
            self.fills.put_back(work);
        }
    }

    /// A job ended without a write: the block was not what its manifest says.
    pub(super) fn on_bad_content(&mut self, block: BlockNo) {
        self.writing -= 1;
        if self.phase != Phase::Over {
            self.events.push_back(Event::BadContent(block));
        }
    }

    /// Every place of a block is written (or in the shadow).
    pub(super) fn on_written(&mut self, written: Written, bytes: u64, now: Instant) {
        self.writing -= 1;
        if self.phase == Phase::Over {
            return;
        }
        self.events.push_back(Event::Written(written.block));
        self.settled.insert(written.block);
        self.written.insert(written.block);
        self.ledger.forget(written.block);
        if self.verify.reads_back() {
            let (heap, blocks) = self.retained.entry(written.part.first()).or_insert((0, 0));
            if *blocks == 0 {
                *heap = written.part.heap_bytes();
                self.retained_bytes += *heap;
            }
            *blocks += 1;
        }
        self.fresh.push(written);
        self.fresh_bytes += bytes;
        self.fresh_since.get_or_insert(now);
    }

    /// Whether writing has to wait for reading.
    fn presses(&self) -> bool {
        self.retained_bytes > RETAINED_LIMIT
    }

    /// Whether every block is written, or will not come any more.
    fn nothing_to_write(&self) -> bool {
        let all = self.settled.is_full() || self.finish;
        all && self.writing == 0 && self.jobs.is_empty() && self.fills.is_empty()
    }

    /// Whether the body is proven and nobody touches it.
    fn body_is_done(&self) -> bool {
        let quiet = self.fresh.is_empty() && self.unread.is_empty() && self.reading == 0 && self.round.is_none();
        self.done.is_full() && quiet && self.nothing_to_write()
    }

    // The control thread.

    pub(super) fn poll_control(&mut self, now: Instant) -> Control {
        match self.phase {
            Phase::Over => return Control::Exit,
            Phase::Idle if self.begin && self.compared() => {
                self.phase = Phase::Beginning;
                return Control::Begin;
            }
            Phase::Idle if self.finish && self.body_is_done() => {
                self.phase = Phase::Finishing;
                return Control::Finish { begun: false };
            }
            Phase::Body if self.finish && self.body_is_done() && self.look.due().is_some() => {
                self.phase = Phase::Settling;
                return Control::Settle;
            }
            Phase::Body if self.finish && self.body_is_done() => {
                self.phase = Phase::Finishing;
                return Control::Finish { begun: true };
            }
            Phase::Body => {}
            _ => return Control::Wait(None),
        }
        self.timer = self.fresh_since.map(|since| since + self.window.after);
        if !self.flush_is_due(now) {
            return Control::Wait(self.timer);
        }
        self.timer = None;
        self.flushing = true;
        self.fresh_bytes = 0;
        self.fresh_since = None;
        Control::Flush(core::mem::take(&mut self.fresh))
    }

    /// Whether nothing is compared any more: a wipe must not come between.
    fn compared(&self) -> bool {
        self.compares.is_empty() && self.reading == 0
    }

    fn flush_is_due(&self, now: Instant) -> bool {
        let Some(since) = self.fresh_since else { return false };
        let full = self.fresh_bytes >= self.window.bytes || now >= since + self.window.after;
        full || self.presses() || self.nothing_to_write()
    }

    pub(super) fn on_begun(&mut self) {
        if self.phase == Phase::Beginning {
            self.phase = Phase::Body;
            self.events.push_back(Event::Began);
        }
    }

    /// A flush covers these blocks.
    pub(super) fn on_flushed(&mut self, batch: Vec<Written>) {
        self.flushing = false;
        if self.phase == Phase::Over {
            return;
        }
        self.events.push_back(Event::Durable(batch.iter().map(|written| written.block).collect()));
        if self.verify.reads_back() {
            self.unread.extend(batch);
        } else {
            for written in &batch {
                self.done.insert(written.block);
            }
        }
    }

    // Readers.

    pub(super) fn poll_read(&mut self) -> Read {
        if self.phase == Phase::Over {
            return Read::Exit;
        }
        if self.phase == Phase::Idle
            && let Some((part, block)) = self.compares.iter_mut().find_map(Comparison::next)
        {
            self.reading += 1;
            return Read::Compare(part, block);
        }
        if self.reading >= self.readers {
            return Read::Wait;
        }
        match self.round.as_mut().and_then(Round::next) {
            Some(Next::Spot(spot)) => {
                self.reading += 1;
                return Read::Spot(spot);
            }
            Some(Next::Block(block)) => {
                self.reading += 1;
                return Read::Again(block, self.ledger.part_of(block).unwrap_or_default());
            }
            None => {}
        }
        if self.rotational && !self.pass {
            if self.unread.is_empty() || !self.pass_may_begin() {
                return Read::Wait;
            }
            self.pass = true;
            self.unread.make_contiguous().sort_unstable_by_key(|written| written.block);
        }
        let Some(written) = self.unread.pop_front() else { return Read::Wait };
        self.reading += 1;
        Read::Back(written)
    }

    /// A pass begins once nothing is left to write, or nothing more may be written before.
    fn pass_may_begin(&self) -> bool {
        let still = self.writing == 0 && self.fresh.is_empty() && !self.flushing;
        still && (self.presses() || self.nothing_to_write())
    }

    /// A block of the part that begins with `first` was compared.
    pub(super) fn on_compared(&mut self, first: BlockNo, block: BlockNo, same: bool, spots: Vec<Spot>) {
        self.reading -= 1;
        self.ledger.note(block, spots);
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
                self.settled.insert(*block);
                self.fills.take(*block);
                self.done.insert(*block);
            }
            self.events.push_back(Event::Compared { first, same });
        }
    }

    /// A block was read back and is what it should be.
    pub(super) fn on_equal(&mut self, written: &Written, spots: Vec<Spot>) {
        self.after_reading(written);
        if self.phase == Phase::Over {
            return;
        }
        self.ledger.note(written.block, spots);
        self.done.insert(written.block);
        self.verified.push(written.block);
        if self.verified.len() >= VERIFIED_BATCH || (self.unread.is_empty() && self.reading == 0) {
            self.events.push_back(Event::Verified(core::mem::take(&mut self.verified)));
        }
    }

    /// A block was read back and differs. The first time it is written again: a fill by us, another once it has come again.
    /// Gives whether the disk is lost: this was the second time.
    pub(super) fn on_different(&mut self, written: Written) -> bool {
        self.after_reading(&written);
        self.on_wrong(written)
    }

    fn on_wrong(&mut self, written: Written) -> bool {
        self.look.on_mismatch();
        self.ledger.forget(written.block);
        let full = self.mismatched.len() >= MISMATCH_LIMIT;
        if full || !self.mismatched.insert(written.block) {
            return true;
        }
        if self.phase == Phase::Over {
            return false;
        }
        self.settled.remove(written.block);
        self.done.remove(written.block);
        let info = written.part.block(written.block);
        if info.is_some_and(|info| matches!(info.content, Content::Fill { .. })) {
            self.fills.put_back(FillWork::again(written.block, written.part));
        } else {
            self.events.push_back(Event::Mismatch(written.block));
        }
        false
    }

    // The last look.

    /// The disk was wrong where it holds nothing of the image: what it holds elsewhere is to be read again.
    pub(super) fn on_doubt(&mut self) {
        self.look.on_mismatch();
    }

    /// All is flushed, and nothing of the body is touched: the next round begins.
    pub(super) fn on_settled(&mut self) -> Result<(), Fault> {
        let Some(scope) = self.look.due().filter(|_| self.phase == Phase::Settling) else { return Ok(()) };
        self.phase = Phase::Body;
        self.look.on_begin(scope);
        if self.look.is_hopeless() {
            return Err(Fault::Unstable { rounds: self.look.rounds() });
        }
        let blocks = self.done.universe();
        if scope == Scope::All {
            if !self.ledger.has_all(blocks) {
                return Err(Fault::Forgotten);
            }
            self.events.push_back(Event::Unverified);
        }
        self.round = Some(self.ledger.round(scope, blocks));
        self.end_round();
        Ok(())
    }

    /// A spot was read.
    pub(super) fn on_spot(&mut self, right: bool) {
        if !right {
            self.look.on_mismatch();
        }
        self.after_look();
    }

    /// A block was read once more and is still right.
    pub(super) fn on_equal_again(&mut self, block: BlockNo) {
        if self.phase != Phase::Over {
            self.verified.push(block);
        }
        self.after_look();
    }

    /// A block was read once more and is not what it was: as with [`Self::on_different`].
    pub(super) fn on_different_again(&mut self, written: Written) -> bool {
        let lost = self.on_wrong(written);
        self.after_look();
        lost
    }

    fn after_look(&mut self) {
        self.reading -= 1;
        self.round.iter_mut().for_each(Round::on_read);
        self.end_round();
    }

    fn end_round(&mut self) {
        let over = self.round.as_ref().is_some_and(Round::is_over);
        if !self.verified.is_empty() && (over || self.verified.len() >= VERIFIED_BATCH) {
            self.events.push_back(Event::Verified(core::mem::take(&mut self.verified)));
        }
        if let Some(round) = self.round.take_if(|_| over) {
            self.look.on_end(round.scope, round.read);
        }
    }

    fn after_reading(&mut self, written: &Written) {
        self.reading -= 1;
        if self.pass && self.unread.is_empty() && self.reading == 0 {
            self.pass = false;
        }
        if let Some((heap, blocks)) = self.retained.get_mut(&written.part.first()) {
            *blocks -= 1;
            if *blocks == 0 {
                self.retained_bytes -= *heap;
                self.retained.remove(&written.part.first());
            }
        }
    }
}

#[cfg(test)]
mod tests;
