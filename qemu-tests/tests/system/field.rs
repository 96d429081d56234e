//! Disks of which other imaging tools' users reported trouble: `docs/FIELD.md` has the reports.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use slidecast_lab::disk::random;
use slidecast_lab::{Exit, Lab, NodeOptions, tool};

use crate::fixtures::{Fixtures, LONG, SOON, deploy_to, says, slidecast};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("field::holes_of_a_source_overwrite_what_the_target_held", Needs::Network, holes),
    ("field::a_partition_that_was_never_formatted_shows_no_older_file_system", Needs::Network, unformatted),
    ("field::boot_code_before_the_first_partition_arrives_whole", Needs::Network, boot_code),
    ("field::a_fitted_table_keeps_guids_attributes_and_the_active_flag", Needs::Network, attributes),
    ("field::a_target_a_few_sectors_larger_gets_all_data_and_a_sound_table", Needs::Network, barely_larger),
    ("field::ext4_of_every_layout_is_sound_on_a_disk_that_was_full_of_other_data", Needs::Network, layouts),
    ("field::no_old_signature_shows_at_the_end_of_a_larger_target", Needs::Network, behind),
    ("field::a_table_that_is_not_fitted_is_told_by_the_agent_and_in_the_report", Needs::Network, unfitted),
    ("field::partitions_outside_the_disk_are_kept_as_they_are", Needs::Network, outside),
    (
        "field::a_disk_that_grew_and_shrank_again_is_deployed_at_the_size_of_its_newest_increment",
        Needs::Network,
        resized,
    ),
];

const MIB: u64 = 1 << 20;
const MEBIBYTE: usize = 1 << 20;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A file of zeros, none of which takes room.
fn sparse(path: &Path, bytes: u64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Bytes that no disk holds by itself.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let dir = Fixtures::get().folder("noise");
    let path = dir.join(format!("{seed}-{len}"));
    random::write_file(&path, u64::try_from(len).unwrap(), seed).unwrap();
    fs::read(path).unwrap()
}

/// A folder, and in it a disk of this size whose GPT has been made with these arguments of `sgdisk`.
fn disk(name: &str, bytes: u64, partitions: &[&str]) -> PathBuf {
    let path = Fixtures::get().folder(name).join("source.img");
    sparse(&path, bytes);
    if !partitions.is_empty() {
        sgdisk(&path, partitions);
    }
    path
}

fn sgdisk(disk: &Path, args: &[&str]) -> String {
    let disk = text(disk);
    let all: Vec<&str> = args.iter().copied().chain([disk.as_str()]).collect();
    tool::run("sgdisk", all).unwrap()
}

/// Makes an image of the disk and writes it to a target of that size, filled by `before`. The target as it is then.
fn deployed(source: &Path, bytes: u64, before: impl Fn(&Path)) -> PathBuf {
    let image = source.with_extension("slide");
    slidecast(&["image", "create", &text(source), "-o", &text(&image)]);
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &NodeOptions::file(bytes)).unwrap();
    before(&node.target.file);
    deploy_to(&lab, std::slice::from_ref(&node), &image, &[]);
    let target = source.with_extension(format!("{bytes}.target"));
    fs::copy(&node.target.file, &target).unwrap();
    target
}

fn full_of_noise(target: &Path) {
    let bytes = fs::metadata(target).unwrap().len();
    random::write_file(target, bytes, 77).unwrap();
}

fn holes() {
    let bytes = 24 * MIB;
    let source = disk("holes", bytes, &[]);
    write_at(&source, 3 * MIB, &noise(5000, 1));
    write_at(&source, bytes - 512, &noise(512, 2));
    let target = deployed(&source, bytes, full_of_noise);
    assert!(fs::read(source).unwrap() == fs::read(target).unwrap());
}

fn unformatted() {
    let source = disk("unformatted", 24 * MIB, &["-n1:2048:+20M"]);
    let older = |target: &Path| {
        sgdisk(target, &["-n1:2048:+20M"]);
        let target = text(target);
        tool::run("mke2fs", ["-q", "-F", "-t", "ext4", "-E", "offset=1048576", &target, "20M"]).unwrap();
    };
    let target = fs::read(deployed(&source, 24 * MIB, older)).unwrap();
    assert!(target[MEBIBYTE..21 * MEBIBYTE].iter().all(|&byte| byte == 0));
}

fn boot_code() {
    // From behind the table to the first partition: a loader at sector 64, or the rest of a boot loader.
    let source = disk("boot-code", 24 * MIB, &["-n1:2048:+20M"]);
    let (from, code) = (34 * 512, noise(MEBIBYTE - 34 * 512, 3));
    write_at(&source, 34 * 512, &code);
    for bytes in [24 * MIB, 40 * MIB] {
        let target = fs::read(deployed(&source, bytes, full_of_noise)).unwrap();
        assert!(target[from..MEBIBYTE] == code, "on {bytes} bytes");
    }
}

