//! What `slidecast image export` does to devices and files, and what it refuses before it touches them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use slidecast_lab::disk::random;
use slidecast_lab::{Lab, programs, target, tool};

use crate::fixtures::slidecast;
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("exports::nothing_of_a_larger_devices_past_shows_beside_the_image", Needs::Loops, past),
    ("exports::no_second_luks_header_is_left_in_the_free_space_of_a_partition", Needs::Loops, second_header),
    ("exports::a_device_that_somebody_holds_is_refused_untouched", Needs::Loops, held),
    (
        "exports::bytes_that_change_behind_an_export_are_found_and_the_device_does_not_boot",
        Needs::Loops,
        changed_behind,
    ),
    ("exports::the_kernel_forgets_the_partitions_that_a_device_had", Needs::Loops, partitions),
    ("exports::what_surely_does_not_fit_is_refused_before_anything_is_written", Needs::Loops, no_room),
];

const MIB: u64 = 1 << 20;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A file of that size in the lab's folder.
fn sparse(lab: &Lab, name: &str, bytes: u64) -> PathBuf {
    let path = lab.path(name);
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

/// A loop device over a new file, and that file.
fn device(lab: &Lab, name: &str, bytes: u64) -> (PathBuf, PathBuf) {
    let file = sparse(lab, name, bytes);
    (target::attach(&file, 512).unwrap(), file)
}

fn image_of(source: &Path) -> PathBuf {
    let image = source.with_extension("slide");
    slidecast(&["image", "create", &text(source), "-o", &text(&image)]);
    image
}

/// Exit code and standard error of an export.
fn export(image: &Path, to: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(programs::server().unwrap());
    let output = command.args(["image", "export"]).args([image, to]).args(more).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn seen(device: &Path) -> String {
    tool::run("wipefs", [Path::new("--no-act"), Path::new("--noheadings"), Path::new("--output=TYPE"), device]).unwrap()
}

fn past() {
    let lab = Lab::new(1).unwrap();
    let mbr = sparse(&lab, "mbr.img", 40 * MIB);
    let mut entry = [0_u8; 16];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&2048_u32.to_le_bytes());
    entry[12..].copy_from_slice(&(38 * 2048_u32).to_le_bytes());
    write_at(&mbr, 446, &entry);
    write_at(&mbr, 510, &[0x55, 0xAA]);
    let gpt = sparse(&lab, "gpt.img", 40 * MIB);
    tool::run("sgdisk", ["-n1:2048:+30M", &text(&gpt)]).unwrap();
    let bytes = 80 * MIB;
    let (to, file) = device(&lab, "larger", bytes);
    for (source, table) in [(&mbr, "dos"), (&gpt, "gpt")] {
        let image = image_of(source);
        // A GPT with its backup, md 0.90 and 1.0, and the uberblocks of the last two labels of ZFS.
        tool::run("sgdisk", ["--mbrtogpt", "--clear", "-n1:2048:+50M", &text(&to)]).unwrap();
        write_at(&to, bytes - 64 * 1024, b"\xFC\x4E\x2B\xA9");
        for label in [bytes - 512 * 1024, bytes - 256 * 1024] {
            (0..64).for_each(|no| write_at(&to, label + 128 * 1024 + no * 1024, b"\x0C\xB1\xBA\0\0\0\0\0"));
        }
        // Since 2.41, libblkid looks for the labels' name-value lists rather than for uberblocks.
        assert!(seen(&to).contains("_member"), "{}", seen(&to));
        let (code, said) = export(&image, &to, &[]);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        let kinds: Vec<String> = seen(&to).lines().map(|line| line.trim().to_owned()).collect();
        // A GPT is seen at its front, at its end, and by its protective MBR.
        assert!(kinds.iter().all(|kind| kind == table || (table == "gpt" && kind == "PMBR")), "{kinds:?}");
        assert!(!kinds.is_empty());
        // Whatever a program looks for: nothing of the labels is there, up to the backup GPT.
        let end = fs::read(&file).unwrap().split_off(usize::try_from(bytes - 512 * 1024).unwrap());
        assert!(end[..end.len() - 33 * 512].iter().all(|byte| *byte == 0));
        if table == "gpt" {
            assert!(tool::run("sgdisk", ["-v", &text(&to)]).unwrap().contains("No problems found"));
        } else {
            let (whole, target) = (fs::read(source).unwrap(), fs::read(&file).unwrap());
            assert!(target[..whole.len()] == whole && target[79 << 20..].iter().all(|byte| *byte == 0));
        }
    }
}

fn second_header() {
    let lab = Lab::new(1).unwrap();
    let source = sparse(&lab, "fat.img", 64 * MIB);
    tool::run("sgdisk", ["-n1:2048:+60M", &text(&source)]).unwrap();
    tool::run("mkfs.fat", ["-F", "16", "--offset", "2048", &text(&source), "61440"]).unwrap();
    let image = image_of(&source);
    let (to, file) = device(&lab, "encrypted", 64 * MIB);
    let partition = lab.path("partition");
    let kind = |of: &Path| {
        fs::write(&partition, &fs::read(of).unwrap()[1 << 20..61 << 20]).unwrap();
        tool::run("blkid", ["-p", "-o", "value", "-s", "TYPE", &text(&partition)]).unwrap()
    };
    // All places that a second header of LUKS2 can have.
    for bit in 14..=22 {
        let mut header = b"SKUL\xBA\xBE\x00\x02".to_vec();
        header.resize(512, b'1');
        header[8..16].copy_from_slice(&4096_u64.to_be_bytes());
        // Since 2.41, libblkid asks that a header knows where it stands.
        header[256..264].copy_from_slice(&(1_u64 << bit).to_be_bytes());
        write_at(&to, MIB + (1 << bit), &header);
    }
    assert_eq!(kind(&file).trim(), "crypto_LUKS");
    assert_eq!(export(&image, &to, &[]), (Some(0), String::new()));
    assert_eq!(kind(&file).trim(), "vfat");
}

fn held() {
    let lab = Lab::new(1).unwrap();
    let source = sparse(&lab, "source.img", 8 * MIB);
    let image = image_of(&source);
    let (to, file) = device(&lab, "held", 16 * MIB);
    random::write_file(&file, 16 * MIB, 3).unwrap();
    let before = fs::read(&file).unwrap();
    let holder = File::options().read(true).custom_flags(libc::O_EXCL).open(&to).unwrap();
    let (code, said) = export(&image, &to, &[]);
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("it is in use") && said.contains(&text(&to)), "{said}");
    assert!(fs::read(&file).unwrap() == before);
    drop(holder);
    assert_eq!(export(&image, &to, &[]).0, Some(0));
}

