//! F2FS against f2fs-tools.

use super::oracle::{
    MIB, assert_cuts_are_kept, assert_flips_free_nothing, empty, files, scribble, sum, unused, unused_of,
};
use crate::testing::{run, tool};
use crate::used::f2fs_sum;
use crate::used::volume::Kept;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

const BLOCK: usize = 4096;

/// One that `sload.f2fs` copied the folder `source` into, if there is one.
fn made(bytes: u64, options: &str, source: Option<&Path>) -> Option<(tempfile::TempDir, PathBuf)> {
    if tool("mkfs.f2fs").is_none() || tool("sload.f2fs").is_none() {
        return None;
    }
    let (dir, path) = empty(bytes);
    run("mkfs.f2fs", ["-q", "-f"].into_iter().chain(options.split_whitespace()).chain([path.to_str()?]));
    if let Some(source) = source {
        run("sload.f2fs", ["-f", source.to_str()?, path.to_str()?]);
    }
    Some((dir, path))
}

/// A number that dump.f2fs prints, in decimal behind the hexadecimal one.
fn number(said: &str, name: &str) -> u64 {
    let line = said.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("{name}: {said}"));
    line.rsplit(':').next().unwrap().trim().trim_end_matches(']').parse().unwrap()
}

/// Compares with what dump.f2fs counts; then overwrites what is unused: fsck.f2fs finds nothing wrong, and the content of all
/// files is there.
fn compare(path: &Path, source: Option<&Path>) {
    let (name, found) = unused(path);
    let found = found.unwrap_or_else(|kept| panic!("{}: {kept}", path.display()));
    assert_eq!(name, "F2FS");
    let said = run("dump.f2fs", ["-d", "1", path.to_str().unwrap()]);
    let free = number(&said, "segment_count_main") * 512 - number(&said, "valid_block_count");
    // Of the six current segments nothing is unused.
    assert!(sum(&found) <= free * 4096 && sum(&found) + 6 * 2 * MIB >= free * 4096, "{} of {free}", sum(&found));
    scribble(path, &found);
    let said = run("fsck.f2fs", ["-f", "--dry-run", path.to_str().unwrap()]);
    assert!(said.contains("[Ok..]") && !said.contains("[Fail") && !said.contains("ASSERT"), "{said}");
    let image = std::fs::read(path).unwrap();
    let blocks: HashSet<&[u8]> = image.chunks_exact(BLOCK).collect();
    for number in source.map_or(0..0, |_| 0..60) {
        let file = source.unwrap().join(format!("d{}/e{}/f{number}", number % 5, number % 3));
        for block in std::fs::read(file).unwrap().chunks_exact(BLOCK) {
            assert!(blocks.contains(block), "a block of file {number}");
        }
    }
}

macro_rules! agrees_with_dump_f2fs {
    ($($test:ident: $mib:literal, $options:literal;)*) => { $(
        #[test]
        fn $test() {
            let source = files(60, 200_000);
            for source in [None, Some(source.path())] {
                let Some((_dir, path)) = made($mib * MIB + 7000, $options, source) else { return };
                compare(&path, source);
            }
        }
    )* };
}

agrees_with_dump_f2fs! {
    f2fs_is_read_as_dump_f2fs_counts_it: 100, "";
    f2fs_with_features: 120, "-O extra_attr,inode_checksum,sb_checksum,inode_crtime,verity,lost_found,quota,project_quota,compression";
    f2fs_with_large_node_bitmaps_and_sections: 200, "-i -s 2 -z 2";
    f2fs_without_discards: 100, "-t 0 -a 1";
}

/// A small one with files.
fn image() -> Option<Vec<u8>> {
    let source = files(60, 30_000);
    let (_dir, path) = made(100 * MIB, "-O extra_attr,sb_checksum", Some(source.path()))?;
    let image = std::fs::read(path).unwrap();
    assert!(unused_of(&image, 100 * MIB).1.is_ok());
    Some(image)
}

fn word(image: &[u8], at: usize) -> usize {
    u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize
}

/// Where the pack that counts begins, and the table of valid blocks and of nodes, in bytes.
fn places(image: &[u8]) -> [usize; 3] {
    let packs = [0, 512 * BLOCK].map(|at| word(image, 1024 + 76) * BLOCK + at);
    let newer = packs.into_iter().rev().max_by_key(|at| u64::from_le_bytes(image[*at..*at + 8].try_into().unwrap()));
    [newer.unwrap(), word(image, 1024 + 80) * BLOCK, word(image, 1024 + 84) * BLOCK]
}

/// Sets bytes of a checkpoint and of its copy at the end of the pack, with the checksums.
fn set(image: &mut [u8], pack: usize, at: usize, bytes: &[u8]) {
    let last = pack + (word(image, pack + 136) - 1) * BLOCK;
    for block in [pack, last] {
        image[block + at..block + at + bytes.len()].copy_from_slice(bytes);
        let sum = f2fs_sum(&[&image[block..block + 4092]]);
        image[block + 4092..block + 4096].copy_from_slice(&sum.to_le_bytes());
    }
}

