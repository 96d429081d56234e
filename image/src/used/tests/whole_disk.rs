//! Whole disks: tables with file systems in them.

use super::oracle::{MIB, empty, unused};
use crate::manifest::TableKind;
use crate::sector;
use crate::source::{DiskSource, RawDisk};
use crate::testing::{run, run_with, tool};
use crate::used::{DiskReport, scan};
use std::path::Path;

fn scanned(path: &Path) -> DiskReport {
    let source = RawDisk::open(path).unwrap();
    let proof = sector::proven(&source, source.bytes()).unwrap();
    let report = scan(&source, source.bytes(), proof.map_or(512, |proof| proof.sector));
    assert!(report.unused.windows(2).all(|pair| pair[0].end < pair[1].start));
    report
}

/// Copies the file system `from` into a disk at `at`.
fn place(from: &Path, disk: &Path, at: u64) {
    let (from, to) = (format!("if={}", from.display()), format!("of={}", disk.display()));
    run("dd", [&from, &to, "bs=1M", &format!("seek={}", at / MIB), "conv=notrunc,sparse", "status=none"]);
}

fn made(bytes: u64, program: &str, options: &[&str]) -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    if tool("sfdisk").is_none()
        || !["mke2fs", "mkfs.vfat", "mkntfs", "mkswap"].into_iter().all(|name| tool(name).is_some())
    {
        return None;
    }
    let (dir, path) = empty(bytes);
    run(program, options.iter().copied().chain([path.to_str().unwrap()]));
    Some((dir, path))
}

