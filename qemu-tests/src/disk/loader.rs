//! Makes a sample disk start its own system, with BIOS (syslinux) and with UEFI (systemd-boot), from the same two files
//! on its EFI partition.

use std::fs;
use std::path::{Path, PathBuf};

use super::Layout;
use crate::error::{LabError, Result};
use crate::tool;

const WORDS: &str = "root=LABEL=root rw console=ttyS0,115200 quiet";
const MASTER_BOOT_RECORD: &str = "/usr/lib/syslinux/mbr/gptmbr.bin";
const SYSTEMD_BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// Installs the boot loaders, kernel and initramfs on `disk`; `work` is a folder for what is made on the way.
///
/// # Errors
/// When a tool is missing or fails.
pub fn install(layout: &Layout, disk: &Path, kernel: &Path, initrd: &Path, work: &Path) -> Result<()> {
    let efi = layout.efi();
    // The attribute by which the master boot record knows its partition.
    tool::run("sgdisk", [Path::new("--attributes=1:set:2"), disk])?;
    let (from, to) = (format!("if={MASTER_BOOT_RECORD}"), format!("of={}", disk.display()));
    tool::run("dd", [from.as_str(), &to, "bs=440", "count=1", "conv=notrunc", "status=none"])?;
    let partition = format!("{}@@{}", disk.display(), efi.start);
    tool::run("mmd", ["-i", &partition, "::/loader", "::/loader/entries"])?;
    let syslinux = format!("DEFAULT debian\nLABEL debian\nLINUX /vmlinuz\nINITRD /initrd.img\nAPPEND {WORDS}\n");
    let entry = format!("title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {WORDS}\n");
    let copy =
        |from: &Path, to: &str| tool::run("mcopy", [Path::new("-i"), Path::new(&partition), from, Path::new(to)]);
    for (text, to) in [
        (syslinux.as_str(), "::/syslinux.cfg"),
        (entry.as_str(), "::/loader/entries/debian.conf"),
        ("timeout 0\n", "::/loader/loader.conf"),
    ] {
        let file = work.join("loader.text");
        fs::write(&file, text).map_err(LabError::io("writing", &file))?;
        copy(&file, to)?;
    }
    for (file, to) in [
        (kernel.to_owned(), "::/vmlinuz"),
        (initrd.to_owned(), "::/initrd.img"),
        (PathBuf::from(SYSTEMD_BOOT), "::/EFI/BOOT/BOOTX64.EFI"),
    ] {
        copy(&file, to)?;
    }
    let offset = efi.start.to_string();
    tool::run("syslinux", [Path::new("--install"), Path::new("--offset"), Path::new(&offset), disk]).map(drop)
}
