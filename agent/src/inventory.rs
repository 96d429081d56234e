//! What the node has: its disks, as the kernel shows them under `/sys/block`, and its memory.
//!
//! Nothing is opened but small text files and loop devices (to ask what is behind them), so that looking never disturbs a disk
//! or another agent on the machine. Where the kernel says nothing (an attribute that a driver lacks), the field stays empty.

mod asking;
mod held;
mod loops;
mod same;

pub(crate) use asking::Wait;
use asking::{Question, ask};
use held::Users;
use slidecast_proto::control::{Disk, Held};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Kernel names of devices that are never targets: RAM disks, optical and floppy drives, mappings.
const NEVER: [&str; 7] = ["ram", "zram", "sr", "fd", "dm-", "mtdblock", "pmem"];

/// Where the kernel's file trees are. Tests have their own.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    /// The mount point of sysfs.
    pub(crate) sys: PathBuf,
    /// The mount point of procfs.
    pub(crate) proc: PathBuf,
    /// The directory of device nodes.
    pub(crate) dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// The memory of the node, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// What can be had without swapping.
    pub(crate) available: u64,
}

/// The disks of the node in the order of their names; a regular file only when the agent's own `--target` names it.
///
/// Empty when sysfs is not mounted. A loop device over a file that did not answer in time is held; a target that is such a file is
/// left out.
#[must_use]
pub(crate) fn disks(roots: &Roots, wait: Wait, own_target: Option<&Path>) -> Vec<Disk> {
    let users = Users::read(roots, wait);
    let block = roots.sys.join("block");
    let mut names: Vec<String> = fs::read_dir(&block)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !NEVER.iter().any(|never| name.starts_with(never)))
        .collect();
    names.sort_unstable();
    let disks = names.iter().filter_map(|name| disk(roots, &users, name)).collect();
    let mut disks = same::merge(disks, |one, other| same::is_one_loop(users.loops(), one, other));
    disks.extend(own_target.and_then(|path| regular_file(&users, wait, path)));
    disks
}

/// A path with all links followed, and for a device node of any name or place the kernel's own name of the device: so every name
/// of a disk is the same disk. Without an answer in time it is the path itself.
#[must_use]
pub(crate) fn true_path(roots: &Roots, wait: Wait, path: &str) -> String {
    let Some(answer) = ask(wait, &[Question { path: path.into(), behind: None }]).pop().flatten() else {
        return path.to_owned();
    };
    let device = answer.meta.as_ref().and_then(kernel_numbers).and_then(|numbers| device_path(roots, &numbers));
    let real = device.or(answer.real).unwrap_or_else(|| path.into());
    real.into_os_string().into_string().unwrap_or_else(|_| path.to_owned())
}

/// The device node that bears the kernel's name of the block device with these numbers.
pub(crate) fn device_path(roots: &Roots, numbers: &str) -> Option<PathBuf> {
    let device = fs::canonicalize(roots.sys.join("dev/block").join(numbers)).ok()?;
    let name = device.file_name()?.to_str()?;
    Some(roots.dev.join(name.replace('!', "/")))
}

/// `major:minor` of a block device's node, as sysfs writes it; none for anything else.
pub(crate) fn kernel_numbers(meta: &Metadata) -> Option<String> {
    meta.file_type().is_block_device().then(|| dev_number(meta.rdev()))
}

fn dev_number(dev: u64) -> String {
    format!("{}:{}", nix::sys::stat::major(dev), nix::sys::stat::minor(dev))
}

