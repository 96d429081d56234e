//! What lies behind the image on a larger target: signatures of what the disk was before are overwritten there.
//!
//! Programs look for RAID, ZFS, LVM and partition tables at the end of a disk, which the image says nothing of when the target is
//! larger. Whatever `--free` says, those places (at most some hundred KiB) become zeros, and are read back like the rest.

use super::fault::{Fault, Object};
use super::fill::{Pattern, fill};
use super::layout::Layout;
use super::shared::Shared;
use crate::sys::AlignedBuf;
use core::ops::Range;
use slidecast_image::signatures;

/// The places, without those that the shadow covers.
fn places(layout: &Layout) -> impl Iterator<Item = Range<u64>> + use<'_> {
    let end = layout.target_bytes - layout.target_bytes % layout.sector;
    let start = layout.disk_bytes.next_multiple_of(layout.sector);
    let behind = signatures::behind(start, end).into_iter();
    behind.flat_map(|range| layout.split(range)).filter(|(in_shadow, _)| !in_shadow).map(|(_, range)| range)
}

/// Whether there are any such places.
pub(super) fn has_places(layout: &Layout) -> bool {
    places(layout).next().is_some()
}

/// Writes zeros there, before there is any partition table.
pub(super) fn clear(shared: &Shared, pattern: &mut Pattern) -> Result<(), Fault> {
    places(&shared.layout).try_for_each(|range| fill(shared, Object::Behind, range, 0, true, pattern))
}

/// Where the disk has something other than zeros there; `None`: nowhere.
pub(super) fn remains(shared: &Shared) -> Result<Option<u64>, Fault> {
    for range in places(&shared.layout) {
        let found = first_nonzero(shared, Object::Behind, range)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The first byte of a range of the disk that is not zero.
pub(super) fn first_nonzero(shared: &Shared, object: Object, range: Range<u64>) -> Result<Option<u64>, Fault> {
    let mut memory = AlignedBuf::new(128 << 10)?;
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).map_or(memory.len(), |rest| rest.min(memory.len()));
        shared.read(object, at, &mut memory[..len])?;
        if let Some(found) = memory[..len].iter().position(|byte| *byte != 0) {
            return Ok(Some(at + found as u64));
        }
        at += len as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::header;
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_target_of_the_images_size_has_nothing_behind_it() {
        assert_eq!(places(&Layout::new(&header(64 * MIB, 4096, 512), 64 * MIB)).count(), 0);
    }

    #[test]
    fn the_places_lie_behind_the_image_outside_of_the_backup_table_and_are_whole_sectors() {
        for (target, sector) in
            [(64 * MIB + 4096, 512), (200 * MIB + 512, 512), (200 * MIB + 700, 512), (200 * MIB, 4096)]
        {
            let layout = Layout::new(&header(64 * MIB, 4096, sector), target);
            for range in places(&layout) {
                assert!(range.start >= 64 * MIB && range.end <= target, "{range:?}");
                assert!(range.end <= layout.backup.start || range.start >= layout.backup.end, "{range:?}");
                assert_eq!((range.start % u64::from(sector), range.end % u64::from(sector)), (0, 0), "{range:?}");
            }
        }
        let layout = Layout::new(&header(64 * MIB, 4096, 512), 200 * MIB);
        assert!(places(&layout).any(|range| range.contains(&(200 * MIB - 512 * 1024))));
    }
}
