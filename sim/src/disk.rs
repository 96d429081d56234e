//! A virtual disk: its bytes, its speed, and what is wrong with it. What was written is in the disk's own cache until a flush; a power cut loses it.

use crate::engine::Part;
use crate::image::{Content, Image, OLD};
use crate::rng::spread;
use slidecast_proto::reason::Reason;
use slidecast_proto::schedule::{Area, Control, Front, HeadStep, Written};
use slidecast_proto::units::BlockNo;
use std::time::Duration;

/// What a fill costs, for which the disk makes zeros by itself, and an access to the head.
const SMALL_BYTES: u64 = 4096;
/// How fast a disk is, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskPlan {
    /// How long it takes to open.
    pub(crate) open: Duration,
    /// Bytes per second.
    pub(crate) write_rate: u64,
    pub(crate) read_rate: u64,
    /// How long a flush takes.
    pub(crate) flush: Duration,
    /// Reads in a pass of its own, when all is written.
    pub(crate) rotational: bool,
    /// What stands on it before it is written.
    pub(crate) old: Old,
    /// What is wrong with it.
    pub(crate) faults: Vec<DiskFault>,
}

/// What a disk held before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Old {
    #[default]
    Blank,
    Other,
    /// So many in a hundred of the image's blocks; and its head, if that is said and all are there.
    Image {
        percent: u32,
        salt: u32,
        /// Whether the head of the image stands over it.
        head: bool,
    },
}

impl Old {
    /// Whether it has this block of the image.
    pub(crate) fn holds(self, block: u32) -> bool {
        match self {
            Self::Image { percent, salt, .. } => {
                spread(u64::from(salt) << 32 | u64::from(block)) % 100 < u64::from(percent)
            }
            Self::Blank | Self::Other => false,
        }
    }

    fn has_head(self) -> bool {
        matches!(self, Self::Image { percent: 100, head: true, .. })
    }
}

/// Something that goes wrong on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFault {
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

/// What stands in an area outside of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// What the disk was before.
    Old,
    /// The mark in sector 0, zeros elsewhere.
    Wiped,
    /// What the image has there.
    New,
}

/// Sector 0, the rest of the head, and the backup table.
type Head = [Held; 3];

#[derive(Debug)]
pub(crate) struct Platter {
    /// What a read gives: the disk's cache.
    cache: Vec<Content>,
    /// What a power cut leaves.
    stable: Vec<Content>,
    /// The head in the cache, and what a power cut leaves of it.
    head: [Head; 2],
    /// A power cut now could leave a disk that looks complete and is not.
    pub(crate) violation: Option<&'static str>,
    writes: u32,
    flushes: u32,
    reads: u32,
    plan: DiskPlan,
}

impl Platter {
    /// A disk with something old on it.
    pub(crate) fn new(image: &Image, plan: DiskPlan) -> Self {
        let content = |block| if plan.old.holds(block) { image.content(block) } else { OLD };
        let old: Vec<Content> = (0..image.blocks()).map(content).collect();
        let head = [[if plan.old.has_head() { Held::New } else { Held::Old }; 3]; 2];
        Self { cache: old.clone(), stable: old, head, violation: None, writes: 0, flushes: 0, reads: 0, plan }
    }

    /// What stands for sure on the place of `block`.
    pub(crate) fn stable(&self, block: u32) -> Content {
        self.stable.get(block as usize).copied().unwrap_or(OLD)
    }

    /// How long it takes to open.
    pub(crate) fn opens_in(&self) -> Duration {
        self.plan.open
    }

    /// What stands at its front.
    pub(crate) fn front(&self) -> Front {
        match self.head[0][0] {
            Held::Wiped => Front::Marked,
            Held::Old if self.plan.old == Old::Blank => Front::Blank,
            Held::Old | Held::New => Front::Other,
        }
    }

    /// Another image is to be written: all that the disk holds is something else.
    pub(crate) fn expect_another(&mut self) {
        self.plan.old = Old::Other;
        self.head = [[Held::Old; 3]; 2];
    }

    /// Whether the head of a complete image stands there for sure.
    pub(crate) fn bootable(&self) -> bool {
        self.head[1] == [Held::New; 3]
    }

    pub(crate) fn power_cut(&mut self) {
        self.cache.clone_from(&self.stable);
        self.head[0] = self.head[1];
    }

    /// What must hold when a write begins, of which a power cut may leave all or nothing. A disk that lies keeps no promise.
    fn check(&mut self, holds: bool, what: &'static str) {
        let lies =
            |fault: &DiskFault| matches!(fault, DiskFault::Lost(_) | DiskFault::Misdirected(_) | DiskFault::Rotten(_));
        if !holds && !self.plan.faults.iter().any(lies) {
            self.violation.get_or_insert(what);
        }
    }

    /// Whether it has heads to move.
    pub(crate) fn rotational(&self) -> bool {
        self.plan.rotational
    }

    /// A write of the body begins: how long it takes.
    pub(crate) fn begin_write(&mut self, is_fill: bool, block_bytes: u32) -> Duration {
        self.writes += 1;
        self.check(self.head[1] == [Held::Wiped; 3], "a block is written before the head is wiped for sure");
        let bytes = if is_fill { SMALL_BYTES } else { block_bytes.into() };
        Self::span(bytes, self.plan.write_rate) + self.stuck()
    }

