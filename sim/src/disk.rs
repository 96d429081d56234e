//! A disk and the engine that writes it, in virtual time: the order of `agent/src/disk` without its threads.
//!
//! job -> (writing) -> fresh -> (flushing) -> unread -> (reading) -> done. What was written is in the disk's own cache until a
//! flush; a power cut loses it. When all is done the last look reads one block in [`SAMPLE`], or after any mismatch all of them, once
//! more. The head is the last thing written.

use crate::image::{Content, Image, OLD};
use crate::queue::{DiskOp, Event, Queue};
use slidecast_proto::look::{LastLook, Scope};
use slidecast_proto::reason::{LookedAt, Reason, Verified, Verify};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, Time};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// So many bytes, or so long after the first of them, make a flush due.
const FLUSH_BYTES: u64 = 256 << 20;
const FLUSH_AFTER: Duration = Duration::from_secs(2);
/// Of so many blocks the last look takes one. A block of the simulator is one piece, where a real one is looked at in a few places
/// only: so the sample is thinner here.
const SAMPLE: u32 = 16;

/// How fast a disk is, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct DiskPlan {
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
    /// Reading back batch number so much fails.
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

    /// The power is gone.
    pub fn power_cut(&mut self) {
        self.cache.clone_from(&self.stable);
    }

    fn span(bytes: u64, rate: u64) -> Duration {
        Duration::from_micros(bytes * 1_000_000 / rate.max(1))
    }
}

/// What an engine says: as in `agent/src/disk/engine.rs`.
#[derive(Debug, PartialEq, Eq)]
pub enum DiskEvent {
    /// The content is not what the manifest says; nothing was written.
    BadContent(BlockNo),
    /// Read back and found different, for the first time.
    Mismatch(BlockNo),
    /// Written to all places.
    Written(BlockNo),
    /// Flushed.
    Durable(Vec<BlockNo>),
    /// Nothing that was verified so far counts: all is read again.
    Unverified,
    /// Read back and equal.
    Verified(Vec<BlockNo>),
    /// The target is lost for this run.
    Failed(Reason),
    /// All is done.
    Ended {
        /// How it was read back.
        verified: Verified,
        /// Blocks written.
        written: u32,
        /// How much was read once more, and how many blocks that were.
        last_look: (LookedAt, u32),
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Beginning,
    Body,
    Finishing,
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    block: u32,
    content: Content,
    charge: u64,
}

/// The engine of one run on one disk.
#[derive(Debug)]
pub struct Engine {
    agent: usize,
    run: u64,
    phase: Phase,
    verify: Verify,
    image: Arc<Image>,
    jobs: VecDeque<Job>,
    fills: VecDeque<u32>,
    writing: Option<Job>,
    fresh: Vec<u32>,
    fresh_bytes: u64,
    fresh_since: Option<Time>,
    timer: bool,
    flushing: Option<Vec<u32>>,
    unread: VecDeque<u32>,
    reading: Option<Vec<u32>>,
    settled: BlockSet,
    written: BlockSet,
    done: BlockSet,
    mismatched: BTreeSet<u32>,
    look: LastLook,
    looking: bool,
    finish: bool,
    written_bytes: u64,
    events: VecDeque<DiskEvent>,
}

impl Engine {
    /// Begins: head wiped, mark written.
    pub fn begin(
        agent: usize,
        run: u64,
        image: Arc<Image>,
        verify: Verify,
        platter: &mut Platter,
        now: Time,
        queue: &mut Queue,
    ) -> Self {
        platter.bootable = false;
        queue.push(now.after(platter.plan.flush * 2), Event::Disk(agent, run, DiskOp::Begin));
        let none = BlockSet::empty(image.blocks());
        Self {
            agent,
            run,
            phase: Phase::Beginning,
            verify,
            image,
            jobs: VecDeque::new(),
            fills: VecDeque::new(),
            writing: None,
            fresh: Vec::new(),
            fresh_bytes: 0,
            fresh_since: None,
            timer: false,
            flushing: None,
            unread: VecDeque::new(),
            reading: None,
            settled: none.clone(),
            written: none.clone(),
            done: none,
            mismatched: BTreeSet::new(),
            look: LastLook::new(verify),
            looking: false,
            finish: false,
            written_bytes: 0,
            events: VecDeque::new(),
        }
    }

    /// The run that it belongs to.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.run
    }

    /// The next thing that it says.
    pub fn poll(&mut self) -> Option<DiskEvent> {
        self.events.pop_front()
    }

    /// Bytes of the ring that its jobs hold.
    #[must_use]
    pub fn holds(&self) -> u64 {
        self.jobs.iter().chain(&self.writing).map(|job| job.charge).sum()
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
        if self.phase != Phase::Over {
            self.jobs.push_back(Job { block: block.0, content, charge });
            self.step(platter, now, queue);
        }
    }

