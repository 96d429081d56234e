//! btrfs against btrfs-progs and the kernel's own driver.

use super::oracle::{Front, MIB, Numbers, assert_same_files, empty, files, scribble, sum, unused, unused_of};
use crate::testing::{LoopDevice, run, succeeds, tool};
use crate::used::volume::Kept;
use core::ops::Range;
use std::path::{Path, PathBuf};

const SUPERBLOCK: usize = 64 << 10;

/// A file system with these files in it; `None` where the program is missing or does not know an option.
fn made(bytes: u64, options: &str, source: Option<&Path>) -> Option<(tempfile::TempDir, PathBuf)> {
    tool("mkfs.btrfs")?;
    let (dir, path) = empty(bytes);
    let root = source.map_or_else(Vec::new, |source| Vec::from(["--rootdir", source.to_str().unwrap()]));
    let words = ["-q"].into_iter().chain(options.split_whitespace()).chain(root);
    if !succeeds("mkfs.btrfs", words.chain([path.to_str().unwrap()])) {
        println!("SKIPPED: this mkfs.btrfs cannot make {options}");
        return None;
    }
    Some((dir, path))
}

/// Bytes that are free by the word of `btrfs inspect-internal`: the device without what the block groups state as used, in
/// all copies, and without the places that are always kept.
fn stated(path: &Path) -> u64 {
    let path = path.to_str().unwrap();
    // Block groups are in the extent tree, or in one of their own that older programs have no name for.
    let trees = run("btrfs", ["inspect-internal", "dump-tree", path]);
    let superblock = run("btrfs", ["inspect-internal", "dump-super", path]);
    let total = superblock.lines().find_map(|line| line.strip_prefix("total_bytes")).unwrap();
    let total: u64 = total.trim().parse().unwrap();
    let mut used = MIB + if total >= 64 * MIB + 65536 { 65536 } else { 0 };
    for line in trees.lines() {
        let Some(group) = line.trim().strip_prefix("block group used ") else { continue };
        let bytes: u64 = group.split_whitespace().next().unwrap().parse().unwrap();
        used += bytes * if group.contains("DUP") { 2 } else { 1 };
    }
    total - used
}

/// Overwrites what is unused and lets `btrfs check` and the files judge.
fn check(path: &Path, source: &Path) {
    let (name, found) = unused(path);
    let found = found.unwrap_or_else(|kept| panic!("{kept}"));
    assert_eq!((name, sum(&found)), ("Btrfs", stated(path)));
    scribble(path, &found);
    run("btrfs", ["check", "--check-data-csum", path.to_str().unwrap()]);
    let out = tempfile::tempdir().unwrap();
    run("btrfs", ["restore", path.to_str().unwrap(), out.path().to_str().unwrap()]);
    assert_same_files(out.path(), source);
}

#[test]
fn a_file_system_of_every_kind_is_read_as_btrfs_progs_state_it_and_its_files_stay() {
    let source = files(40, 200_000);
    for options in [
        "",
        "-m single",
        "-M -n 4096",
        "-n 4096",
        "-n 65536",
        "-R ^free-space-tree",
        "-O ^skinny-metadata,^no-holes",
        "-R quota --csum xxhash",
        "--csum sha256",
        "--csum blake2",
        "-O block-group-tree",
        "-O squota",
    ] {
        if let Some((_dir, path)) = made(200 * MIB, options, Some(source.path())) {
            check(&path, source.path());
        }
    }
}

/// A file system while it is mounted.
struct Mounted {
    at: PathBuf,
    _device: LoopDevice,
    _dir: tempfile::TempDir,
}

impl Mounted {
    /// `None`, and a line that says so, where it cannot be mounted.
    fn new(path: &Path, options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let device = LoopDevice::new(path, 512)?;
        let at = dir.path().to_owned();
        if !succeeds("mount", ["-t", "btrfs", "-o", options, device.path(), at.to_str().unwrap()]) {
            println!("SKIPPED: cannot mount btrfs");
            return None;
        }
        Some(Self { at, _device: device, _dir: dir })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", [self.at.to_str().unwrap()]);
    }
}

