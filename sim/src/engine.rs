//! The threads of a disk engine in virtual time: a writer, a control thread and [`READERS`] readers. What they do next is decided by
//! the schedule that ships (`slidecast_proto::schedule`).

use crate::disk::Platter;
use crate::image::{Content, Image};
use crate::queue::{DiskOp, Event, Queue};
use slidecast_proto::feed::Source;
use slidecast_proto::reason::{Free, Reason, Verified, Verify};
use slidecast_proto::schedule::{
    Comparison, Control, DiskFailure, Event as DiskEvent, FlushWindow, HeadConfig, ManifestPart, Read, Right, Schedule,
    ScheduleConfig, Spot, Write, Written,
};
use slidecast_proto::units::{BlockNo, PartNo, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The flush window of `agent/src/disk/engine.rs`.
const WINDOW: FlushWindow = FlushWindow { bytes: 256 << 20, after: Duration::from_secs(2) };
const READERS: usize = 2;
/// How many blocks a disk with heads gathers.
const TRAYS: usize = 8;
/// Of so many blocks the last look takes one. A block of the simulator is one piece, where a real one is looked at in a few places
/// only: so the sample is thinner here.
const SAMPLE: u32 = 16;

/// A part of the manifest as an engine sees it.
#[derive(Debug)]
pub(crate) struct Part {
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
        self.image.part_heap(self.blocks())
    }
}

#[derive(Debug)]
struct Job {
    block: BlockNo,
    content: Content,
    /// What its payload holds of the ring.
    charge: u64,
}

/// The sort window of a disk with heads: unpacked blocks, written in the order of the disk.
#[derive(Debug, Default)]
struct Window {
    blocks: BTreeMap<BlockNo, Content>,
    position: u32,
    sweeping: Option<(BlockNo, Content)>,
}

impl Window {
    fn is_full(&self) -> bool {
        self.blocks.len() + usize::from(self.sweeping.is_some()) >= TRAYS
    }

    /// The next block on the way of the heads, unless one is being written.
    fn sweep(&mut self) -> Option<BlockNo> {
        if self.sweeping.is_some() {
            return None;
        }
        let ahead = self.blocks.range(BlockNo(self.position)..).next().or_else(|| self.blocks.iter().next());
        let (block, content) = ahead.map(|(block, content)| (*block, *content))?;
        self.blocks.remove(&block);
        self.position = block.0;
        self.sweeping = Some((block, content));
        Some(block)
    }
}

/// The engine of one run on one disk: a writer, a control thread and [`READERS`] readers.
#[derive(Debug)]
pub(crate) struct Engine {
    agent: usize,
    run: u64,
    verify: Verify,
    image: Arc<Image>,
    schedule: Schedule<Job, Part>,
    writing: Option<Write<Job, Part>>,
    window: Window,
    control: Option<Control<Part>>,
    reading: [Option<Read<Part>>; READERS],
    /// When the control thread wakes by itself.
    timer: Option<Time>,
    /// Bytes of the ring that jobs hold.
    held: u64,
    written_bytes: u64,
    /// The first block that was read back and is right, among those that the last look takes.
    proven: Option<BlockNo>,
}

impl Engine {
    /// An engine that has nothing to do yet.
    pub(crate) fn new(agent: usize, run: u64, image: Arc<Image>, verify: Verify, platter: &Platter) -> Self {
        let config = ScheduleConfig {
            blocks: image.blocks(),
            head: HeadConfig { verify, free: Free::Keep, behind: false },
            rotational: platter.rotational(),
            window: WINDOW,
            readers: READERS,
            ledger_bytes: 16 << 20,
        };
        Self {
            agent,
            run,
            verify,
            image,
            schedule: Schedule::new(config),
            writing: None,
            window: Window::default(),
            control: None,
            reading: [const { None }; READERS],
            timer: None,
            held: 0,
            written_bytes: 0,
            proven: None,
        }
    }

    /// The disk is to be written.
    pub(crate) fn begin(&mut self, platter: &mut Platter, now: Time, queue: &mut Queue) {
        self.schedule.on_begin();
        self.step(platter, now, queue);
    }

    /// A part to be compared with what the disk holds.
    pub(crate) fn compare(&mut self, no: PartNo, sampled: bool, platter: &mut Platter, now: Time, queue: &mut Queue) {
        let packed = self.verify.reads_back().then(|| self.image.part(no));
        self.schedule.on_compare(Comparison::new(self.part_of(no), sampled), packed);
        self.step(platter, now, queue);
    }

    /// The next thing that it says.
    pub(crate) fn poll(&mut self) -> Option<DiskEvent> {
        self.schedule.poll_event()
    }

