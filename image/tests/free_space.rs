//! Free space is left out of images, and disks made of them are whole nevertheless.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests may panic and say what they skip")]
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Bench, noise};
use slidecast_image::info;
use std::path::Path;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;
/// Where the ext4 begins.
const EXT: u64 = 10 * MIB;

/// Runs a shell command that must succeed, and gives its output.
fn sh(command: &str, input: &str) -> String {
    let script = format!("PATH=$PATH:/usr/sbin:/sbin; {command}");
    let mut shell = Command::new("sh");
    let mut child = shell.args(["-ec", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether the middle of a file is anywhere on the disk. (Its ends may share a grain with what is in use.)
fn contains(disk: &[u8], content: &[u8]) -> bool {
    disk.chunks_exact(1024).any(|piece| piece == &content[1 << 20..][..1024])
}

/// A GPT with a FAT and an ext4 that holds the files `one` to `three` of 3 MiB each.
fn disk(bench: &Bench) -> Option<std::path::PathBuf> {
    for tool in ["sfdisk", "sgdisk", "mke2fs", "debugfs", "mkfs.vfat"] {
        if !["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(tool).exists()) {
            println!("SKIPPED: {tool} is not installed (./check.sh installs it)");
            return None;
        }
    }
    let disk = bench.disk("disk", 64 * MIB, &[]);
    std::fs::create_dir(bench.path("files")).unwrap();
    for (seed, name) in [(1, "one"), (2, "two"), (3, "three")] {
        std::fs::write(bench.path("files").join(name), noise(seed, 3 << 20)).unwrap();
    }
    let folder = disk.parent().unwrap().display();
    let table = "label: gpt\nstart=1M,size=9M,type=U\nstart=10M,size=50M\n";
    sh(&format!("sfdisk -q {}", disk.display()), table);
    sh(
        &format!(
            "cd {folder}; truncate -s 9M fat; truncate -s 50M ext; mkfs.vfat fat >&2; mke2fs -q -t ext4 -d files ext >&2
             dd if=fat of=disk bs=1M seek=1 conv=notrunc status=none; dd if=ext of=disk bs=1M seek=10 conv=notrunc status=none"
        ),
        "",
    );
    Some(disk)
}

fn delete(disk: &Path, name: &str) {
    sh(&format!("debugfs -w -R 'rm {name}' '{}?offset={EXT}'", disk.display()), "");
}

/// The ext4 on a disk is whole and holds these files.
fn assert_whole(bench: &Bench, disk: &Path, names: &[&str]) {
    let at = disk.display();
    assert!(sh(&format!("sgdisk -v {at}"), "").contains("No problems found"));
    sh(&format!("e2fsck -fn '{at}?offset={EXT}'"), "");
    for name in names {
        let out = bench.path("out");
        sh(&format!("debugfs -R 'dump {name} {}' '{at}?offset={EXT}'", out.display()), "");
        assert!(std::fs::read(&out).unwrap() == std::fs::read(bench.path("files").join(name)).unwrap(), "{name}");
    }
}

#[test]
fn deleted_files_are_not_in_the_image_and_everything_else_is() {
    let bench = Bench::new();
    let Some(disk) = disk(&bench) else { return };
    delete(&disk, "two");
    assert!(contains(&std::fs::read(&disk).unwrap(), &noise(2, 3 << 20)));
    let report = bench.base(&disk, "0.slide");
    assert_eq!(report.notes, Vec::<String>::new());
    assert!(report.unused_bytes > 40 * MIB, "{report:?}");
    assert!(report.new_bytes < 8 * MIB, "{report:?}");
    let exported = bench.exported("0.slide");
    assert!(!contains(&exported, &noise(2, 3 << 20)));
    assert_whole(&bench, &bench.path("exported.img"), &["one", "three"]);
    let names: Vec<_> = info(&bench.path("0.slide")).unwrap().partitions.into_iter().map(|found| found.fs).collect();
    assert_eq!(names, ["FAT16", "ext4"]);
    // Outside the partitions the disks are equal, the backup GPT included, though it was not in the image.
    let source = std::fs::read(&disk).unwrap();
    for range in [0..1 << 20, 60 << 20..64 << 20] {
        assert!(source[range.clone()] == exported[range]);
    }
}

#[test]
fn a_child_leaves_out_what_was_deleted_since_its_parent() {
    let bench = Bench::new();
    let Some(disk) = disk(&bench) else { return };
    let base = bench.base(&disk, "0.slide");
    assert!(base.new_bytes > 9 * MIB);
    delete(&disk, "three");
    let child = bench.child(&disk, "0.slide", "1.slide").unwrap();
    assert!(child.new_bytes < MIB && child.unused_bytes > 2 * MIB, "{child:?}");
    let exported = bench.exported("1.slide");
    assert!(!contains(&exported, &noise(3, 3 << 20)));
    assert_whole(&bench, &bench.path("exported.img"), &["one", "two"]);
}

#[test]
fn a_file_system_that_was_not_unmounted_is_kept_and_create_says_so() {
    let bench = Bench::new();
    let Some(disk) = disk(&bench) else { return };
    delete(&disk, "two");
    // The bit that asks for the journal to be replayed.
    sh(&format!("debugfs -w -R 'feature needs_recovery' '{}?offset={EXT}'", disk.display()), "");
    let report = bench.base(&disk, "0.slide");
    assert_eq!(report.notes, ["partition 2, ext4: all of it is kept: its journal has to be replayed"]);
    let exported = bench.exported("0.slide");
    assert!(contains(&exported, &noise(2, 3 << 20)));
    let source = std::fs::read(&disk).unwrap();
    assert!(source[10 << 20..] == exported[10 << 20..]);
}
