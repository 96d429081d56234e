//! Damage: flipped bytes never make a reader panic, and what they hide is not lost.

use super::oracle::{MIB, Numbers, assert_flips_free_nothing, empty, files, unused_of};
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
        let disk = path.to_str().unwrap();
        run(program, options.iter().copied().chain([disk]));
        match program {
            // A FAT32 so small is none for mtools.
            "mkfs.vfat" if options[0] == "-F12" => {
                drop(run(tool("mcopy")?, ["-s", "-i", disk, &format!("{folder}/d0"), "::/"]))
            }
            "mkntfs" => drop(run(tool("ntfscp")?, ["-q", "-f", disk, &format!("{folder}/d0/e0/f0"), "a"])),
            _ => {}
        }
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

/// As many places as a sweep takes of `count`, evenly apart.
fn step(count: usize) -> usize {
    let places = std::env::var("SLIDECAST_SWEEP").map_or(400, |places| 10 * places.parse::<usize>().unwrap());
    (count / places).max(1)
}

#[test]
fn a_volume_that_is_cut_at_any_sector_has_nothing_free_that_was_not() {
    for (program, mut image) in images() {
        let (_, before) = unused_of(&image, 8 * MIB);
        let before = before.unwrap();
        for cut in (0..16384_u64).rev().step_by(step(16384)) {
            image.truncate(usize::try_from(cut * 512).unwrap());
            for range in unused_of(&image, cut * 512).1.unwrap_or_default() {
                assert!(inside(&range, &before) && range.end <= cut * 512, "{program}, cut at {cut}: {range:?}");
            }
        }
    }
}

#[test]
fn no_flipped_bit_in_boot_sectors_superblocks_and_tables_frees_what_is_used() {
    for (program, mut image) in images() {
        let word = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
        // Nothing but the boot sector says how many entries the root folder of a FAT12 or FAT16 has.
        let (numbers, tables) = match program {
            "mke2fs" => (1024..1280, 1280..2112),
            "mkfs.vfat" => (0..90, word(14) * 512..word(14) * 512 + 600),
            "mkntfs" => (0..90, 90..512),
            _ => (1024..1080, 4086..4096),
        };
        let numbers = numbers.filter(|at| program != "mkfs.vfat" || !(17..19).contains(at));
        assert_flips_free_nothing(&mut image, numbers.flat_map(|at| core::iter::repeat_n(at..at + 1, 24)));
        assert_flips_free_nothing(&mut image, core::iter::once(tables));
    }
}
