//! What a node is made of: its network cards and disks.

use super::fields::{address, line, put_address, put_line};
use super::{MAX_ADDRESSES, MAX_DISKS, MAX_LABEL, MAX_LINE, MAX_MESSAGE, MAX_NAME, MAX_PATHS};
use crate::quantity::Bytes;
use crate::wire::{Parsed, array, flag, list, put_list};
use core::fmt;
use nom::Parser;
use nom::combinator::{fail, map};
use nom::number::complete::{le_u8, le_u32, le_u64};
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

impl Card {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_line(out, &self.name, MAX_NAME);
        out.extend_from_slice(&self.mac);
        put_list(out, &self.addresses, MAX_ADDRESSES, |out, address| put_address(out, *address));
        out.extend_from_slice(&self.mbits.to_le_bytes());
        out.push(self.up.into());
    }

    pub(super) fn read(input: &[u8]) -> Parsed<'_, Self> {
        map((line(MAX_NAME), array, list(MAX_ADDRESSES, address), le_u32, flag), |(name, mac, addresses, mbits, up)| {
            Self { name, mac, addresses, mbits, up }
        })
        .parse(input)
    }
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
    /// Further device nodes that lead to the same disk: other paths of a multipath disk, other loop devices over its file.
    pub other_paths: Vec<String>,
}

impl Disk {
    /// The same disk, reached by `asked` if that is one of its paths.
    #[must_use]
    pub fn by_path(&self, asked: Option<&str>) -> Self {
        let mut disk = self.clone();
        if let Some(other) = disk.other_paths.iter_mut().find(|other| asked == Some(other.as_str())) {
            core::mem::swap(&mut disk.path, other);
        }
        disk
    }

    /// Whether this path leads to the disk.
    #[must_use]
    pub(crate) fn is_at(&self, path: &str) -> bool {
        self.path == path || self.other_paths.iter().any(|other| other == path)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_line(out, &self.path, MAX_LINE);
        put_line(out, &self.model, MAX_LABEL);
        put_line(out, &self.serial, MAX_LABEL);
        put_line(out, &self.wwn, MAX_LABEL);
        put_line(out, &self.transport, MAX_NAME);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.logical_sector.to_le_bytes());
        out.extend_from_slice(&self.physical_sector.to_le_bytes());
        out.extend([self.rotational, self.removable, self.read_only].map(u8::from));
        self.held.put(out);
        out.push(self.file.into());
        put_list(out, &self.other_paths, MAX_PATHS, |out, path| put_line(out, path, MAX_LINE));
    }

    pub(super) fn read(input: &[u8]) -> Parsed<'_, Self> {
        let texts = (line(MAX_LINE), line(MAX_LABEL), line(MAX_LABEL), line(MAX_LABEL), line(MAX_NAME));
        let sizes = (le_u64, le_u32, le_u32);
        map(
            (texts, sizes, flag, flag, flag, Held::read, flag, list(MAX_PATHS, line(MAX_LINE))),
            |(texts, sizes, rotational, removable, read_only, held, file, other_paths)| {
                let (path, model, serial, wwn, transport) = texts;
                let (bytes, logical_sector, physical_sector) = sizes;
                Self {
                    path,
                    model,
                    serial,
                    wwn,
                    transport,
                    bytes,
                    logical_sector,
                    physical_sector,
                    rotational,
                    removable,
                    read_only,
                    held,
                    file,
                    other_paths,
                }
            },
        )
        .parse(input)
    }

    /// Appends the count and the first disks, as many as [`MAX_DISKS`] and [`MAX_MESSAGE`] allow.
    pub(super) fn put_all(out: &mut Vec<u8>, disks: &[Self]) {
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut count = 0_u32;
        for disk in disks.iter().take(MAX_DISKS as usize) {
            let end = out.len();
            disk.put(out);
            if out.len() > MAX_MESSAGE {
                out.truncate(end);
                break;
            }
            count += 1;
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    }
}

impl fmt::Display for Disk {
    /// Path, model, serial, size and further paths, by which a person tells disks apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.path)?;
        if !self.model.trim().is_empty() {
            write!(f, "{}, ", self.model.trim())?;
        }
        if !self.serial.trim().is_empty() {
            write!(f, "serial {}, ", self.serial.trim())?;
        }
        write!(f, "{}", Bytes(self.bytes))?;
        if !self.other_paths.is_empty() {
            write!(f, ", also {}", self.other_paths.join(" and "))?;
        }
        f.write_str(")")
    }
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

impl Held {
    fn put(&self, out: &mut Vec<u8>) {
        let (tag, why) = match self {
            Self::No => return out.push(0),
            Self::Mounted(why) => (1, why),
            Self::BootMedium(why) => (2, why),
            Self::InUse(why) => (3, why),
        };
        out.push(tag);
        put_line(out, why, MAX_LABEL);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        match le_u8(input)? {
            (input, 0) => Ok((input, Self::No)),
            (input, 1) => map(line(MAX_LABEL), Self::Mounted).parse(input),
            (input, 2) => map(line(MAX_LABEL), Self::BootMedium).parse(input),
            (input, 3) => map(line(MAX_LABEL), Self::InUse).parse(input),
            (input, _) => fail().parse(input),
        }
    }
}
