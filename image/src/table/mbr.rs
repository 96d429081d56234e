//! The master boot record and the chain of extended boot records behind it.

use super::{Disk, Partition, TableFault};
use crate::le::u32_at;
use core::ops::Range;

/// The system numbers no more logical partitions than these.
const MAX_LOGICAL: usize = 128;

/// One entry in use.
#[derive(Clone, Copy)]
struct Entry {
    slot: usize,
    kind: u8,
    first: u64,
    sectors: u64,
}

impl Entry {
    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85)
    }
}

/// The entries of a boot record; `None` if it is none.
fn entries(boot: &[u8]) -> Option<Vec<Entry>> {
    if boot.get(510..512)? != [0x55, 0xAA] {
        return None;
    }
    let mut entries = Vec::new();
    for (slot, bytes) in boot[446..510].chunks_exact(16).enumerate() {
        if bytes[0] & 0x7F != 0 {
            return None;
        }
        let (first, sectors) = (u32_at(bytes, 8)?.into(), u32_at(bytes, 12)?.into());
        if bytes[4] != 0 {
            entries.push(Entry { slot, kind: bytes[4], first, sectors });
        }
    }
    Some(entries)
}

/// The partitions of the MBR `boot`; `None` if it is none, or has none.
pub(super) fn partitions(disk: &Disk<'_>, boot: &[u8]) -> Result<Option<Vec<Partition>>, TableFault> {
    let Some(entries) = entries(boot).filter(|entries| !entries.is_empty()) else { return Ok(None) };
    let mut partitions = Vec::new();
    let mut extended = None;
    for entry in entries {
        let index = u32::try_from(entry.slot + 1).unwrap_or(u32::MAX);
        let partition = disk.partition(index, entry.first, entry.sectors, format!("{:02x}", entry.kind))?;
        if !entry.is_extended() {
            partitions.push(partition);
        } else if extended.replace(entry.first..entry.first + entry.sectors).is_some() {
            return Err(TableFault::Logical);
        }
    }
    if let Some(extended) = extended {
        let sector = u64::from(disk.sector);
        let reaches_in = |p: &Partition| p.start < extended.end * sector && p.start + p.bytes > extended.start * sector;
        if partitions.iter().any(reaches_in) {
            return Err(TableFault::Logical);
        }
        partitions.extend(logical(disk, extended)?);
    }
    Ok(Some(partitions))
}

/// The logical partitions inside `extended`: each boot record has one, counted from itself, and the way to the next one,
/// counted from the first.
fn logical(disk: &Disk<'_>, extended: Range<u64>) -> Result<Vec<Partition>, TableFault> {
    let mut partitions: Vec<Partition> = Vec::new();
    let mut records = Vec::new();
    let mut next = Some(extended.start);
    while let Some(at) = next.take() {
        if !extended.contains(&at) || records.contains(&at) || records.len() >= MAX_LOGICAL {
            return Err(TableFault::Logical);
        }
        records.push(at);
        let record = disk.read(at, 512)?.ok_or(TableFault::Logical)?;
        let Some(entries) = entries(&record) else {
            // An extended partition in which nothing was ever made.
            return if records.len() == 1 { Ok(partitions) } else { Err(TableFault::Logical) };
        };
        let mut own = None;
        for entry in entries {
            let seen = if entry.is_extended() {
                next.replace(extended.start + entry.first).is_some()
            } else {
                own.replace(entry).is_some()
            };
            if seen {
                return Err(TableFault::Logical);
            }
        }
        if let Some(entry) = own {
            let index = u32::try_from(partitions.len() + 5).unwrap_or(u32::MAX);
            let first = at + entry.first;
            if entry.first == 0 || first + entry.sectors > extended.end {
                return Err(TableFault::Outside(index));
            }
            partitions.push(disk.partition(index, first, entry.sectors, format!("{:02x}", entry.kind))?);
        }
    }
    // A partition over a later boot record would let that record count as free space.
    let sector = u64::from(disk.sector);
    let covers = |p: &Partition, record: &u64| (p.start..p.start + p.bytes).contains(&(record * sector));
    if partitions.iter().any(|partition| records.iter().any(|record| covers(partition, record))) {
        return Err(TableFault::Logical);
    }
    Ok(partitions)
}
