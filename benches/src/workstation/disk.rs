//! Making the disk: a GPT, and file systems on loop devices of its partitions.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use slidecast_lab::{LabError, Result, tool};

use super::fill::Files;

const MIB: u64 = 1 << 20;

/// What is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Esp,
    ExtInLvm,
    Xfs,
    Btrfs,
    Ntfs,
    Exfat,
    Swap,
}

/// Kind, code of sgdisk, and MiB of the partition and of its files on a disk of 20 GiB.
const PLAN: &[(Kind, &str, u64, u64)] = &[
    (Kind::Esp, "ef00", 512, 60),
    (Kind::Swap, "8200", 1024, 0),
    (Kind::ExtInLvm, "8e00", 7168, 2400),
    (Kind::Xfs, "8300", 3072, 900),
    (Kind::Btrfs, "8300", 3072, 900),
    (Kind::Ntfs, "0700", 4096, 1200),
    (Kind::Exfat, "0700", 1524, 500),
];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Esp => "FAT32 (ESP)",
            Self::ExtInLvm => "ext4 in LVM",
            Self::Xfs => "XFS",
            Self::Btrfs => "btrfs",
            Self::Ntfs => "NTFS",
            Self::Exfat => "exFAT",
            Self::Swap => "swap",
        }
    }

    /// The program of partclone that saves it.
    pub(super) fn partclone(self) -> Option<&'static str> {
        Some(match self {
            Self::Esp => "partclone.fat",
            Self::ExtInLvm => "partclone.extfs",
            Self::Xfs => "partclone.xfs",
            Self::Btrfs => "partclone.btrfs",
            Self::Ntfs => "partclone.ntfs",
            Self::Exfat => "partclone.exfat",
            Self::Swap => return None,
        })
    }

    fn make(self, device: &str) -> Result<()> {
        let words: &[&str] = match self {
            Self::Esp => &["mkfs.fat", "-F", "32"],
            Self::ExtInLvm => &["mkfs.ext4", "-q", "-F"],
            Self::Xfs => &["mkfs.xfs", "-q", "-f"],
            Self::Btrfs => &["mkfs.btrfs", "-q", "-f"],
            Self::Ntfs => &["mkfs.ntfs", "-q", "-Q", "-F"],
            Self::Exfat => &["mkfs.exfat"],
            Self::Swap => &["mkswap", "-q"],
        };
        tool::run(words[0], words[1..].iter().copied().chain([device])).map(drop)
    }

    /// Mounts it; NTFS and exFAT with drivers that need no kernel of their own.
    fn mount(self, device: &str, at: &Path) -> Result<()> {
        let at = at.display().to_string();
        match self {
            Self::Ntfs => tool::run("ntfs-3g", [device, &at]),
            Self::Exfat => tool::run("mount.exfat-fuse", [device, &at]),
            _ => tool::run("mount", [device, &at]),
        }
        .map(drop)
    }
}

/// The first program that is needed and not there.
pub(super) fn missing_tool() -> Option<&'static str> {
    let needed = [
        "sgdisk",
        "losetup",
        "lvm",
        "mkfs.fat",
        "mcopy",
        "fsck.fat",
        "mkfs.ext4",
        "mkfs.xfs",
        "mkfs.btrfs",
        "mkfs.ntfs",
        "ntfs-3g",
        "mkfs.exfat",
        "mount.exfat-fuse",
        "mkswap",
        "partclone.extfs",
        "zstd",
    ];
    needed.into_iter().find(|name| !tool::have(name))
}

/// Where a file system is.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) kind: Kind,
    /// First byte and length of the file system.
    pub(super) start: u64,
    pub(super) bytes: u64,
    /// The first byte of the partition that it is in.
    pub(super) outer_start: u64,
    /// What is used of the partition by the word of the file system.
    pub(super) used: Option<u64>,
}

/// The disk.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) partitions: Vec<Partition>,
}

/// A loop device of a part of a file, until it is dropped.
#[derive(Debug)]
pub(super) struct Loop(String);

