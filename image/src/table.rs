//! The partition table of a disk: GPT, or MBR with logical partitions.
//!
//! A table is believed as a whole or not at all: one entry outside the disk, two that overlap, a checksum that does not hold,
//! and no partition of it is reported, so that everything on the disk counts as used.

pub(crate) mod gpt;
mod mbr;

use crate::manifest::TableKind;
use crate::source::ReadAt;
use core::fmt;
use std::io;

/// A partition table as it was read.
#[derive(Debug)]
pub(crate) struct Table {
    /// What the disk begins with.
    pub(crate) kind: TableKind,
    /// The partitions in the order of the table; extended ones are not among them.
    pub(crate) partitions: Vec<Partition>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Its number as the system counts: logical ones from 5.
    pub(crate) index: u32,
    /// Its first byte.
    pub(crate) start: u64,
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// Its type: a GUID, or two hexadecimal digits.
    pub(crate) kind: String,
    /// Its name in a GPT.
    pub(crate) name: String,
}

/// Why a table is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableFault {
    /// The system could not read it.
    Unreadable(io::ErrorKind),
    /// There are signs of a GPT, but no primary table that holds.
    Gpt(&'static str),
    /// A partition of this number leaves the disk or its place.
    Outside(u32),
    /// These two partitions overlap.
    Overlap(u32, u32),
    /// The list of logical partitions leaves its place, or does not end.
    Logical,
}

impl fmt::Display for TableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(kind) => write!(f, "the partition table cannot be read: {kind}"),
            Self::Gpt(what) => write!(f, "the GPT cannot be used: {what}"),
            Self::Outside(index) => write!(f, "partition {index} is not where a partition can be"),
            Self::Overlap(one, other) => write!(f, "partitions {one} and {other} overlap"),
            Self::Logical => f.write_str("the list of logical partitions cannot be right"),
        }
    }
}

impl From<io::Error> for TableFault {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.kind())
    }
}

/// Reads the table of a disk of `disk_bytes` with sectors of `sector` bytes.
pub(crate) fn read(source: &dyn ReadAt, disk_bytes: u64, sector: u32) -> Result<Table, TableFault> {
    let none = Table { kind: TableKind::None, partitions: Vec::new() };
    if sector < 512 || disk_bytes < 3 * u64::from(sector) {
        return Ok(none);
    }
    let mut first = vec![0; 2 * sector as usize];
    source.read_at(0, &mut first)?;
    let (boot, header) = first.split_at(sector as usize);
    let disk = Disk { source, sectors: disk_bytes / u64::from(sector), sector };
    let protective = gpt::protective_entry(boot).is_some();
    let table = match (protective, gpt::Header::parse(header, 1)) {
        (true, Some(header)) => Table { kind: TableKind::Gpt, partitions: gpt_partitions(&disk, &header)? },
        (true, None) => return Err(TableFault::Gpt("its primary header does not hold")),
        (false, Some(_)) => return Err(TableFault::Gpt("there is no protective MBR")),
        (false, None) => match mbr::partitions(&disk, boot)? {
            Some(partitions) => Table { kind: TableKind::Mbr, partitions },
            None => none,
        },
    };
    let mut sorted: Vec<_> = table.partitions.iter().collect();
    sorted.sort_by_key(|partition| partition.start);
    match sorted.windows(2).find(|pair| pair[0].start + pair[0].bytes > pair[1].start) {
        Some(pair) => Err(TableFault::Overlap(pair[0].index, pair[1].index)),
        None => Ok(table),
    }
}

/// A disk in sectors.
struct Disk<'a> {
    source: &'a dyn ReadAt,
    sectors: u64,
    sector: u32,
}

