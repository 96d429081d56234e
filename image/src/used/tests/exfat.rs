//! exFAT against exfatprogs and a driver.

use super::oracle::{
    MIB, Mounted, age, assert_cuts_are_kept, assert_flips_free_nothing, assert_same_files, empty, scribble, sum,
    unused, unused_of,
};
use crate::testing::{LoopDevice, run, tool};
use crate::used::boot_sum_of_exfat;
use crate::used::volume::Kept;
use std::path::{Path, PathBuf};

fn made(bytes: u64, options: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    tool("mkfs.exfat")?;
    let (dir, path) = empty(bytes);
    run("mkfs.exfat", options.split_whitespace().chain([path.to_str()?]));
    Some((dir, path))
}

/// Compares with what dump.exfat counts; then overwrites what is unused, and fsck.exfat finds nothing wrong.
fn compare(path: &Path) {
    let (name, found) = unused(path);
    let found = found.unwrap_or_else(|kept| panic!("{}: {kept}", path.display()));
    assert_eq!(name, "exFAT");
    let said = run("dump.exfat", [path.to_str().unwrap()]);
    let number = |what: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("{what}: {said}"));
        line.trim().parse::<u64>().unwrap()
    };
    // Version 1.2.2 (Ubuntu 24.04) looks for the allocation bitmap in the entry in front of it, and calls all clusters free.
    if number("Bitmap size:") != 0 {
        assert_eq!(sum(&found), number("Free Clusters:") * number("Cluster size:"), "{said}");
    }
    scribble(path, &found);
    run("fsck.exfat", ["-n", path.to_str().unwrap()]);
}

/// One that was used for a while, and a copy of its files.
fn aged(bytes: u64, options: &str, count: u64) -> Option<(tempfile::TempDir, PathBuf, tempfile::TempDir)> {
    let (dir, path) = made(bytes, options)?;
    let copy = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(&path, "")?;
    age(mounted.path(), count);
    run("cp", ["-r", &format!("{}/.", mounted.path().display()), copy.path().to_str()?]);
    Some((dir, path, copy))
}

#[test]
fn exfat_that_was_filled_and_emptied_is_read_as_dump_exfat_counts_it() {
    for (mib, options) in [(64, ""), (80, "-c 512"), (300, "-c 128K"), (70, "-c 4K --pack-bitmap")] {
        let Some((_dir, path, copy)) = aged(mib * MIB + 5000, options, 70) else { return };
        let Some(mounted) = Mounted::new(&path, "ro") else { return };
        let used = mounted.used();
        drop(mounted);
        let found = mib * MIB + 5000 - sum(&unused(&path).1.unwrap());
        // Boot regions, allocation table and what lies in front of the first cluster are in no count.
        let heap = std::fs::read(&path).unwrap()[88..92].try_into().map(u32::from_le_bytes).unwrap();
        let front = u64::from(heap) * 512 + (128 << 10);
        assert!(found <= (used + front) / 100 * 102, "{options}: {found} bytes for {used} and {front}");
        compare(&path);
        let Some(mounted) = Mounted::new(&path, "ro") else { return };
        assert_same_files(mounted.path(), copy.path());
    }
}

#[test]
fn exfat_with_sectors_of_4_kib_is_read() {
    if tool("mkfs.exfat").is_none() {
        return;
    }
    let (_dir, path) = empty(64 * MIB);
    let Some(device) = LoopDevice::new(&path, 4096) else { return };
    run("mkfs.exfat", ["-c", "8K", device.path()]);
    run("sync", []);
    drop(device);
    compare(&path);
}

#[test]
fn exfat_is_kept_while_it_is_mounted() {
    let Some((_dir, path)) = made(64 * MIB, "") else { return };
    let Some(mounted) = Mounted::new(&path, "") else { return };
    std::fs::write(mounted.path().join("file"), [1; 100_000]).unwrap();
    run("sync", []);
    assert_eq!(unused(&path).1, Err(Kept::NotClean));
    drop(mounted);
    compare(&path);
}

/// Puts the checksum of the boot region right.
fn seal(image: &mut [u8]) {
    let sum = boot_sum_of_exfat(&image[..11 * 512]).to_le_bytes();
    image[11 * 512..12 * 512].copy_from_slice(&sum.repeat(128));
}

