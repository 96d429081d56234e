//! Members of md arrays, with superblocks that mdadm reads. Without the kernel's md nothing here can make an array.

use super::oracle::{Front, MIB, Numbers, assert_same_files, empty, files, unused_of};
use super::pv;
use crate::testing::{run, tool};
use crate::used::scan;
use core::ops::Range;

const BYTES: u64 = 40 * MIB + 3 * 512;
const VERSIONS: [&str; 4] = ["0.90", "1.0", "1.1", "1.2"];

/// Where the superblock of a version is, and the array around or behind it.
fn layout(version: &str) -> (usize, Range<usize>) {
    let mib = 1 << 20;
    let (at, array) = match version {
        "0.90" => ((BYTES & !0xFFFF) - 65536, 0..32 * mib),
        "1.0" => ((BYTES - 8192) & !4095, 0..32 * mib),
        "1.1" => (0, 3 * mib..35 * mib),
        _ => (4096, 3 * mib..35 * mib),
    };
    (usize::try_from(at).unwrap(), array)
}

/// Sets numbers of a superblock: place, bytes, value.
fn set(raw: &mut [u8], numbers: &[(usize, usize, u64)]) {
    for (at, len, value) in numbers {
        raw[*at..at + len].copy_from_slice(&value.to_le_bytes()[..*len]);
    }
}

/// Puts the checksum of a superblock right.
fn seal(raw: &mut [u8], version: &str) {
    let (place, len) = if version == "0.90" { (152, 4096) } else { (216, 256 + 4) };
    raw[place..place + 4].fill(0);
    let words = raw[..len].chunks_exact(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    set(raw, &[(place, 4, (sum & 0xFFFF_FFFF) + (sum >> 32))]);
}

/// A member of a RAID1 with `content` in the array.
fn member(version: &str, content: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(BYTES).unwrap()];
    let (at, array) = layout(version);
    disk[array.start..array.start + content.len()].copy_from_slice(content);
    let raw = &mut disk[at..at + 4096];
    let (start, size) = (array.start as u64 / 512, array.len() as u64 / 512);
    if version == "0.90" {
        let words = [
            (0, 0xA92B_4EFC),
            (2, 90),
            (4, 992),
            (5, 1),
            (6, 1),
            (7, 1),
            (8, size / 2),
            (9, 2),
            (10, 2),
            (13, 2),
            (14, 3),
            (15, 4),
            (32, 1),
            (33, 1),
            (34, 2),
            (35, 1),
            (37, 1),
            (129, 8),
            (130, 1),
            (132, 6),
            (993, 8),
            (994, 1),
            (996, 6),
        ];
        set(raw, &words.map(|(word, value)| (word * 4, 4, value)));
    } else {
        raw[16..32].fill(1);
        raw[168..184].fill(2);
        raw[32..37].copy_from_slice(b"old:0");
        let room = if at < array.start { BYTES / 512 - start } else { size };
        set(
            raw,
            &[
                (0, 4, 0xA92B_4EFC),
                (4, 4, 1),
                (64, 8, 1),
                (72, 4, 1),
                (80, 8, size),
                (92, 4, 2),
                (128, 8, start),
                (136, 8, room),
                (144, 8, at as u64 / 512),
                (192, 8, 1),
                (200, 8, 1),
                (208, 8, u64::MAX),
                (220, 4, 2),
                (256, 2, 0),
                (258, 2, 0xFFFF),
            ],
        );
    }
    seal(raw, version);
    disk
}

#[test]
fn an_ext4_in_a_raid1_has_its_free_space_unused_and_its_files_stay() {
    if tool("mke2fs").is_none() || tool("mdadm").is_none() {
        return;
    }
    let source = files(40, 200_000);
    let (dir, image) = empty(32 * MIB);
    run("mke2fs", ["-q", "-F", "-t", "ext4", "-d", source.path().to_str().unwrap(), image.to_str().unwrap()]);
    let content = std::fs::read(&image).unwrap();
    let inner = unused_of(&content, 32 * MIB).1.unwrap();
    for version in VERSIONS {
        let mut disk = member(version, &content);
        let path = dir.path().join("member");
        std::fs::write(&path, &disk).unwrap();
        let said = run("mdadm", ["--examine", path.to_str().unwrap()]);
        let checksum = said.lines().find(|line| line.trim().starts_with("Checksum")).unwrap();
        assert!(checksum.contains("correct") && said.contains("raid1"), "{said}");
        let (name, found) = unused_of(&disk, BYTES);
        let (_, array) = layout(version);
        let start = array.start as u64;
        let expected: Vec<_> = inner.iter().map(|range| start + range.start..start + range.end).collect();
        assert_eq!((name, found.as_ref()), ("md RAID", Ok(&expected)), "{version}");
        for range in expected {
            disk[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].fill(0x5A);
        }
        std::fs::write(&image, &disk[array]).unwrap();
        run("e2fsck", ["-f", "-n", image.to_str().unwrap()]);
        let out = tempfile::tempdir().unwrap();
        run("debugfs", ["-R", &format!("rdump / {}", out.path().display()), image.to_str().unwrap()]);
        assert_same_files(out.path(), source.path());
    }
}