#[test]
fn a_file_system_that_the_kernel_has_aged_is_read_and_its_files_stay() {
    for (options, mount) in [("", "compress=zstd"), ("-m single", "space_cache=v2,discard=async")] {
        let Some((dir, path)) = made(400 * MIB, options, None) else { return };
        let source = files(120, 400_000);
        let copy = dir.path().join("files");
        {
            let Some(mounted) = Mounted::new(&path, mount) else { return };
            let at = mounted.at.to_str().unwrap();
            for round in 0..3 {
                run("cp", ["-r", source.path().to_str().unwrap(), &format!("{at}/round{round}")]);
                run("sync", ["-f", at]);
                if round > 0 {
                    run("btrfs", ["subvolume", "snapshot", at, &format!("{at}/snapshot{round}")]);
                }
                for number in (0..120).filter(|number| number % 3 == round) {
                    std::fs::remove_file(mounted.at.join(format!(
                        "round{round}/d{}/e{}/f{number}",
                        number % 5,
                        number % 3
                    )))
                    .unwrap();
                }
            }
            run("btrfs", ["subvolume", "delete", "-c", &format!("{at}/snapshot1")]);
            run("cp", ["-a", at, copy.to_str().unwrap()]);
        }
        let found = unused(&path).1.unwrap();
        assert_eq!(sum(&found), stated(&path));
        assert!(found.len() > 20, "{found:?}");
        scribble(&path, &found);
        run("btrfs", ["check", "--check-data-csum", path.to_str().unwrap()]);
        let Some(mounted) = Mounted::new(&path, "ro") else { return };
        assert_same_files(&mounted.at, &copy);
    }
}

