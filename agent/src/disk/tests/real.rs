//! The engine on real targets: a regular file with direct I/O, and loop devices (as root; else these are reported as skipped).

use super::image::{Dice, TestImage, to_usize};
use super::rig::{Rig, options};
use crate::disk::Event;
use crate::target::OpenTarget;
use slidecast_proto::control::{Disk, Held};
use slidecast_proto::reason::{Free, Reason, Verify};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

struct LoopDevice(PathBuf);

impl LoopDevice {
    /// `None` where there are none to be had.
    fn new(file: &Path, sector: u32) -> Option<Self> {
        let sector = sector.to_string();
        let losetup = Command::new("losetup").args(["--show", "-f", "--sector-size", &sector]).arg(file).output();
        let path = losetup.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        let device = path.and_then(|path| String::from_utf8(path).ok()).map(|path| Self(path.trim().into()));
        match &device {
            // The flag stays with the device after whoever set it.
            Some(device) => device.run("blockdev", "--setrw"),
            None => eprintln!("skipped: no loop device to be had"),
        }
        device
    }

    fn run(&self, program: &str, argument: &str) {
        assert!(Command::new(program).arg(argument).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        self.run("blockdev", "--setrw");
        self.run("losetup", "-d");
    }
}

fn old_file(dir: &TempDir, bytes: u64) -> PathBuf {
    let path = dir.path().join("disk.img");
    std::fs::write(&path, Dice::new(3).bytes(to_usize(bytes))).unwrap();
    path
}

fn listed(path: &Path, bytes: u64, rotational: bool) -> Disk {
    Disk {
        path: path.to_str().unwrap().to_owned(),
        model: String::new(),
        serial: String::new(),
        wwn: String::new(),
        transport: String::new(),
        bytes,
        logical_sector: 512,
        physical_sector: 512,
        rotational,
        removable: false,
        read_only: false,
        held: Held::No,
        file: false,
        other_paths: Vec::new(),
    }
}

fn deploy(image: &TestImage, disk: &Disk, free: Free) {
    let target = OpenTarget::open(disk, image.header.disk_bytes, image.header.sector).unwrap();
    let mut rig = Rig::on(image, Box::new(target), options(Verify::Full, free));
    let end = rig.deploy(&mut Dice::new(1), |_| true);
    assert!(matches!(end, Event::Ended { written, .. } if written == image.blocks()), "{end:?}");
    let stopping = rig.engine.stop();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !stopping.is_over() {
        assert!(Instant::now() < deadline, "the threads end");
        std::thread::yield_now();
    }
}

#[test]
fn a_regular_file_holds_the_image_afterwards() {
    for (seed, rotational) in [(40, false), (41, true)] {
        let dir = tempfile::tempdir().unwrap();
        let image = TestImage::random(8 * MIB, 512, seed, None);
        let path = old_file(&dir, 9 * MIB);
        let old = std::fs::read(&path).unwrap();
        deploy(&image, &listed(&path, 9 * MIB, rotational), Free::Keep);
        assert!(std::fs::read(&path).unwrap() == image.expected(&old));
        deploy(&image, &listed(&path, 9 * MIB, rotational), Free::Zero);
        assert!(std::fs::read(&path).unwrap() == image.expected(&vec![0; old.len()]));
    }
}

#[test]
fn a_loop_device_holds_the_image_afterwards() {
    for (sector, rotational) in [(512, false), (4096, true)] {
        let dir = tempfile::tempdir().unwrap();
        let image = TestImage::random(8 * MIB, sector, 42, None);
        let path = old_file(&dir, 9 * MIB);
        let old = std::fs::read(&path).unwrap();
        let Some(device) = LoopDevice::new(&path, sector) else { return };
        let disk = listed(&device.0, 9 * MIB, rotational);
        deploy(&image, &disk, Free::Keep);
        assert!(std::fs::read(&device.0).unwrap() == image.expected(&old));
        deploy(&image, &disk, Free::Zero);
        assert!(std::fs::read(&device.0).unwrap() == image.expected(&vec![0; old.len()]));
    }
}

#[test]
fn a_loop_device_is_refused_for_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = old_file(&dir, 8 * MIB);
    let Some(device) = LoopDevice::new(&path, 4096) else { return };
    let disk = listed(&device.0, 8 * MIB, false);
    let refusal = |disk: &Disk, bytes, sector| OpenTarget::open(disk, bytes, sector).unwrap_err().fault.reason();
    assert_eq!(refusal(&disk, 8 * MIB, 512), Reason::TargetSectorSize);
    assert_eq!(refusal(&disk, 8 * MIB + 4096, 4096), Reason::TargetTooSmall);
    assert_eq!(refusal(&listed(&device.0, 9 * MIB, false), 8 * MIB, 4096), Reason::TargetNotFound);
    let open = OpenTarget::open(&disk, 8 * MIB, 4096).unwrap();
    assert!(open.facts().direct);
    assert_eq!(refusal(&disk, 8 * MIB, 4096), Reason::TargetHeld);
    drop(open);
    device.run("blockdev", "--setro");
    assert_eq!(refusal(&disk, 8 * MIB, 4096), Reason::TargetReadOnly);
}
