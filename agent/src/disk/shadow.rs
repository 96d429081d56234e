//! The head shadow: front and backup table of the target in memory until the body is proven.

use super::fault::{Fault, Object};
use super::layout::Layout;
use super::mark::Mark;
use crate::sys::AlignedBuf;
use crate::target::TargetIo;
use core::ops::Range;
use slidecast_image::fit::{Geometry, Outcome, fit, unfit};

/// The two areas as they are to stand on the disk at the end.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) head: AlignedBuf,
    pub(super) backup: AlignedBuf,
    backup_start: u64,
    sector: u32,
    disk_bytes: u64,
    target_bytes: u64,
    geometry: Geometry,
    loaded: bool,
    /// What was loaded is gone but for what is the image's.
    forgotten: bool,
    /// What was found to be the image's in what was loaded.
    held: Vec<Range<u64>>,
}

impl Shadow {
    /// All zeros.
    pub(super) fn new(layout: &Layout) -> Result<Self, Fault> {
        let sector = u32::try_from(layout.sector).unwrap_or(512);
        let geometry = Geometry::new(sector, layout.disk_bytes, layout.target_bytes).map_err(Fault::Fit)?;
        Ok(Self {
            head: AlignedBuf::new(to_len(layout.head))?,
            backup: AlignedBuf::new(to_len(layout.backup.end - layout.backup.start))?,
            backup_start: layout.backup.start,
            sector,
            disk_bytes: layout.disk_bytes,
            target_bytes: layout.target_bytes,
            geometry,
            loaded: false,
            forgotten: false,
            held: Vec::new(),
        })
    }

    /// Takes over what stands on the disk, the first time. A mark in sector 0 counts as zeros: it must never become part of
    /// an image.
    pub(super) fn load_once(&mut self, io: &dyn TargetIo) -> Result<(), Fault> {
        if self.loaded {
            return Ok(());
        }
        let read =
            |object, at: u64, into: &mut [u8]| io.read(at, into).map_err(|source| Fault::Read { object, at, source });
        read(Object::Head, 0, &mut self.head)?;
        read(Object::Backup, self.backup_start, &mut self.backup)?;
        if Mark::parse(&self.head).is_some() {
            let sector = self.head.len().min(self.sector as usize);
            self.head[..sector].fill(0);
        }
        if self.disk_bytes < self.target_bytes {
            // A table that was fitted to this target is turned back into the image's, or it would never be the same.
            unfit(&mut self.head, self.sector, self.disk_bytes);
        }
        self.loaded = true;
        Ok(())
    }

    /// This range, which [`Layout::split`] says is shadow, is on the disk as the image has it.
    pub(super) fn hold(&mut self, range: Range<u64>) {
        self.held.push(range);
    }

    /// The disk is going to be written: nothing stays of what was loaded but what is the image's. An older partition table must not
    /// come back in space that the image does not use.
    pub(super) fn forget_rest(&mut self) {
        self.forget_from(0);
        self.forgotten = true;
    }

    fn forget_from(&mut self, first: u64) {
        if !self.loaded || self.forgotten {
            return;
        }
        self.held.sort_unstable_by_key(|range| range.start);
        let areas = [(&mut self.head, 0), (&mut self.backup, self.backup_start)];
        for (area, base) in areas {
            let end = base + area.len() as u64;
            let mut at = base.max(first).min(end);
            for range in self.held.iter().filter(|range| range.start < end && range.end > base) {
                area[to_len(at - base)..to_len(range.start.clamp(at, end) - base)].fill(0);
                at = at.max(range.end.min(end));
            }
            area[to_len(at - base)..].fill(0);
        }
    }

    /// The memory of a range that [`Layout::split`] says is shadow.
    pub(super) fn at(&mut self, range: &Range<u64>) -> &mut [u8] {
        let (area, base) = if range.start < self.head.len() as u64 {
            (&mut self.head, 0)
        } else {
            (&mut self.backup, self.backup_start)
        };
        &mut area[to_len(range.start - base)..to_len(range.end - base)]
    }

    /// Fits the partition table to the target, as `image export` does for a disk of its size. What is loaded of an older backup
    /// table is none of the image's.
    pub(super) fn fit(&mut self) -> Outcome {
        let longest = 129 << 10;
        self.forget_from(self.target_bytes.saturating_sub(longest.max(self.backup.len() as u64)));
        fit(&mut self.head, &mut self.backup, self.geometry)
    }
}

/// Lengths inside the shadow: at most a head of 16 MiB.
fn to_len(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the shadow is at most one head long")
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::header;
    use super::*;

    #[test]
    fn what_is_not_held_is_forgotten_in_both_areas() {
        let bytes = 64 << 20;
        let layout = Layout::new(&header(bytes, 4096, 512), bytes);
        let mut shadow = Shadow::new(&layout).unwrap();
        shadow.head.fill(1);
        shadow.backup.fill(2);
        shadow.loaded = true;
        let backup = layout.backup.start;
        for range in [8192..12288, 0..4096, 2048..6144, layout.head - 512..layout.head, backup..backup + 1024] {
            shadow.hold(range);
        }
        shadow.forget_rest();
        let head = to_len(layout.head);
        let held = |at: usize| at < 6144 || (8192..12288).contains(&at) || at >= head - 512;
        assert!(shadow.head.iter().enumerate().all(|(at, &byte)| byte == u8::from(held(at))));
        assert!(shadow.backup.iter().enumerate().all(|(at, &byte)| byte == if at < 1024 { 2 } else { 0 }));
    }

    #[test]
    fn places_of_both_areas_find_their_memory() {
        let bytes = 64 << 20;
        let layout = Layout::new(&header(bytes, 4096, 512), bytes);
        let mut shadow = Shadow::new(&layout).unwrap();
        shadow.at(&(8192..12288)).fill(1);
        shadow.at(&(bytes - 512..bytes)).fill(2);
        assert!(shadow.head.iter().enumerate().all(|(at, &byte)| (byte == 1) == (8192..12288).contains(&at)));
        let len = shadow.backup.len();
        assert!(shadow.backup.iter().enumerate().all(|(at, &byte)| (byte == 2) == (at >= len - 512)));
    }
}
