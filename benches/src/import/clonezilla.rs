//! A folder as Clonezilla makes it of a disk with a GPT, and the way back to a raw disk with the programs that Clonezilla calls.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use slidecast_lab::{LabError, Result, tool};

use crate::usage::{Usage, measured_line};

/// The first program that is needed and not there.
pub(super) fn missing_tool() -> Option<&'static str> {
    let needed = ["sfdisk", "sgdisk", "losetup", "blkid", "mkswap", "partclone.restore", "zstd", "gzip"];
    needed.into_iter().find(|name| !tool::have(name))
}

/// A saved disk.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) folder: PathBuf,
    disk_bytes: u64,
    packer: &'static str,
    partitions: Vec<Partition>,
}

/// A partition of it.
#[derive(Debug)]
struct Partition {
    number: u32,
    start: u64,
    bytes: u64,
    /// What blkid calls its content.
    kind: String,
    image: PathBuf,
}

impl Saved {
    /// Saves the raw disk in `disk` to the new folder `folder`.
    pub(super) fn of(disk: &Path, folder: &Path, packer: &'static str) -> Result<Self> {
        fs::create_dir_all(folder).map_err(LabError::io("creating", folder))?;
        let disk_bytes = fs::metadata(disk).map_err(LabError::io("looking at", disk))?.len();
        let text = tool::run("sfdisk", [Path::new("-d"), disk])?;
        let text = text.replace(&disk.display().to_string(), "/dev/sda");
        let write = |name: &str, content: &str| {
            let path = folder.join(name);
            fs::write(&path, content).map_err(LabError::io("writing", &path))
        };
        write("clonezilla-img", "This image was saved by Clonezilla")?;
        write("disk", "sda\n")?;
        write("sda-pt.sf", &text)?;
        write("sda-pt.parted", &format!("Disk /dev/sda: {}s\n", disk_bytes / 512))?;
        let backup = format!("--backup={}", folder.join("sda-gpt.gdisk").display());
        tool::run("sgdisk", [Path::new(&backup), disk])?;
        let mut saved = Self { folder: folder.to_owned(), disk_bytes, packer, partitions: Vec::new() };
        let mut parts = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("/dev/sda")) {
            let partition = saved.save(disk, line)?;
            if partition.kind == "swap" {
                write(
                    &format!("swappt-sda{}.info", partition.number),
                    "UUID=\"01234567-89ab-cdef-0123-456789abcdef\"\n",
                )?;
            } else {
                parts.push(format!("sda{}", partition.number));
            }
            saved.partitions.push(partition);
        }
        write("parts", &(parts.join(" ") + "\n"))?;
        Ok(saved)
    }

    /// Saves the partition of a line of sfdisk: `/dev/sda1 : start= 2048, size= 131072, type=...`.
    fn save(&self, disk: &Path, line: &str) -> Result<Partition> {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let field = |key: &str| number(line.split_once(key)?.1.split(',').next()?).map(|sectors| sectors * 512);
        let count = line.split(' ').next().and_then(|device| device.strip_prefix("/dev/sda")?.parse().ok());
        let (Some(count), Some(start), Some(bytes)) = (count, field("start="), field("size=")) else {
            return Err(LabError::Unable { why: format!("sfdisk says something else than expected: {line}") });
        };
        let device = attach(disk, start, bytes)?;
        let kind = tool::run("blkid", ["-p", "-s", "TYPE", "-o", "value", &device])?.trim().to_owned();
        let (program, end) = match kind.as_str() {
            "swap" => ("", "swap"),
            "vfat" => ("partclone.fat", "vfat"),
            "ext2" | "ext3" | "ext4" => ("partclone.extfs", "ext4"),
            "ntfs" => ("partclone.ntfs", "ntfs"),
            "xfs" => ("partclone.xfs", "xfs"),
            "btrfs" => ("partclone.btrfs", "btrfs"),
            "exfat" => ("partclone.exfat", "exfat"),
            other => return Err(LabError::Unable { why: format!("no program saves {other} here") }),
        };
        let short = if self.packer == "zstd" { "zst" } else { "gz" };
        let image = self.folder.join(format!("sda{count}.{end}-ptcl-img.{short}"));
        if !program.is_empty() {
            let log = self.folder.with_extension("log");
            let (packer, image, log) = (self.packer, image.display(), log.display());
            let line = format!("{program} -c -s {device} -o - -L {log} 2>/dev/null | {packer} -c > {image}");
            tool::run("bash", ["-o", "pipefail", "-c", &line])?;
        }
        tool::run("losetup", ["--detach", &device])?;
        Ok(Partition { number: count, start, bytes, kind, image })
    }

    /// Makes the raw disk `raw` of the folder.
    pub(super) fn restore(&self, raw: &Path, said: &Path) -> Result<Usage> {
        let file = File::create(raw).map_err(LabError::io("creating", raw))?;
        file.set_len(self.disk_bytes).map_err(LabError::io("sizing", raw))?;
        drop(file);
        let shown = raw.display();
        let table = self.folder.join("sda-gpt.gdisk");
        let mut usage = measured_line(&format!("sgdisk --load-backup={} {shown}", table.display()), said)?;
        for Partition { start, bytes, kind, image, .. } in &self.partitions {
            let device = attach(raw, *start, *bytes)?;
            let line = if kind == "swap" {
                format!("mkswap {device}")
            } else {
                let log = self.folder.with_extension("log");
                let (packer, image, log) = (self.packer, image.display(), log.display());
                format!("{packer} -dc {image} | partclone.restore -s - -o {device} -L {log}")
            };
            usage += measured_line(&line, said)?;
            // What lies in the cache of the device is not in the file before.
            usage += measured_line(&format!("blockdev --flushbufs {device}"), said)?;
            tool::run("losetup", ["--detach", &device])?;
        }
        Ok(usage)
    }
}

fn attach(file: &Path, start: u64, bytes: u64) -> Result<String> {
    let (file, start, bytes) = (file.display().to_string(), start.to_string(), bytes.to_string());
    let said = tool::run("losetup", ["--find", "--show", "--offset", &start, "--sizelimit", &bytes, &file])?;
    Ok(said.trim().to_owned())
}
