//! A volume that lies in several places of a disk: a logical volume in several segments.
//!
//! Each place is a volume of the disk on its own. All of them read from one opened file, handed from one to the next, so that the file is read once
//! where the places come in the order of the volume; where they do not, it is begun anew.

use super::ImportFault;
use super::parted::{Forward, PartedDisk, Volume, within};
use super::pieces::Pieces;
use core::fmt::{self, Debug};
use core::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Puts `volume` into `places` of a disk, which are apart and have room for it together.
pub(super) fn put(disk: &mut PartedDisk, places: &[Range<u64>], volume: Box<dyn Volume>) {
    if let [place] = places {
        disk.put_inner_volume(place.start, volume);
        return;
    }
    let shared = Arc::new(Shared { volume, open: Mutex::default() });
    let mut at = 0;
    for place in places {
        let len = place.end - place.start;
        let used = within(shared.volume.used(), at..at + len).map(|run| run.start - at..run.end - at).collect();
        disk.put_inner_volume(place.start, Box::new(Slice { shared: Arc::clone(&shared), at, used }));
        at += len;
    }
}

/// Where `range` of a volume in `places` lies.
pub(super) fn outside(places: &[Range<u64>], range: &Range<u64>) -> Vec<Range<u64>> {
    let (mut at, mut found) = (0, Vec::new());
    for place in places {
        let len = place.end - place.start;
        let (start, end) = (range.start.clamp(at, at + len), range.end.clamp(at, at + len));
        if start < end {
            found.push(place.start + (start - at)..place.start + (end - at));
        }
        at += len;
    }
    found
}

/// What all places have in common.
struct Shared {
    volume: Box<dyn Volume>,
    /// The opened file, while no place reads from it.
    open: Mutex<Option<Box<dyn Forward>>>,
}

impl Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.volume.fmt(f)
    }
}

/// The part of a volume that lies in one place.
#[derive(Debug)]
struct Slice {
    shared: Arc<Shared>,
    /// Where it begins in the volume.
    at: u64,
    used: Vec<Range<u64>>,
}

impl Volume for Slice {
    fn used(&self) -> &[Range<u64>] {
        &self.used
    }

    fn pieces(&self) -> &Pieces {
        self.shared.volume.pieces()
    }

    fn format(&self) -> &'static str {
        self.shared.volume.format()
    }

    fn forward(&self) -> Result<Box<dyn Forward>, ImportFault> {
        let first = self.at + self.used.first().map_or(0, |run| run.start);
        let begun = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let forward = match begun.filter(|forward| forward.at() <= first) {
            Some(forward) => forward,
            None => self.shared.volume.forward()?,
        };
        Ok(Box::new(SliceData { shared: Arc::clone(&self.shared), forward: Some(forward), at: self.at }))
    }
}

/// A slice that is being read.
struct SliceData {
    shared: Arc<Shared>,
    /// `None` after an error.
    forward: Option<Box<dyn Forward>>,
    at: u64,
}

impl Forward for SliceData {
    fn at(&self) -> u64 {
        self.forward.as_ref().map_or(u64::MAX, |forward| forward.at().saturating_sub(self.at))
    }

    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<(), ImportFault> {
        let mut forward = match self.forward.take() {
            Some(forward) => forward,
            None => self.shared.volume.forward()?,
        };
        forward.read(self.at + at, bytes)?;
        self.forward = Some(forward);
        Ok(())
    }
}

impl Drop for SliceData {
    fn drop(&mut self) {
        *self.shared.open.lock().unwrap_or_else(PoisonError::into_inner) = self.forward.take();
    }
}
