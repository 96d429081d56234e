//! What was on a disk before must not show through an image: signatures in free space, at the end of a disk, and in the
//! place of the backup GPT.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests may panic like tests, and say what they skip"
)]
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Bench, exported, noise};
use slidecast_image::{CreateOptions, create};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Whether a program could be run and succeeded.
fn run(name: &str, arguments: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(name).env("PATH", path).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// A disk with one ext4 partition of 100 MiB at 1 MiB; `None` without the programs for it.
fn disk_with_ext4(bench: &Bench, name: &str) -> Option<std::path::PathBuf> {
    let path = bench.disk(name, 128 * MIB, &[]);
    let file = path.to_str().unwrap();
    let made = run("sgdisk", &["-n1:2048:+100M", file])
        && run("mke2fs", &["-q", "-F", "-t", "ext4", "-E", "offset=1048576", file, "100M"]);
    if !made {
        println!("SKIPPED: no sgdisk or mke2fs");
    }
    made.then_some(path)
}

/// Signatures of md 0.90, 1.0 and ZFS, where a member of `bytes` bytes from `offset` has them.
fn scribble(disk: &Path, offset: u64, bytes: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    let write = |at: u64, bytes: &[u8]| file.write_all_at(bytes, offset + at).unwrap();
    write((bytes & !0xFFFF) - 65536, b"\xFC\x4E\x2B\xA9");
    write(((bytes & !0x1FF) - 8192) & !0xFFF, b"\xFC\x4E\x2B\xA9");
    for label in [256 << 10, bytes - bytes % (256 << 10) - (512 << 10), bytes - bytes % (256 << 10) - (256 << 10)] {
        for uberblock in 0..128 {
            write(label + (128 << 10) + uberblock * 1024, b"\x0C\xB1\xBA\0\0\0\0\0");
        }
    }
}

/// Whether one of these signatures is anywhere in `bytes`.
fn has_signs(bytes: &[u8]) -> bool {
    bytes
        .chunks_exact(512)
        .any(|sector| sector.starts_with(b"\xFC\x4E\x2B\xA9") || sector.starts_with(b"\x0C\xB1\xBA\0"))
}

/// What a target with `old` content holds of an image: places the image says nothing of keep what was there.
fn over(bench: &Bench, image: &str, old: &[u8]) -> Vec<u8> {
    let resolved = slidecast_image::Image::open(&bench.path(image)).unwrap().resolve().unwrap();
    let plain = bench.exported(image);
    let mut disk = old.to_vec();
    for block in (0..resolved.header().blocks).map(slidecast_proto::units::BlockNo) {
        for place in resolved.block_places(block) {
            let at = usize::try_from(place.target * 4096).unwrap();
            let end = (at + place.grains as usize * 4096).min(plain.len());
            disk[at..end].copy_from_slice(&plain[at..end]);
        }
    }
    disk
}

#[test]
fn nothing_of_an_old_array_or_pool_is_left_where_a_file_system_has_free_space() {
    let bench = Bench::new();
    let Some(disk) = disk_with_ext4(&bench, "disk") else { return };
    bench.base(&disk, "a.slide");
    let old = bench.disk("old", 128 * MIB, &[]);
    scribble(&old, MIB, 100 * MIB);
    scribble(&old, 0, 128 * MIB);
    let old = std::fs::read(old).unwrap();
    let old_len = old.len() - 33 * 512;
    assert!(has_signs(&old));
    // The backup GPT is made anew.
    assert!(!has_signs(&over(&bench, "a.slide", &old)[..old_len]));
}

#[test]
fn an_increment_says_it_too_where_its_parent_had_a_file_system_that_was_full() {
    let bench = Bench::new();
    let full = bench.disk("full", 128 * MIB, &[(MIB, noise(1, 100 << 20))]);
    bench.base(&full, "a.slide");
    let Some(disk) = disk_with_ext4(&bench, "disk") else { return };
    let report = bench.child(&disk, "a.slide", "b.slide").unwrap();
    assert!(report.unused_bytes > 50 * MIB);
    let again = bench.child(&disk, "b.slide", "c.slide").unwrap();
    assert_eq!(again.absent_bytes, 128 * MIB);
    let old = bench.disk("old", 128 * MIB, &[]);
    scribble(&old, MIB, 100 * MIB);
    let old = std::fs::read(old).unwrap();
    assert!(!has_signs(&over(&bench, "b.slide", &old)) && !has_signs(&over(&bench, "c.slide", &old)));
}

#[test]
fn with_a_coarse_grain_nothing_of_an_old_array_is_left_either() {
    let bench = Bench::new();
    let Some(disk) = disk_with_ext4(&bench, "disk") else { return };
    let options = CreateOptions {
        grain: Some(256 << 10),
        block: Some(1 << 20),
        ..CreateOptions::new(&disk, &bench.path("a.slide"))
    };
    let report = create(&options, |_| ()).unwrap();
    assert!(report.unused_bytes > 50 * MIB);
    let resolved = slidecast_image::Image::open(&bench.path("a.slide")).unwrap().resolve().unwrap();
    let places =
        (0..resolved.header().blocks).flat_map(|no| resolved.block_places(slidecast_proto::units::BlockNo(no)));
    let places: Vec<_> =
        places.map(|place| (place.target << 18, (place.target + u64::from(place.grains)) << 18)).collect();
    // The places of md 0.90 and 1.0 and of the last two ZFS labels.
    for at in [101 * MIB - 65536, 101 * MIB - 8192, 101 * MIB - (512 << 10), 101 * MIB - 1] {
        assert!(places.iter().any(|(start, end)| (*start..*end).contains(&at)), "{at}");
    }
}

#[test]
fn signs_of_a_raid_at_the_end_of_a_disk_that_has_grown_come_back_as_they_were() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 60 * MIB, &[]);
    if !run("sgdisk", &["-n1:2048:+20M", disk.to_str().unwrap()]) {
        return println!("SKIPPED: no sgdisk");
    }
    let file = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
    file.set_len(64 * MIB).unwrap();
    file.write_all_at(b"Intel Raid ISM Cfg Sig. 1.3.00", 131_070 * 512).unwrap();
    let report = bench.base(&disk, "a.slide");
    assert!(report.notes.iter().any(|note| note.contains("the signs of Intel RAID")), "{:?}", report.notes);
    assert!(bench.is_equal("a.slide", &disk));
}

