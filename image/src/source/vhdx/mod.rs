//! VHDX, the format of Hyper-V ([MS-VHDX]): regions for metadata and for the table of blocks. A file whose log has to be
//! replayed is refused by name, and so is a disk on top of another one.
//!
//! Memory: 2 MiB of the table of blocks.

mod structures;

use super::bytes::{le64, read};
use super::cache::Tables;
use super::mapped::{Layout, MappedDisk, Piece};
use super::{DiskSource, ImportFault, Opening, RawDisk};
use crate::error::ImageError;
use structures::Shape;

pub(super) const NAME: &str = "VHDX";

const MIB: u64 = 1 << 20;
/// Entries of the table of blocks that are read at once.
const PAGE: u64 = 4096;
const FULLY: u64 = 6;

/// Whether a file with this front is one.
pub(super) fn probe(head: &[u8], _tail: &[u8]) -> bool {
    head.starts_with(structures::MAGIC)
}

/// Opens the disk in `file`.
pub(super) fn open(file: RawDisk, _opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let path = file.path().to_owned();
    let shape = Shape::read(&file).map_err(|fault| ImageError::Import { path, format: NAME, fault })?;
    let (bytes, sector) = (shape.bytes, shape.sector);
    let pages = Tables::new(2 << 20, 32 << 10);
    let mut disk = MappedDisk::new(NAME, bytes, vec![file], Blocks { shape, pages });
    disk.sector = Some(sector);
    Ok(Box::new(disk))
}

/// Where the blocks are.
#[derive(Debug)]
struct Blocks {
    shape: Shape,
    /// Pages of the table of blocks.
    pages: Tables<u8>,
}

impl Layout for Blocks {
    fn piece(&self, files: &[RawDisk], at: u64) -> Result<(Piece, u64), ImportFault> {
        let Shape { block, chunk, table_at, table_bytes, .. } = self.shape;
        let number = at / block;
        let end = (number + 1) * block;
        // After each chunk of blocks stands the entry of a bitmap.
        let index = number + number / chunk;
        let page = index / PAGE;
        let from = page * PAGE * 8;
        let len = usize::try_from((PAGE * 8).min(table_bytes - from)).unwrap_or(0);
        let page = self.pages.get(from, || read(&files[0], "table of blocks", table_at + from, len))?;
        let entry = le64(&page, usize::try_from(index % PAGE * 8).unwrap_or(0));
        let (state, offset) = (entry & 7, (entry >> 20).checked_mul(MIB));
        let damaged = ImportFault::Damaged { what: "table of blocks", offset: table_at + index * 8 };
        match (state, offset) {
            // Absent, undefined, zeros, unmapped.
            (0..=3, _) => Ok((Piece::Zeros, end)),
            (FULLY, Some(offset)) if offset >= MIB && entry & 0xF_FFF8 == 0 => {
                if offset.checked_add(block).is_none_or(|end| end > files[0].bytes()) {
                    return Err(ImportFault::Cut { what: "block", offset });
                }
                Ok((Piece::Data { file: 0, offset: offset + at % block }, end))
            }
            _ => Err(damaged),
        }
    }
}
