//! What the target held before: its front, and what is told of the comparison. What is compared and when is decided by
//! `slidecast_proto::schedule`.

use crate::disk::Mark;
use crate::sys::AlignedBuf;
use crate::target::{OpenTarget, TargetIo};
use slidecast_proto::schedule::Front;
use slidecast_proto::units::Hash;
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
    /// A part is compared.
    pub(super) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// A part was compared, and so many of its blocks are there.
    pub(super) fn on_part(&mut self, kept: usize) {
        self.kept += kept;
        self.lasted = self.began.map(|began| began.elapsed());
    }

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