    /// The fills of a part.
    pub fn fills(&mut self, fills: impl Iterator<Item = BlockNo>, platter: &mut Platter, now: Time, queue: &mut Queue) {
        if self.phase != Phase::Over {
            self.fills.extend(fills.map(|block| block.0));
            self.step(platter, now, queue);
        }
    }

    /// Every block was handed over.
    pub fn finish(&mut self, platter: &mut Platter, now: Time, queue: &mut Queue) {
        self.finish = true;
        self.step(platter, now, queue);
    }

    fn nothing_to_write(&self) -> bool {
        let all = self.settled.is_full() || self.finish;
        all && self.writing.is_none() && self.jobs.is_empty() && self.fills.is_empty()
    }

    /// Starts whatever can be started.
    fn step(&mut self, platter: &mut Platter, now: Time, queue: &mut Queue) {
        if self.phase != Phase::Body {
            return;
        }
        let mut later = |span: Duration, op| queue.push(now.after(span), Event::Disk(self.agent, self.run, op));
        if self.writing.is_none() {
            let fill = |block| Job { block, content: self.image.content(block), charge: 0 };
            self.writing = self.jobs.pop_front().or_else(|| self.fills.pop_front().map(fill));
            if let Some(job) = &self.writing {
                platter.writes += 1;
                let stuck = platter.plan.faults.iter().find_map(|fault| match fault {
                    DiskFault::Stuck(at, span) if *at == platter.writes => Some(*span),
                    _ => None,
                });
                let bytes = if job.charge == 0 { 4096 } else { u64::from(self.image.block_bytes()) };
                later(Platter::span(bytes, platter.plan.write_rate) + stuck.unwrap_or_default(), DiskOp::Write);
            }
        }
        if self.flushing.is_none()
            && let Some(since) = self.fresh_since
        {
            let due = self.fresh_bytes >= FLUSH_BYTES || now >= since.after(FLUSH_AFTER) || self.nothing_to_write();
            if due {
                self.flushing = Some(std::mem::take(&mut self.fresh));
                (self.fresh_bytes, self.fresh_since) = (0, None);
                platter.flushes += 1;
                later(platter.plan.flush, DiskOp::Flush);
            } else if !self.timer {
                self.timer = true;
                later(since.after(FLUSH_AFTER).since(now), DiskOp::Timer);
            }
        }
        let may_read =
            !platter.plan.rotational || (self.nothing_to_write() && self.fresh.is_empty() && self.flushing.is_none());
        if self.reading.is_none() && !self.unread.is_empty() && may_read {
            let batch: Vec<u32> = self.unread.drain(..self.unread.len().min(64)).collect();
            let bytes = batch.len() as u64 * u64::from(self.image.block_bytes());
            self.reading = Some(batch);
            platter.reads += 1;
            later(Platter::span(bytes, platter.plan.read_rate), DiskOp::Read);
        }
        let quiet =
            self.fresh.is_empty() && self.flushing.is_none() && self.unread.is_empty() && self.reading.is_none();
        let body_is_done = self.finish && self.done.is_full() && quiet && self.nothing_to_write() && !self.looking;
        if body_is_done && let Some(scope) = self.look.due() {
            self.looking = true;
            self.look.on_begin(scope);
            let blocks = if scope == Scope::All { self.image.blocks() } else { self.image.blocks().div_ceil(SAMPLE) };
            let bytes = u64::from(blocks) * u64::from(self.image.block_bytes());
            if scope == Scope::All {
                self.events.push_back(DiskEvent::Unverified);
            }
            later(Platter::span(bytes, platter.plan.read_rate), DiskOp::Look(scope));
        } else if body_is_done {
            self.phase = Phase::Finishing;
            later(platter.plan.flush * 2, DiskOp::Finish);
        }
    }

    fn fail(&mut self, reason: Reason) {
        self.events.push_back(DiskEvent::Failed(reason));
        self.phase = Phase::Over;
        self.jobs.clear();
    }

    /// Something that was started is through.
    pub fn on_disk(&mut self, op: DiskOp, platter: &mut Platter, now: Time, queue: &mut Queue) {
        if self.phase == Phase::Over {
            return;
        }
        match op {
            DiskOp::Begin => self.phase = Phase::Body,
            DiskOp::Timer => self.timer = false,
            DiskOp::Write => self.on_written(platter, now),
            DiskOp::Flush => self.on_flushed(platter),
            DiskOp::Read => self.on_read(platter),
            DiskOp::Look(scope) => self.on_looked(scope, platter),
            DiskOp::Finish => {
                platter.bootable = true;
                self.phase = Phase::Over;
                let verified = if self.verify.reads_back() { Verified::Direct } else { Verified::No };
                self.events.push_back(DiskEvent::Ended {
                    verified,
                    written: self.written.count(),
                    last_look: self.look.report(),
                });
            }
        }
        self.step(platter, now, queue);
    }