fn changed_behind() {
    let lab = Lab::new(1).unwrap();
    let bytes = 96 * MIB;
    let source = lab.path("source.img");
    random::write_file(&source, bytes, 4).unwrap();
    let image = image_of(&source);
    let (to, file) = device(&lab, "changing", bytes);
    // With direct I/O the kernel reports a flush as failed where the file's pages change under it.
    tool::run("losetup", ["--direct-io=off", &text(&to)]).unwrap();
    let ended = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let behind = File::options().write(true).open(&file).unwrap();
            while !ended.load(Ordering::Relaxed) {
                (2..90).for_each(|mib| behind.write_all_at(b"not what was written", mib * MIB).unwrap());
            }
        });
        let result = export(&image, &to, &["--verify", "full"]);
        ended.store(true, Ordering::Relaxed);
        result
    });
    let (code, said) = result;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("reads back as something else"), "{said}");
    assert!(fs::read(&file).unwrap()[..1 << 20].iter().all(|byte| *byte == 0), "it must not boot");
    assert_eq!(export(&image, &to, &["--verify", "full"]), (Some(0), String::new()));
    assert!(fs::read(&file).unwrap() == fs::read(&source).unwrap());
}

fn partitions() {
    let lab = Lab::new(1).unwrap();
    let source = sparse(&lab, "source.img", 16 * MIB);
    tool::run("sgdisk", ["-n1:2048:+10M", &text(&source)]).unwrap();
    let image = image_of(&source);
    let file = sparse(&lab, "partitioned", 16 * MIB);
    tool::run("sgdisk", ["-n7:2048:+1M", &text(&file)]).unwrap();
    let words = ["--find", "--show", "--partscan"].map(Path::new);
    let to = PathBuf::from(tool::run("losetup", words.into_iter().chain([file.as_path()])).unwrap().trim());
    let name = to.file_name().unwrap().to_str().unwrap().to_owned();
    let known = || Path::new("/sys/class/block").join(format!("{name}p7")).exists();
    // A kernel that knows no GPT is told of the partition; whoever reads the new table drops it.
    if !known() {
        tool::run("partx", ["--add".as_ref(), to.as_os_str()]).unwrap();
    }
    assert!(known());
    assert_eq!(export(&image, &to, &[]), (Some(0), String::new()));
    assert!(!known(), "the kernel still has a partition of the old table");
}

fn no_room() {
    let lab = Lab::new(1).unwrap();
    let source = lab.path("source.img");
    random::write_file(&source, 24 * MIB, 5).unwrap();
    File::options().write(true).open(&source).unwrap().set_len(256 * MIB).unwrap();
    let image = image_of(&source);
    let small = |name: &str, size: &str| {
        let dir = lab.path(name);
        fs::create_dir(&dir).unwrap();
        let options = format!("size={size}");
        tool::run(
            "mount",
            [Path::new("-t"), Path::new("tmpfs"), Path::new("-o"), Path::new(&options), Path::new("tmpfs"), &dir],
        )
        .unwrap();
        dir
    };
    let refused = |(code, said): (Option<i32>, String)| {
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("there is no room for it") && said.contains("at least"), "{said}");
    };
    let dir = small("small", "20m");
    let old = dir.join("old.img");
    fs::write(&old, vec![7; 2 << 20]).unwrap();
    refused(export(&image, &old, &[]));
    assert!(fs::read(&old).unwrap() == vec![7; 2 << 20], "what was there is lost only for something better");
    refused(export(&image, &dir.join("new.img"), &[]));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    // Holes take no room, and what is there makes room for what replaces it.
    let dir = small("enough", "26m");
    let to = dir.join("to.img");
    assert_eq!(export(&image, &to, &[]).0, Some(0));
    assert_eq!(export(&image, &to, &[]).0, Some(0));
    let dir = small("tiny", "8k");
    let mut create = std::process::Command::new(programs::server().unwrap());
    let output = create.args(["image", "create"]).arg(&source).arg("-o").arg(dir.join("a.slide")).output().unwrap();
    refused((output.status.code(), String::from_utf8(output.stderr).unwrap()));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
