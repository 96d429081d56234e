//! How large the boot files are, and the least memory with which a machine is written.

use std::path::PathBuf;
use std::time::Duration;

use slidecast_lab::disk::synthetic;
use slidecast_lab::lab::Deploy;
use slidecast_lab::machine::{Boot, BootFiles, Disk, Options};
use slidecast_lab::{Lab, LabError, Result, compare, programs, tool};

use crate::boot::text;
use crate::setup::{Setup, create};
use crate::table::{Bar, Table, mib};

/// Machines have a multiple of this, in MiB.
const STEP: u32 = 8;
/// Between these the least memory is looked for, in steps: the first is known to be too little to unpack a kernel in.
const STEPS: std::ops::RangeInclusive<u32> = 6..=48;
/// Whoever has not been written by then will not be.
const LIMIT: Duration = Duration::from_secs(90);

/// A small disk as an image, and the key of its server.
#[derive(Debug)]
pub(crate) struct SmallImage {
    file: PathBuf,
    key: PathBuf,
    pub(crate) disk_bytes: u64,
}

impl SmallImage {
    pub(crate) fn make(setup: &Setup) -> Result<Self> {
        let (dir, file, key) = (setup.path("small"), setup.path("small.slide"), setup.path("small.key"));
        if !file.exists() {
            std::fs::create_dir_all(&dir).map_err(LabError::io("creating", &dir))?;
            create(&synthetic::make(&dir)?.first, &file, &[])?;
            tool::run(&text(&programs::server()?), ["key", "new", "-o", &text(&key)])?;
        }
        Ok(Self { file, key, disk_bytes: compare::length(&dir.join("first.img"))? })
    }

    /// What it is, in words.
    pub(crate) fn describe(&self) -> String {
        let packed = compare::length(&self.file).map_or(0.0, mib);
        format!("a disk of {:.0} MiB, an image of {packed:.1} MiB", mib(self.disk_bytes))
    }

    /// The boot files that know its server.
    pub(crate) fn boot_files(&self, setup: &Setup, modules: &str) -> Result<BootFiles> {
        let key = text(&self.key.with_extension("key.pub"));
        BootFiles::make(&setup.path(&format!("out-{modules}")), modules, &key, &[])
    }

    /// Deploys it to one machine, which then switches itself off.
    pub(crate) fn deploy(&self, lab: &Lab) -> Result<Deploy> {
        let args = ["--key-file", &text(&self.key), "--timeout", "180s", "--then", "poweroff", "--progress", "none"];
        lab.deploy(&self.file, 1, &args)
    }
}

/// Runs the figures.
///
/// # Errors
/// When boot files cannot be made, or no memory is enough.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let image = SmallImage::make(setup)?;
    table.group("Boot files, in MiB", "./mkimage.sh --key FILE --modules SET");
    let (mut virtio, mut common) = (None, None);
    for (set, bar) in [("virtio", Bar::AtMost(6.0)), ("common", Bar::AtMost(20.0)), ("all", Bar::Report)] {
        let files = image.boot_files(setup, set)?;
        for name in ["initramfs.img", "vmlinuz", "slidecast.efi", "slidecast.iso"] {
            let bar = if name == "initramfs.img" { bar } else { Bar::Report };
            let bytes = compare::length(&files.file(name))?;
            table.row(&format!("{set}: {name}"), mib(bytes), bar, &format!("{bytes} bytes"));
        }
        match set {
            "virtio" => virtio = Some(files),
            "common" => common = Some(files),
            _ => {}
        }
    }
    table.group(
        "Least memory with which a machine is written, in MiB (QEMU)",
        &format!("slidecast deploy IMAGE --wait-for 1   ({})", image.describe()),
    );
    let (Some(virtio), Some(common)) = (virtio, common) else { return Ok(()) };
    let ways = [
        ("direct, drivers `virtio`", virtio.kernel("")?, &virtio),
        ("direct, drivers `common`", common.kernel("")?, &common),
        ("PXE, BIOS, drivers `common`", Boot::Network, &common),
    ];
    for (name, boot, files) in ways {
        let least = least_memory(&boot, files, &image)?;
        let from = format!("{} MiB are too little", least - STEP);
        table.row(name, least.into(), Bar::AtMost(256.0), &from);
    }
    Ok(())
}

/// The least memory in MiB, by halving what is left.
fn least_memory(boot: &Boot, files: &BootFiles, image: &SmallImage) -> Result<u32> {
    let (mut too_little, mut enough) = (*STEPS.start(), *STEPS.end());
    if !is_written(boot, enough * STEP, files, image)? {
        return Err(LabError::Unable { why: format!("{} MiB are too little", enough * STEP) });
    }
    while enough - too_little > 1 {
        let middle = too_little.midpoint(enough);
        if is_written(boot, middle * STEP, files, image)? { enough = middle } else { too_little = middle }
    }
    Ok(enough * STEP)
}

/// Whether a machine with this much memory is written.
fn is_written(boot: &Boot, memory: u32, files: &BootFiles, image: &SmallImage) -> Result<bool> {
    let lab = Lab::new(1)?;
    let _server = if *boot == Boot::Network { lab.boot_server(&files.dir, false)? } else { lab.dhcp(&[])? };
    let _deploy = image.deploy(&lab)?;
    let disk = Disk::empty(&lab.path("d.disk"), image.disk_bytes)?;
    let mut machine = lab.machine(Options::new(boot.clone(), vec![disk]).memory(memory))?;
    match machine.wait_for_any(&["slidecast: done", "slidecast: failed", "slidecast: panic", "Kernel panic"], LIMIT) {
        Ok(first) => Ok(first == 0),
        // It hangs, or restarts again and again, or QEMU itself refuses.
        Err(LabError::Late { .. } | LabError::Ended { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