fn attributes() {
    let marks = ["-n1:2048:+20M", "-A1:set:55", "-A1:set:0", "-c1:system", "-u1:11111111-2222-3333-4444-555555555555"];
    let source = disk("attributes", 24 * MIB, &marks);
    write_at(&source, 0, &noise(440, 4));
    // Some firmware starts nothing from a disk without an active partition in its first sector.
    write_at(&source, 446, &[0x80]);
    let target = deployed(&source, 40 * MIB, |_| {});
    assert_eq!(sgdisk(&source, &["-i1"]), sgdisk(&target, &["-i1"]));
    let guid = |disk: &Path| {
        let said = sgdisk(disk, &["-p"]);
        said.lines().find(|line| line.contains("GUID")).unwrap().to_owned()
    };
    assert_eq!(guid(&source), guid(&target));
    assert!(fs::read(&source).unwrap()[..447] == fs::read(&target).unwrap()[..447]);
    assert!(sgdisk(&target, &["-v"]).contains("No problems found"));
}

fn behind() {
    let source = disk("behind", 24 * MIB, &["-n1:2048:+20M"]);
    let bytes = 40 * MIB;
    let seen = |target: &Path| tool::run("wipefs", ["-n", &text(target)]).unwrap();
    let older = |target: &Path| {
        // The uberblocks of the last two labels of ZFS, and md superblocks 0.90 and 1.0.
        for label in [bytes - 512 * 1024, bytes - 256 * 1024] {
            for uberblock in 0..128 {
                write_at(target, label + 128 * 1024 + uberblock * 1024, b"\x0C\xB1\xBA\0\0\0\0\0");
            }
        }
        write_at(target, bytes - 64 * 1024, b"\xFC\x4E\x2B\xA9");
        write_at(target, bytes - 8 * 1024, b"\xFC\x4E\x2B\xA9\x01");
        assert!(seen(target).contains("linux_raid_member"), "{}", seen(target));
    };
    let target = deployed(&source, bytes, older);
    let said = seen(&target);
    assert!(said.contains("gpt") && !said.contains("_member"), "{said}");
    assert!(sgdisk(&target, &["-v"]).contains("No problems found"));
    let target = fs::read(target).unwrap();
    let (from, table) = (target.len() - 512 * 1024, target.len() - 33 * 512);
    assert!(target[from..table].iter().all(|&byte| byte == 0));
}

fn barely_larger() {
    // The partition reaches the last sector that a table leaves; the new backup needs 33 sectors behind it.
    let last = 24 * MIB / 512 - 34;
    let source = disk("barely-larger", 24 * MIB, &[&format!("-n1:2048:{last}")]);
    let end = usize::try_from((last + 1) * 512).unwrap();
    write_at(&source, MIB, &noise(end - MEBIBYTE, 5));
    let whole = fs::read(&source).unwrap();
    for more in [512, 4096, 33 * 512, 34 * 512] {
        let target = deployed(&source, 24 * MIB + more, full_of_noise);
        assert!(fs::read(&target).unwrap()[MEBIBYTE..end] == whole[MEBIBYTE..end], "{more} bytes larger");
        assert!(sgdisk(&target, &["-v"]).contains("No problems found"), "{more} bytes larger");
    }
}

fn unfitted() {
    let many = disk("unfitted-many", 32 * MIB, &["-S2048", "-n1:2048:+10M"]);
    let damaged = disk("unfitted-damaged", 32 * MIB, &["-n1:2048:+10M"]);
    // A byte of the primary header that its checksum covers.
    write_at(&damaged, 512 + 56, &[0xAA]);
    let grown = "the GPT was not fitted to the disk of 41943040 bytes";
    for (source, why) in [(&many, "it has more than 1024 entries"), (&damaged, "do not match their checksums")] {
        let slide = source.with_extension("slide");
        slidecast(&["image", "create", &text(source), "-o", &text(&slide)]);
        let lab = Lab::new(1).unwrap();
        let node = lab.node(0, &NodeOptions::file(40 * MIB)).unwrap();
        let mut deploy = lab.deploy(&slide, 1, &["--progress", "plain"]).unwrap();
        let mut agent = lab.agent(&node).unwrap();
        let (exit, report) = deploy.wait(LONG).unwrap();
        assert_eq!((exit, agent.wait_exit(SOON).unwrap()), (Exit::Code(0), Exit::Code(0)), "{report:?}");
        let entry = report.node(&node.address).unwrap();
        assert!(entry.state == "done" && entry.detail.contains(grown) && entry.detail.contains(why), "{entry:?}");
        for process in [&agent, &deploy.process] {
            assert!(says(process, &[grown, why]), "{}", process.tail());
        }
        // The image stands as it is.
        assert!(fs::read(&node.target.file).unwrap()[..32 << 20] == fs::read(source).unwrap()[..]);
    }
}

