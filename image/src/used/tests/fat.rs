//! FAT12, FAT16 and FAT32 against dosfstools and mtools.

use super::oracle::{MIB, assert_same_files, empty, files, scribble, sum, unused, unused_of};
use crate::testing::{run, tool};
use crate::used::volume::Kept;

/// Makes a file system, copies files in, deletes some, and compares the sum with fsck's; then overwrites what is unused.
fn check(name: &str, bytes: u64, options: &str) {
    if tool("mkfs.vfat").is_none() || tool("mcopy").is_none() {
        return;
    }
    let (_dir, path) = empty(bytes);
    let disk = path.to_str().unwrap();
    run("mkfs.vfat", options.split_whitespace().chain([disk]));
    let source = files(40, (bytes / 80).min(60_000));
    for folder in 0..5 {
        run("mcopy", ["-s", "-i", disk, source.path().join(format!("d{folder}")).to_str().unwrap(), "::/"]);
    }
    for number in (0..40).filter(|number| number % 4 == 1) {
        let file = format!("d{}/e{}/f{number}", number % 5, number % 3);
        run("mdel", ["-i", disk, &format!("::/{file}")]);
        std::fs::remove_file(source.path().join(file)).unwrap();
    }
    let (found_name, found) = unused(&path);
    let found = found.unwrap();
    assert_eq!(found_name, name);
    let said = run("fsck.fat", ["-n", "-v", disk]);
    // "disk: 12 files, 34/5678 clusters"
    let clusters = said.lines().last().unwrap().split_whitespace().rev().nth(1).unwrap();
    let (taken, all) = clusters.split_once('/').unwrap();
    let cluster = said.lines().find_map(|line| line.trim().strip_suffix(" bytes per cluster")).unwrap();
    let free = all.parse::<u64>().unwrap() - taken.parse::<u64>().unwrap();
    assert_eq!(sum(&found), free * cluster.parse::<u64>().unwrap(), "{said}");
    assert!(found.len() > 3, "{found:?}");
    scribble(&path, &found);
    run("fsck.fat", ["-n", disk]);
    let out = tempfile::tempdir().unwrap();
    run("mcopy", ["-s", "-i", disk, "::/*", out.path().to_str().unwrap()]);
    assert_same_files(out.path(), source.path());
}

#[test]
fn fat12_is_read_as_fsck_counts_it() {
    check("FAT12", 2 * MIB, "-F12");
    check("FAT12", 8 * MIB, "-F12 -s8 -f1");
}

#[test]
fn fat16_is_read_as_fsck_counts_it() {
    check("FAT16", 32 * MIB, "-F16");
    check("FAT16", 64 * MIB + 3 * 512, "-F16 -R7 -S1024");
}

#[test]
fn fat32_is_read_as_fsck_counts_it() {
    check("FAT32", 64 * MIB, "-F32");
    check("FAT32", 300 * MIB, "-F32 -s8 -f1");
    check("FAT32", 300 * MIB, "-F32 -S4096");
}

/// Its count of sectors is in the field of 16 bits, which mtools do not expect.
#[test]
fn a_fat32_of_less_than_65536_sectors_is_read_as_fsck_counts_it() {
    let Some(_) = tool("mkfs.vfat") else { return };
    let (_dir, path) = empty(31 * MIB);
    let disk = path.to_str().unwrap();
    run("mkfs.vfat", ["-F32", "-s1", disk]);
    assert_ne!(std::fs::read(&path).unwrap()[19..21], [0, 0]);
    let (name, found) = unused(&path);
    let found = found.unwrap();
    let said = run("fsck.fat", ["-n", "-v", disk]);
    // It warns of what it is.
    let counts = said.split_once(" files, ").unwrap().1.split(' ').next().unwrap();
    let (used, all) = counts.split_once('/').unwrap();
    let free = all.parse::<u64>().unwrap() - used.parse::<u64>().unwrap();
    assert_eq!((name, sum(&found)), ("FAT32", free * 512), "{said}");
    scribble(&path, &found);
    run("fsck.fat", ["-n", disk]);
}

/// A FAT32, with the places of its first table and of the clusters that it uses.
fn image(width: &str) -> Option<Vec<u8>> {
    tool("mkfs.vfat")?;
    let (_dir, path) = empty(36 * MIB);
    run("mkfs.vfat", [width, path.to_str().unwrap()]);
    let image = std::fs::read(path).unwrap();
    assert!(unused_of(&image, 36 * MIB).1.is_ok());
    Some(image)
}

/// Sets an entry in both tables of a FAT32.
fn set_entry(image: &mut [u8], cluster: usize, value: u32) {
    let word = |image: &[u8], at| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
    let (first, len) = (word(image, 14) * 512, word(image, 36) * 512);
    for table in [first, first + len] {
        image[table + cluster * 4..][..4].copy_from_slice(&value.to_le_bytes());
    }
}

#[test]
fn a_fat_that_was_not_unmounted_or_has_errors_is_kept() {
    for (width, flags) in [("-F16", 37), ("-F32", 65)] {
        let Some(image) = image(width) else { return };
        for (bit, expected) in [(1, Kept::NotClean), (2, Kept::Errors)] {
            let mut image = image.clone();
            image[flags] |= bit;
            assert_eq!(unused_of(&image, 36 * MIB).1, Err(expected));
        }
    }
    let Some(mut image) = image("-F32") else { return };
    set_entry(&mut image, 1, 0x07FF_FFFF);
    assert_eq!(unused_of(&image, 36 * MIB).1, Err(Kept::NotClean));
    set_entry(&mut image, 1, 0x0BFF_FFFF);
    assert_eq!(unused_of(&image, 36 * MIB).1, Err(Kept::Errors));
}

#[test]
fn copies_chains_and_counts_that_disagree_are_kept() {
    let Some(image) = image("-F32") else { return };
    let mut one_copy = image.clone();
    let first = usize::from(u16::from_le_bytes([image[14], image[15]])) * 512;
    one_copy[first + 40] ^= 0xFF;
    assert_eq!(unused_of(&one_copy, 36 * MIB).1, Err(Kept::Disagree("first allocation table", "second")));
    let mut lost = image.clone();
    set_entry(&mut lost, 10, 11);
    assert_eq!(unused_of(&lost, 36 * MIB).1, Err(Kept::Disagree("files", "allocation table")));
    let mut no_root = image.clone();
    set_entry(&mut no_root, 2, 0);
    assert_eq!(unused_of(&no_root, 36 * MIB).1, Err(Kept::Disagree("files", "allocation table")));
    let mut counts = image.clone();
    set_entry(&mut counts, 10, 0x0FFF_FFFF);
    assert!(matches!(unused_of(&counts, 36 * MIB).1, Err(Kept::Counts { .. })));
    assert_eq!(unused_of(&image, 36 * MIB - 1).1, Err(Kept::TooLong));
}
