//! ext2, ext3 and ext4 against e2fsprogs.

use super::oracle::{MIB, assert_same_files, empty, files, scribble, sum, unused, unused_of};
use crate::testing::{run, run_with, says, tool};
use crate::used::volume::Kept;
use core::ops::Range;
use std::path::Path;

/// The free blocks that dumpe2fs lists for each group, as bytes.
fn listed(path: &Path) -> Vec<Range<u64>> {
    let said = run("dumpe2fs", [path.to_str().unwrap()]);
    let number = |name: &str| {
        let value = said.lines().find_map(|line| line.strip_prefix(name));
        value.map(|value| value.trim().parse::<u64>().unwrap())
    };
    let block = number("Block size:").unwrap();
    // Of a run of clusters it prints the first block of the last one (1.47.0), or the last block (1.47.2).
    let cluster = number("Cluster size:").unwrap_or(block);
    let end = number("Block count:").unwrap() * block;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for line in said.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for run in line.split(", ").filter(|run| !run.trim().is_empty()) {
            let (first, last) = run.trim().split_once('-').unwrap_or((run.trim(), run.trim()));
            let last = last.parse::<u64>().unwrap() * block;
            let range = first.parse::<u64>().unwrap() * block..(last / cluster * cluster + cluster).min(end);
            match ranges.last_mut() {
                Some(before) if before.end == range.start => before.end = range.end,
                _ => ranges.push(range),
            }
        }
    }
    ranges
}

/// Makes a file system with `options`, deletes some of its files again, and compares; then overwrites what is unused and
/// lets e2fsck and the files judge.
fn check(name: &str, bytes: u64, options: &str) {
    let (_dir, path) = empty(bytes);
    let source = files(60, 300_000);
    let disk = path.to_str().unwrap();
    let options = options.split_whitespace();
    run("mke2fs", ["-q", "-F", "-d", source.path().to_str().unwrap()].into_iter().chain(options).chain([disk]));
    let deleted = (0..60).filter(|number| number % 4 == 1);
    let commands: Vec<_> = deleted.map(|number| format!("d{}/e{}/f{number}", number % 5, number % 3)).collect();
    let script = commands.iter().map(|file| format!("rm {file}\n")).collect::<String>();
    run_with("debugfs", ["-w", "-f", "-", disk], &script);
    commands.iter().for_each(|file| std::fs::remove_file(source.path().join(file)).unwrap());
    compare(name, &path, source.path());
}

fn compare(name: &str, path: &Path, source: &Path) {
    let (found_name, found) = unused(path);
    let found = found.unwrap_or_else(|kept| panic!("{}: {kept}", path.display()));
    assert_eq!(found_name, name);
    assert!(found == listed(path), "{found:?} is not {:?}", listed(path));
    assert!(sum(&found) > 0);
    scribble(path, &found);
    run("e2fsck", ["-f", "-n", path.to_str().unwrap()]);
    let out = tempfile::tempdir().unwrap();
    run("debugfs", ["-R", &format!("rdump / {}", out.path().display()), path.to_str().unwrap()]);
    assert_same_files(out.path(), source);
}

macro_rules! agrees_with_dumpe2fs {
    ($($test:ident: $name:literal, $mib:literal, $options:literal;)*) => { $(
        #[test]
        fn $test() {
            if tool("mke2fs").is_some() {
                check($name, $mib * MIB, $options);
            }
        }
    )* };
}

