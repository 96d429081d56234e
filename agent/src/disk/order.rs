//! The control thread: flushes, and the steps around the body. `slidecast_proto::schedule` decides their order.

use super::behind;
use super::fault::{Fault, Object};
use super::fill::{Pattern, fill};
use super::mark::Mark;
use super::probe::probe;
use super::shared::Shared;
use crate::sys::AlignedBuf;
use core::ops::Range;
use slidecast_image::fit::Outcome;
use slidecast_proto::reason::{Verified, Verify};
use slidecast_proto::schedule::{Area, Control, HeadStep};
use std::io::IoSlice;
use std::time::Instant;

/// Unused space is zeroed and discarded in pieces, to notice an abort.
const PIECE: u64 = 256 << 20;

/// The thread and what it keeps from step to step.
#[derive(Debug)]
pub(super) struct Controller {
    pattern: Pattern,
    /// What the fitting of the partition table came to.
    fitted: Option<Outcome>,
    /// When the last look began.
    look_since: Option<Instant>,
    /// Something of the head was written.
    written: bool,
}

impl Controller {
    pub(super) fn new() -> Result<Self, Fault> {
        Ok(Self { pattern: Pattern::new()?, fitted: None, look_since: None, written: false })
    }

    /// The thread's loop.
    pub(super) fn run(mut self, shared: &Shared) {
        while let Some(control) = shared.next_control() {
            let done = match control {
                Control::Head(step) => self.head(shared, step).and_then(|yes| {
                    shared.with(|schedule| schedule.on_head(step, yes))?;
                    Ok(())
                }),
                Control::Flush(batch) => flush(shared).map(|()| shared.with(|schedule| schedule.on_flushed(batch))),
                Control::End => {
                    self.end(shared);
                    Ok(())
                }
                Control::Wait(_) | Control::Exit => Ok(()),
            };
            if let Err(fault) = done {
                shared.fail(&fault);
            }
        }
    }

    /// Does a step, or answers what it asks.
    fn head(&mut self, shared: &Shared, step: HeadStep) -> Result<bool, Fault> {
        match step {
            HeadStep::Mark => mark(shared)?,
            HeadStep::Wipe => wipe(shared, &mut self.pattern)?,
            HeadStep::Flush => flush(shared)?,
            HeadStep::IsWiped => return is_wiped(shared),
            HeadStep::Probe => return probe(shared),
            HeadStep::Forget => shared.shadow().forget_rest(),
            HeadStep::Discard => discard(shared),
            HeadStep::ClearUnused => clear_unused(shared, &mut self.pattern)?,
            HeadStep::IsUntouched => {
                self.look_since.get_or_insert_with(Instant::now);
                return is_untouched(shared);
            }
            HeadStep::Fit => {
                if let Some(since) = self.look_since.take() {
                    log::info!("the last look at {} took {:.3} s", shared.path(), since.elapsed().as_secs_f64());
                }
                self.fitted = Some(shared.shadow().fit());
            }
            HeadStep::Stands => {
                shared.io.drop_cache();
                return Ok(shadow_stands(shared)? && behind::remains(shared)?.is_none());
            }
            HeadStep::Write(area) => self.write(shared, area)?,
            HeadStep::Prove(area) => prove(shared, area)?,
        }
        Ok(true)
    }

    fn write(&mut self, shared: &Shared, area: Area) -> Result<(), Fault> {
        self.written = true;
        let Some((object, range)) = in_shadow(shared, area) else { return behind::clear(shared, &mut self.pattern) };
        if range.is_empty() {
            return Ok(());
        }
        let mut shadow = shared.shadow();
        shared.write(object, range.start, &mut [IoSlice::new(shadow.at(&range))])
    }

    fn end(&self, shared: &Shared) {
        if self.written
            && let Err(error) = shared.io.reread_table()
        {
            // Only this machine's own view of the disk: it matters to nobody before the next boot.
            log::debug!("reading the partition table of {} again: {error}", shared.path());
        }
        let verified = match shared.options.verify {
            Verify::Full | Verify::Twice if shared.io.facts().direct => Verified::Direct,
            Verify::Full | Verify::Twice => Verified::Cached,
            Verify::Head | Verify::None => Verified::No,
        };
        let note = self.fitted.as_ref().and_then(Outcome::warning).unwrap_or_default();
        if !note.is_empty() {
            log::warn!("{}: {note}", shared.path());
        }
        shared.with(|schedule| schedule.on_ended(verified, note));
    }
}