impl Loop {
    pub(super) fn new(file: &Path, start: u64, bytes: u64) -> Result<Self> {
        let (file, start, bytes) = (file.display().to_string(), start.to_string(), bytes.to_string());
        let said = tool::run("losetup", ["--find", "--show", "--offset", &start, "--sizelimit", &bytes, &file])?;
        Ok(Self(said.trim().to_owned()))
    }

    pub(super) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Nothing is lost where it stays: the next run takes another one.
        let _ = tool::run("losetup", ["--detach", &self.0]);
    }
}

/// A mounted file system, until it is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = tool::run("umount", [&self.0]);
        let _ = fs::remove_dir(&self.0);
    }
}

impl Disk {
    /// Makes the disk of `gib` GiB in the file `path`, filled with what is in `files`; one that is there already is only measured.
    pub(super) fn made(path: &Path, gib: u64, files: &Path) -> Result<Self> {
        let is_there = path.exists();
        if !is_there {
            eprintln!("making the disk of a workstation ({gib} GiB)");
            let file = File::create(path).map_err(LabError::io("creating", path))?;
            file.set_len(gib << 30).map_err(LabError::io("sizing", path))?;
        }
        let mut disk = Self { path: path.to_owned(), partitions: Vec::new() };
        let (mut next, mut words) = (MIB, Vec::new());
        for (number, (kind, code, size, _)) in (1..).zip(PLAN) {
            let bytes = size * gib / 20 * MIB;
            words.push(format!("--new={number}:{}:{}", next / 512, (next + bytes) / 512 - 1));
            words.push(format!("--typecode={number}:{code}"));
            disk.partitions.push(Partition { kind: *kind, start: next, bytes, outer_start: next, used: None });
            next += bytes;
        }
        if !is_there {
            tool::run("sgdisk", words.into_iter().chain([path.display().to_string()]))?;
        }
        let mut files = Files::below(files);
        for (partition, (.., fill)) in disk.partitions.iter_mut().zip(PLAN) {
            let fill = if is_there { None } else { Some((fill * gib / 20 * MIB, &mut files)) };
            partition.prepare(path, fill)?;
        }
        tool::run("sync", [] as [&str; 0])?;
        Ok(disk)
    }
}

impl Partition {
    /// Makes and fills the file system where there is something to fill it with, and asks it what is used.
    fn prepare(&mut self, disk: &Path, fill: Option<(u64, &mut Files)>) -> Result<()> {
        let whole = self.bytes;
        if self.kind == Kind::ExtInLvm {
            let outer = Loop::new(disk, self.outer_start, whole)?;
            (self.start, self.bytes) = volume(outer.path(), self.outer_start, fill.is_some())?;
        }
        let device = Loop::new(disk, self.start, self.bytes)?;
        if fill.is_some() {
            self.kind.make(device.path())?;
        }
        let free = match self.kind {
            Kind::Swap => return Ok(()),
            Kind::Esp => self.fill_esp(device.path(), fill)?,
            _ => self.fill_mounted(disk, device.path(), fill)?,
        };
        // What no logical volume has is no more in use than what is free in one, but for the metadata in front.
        let unclaimed = whole - self.bytes - (self.start - self.outer_start);
        self.used = Some(whole - unclaimed - free);
        Ok(())
    }

    /// Files by mtools; gives what fsck.fat says is free.
    fn fill_esp(&self, device: &str, fill: Option<(u64, &mut Files)>) -> Result<u64> {
        if let Some((bytes, files)) = fill {
            let folder = std::env::temp_dir().join(format!("slidecast-esp-{}", std::process::id()));
            fs::create_dir_all(&folder).map_err(LabError::io("creating", &folder))?;
            let copied = files.fill(&folder, bytes).and_then(|()| {
                let line = format!("mcopy -s -Q -i {device} {}/* ::/", folder.display());
                tool::run("bash", ["-c", &line]).map(drop)
            });
            fs::remove_dir_all(&folder).map_err(LabError::io("removing", &folder))?;
            copied?;
        }
        let said = tool::run("fsck.fat", ["-n", "-v", device])?;
        let unreadable = || LabError::Unable { why: format!("fsck.fat says something else than expected: {said}") };
        let cluster =
            said.lines().find_map(|line| line.trim().strip_suffix(" bytes per cluster")?.trim().parse::<u64>().ok());
        // `DEVICE: 12 files, 100/1000 clusters`
        let counts = said.lines().find_map(|line| line.strip_suffix(" clusters")?.rsplit(' ').next()?.split_once('/'));
        let (used, all) = counts.ok_or_else(unreadable)?;
        match (cluster, used.parse::<u64>(), all.parse::<u64>()) {
            (Some(cluster), Ok(used), Ok(all)) => Ok((all - used) * cluster),
            _ => Err(unreadable()),
        }
    }

