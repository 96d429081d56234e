//! The header of a qcow2 file and its extensions. Whatever changes the meaning of the rest is known or refused.

use super::super::bytes::{be32, be64, read_to_end};
use super::super::fault::CONVERT;
use super::super::{DiskSource, ImportFault, RawDisk};
use core::ops::Range;

pub(super) const MAGIC: &[u8] = b"QFI\xFB";

/// Incompatible features: the refcounts are stale; the file is known to be damaged; the data is elsewhere; another packing
/// than zlib; parts of clusters.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED: u64 = 1 << 4;

/// The extension with the format of the backing file.
const BACKING_FORMAT: u32 = 0xE279_2ACA;
/// No name of a backing file is longer (QEMU's limit).
const MAX_NAME: usize = 1023;
/// No first table is larger, in entries of 8 bytes (QEMU's limit).
pub(super) const MAX_L1: u32 = (32 << 20) / 8;
const LEN_V2: usize = 72;
const LEN_V3: usize = 104;

/// The file below this one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Backing {
    pub(super) name: String,
    /// The format of it, where the file says it.
    pub(super) format: Option<String>,
}

/// A first table and the size of the disk that it maps: the active one's or a snapshot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) bytes: u64,
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u32,
}

impl View {
    /// Where the first table lies in the file.
    pub(super) fn table(&self) -> Range<u64> {
        self.l1_offset..self.l1_offset.saturating_add(8 * u64::from(self.l1_entries))
    }
}

/// What the header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    view: View,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) backing: Option<Backing>,
    /// Packed clusters are zstd, not deflate.
    pub(super) zstd: bool,
    /// Entries of 16 bytes, with a bit for each 32nd part of a cluster.
    pub(super) extended: bool,
}

fn damaged<T>(what: &'static str, offset: u64) -> Result<T, ImportFault> {
    Err(ImportFault::Damaged { what, offset })
}

fn refused<T>(what: &'static str, remedy: &'static str) -> Result<T, ImportFault> {
    Err(ImportFault::Unsupported { what, remedy })
}

/// What only a header of version 3 has: the incompatible features and its own length.
fn third_version(head: &[u8]) -> Result<(u64, usize), ImportFault> {
    if head.len() < LEN_V3 {
        return Err(ImportFault::Cut { what: "header", offset: 0 });
    }
    let header_len = be32(head, 100) as usize;
    if header_len < LEN_V3 || !header_len.is_multiple_of(8) || header_len > head.len() {
        return damaged("header length", 100);
    }
    if be32(head, 96) > 6 {
        return damaged("refcount width", 96);
    }
    Ok((be64(head, 72), header_len))
}

/// Whether the file can be read with these incompatible features.
fn check_features(incompatible: u64) -> Result<(), ImportFault> {
    if incompatible & CORRUPT != 0 {
        return refused("the mark of a damaged file", "repair it first: qemu-img check -r all");
    }
    if incompatible & DATA_FILE != 0 {
        return refused("an external data file", CONVERT);
    }
    if incompatible & !(DIRTY | COMPRESSION | EXTENDED) != 0 {
        return refused("features unknown to this program", CONVERT);
    }
    Ok(())
}

