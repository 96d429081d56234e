//! Partition tables as other programs save them: the text of `sfdisk --dump`, the backup of `sgdisk --backup`, and the first
//! sectors of a disk.

mod boot_record;
mod gpt;
mod script;

use super::ImportFault;
pub(super) use boot_record::boot_records;
pub(super) use gpt::from_bytes as gpt_from_bytes;
pub(super) use script::Script;

/// What a fault calls a table.
const WHAT: &str = "partition table";

/// A partition table of a disk that is somewhere else.
#[derive(Debug, Default)]
pub(super) struct SavedTable {
    /// The sector in bytes.
    pub(super) sector: u32,
    /// The size of the disk in bytes, where the table says it; else the end of the last partition.
    pub(super) disk_bytes: u64,
    /// Whether that is the size for sure.
    pub(super) is_exact: bool,
    /// The bytes of the table, with the place of each.
    pub(super) areas: Vec<(u64, Vec<u8>)>,
    /// The partitions, without extended ones.
    pub(super) partitions: Vec<SavedPartition>,
}

/// One partition of a saved table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedPartition {
    /// Its number.
    pub(super) number: u32,
    /// Its place on the disk in bytes.
    pub(super) place: core::ops::Range<u64>,
}

impl SavedTable {
    /// The table in a file that was given as one.
    pub(super) fn of_file(content: &[u8]) -> Result<Self, ImportFault> {
        if content.get(512..520) == Some(&b"EFI PART"[..]) {
            return gpt_from_bytes(content, 512);
        }
        match core::str::from_utf8(content) {
            Ok(text) => Script::parse(text)?.table(),
            Err(_) => Err(ImportFault::Unsupported {
                what: "neither the text of sfdisk --dump, nor a backup of sgdisk, nor the first sectors of a GPT",
                remedy: "write the table to a file first: sfdisk --dump DISK",
            }),
        }
    }

    /// Puts the bytes of the table where they belong.
    pub(super) fn put_into(&self, disk: &mut super::parted::PartedDisk) {
        self.areas.iter().for_each(|(at, bytes)| disk.put(*at, bytes.clone()));
    }

    /// Where the first partition or boot record of one begins: in front of that are the sectors of boot loaders.
    pub(super) fn first_taken(&self) -> u64 {
        let partitions = self.partitions.iter().map(|partition| partition.place.start);
        partitions.chain(self.areas.iter().map(|(at, _)| *at).filter(|at| *at > 0)).min().unwrap_or(0)
    }

    /// Whether every partition is on the disk and none reaches into another.
    fn checked(self) -> Result<Self, ImportFault> {
        let mut places: Vec<_> = self.partitions.iter().map(|partition| partition.place.clone()).collect();
        places.sort_by_key(|place| place.start);
        let overlap = places.windows(2).any(|pair| pair[0].end > pair[1].start);
        let outside = places.iter().any(|place| place.is_empty() || place.start == 0 || place.end > self.disk_bytes);
        if overlap || outside || self.disk_bytes > 1 << 60 {
            return Err(ImportFault::Damaged { what: WHAT, offset: 0 });
        }
        Ok(self)
    }
}
