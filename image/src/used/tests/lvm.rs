//! LVM2 against lvm2 itself, without a device-mapper: it only writes metadata here, and the bytes of a logical volume are
//! reached through the places that `lvs` and `pvs` tell.

use super::oracle::{MIB, assert_same_files, empty, files, scribble, sum, unused, unused_of};
use crate::source::{DiskSource, RawDisk, ReadAt};
use crate::testing::{LoopDevice, run, tool};
use crate::used::scan;
use core::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Physical volumes on loop devices, and a configuration of LVM2 that knows no other disks.
struct Disks {
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
    devices: Vec<LoopDevice>,
}

impl Disks {
    /// `None` where something is missing, and a line that says so.
    fn new(sizes: &[u64]) -> Option<Self> {
        tool("lvm")?;
        tool("mke2fs")?;
        let dir = tempfile::tempdir().unwrap();
        let mut disks = Self { dir, files: Vec::new(), devices: Vec::new() };
        for (no, bytes) in sizes.iter().enumerate() {
            let path = disks.dir.path().join(format!("disk{no}"));
            std::fs::File::create(&path).unwrap().set_len(*bytes).unwrap();
            disks.devices.push(LoopDevice::new(&path, 512)?);
            disks.files.push(path);
        }
        Some(disks)
    }

    /// Runs a command of LVM2; `DISKS` in it are all devices.
    fn lvm(&self, command: &str) -> String {
        let names: Vec<&str> = self.devices.iter().map(LoopDevice::path).collect();
        let filter: String = names.iter().map(|name| format!("\"a|^{name}$|\",")).collect();
        let locks = self.dir.path().display();
        let config = format!(
            "devices {{ filter=[{filter}\"r|.*|\"] use_devicesfile=0 obtain_device_list_from_udev=0 }} \
             activation {{ udev_sync=0 udev_rules=0 }} backup {{ backup=0 archive=0 }} global {{ locking_dir=\"{locks}\" event_activation=0 }}"
        );
        let command = command.replace("DISKS", &names.join(" "));
        let words = command.split_whitespace();
        run("lvm", words.chain(["--driverloaded", "n", "--config", &config]))
    }

    fn group(&self, options: &str) {
        self.lvm("pvcreate -q -y DISKS");
        self.lvm(&format!("vgcreate -q --setautoactivation n {options} vg0 DISKS"));
    }

    fn volume(&self, options: &str) {
        self.lvm(&format!("lvcreate -q -y -an -Wn -Zn {options}"));
    }

    /// Numbers that LVM2 tells of the first disk.
    fn numbers(&self, columns: &str) -> Vec<u64> {
        let said = self.lvm(&format!("pvs --noheadings --units b --nosuffix -o {columns} {}", self.devices[0].path()));
        said.lines().next().unwrap().split_whitespace().map(|field| field.parse().unwrap()).collect()
    }

    /// Where the bytes of a linear volume lie on the first disk, by the word of LVM2.
    fn places(&self, volume: &str) -> Vec<Range<u64>> {
        let numbers = self.numbers("pe_start,vg_extent_size");
        let said = self.lvm(&format!("lvs --noheadings --sort seg_start -o seg_pe_ranges vg0/{volume}"));
        let ranges =
            said.lines().filter_map(|line| line.trim().strip_prefix(self.devices[0].path())?.strip_prefix(':'));
        let number = |text: &str| text.parse::<u64>().unwrap();
        ranges
            .map(|range| range.split_once('-').unwrap())
            .map(|(first, last)| number(first)..number(last) + 1)
            .map(|run| numbers[0] + run.start * numbers[1]..numbers[0] + run.end * numbers[1])
            .collect()
    }
}

/// Copies a file into the places of a volume, or out of them.
fn copy(disk: &Path, places: &[Range<u64>], file: &Path, into_the_disk: bool) {
    let (disk, file) = (open(disk), open(file));
    let mut at = 0;
    for place in places {
        let mut bytes = vec![0; usize::try_from(place.end - place.start).unwrap()];
        if into_the_disk {
            let held = usize::try_from(file.metadata().unwrap().len().saturating_sub(at)).unwrap().min(bytes.len());
            file.read_exact_at(&mut bytes[..held], at).unwrap();
            disk.write_all_at(&bytes, place.start).unwrap();
        } else {
            disk.read_exact_at(&mut bytes, place.start).unwrap();
            file.write_all_at(&bytes, at).unwrap();
        }
        at += bytes.len() as u64;
    }
}

