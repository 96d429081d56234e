//! The control thread: begin, flush, finish. The order of writes and flushes here is what keeps a disk from ever looking complete
//! before it is.
//!
//! 1. the mark replaces sector 0; flush
//! 2. the rest of the head and the backup table are zeroed; flush
//! 3. the disk is probed: marks at its end and at powers of two are written, read back, and what stood there is put back
//! 4. body: written, flushed and read back by the other threads; nothing of it is written before 3 is done
//! 5. the last look: head and backup table must still be as 1 and 2 left them; some blocks or all are read once more
//! 6. zeros over old signatures behind the image on a larger disk; flush; read back
//! 7. backup table, then the head except sector 0; flush; read back
//! 8. sector 0; flush; read back
//!
//! A power cut before 1 is flushed leaves the disk as it was; from then until 8 it has the mark and no boot signature; and after 2
//! neither a partition table in front nor one at the end until all of the body is proven.

use super::behind;
use super::fault::{Fault, Object};
use super::fill::{Pattern, fill};
use super::mark::Mark;
use super::probe::probe;
use super::shared::{Schedule, Shared};
use crate::sys::AlignedBuf;
use core::ops::Range;
use slidecast_image::fit::Outcome;
use slidecast_proto::reason::{Free, Verified, Verify};
use slidecast_proto::schedule::Control;
use std::io::IoSlice;
use std::time::Instant;

/// Unused space is zeroed and discarded in pieces, to notice an abort.
const PIECE: u64 = 256 << 20;

/// The thread's loop.
pub(super) fn run(shared: &Shared, mut pattern: Pattern) {
    let mut look_since = None;
    while let Some(step) = shared.next_control() {
        let done = match step {
            Control::Begin => begin(shared),
            Control::Flush(batch) => shared.flush().map(|()| {
                shared.io.drop_cache();
                shared.with(|schedule| schedule.on_flushed(batch));
            }),
            Control::Settle => clear_unused(shared, &mut pattern).and_then(|()| {
                look_since.get_or_insert_with(Instant::now);
                settle(shared)
            }),
            Control::Finish { begun } => {
                if let Some(since) = look_since.take() {
                    log::info!("the last look at {} took {:.3} s", shared.path(), since.elapsed().as_secs_f64());
                }
                finish(shared, begun, &mut pattern)
            }
            Control::Wait(_) | Control::Exit => Ok(()),
        };
        if let Err(fault) = done {
            shared.fail(&fault);
        }
    }
}

/// Steps 1 to 3.
fn begin(shared: &Shared) -> Result<(), Fault> {
    wipe(shared)?;
    // A wipe that landed elsewhere destroyed something there, perhaps of a block that is kept.
    let wiped = is_wiped(shared)?;
    if !wiped {
        log::warn!("the head of {} is not what was written; it is written again", shared.path());
        wipe(shared)?;
        if !is_wiped(shared)? {
            return Err(Fault::Mismatch { object: Object::Head, at: 0 });
        }
    }
    if !(probe(shared)? && wiped) {
        shared.with(|schedule| schedule.on_doubt());
    }
    shared.shadow().forget_rest();
    // Kept blocks would be lost with a discard; nothing of the image stands on the disk otherwise.
    if shared.options.free == Free::Discard && !shared.schedule().keeps_blocks() {
        discard(shared);
    }
    shared.with(|schedule| schedule.on_begun());
    Ok(())
}

fn wipe(shared: &Shared) -> Result<(), Fault> {
    let layout = &shared.layout;
    let has = shared.io.bytes_now().map_err(|source| Fault::Size { source })?;
    if has != layout.target_bytes {
        return Err(Fault::Changed { had: layout.target_bytes, has });
    }
    let sector = usize::try_from(layout.sector).unwrap_or(512);
    let mut memory = AlignedBuf::new(sector)?;
    let (root, deployment) = (shared.root, shared.options.deployment);
    Mark { deployment, root, disk_bytes: layout.disk_bytes, target_bytes: has }.encode(&mut memory);
    shared.write(Object::Mark, 0, &mut [IoSlice::new(&memory)])?;
    shared.flush()?;
    let mut zeros = Pattern::new()?;
    for (object, range) in [(Object::Head, layout.sector..layout.head), (Object::Backup, layout.backup.clone())] {
        fill(shared, object, range, 0, true, &mut zeros)?;
    }
    shared.flush()
}

/// Whether head and backup table read as zeros behind the mark. A regular file is no disk that could put writes elsewhere.
fn is_wiped(shared: &Shared) -> Result<bool, Fault> {
    if shared.io.facts().file {
        return Ok(true);
    }
    shared.io.drop_cache();
    let layout = &shared.layout;
    for (object, range) in [(Object::Head, layout.sector..layout.head), (Object::Backup, layout.backup.clone())] {
        if behind::first_nonzero(shared, object, range)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn discard(shared: &Shared) {
    for range in shared.layout.body().flat_map(pieces) {
        if shared.is_over() {
            return;
        }
        match shared.io.discard(range.start, range.end - range.start) {
            Ok(true) => {}
            Ok(false) => return log::info!("{} has no discard", shared.path()),
            Err(error) => return log::warn!("discarding at {} on {}: {error}", range.start, shared.path()),
        }
    }
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    (range.start..end).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX)).map(move |at| at..(at + PIECE).min(end))
}