/// Which bytes of the shadow an area has; `None` if it is not in the shadow.
fn in_shadow(shared: &Shared, area: Area) -> Option<(Object, Range<u64>)> {
    let layout = &shared.layout;
    match area {
        Area::SectorZero => Some((Object::SectorZero, 0..layout.sector)),
        Area::Head => Some((Object::Head, layout.sector..layout.head)),
        Area::Backup => Some((Object::Backup, layout.backup.clone())),
        Area::Behind => None,
    }
}

fn flush(shared: &Shared) -> Result<(), Fault> {
    shared.flush()?;
    shared.io.drop_cache();
    Ok(())
}

fn mark(shared: &Shared) -> Result<(), Fault> {
    let layout = &shared.layout;
    let has = shared.io.bytes_now().map_err(|source| Fault::Size { source })?;
    if has != layout.target_bytes {
        return Err(Fault::Changed { had: layout.target_bytes, has });
    }
    let sector = usize::try_from(layout.sector).unwrap_or(512);
    let mut memory = AlignedBuf::new(sector)?;
    let (root, deployment) = (shared.root, shared.options.deployment);
    Mark { deployment, root, disk_bytes: layout.disk_bytes, target_bytes: has }.encode(&mut memory);
    shared.write(Object::Mark, 0, &mut [IoSlice::new(&memory)])
}

fn wipe(shared: &Shared, zeros: &mut Pattern) -> Result<(), Fault> {
    let layout = &shared.layout;
    for (object, range) in [(Object::Head, layout.sector..layout.head), (Object::Backup, layout.backup.clone())] {
        fill(shared, object, range, 0, true, zeros)?;
    }
    Ok(())
}

/// Whether head and backup table read as zeros behind the mark. A regular file is no disk that could put writes elsewhere.
fn is_wiped(shared: &Shared) -> Result<bool, Fault> {
    let wiped = is_zero(shared)?;
    if !wiped {
        log::warn!("the head of {} is not what was written", shared.path());
    }
    Ok(wiped)
}

fn is_zero(shared: &Shared) -> Result<bool, Fault> {
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

/// Whether head and backup table are as they were left before the body.
fn is_untouched(shared: &Shared) -> Result<bool, Fault> {
    let untouched = is_zero(shared)? && is_marked(shared)?;
    if !untouched {
        log::warn!("the head or the end of {} is not as it was left, so that all is read again", shared.path());
    }
    Ok(untouched)
}

/// Whether sector 0 is the mark of this deployment.
fn is_marked(shared: &Shared) -> Result<bool, Fault> {
    let mut memory = AlignedBuf::new(usize::try_from(shared.layout.sector).unwrap_or(512))?;
    shared.read(Object::Mark, 0, &mut memory)?;
    let (root, deployment) = (shared.root, shared.options.deployment);
    Ok(Mark::parse(&memory).is_some_and(|mark| (mark.root, mark.deployment) == (root, deployment)))
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

/// With `--free zero`: zeros where the image uses nothing.
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
    Ok(())
}

/// Reads an area back from the disk; it must be what was written.
fn prove(shared: &Shared, area: Area) -> Result<(), Fault> {
    shared.io.drop_cache();
    let (object, wrong) = match in_shadow(shared, area) {
        Some((object, range)) => (object, difference(shared, object, range)?),
        None => (Object::Behind, behind::remains(shared)?),
    };
    wrong.map_or(Ok(()), |at| Err(Fault::Mismatch { object, at }))
}

/// Whether the disk's head and backup table are the shadow's.
fn shadow_stands(shared: &Shared) -> Result<bool, Fault> {
    Ok(difference(shared, Object::Head, 0..shared.layout.head)?.is_none()
        && difference(shared, Object::Backup, shared.layout.backup.clone())?.is_none())
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
