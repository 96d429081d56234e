//! Damage: flipped bytes never make a reader panic, and what they hide is not lost.

use super::oracle::{MIB, Numbers, empty, files, unused_of};
use crate::testing::{run, tool};
use crate::used::scan;
use core::ops::Range;

/// Small file systems of all kinds, filled.
fn images() -> Vec<(&'static str, Vec<u8>)> {
    let source = files(20, 50_000);
    let folder = source.path().to_str().unwrap();
    let made = |program: &'static str, options: &[&str]| {
        tool(program)?;
        let (_dir, path) = empty(8 * MIB);
        run(program, options.iter().copied().chain([path.to_str().unwrap()]));
        Some((program, std::fs::read(&path).unwrap()))
    };
    let ext = |kind| ["-q", "-F", "-b1024", "-t", kind, "-d", folder];
    let images = [
        made("mke2fs", &ext("ext2")),
        made("mke2fs", &ext("ext4")),
        made("mkfs.vfat", &["-F12"]),
        made("mkfs.vfat", &["-F32", "-s1"]),
        made("mkntfs", &["-q", "-F", "-Q"]),
        made("mkswap", &[]),
    ];
    images.into_iter().flatten().collect()
}

fn inside(range: &Range<u64>, all: &[Range<u64>]) -> bool {
    all.iter().any(|other| other.start <= range.start && range.end <= other.end)
}

#[test]
fn flipped_bytes_in_metadata_never_panic() {
    for (program, image) in images() {
        let (_, before) = unused_of(&image, 8 * MIB);
        let before = before.unwrap_or_else(|kept| panic!("{program}: {kept}"));
        // Bytes that are not zero and not free: metadata, mostly.
        let used: Vec<usize> =
            (0..image.len()).filter(|at| image[*at] != 0 && !inside(&(*at as u64..*at as u64 + 1), &before)).collect();
        let mut numbers = Numbers(0xDEAD_BEEF_1234_5678);
        let mut flipped = image.clone();
        for _ in 0..1500 {
            let places: Vec<_> = (0..1 + numbers.below(3))
                .map(|_| {
                    let any = usize::try_from(numbers.below(1 << 17)).unwrap();
                    if numbers.below(3) == 0 {
                        any
                    } else {
                        used[usize::try_from(numbers.below(used.len() as u64)).unwrap()]
                    }
                })
                .collect();
            for at in &places {
                flipped[*at] ^= 1 << numbers.below(8);
            }
            let report = scan(&flipped, 8 * MIB, 512);
            assert!(report.unused.iter().all(|range| range.end <= 8 * MIB));
            for at in places {
                flipped[at] = image[at];
            }
        }
    }
}

#[test]
fn with_checksums_no_flipped_bit_of_the_maps_frees_a_used_block() {
    let Some((_, image)) = images().into_iter().filter(|(program, _)| *program == "mke2fs").nth(1) else { return };
    let before = unused_of(&image, 8 * MIB).1.unwrap();
    // Superblock, descriptors and the bitmap of the only group.
    let bitmap = u32::from_le_bytes(image[2048..2052].try_into().unwrap()) as usize * 1024;
    let mut flipped = image;
    for at in (1024..2048).chain(2048..2112).chain(bitmap..bitmap + 1024) {
        for bit in [0, 3, 7] {
            flipped[at] ^= 1 << bit;
            if let (_, Ok(found)) = unused_of(&flipped, 8 * MIB) {
                assert!(found.iter().all(|range| inside(range, &before)), "byte {at}");
            }
            flipped[at] ^= 1 << bit;
        }
    }
}

#[test]
fn truncated_disks_never_panic() {
    for (_, image) in images() {
        for len in [0, 1, 511, 512, 1024, 2047, 4095, 4096, 65536, 100_000, 1 << 20] {
            let short = image[..len].to_vec();
            // Once as the size that it has, once as a disk whose end cannot be read.
            let _ = scan(&short, len as u64, 512);
            assert_eq!(scan(&short, 8 * MIB, 512).unused, []);
        }
    }
}
