//! A virtual disk, and the threads of its engine in virtual time. What is done next is decided by the schedule that ships
//! (`slidecast_proto::schedule`); here is what that costs and what goes wrong.
//!
//! What was written is in the disk's own cache until a flush; a power cut loses it.

use crate::image::{Content, Image, OLD};
use crate::queue::{DiskOp, Event, Queue};
use slidecast_proto::feed::Source;
use slidecast_proto::reason::{Reason, Verified, Verify};
use slidecast_proto::schedule::{
    Control, DiskFailure, Event as DiskEvent, FlushWindow, ManifestPart, Read, Right, Schedule, ScheduleConfig, Spot,
    Write, Written,
};
use slidecast_proto::units::{BlockNo, PartNo, Time};
use std::sync::Arc;
use std::time::Duration;

/// The flush window of `agent/src/disk/engine.rs`.
const WINDOW: FlushWindow = FlushWindow { bytes: 256 << 20, after: Duration::from_secs(2) };
/// How many threads read.
const READERS: usize = 2;
/// What a fill costs: the disk makes zeros by itself.
const FILL_BYTES: u64 = 4096;
/// Of so many blocks the last look takes one. A block of the simulator is one piece, where a real one is looked at in a few places
/// only: so the sample is thinner here.
const SAMPLE: u32 = 16;

/// How fast a disk is, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct DiskPlan {
    /// How long it takes to open.
    pub open: Duration,
    /// Bytes written per second.
    pub write_rate: u64,
    /// Bytes read per second.
    pub read_rate: u64,
    /// How long a flush takes.
    pub flush: Duration,
    /// Reads in a pass of its own, when all is written.
    pub rotational: bool,
    /// What is wrong with it.
    pub faults: Vec<DiskFault>,
}

/// Something that goes wrong on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Write number so much fails.
    Write(u32),
    /// Flush number so much fails; what it should have covered is lost.
    Flush(u32),
    /// Reading a block fails, the so many-th time.
    Read(u32),
    /// Write number so much is said to be done and is not.
    Lost(u32),
    /// The first write from number so much on for which there is a block that was read back lands on the place of that block.
    Misdirected(u32),
    /// Everything that is written to this block is lost.
    Rotten(u32),
    /// Write number so much takes this long.
    Stuck(u32, Duration),
}

/// What survives the process.
#[derive(Debug)]
pub struct Platter {
    /// What a read gives: the disk's cache.
    cache: Vec<Content>,
    /// What a power cut leaves.
    stable: Vec<Content>,
    /// Whether the head is that of a complete image.
    pub bootable: bool,
    writes: u32,
    flushes: u32,
    reads: u32,
    plan: DiskPlan,
}

impl Platter {
    /// A disk with something old on it.
    #[must_use]
    pub fn new(blocks: u32, plan: DiskPlan) -> Self {
        let old = vec![OLD; blocks as usize];
        Self { cache: old.clone(), stable: old, bootable: true, writes: 0, flushes: 0, reads: 0, plan }
    }

    /// What stands for sure on the place of `block`.
    #[must_use]
    pub fn stable(&self, block: u32) -> Content {
        self.stable.get(block as usize).copied().unwrap_or(OLD)
    }

    /// How long it takes to open.
    #[must_use]
    pub fn opens_in(&self) -> Duration {
        self.plan.open
    }

    /// The power is gone.
    pub fn power_cut(&mut self) {
        self.cache.clone_from(&self.stable);
    }

    /// How long the write that begins now stands still.
    fn stuck(&self) -> Duration {
        let stuck = |fault: &DiskFault| match fault {
            DiskFault::Stuck(at, span) if *at == self.writes => Some(*span),
            _ => None,
        };
        self.plan.faults.iter().find_map(stuck).unwrap_or_default()
    }

    /// The control thread begins something: how long that takes.
    fn take_up(&mut self, control: &Control<Part>) -> Duration {
        match control {
            Control::Begin => {
                self.bootable = false;
                self.plan.flush * 2
            }
            Control::Flush(_) => {
                self.flushes += 1;
                self.plan.flush
            }
            Control::Finish { .. } => self.plan.flush * 2,
            Control::Settle | Control::Wait(_) | Control::Exit => Duration::ZERO,
        }
    }

    /// A write is through. A misdirected one lands on the place of `proven`.
    fn write(&mut self, block: BlockNo, content: Content, proven: Option<BlockNo>) {
        let due = |fault: &DiskFault| matches!(fault, DiskFault::Misdirected(at) if *at <= self.writes);
        let lost = self.plan.faults.iter().any(|fault| match fault {
            DiskFault::Lost(at) => *at == self.writes,
            DiskFault::Rotten(rotten) => *rotten == block.0,
            _ => false,
        });
        if let Some((fault, other)) = self.plan.faults.iter().position(due).zip(proven) {
            self.plan.faults.remove(fault);
            self.cache[other.0 as usize] = content;
            self.stable[other.0 as usize] = content;
        } else if !lost {
            self.cache[block.0 as usize] = content;
        }
    }

