//! Writers: unpack a block, check it against the manifest, write it to all its places.

use super::fault::{Fault, Object};
use super::fill::{self, Pattern};
use super::job::BlockJob;
use super::runs::{Run, gather, plan};
use super::shared::Shared;
use super::window::Sweep;
use crate::sys::AlignedBuf;
use slidecast_image::codec::{Codec, Decoder};
use slidecast_image::manifest::{BlockInfo, Content, Part};
use slidecast_proto::schedule::{FillWork, Write, Written};
use slidecast_proto::units::Hash;
use std::io::IoSlice;

/// One writer: its memory and what it uses again for every block.
#[derive(Debug)]
pub(super) struct Writer {
    decoder: Decoder,
    /// One unpacked block. Empty where blocks are unpacked into the sort window.
    raw: AlignedBuf,
    pattern: Pattern,
    runs: Vec<Run>,
}

impl Writer {
    pub(super) fn new(shared: &Shared) -> Result<Self, Fault> {
        let raw = if shared.window.is_some() { 0 } else { shared.header.block as usize };
        Ok(Self { decoder: Decoder::new(), raw: AlignedBuf::new(raw)?, pattern: Pattern::new()?, runs: Vec::new() })
    }

    pub(super) fn run(mut self, shared: &Shared) {
        while let Some(write) = shared.next_write() {
            let done = match write {
                Write::Block(job) => self.block(shared, job),
                Write::Fill(work) => self.fill(shared, work),
            };
            if let Err(fault) = done {
                shared.fail(&fault);
            }
        }
    }

    fn block(&mut self, shared: &Shared, job: BlockJob) -> Result<(), Fault> {
        let block = job.block;
        let expected = job.part.block(block).and_then(|info| Expected::of(info, shared, &job));
        let Some((info, expected)) = job.part.block(block).zip(expected) else {
            shared.with(|schedule| schedule.on_bad_content(block));
            return Ok(());
        };
        match &shared.window {
            None => {
                let Some(data) = unpack(&mut self.decoder, &job, expected, &mut self.raw) else {
                    shared.with(|schedule| schedule.on_bad_content(block));
                    return Ok(());
                };
                plan_with_shadow(shared, &info, data, &mut self.runs);
                let write = |at, pieces: &mut [IoSlice<'_>]| shared.io.write(at, pieces);
                let object = Object::Block(block);
                gather(&self.runs, data, write, |at, source| Fault::Write { object, at, source })?;
                let bytes = self.count(shared);
                let BlockJob { part, payload, .. } = job;
                // The ring has its space back before anybody hears of the block.
                drop(payload);
                shared.with(|schedule| schedule.on_written(Written { block, part }, bytes, shared.now()));
            }
            Some(window) => {
                let Some(mut tray) = window.tray() else { return Ok(()) };
                let Some(data) = unpack_into(&mut self.decoder, &job, expected, tray.memory()) else {
                    window.put_back(tray);
                    shared.with(|schedule| schedule.on_bad_content(block));
                    return Ok(());
                };
                plan_with_shadow(shared, &info, data, &mut self.runs);
                let bytes = self.count(shared);
                let BlockJob { part, payload, .. } = job;
                drop(payload);
                let written = Written { block, part };
                if self.runs.is_empty() {
                    window.put_back(tray);
                    shared.with(|schedule| schedule.on_written(written, bytes, shared.now()));
                } else {
                    window.put(tray, written, &self.runs, bytes);
                }
            }
        }
        Ok(())
    }

    fn count(&self, shared: &Shared) -> u64 {
        let bytes = self.runs.iter().map(|run| run.len as u64).sum();
        shared.written_bytes.fetch_add(bytes, core::sync::atomic::Ordering::Relaxed);
        bytes
    }

    fn fill(&mut self, shared: &Shared, mut work: FillWork<Part>) -> Result<(), Fault> {
        let Some(Content::Fill { pattern }) = work.part.block(work.block).map(|info| info.content) else {
            return Ok(());
        };
        while !fill::step(&mut work, shared, pattern, &mut self.pattern)? {
            // Blocks hold the ring, fills hold nothing.
            if shared.schedule().jobs_wait() {
                shared.with(|schedule| schedule.on_fill_paused(work));
                return Ok(());
            }
        }
        let (bytes, written) = (work.reached.bytes, Written { block: work.block, part: work.part });
        shared.with(|schedule| schedule.on_written(written, bytes, shared.now()));
        Ok(())
    }
}

/// What a payload has to unpack to.
#[derive(Clone, Copy)]
struct Expected<'a> {
    len: usize,
    hash: Hash,
    /// What must be read back from the disk, where only some grains of the block are live, and the block it is of. A
    /// manifest in which it is wrong would else look like a disk that loses what is written to it.
    live: Option<(Hash, BlockInfo<'a>)>,
    grain: usize,
}

impl<'a> Expected<'a> {
    fn of(info: BlockInfo<'a>, shared: &Shared, job: &BlockJob) -> Option<Self> {
        let Content::Stored { grains, hash, live } = info.content else { return None };
        let len = grains.checked_mul(shared.header.grain)?;
        let live = (live != hash).then_some((live, info));
        let grain = shared.header.grain as usize;
        (len == job.raw_len).then_some(Self { len: len as usize, hash, live, grain })
    }