fn open(path: &Path) -> std::fs::File {
    std::fs::File::options().read(true).write(true).open(path).unwrap()
}

fn ext4(bytes: u64, source: &Path) -> (tempfile::TempDir, PathBuf) {
    let (dir, path) = empty(bytes);
    run("mke2fs", ["-q", "-F", "-t", "ext4", "-d", source.to_str().unwrap(), path.to_str().unwrap()]);
    (dir, path)
}

#[test]
fn free_extents_and_the_free_space_of_an_ext4_in_two_pieces_are_unused_and_its_files_stay() {
    let Some(disks) = Disks::new(&[140 * MIB]) else { return };
    disks.group("");
    disks.volume("-l 6 -n root vg0");
    disks.volume("-l 7 -n blank vg0");
    disks.lvm("lvextend -q -l +9 vg0/root");
    let places = disks.places("root");
    assert_eq!(places.len(), 2);
    let source = files(60, 300_000);
    let (_dir, image) = ext4(60 * MIB, source.path());
    copy(&disks.files[0], &places, &image, true);
    let expected = unused(&image).1.unwrap();
    let (name, found) = unused(&disks.files[0]);
    let found = found.unwrap();
    assert_eq!(name, "LVM2");
    // As many bytes as the file system alone has, and the 12 extents that nobody has.
    assert_eq!(sum(&found), sum(&expected) + 12 * 4 * MIB);
    assert!(
        disks
            .places("blank")
            .iter()
            .all(|place| !found.iter().any(|free| free.start < place.end && place.start < free.end))
    );
    scribble(&disks.files[0], &found);
    disks.lvm("vgck vg0");
    copy(&disks.files[0], &places, &image, false);
    run("e2fsck", ["-f", "-n", image.to_str().unwrap()]);
    let out = tempfile::tempdir().unwrap();
    run("debugfs", ["-R", &format!("rdump / {}", out.path().display()), image.to_str().unwrap()]);
    assert_same_files(out.path(), source.path());
}

#[test]
fn a_volume_in_stripes_over_one_disk_is_read_through_them() {
    // Two physical volumes would be needed to make one; the text of such a volume on one disk is written by hand.
    let source = files(20, 100_000);
    if tool("mke2fs").is_none() {
        return;
    }
    let (_dir, image) = ext4(32 * MIB, source.path());
    let content = std::fs::read(&image).unwrap();
    let stripe = 64 << 10;
    let mut disk = vec![0; 64 << 20];
    for (no, part) in content.chunks(stripe).enumerate() {
        let area = if no % 2 == 0 { MIB } else { MIB + 20 * MIB };
        let at = usize::try_from(area).unwrap() + no / 2 * stripe;
        disk[at..at + stripe].copy_from_slice(part);
    }
    let segment = "extent_count=8 type=\"striped\" stripe_count=2 stripe_size=128 stripes=[\"pv0\",0,\"pv0\",5]";
    super::pv::write(&mut disk, 64 * MIB, MIB, &super::pv::group(15, &super::pv::volume("data", segment)), 0);
    let found = unused_of(&disk, 64 * MIB).1.unwrap();
    let expected = unused_of(&content, 32 * MIB).1.unwrap();
    assert_eq!(sum(&found), sum(&expected) + 7 * 4 * MIB);
    for range in found {
        disk[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].fill(0x5A);
    }
    let mut back = Vec::new();
    for no in 0..content.len() / stripe {
        let area = if no % 2 == 0 { MIB } else { MIB + 20 * MIB };
        let at = usize::try_from(area).unwrap() + no / 2 * stripe;
        back.extend_from_slice(&disk[at..at + stripe]);
    }
    std::fs::write(&image, back).unwrap();
    run("e2fsck", ["-f", "-n", image.to_str().unwrap()]);
    let out = tempfile::tempdir().unwrap();
    run("debugfs", ["-R", &format!("rdump / {}", out.path().display()), image.to_str().unwrap()]);
    assert_same_files(out.path(), source.path());
}