fn layouts() {
    let of: [&[&str]; 5] = [
        &["-O", "bigalloc"],
        &["-O", "meta_bg,^resize_inode"],
        &["-b", "1024", "-O", "^has_journal"],
        &["-O", "sparse_super2"],
        &["-I", "128", "-O", "^64bit,^metadata_csum"],
    ];
    for (n, options) in of.into_iter().enumerate() {
        let source = disk(&format!("layout-{n}"), 32 * MIB, &["-n1:2048:+28M"]);
        let path = text(&source);
        let rest = ["-E", "offset=1048576", &path, "28M"];
        let all = ["-q", "-F", "-t", "ext4"].into_iter().chain(options.iter().copied()).chain(rest);
        tool::run("mke2fs", all).unwrap();
        let target = fs::read(deployed(&source, 32 * MIB, full_of_noise)).unwrap();
        let partition = source.with_extension("ext4");
        fs::write(&partition, &target[MEBIBYTE..29 * MEBIBYTE]).unwrap();
        tool::run("e2fsck", ["-f", "-n", &text(&partition)]).unwrap_or_else(|error| panic!("{options:?}: {error:?}"));
    }
}

fn outside() {
    let source = disk("outside", 24 * MIB, &[]);
    // One partition of 8 MiB, and one that ends far behind the disk's end.
    let entry = |start: u32, sectors: u32| {
        let mut bytes = [0_u8; 16];
        bytes[4] = 0x83;
        bytes[8..12].copy_from_slice(&start.to_le_bytes());
        bytes[12..].copy_from_slice(&sectors.to_le_bytes());
        bytes
    };
    write_at(&source, 446, &[entry(2048, 16384), entry(18432, 9_000_000)].concat());
    write_at(&source, 510, &[0x55, 0xaa]);
    write_at(&source, 9 * MIB, &noise(15 * MEBIBYTE, 6));
    let target = deployed(&source, 24 * MIB, full_of_noise);
    assert!(fs::read(&source).unwrap() == fs::read(target).unwrap());
}

fn resized() {
    let source = disk("resized", 24 * MIB, &["-n1:2048:+18M"]);
    let dir = source.parent().unwrap().to_path_buf();
    write_at(&source, MIB, &noise(10 * MEBIBYTE, 7));
    let set_len = |bytes| File::options().write(true).open(&source).unwrap().set_len(bytes).unwrap();
    let layer = |no: usize| dir.join(format!("{no}.slide"));
    let create = |no: usize, parent: &[&str]| {
        let (from, to) = (text(&source), text(&layer(no)));
        slidecast(&[&["image", "create", &from, "-o", &to], parent].concat());
    };
    create(0, &[]);
    set_len(40 * MIB);
    sgdisk(&source, &["-e", "-n2:0:+14M"]);
    write_at(&source, 30 * MIB, &noise(3 * MEBIBYTE, 8));
    create(1, &["--parent", &text(&layer(0))]);
    let grown = fs::read(&source).unwrap();
    // The second partition goes, then the end of the disk; the table moves to the new end.
    sgdisk(&source, &["-d2"]);
    set_len(28 * MIB);
    sgdisk(&source, &["-e"]);
    create(2, &["--parent", &text(&layer(1))]);
    let shrunk = fs::read(&source).unwrap();
    for (no, bytes, whole) in [(1, 40 * MIB, &grown), (1, 48 * MIB, &grown), (2, 28 * MIB, &shrunk)] {
        let image = layer(no);
        slidecast(&["image", "verify", &text(&image)]);
        let exported = dir.join("exported");
        slidecast(&["image", "export", &text(&image), &text(&exported)]);
        assert!(&fs::read(&exported).unwrap() == whole, "{no} to a file");
        let lab = Lab::new(1).unwrap();
        let nodes = lab.nodes(2, &NodeOptions::file(bytes)).unwrap();
        nodes.iter().for_each(|node| full_of_noise(&node.target.file));
        deploy_to(&lab, &nodes, &image, &[]);
        for node in &nodes {
            let target = fs::read(&node.target.file).unwrap();
            let same_size = target.len() == whole.len();
            // On a larger disk the table at both ends is fitted.
            let equal = if same_size { 0..whole.len() } else { MEBIBYTE..whole.len() - 33 * 512 };
            assert!(target[equal.clone()] == whole[equal], "{no} on {bytes} bytes");
            assert!(sgdisk(&node.target.file, &["-v"]).contains("No problems found"), "{no} on {bytes} bytes");
        }
    }
}