#[test]
fn exfat_with_marks_of_trouble_or_numbers_that_do_not_fit_is_kept() {
    let Some((_dir, path)) = made(32 * MIB, "") else { return };
    let image = std::fs::read(&path).unwrap();
    let boot = Kept::Corrupt("boot sector");
    for (at, bytes, expected) in [
        (106, &[2_u8][..], Kept::NotClean),
        (106, &[4], Kept::Errors),
        (105, &[2], Kept::NotRead("this version of exFAT")),
        (110, &[2], Kept::NotRead("exFAT with several allocation tables")),
        (108, &[13], boot),
        (109, &[17], boot),
        (72, &[0xFF, 0xFF, 0xFF], Kept::TooLong),
        (72, &[0, 1, 0], boot),
        (80, &[1, 0], boot),
        (84, &[1, 0], boot),
        (88, &[1, 0], boot),
        (92, &[0xFF, 0xFF], boot),
        (92, &[0, 0, 0, 0], boot),
        (96, &[0, 0, 0, 0], boot),
        (510, &[0], boot),
    ] {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        seal(&mut image);
        assert_eq!(unused_of(&image, 32 * MIB).1.err(), Some(expected), "{bytes:?} at {at}");
    }
    assert_eq!(unused_of(&image, 32 * MIB - 512).1, Err(Kept::TooLong));
    let mut unsealed = image;
    unsealed[100] ^= 1;
    assert_eq!(unused_of(&unsealed, 32 * MIB).1, Err(Kept::Disagree("boot sector", "checksum")));
}

/// A small one with files, and the places of its first cluster, of the map and of the root folder.
fn image() -> Option<(Vec<u8>, [usize; 3])> {
    let (_dir, path) = made(24 * MIB, "-c 4K -b 64K")?;
    let mounted = Mounted::new(&path, "")?;
    for number in 0..6 {
        let folder = mounted.path().join(format!("a folder {}", number % 2));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("a file {number}")), vec![number; 30_000 + usize::from(number)]).unwrap();
    }
    drop(mounted);
    let image = std::fs::read(&path).unwrap();
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
    let heap = word(88) * 512;
    let root = heap + (word(96) - 2) * 4096;
    assert!(unused_of(&image, 24 * MIB).1.is_ok());
    Some((image, [heap, heap, root]))
}

#[test]
fn files_that_the_map_of_clusters_of_exfat_calls_free_are_kept() {
    let Some((mut image, [_, map, _])) = image() else { return };
    let used = image[map..map + 700].iter().map(|byte| byte.count_ones()).sum::<u32>() as usize;
    assert!(used > 48);
    for cluster in 0..used {
        image[map + cluster / 8] ^= 1 << (cluster % 8);
        assert_eq!(unused_of(&image, 24 * MIB).1, Err(Kept::Disagree("files", "map of clusters")), "{cluster}");
        image[map + cluster / 8] ^= 1 << (cluster % 8);
    }
}

#[test]
fn folders_of_exfat_that_lead_astray_are_kept() {
    let Some((image, [_, _, root])) = image() else { return };
    let entry = |kind: u8| root + (0..64).map(|no| no * 32).find(|at| image[root + at] == kind).unwrap();
    let (map, folder) = (entry(0x81), entry(0x85));
    for (at, bytes, expected) in [
        (map + 1, &[1_u8][..], Kept::Corrupt("map of clusters")),
        (map, &[1], Kept::Corrupt("map of clusters")),
        (map + 24, &[0], Kept::Corrupt("map of clusters")),
        (map + 20, &[0, 0, 0, 1], Kept::Corrupt("folders")),
        (folder + 1, &[1], Kept::Corrupt("folders")),
        (folder + 2, &[0, 0], Kept::Corrupt("folders")),
        (folder, &[0x86], Kept::Feature("folder entry", 0x86)),
        (folder + 32 + 20, &[0xFF, 0xFF, 0xFF], Kept::Corrupt("folders")),
    ] {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let found = unused_of(&image, 24 * MIB).1.err();
        assert!(found == Some(expected) || found == Some(Kept::Corrupt("folders")), "{bytes:?} at {at}: {found:?}");
    }
    // A folder that is its own parent has a right checksum, and a cluster that is met twice.
    let mut looped = image.clone();
    looped.copy_within(96..100, folder + 32 + 20);
    let entries = 1 + usize::from(looped[folder + 1]);
    let sum = looped[folder..folder + entries * 32]
        .iter()
        .enumerate()
        .filter(|(at, _)| !matches!(at, 2 | 3))
        .fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)));
    looped[folder + 2..folder + 4].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(unused_of(&looped, 24 * MIB).1, Err(Kept::Corrupt("folders")));
}

#[test]
fn no_flipped_bit_in_the_metadata_of_exfat_frees_a_used_cluster_and_no_cut_does() {
    let Some((mut image, [heap, map, root])) = image() else { return };
    let table = u32::from_le_bytes(image[80..84].try_into().unwrap()) as usize * 512;
    let places = [0..512, 11 * 512..12 * 512, table..table + 300, map..map + 16, root..root + 400];
    assert_flips_free_nothing(&mut image, places);
    let sectors = (heap / 512) as u64;
    assert_cuts_are_kept(&mut image, (0..sectors + 40).chain((sectors..48_000).step_by(997)));
}