#[test]
fn a_disk_with_one_partition_of_each_kind_has_its_free_space_and_its_backup_gpt_unused() {
    let Some((_dir, disk)) = made(220 * MIB, "true", &[]) else { return };
    let script = "label: gpt\nstart=1M,size=40M,type=U,name=esp\nsize=60M\nsize=30M,type=S\nsize=50M\nsize=20M\n";
    run_with("sfdisk", ["-q", disk.to_str().unwrap()], script);
    let (_a, fat) = made(40 * MIB, "mkfs.vfat", &["-F32"]).unwrap();
    let (_b, ext) = made(60 * MIB, "mke2fs", &["-q", "-F", "-t", "ext4"]).unwrap();
    let (_c, swap) = made(30 * MIB, "mkswap", &[]).unwrap();
    let (_d, ntfs) = made(50 * MIB, "mkntfs", &["-q", "-F", "-Q"]).unwrap();
    let (_e, luks) = empty(20 * MIB);
    std::fs::write(&luks, b"LUKS\xBA\xBE").unwrap();
    let mut expected = Vec::new();
    let starts = [1, 41, 101, 131, 181].map(|mib| mib * MIB);
    for (file, start) in
        [(&fat, starts[0]), (&ext, starts[1]), (&swap, starts[2]), (&ntfs, starts[3]), (&luks, starts[4])]
    {
        place(file, &disk, start);
        let ranges = unused(file).1.unwrap_or_default();
        expected.extend(ranges.into_iter().map(|range| start + range.start..start + range.end));
    }
    let report = scanned(&disk);
    assert_eq!(report.table, TableKind::Gpt);
    assert_eq!(report.notes, Vec::<String>::new());
    let names: Vec<_> = report.partitions.iter().map(|p| (p.index, p.start, p.fs.as_str())).collect();
    assert_eq!(
        names,
        [
            (1, starts[0], "FAT32"),
            (2, starts[1], "ext4"),
            (3, starts[2], "swap"),
            (4, starts[3], "NTFS"),
            (5, starts[4], "LUKS")
        ]
    );
    assert_eq!(report.partitions[0].name, "esp");
    assert_eq!(report.partitions[4].note, "all of it is kept: the free space of LUKS is not read");
    assert!(report.partitions.iter().all(|p| p.used_bytes + p.unused_bytes == p.bytes));
    // Aligned to 4 KiB (the data of the FAT are not), with the backup at the end.
    expected.push(220 * MIB - 33 * 512..220 * MIB);
    let all_in = |one: &[std::ops::Range<u64>], other: &[std::ops::Range<u64>], slack: u64| {
        one.iter().all(|a| other.iter().any(|b| b.start <= a.start + slack && a.end <= b.end + slack))
    };
    let end = 220 * MIB;
    assert!(report.unused.iter().all(|r| r.start % 4096 == 0 && (r.end % 4096 == 0 || r.end == end)));
    let mut joined: Vec<std::ops::Range<u64>> = Vec::new();
    for range in expected {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    assert!(all_in(&report.unused, &joined, 0));
    joined.retain(|range| range.end - range.start > 8192);
    assert!(all_in(&joined, &report.unused, 4095));
}

#[test]
fn a_file_system_without_a_partition_table_is_one_partition() {
    for (program, options, name) in
        [("mke2fs", &["-q", "-F"][..], "ext2"), ("mkfs.vfat", &[], "FAT16"), ("mkntfs", &["-q", "-F", "-Q"], "NTFS")]
    {
        let Some((_dir, disk)) = made(32 * MIB, program, options) else { return };
        let report = scanned(&disk);
        assert_eq!((report.table, report.partitions.len()), (TableKind::None, 1), "{name}: {:?}", report.notes);
        assert_eq!((report.partitions[0].index, report.partitions[0].fs.as_str()), (0, name));
        assert!(!report.unused.is_empty());
    }
}

#[test]
fn a_logical_partition_has_its_free_space_unused_and_boot_records_stay() {
    let Some((_dir, disk)) = made(120 * MIB, "true", &[]) else { return };
    run_with(
        "sfdisk",
        ["-q", disk.to_str().unwrap()],
        "label: dos\nstart=1M,size=90M,type=5\nstart=2M,size=40M\nstart=50M,size=40M\n",
    );
    let (_a, ext) = made(40 * MIB, "mke2fs", &["-q", "-F", "-t", "ext4"]).unwrap();
    place(&ext, &disk, 2 * MIB);
    place(&ext, &disk, 50 * MIB);
    let report = scanned(&disk);
    assert_eq!(
        report.partitions.iter().map(|p| (p.index, p.fs.as_str())).collect::<Vec<_>>(),
        [(5, "ext4"), (6, "ext4")]
    );
    assert!(
        report
            .unused
            .iter()
            .all(|r| (r.start >= 2 * MIB && r.end <= 42 * MIB) || (r.start >= 50 * MIB && r.end <= 90 * MIB))
    );
    assert!(!report.unused.is_empty());
}

#[test]
fn a_table_over_a_file_system_is_doubt_and_everything_is_used() {
    let Some((_dir, disk)) = made(32 * MIB, "mke2fs", &["-q", "-F"]) else { return };
    // ext leaves the first sector to boot loaders, so an MBR fits in front of it.
    run_with("sfdisk", ["-q", "--wipe=never", disk.to_str().unwrap()], "label: dos\nstart=1M\n");
    let report = scanned(&disk);
    assert_eq!(report.table, TableKind::Mbr);
    assert_eq!(report.unused, []);
    assert_eq!(report.notes, ["everything on the disk is kept: it has an MBR and the signs of ext2"]);
}

#[test]
fn an_old_label_of_lvm_in_front_of_a_partition_table_is_not_in_the_way() {
    let Some((_dir, disk)) = made(64 * MIB, "true", &[]) else { return };
    run_with("sfdisk", ["-q", disk.to_str().unwrap()], "label: dos\nstart=1M,size=40M\n");
    let (_a, ext) = made(40 * MIB, "mke2fs", &["-q", "-F", "-t", "ext4"]).unwrap();
    place(&ext, &disk, MIB);
    let before = scanned(&disk);
    assert!(!before.unused.is_empty());
    let mut image = std::fs::read(&disk).unwrap();
    image[512..520].copy_from_slice(b"LABELONE");
    assert_eq!(scan(&image, 64 * MIB, 512), before);
}

#[test]
fn the_signs_of_two_file_systems_are_doubt_and_the_partition_is_used() {
    let Some((_dir, disk)) = made(32 * MIB, "mke2fs", &["-q", "-F"]) else { return };
    let image = std::fs::read(&disk).unwrap();
    for (at, sign, name) in [
        (0, &b"LUKS\xBA\xBE"[..], "LUKS"),
        (512, b"LABELONE", "LVM2"),
        (65600, b"_BHRfS_M", "Btrfs"),
        (131_072, b"\x0C\xB1\xBA\0\0\0\0\0", "ZFS"),
        (4096, b"\xFC\x4E\x2B\xA9", "md RAID"),
        (image.len() - 8192, b"\xFC\x4E\x2B\xA9", "md RAID"),
        (image.len() - 65536, b"\xFC\x4E\x2B\xA9", "md RAID"),
        (4086, b"SWAPSPACE2", "swap"),
    ] {
        let mut image = image.clone();
        image[at..at + sign.len()].copy_from_slice(sign);
        let report = scan(&image, 32 * MIB, 512);
        assert_eq!(report.unused, []);
        assert_eq!(report.partitions[0].note, format!("all of it is kept: it has the signs of ext2 and of {name}"));
    }
}

#[test]
fn a_corrupt_gpt_makes_everything_used_and_says_so() {
    let Some((_dir, disk)) = made(64 * MIB, "true", &[]) else { return };
    run_with("sfdisk", ["-q", disk.to_str().unwrap()], "label: gpt\nstart=1M,size=40M\n");
    let (_a, ext) = made(40 * MIB, "mke2fs", &["-q", "-F", "-t", "ext4"]).unwrap();
    place(&ext, &disk, MIB);
    assert!(!scanned(&disk).unused.is_empty());
    let mut image = std::fs::read(&disk).unwrap();
    image[1024 + 40] ^= 1;
    let report = scan(&image, 64 * MIB, 512);
    assert_eq!((report.unused.len(), report.partitions.len()), (0, 0));
    assert_eq!(report.notes, ["everything on the disk is kept: the GPT cannot be used: its entries do not hold"]);
}