    /// A flush that covers these blocks is through; gives whether it went well.
    fn flush(&mut self, batch: &[Written<Part>]) -> bool {
        let good = !self.plan.faults.contains(&DiskFault::Flush(self.flushes));
        if good {
            batch.iter().map(|written| written.block.0 as usize).for_each(|at| self.stable[at] = self.cache[at]);
        } else {
            // The kernel drops what it could not write and says so once: a second flush would find nothing wrong.
            self.cache.clone_from(&self.stable);
        }
        good
    }

    fn span(bytes: u64, rate: u64) -> Duration {
        Duration::from_micros(bytes * 1_000_000 / rate.max(1))
    }
}

/// A part of the manifest as an engine sees it.
#[derive(Debug)]
struct Part {
    image: Arc<Image>,
    no: PartNo,
}

impl ManifestPart for Part {
    fn first(&self) -> BlockNo {
        BlockNo(self.image.shape.blocks_of(self.no).start)
    }

    fn blocks(&self) -> u32 {
        let blocks = self.image.shape.blocks_of(self.no);
        blocks.end - blocks.start
    }

    fn is_fill(&self, block: BlockNo) -> bool {
        self.image.is_fill(block.0)
    }

    fn heap_bytes(&self) -> usize {
        self.blocks() as usize * 48
    }
}

/// A received block.
#[derive(Debug)]
struct Job {
    block: BlockNo,
    content: Content,
    /// What its payload holds of the ring.
    charge: u64,
}

/// The engine of one run on one disk: a writer, a control thread and [`READERS`] readers.
#[derive(Debug)]
pub struct Engine {
    agent: usize,
    run: u64,
    verify: Verify,
    image: Arc<Image>,
    schedule: Schedule<Job, Part>,
    writing: Option<Write<Job, Part>>,
    control: Option<Control<Part>>,
    reading: [Option<Read<Part>>; READERS],
    /// When the control thread wakes by itself.
    timer: Option<Time>,
    /// Bytes of the ring that jobs hold.
    held: u64,
    written_bytes: u64,
    /// The first block that was read back and is right.
    proven: Option<BlockNo>,
}

impl Engine {
    /// An engine that begins to write at once.
    pub fn begin(
        agent: usize,
        run: u64,
        image: Arc<Image>,
        verify: Verify,
        platter: &mut Platter,
        now: Time,
        queue: &mut Queue,
    ) -> Self {
        let config = ScheduleConfig {
            blocks: image.blocks(),
            verify,
            rotational: platter.plan.rotational,
            window: WINDOW,
            readers: READERS,
            ledger_bytes: 16 << 20,
        };
        let mut engine = Self {
            agent,
            run,
            verify,
            image,
            schedule: Schedule::new(config),
            writing: None,
            control: None,
            reading: [const { None }; READERS],
            timer: None,
            held: 0,
            written_bytes: 0,
            proven: None,
        };
        engine.schedule.on_begin();
        engine.step(platter, now, queue);
        engine
    }

    /// The next thing that it says.
    pub fn poll(&mut self) -> Option<DiskEvent> {
        self.schedule.poll_event()
    }