    fn on_written(&mut self, platter: &mut Platter, now: Time) {
        let Some(job) = self.writing.take() else { return };
        if platter.plan.faults.contains(&DiskFault::Write(platter.writes)) {
            return self.fail(Reason::DiskWrite);
        }
        let block = BlockNo(job.block);
        if job.content != self.image.content(job.block) {
            self.events.push_back(DiskEvent::BadContent(block));
            return;
        }
        let lost = platter.plan.faults.iter().any(|fault| match fault {
            DiskFault::Lost(at) => *at == platter.writes,
            DiskFault::Rotten(rotten) => *rotten == job.block,
            _ => false,
        });
        let due = |fault: &DiskFault| matches!(fault, DiskFault::Misdirected(at) if *at <= platter.writes);
        let misdirect = platter.plan.faults.iter().position(due).zip(self.done.iter().next());
        if let Some((fault, other)) = misdirect {
            platter.plan.faults.remove(fault);
            platter.cache[other.0 as usize] = job.content;
            platter.stable[other.0 as usize] = job.content;
        } else if !lost {
            platter.cache[job.block as usize] = job.content;
        }
        self.written_bytes += u64::from(self.image.block_bytes());
        self.settled.insert(block);
        self.written.insert(block);
        self.fresh.push(job.block);
        self.fresh_bytes += u64::from(self.image.block_bytes());
        self.fresh_since.get_or_insert(now);
        self.events.push_back(DiskEvent::Written(block));
    }

    fn on_flushed(&mut self, platter: &mut Platter) {
        let Some(batch) = self.flushing.take() else { return };
        if platter.plan.faults.contains(&DiskFault::Flush(platter.flushes)) {
            // The kernel drops what it could not write and says so once: a second flush would find nothing wrong.
            platter.cache.clone_from(&platter.stable);
            return self.fail(Reason::DiskFlush);
        }
        for block in &batch {
            platter.stable[*block as usize] = platter.cache[*block as usize];
        }
        self.events.push_back(DiskEvent::Durable(batch.iter().copied().map(BlockNo).collect()));
        if self.verify.reads_back() {
            self.unread.extend(batch);
        } else {
            for block in batch {
                self.done.insert(BlockNo(block));
            }
        }
    }

    fn on_read(&mut self, platter: &mut Platter) {
        let Some(batch) = self.reading.take() else { return };
        if platter.plan.faults.contains(&DiskFault::Read(platter.reads)) {
            return self.fail(Reason::DiskRead);
        }
        let mut equal = Vec::new();
        for block in batch {
            if platter.cache[block as usize] == self.image.content(block) {
                self.done.insert(BlockNo(block));
                equal.push(BlockNo(block));
                continue;
            }
            if !self.on_different(block) {
                return self.fail(Reason::DiskMismatch);
            }
        }
        if !equal.is_empty() {
            self.events.push_back(DiskEvent::Verified(equal));
        }
    }

    /// A block is not what it should be; gives whether it may be written once more.
    fn on_different(&mut self, block: u32) -> bool {
        self.look.on_mismatch();
        if !self.mismatched.insert(block) {
            return false;
        }
        self.settled.remove(BlockNo(block));
        self.done.remove(BlockNo(block));
        if self.image.is_fill(block) {
            self.fills.push_back(block);
        } else {
            self.events.push_back(DiskEvent::Mismatch(BlockNo(block)));
        }
        true
    }

    /// A round of the last look is over.
    fn on_looked(&mut self, scope: Scope, platter: &Platter) {
        self.looking = false;
        let is_right = |block: &u32| platter.cache[*block as usize] == self.image.content(*block);
        let blocks = self.image.blocks();
        match scope {
            Scope::Sample => {
                let looked = (0..blocks).step_by(SAMPLE as usize);
                if !looked.clone().all(|block| is_right(&block)) {
                    self.look.on_mismatch();
                }
                self.look.on_end(scope, blocks.div_ceil(SAMPLE));
            }
            Scope::All => {
                let (right, wrong): (Vec<u32>, Vec<u32>) = (0..blocks).partition(is_right);
                self.events.push_back(DiskEvent::Verified(right.into_iter().map(BlockNo).collect()));
                if self.look.is_hopeless() || !wrong.into_iter().all(|block| self.on_different(block)) {
                    return self.fail(Reason::DiskMismatch);
                }
                self.look.on_end(scope, blocks);
            }
        }
    }
}
