//! Where on a disk or a partition programs look for signatures: of file systems, RAID, volume managers, swap and tables.
//!
//! What a file system calls unused may still hold the superblock of what was there before. A probe that finds it takes the
//! disk for something else than the image, so these places are never left as they are: `create` maps them as zeros
//! where they are unused, and the program that writes the image to a larger disk clears those that lie behind the image.
//!
//! The places are those of the probes of libblkid, of `mdadm --examine` (0.90, 1.0, 1.1, 1.2, and the formats of firmware
//! RAID), of `pvck` and `zdb -l`; the ranges are wider than what each probe reads. Compared with the source of libblkid
//! 2.38.1 (Debian 2.38.1-5+deb12u3): every offset in the tables of magic strings and every place that a probe function
//! reads before it has recognised anything, in the 58 files of `superblocks/` and the 12 of `partitions/` that have probes. What a
//! probe reads only after it has found its first sign is not listed, since that sign is gone. Of zoned devices, on which
//! Btrfs keeps its superblock elsewhere, nothing is known here. Nearly everything lies in the first 528 KiB or in the last
//! 512 KiB:
//!
//! | where | what |
//! | --- | --- |
//! | 0 to 64 KiB | partition tables (also those in partitions: BSD, UnixWare at sector 29, Ultrix at sector 31), most file systems, LVM labels (sectors 0 to 3), md 1.1 and 1.2, LUKS, bcache, Stratis (4 and 36 KiB), swap of pages of 4 to 64 KiB, JFS, the descriptors of ISO 9660 |
//! | 64 to 528 KiB | ReiserFS, GFS and Btrfs (64 KiB), logs of XFS (any sector to 256 KiB), UFS (256 KiB), descriptors of UDF (to 288 KiB), ZFS labels 0 and 1, second headers of LUKS2 and anchors of UDF (128, 256 and 512 KiB) |
//! | 1, 2 and 4 MiB | VMFS members and volumes, UDF anchors with blocks of 2 and 4 KiB, second headers of LUKS2 |
//! | 64 MiB, 256 GiB | copies of the Btrfs superblock |
//! | 3,087 sectors before the end | Promise FastTrack; its other places and all other firmware RAID lie behind |
//! | last 512 KiB, rounded down to 256 KiB | ZFS labels 2 and 3, md 0.90 and 1.0, DDF, Intel, LSI, VIA, Silicon Image, NVIDIA, HighPoint, Adaptec, JMicron, DRBD, NILFS2, backup GPT |

use core::ops::Range;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The front that holds nearly all signatures. The last of them begin at 512 KiB.
const FRONT: u64 = 512 * KIB + PLACE_BYTES;
/// Single places behind the front.
const PLACES: [u64; 5] = [MIB, 2 * MIB, 4 * MIB, 64 * MIB, 256 << 30];
/// How much is looked at from each of them on.
const PLACE_BYTES: u64 = 16 * KIB;
/// ZFS rounds the end of its device down to this before it puts its last two labels there, 512 KiB in all.
const END_ALIGN: u64 = 256 * KIB;
const END: u64 = 512 * KIB;
/// The place of Promise FastTrack that is farthest from the end: 3,087 sectors of 512 bytes.
const PROMISE_BEFORE_END: u64 = 3087 * 512;

/// Where signatures can lie in the `bytes` bytes from `offset` on, a disk or a partition of it. In bytes of the disk; sorted,
/// apart, and inside.
#[must_use]
pub fn places(offset: u64, bytes: u64) -> Vec<Range<u64>> {
    let end = (bytes - bytes % END_ALIGN).saturating_sub(END);
    let promise = bytes.saturating_sub(PROMISE_BEFORE_END) & !4095;
    let singles = PLACES.into_iter().map(|at| at..at + PLACE_BYTES);
    let all = core::iter::once(0..FRONT).chain(singles).chain([promise..promise + PLACE_BYTES, end..bytes]);
    let inside = all.map(|range| range.start.min(bytes)..range.end.min(bytes));
    joined(inside.map(|range| offset.saturating_add(range.start)..offset.saturating_add(range.end)).collect())
}

/// Where signatures can lie behind an image of a disk of `image_bytes` on a disk of `disk_bytes` that is larger. Empty where
/// it is not.
///
/// The end of the image is not among them: what of it is unused has been mapped as zeros, but for the backup GPT
/// ([`crate::fit::tail_area`] of the image), which belongs elsewhere on the larger disk.
#[must_use]
pub fn behind(image_bytes: u64, disk_bytes: u64) -> Vec<Range<u64>> {
    let mut found = places(0, disk_bytes);
    found.retain_mut(|range| {
        range.start = range.start.max(image_bytes);
        range.start < range.end
    });
    found
}

