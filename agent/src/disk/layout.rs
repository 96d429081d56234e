//! Which bytes of the target belong to the head, to the backup partition table, and to the body between them.
//!
//! Whatever makes a disk bootable stands at its very front or its very end. Those two areas are kept in memory (the shadow) and
//! written last; all else is body.

use core::ops::Range;
use slidecast_image::fit::{HEAD_BYTES, tail_area};
use slidecast_image::manifest::{ManifestHeader, Place};

/// The areas of one target for one image, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The head ends here.
    pub(super) head: u64,
    /// Where the backup partition table will be, with room for the longest; empty on small disks.
    pub(super) backup: Range<u64>,
    /// The image's disk ends here: its last grain may be cut.
    pub(super) disk_bytes: u64,
    /// The target ends here.
    pub(super) target_bytes: u64,
    pub(super) grain: u64,
    pub(super) sector: u64,
}

impl Layout {
    pub(super) fn new(header: &ManifestHeader, target_bytes: u64) -> Self {
        let grain = u64::from(header.grain);
        let head = HEAD_BYTES.max(grain).min(target_bytes);
        let backup = tail_area(target_bytes, header.sector);
        // Where both would meet, all is head: `fit` then sees the whole disk.
        let (head, backup) = if backup.is_empty() || head <= backup.start {
            (head, backup)
        } else {
            (target_bytes, target_bytes..target_bytes)
        };
        let (disk_bytes, sector) = (header.disk_bytes, u64::from(header.sector));
        Self { head, backup, disk_bytes, target_bytes, grain, sector }
    }

    /// The bytes that a place covers on the disk; the last grain of the disk may be short.
    pub(super) fn bytes_of(&self, place: &Place) -> Range<u64> {
        let start = place.target * self.grain;
        start..(start + u64::from(place.grains) * self.grain).min(self.disk_bytes)
    }

    /// Cuts a range where areas meet: in order, what belongs to the shadow (`true`) and what is body.
    pub(super) fn split(&self, range: Range<u64>) -> impl Iterator<Item = (bool, Range<u64>)> + use<> {
        let cuts = [0, self.head, self.backup.start, self.backup.end, u64::MAX];
        (0..4).filter_map(move |area| {
            let part = range.start.max(cuts[area])..range.end.min(cuts[area + 1]);
            (!part.is_empty()).then_some((area == 0 || area == 2, part))
        })
    }

    /// All of the body.
    pub(super) fn body(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        self.split(0..self.target_bytes).filter(|(shadow, _)| !shadow).map(|(_, range)| range)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use slidecast_image::manifest::TableKind;
    use slidecast_proto::units::Hash;

    pub(in crate::disk) fn header(disk_bytes: u64, grain: u32, sector: u32) -> ManifestHeader {
        ManifestHeader {
            layer: Hash([0; 32]),
            disk_bytes,
            sector,
            grain,
            block: grain.max(1 << 20),
            blocks: 0,
            stored_blocks: 0,
            raw_bytes: 0,
            table: TableKind::None,
            parts: vec![],
        }
    }

    fn split(layout: &Layout, range: Range<u64>) -> Vec<(bool, Range<u64>)> {
        layout.split(range).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn front_and_end_are_shadow_and_the_rest_is_body() {
        let layout = Layout::new(&header(64 * MIB, 4096, 512), 64 * MIB);
        let end = 64 * MIB;
        let backup = end - 257 * 512;
        assert_eq!(split(&layout, 0..4096), [(true, 0..4096)]);
        assert_eq!(split(&layout, MIB - 4096..MIB + 4096), [(true, MIB - 4096..MIB), (false, MIB..MIB + 4096)]);
        assert_eq!(split(&layout, end - MIB..end), [(false, end - MIB..backup), (true, backup..end)]);
        assert_eq!(split(&layout, 0..end), [(true, 0..MIB), (false, MIB..backup), (true, backup..end)]);
        assert!(layout.body().eq(core::iter::once(MIB..backup)));
    }

    #[test]
    fn the_backup_table_stands_at_the_end_of_the_target_not_of_the_image() {
        let layout = Layout::new(&header(64 * MIB, 4096, 512), 80 * MIB);
        assert_eq!(split(&layout, 63 * MIB..64 * MIB), [(false, 63 * MIB..64 * MIB)]);
        assert_eq!(layout.backup.end, 80 * MIB);
    }

    #[test]
    fn a_small_disk_is_all_head() {
        for bytes in [512, 4096, MIB, MIB + 4096] {
            let layout = Layout::new(&header(bytes, 4096, 512), bytes);
            assert_eq!(split(&layout, 0..bytes), [(true, 0..bytes)]);
            assert_eq!(layout.body().count(), 0);
        }
    }

    #[test]
    fn the_head_has_at_least_one_grain() {
        let layout = Layout::new(&header(640 * MIB, 16 << 20, 4096), 640 * MIB);
        assert_eq!(layout.head, 16 * MIB);
        assert_eq!(640 * MIB - layout.backup.start, 33 * 4096);
    }

    #[test]
    fn only_the_last_grain_of_the_disk_is_cut() {
        let layout = Layout::new(&header(10 * 4096 - 512, 4096, 512), MIB);
        assert_eq!(layout.bytes_of(&Place { source: 3, grains: 2, target: 7 }), 7 * 4096..9 * 4096);
        assert_eq!(layout.bytes_of(&Place { source: 3, grains: 2, target: 8 }), 8 * 4096..10 * 4096 - 512);
    }
}