agrees_with_dumpe2fs! {
    ext2_is_read_as_dumpe2fs_lists_it: "ext2", 64, "-t ext2";
    ext2_with_blocks_of_1_kib: "ext2", 64, "-t ext2 -b 1024";
    ext2_with_copies_in_every_group: "ext2", 100, "-t ext2 -b 1024 -O ^sparse_super,^resize_inode";
    ext3_is_read_as_dumpe2fs_lists_it: "ext3", 64, "-t ext3";
    ext4_is_read_as_dumpe2fs_lists_it: "ext4", 300, "-t ext4";
    ext4_with_blocks_of_1_kib: "ext4", 300, "-t ext4 -b 1024";
    ext4_with_blocks_of_2_kib_and_an_odd_size: "ext4", 301, "-t ext4 -b 2048 -g 4096";
    ext4_without_64bit: "ext4", 200, "-t ext4 -O ^64bit";
    ext4_with_meta_block_groups: "ext4", 300, "-t ext4 -b 1024 -O meta_bg,^resize_inode";
    ext4_with_meta_block_groups_of_short_descriptors: "ext4", 600, "-t ext4 -b 1024 -O meta_bg,^resize_inode,^64bit,^flex_bg";
    ext4_without_flexible_groups: "ext4", 300, "-t ext4 -b 1024 -O ^flex_bg";
    ext4_with_clusters: "ext4", 300, "-t ext4 -b 4096 -O bigalloc -C 65536";
    ext4_with_clusters_of_1_kib_blocks: "ext4", 300, "-t ext4 -b 1024 -O bigalloc -C 4096";
    ext4_with_clusters_of_1_kib_blocks_and_meta_block_groups: "ext4", 300, "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode -C 2048";
    ext4_with_small_clusters_and_an_odd_end: "ext4", 99, "-t ext4 -b 4096 -O bigalloc -C 8192 -g 8192";
    ext4_with_checksums_of_descriptors_only: "ext4", 300, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg";
    ext4_without_checksums: "ext4", 300, "-t ext4 -O ^metadata_csum,^uninit_bg";
    ext4_with_two_copies_of_the_superblock: "ext4", 300, "-t ext4 -b 1024 -O sparse_super2";
    ext4_with_a_checksum_seed_and_small_groups: "ext4", 300, "-t ext4 -O metadata_csum_seed -g 1024 -G 4";
    ext4_with_everything_else: "ext4", 200, "-t ext4 -O inline_data,casefold,encrypt,verity,project,orphan_file,large_dir,ea_inode,mmp";
}

#[test]
fn ext2_of_the_first_revision() {
    if tool("mke2fs").is_some() {
        // `-r 0` became `-E revision=0`, which suffers no other choice of features, not even none.
        let manual = says("mke2fs", ["-r", "0"]);
        let revision = if manual.contains("has been removed") { "-E revision=0" } else { "-r 0 -O none" };
        check("ext2", 64 * MIB, &format!("-t ext2 {revision} -b 4096"));
    }
}

#[test]
fn an_ext4_that_was_grown_is_read_as_dumpe2fs_lists_it() {
    if tool("mke2fs").is_none() || tool("resize2fs").is_none() {
        return;
    }
    for options in ["-b1024", "-b4096"] {
        let (_dir, path) = empty(40 * MIB);
        let source = files(30, 100_000);
        let disk = path.to_str().unwrap();
        run("mke2fs", ["-q", "-F", "-t", "ext4", options, "-d", source.path().to_str().unwrap(), disk]);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(900 * MIB).unwrap();
        run("resize2fs", [disk]);
        compare("ext4", &path, source.path());
    }
}

/// A small file system to damage.
fn image(options: &str) -> Option<Vec<u8>> {
    tool("mke2fs")?;
    let (_dir, path) = empty(20 * MIB);
    run("mke2fs", ["-q", "-F"].into_iter().chain(options.split_whitespace()).chain([path.to_str().unwrap()]));
    let image = std::fs::read(path).unwrap();
    assert!(unused_of(&image, 20 * MIB).1.is_ok());
    Some(image)
}

/// Without a checksum of the superblock, so that its fields can be set.
const BARE: &str = "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg";