    /// Bytes of the ring that its jobs hold.
    pub(crate) fn holds(&self) -> u64 {
        if self.schedule.is_over() { 0 } else { self.held }
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// A block to be written; `charge` is what its payload holds of the ring.
    pub(crate) fn block(
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
    pub(crate) fn part(&mut self, no: PartNo, platter: &mut Platter, now: Time, queue: &mut Queue) {
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
    pub(crate) fn finish(&mut self, platter: &mut Platter, now: Time, queue: &mut Queue) {
        self.schedule.on_finish();
        self.step(platter, now, queue);
    }

    /// Every thread that waits begins the next thing, if there is one.
    fn step(&mut self, platter: &mut Platter, now: Time, queue: &mut Queue) {
        let block_bytes = self.image.block_bytes();
        let mut later = |span: Duration, op| queue.push(now.after(span), Event::Disk(self.agent, self.run, op));
        if self.writing.is_none() && !self.window.is_full() {
            self.writing = self.schedule.poll_write();
            if let Some(write) = &self.writing {
                let span = match write {
                    // It is unpacked only; the window writes it.
                    Write::Block(_) if platter.rotational() => Duration::ZERO,
                    _ => platter.begin_write(matches!(write, Write::Fill(_)), block_bytes),
                };
                later(span, DiskOp::Write);
            }
        }
        if self.window.sweep().is_some() {
            later(platter.begin_write(false, block_bytes), DiskOp::Sweep);
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
                    later(platter.begin(&control, &self.image), DiskOp::Control);
                    self.control = Some(control);
                }
            }
        }
        for (no, reader) in (0..).zip(&mut self.reading) {
            if reader.is_none()
                && let read @ (Read::Back(_) | Read::Compare(..) | Read::Spot(_) | Read::Again(..)) =
                    self.schedule.poll_read()
            {
                later(platter.begin_read(block_bytes), DiskOp::Read(no));
                *reader = Some(read);
            }
        }
    }

    fn fail(&mut self, reason: Reason) {
        self.schedule.on_failure(DiskFailure { reason, detail: "a fault of the disk".to_owned() });
    }

    /// Something that was started is through.
    pub(crate) fn on_disk(&mut self, op: DiskOp, platter: &mut Platter, now: Time, queue: &mut Queue) {
        match op {
            DiskOp::Timer => self.timer = self.timer.filter(|at| *at > now),
            DiskOp::Write => self.on_write(platter, now),
            DiskOp::Sweep => {
                if let Some((block, content)) = self.window.sweeping.take() {
                    self.on_written(block, content, platter, now);
                }
            }
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
        match self.writing.take() {
            Some(Write::Block(job)) => {
                self.held = self.held.saturating_sub(job.charge);
                if job.content != self.image.content(job.block.0) {
                    self.schedule.on_bad_content(job.block);
                } else if platter.rotational() {
                    self.window.blocks.insert(job.block, job.content);
                } else {
                    self.on_written(job.block, job.content, platter, now);
                }
            }
            Some(Write::Fill(work)) => self.on_written(work.block, self.image.content(work.block.0), platter, now),
            None => {}
        }
    }

    fn on_written(&mut self, block: BlockNo, content: Content, platter: &mut Platter, now: Time) {
        if let Err(reason) = platter.write(block, content, self.proven) {
            return self.fail(reason);
        }
        let bytes = u64::from(self.image.block_bytes());
        self.written_bytes += bytes;
        self.schedule.on_written(self.written(block), bytes, now);
    }

    fn on_control(&mut self, platter: &mut Platter) {
        match self.control.take() {
            Some(Control::Flush(batch)) => match platter.flush(&batch) {
                Ok(()) => self.schedule.on_flushed(batch),
                Err(reason) => self.fail(reason),
            },
            Some(Control::Head(step)) => match platter.step(step).map(|yes| self.schedule.on_head(step, yes)) {
                Ok(Ok(())) => {}
                Ok(Err(_)) => self.fail(Reason::DiskMismatch),
                Err(reason) => self.fail(reason),
            },
            Some(Control::End) => {
                let verified = if self.verify.reads_back() { Verified::Direct } else { Verified::No };
                self.schedule.on_ended(verified, String::new());
            }
            Some(Control::Wait(_) | Control::Exit) | None => {}
        }
    }

    fn on_read(&mut self, read: Read<Part>, platter: &Platter) {
        let block = match &read {
            Read::Back(written) => written.block,
            Read::Compare(_, block) | Read::Again(block, _) => *block,
            Read::Spot(spot) => BlockNo(u32::try_from(spot.at).unwrap_or(u32::MAX)),
            Read::Wait | Read::Exit => return,
        };
        let content = self.image.content(block.0);
        let same = match platter.read(block) {
            Ok(found) => found == content,
            Err(reason) => return self.fail(reason),
        };
        let spots = if same { self.spots(block) } else { Vec::new() };
        let lost = match read {
            Read::Back(written) if !same => self.schedule.on_different(written),
            Read::Again(..) if !same => self.schedule.on_different_again(self.written(block)),
            Read::Back(written) => {
                // What a write does to a block that the last look does not take is found by nobody.
                let looked_at = Some(block).filter(|_| !spots.is_empty());
                self.proven = self.proven.into_iter().chain(looked_at).min();
                self.schedule.on_equal(&written, spots);
                false
            }
            Read::Again(..) => {
                self.schedule.on_equal_again(block);
                false
            }
            Read::Spot(spot) => {
                self.schedule.on_spot(same && spot.right == Right::Pattern(content));
                false
            }
            Read::Compare(part, _) => {
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