#[test]
fn f2fs_that_was_not_left_properly_is_kept() {
    let Some(image) = image() else { return };
    let [pack, ..] = places(&image);
    let flags = u32::try_from(word(&image, pack + 132)).unwrap();
    for (changed, expected) in [
        (flags & !1, Kept::NotClean),
        (flags | 2, Kept::NotClean),
        (flags | 8, Kept::Errors),
        (flags | 0x10, Kept::Errors),
        (flags | 0x800, Kept::Errors),
        (flags | 0x1000, Kept::NotClean),
        (flags | 0x4000, Kept::NotClean),
    ] {
        let mut image = image.clone();
        set(&mut image, pack, 132, &changed.to_le_bytes());
        assert_eq!(unused_of(&image, 100 * MIB).1.err(), Some(expected), "{changed:#x}");
    }
}

#[test]
fn f2fs_with_nodes_behind_its_checkpoint_is_kept() {
    let Some(mut image) = image() else { return };
    let [pack, ..] = places(&image);
    let (segment, next) = (word(&image, pack + 40), usize::from(image[pack + 70]) | usize::from(image[pack + 71]) << 8);
    let node = (word(&image, 1024 + 92) + segment * 512 + next) * BLOCK;
    image.copy_within(pack..pack + 8, node + BLOCK - 12);
    assert_eq!(unused_of(&image, 100 * MIB).1, Err(Kept::Journal));
}

#[test]
fn nothing_in_the_current_segments_of_f2fs_is_unused() {
    let Some(image) = image() else { return };
    let [pack, ..] = places(&image);
    let found = unused_of(&image, 100 * MIB).1.unwrap();
    for at in [36, 40, 44, 84, 88, 92] {
        let first = ((word(&image, 1024 + 92) + word(&image, pack + at) * 512) * BLOCK) as u64;
        assert!(found.iter().all(|range| range.end <= first || range.start >= first + 2 * MIB));
    }
}

#[test]
fn f2fs_with_an_interrupted_checkpoint_or_counts_that_disagree_is_kept() {
    let Some(image) = image() else { return };
    let [pack, ..] = places(&image);
    let last = pack + (word(&image, pack + 136) - 1) * BLOCK;
    let mut torn = image.clone();
    torn[last] ^= 1;
    assert_eq!(unused_of(&torn, 100 * MIB).1, Err(Kept::Disagree("checkpoint", "checksum")));
    let mut counts = image.clone();
    set(&mut counts, pack, 16, &1_u64.to_le_bytes());
    assert!(matches!(unused_of(&counts, 100 * MIB).1, Err(Kept::Counts { .. })));
    let mut nodes = image.clone();
    set(&mut nodes, pack, 144, &1_u32.to_le_bytes());
    assert_eq!(unused_of(&nodes, 100 * MIB).1, Err(Kept::Disagree("table of valid blocks", "count of nodes")));
    let mut segment = image;
    set(&mut segment, pack, 36, &u32::MAX.to_le_bytes());
    assert_eq!(unused_of(&segment, 100 * MIB).1, Err(Kept::Corrupt("checkpoint")));
}

#[test]
fn f2fs_with_superblocks_that_disagree_or_unknown_features_is_kept() {
    let Some(image) = image() else { return };
    let sealed = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        for copy in [1024, 5120] {
            image[copy + at..copy + at + bytes.len()].copy_from_slice(bytes);
            let sum = f2fs_sum(&[&image[copy..copy + 3068]]);
            image[copy + 3068..copy + 3072].copy_from_slice(&sum.to_le_bytes());
        }
        unused_of(&image, 100 * MIB).1.err()
    };
    let corrupt = Some(Kept::Corrupt("superblock"));
    assert_eq!(sealed(2180, &[2, 8]), Some(Kept::NotRead("F2FS on a zoned device")));
    assert_eq!(sealed(2180, &[0, 0x48]), Some(Kept::Feature("F2FS", 0x4000)));
    assert_eq!(sealed(2201, b"/dev/sdb"), Some(Kept::NotRead("F2FS on several devices")));
    assert_eq!(sealed(16, &[14]), Some(Kept::NotRead("F2FS with blocks or segments of another size")));
    assert_eq!(sealed(36, &[0xFF; 4]), Some(Kept::TooLong));
    assert_eq!(sealed(36, &[1, 0]), corrupt);
    assert_eq!(sealed(68, &[0xFF; 4]), corrupt);
    assert_eq!(sealed(80, &[0xFF; 4]), corrupt);
    assert_eq!(sealed(1664, &[0xFF; 4]), corrupt);
    for (at, expected) in [(1024 + 40, "copy of it"), (1024 + 3000, "checksum"), (5120 + 3000, "checksum")] {
        let mut image = image.clone();
        image[at] ^= 1;
        assert_eq!(unused_of(&image, 100 * MIB).1, Err(Kept::Disagree("superblock", expected)));
    }
}

#[test]
fn no_flipped_bit_in_the_metadata_of_f2fs_frees_a_used_block_and_no_cut_does() {
    let Some(mut image) = image() else { return };
    let [pack, sit, nat] = places(&image);
    let last = pack + (word(&image, pack + 136) - 1) * BLOCK;
    let places = [
        1024..1132,
        3200..3270,
        5120..5228,
        pack..pack + 320,
        pack + 4080..pack + 4096,
        last..last + 200,
        last - 6 * BLOCK + 3584..last - 6 * BLOCK + 3700,
        last - 4 * BLOCK + 3584..last - 4 * BLOCK + 3900,
        sit..sit + 1000,
        sit + 512 * BLOCK..sit + 512 * BLOCK + 1000,
        nat..nat + 300,
    ];
    assert_flips_free_nothing(&mut image, places);
    assert_cuts_are_kept(&mut image, (0..64).chain((64..200_000).step_by(2777)));
}