#[test]
fn a_file_system_in_use_or_with_errors_is_kept() {
    let Some(image) = image(BARE) else { return };
    for (at, byte, expected) in [
        (0x3A, 0, Kept::NotClean),
        (0x3A, 3, Kept::Errors),
        (0x3A, 5, Kept::NotClean),
        (0x194, 1, Kept::Errors),
        (0x60, image[1024 + 0x60] | 4, Kept::Journal),
    ] {
        let mut image = image.clone();
        image[1024 + at] = byte;
        assert_eq!(unused_of(&image, 20 * MIB).1, Err(expected));
    }
}

#[test]
fn a_mounted_ext4_is_kept_because_its_journal_is_in_use() {
    if tool("mke2fs").is_none() {
        return;
    }
    let (dir, path) = empty(32 * MIB);
    run("mke2fs", ["-q", "-F", "-t", "ext4", path.to_str().unwrap()]);
    let at = dir.path().join("mounted");
    std::fs::create_dir(&at).unwrap();
    let Some(device) = crate::testing::LoopDevice::new(&path, 512) else { return };
    if !crate::testing::succeeds("mount", [device.path(), at.to_str().unwrap()]) {
        println!("SKIPPED: cannot mount");
        return;
    }
    std::fs::write(at.join("file"), [1; 100_000]).unwrap();
    run("sync", []);
    let mounted = unused(&path).1;
    run("umount", [at.to_str().unwrap()]);
    assert_eq!(mounted, Err(Kept::Journal));
    drop(device);
    assert_eq!(unused(&path).1.unwrap(), listed(&path));
}

#[test]
fn unknown_features_are_kept() {
    let Some(image) = image(BARE) else { return };
    for (at, word, expected) in [
        (0x60, 0x8000_0000_u32, Kept::Feature("incompatible", 0x8000_0000)),
        (0x60, 1, Kept::Feature("incompatible", 1)),
        (0x60, 8, Kept::Feature("incompatible", 8)),
        (0x64, 0x4000, Kept::Feature("read-only compatible", 0x4000)),
        (0x64, 0x80, Kept::Feature("read-only compatible", 0x80)),
    ] {
        let mut image = image.clone();
        let old = u32::from_le_bytes(image[1024 + at..][..4].try_into().unwrap());
        image[1024 + at..][..4].copy_from_slice(&(old | word).to_le_bytes());
        assert_eq!(unused_of(&image, 20 * MIB).1, Err(expected));
    }
}

#[test]
fn one_bit_in_a_bitmap_is_noticed_with_and_without_checksums() {
    for options in [BARE, "-t ext4 -b 1024", "-t ext2 -b 4096", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"] {
        let Some(image) = image(options) else { return };
        let block = if options.contains("4096") { 4096 } else { 1024 };
        // The descriptors begin in the block behind the superblock; the first field is the place of the bitmap.
        let descriptor = if block == 4096 { 4096 } else { 2048 };
        let bitmap = u32::from_le_bytes(image[descriptor..][..4].try_into().unwrap()) as usize * block;
        for bit in [0, 9, 100, 2000, 5119] {
            let mut image = image.clone();
            image[bitmap + bit / 8] ^= 1 << (bit % 8);
            assert!(unused_of(&image, 20 * MIB).1.is_err(), "{options}: bit {bit}");
        }
    }
}

#[test]
fn a_used_block_exchanged_for_a_free_one_is_noticed_where_it_holds_metadata() {
    let Some(mut image) = image("-t ext2 -b 1024") else { return };
    let bitmap = u32::from_le_bytes(image[2048..][..4].try_into().unwrap()) as usize * 1024;
    // Block 3 has descriptors or their reserve; the count stays the same.
    image[bitmap] &= !(1 << 2);
    image[bitmap + 1000] |= 1;
    assert_eq!(unused_of(&image, 20 * MIB).1, Err(Kept::Disagree("block bitmap", "places of its metadata")));
}

#[test]
fn a_file_system_that_ends_behind_its_partition_is_kept() {
    let Some(image) = image(BARE) else { return };
    assert_eq!(unused_of(&image, 20 * MIB - 1024).1, Err(Kept::TooLong));
}