/// Swap space of 4 MiB: all but its first page is unused.
fn swap() -> Vec<u8> {
    let mut swap = vec![0; 4 << 20];
    set(&mut swap, &[(1024, 4, 1), (1028, 4, 1023)]);
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    swap
}

#[test]
fn a_volume_group_on_a_raid1_is_read_through_both() {
    let mut group = vec![0; 32 << 20];
    group[5 << 20..9 << 20].copy_from_slice(&swap());
    let segment = "extent_count = 1\ntype = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 1]";
    pv::write(&mut group, 32 * MIB, MIB, &pv::group(7, &pv::volume("swap", segment)), 0);
    for version in VERSIONS {
        let report = scan(&member(version, &group), BYTES, 512);
        let partition = &report.partitions[0];
        assert_eq!((partition.fs.as_str(), partition.note.as_str()), ("md RAID", ""));
        assert_eq!(partition.unused_bytes, 7 * 4 * MIB - 4096, "{version}: {:?}", report.notes);
    }
}

#[test]
fn members_that_do_not_have_all_of_their_array_are_kept_and_say_why() {
    let content = swap();
    let cases: [(&[&str], usize, usize, u64, &str); 14] = [
        (&["1.0", "1.1", "1.2"], 72, 4, 0, "the free space of a member of an md RAID0 is not read"),
        (&["1.0", "1.1", "1.2"], 72, 4, 5, "the free space of a member of an md RAID5 is not read"),
        (
            &["1.0", "1.1", "1.2"],
            72,
            4,
            0xFFFF_FFFF,
            "the free space of a member of an md array of this level is not read",
        ),
        (
            &["1.0", "1.1", "1.2"],
            256,
            2,
            0xFFFE,
            "the free space of a member that is not in sync with its md RAID array is not read",
        ),
        (
            &["1.0", "1.1", "1.2"],
            160,
            4,
            1,
            "the free space of a member that is not in sync with its md RAID array is not read",
        ),
        (&["1.0", "1.1", "1.2"], 208, 8, 0, "it was not unmounted cleanly"),
        (&["1.0", "1.1", "1.2"], 8, 4, 2, "it has unknown md features (0x2)"),
        (&["1.0", "1.1", "1.2"], 8, 4, 8 | 1, "it has unknown md features (0x8)"),
        (&["1.0", "1.1", "1.2"], 80, 8, 1 << 40, "its md superblock and its size disagree"),
        (&["1.0", "1.1", "1.2"], 128, 8, u64::MAX, "its md superblock cannot be right"),
        (&["0.90"], 28, 4, 10, "the free space of a member of an md RAID10 is not read"),
        (&["0.90"], 33 * 4, 4, 0, "it was not unmounted cleanly"),
        (&["0.90"], 996 * 4, 4, 1, "the free space of a member that is not in sync with its md RAID array is not read"),
        (&["0.90"], 8 * 4, 4, 1 << 30, "its md superblock and its size disagree"),
    ];
    for (versions, place, len, value, expected) in cases {
        for version in versions {
            let mut disk = member(version, &content);
            assert!(unused_of(&disk, BYTES).1.is_ok());
            let (at, _) = layout(version);
            let raw = &mut disk[at..at + 4096];
            set(raw, &[(place, len, value)]);
            seal(raw, version);
            let report = scan(&disk, BYTES, 512);
            assert_eq!(report.unused, [], "{version}: {expected}");
            // What can't be one at the end of a disk counts as a sign beside what else is there.
            let note = &report.partitions[0].note;
            let in_doubt = *version == "1.0" && expected.ends_with("cannot be right");
            let expected = if in_doubt { "it has the signs of swap and of md RAID" } else { expected };
            assert_eq!(*note, format!("all of it is kept: {expected}"), "{version}");
        }
    }
}

#[test]
fn a_member_that_is_cut_or_has_a_flipped_bit_in_its_superblock_is_kept() {
    let mut numbers = Numbers(0x00C0_FFEE_1234_5678);
    for version in VERSIONS {
        let mut disk = member(version, &swap());
        let (at, array) = layout(version);
        let len = if version == "0.90" { 4096 } else { 260 };
        for place in (0..len).step_by(if len == 4096 { 13 } else { 1 }) {
            let bit = 1 << numbers.below(8);
            disk[at + place] ^= bit;
            let found = unused_of(&disk, BYTES);
            disk[at + place] ^= bit;
            // Without its magic a superblock in front is none, and what is at the front of the disk is the swap space of the array.
            assert!(found.1.is_err() || (place < 4 && found.0 == "swap"), "{version}: byte {place}");
        }
        let end = at.max(array.end) as u64;
        for len in (0..64 << 10).chain(end - (64 << 10)..end).step_by(512).chain((0..end).step_by(1 << 20)) {
            let found = unused_of(&Front { bytes: &disk, len }, len);
            assert!(found.1.is_err() || found.0 == "swap", "{version}: {len} bytes");
        }
    }
}
