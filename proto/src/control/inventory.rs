//! What a node is made of: its network cards and disks.

use std::net::IpAddr;

/// A network card of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The kernel's name, for example `enp3s0`.
    pub name: String,
    /// The hardware address.
    pub mac: [u8; 6],
    /// The addresses it has now.
    pub addresses: Vec<IpAddr>,
    /// The speed of its link in Mbit/s; 0 when it is not known.
    pub mbits: u32,
    /// The link is up.
    pub up: bool,
}

/// A disk of a node, or a regular file that the agent's own `--target` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The device node or file.
    pub path: String,
    /// The model as the disk gives it; empty if it gives none.
    pub model: String,
    /// The serial number; empty if it has none.
    pub serial: String,
    /// The world wide name; empty if it has none.
    pub wwn: String,
    /// How it is attached: `nvme`, `sata`, `usb`, `virtio`, `loop`, `file` and so on.
    pub transport: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The logical sector in bytes.
    pub logical_sector: u32,
    /// The physical sector in bytes.
    pub physical_sector: u32,
    /// It has heads that move.
    pub rotational: bool,
    /// It can be taken out.
    pub removable: bool,
    /// It cannot be written.
    pub read_only: bool,
    /// Why it may not be written now.
    pub held: Held,
    /// It is a regular file.
    pub file: bool,
}

/// What else uses a disk, so that it may not be written. Texts say what exactly, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    No,
    /// A file system on it, or on one of its partitions, is mounted: where.
    Mounted(String),
    /// The running system was booted from it: how that is known.
    BootMedium(String),
    /// Anything else: swap, LVM, RAID, a mapping, an exclusive opener.
    InUse(String),
}
