//! What the engine is given: how it is to work, and the blocks to write.

use crate::random::random_bytes;
use crate::ring::Span;
use core::time::Duration;
use slidecast_image::codec::Codec;
use slidecast_image::manifest::{ManifestHeader, Part};
use slidecast_proto::reason::{Free, Verify};
use slidecast_proto::units::{BlockNo, DeploymentId};
use std::sync::Arc;
use std::thread;

/// Packed parts that are kept to read all again, at least: for about 300 GB of data in blocks of 1 MiB.
const MIN_LEDGER: usize = 16 << 20;
/// The same at most: for about 4.8 TB.
const MAX_LEDGER: usize = 256 << 20;
/// The least where all is read twice in any case.
const LEDGER_TWICE: usize = 128 << 20;
/// Packed parts may take this part of the memory that the node can spare.
const LEDGER_SHARE: u64 = 16;

/// How the engine is to work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineOptions {
    /// Named in the mark.
    pub(crate) deployment: DeploymentId,
    /// What is read back.
    pub(crate) verify: Verify,
    /// What becomes of space that the image says nothing of.
    pub(crate) free: Free,
    /// Threads that unpack and write, at most.
    pub(crate) writers: usize,
    /// Threads that read back, at most.
    pub(crate) readers: usize,
    /// Threads that compare before the first write, at most; on a disk with heads there is one.
    pub(crate) hashers: usize,
    /// Flush after so many bytes ...
    pub(crate) flush_bytes: u64,
    /// ... or so long after the first unflushed write.
    pub(crate) flush_after: Duration,
    /// Drawn at random for each run: which blocks the last look takes, and what the probe of the disk writes.
    pub(crate) seed: u64,
    /// How much memory packed parts may take that are kept to read all again.
    pub(crate) ledger_bytes: usize,
}

impl EngineOptions {
    /// The usual values: as many writers as processors, up to four; a flush every 256 MiB or 2 s.
    #[must_use]
    pub(crate) fn new(deployment: DeploymentId, verify: Verify, free: Free) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            deployment,
            verify,
            free,
            writers: processors.clamp(1, 4),
            readers: if processors > 2 { 2 } else { 1 },
            hashers: processors.clamp(1, 8),
            flush_bytes: 256 << 20,
            flush_after: Duration::from_secs(2),
            seed: random_bytes().map_or(0, u64::from_le_bytes),
            ledger_bytes: if verify == Verify::Twice { LEDGER_TWICE } else { MIN_LEDGER },
        }
    }

    /// The same on a node that has so much memory to spare: more of the manifest is kept where there is room.
    #[must_use]
    pub(crate) fn with_memory(self, available: u64) -> Self {
        let share = usize::try_from(available / LEDGER_SHARE).unwrap_or(MAX_LEDGER).min(MAX_LEDGER);
        Self { ledger_bytes: self.ledger_bytes.max(share), ..self }
    }

    /// Writers, readers, and those who compare. Large blocks leave room for fewer threads.
    pub(super) fn threads(&self, header: &ManifestHeader, rotational: bool) -> (usize, usize, usize) {
        let large = header.block > 4 << 20;
        let (writers, readers) =
            if large { (self.writers.clamp(1, 2), 1) } else { (self.writers.max(1), self.readers.max(1)) };
        let room = usize::try_from((16 << 20) / header.block.max(1)).unwrap_or(1).max(1);
        let hashers = if rotational { 1 } else { self.hashers.clamp(1, room) };
        (writers, readers, hashers)
    }
}

/// A received block to be written.
#[derive(Clone, Debug)]
pub(crate) struct BlockJob {
    pub(crate) block: BlockNo,
    /// How the payload is packed.
    pub(crate) codec: Codec,
    /// How long the block is unpacked, in bytes.
    pub(crate) raw_len: u32,
    /// The payload, in the ring. Dropped as soon as it isn't needed.
    pub(crate) payload: Span,
    /// The part that the block is in.
    pub(crate) part: Arc<Part>,
}
