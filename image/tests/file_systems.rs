//! File systems that were used for a while: imaged, and written over a disk full of garbage.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests may panic and say what they skip")]
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Bench, exported, noise};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MIB: u64 = 1 << 20;

fn shell(script: &str) -> Output {
    let script = format!("PATH=$PATH:/usr/sbin:/sbin; {script}");
    Command::new("sh").args(["-ec", &script]).output().unwrap()
}

/// What a script that must succeed says.
fn sh(script: &str) -> String {
    let output = shell(script);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said.trim().to_owned()
}

/// A kind of file system: how one is made, used and checked.
struct Kind {
    name: &'static str,
    tools: &'static [&'static str],
    /// Makes one in the file `volume`.
    make: &'static str,
    mount: &'static str,
    check: &'static str,
    /// Where one is imaged.
    places: &'static [Place],
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "XFS",
        tools: &["mkfs.xfs", "xfs_repair"],
        make: "TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1 mkfs.xfs -q -f volume",
        mount: "mount",
        check: "xfs_repair -n",
        places: &[Place::WholeDisk, Place::Partition],
    },
    Kind {
        name: "btrfs",
        tools: &["mkfs.btrfs", "btrfs"],
        make: "mkfs.btrfs -q -m single volume",
        mount: "mount",
        check: "btrfs check --check-data-csum",
        places: &[Place::Partition, Place::LogicalVolume],
    },
    Kind {
        name: "ext4",
        tools: &["mkfs.ext4"],
        make: "mkfs.ext4 -q volume",
        mount: "mount",
        check: "e2fsck -fn",
        places: &[Place::LogicalVolume],
    },
    Kind {
        name: "exFAT",
        tools: &["mkfs.exfat", "fsck.exfat"],
        make: "mkfs.exfat volume",
        mount: "mount_exfat() { mount -t exfat $1 $2 || mount.exfat-fuse $1 $2; }; mount_exfat",
        check: "fsck.exfat -n",
        places: &[Place::WholeDisk, Place::Partition],
    },
];

/// Where a volume is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    WholeDisk,
    Partition,
    /// The only one of a volume group, in a partition.
    LogicalVolume,
}

impl Place {
    /// Puts a volume of 90 MiB there: the disk, and what `losetup` needs to find the volume on a copy of it.
    fn disk(self, bench: &Bench, volume: &Path) -> Option<(PathBuf, &'static str)> {
        if self == Self::WholeDisk {
            return Some((volume.to_owned(), ""));
        }
        let disk = bench.disk("disk", 104 * MIB, &[]);
        let (from, to) = (volume.display(), disk.display());
        sh(&format!("printf 'label: gpt\\nstart=2M,size=98M\\n' | sfdisk -q {to}"));
        let copied = |at: u64| sh(&format!("dd if={from} of={to} conv=notrunc bs=1M seek={at} status=none"));
        if self == Self::Partition {
            copied(2);
            return Some((disk, "-o 2M --sizelimit 90M"));
        }
        if !shell("command -v lvm").status.success() {
            println!("SKIPPED: lvm is not installed (./check.sh installs it)");
            return None;
        }
        let device = Device::new(&disk, "-o 2M --sizelimit 98M")?;
        let config = format!(
            "devices {{ filter=[\"a|^{}$|\", \"r|.*|\"] use_devicesfile=0 obtain_device_list_from_udev=0 }} activation {{ udev_sync=0 udev_rules=0 }} \
             backup {{ backup=0 archive=0 }}",
            device.0
        );
        for command in [
            format!("pvcreate -y {}", device.0),
            format!("vgcreate --setautoactivation n group {}", device.0),
            "lvcreate -y -an -Wn -Zn -L 92M -n volume group".to_owned(),
        ] {
            sh(&format!("lvm {command} --driverloaded n --config '{config}'"));
        }
        copied(3);
        Some((disk, "-o 3M --sizelimit 92M"))
    }
}

/// A device over a file, and what is mounted of it, until it is dropped.
struct Device(String);