/// The memory of the node; zeros when procfs is not mounted.
#[must_use]
pub(crate) fn memory(roots: &Roots) -> Memory {
    let text = fs::read_to_string(roots.proc.join("meminfo")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = field("MemTotal").unwrap_or(0);
    Memory { total, available: field("MemAvailable").or_else(|| field("MemFree")).unwrap_or(0) }
}

fn disk(roots: &Roots, users: &Users, name: &str) -> Option<Disk> {
    let dir = roots.sys.join("block").join(name);
    let sectors: u64 = number(&dir.join("size"))?;
    if sectors == 0 || number(&dir.join("hidden")) == Some(1) {
        return None;
    }
    let place = fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
    let transport = transport(name, &place);
    let queue = dir.join("queue");
    let logical = number(&queue.join("logical_block_size")).unwrap_or(512);
    Some(Disk {
        path: roots.dev.join(name.replace('!', "/")).to_string_lossy().into_owned(),
        model: first_text(&dir, &["device/model", "device/name"]),
        serial: serial(&dir),
        wwn: wwn(&dir),
        transport: transport.to_owned(),
        bytes: sectors.saturating_mul(512),
        logical_sector: logical,
        physical_sector: number(&queue.join("physical_block_size")).unwrap_or(logical),
        rotational: has_heads(transport) && number(&queue.join("rotational")) == Some(1),
        removable: number(&dir.join("removable")) == Some(1),
        read_only: number(&dir.join("ro")) == Some(1),
        held: users.of(&dir, name),
        file: false,
        other_paths: Vec::new(),
    })
}

fn regular_file(users: &Users, wait: Wait, path: &Path) -> Option<Disk> {
    let answer = ask(wait, &[Question { path: path.into(), behind: None }]).pop()??;
    let (real, meta) = answer.real.zip(answer.meta)?;
    if !meta.is_file() {
        return None;
    }
    Some(Disk {
        path: path.to_string_lossy().into_owned(),
        model: String::new(),
        serial: String::new(),
        wwn: String::new(),
        transport: "file".to_owned(),
        bytes: meta.len(),
        logical_sector: 512,
        physical_sector: 4096,
        rotational: false,
        removable: false,
        read_only: meta.permissions().readonly(),
        held: users.behind_loop(&real, &meta).map_or(Held::No, Held::InUse),
        file: true,
        other_paths: Vec::new(),
    })
}

/// How a disk is attached, from its place in the tree of devices: the bus nearest to the disk decides.
fn transport(name: &str, place: &Path) -> &'static str {
    let names = [("loop", "loop"), ("nbd", "nbd"), ("md", "md"), ("rbd", "rbd"), ("mmcblk", "mmc"), ("xvd", "xen")];
    if let Some((_, transport)) = names.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return transport;
    }
    let buses = [
        ("nvme", "nvme"),
        ("usb", "usb"),
        ("ata", "sata"),
        ("end_device-", "sas"),
        ("rport-", "fc"),
        ("session", "iscsi"),
        ("virtio", "virtio"),
        ("vbd-", "xen"),
        ("host", "scsi"),
    ];
    let parts: Vec<_> = place.iter().rev().skip(1).filter_map(|part| part.to_str()).collect();
    let bus = |part: &str| {
        buses.iter().find(|(prefix, _)| {
            part.strip_prefix(prefix).is_some_and(|rest| rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
        })
    };
    // Every SCSI disk hangs on a host; what that host is made of stands further up.
    let found = parts.iter().filter_map(|part| bus(part)).find(|(_, transport)| *transport != "scsi");
    found.or_else(|| parts.iter().find_map(|part| bus(part))).map_or("", |(_, transport)| transport)
}

/// Whether the kernel's word on moving heads counts. Virtual disks claim them without knowing.
fn has_heads(transport: &str) -> bool {
    !matches!(transport, "virtio" | "xen" | "loop" | "nbd" | "rbd" | "nvme" | "mmc")
}

fn serial(dir: &Path) -> String {
    let plain = first_text(dir, &["serial", "device/serial"]);
    if !plain.is_empty() {
        return plain;
    }
    // SCSI and SATA: page 0x80 of the vital product data, four bytes of header and the text.
    let page = fs::read(dir.join("device/vpd_pg80")).unwrap_or_default();
    clean(&String::from_utf8_lossy(page.get(4..).unwrap_or_default()))
}