    /// A read of the body begins: how long it takes.
    pub(crate) fn begin_read(&mut self, block_bytes: u32) -> Duration {
        self.reads += 1;
        Self::span(block_bytes.into(), self.plan.read_rate)
    }

    /// What a read finds on the place of `block`.
    pub(crate) fn read(&self, block: BlockNo) -> Result<Content, Reason> {
        let fails = self.plan.faults.contains(&DiskFault::Read(self.reads));
        let found = self.cache.get(block.0 as usize).copied().unwrap_or(OLD);
        if fails { Err(Reason::DiskRead) } else { Ok(found) }
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
    pub(crate) fn begin(&mut self, control: &Control<Part>, image: &Image) -> Duration {
        match control {
            Control::Flush(_) | Control::Head(HeadStep::Flush) => {
                self.flushes += 1;
                self.plan.flush
            }
            Control::Head(HeadStep::Mark | HeadStep::Wipe | HeadStep::Write(_)) => {
                if let Control::Head(HeadStep::Write(area)) = control {
                    self.check_head(*area, image);
                }
                self.writes += 1;
                Self::span(SMALL_BYTES, self.plan.write_rate) + self.stuck()
            }
            Control::Head(HeadStep::Forget | HeadStep::Fit | HeadStep::Discard | HeadStep::ClearUnused) => {
                Duration::ZERO
            }
            Control::Head(_) => {
                self.reads += 1;
                Self::span(SMALL_BYTES, self.plan.read_rate)
            }
            Control::End | Control::Wait(_) | Control::Exit => Duration::ZERO,
        }
    }

    /// A table may stand only over a body that is durable, and sector 0 only over both.
    fn check_head(&mut self, area: Area, image: &Image) {
        let whole = (0..image.blocks()).all(|block| self.stable(block) == image.content(block));
        self.check(whole, "a table is written before every block is durable");
        let tables = self.head[1][1..] == [Held::New; 2];
        self.check(tables || area != Area::SectorZero, "sector 0 is written before the tables are durable");
    }

    /// The control thread is through with a step: the answer.
    pub(crate) fn step(&mut self, step: HeadStep) -> Result<bool, Reason> {
        let lost = self.plan.faults.contains(&DiskFault::Lost(self.writes));
        let [cache, stable] = &mut self.head;
        match step {
            HeadStep::Mark | HeadStep::Wipe | HeadStep::Write(_) => {
                if self.plan.faults.contains(&DiskFault::Write(self.writes)) {
                    return Err(Reason::DiskWrite);
                }
                match step {
                    _ if lost => {}
                    HeadStep::Mark => cache[0] = Held::Wiped,
                    HeadStep::Write(area) => cache[index(area)] = Held::New,
                    _ => cache[1..].fill(Held::Wiped),
                }
            }
            HeadStep::Flush if self.plan.faults.contains(&DiskFault::Flush(self.flushes)) => {
                self.power_cut();
                return Err(Reason::DiskFlush);
            }
            HeadStep::Flush => {
                *stable = *cache;
                self.stable.clone_from(&self.cache);
            }
            _ if self.plan.faults.contains(&DiskFault::Read(self.reads)) => return Err(Reason::DiskRead),
            HeadStep::IsWiped => return Ok(cache[1..] == [Held::Wiped; 2]),
            HeadStep::IsUntouched => return Ok(*cache == [Held::Wiped; 3]),
            HeadStep::Stands => return Ok(*cache == [Held::New; 3]),
            HeadStep::Prove(area) if cache[index(area)] != Held::New => return Err(Reason::DiskMismatch),
            HeadStep::Prove(_) | HeadStep::Probe | HeadStep::Forget | HeadStep::Fit => {}
            HeadStep::Discard | HeadStep::ClearUnused => {}
        }
        Ok(true)
    }

    /// A write is through. A misdirected one lands on the place of `proven`.
    pub(crate) fn write(&mut self, block: BlockNo, content: Content, proven: Option<BlockNo>) -> Result<(), Reason> {
        if self.plan.faults.contains(&DiskFault::Write(self.writes)) {
            return Err(Reason::DiskWrite);
        }
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
        Ok(())
    }

    /// A flush that covers these blocks is through.
    pub(crate) fn flush(&mut self, batch: &[Written<Part>]) -> Result<(), Reason> {
        if self.plan.faults.contains(&DiskFault::Flush(self.flushes)) {
            // The kernel drops what it could not write and says so once: a second flush would find nothing wrong.
            self.power_cut();
            return Err(Reason::DiskFlush);
        }
        batch.iter().map(|written| written.block.0 as usize).for_each(|at| self.stable[at] = self.cache[at]);
        Ok(())
    }

    fn span(bytes: u64, rate: u64) -> Duration {
        Duration::from_micros(bytes * 1_000_000 / rate.max(1))
    }
}

/// Where an area stands in [`Head`]. Nothing lies behind the image here.
fn index(area: Area) -> usize {
    match area {
        Area::SectorZero => 0,
        Area::Head | Area::Behind => 1,
        Area::Backup => 2,
    }
}