impl Disk<'_> {
    /// A partition of `sectors` sectors from `first`, if it is on the disk.
    fn partition(&self, index: u32, first: u64, sectors: u64, kind: String) -> Result<Partition, TableFault> {
        let inside = first.checked_add(sectors).is_some_and(|end| end <= self.sectors);
        if first == 0 || sectors == 0 || !inside {
            return Err(TableFault::Outside(index));
        }
        let sector = u64::from(self.sector);
        Ok(Partition { index, start: first * sector, bytes: sectors * sector, kind, name: String::new() })
    }

    /// `len` bytes from `first`, if they are on the disk; the caller has bounded `len`.
    fn read(&self, first: u64, len: usize) -> Result<Option<Vec<u8>>, TableFault> {
        let at = first.checked_mul(u64::from(self.sector));
        let end = at.and_then(|at| at.checked_add(len as u64));
        let (Some(at), Some(end)) = (at, end) else { return Ok(None) };
        if end > self.sectors * u64::from(self.sector) {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        self.source.read_at(at, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// The partitions of a GPT, all behind its entries and before its backup.
fn gpt_partitions(disk: &Disk<'_>, header: &gpt::Header) -> Result<Vec<Partition>, TableFault> {
    let outside = TableFault::Gpt("its entries are not on the disk");
    let len = usize::try_from(header.array_bytes()).map_err(|_| outside)?;
    let array = disk.read(header.entries, len)?.ok_or(outside)?;
    if header.entries < 2 || !header.array_holds(&array) {
        return Err(TableFault::Gpt("its entries do not hold"));
    }
    let array_end = header.entries + (len as u64).div_ceil(u64::from(disk.sector));
    let mut partitions = Vec::new();
    for (index, entry) in header.partitions(&array) {
        let sectors = entry.last.checked_sub(entry.first).and_then(|span| span.checked_add(1));
        let partition = disk.partition(index, entry.first, sectors.unwrap_or(0), entry.kind_text())?;
        let backup_in_it = (entry.first..=entry.last).contains(&header.alternate);
        if entry.first < 2 || (entry.first < array_end && entry.last >= header.entries) || backup_in_it {
            return Err(TableFault::Outside(index));
        }
        partitions.push(Partition { name: entry.name(), ..partition });
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{RawDisk, ReadAt};
    use crate::testing::{run, run_with, tool};
    use proptest::prelude::*;
    use std::path::PathBuf;

    const MIB: u64 = 1 << 20;

    /// A disk of `bytes` partitioned by an sfdisk script.
    fn disk(bytes: u64, script: &str) -> Option<(tempfile::TempDir, PathBuf)> {
        tool("sfdisk")?;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        run_with("sfdisk", ["--quiet", path.to_str().unwrap()], script);
        Some((dir, path))
    }

    /// What sfdisk says of it: start and size in bytes, type.
    fn listed(path: &std::path::Path) -> Vec<(u64, u64, String)> {
        let said = run("sfdisk", ["--dump", path.to_str().unwrap()]);
        let field = |line: &str, name: &str| {
            let value = line.split(name).nth(1).unwrap().trim_start_matches(['=', ' ']);
            value.split([',', ' ']).next().unwrap().to_owned()
        };
        let lines = said.lines().filter(|line| line.contains("start="));
        lines
            .map(|line| {
                let number = |name| field(line, name).parse::<u64>().unwrap() * 512;
                (number("start="), number("size="), field(line, "type="))
            })
            .collect()
    }

    #[test]
    fn a_gpt_is_read_as_sfdisk_lists_it() {
        let script = "label: gpt\nsize=4M, type=U, name=\"EFI \u{e4}\"\nsize=10M, type=S\nsize=20M\n";
        let Some((_dir, path)) = disk(64 * MIB, script) else { return };
        let table = read(&RawDisk::open(&path).unwrap(), 64 * MIB, 512).unwrap();
        assert_eq!(table.kind, TableKind::Gpt);
        let found: Vec<_> = table.partitions.iter().map(|p| (p.start, p.bytes, p.kind.clone())).collect();
        assert_eq!(found, listed(&path));
        assert_eq!(table.partitions[0].name, "EFI \u{e4}");
        assert_eq!(table.partitions[2].index, 3);
    }

    #[test]
    fn logical_partitions_of_an_mbr_are_read_as_sfdisk_lists_them() {
        let script = "label: dos\nsize=4M, type=c, bootable\nsize=10M, type=82\nsize=30M, type=5\nsize=3M, type=83\n\
                      size=5M, type=83\nsize=6M, type=83\nsize=2M, type=7\n";
        let Some((_dir, path)) = disk(64 * MIB, script) else { return };
        let table = read(&RawDisk::open(&path).unwrap(), 64 * MIB, 512).unwrap();
        assert_eq!(table.kind, TableKind::Mbr);
        let found: Vec<_> = table.partitions.iter().map(|p| (p.start, p.bytes, p.kind.clone())).collect();
        let expected: Vec<_> = listed(&path).into_iter().filter(|(_, _, kind)| kind != "5").collect();
        assert_eq!(found.len(), 6);
        assert_eq!(found, expected.into_iter().map(|(s, b, kind)| (s, b, format!("{kind:0>2}"))).collect::<Vec<_>>());
        assert_eq!(table.partitions.iter().map(|p| p.index).collect::<Vec<_>>(), [1, 2, 4, 5, 6, 7]);
    }

    #[test]
    fn a_list_of_logical_partitions_that_runs_in_a_circle_is_a_fault() {
        let Some((_dir, path)) =
            disk(64 * MIB, "label: dos\nstart=1M, size=30M, type=5\nstart=2M, size=3M\nstart=6M, size=5M\n")
        else {
            return;
        };
        let mut image = std::fs::read(&path).unwrap();
        let extended = usize::try_from(listed(&path)[0].0).unwrap();
        assert!(read(&image, 64 * MIB, 512).is_ok());
        // The second entry of the first extended boot record: back to itself.
        image[extended + 446 + 16 + 8..][..4].fill(0);
        assert_eq!(read(&image, 64 * MIB, 512).unwrap_err(), TableFault::Logical);
    }

    #[test]
    fn overlapping_partitions_and_such_outside_the_disk_are_faults() {
        let mut image = vec![0_u8; 1 << 20];
        image[510..512].copy_from_slice(&[0x55, 0xAA]);
        let entry = |image: &mut Vec<u8>, index: usize, first: u32, sectors: u32| {
            let at = 446 + 16 * index;
            image[at + 4] = 0x83;
            image[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
            image[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        };
        entry(&mut image, 0, 8, 100);
        entry(&mut image, 2, 108, 2048 - 108);
        assert_eq!(read(&image, MIB, 512).unwrap().partitions.len(), 2);
        entry(&mut image, 2, 107, 10);
        assert_eq!(read(&image, MIB, 512).unwrap_err(), TableFault::Overlap(1, 3));
        entry(&mut image, 2, 108, 2048 - 107);
        assert_eq!(read(&image, MIB, 512).unwrap_err(), TableFault::Outside(3));
        entry(&mut image, 2, u32::MAX, u32::MAX);
        assert_eq!(read(&image, MIB, 512).unwrap_err(), TableFault::Outside(3));
    }

    #[test]
    fn a_gpt_whose_primary_table_does_not_hold_is_a_fault_and_no_empty_disk() {
        let Some((_dir, path)) = disk(64 * MIB, "label: gpt\nsize=4M\n") else { return };
        let image = std::fs::read(&path).unwrap();
        for flipped in [450, 512, 520, 1030] {
            let mut image = image.clone();
            image[flipped] ^= 1;
            assert!(matches!(read(&image, 64 * MIB, 512), Err(TableFault::Gpt(_))), "{flipped}");
        }
    }

    #[test]
    fn a_disk_without_a_table_has_none() {
        for image in [vec![], vec![0; 512], vec![0xFF; 1 << 20], vec![0; 1 << 20]] {
            let table = read(&image, image.len() as u64, 512).unwrap();
            assert_eq!((table.kind, table.partitions.len()), (TableKind::None, 0));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_leave_the_disk(
            image in prop::collection::vec(any::<u8>(), 2048..8192),
            signed in any::<bool>(), kinds in any::<[u8; 4]>(),
        ) {
            let mut image = image;
            if signed {
                image[510..512].copy_from_slice(&[0x55, 0xAA]);
                for (index, kind) in kinds.iter().enumerate() {
                    image[446 + 16 * index] &= 0x80;
                    image[446 + 16 * index + 4] = kind % 6;
                    image[446 + 16 * index + 9..][..3].fill(0);
                    image[446 + 16 * index + 13..][..3].fill(0);
                }
            }
            let bytes = image.len() as u64;
            if let Ok(table) = read(&image as &dyn ReadAt, bytes, 512) {
                prop_assert!(table.partitions.iter().all(|p| p.start > 0 && p.start + p.bytes <= bytes));
            }
        }
    }
}