/// A logical volume of one segment, as LVM2 writes it.
fn logical(name: &str, status: &str, segment: &str) -> String {
    let id: String =
        name.bytes().chain([b'0'; 32]).filter(u8::is_ascii_alphanumeric).take(32).map(char::from).collect();
    let at = |range: Range<usize>| &id[range];
    let id = [at(0..6), at(6..10), at(10..14), at(14..18), at(18..22), at(22..26), at(26..32)].join("-");
    format!(
        "{name} {{ id=\"{id}\" status=[\"READ\", \"WRITE\"{status}] flags=[] segment_count=1\nsegment1 {{ start_extent=0 {segment} }} }}\n"
    )
}

fn linear(extents: u64, at: u64) -> String {
    format!("extent_count={extents} type=\"striped\" stripe_count=1 stripes=[\"pv0\", {at}]")
}

#[test]
fn thin_cached_mirrored_and_snapshot_volumes_keep_their_extents_and_are_named() {
    let Some(disks) = Disks::new(&[240 * MIB]) else { return };
    disks.group("");
    let source = files(5, 1000);
    let (_dir, image) = ext4(40 * MIB, source.path());
    disks.volume("-l 10 -n plain vg0");
    // Without a device-mapper LVM2 makes no such volumes, but it takes them from a backup of its metadata, which it checks.
    let (shown, hidden) = (", \"VISIBLE\"", "");
    let volumes = [
        ("origin", shown, linear(10, 10)),
        ("snap", shown, linear(2, 20)),
        ("snapshot0", hidden, "extent_count=10 type=\"snapshot\" chunk_size=8 origin=\"origin\" cow_store=\"snap\"".to_owned()),
        ("pool", shown, "extent_count=10 type=\"thin-pool\" metadata=\"pool_tmeta\" pool=\"pool_tdata\" transaction_id=1 chunk_size=128 \
         discards=\"passdown\" zero_new_blocks=1".to_owned()),
        ("pool_tdata", hidden, linear(10, 22)),
        ("pool_tmeta", hidden, linear(1, 32)),
        ("lvol0_pmspare", hidden, linear(1, 33)),
        ("thin", shown, "extent_count=256 type=\"thin\" thin_pool=\"pool\" transaction_id=0 device_id=1".to_owned()),
        ("raid", shown, "extent_count=3 type=\"raid1\" device_count=2 region_size=4096 \
         raids=[\"raid_rmeta_0\", \"raid_rimage_0\", \"raid_rmeta_1\", \"raid_rimage_1\"]".to_owned()),
        ("raid_rmeta_0", hidden, linear(1, 34)),
        ("raid_rimage_0", hidden, linear(3, 35)),
        ("raid_rmeta_1", hidden, linear(1, 38)),
        ("raid_rimage_1", hidden, linear(3, 39)),
        ("cached", shown, "extent_count=4 type=\"cache\" cache_pool=\"fast_cvol\" origin=\"cached_corig\" metadata_format=2 chunk_size=128 \
         cache_mode=\"writethrough\" policy=\"smq\" metadata_start=0 metadata_len=16384 data_start=16384 data_len=16384".to_owned()),
        ("cached_corig", hidden, linear(4, 42)),
        ("fast_cvol", hidden, linear(4, 46)),
    ];
    let backup = disks.dir.path().join("backup");
    disks.lvm(&format!("vgcfgbackup -q -f {} vg0", backup.display()));
    let more: String = volumes.iter().map(|(name, status, segment)| logical(name, status, segment)).collect();
    let text = std::fs::read_to_string(&backup).unwrap();
    std::fs::write(&backup, text.replace("logical_volumes {", &format!("logical_volumes {{\n{more}"))).unwrap();
    disks.lvm(&format!("vgcfgrestore -q -f {} --force vg0", backup.display()));
    for volume in [0, 10] {
        let at = MIB + volume * 4 * MIB;
        copy(&disks.files[0], std::slice::from_ref(&(at..at + 40 * MIB)), &image, true);
    }
    let source = RawDisk::open(&disks.files[0]).unwrap();
    let report = scan(&source, source.bytes(), 512);
    let partition = &report.partitions[0];
    assert_eq!((partition.fs.as_str(), partition.note.as_str()), ("LVM2", ""));
    let why = "all of it is kept: it is part of a thin, cached, mirrored or snapshot volume";
    for (volume, ..) in volumes.iter().filter(|(_, _, segment)| segment.contains("stripes")) {
        let note = format!("LVM2 on the whole disk: logical volume vg0/{volume}: {why}");
        assert!(report.notes.contains(&note), "{volume}: {:?}", report.notes);
    }
    assert_eq!(report.notes.len(), 11);
    // The plain volume alone is looked into; every extent of the others is used.
    let counts = disks.numbers("pv_pe_count,pv_pe_alloc_count");
    assert_eq!(counts[1], 50);
    assert_eq!(partition.unused_bytes, sum(&unused(&image).1.unwrap()) + (counts[0] - counts[1]) * 4 * MIB);
}