impl Device {
    fn new(file: &Path, options: &str) -> Option<Self> {
        let output = shell(&format!("losetup -f --show {options} {}", file.display()));
        if !output.status.success() {
            println!("SKIPPED: no loop device");
            return None;
        }
        Some(Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        sh(&format!("losetup -d {}", self.0));
    }
}

/// Mounts a volume on the folder `at` for what `run` does there. False if it cannot be mounted.
fn mounted(kind: &Kind, device: &Device, at: &Path, run: impl FnOnce()) -> bool {
    std::fs::create_dir_all(at).unwrap();
    if !shell(&format!("{} {} {}", kind.mount, device.0, at.display())).status.success() {
        println!("SKIPPED: {} cannot be mounted here", kind.name);
        return false;
    }
    run();
    sh(&format!("umount {}", at.display()));
    true
}

/// Writes and deletes files in rounds, so that free space is in many pieces.
fn age(at: &Path) {
    for round in 0..3 {
        for number in 0..120_u32 {
            let len = if number % 30 == 0 { 1_500_000 } else { 1 + (number as usize * 7919) % 50_000 };
            let folder = at.join(format!("folder {}", number % 5));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{round} {number}")), noise((round * 1000 + number).into(), len))
                .unwrap();
        }
        sh("sync");
        for number in (0..120).filter(|number| (number * 7 + round) % 5 < 3) {
            std::fs::remove_file(at.join(format!("folder {}/{round} {number}", number % 5))).unwrap();
        }
    }
}

/// A volume of 90 MiB that was used for a while, and the sums of its files.
fn used_volume(bench: &Bench, kind: &Kind) -> Option<(PathBuf, String)> {
    for tool in kind.tools {
        if !shell(&format!("command -v {tool}")).status.success() {
            println!("SKIPPED: {tool} is not installed (./check.sh installs it)");
            return None;
        }
    }
    let volume = bench.disk("volume", 90 * MIB, &[]);
    sh(&format!("cd {}; {}", volume.parent().unwrap().display(), kind.make));
    let device = Device::new(&volume, "")?;
    let mut sums = String::new();
    let at = bench.path("mounted");
    let was_mounted = mounted(kind, &device, &at, || {
        age(&at);
        sums = sums_of(&at);
    });
    was_mounted.then_some((volume, sums))
}

fn sums_of(at: &Path) -> String {
    sh(&format!("cd '{}'; find . -type f -print0 | sort -z | xargs -0 sha256sum", at.display()))
}

#[test]
fn free_space_of_any_kind_is_left_out_and_every_file_is_there_on_a_disk_of_garbage() {
    // In a mount namespace of this thread's own: a process that makes one meanwhile would take the mounts over, and umount would
    // leave their file systems as they are until it ends.
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_ok() {
        sh("mount --make-rprivate /");
    }
    for kind in &KINDS {
        for place in kind.places {
            let bench = Bench::new();
            let Some((volume, sums)) = used_volume(&bench, kind) else { break };
            let Some((disk, place)) = place.disk(&bench, &volume) else { continue };
            let report = bench.base(&disk, "0.slide");
            assert_eq!(report.notes, Vec::<String>::new());
            assert!(report.unused_bytes > 40 * MIB, "{}: {report:?}", kind.name);
            let bytes = std::fs::metadata(&disk).unwrap().len();
            let target = bench.disk("target", bytes, &[(0, noise(1, usize::try_from(bytes).unwrap()))]);
            let Some(device) = Device::new(&target, "") else { return };
            exported(&bench.path("0.slide"), Path::new(&device.0)).unwrap();
            drop(device);
            let Some(device) = Device::new(&target, place) else { return };
            sh(&format!("{} {}", kind.check, device.0));
            let at = bench.path("mounted");
            assert!(mounted(kind, &device, &at, || assert_eq!(sums_of(&at), sums)));
            sh(&format!("{} {}", kind.check, device.0));
        }
    }
}
