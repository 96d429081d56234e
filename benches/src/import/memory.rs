//! The memory of each reader, of disks as large as its format takes, up to 16 TiB: of the whole of `image create`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use slidecast_lab::{LabError, Result, tool};

use super::create;
use crate::setup::Setup;
use crate::table::{Bar, Table, mib};

const TIB: u64 = 1 << 40;

/// As large as a file of ext4 with blocks of 4 KiB can be (16 TiB less a block), in whole MiB.
const LARGEST: u64 = 16 * TIB - (1 << 20);

/// How a file system is made in a file of 16 TiB, or of as much as its program makes. ext4 gets few inodes: partclone takes all of
/// their tables as used, and those of the default are 240 GB.
const VOLUMES: &[(&str, u64, &[&str])] = &[
    ("ext4", 15, &["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-N", "2000000"]),
    ("XFS", 16, &["mkfs.xfs", "-q", "-f"]),
    ("btrfs", 16, &["mkfs.btrfs", "-q", "-f"]),
    ("NTFS", 16, &["mkfs.ntfs", "-q", "-Q", "-F", "-c", "16384"]),
    ("exFAT", 16, &["mkfs.exfat"]),
    ("F2FS", 15, &["mkfs.f2fs", "-q", "-f"]),
];

/// Name, format of qemu-img, TiB, options.
const CONTAINERS: &[(&str, &str, u64, &[&str])] = &[
    ("qcow2", "qcow2", 16, &[]),
    ("qcow2 (zlib)", "qcow2", 16, &["-c"]),
    ("qcow2 (clusters of 2 MiB, parts)", "qcow2", 16, &["-o", "cluster_size=2M,extended_l2=on"]),
    ("VHD dynamic", "vpc", 1, &["-o", "subformat=dynamic,force_size=on"]),
    ("VHDX", "vhdx", 16, &["-o", "subformat=dynamic,block_size=1M"]),
    ("VMDK sparse", "vmdk", 1, &["-o", "subformat=monolithicSparse"]),
    ("VMDK streamOptimized", "vmdk", 1, &["-o", "subformat=streamOptimized"]),
    ("VDI", "vdi", 15, &[]),
];

/// Runs the figures.
///
/// # Errors
/// When a program fails.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    table.group(
        "Memory of readers: peak of the whole of create in MiB, of sparse disks",
        "slidecast image create FILE -o IMAGE (VmHWM)",
    );
    let mut figure = |name: &str, file: &Path| -> Result<()> {
        let image = setup.path("memory.slide");
        let usage = create(file, &image, &setup.path("said"))?;
        table.row(name, mib(usage.peak), Bar::AtMost(128.0), &format!("{:.2} s", usage.seconds));
        fs::remove_file(&image).map_err(LabError::io("removing", &image))
    };
    for (name, size, words) in VOLUMES {
        let Some(disk) = volume(setup, *size, words)? else {
            eprintln!("{} is not installed or makes none of {size} TiB here", words[0]);
            continue;
        };
        figure(&format!("{size} TiB, {name}"), &disk)?;
        if *name == "ext4" {
            let image = setup.path("memory.pc.zst");
            let log = setup.path("memory.log");
            let line = format!(
                "partclone.extfs -c -F -s {} -o - -L {} | zstd -q -f -o {}",
                disk.display(),
                log.display(),
                image.display()
            );
            if tool::have("partclone.extfs") && tool::run("bash", ["-o", "pipefail", "-c", &line]).is_ok() {
                figure(&format!("{size} TiB, partclone of ext4, packed with zstd"), &image)?;
                fs::remove_file(&image).map_err(LabError::io("removing", &image))?;
            }
        }
        fs::remove_file(&disk).map_err(LabError::io("removing", &disk))?;
    }
    for (name, format, size, words) in CONTAINERS {
        let Some(disk) = volume(setup, *size, VOLUMES[1].2)? else { continue };
        let file = setup.path(&format!("memory.{format}"));
        let fixed = ["convert", "-f", "raw", "-O", format].map(Path::new).into_iter();
        let made = tool::run("qemu-img", fixed.chain(words.iter().map(Path::new)).chain([disk.as_path(), &file]));
        fs::remove_file(&disk).map_err(LabError::io("removing", &disk))?;
        match made {
            Ok(_) => figure(&format!("{size} TiB, XFS in {name}"), &file)?,
            Err(error) => eprintln!("{name}: {error}"),
        }
        let _ = fs::remove_file(&file);
    }
    Ok(())
}

/// A file of `size` TiB with a file system.
fn volume(setup: &Setup, size: u64, words: &[&str]) -> Result<Option<PathBuf>> {
    let path = setup.path("memory.img");
    let file = File::create(&path).and_then(|file| file.set_len((size * TIB).min(LARGEST)));
    file.map_err(LabError::io("creating", &path))?;
    let made = tool::run(words[0], words[1..].iter().map(Path::new).chain([path.as_path()]));
    Ok(made.is_ok().then_some(path))
}
