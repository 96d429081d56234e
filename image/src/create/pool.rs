//! The workers: as many threads as there are cores, which look at chunks and pack blocks.
//!
//! Whoever hands over work gets a slot that its result appears in; taking the slots in order gives the results in order,
//! however they were worked on. Packing goes before looking, so that what is finished soonest leaves memory soonest.

use super::grain::{Grain, look};
use crate::codec::{Codec, Encoder};
use slidecast_proto::units::Hash;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A chunk of the source and what its grains are.
pub(super) struct Looked {
    pub(super) bytes: Vec<u8>,
    pub(super) grains: Vec<Grain>,
}

/// A block, packed.
pub(super) struct Packed {
    pub(super) codec: Codec,
    pub(super) raw_len: usize,
    pub(super) hash: Hash,
    pub(super) crc: u32,
    pub(super) payload: Vec<u8>,
}

#[derive(Default)]
struct Queues {
    packs: VecDeque<(Vec<u8>, SyncSender<Packed>)>,
    looks: VecDeque<(Vec<u8>, SyncSender<Looked>)>,
    closed: bool,
}

/// Work for the workers, and buffers that were used before.
pub(super) struct Pool {
    queues: Mutex<Queues>,
    changed: Condvar,
    buffers: Mutex<Vec<Vec<u8>>>,
    kept: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool that keeps at most `kept` buffers.
    pub(super) fn new(kept: usize) -> Self {
        Self { queues: Mutex::default(), changed: Condvar::new(), buffers: Mutex::default(), kept }
    }

    /// Hands over a block.
    pub(super) fn pack(&self, raw: Vec<u8>) -> Receiver<Packed> {
        let (slot, result) = sync_channel(1);
        lock(&self.queues).packs.push_back((raw, slot));
        self.changed.notify_one();
        result
    }

    /// Hands over a chunk.
    pub(super) fn look(&self, chunk: Vec<u8>) -> Receiver<Looked> {
        let (slot, result) = sync_channel(1);
        lock(&self.queues).looks.push_back((chunk, slot));
        self.changed.notify_one();
        result
    }

    /// No more work comes: workers end when the queues are empty.
    pub(super) fn close(&self) {
        lock(&self.queues).closed = true;
        self.changed.notify_all();
    }

    /// An empty buffer with room for `len` bytes.
    pub(super) fn buffer(&self, len: usize) -> Vec<u8> {
        let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve(len);
        buffer
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut buffers = lock(&self.buffers);
        if buffers.len() < self.kept {
            buffers.push(buffer);
        }
    }

    /// Works until the pool is closed and empty. A result that nobody waits for any more is dropped.
    pub(super) fn work(&self, mut encoder: Encoder, grain: usize) {
        let mut queues = lock(&self.queues);
        loop {
            if let Some((raw, slot)) = queues.packs.pop_front() {
                drop(queues);
                let _ = slot.send(self.pack_one(&mut encoder, raw));
            } else if let Some((bytes, slot)) = queues.looks.pop_front() {
                drop(queues);
                let mut grains = Vec::with_capacity(bytes.len() / grain);
                look(&bytes, grain, &mut grains);
                let _ = slot.send(Looked { bytes, grains });
            } else if queues.closed {
                return;
            } else {
                queues = self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queues = lock(&self.queues);
        }
    }

    fn pack_one(&self, encoder: &mut Encoder, raw: Vec<u8>) -> Packed {
        let (hash, raw_len) = (Hash::of(&raw), raw.len());
        let (codec, packed) = encoder.encode(&raw);
        let crc = crc32fast::hash(packed);
        let payload = if codec == Codec::Stored {
            raw
        } else {
            let mut payload = self.buffer(packed.len());
            payload.extend_from_slice(packed);
            self.give_back(raw);
            payload
        };
        Packed { codec, raw_len, hash, crc, payload }
    }
}