#[test]
fn only_a_backup_of_this_very_table_or_zeros_is_left_out_of_an_image() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 64 * MIB, &[]);
    if !run("sgdisk", &["-n1:2048:+20M", disk.to_str().unwrap()]) {
        return println!("SKIPPED: no sgdisk");
    }
    let area = 64 * MIB - 33 * 512;
    assert!(bench.base(&disk, "whole.slide").unused_bytes > 0);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&disk).unwrap();
    let mut right = vec![0; 33 * 512];
    file.read_exact_at(&mut right, area).unwrap();
    for (at, what) in
        [(0, "an entry"), (32 * 512, "the magic"), (32 * 512 + 60, "the GUID"), (32 * 512 + 300, "behind")]
    {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        file.write_all_at(&wrong, area).unwrap();
        let report = bench.base(&disk, "a.slide");
        assert_eq!(report.unused_bytes, 0, "{what}");
        assert!(bench.is_equal("a.slide", &disk), "{what}");
    }
    file.write_all_at(&vec![0; 33 * 512], area).unwrap();
    assert!(bench.base(&disk, "a.slide").unused_bytes > 0);
    file.write_all_at(&right, area).unwrap();
    assert!(bench.is_equal("a.slide", &disk));
}

#[test]
fn an_image_goes_onto_a_disk_of_its_own_size_whatever_its_table_says() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 64 * MIB, &[]);
    if !run("sgdisk", &["-n1:2048:+20M", disk.to_str().unwrap()]) {
        return println!("SKIPPED: no sgdisk");
    }
    std::fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(22_020_096).unwrap();
    bench.base(&disk, "a.slide");
    let report = exported(&bench.path("a.slide"), &bench.path("out")).unwrap();
    assert_eq!(report.notes, Vec::<String>::new());
    assert!(std::fs::read(bench.path("out")).unwrap() == std::fs::read(&disk).unwrap());
}