/// The parts of `ranges` that are also in one of `others`; both sorted and apart.
pub(crate) fn intersection(ranges: &[Range<u64>], others: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut at, mut out) = (0, Vec::new());
    for range in ranges {
        while others.get(at).is_some_and(|other| other.end <= range.start) {
            at += 1;
        }
        let reaching = others[at..].iter().take_while(|other| other.start < range.end);
        out.extend(reaching.map(|other| other.start.max(range.start)..other.end.min(range.end)));
    }
    out
}

/// Sorts, drops what is empty, and joins what touches.
pub(crate) fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(ranges: &[Range<u64>], at: u64) -> bool {
        ranges.iter().any(|range| range.contains(&at))
    }

    #[test]
    fn every_probe_of_the_list_is_covered_on_disks_of_any_size() {
        for bytes in [8 * MIB, 64 * MIB + 512, 100 * MIB + 252 * KIB, (1 << 40) + 7 * 4096, 3 << 40] {
            let found = places(0, bytes);
            let md_old = (bytes & !0xFFFF) - (64 << 10);
            let md_new = (bytes & !0x1FF) - (8 << 10);
            let zfs = bytes & !(END_ALIGN - 1);
            for at in [0, 510, 1080, 4096 - 10, 4096, 65_536 - 10, 65_600, 262_144 + 1372, 511 << 10] {
                assert!(covers(&found, at), "{at} of {bytes}");
            }
            // The second header of LUKS2 by the size of the first, and the anchors of UDF by the size of a block.
            for at in [14, 15, 16, 17, 18, 19, 20, 21, 22].map(|bit| 1_u64 << bit) {
                assert!(covers(&found, at) && covers(&found, at + 511), "{at} of {bytes}");
            }
            for at in [md_old, md_new, md_new & !0xFFF, zfs - 512 * KIB, zfs - 1, bytes - 1] {
                assert!(covers(&found, at), "{at} of {bytes}");
            }
            for sector in [1, 2, 11, 16, 63, 255, 256, 257, 399, 591, 675, 735, 911, 951, 974, 991, 3087] {
                assert!(covers(&found, bytes - sector * 512), "{sector} before the end of {bytes}");
            }
        }
        assert!(covers(&places(0, 1 << 40), 64 * MIB) && covers(&places(0, 1 << 40), 256 << 30));
    }

    #[test]
    fn places_of_a_partition_are_counted_from_its_own_beginning() {
        let disk = places(0, 64 * MIB);
        let shifted: Vec<_> = places(63 * 512, 64 * MIB).iter().map(|r| r.start - 63 * 512..r.end - 63 * 512).collect();
        assert_eq!(disk, shifted);
    }

    #[test]
    fn behind_an_image_only_the_end_of_a_larger_disk_counts() {
        assert_eq!(behind(64 * MIB, 64 * MIB), []);
        assert_eq!(behind(64 * MIB, 64 * MIB + 4096).as_slice(), core::slice::from_ref(&(64 * MIB..64 * MIB + 4096)));
        let found = behind(66 * MIB, 200 * MIB);
        assert!(covers(&found, 200 * MIB - 1) && covers(&found, 200 * MIB - 512 * KIB));
        assert!(found.iter().all(|range| range.start >= 198 * MIB));
    }

    proptest! {
        #[test]
        fn ranges_are_sorted_apart_inside_and_small(offset in any::<u64>(), bytes in any::<u64>()) {
            for bytes in [bytes, bytes % (4 * MIB), bytes % 4096] {
                let found = places(offset, bytes);
                prop_assert!(found.iter().all(|r| r.start < r.end && r.start >= offset));
                prop_assert!(found.iter().all(|r| r.end - offset <= bytes));
                prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert!(found.iter().map(|r| r.end - r.start).sum::<u64>() <= 2 * MIB);
            }
        }

        #[test]
        fn an_intersection_is_what_both_have(
            one in prop::collection::vec((0u64..500, 1u64..40), 0..20),
            other in prop::collection::vec((0u64..500, 1u64..40), 0..20),
        ) {
            let ranges = |of: Vec<(u64, u64)>| joined(of.into_iter().map(|(at, len)| at..at + len).collect());
            let (one, other) = (ranges(one), ranges(other));
            let both = intersection(&one, &other);
            for at in 0..600 {
                prop_assert_eq!(covers(&both, at), covers(&one, at) && covers(&other, at));
            }
        }
    }
}