#[test]
fn a_log_tree_keeps_everything_because_it_is_in_no_extent_tree() {
    let Some((dir, path)) = made(130 * MIB, "", None) else { return };
    let Some(mounted) = Mounted::new(&path, "commit=300") else { return };
    let file = std::fs::File::create(mounted.at.join("file")).unwrap();
    run("sync", ["-f", mounted.at.to_str().unwrap()]);
    std::io::Write::write_all(&mut &file, &[7; 100_000]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let torn = dir.path().join("torn");
    run("cp", ["--sparse=always", path.to_str().unwrap(), torn.to_str().unwrap()]);
    drop(mounted);
    assert_eq!(unused(&torn), ("Btrfs", Err(Kept::Journal)));
    assert!(unused(&path).1.is_ok());
}

/// Sets numbers of the superblock and its copies, and puts their checksums right.
fn changed(image: &[u8], numbers: &[(usize, usize, u64)]) -> Vec<u8> {
    let mut image = image.to_vec();
    for at in [SUPERBLOCK, 64 << 20] {
        let Some(raw) = image.get_mut(at..at + 4096) else { continue };
        for (place, len, value) in numbers {
            raw[*place..place + len].copy_from_slice(&value.to_le_bytes()[..*len]);
        }
        let sum = !crate::used::crc32c(!0, &raw[32..]);
        raw[..4].copy_from_slice(&sum.to_le_bytes());
    }
    image
}

/// A small file system: the image ends behind the last chunk.
fn small() -> Option<Vec<u8>> {
    let source = files(5, 20_000);
    let (_dir, path) = made(16 * MIB, "-M -n 4096", Some(source.path()))?;
    Some(std::fs::read(path).unwrap())
}

#[test]
fn what_is_not_one_device_at_rest_with_known_features_is_kept_and_says_why() {
    let Some(image) = small() else { return };
    let bytes = image.len() as u64;
    assert!(unused_of(&changed(&image, &[]), bytes).1.is_ok());
    let superblock = Kept::Corrupt("superblock");
    for (place, len, value, expected) in [
        (56, 8, 1 | 1 << 32, Kept::Feature("superblock", u32::MAX)),
        (56, 8, 1 | 4, Kept::Feature("superblock", 5)),
        (96, 8, 4096, Kept::Journal),
        (136, 8, 2, Kept::NotRead("Btrfs on several devices")),
        (172, 8, 1, Kept::Feature("compatible", 1)),
        (180, 8, 0x1F, Kept::Feature("read-only compatible", 0x10)),
        (188, 8, 0x1345, Kept::Feature("incompatible", 0x1000)),
        (188, 8, 0x2345, Kept::Feature("incompatible", 0x2000)),
        (196, 2, 1, superblock),
        (196, 2, 4, Kept::NotRead("Btrfs with checksums of an unknown kind")),
        (120, 8, 4096, Kept::Disagree("superblock", "extents")),
        (209, 8, bytes + 4096, superblock),
        (112, 8, bytes - 4096, superblock),
        (144, 4, 512, superblock),
        (148, 4, 1 << 20, superblock),
        (160, 4, 4096, superblock),
        (199, 1, 3, Kept::Corrupt("tree")),
        (80, 8, 0, Kept::Corrupt("tree")),
        (88, 8, u64::MAX, Kept::Corrupt("tree")),
    ] {
        let found = unused_of(&changed(&image, &[(place, len, value)]), bytes);
        assert_eq!(found, ("Btrfs", Err(expected)), "{value} at {place}");
    }
    let longer = changed(&image, &[(209, 8, bytes + 4096), (112, 8, bytes + 4096)]);
    assert_eq!(unused_of(&longer, bytes).1, Err(Kept::TooLong));
}

#[test]
fn several_devices_zones_and_an_old_copy_are_kept() {
    let (_one, first) = empty(130 * MIB);
    if let Some((_dir, second)) = made(130 * MIB, &format!("-d raid1 -m raid1 {}", first.display()), None) {
        assert_eq!(unused(&first).1, Err(Kept::NotRead("Btrfs on several devices")));
        assert_eq!(unused(&second).1, Err(Kept::NotRead("Btrfs on several devices")));
    }
    if let Some((_dir, path)) = made(2048 * MIB, "-O zoned -d single -m single", None) {
        assert_eq!(unused(&path).1, Err(Kept::Feature("incompatible", 0x1000)));
    }
    let Some((_dir, path)) = made(130 * MIB, "", None) else { return };
    let image = std::fs::read(path).unwrap();
    let mut old = image.clone();
    let newer = changed(&image, &[(72, 8, 5)]);
    old[64 << 20..(64 << 20) + 4096].copy_from_slice(&newer[64 << 20..(64 << 20) + 4096]);
    assert_eq!(unused_of(&old, 130 * MIB).1, Err(Kept::Disagree("superblock", "copy")));
}

/// Where the nodes of the trees that are read lie in a mixed file system, which has one copy of each.
fn nodes(image: &[u8]) -> Vec<Range<usize>> {
    let (_dir, path) = empty(0);
    std::fs::write(&path, image).unwrap();
    let path = path.to_str().unwrap();
    let mut found = Vec::new();
    for tree in ["root", "chunk", "extent"] {
        let said = run("btrfs", ["inspect-internal", "dump-tree", "-t", tree, path]);
        let lines = said.lines().filter(|line| line.contains(" items "));
        let places = lines.filter_map(|line| line.strip_prefix("leaf ").or_else(|| line.strip_prefix("node ")));
        for logical in places.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()) {
            let said = run("btrfs-map-logical", ["-l", &logical.to_string(), path]);
            let place = said.split("physical ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
            let place: usize = place.parse().unwrap();
            found.push(place..place + 4096);
        }
    }
    found
}

#[test]
fn a_flipped_bit_in_any_structure_or_a_cut_keeps_everything() {
    let Some(mut image) = small() else { return };
    let bytes = image.len() as u64;
    let before = unused_of(&image, bytes).1.unwrap();
    assert!(sum(&before) > 0);
    let mut numbers = Numbers(0x0BAD_5EED_0BAD_5EED);
    for structure in core::iter::once(SUPERBLOCK..SUPERBLOCK + 4096).chain(nodes(&image)) {
        for at in structure.clone().take(256).chain(structure.step_by(29)) {
            let bit = 1 << numbers.below(8);
            image[at] ^= bit;
            let found = unused_of(&image, bytes);
            image[at] ^= bit;
            // A checksum has room for 32 bytes, of which CRC-32C fills four.
            let unread = at % 4096 >= 4 && at % 4096 < 32;
            assert!(found.1.is_err() || (unread && found.1.as_ref() == Ok(&before)) || found.0.is_empty(), "byte {at}");
        }
    }
    for len in (0..128 << 10).step_by(512).chain((128 << 10..bytes).step_by(64 << 10)) {
        let found = unused_of(&Front { bytes: &image, len }, len);
        assert!(found.1.is_err(), "{len} bytes");
        assert_eq!(crate::used::scan(&Front { bytes: &image, len }, bytes, 512).unused, [], "{len} bytes");
    }
}
