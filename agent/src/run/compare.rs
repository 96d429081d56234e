//! What the target held before: which disks are worth comparing with the manifest, and the parts on their way through the
//! comparison.
//!
//! A disk is worth it when it carries the mark of an unfinished deployment, or when its first MiB is not all zeros. A blank
//! disk, `--fresh` and `--free zero` (which writes all of the disk anyway) compare nothing.

use super::{DiskState, Run};
use crate::disk::Mark;
use crate::sys::AlignedBuf;
use crate::target::{OpenTarget, TargetIo};
use slidecast_image::manifest::Part;
use slidecast_proto::control::Prepare;
use slidecast_proto::reason::{Free, Reason};
use slidecast_proto::units::{BlockNo, PartNo};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much of the disk's front tells whether it is blank, in bytes.
const FRONT: u64 = 1 << 20;
/// How many parts the engine is given at a time.
const AT_ONCE: usize = 2;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Not at all.
    No,
    /// A spread sample of each part first: the disk may hold something else.
    Sampled,
    /// At every block: the disk is marked with this very image.
    All,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Comparison {
    look: Look,
    /// Parts that were taken once.
    seen: BTreeSet<PartNo>,
    waiting: VecDeque<PartNo>,
    /// Parts in the hands of the engine.
    running: VecDeque<PartNo>,
    began: Option<Instant>,
    /// From the first part to the newest answer.
    lasted: Option<Duration>,
    kept: usize,
}

impl Comparison {
    /// Looks at the front of the target.
    pub(super) fn of(target: &OpenTarget, prepare: &Prepare) -> Self {
        let look = if prepare.fresh || prepare.free == Free::Zero { Look::No } else { look(target, prepare) };
        let (seen, waiting, running) = (BTreeSet::new(), VecDeque::new(), VecDeque::new());
        Self { look, seen, waiting, running, began: None, lasted: None, kept: 0 }
    }

    pub(super) fn is_worth_it(&self) -> bool {
        self.look != Look::No
    }

    /// The disk is written from now on, or nothing of it needs to be.
    pub(super) fn end(&mut self) {
        if let Some(lasted) = self.lasted.take() {
            let (kept, seconds) = (self.kept, lasted.as_secs_f32());
            log::info!("compared with the image for {seconds:.1} s: {kept} blocks are on the disk already");
        }
        self.waiting.clear();
        self.running.clear();
        self.look = Look::No;
    }
}

fn look(target: &OpenTarget, prepare: &Prepare) -> Look {
    let len = FRONT.min(target.facts().bytes);
    let read = || -> std::io::Result<Look> {
        let len = usize::try_from(len).map_err(std::io::Error::other)?;
        let mut front = AlignedBuf::new(len).map_err(std::io::Error::other)?;
        target.read(0, &mut front)?;
        Ok(match Mark::parse(&front) {
            Some(mark) if mark.root == prepare.root => Look::All,
            _ if front.iter().any(|byte| *byte != 0) => Look::Sampled,
            _ => Look::No,
        })
    };
    // A disk that can't be read is found out by the engine, which names the operation.
    read().unwrap_or(Look::No)
}

impl Run {
    /// A part came in the pass that compares, and was checked.
    pub(super) fn take_to_compare(&mut self, no: PartNo) {
        let engine = matches!(self.disk, DiskState::Engine(_)) && !self.begun;
        let compares = engine && self.comparison.look != Look::No && self.comparison.seen.insert(no);
        self.node.on_part_to_compare(no, compares);
        if compares {
            self.comparison.began.get_or_insert_with(Instant::now);
            self.comparison.waiting.push_back(no);
            self.compare_more();
        }
    }

    /// Hands the next parts to the engine. They are unpacked late: packed they take less memory while they wait.
    fn compare_more(&mut self) {
        while self.comparison.running.len() < AT_ONCE
            && let Some(no) = self.comparison.waiting.pop_front()
        {
            let header = self.parts.as_ref().map(crate::parts::Parts::header);
            let bytes = self.node.part_bytes(no);
            let part = header.zip(bytes).and_then(|(header, bytes)| Part::parse(header, no, &bytes).ok());
            match (part, &self.disk) {
                (Some(part), DiskState::Engine(engine)) => {
                    self.comparison.running.push_back(no);
                    engine.compare(Arc::new(part), self.comparison.look == Look::Sampled);
                }
                // It was checked when it came.
                _ => self.node.on_disk_failed(Reason::Internal, &format!("part {no} was lost before it was compared")),
            }
        }
    }

    /// The engine has compared the part that begins with `first`.
    pub(super) fn on_compared(&mut self, first: BlockNo, same: &[BlockNo]) {
        let Some(no) = self.parts.as_ref().map(|parts| parts.header().part_of(first)) else { return };
        if self.begun || self.comparison.running.pop_front() != Some(no) {
            return;
        }
        self.comparison.kept += same.len();
        self.settle(same);
        self.node.on_compared(no, same);
        self.comparison.lasted = self.comparison.began.map(|began| began.elapsed());
        self.compare_more();
    }

    /// The disk is gone: what waits to be compared is let go, so that it holds up nobody.
    pub(super) fn compare_nothing(&mut self) {
        let open: Vec<PartNo> = self.comparison.running.drain(..).chain(self.comparison.waiting.drain(..)).collect();
        open.into_iter().for_each(|no| self.node.on_compared(no, &[]));
    }
}