#[test]
fn a_group_of_several_disks_has_its_free_extents_unused_and_nothing_in_its_volumes() {
    let Some(disks) = Disks::new(&[100 * MIB, 100 * MIB]) else { return };
    disks.group("");
    disks.volume("-l 10 -n here vg0");
    disks.volume("-i 2 -l 8 -n both vg0");
    for (file, free) in disks.files.iter().zip([24 - 14, 24 - 4]) {
        let content = std::fs::read(file).unwrap();
        let report = scan(&content, 100 * MIB, 512);
        assert_eq!(report.partitions[0].unused_bytes, free * 4 * MIB, "{:?}", report.notes);
        let note = "LVM2 on the whole disk: volume group vg0 has other physical volumes: its logical volumes are kept as a whole";
        assert_eq!(report.notes, [note]);
    }
    // One disk without its own metadata, and one that belongs to nobody.
    disks.lvm(&format!("pvchange -q --metadataignore y {}", disks.devices[1].path()));
    let content = std::fs::read(&disks.files[1]).unwrap();
    assert_eq!(
        scan(&content, 100 * MIB, 512).partitions[0].note,
        "all of it is kept: the free space of LVM2 without metadata on this disk is not read"
    );
    disks.lvm("vgremove -q -f vg0");
    let content = std::fs::read(&disks.files[0]).unwrap();
    assert_eq!(
        scan(&content, 100 * MIB, 512).partitions[0].note,
        "all of it is kept: the free space of an LVM2 physical volume that is in no volume group is not read"
    );
}

#[test]
fn a_text_that_lvm_wrapped_in_its_ring_and_two_metadata_areas_are_read() {
    let Some(disks) = Disks::new(&[100 * MIB]) else { return };
    disks.lvm("pvcreate -q -y --metadatacopies 2 --metadatasize 64k --dataalignment 128k DISKS");
    disks.lvm("vgcreate -q --setautoactivation n -s 1M vg0 DISKS");
    disks.volume("-l 5 -n root vg0");
    for round in 0..20 {
        let tags: String = (0..10).map(|no| format!(" --addtag r{round}_{no}_{}", "x".repeat(100))).collect();
        disks.lvm(&format!("lvchange -q{tags} vg0/root"));
        let source = RawDisk::open(&disks.files[0]).unwrap();
        let (name, found) = unused(&disks.files[0]);
        assert_eq!(
            (name, sum(&found.unwrap())),
            ("LVM2", (disks.numbers("pv_pe_count")[0] - 5) * MIB),
            "round {round}"
        );
        let mut area = [0; 64];
        source.read_at(4096, &mut area).unwrap();
        let number = |at: usize| u64::from_le_bytes(area[at..at + 8].try_into().unwrap());
        if number(40) + number(48) > number(32) {
            return;
        }
    }
    panic!("LVM2 has not let its text wrap");
}