    /// Whether `raw`, which has the right length, is the block.
    fn is(&self, raw: &[u8]) -> bool {
        Hash::of(raw) == self.hash
            && self.live.as_ref().is_none_or(|(live, info)| {
                let mut hasher = blake3::Hasher::new();
                for run in info.live_runs() {
                    hasher.update(&raw[run.start as usize * self.grain..run.end as usize * self.grain]);
                }
                *hasher.finalize().as_bytes() == live.0
            })
    }
}

/// The unpacked block, if it is what the manifest says: the payload itself when it isn't packed, else in `raw`.
fn unpack<'a>(decoder: &mut Decoder, job: &'a BlockJob, expected: Expected<'_>, raw: &'a mut [u8]) -> Option<&'a [u8]> {
    if job.codec == Codec::Stored {
        let payload = &job.payload[..];
        return (payload.len() == expected.len && expected.is(payload)).then_some(payload);
    }
    unpack_into(decoder, job, expected, raw)
}

fn unpack_into<'a>(
    decoder: &mut Decoder,
    job: &BlockJob,
    expected: Expected<'_>,
    raw: &'a mut [u8],
) -> Option<&'a [u8]> {
    let raw = raw.get_mut(..expected.len)?;
    decoder.decode(job.codec, &job.payload, raw).ok()?;
    expected.is(raw).then_some(raw)
}

fn plan_with_shadow(shared: &Shared, info: &BlockInfo<'_>, data: &[u8], runs: &mut Vec<Run>) {
    plan(&shared.layout, info.places, runs, |disk, block| {
        shared.shadow().at(&disk).copy_from_slice(&data[block]);
    });
}

/// The thread that empties the sort window.
pub(super) fn write_window(shared: &Shared) {
    let Some(window) = &shared.window else { return };
    while let Some(sweep) = window.next() {
        if let Err(fault) = write_sweep(shared, &sweep) {
            return shared.fail(&fault);
        }
        for (written, bytes) in window.done(sweep) {
            shared.with(|schedule| schedule.on_written(written, bytes, shared.now()));
        }
    }
}

fn write_sweep(shared: &Shared, sweep: &Sweep) -> Result<(), Fault> {
    let mut pieces = [IoSlice::new(&[]); super::window::BATCH];
    for (piece, (memory, run)) in pieces.iter_mut().zip(&sweep.runs) {
        *piece = IoSlice::new(&memory[run.source..run.source + run.len]);
    }
    let object = Object::Block(sweep.first);
    let written = shared.io.write(sweep.target, &mut pieces[..sweep.runs.len()]);
    written.map_err(|source| Fault::Write { object, at: sweep.target, source })
}