    /// Bytes of the ring that its jobs hold.
    #[must_use]
    pub fn holds(&self) -> u64 {
        if self.schedule.is_over() { 0 } else { self.held }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// A block to be written; `charge` is what its payload holds of the ring.
    pub fn block(
        &mut self,
        block: BlockNo,
        content: Content,
        charge: u64,
        platter: &mut Platter,
        now: Time,
        queue: &mut Queue,
    ) {
        self.held += charge;
        self.schedule.on_block(Job { block, content, charge });
        self.step(platter, now, queue);
    }

    /// A part of the manifest.
    pub fn part(&mut self, no: PartNo, platter: &mut Platter, now: Time, queue: &mut Queue) {
        let packed = self.verify.reads_back().then(|| self.image.part(no));
        self.schedule.on_part(self.part_of(no), packed);
        self.step(platter, now, queue);
    }

    fn part_of(&self, no: PartNo) -> Arc<Part> {
        Arc::new(Part { image: self.image.clone(), no })
    }

    fn written(&self, block: BlockNo) -> Written<Part> {
        Written { block, part: self.part_of(self.image.shape.part_of(block)) }
    }

    /// Every block was handed over.
    pub fn finish(&mut self, platter: &mut Platter, now: Time, queue: &mut Queue) {
        self.schedule.on_finish();
        self.step(platter, now, queue);
    }

    /// Every thread that waits begins the next thing, if there is one.
    fn step(&mut self, platter: &mut Platter, now: Time, queue: &mut Queue) {
        let block_bytes = u64::from(self.image.block_bytes());
        let mut later = |span: Duration, op| queue.push(now.after(span), Event::Disk(self.agent, self.run, op));
        if self.writing.is_none() {
            self.writing = self.schedule.poll_write();
            if let Some(write) = &self.writing {
                platter.writes += 1;
                let bytes = if matches!(write, Write::Fill(_)) { FILL_BYTES } else { block_bytes };
                later(Platter::span(bytes, platter.plan.write_rate) + platter.stuck(), DiskOp::Write);
            }
        }
        if self.control.is_none() {
            match self.schedule.poll_control(now) {
                Control::Exit | Control::Wait(None) => {}
                Control::Wait(Some(at)) if self.timer == Some(at) => {}
                Control::Wait(Some(at)) => {
                    self.timer = Some(at);
                    later(at.since(now), DiskOp::Timer);
                }
                control => {
                    later(platter.take_up(&control), DiskOp::Control);
                    self.control = Some(control);
                }
            }
        }
        for (no, reader) in (0..).zip(&mut self.reading) {
            if reader.is_none()
                && let read @ (Read::Back(_) | Read::Compare(..) | Read::Spot(_) | Read::Again(..)) =
                    self.schedule.poll_read()
            {
                platter.reads += 1;
                later(Platter::span(block_bytes, platter.plan.read_rate), DiskOp::Read(no));
                *reader = Some(read);
            }
        }
    }

    fn fail(&mut self, reason: Reason) {
        self.schedule.on_failure(DiskFailure { reason, detail: "a fault of the disk".to_owned() });
    }

    /// Something that was started is through.
    pub fn on_disk(&mut self, op: DiskOp, platter: &mut Platter, now: Time, queue: &mut Queue) {
        match op {
            DiskOp::Timer => self.timer = self.timer.filter(|at| *at > now),
            DiskOp::Write => self.on_write(platter, now),
            DiskOp::Control => self.on_control(platter),
            DiskOp::Read(reader) => {
                if let Some(read) = self.reading[usize::from(reader)].take() {
                    self.on_read(read, platter);
                }
            }
        }
        self.step(platter, now, queue);
    }

    fn on_write(&mut self, platter: &mut Platter, now: Time) {
        let (block, content) = match self.writing.take() {
            Some(Write::Block(job)) => {
                self.held = self.held.saturating_sub(job.charge);
                (job.block, job.content)
            }
            Some(Write::Fill(work)) => (work.block, self.image.content(work.block.0)),
            None => return,
        };
        if platter.plan.faults.contains(&DiskFault::Write(platter.writes)) {
            return self.fail(Reason::DiskWrite);
        }
        if content != self.image.content(block.0) {
            return self.schedule.on_bad_content(block);
        }
        platter.write(block, content, self.proven);
        let bytes = u64::from(self.image.block_bytes());
        self.written_bytes += bytes;
        self.schedule.on_written(self.written(block), bytes, now);
    }

    fn on_control(&mut self, platter: &mut Platter) {
        match self.control.take() {
            Some(Control::Begin) => self.schedule.on_begun(),
            Some(Control::Flush(batch)) if platter.flush(&batch) => self.schedule.on_flushed(batch),
            Some(Control::Flush(_)) => self.fail(Reason::DiskFlush),
            Some(Control::Settle) => {
                if self.schedule.on_settled().is_err() {
                    self.fail(Reason::DiskMismatch);
                }
            }
            Some(Control::Finish { .. }) => {
                platter.bootable = true;
                let verified = if self.verify.reads_back() { Verified::Direct } else { Verified::No };
                self.schedule.on_ended(verified, String::new());
            }
            Some(Control::Wait(_) | Control::Exit) | None => {}
        }
    }

    fn on_read(&mut self, read: Read<Part>, platter: &Platter) {
        if platter.plan.faults.contains(&DiskFault::Read(platter.reads)) {
            return self.fail(Reason::DiskRead);
        }
        let is_right = |block: BlockNo| platter.cache[block.0 as usize] == self.image.content(block.0);
        let lost = match read {
            Read::Back(written) if is_right(written.block) => {
                self.proven = Some(self.proven.map_or(written.block, |proven| proven.min(written.block)));
                self.schedule.on_equal(&written, self.spots(written.block));
                false
            }
            Read::Back(written) => self.schedule.on_different(written),
            Read::Again(block, _) if is_right(block) => {
                self.schedule.on_equal_again(block);
                false
            }
            Read::Again(block, _) => self.schedule.on_different_again(self.written(block)),
            Read::Spot(Spot { at, right, .. }) => {
                let found = usize::try_from(at).ok().and_then(|at| platter.cache.get(at).copied());
                self.schedule.on_spot(found.map(Right::Pattern) == Some(right));
                false
            }
            Read::Compare(part, block) => {
                let same = is_right(block);
                let spots = if same { self.spots(block) } else { Vec::new() };
                self.schedule.on_compared(part.first(), block, same, spots);
                false
            }
            Read::Wait | Read::Exit => false,
        };
        if lost {
            self.fail(Reason::DiskMismatch);
        }
    }

    /// What the last look takes of a block that is right.
    fn spots(&self, block: BlockNo) -> Vec<Spot> {
        let spot = Spot { at: block.0.into(), len: 1, right: Right::Pattern(self.image.content(block.0)) };
        if block.0.is_multiple_of(SAMPLE) { vec![spot] } else { Vec::new() }
    }
}