/// The world wide name as `lsblk` writes it: `0x...` for NAA names, else as the kernel has it.
fn wwn(dir: &Path) -> String {
    let name = first_text(dir, &["wwid", "device/wwid"]);
    match name.split_once('.') {
        Some(("naa", digits)) => format!("0x{digits}"),
        Some(("eui" | "nvme" | "uuid", _)) => name,
        // Vendor texts ("t10.") are model and serial again.
        _ => String::new(),
    }
}

fn first_text(dir: &Path, names: &[&str]) -> String {
    let texts = names.iter().filter_map(|name| fs::read(dir.join(name)).ok());
    texts.map(|text| clean(&String::from_utf8_lossy(&text))).find(|text| !text.is_empty()).unwrap_or_default()
}

/// One line of printable characters: device texts come padded, and may hold any bytes.
fn clean(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    printable.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect()
}

fn number<T: core::str::FromStr>(path: &Path) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A made-up sysfs, procfs and /dev.
    pub(super) struct Tree {
        dir: TempDir,
        pub(super) roots: Roots,
    }

    impl Tree {
        pub(super) fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            let roots = Roots { sys: at("sys"), proc: at("proc"), dev: at("dev") };
            fs::create_dir_all(roots.sys.join("block")).unwrap();
            fs::create_dir_all(&roots.proc).unwrap();
            fs::create_dir_all(&roots.dev).unwrap();
            Self { dir, roots }
        }

        pub(super) fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        pub(super) fn write(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// A disk of 2048 sectors at `place` below /sys/devices.
        pub(super) fn disk(&self, name: &str, place: &str, dev: &str, attributes: &[(&str, &str)]) {
            let base = format!("sys/devices/{place}/block/{name}");
            self.write(&format!("{base}/size"), "2048\n");
            self.write(&format!("{base}/dev"), &format!("{dev}\n"));
            self.write(&format!("{base}/queue/logical_block_size"), "512\n");
            for (file, text) in attributes {
                self.write(&format!("{base}/{file}"), text);
            }
            symlink(self.dir.path().join(base), self.roots.sys.join("block").join(name)).unwrap();
        }
    }

    #[test]
    fn a_disk_is_described_by_what_sysfs_says() {
        let tree = Tree::new();
        tree.disk(
            "sda",
            "pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0",
            "8:0",
            &[
                ("device/model", "ST1000DM003-1ER1\n"),
                ("device/vpd_pg80", "\0\u{1}\0\u{8}  Z4Y1ABCD"),
                ("device/wwid", "naa.5000c500a1b2c3d4\n"),
                ("queue/physical_block_size", "4096\n"),
                ("queue/rotational", "1\n"),
                ("removable", "0\n"),
                ("ro", "0\n"),
            ],
        );
        let found = disks(&tree.roots, Wait::ForAll, None);
        let expected = Disk {
            path: tree.roots.dev.join("sda").to_str().unwrap().to_owned(),
            model: "ST1000DM003-1ER1".into(),
            serial: "Z4Y1ABCD".into(),
            wwn: "0x5000c500a1b2c3d4".into(),
            transport: "sata".into(),
            bytes: 1 << 20,
            logical_sector: 512,
            physical_sector: 4096,
            rotational: true,
            removable: false,
            read_only: false,
            held: Held::No,
            file: false,
            other_paths: Vec::new(),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn the_nearest_bus_is_the_transport() {
        let cases = [
            ("nvme0n1", "pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0", "nvme"),
            ("nvme0n2", "virtual/nvme-subsystem/nvme-subsys0", ""),
            ("sdb", "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0", "usb"),
            ("sdc", "pci0000:00/0000:00:03.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0", "sas"),
            ("sdd", "pci0000:00/0000:00:05.0/virtio2/host3/target3:0:0/3:0:0:0", "virtio"),
            ("sde", "pci0000:00/0000:00:10.0/host2/target2:0:0/2:0:0:0", "scsi"),
            ("sdf", "platform/host5/session1/target5:0:0/5:0:0:0", "iscsi"),
            ("vda", "pci0000:00/0000:00:02.0/virtio1", "virtio"),
            ("mmcblk0", "platform/soc/mmc_host/mmc0/mmc0:0001", "mmc"),
            ("loop3", "virtual", "loop"),
        ];
        for (name, place, expected) in cases {
            let path = Path::new("/sys/devices").join(place).join("block").join(name);
            assert_eq!(transport(name, &path), expected, "{name}");
        }
    }

    #[test]
    fn virtual_disks_have_no_heads_whatever_they_claim() {
        let tree = Tree::new();
        tree.disk("vda", "pci0000:00/0000:00:02.0/virtio1", "254:0", &[("queue/rotational", "1"), ("serial", "S1")]);
        let found = disks(&tree.roots, Wait::ForAll, None);
        assert!(!found[0].rotational);
        assert_eq!(found[0].serial, "S1");
    }

    #[test]
    fn what_can_never_be_a_target_is_not_listed() {
        let tree = Tree::new();
        for name in ["zram0", "sr0", "dm-0", "ram3"] {
            tree.disk(name, "virtual", "7:9", &[]);
        }
        tree.disk("loop0", "virtual", "7:0", &[]);
        tree.write("sys/block/loop0/size", "0\n");
        tree.disk("nvme0c0n1", "virtual/nvme-subsystem", "259:0", &[("hidden", "1\n")]);
        assert_eq!(disks(&tree.roots, Wait::ForAll, None), []);
    }

    #[test]
    fn a_regular_file_is_a_disk_only_when_named() {
        let tree = Tree::new();
        tree.write("disk.img", "twelve bytes");
        let path = tree.dir.path().join("disk.img");
        assert_eq!(disks(&tree.roots, Wait::ForAll, None), []);
        let found = disks(&tree.roots, Wait::ForAll, Some(&path));
        assert!(found[0].file && found[0].bytes == 12 && found[0].transport == "file" && found[0].held == Held::No);
        assert_eq!(disks(&tree.roots, Wait::ForAll, Some(&tree.dir.path().join("missing"))), []);
        tree.disk("loop0", "virtual", "7:0", &[("loop/backing_file", path.to_str().unwrap())]);
        let found = disks(&tree.roots, Wait::ForAll, Some(&path));
        assert_eq!(found[1].held, Held::InUse("it is behind loop0".into()));
    }

    #[test]
    fn a_device_is_known_by_its_numbers_whatever_its_node_is_called() {
        let tree = Tree::new();
        tree.disk("cciss!c0d0", "pci0000:00/host0", "104:0", &[]);
        fs::create_dir_all(tree.path("sys/dev/block")).unwrap();
        symlink(tree.path("sys/devices/pci0000:00/host0/block/cciss!c0d0"), tree.path("sys/dev/block/104:0")).unwrap();
        assert_eq!(device_path(&tree.roots, "104:0"), Some(tree.roots.dev.join("cciss/c0d0")));
        assert_eq!(device_path(&tree.roots, "104:1"), None);
        tree.write("some.img", "");
        symlink(tree.path("some.img"), tree.path("link")).unwrap();
        let real = fs::canonicalize(tree.path("some.img")).unwrap();
        assert_eq!(true_path(&tree.roots, Wait::ForAll, tree.path("link").to_str().unwrap()), real.to_str().unwrap());
        assert_eq!(true_path(&tree.roots, Wait::ForAll, "/no/such/disk"), "/no/such/disk");
    }

    #[test]
    fn memory_is_what_meminfo_says() {
        let tree = Tree::new();
        assert_eq!(memory(&tree.roots), Memory::default());
        tree.write("proc/meminfo", "MemTotal:     1000 kB\nMemFree:  10 kB\nMemAvailable:      400 kB\n");
        assert_eq!(memory(&tree.roots), Memory { total: 1_024_000, available: 409_600 });
    }

    #[test]
    fn texts_from_devices_are_one_printable_line() {
        assert_eq!(clean("  A\u{1b}[2J\nB  \0"), "A [2J B");
    }
}