/// Before the last look: nothing is written behind its back.
fn settle(shared: &Shared) -> Result<(), Fault> {
    shared.flush()?;
    shared.io.drop_cache();
    // Nothing was written to head and backup table since they were wiped. If something stands there, a block landed where it does
    // not belong, or the disk wraps and the head would land on a block. Wiped again, in the second case they destroy that
    // block before everything is read once more: it cannot come to an end.
    if shared.options.verify.reads_back() && !(is_wiped(shared)? && is_marked(shared)?) {
        log::warn!("the head or the end of {} is not as it was left, so that all is read again", shared.path());
        wipe(shared)?;
        shared.io.drop_cache();
        shared.with(|schedule| schedule.on_doubt());
    }
    Ok(shared.with(Schedule::on_settled)?)
}

/// Whether sector 0 is the mark of this deployment.
fn is_marked(shared: &Shared) -> Result<bool, Fault> {
    let mut memory = AlignedBuf::new(usize::try_from(shared.layout.sector).unwrap_or(512))?;
    shared.read(Object::Mark, 0, &mut memory)?;
    let (root, deployment) = (shared.root, shared.options.deployment);
    Ok(Mark::parse(&memory).is_some_and(|mark| (mark.root, mark.deployment) == (root, deployment)))
}

/// With `--free zero`, once: zeros where the image uses nothing.
fn clear_unused(shared: &Shared, pattern: &mut Pattern) -> Result<(), Fault> {
    let Some(used) = shared.used().take() else { return Ok(()) };
    for (in_shadow, range) in used.unused().flat_map(|range| shared.layout.split(range)) {
        for piece in pieces(range).filter(|_| !in_shadow) {
            if shared.is_over() {
                return Ok(());
            }
            fill(shared, Object::Unused, piece, 0, false, pattern)?;
        }
    }
    shared.flush()
}

/// Steps 6 to 8. Blocks that stood on the disk before it was begun need no write at all if the head is right, too.
fn finish(shared: &Shared, begun: bool, pattern: &mut Pattern) -> Result<(), Fault> {
    let mut outcome = shared.shadow().fit();
    if !begun {
        shared.io.drop_cache();
        if shadow_stands(shared)?.is_none() && behind::remains(shared)?.is_none() {
            return end(shared, &outcome);
        }
        let mut shadow = shared.shadow();
        shadow.forget_rest();
        // With the rest went the backup table that was fitted above.
        outcome = shadow.fit();
        drop(shadow);
        wipe(shared)?;
    }
    clear_unused(shared, pattern)?;
    behind::clear(shared, pattern, shared.options.verify != Verify::None)?;
    if shared.is_over() {
        return Ok(());
    }
    let sector = shared.layout.sector;
    write_shadow(shared, Object::Backup, shared.layout.backup.clone())?;
    write_shadow(shared, Object::Head, sector..shared.layout.head)?;
    shared.flush()?;
    if shared.options.verify != Verify::None {
        prove(shared, Object::Backup, shared.layout.backup.clone())?;
        prove(shared, Object::Head, sector..shared.layout.head)?;
    }
    write_shadow(shared, Object::SectorZero, 0..sector)?;
    shared.flush()?;
    if shared.options.verify != Verify::None {
        prove(shared, Object::SectorZero, 0..sector)?;
    }
    if let Err(error) = shared.io.reread_table() {
        // Only this machine's own view of the disk: it matters to nobody before the next boot.
        log::debug!("reading the partition table of {} again: {error}", shared.path());
    }
    end(shared, &outcome)
}

fn end(shared: &Shared, outcome: &Outcome) -> Result<(), Fault> {
    let verified = match shared.options.verify {
        Verify::Full | Verify::Twice if shared.io.facts().direct => Verified::Direct,
        Verify::Full | Verify::Twice => Verified::Cached,
        Verify::Head | Verify::None => Verified::No,
    };
    let note = outcome.warning().unwrap_or_default();
    if !note.is_empty() {
        log::warn!("{}: {note}", shared.path());
    }
    shared.with(|schedule| schedule.on_ended(verified, note));
    Ok(())
}

fn write_shadow(shared: &Shared, object: Object, range: Range<u64>) -> Result<(), Fault> {
    if range.is_empty() {
        return Ok(());
    }
    let mut shadow = shared.shadow();
    shared.write(object, range.start, &mut [IoSlice::new(shadow.at(&range))])
}

/// Reads a range of the shadow back from the disk; it must be the same.
fn prove(shared: &Shared, object: Object, range: Range<u64>) -> Result<(), Fault> {
    shared.io.drop_cache();
    match difference(shared, object, range)? {
        Some(at) => Err(Fault::Mismatch { object, at }),
        None => Ok(()),
    }
}

/// Where the disk's head or backup table is not the shadow's.
fn shadow_stands(shared: &Shared) -> Result<Option<u64>, Fault> {
    let head = difference(shared, Object::Head, 0..shared.layout.head)?;
    if head.is_some() { Ok(head) } else { difference(shared, Object::Backup, shared.layout.backup.clone()) }
}

fn difference(shared: &Shared, object: Object, range: Range<u64>) -> Result<Option<u64>, Fault> {
    let mut memory = AlignedBuf::new(128 << 10)?;
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).map_or(memory.len(), |rest| rest.min(memory.len()));
        let found = &mut memory[..len];
        shared.read(object, at, found)?;
        let next = at + len as u64;
        let mut shadow = shared.shadow();
        let right = shadow.at(&(at..next));
        if let Some(wrong) = found.iter().zip(right.iter()).position(|(found, right)| found != right) {
            return Ok(Some(at + wrong as u64));
        }
        at = next;
    }
    Ok(None)
}