impl Header {
    /// Reads and checks the header of `file`.
    pub(super) fn read(file: &RawDisk) -> Result<Self, ImportFault> {
        // It lies in the first cluster with all its extensions, and no cluster is longer than 2 MiB.
        let mut head = read_to_end(file, "header", 0, 2 << 20)?;
        if head.len() < LEN_V2 {
            return Err(ImportFault::Cut { what: "header", offset: 0 });
        }
        if !head.starts_with(MAGIC) {
            return damaged("magic", 0);
        }
        let (version, cluster_bits) = (be32(&head, 4), be32(&head, 20));
        if !matches!(version, 2 | 3) {
            return refused("another version than 2 and 3", CONVERT);
        }
        if !(9..=21).contains(&cluster_bits) {
            return damaged("cluster size", 20);
        }
        let cluster = 1_u64 << cluster_bits;
        head.truncate(1 << cluster_bits);
        let (incompatible, header_len) = if version == 3 { third_version(&head)? } else { (0, LEN_V2) };
        match be32(&head, 32) {
            0 => {}
            1 | 2 => return refused("encrypted content", "convert it with its key first: qemu-img convert"),
            _ => return damaged("encryption method", 32),
        }
        check_features(incompatible)?;
        let packing = if header_len > LEN_V3 { head[LEN_V3] } else { 0 };
        let zstd = match (incompatible & COMPRESSION != 0, packing) {
            (false, 0) => false,
            (true, 1) => true,
            (_, 0 | 1) => return damaged("compression type", LEN_V3 as u64),
            _ => return refused("a compression that is neither zlib nor zstd", CONVERT),
        };
        let extended = incompatible & EXTENDED != 0;
        if extended && cluster_bits < 14 {
            return damaged("cluster size", 20);
        }
        let view = View { bytes: be64(&head, 24), l1_offset: be64(&head, 40), l1_entries: be32(&head, 36) };
        let refcounts = (be64(&head, 48), u64::from(be32(&head, 56)));
        let end = refcounts.1.checked_mul(cluster).and_then(|bytes| bytes.checked_add(refcounts.0));
        if refcounts.0 == 0 || !refcounts.0.is_multiple_of(cluster) || end.is_none_or(|end| end > file.bytes()) {
            return damaged("refcount table", 48);
        }
        let header = Self {
            version,
            cluster_bits,
            view,
            snapshots: be32(&head, 60),
            snapshots_offset: be64(&head, 64),
            backing: backing(&head, header_len)?,
            zstd,
            extended,
        };
        header.check(&view)?;
        Ok(header)
    }

    /// The disk as it is now.
    pub(super) fn active(&self) -> View {
        self.view
    }

    /// Bytes of the disk that one entry of a first table stands for.
    pub(super) fn l1_covers(&self) -> u64 {
        let entry_bits = if self.extended { 4 } else { 3 };
        1 << (2 * self.cluster_bits - entry_bits)
    }

    /// Whether a first table can be where it is said to be, and maps the whole disk.
    pub(super) fn check(&self, view: &View) -> Result<(), ImportFault> {
        let damaged = |what, offset| Err(ImportFault::Damaged { what, offset });
        if view.bytes == 0 || view.bytes > 1 << 62 || !view.bytes.is_multiple_of(512) {
            return damaged("disk size", 24);
        }
        if view.l1_entries > MAX_L1 {
            return Err(ImportFault::TooLarge { what: "first table" });
        }
        if !view.l1_offset.is_multiple_of(1 << self.cluster_bits)
            || view.l1_offset == 0
            || u64::from(view.l1_entries) < view.bytes.div_ceil(self.l1_covers())
        {
            return damaged("first table", view.l1_offset);
        }
        Ok(())
    }
}

/// The name and the format of the backing file.
fn backing(head: &[u8], header_len: usize) -> Result<Option<Backing>, ImportFault> {
    let damaged = |what, offset: usize| Err(ImportFault::Damaged { what, offset: offset as u64 });
    let (at, len) = (be64(head, 8), be32(head, 16) as usize);
    let mut format = None;
    let mut next = header_len;
    // Extensions end with one of kind 0, with the name of the backing file, or with the cluster.
    let end = usize::try_from(at).ok().filter(|at| *at != 0).map_or(head.len(), |at| at.min(head.len()));
    while next + 8 <= end {
        let (kind, len) = (be32(head, next), be32(head, next + 4) as usize);
        if kind == 0 {
            break;
        }
        let Some(content) = head[..end].get(next + 8..).and_then(|rest| rest.get(..len)) else {
            return damaged("header extension", next);
        };
        if kind == BACKING_FORMAT {
            format = Some(String::from_utf8_lossy(content).into_owned());
        }
        next += 8 + len.next_multiple_of(8);
    }
    if at == 0 {
        return Ok(None);
    }
    let name = usize::try_from(at).ok().and_then(|at| head.get(at..)?.get(..len));
    match name {
        Some(name) if (1..=MAX_NAME).contains(&len) && !name.contains(&0) => {
            Ok(Some(Backing { name: String::from_utf8_lossy(name).into_owned(), format }))
        }
        _ => damaged("name of the backing file", 8),
    }
}
