//! VDI, the format of VirtualBox: a table of blocks of a megabyte each. Disks on top of another one are refused by name.
//!
//! Memory: the table of blocks, at most 64 MiB.

use super::bytes::{le32, le64, read, read_table};
use super::fault::CONVERT;
use super::mapped::{Layout, MappedDisk, Piece};
use super::{DiskSource, ImportFault, Opening, RawDisk};
use crate::error::ImageError;

pub(super) const NAME: &str = "VDI";

/// Where the magic stands, behind a line of text.
const MAGIC: (usize, &[u8]) = (0x40, b"\x7F\x10\xDA\xBE");
const HEADER: usize = 0x1C8;
/// A block of this number or above is none: absent, or cleared.
const ABSENT: u32 = 0xFFFF_FFFE;
/// No table is longer: 16 TiB in blocks of a megabyte.
const MAX_BLOCKS: u64 = 1 << 24;

/// Whether a file with this front is a VDI.
pub(super) fn probe(head: &[u8], _tail: &[u8]) -> bool {
    head.get(MAGIC.0..).is_some_and(|head| head.starts_with(MAGIC.1))
}

/// Opens the disk in `file`.
pub(super) fn open(file: RawDisk, _opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let path = file.path().to_owned();
    let (bytes, blocks) = Blocks::read(&file).map_err(|fault| ImageError::Import { path, format: NAME, fault })?;
    Ok(Box::new(MappedDisk::new(NAME, bytes, vec![file], blocks)))
}

/// Where the blocks are.
#[derive(Debug)]
struct Blocks {
    data: u64,
    block: u64,
    table: Vec<u32>,
}

impl Blocks {
    fn read(file: &RawDisk) -> Result<(u64, Self), ImportFault> {
        let damaged = |what, offset| Err(ImportFault::Damaged { what, offset });
        let refused = |what| Err(ImportFault::Unsupported { what, remedy: CONVERT });
        let header = read(file, "header", 0, HEADER)?;
        if !probe(&header, &[]) || le32(&header, 0x48) < 0x180 {
            return damaged("header", 0x40);
        }
        if le32(&header, 0x44) != 0x1_0001 {
            return refused("another version than 1.1");
        }
        if !matches!(le32(&header, 0x4C), 1 | 2) {
            return refused("a parent");
        }
        // The disk of which it is a snapshot, and the parent.
        if header[0x1A8..0x1C8].iter().any(|byte| *byte != 0) {
            return refused("a parent");
        }
        let (table_at, data) = (u64::from(le32(&header, 0x154)), u64::from(le32(&header, 0x158)));
        let (sector, bytes) = (le32(&header, 0x168), le64(&header, 0x170));
        let (block, extra) = (u64::from(le32(&header, 0x178)), le32(&header, 0x17C));
        let (blocks, allocated) = (u64::from(le32(&header, 0x180)), le32(&header, 0x184));
        if sector != 512 || bytes == 0 || bytes > 1 << 62 || !bytes.is_multiple_of(512) {
            return damaged("size of the disk", 0x170);
        }
        if !block.is_power_of_two() || !(4096..=256 << 20).contains(&block) || extra != 0 {
            return damaged("block size", 0x178);
        }
        if blocks != bytes.div_ceil(block) || u64::from(allocated) > blocks {
            return damaged("number of blocks", 0x180);
        }
        if blocks > MAX_BLOCKS {
            return Err(ImportFault::TooLarge { what: "table of blocks" });
        }
        if table_at < HEADER as u64 || data < table_at + 4 * blocks {
            return damaged("place of the table or the data", 0x154);
        }
        let entries = usize::try_from(blocks).unwrap_or(usize::MAX);
        let table = read_table(file, "table of blocks", table_at, entries, u32::from_le_bytes)?;
        // Each block of the file is in the table once.
        let mut seen = vec![0_u64; (allocated as usize).div_ceil(64)];
        let mut count = 0;
        for number in table.iter().filter(|number| **number < ABSENT) {
            let (word, bit) = (*number as usize / 64, 1 << (number % 64));
            if *number >= allocated || seen[word] & bit != 0 {
                return damaged("table of blocks", table_at);
            }
            seen[word] |= bit;
            count += 1;
        }
        if count != allocated {
            return damaged("number of blocks in the file", 0x184);
        }
        if file.bytes() < data + u64::from(allocated) * block {
            return Err(ImportFault::Cut { what: "last block", offset: file.bytes() });
        }
        Ok((bytes, Self { data, block, table }))
    }
}

impl Layout for Blocks {
    fn piece(&self, _files: &[RawDisk], at: u64) -> Result<(Piece, u64), ImportFault> {
        let number = at / self.block;
        let end = (number + 1) * self.block;
        let place = self.table.get(usize::try_from(number).unwrap_or(usize::MAX)).copied().unwrap_or(ABSENT);
        if place >= ABSENT {
            return Ok((Piece::Zeros, end));
        }
        Ok((Piece::Data { file: 0, offset: self.data + u64::from(place) * self.block + at % self.block }, end))
    }
}