    /// Files by a driver; gives what statfs(2) says is free.
    fn fill_mounted(&self, disk: &Path, device: &str, fill: Option<(u64, &mut Files)>) -> Result<u64> {
        let at = disk.with_extension("mounted");
        fs::create_dir_all(&at).map_err(LabError::io("creating", &at))?;
        if let Some((bytes, files)) = fill {
            self.kind.mount(device, &at)?;
            let mounted = Mounted(at.clone());
            files.fill(&mounted.0, bytes)?;
            tool::run("sync", [] as [&str; 0])?;
            drop(mounted);
            fs::create_dir_all(&at).map_err(LabError::io("creating", &at))?;
        }
        // Mounted anew, so that nothing is still on its way.
        self.kind.mount(device, &at)?;
        let mounted = Mounted(at);
        let said = if self.kind == Kind::Btrfs {
            // Of blocks of metadata that are there twice only this counts both.
            let said = tool::run("df", ["-B1", "--output=used", &mounted.0.display().to_string()])?;
            let used = said.lines().nth(1).and_then(|line| line.trim().parse::<u64>().ok());
            used.map(|used| self.bytes - used)
        } else {
            let said = tool::run("stat", ["-f", "-c", "%f %S", &mounted.0.display().to_string()])?;
            let numbers: Vec<u64> = said.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            (numbers.len() == 2).then(|| numbers[0] * numbers[1])
        };
        said.ok_or_else(|| LabError::Unable { why: format!("{} does not say what is free", self.kind.name()) })
    }
}

/// A group with one linear volume that takes four fifths of the physical volume on `device`, or the one that is there. Gives the first byte
/// of its content on the disk, of which the device begins at `outer`, and its length. LVM2 only writes metadata: no device-mapper is needed.
fn volume(device: &str, outer: u64, make: bool) -> Result<(u64, u64)> {
    let config = format!(
        "devices {{ filter=[\"a|^{device}$|\",\"r|.*|\"] use_devicesfile=0 obtain_device_list_from_udev=0 }} \
         activation {{ udev_sync=0 udev_rules=0 }} backup {{ backup=0 archive=0 }} global {{ event_activation=0 }}"
    );
    let lvm = |command: &str| {
        let words = command.split_whitespace();
        tool::run("lvm", words.chain(["--driverloaded", "n", "--config", &config]))
    };
    if make {
        lvm(&format!("pvcreate -q -y {device}"))?;
        lvm(&format!("vgcreate -q --setautoactivation n desk {device}"))?;
        lvm("lvcreate -q -y -an -Wn -Zn -l 80%VG -n root desk")?;
    }
    let said = lvm(&format!("pvs --noheadings --units b --nosuffix -o pe_start,vg_extent_size {device}"))?
        + &lvm("lvs --noheadings --units b --nosuffix -o lv_size,seg_pe_ranges desk/root")?;
    let words: Vec<&str> = said.split_whitespace().collect();
    let first = words.get(3).and_then(|range| range.rsplit_once(':')?.1.split_once('-')?.0.parse::<u64>().ok());
    let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
    match (number(0), number(1), number(2), first) {
        (Some(start), Some(extent), Some(bytes), Some(first)) => Ok((outer + start + first * extent, bytes)),
        _ => Err(LabError::Unable { why: format!("lvm says something else than expected: {said}") }),
    }
}
