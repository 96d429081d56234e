//! What the target held before: its front, and the parts on their way through the comparison. What is compared and when is decided
//! by `slidecast_proto::schedule`.

use super::{DiskState, Run};
use crate::disk::Mark;
use crate::sys::AlignedBuf;
use crate::target::{OpenTarget, TargetIo};
use slidecast_image::manifest::Part;
use slidecast_proto::reason::Reason;
use slidecast_proto::schedule::Front;
use slidecast_proto::units::{BlockNo, Hash, PartNo};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much of the disk's front tells whether it is blank, in bytes.
const FRONT: u64 = 1 << 20;

/// How long the comparison took and what came of it, for the log.
#[derive(Debug, Default)]
pub(super) struct Compared {
    began: Option<Instant>,
    /// From the first part to the newest answer.
    lasted: Option<Duration>,
    kept: usize,
}

impl Compared {
    /// Nothing more is compared.
    pub(super) fn end(&mut self) {
        if let Some(lasted) = self.lasted.take() {
            let (kept, seconds) = (self.kept, lasted.as_secs_f32());
            log::info!("compared with the image for {seconds:.1} s: {kept} blocks are on the disk already");
        }
    }
}

/// What stands at the front of the target, on which the image with this root is to be written.
pub(super) fn front(target: &OpenTarget, root: Hash) -> Front {
    let len = FRONT.min(target.facts().bytes);
    let read = || -> std::io::Result<Front> {
        let len = usize::try_from(len).map_err(std::io::Error::other)?;
        let mut front = AlignedBuf::new(len).map_err(std::io::Error::other)?;
        target.read(0, &mut front)?;
        Ok(match Mark::parse(&front) {
            Some(mark) if mark.root == root => Front::Marked,
            _ if front.iter().any(|byte| *byte != 0) => Front::Other,
            _ => Front::Blank,
        })
    };
    // A disk that can't be read is found out by the engine, which names the operation.
    read().unwrap_or(Front::Blank)
}

impl Run {
    /// A part came in the pass that compares, and was checked.
    pub(super) fn take_to_compare(&mut self, no: PartNo) {
        let compares = self.comparing.on_part(no, matches!(self.disk, DiskState::Engine(_)));
        self.node.on_part_to_compare(no, compares);
        if compares {
            self.compared.began.get_or_insert_with(Instant::now);
            self.compare_more();
        }
    }

    /// Hands the next parts to the engine.
    fn compare_more(&mut self) {
        while let Some(no) = self.comparing.poll() {
            let header = self.parts.as_ref().map(crate::parts::Parts::header);
            let bytes = self.node.part_bytes(no);
            let part = header.zip(bytes).and_then(|(header, bytes)| Part::parse(header, no, &bytes).ok());
            match (part, &self.disk) {
                (Some(part), DiskState::Engine(engine)) => {
                    engine.compare(Arc::new(part), self.comparing.is_sampled());
                }
                // It was checked when it came.
                _ => {
                    self.node.on_disk_failed(Reason::Internal, &format!("part {no} was lost before it was compared"));
                    return self.compare_nothing();
                }
            }
        }
    }

    /// The engine has compared the part that begins with `first`.
    pub(super) fn on_compared(&mut self, first: BlockNo, same: &[BlockNo]) {
        let Some(no) = self.parts.as_ref().map(|parts| parts.header().part_of(first)) else { return };
        if !self.comparing.on_compared(no) {
            return;
        }
        self.compared.kept += same.len();
        self.settle(same);
        self.node.on_compared(no, same);
        self.compared.lasted = self.compared.began.map(|began| began.elapsed());
        self.compare_more();
    }

    /// The disk is gone: what waits to be compared is let go, so that it holds up nobody.
    pub(super) fn compare_nothing(&mut self) {
        self.comparing.on_disk_gone().for_each(|no| self.node.on_compared(no, &[]));
    }
}
