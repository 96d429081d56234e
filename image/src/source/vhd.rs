//! VHD, as Virtual PC, Hyper-V and QEMU write it: fixed, dynamic and differencing ("Virtual Hard Disk Image Format
//! Specification", 1.0). A footer of 512 bytes ends the file; blocks of a dynamic disk have a bitmap of their sectors in front.
//!
//! Memory: the table of blocks (at most 32 MiB), and bitmaps of at most 1 MiB.

use super::bytes::{be32, be64, read, read_table};
use super::cache::Tables;
use super::mapped::{Layout, MappedDisk, Piece};
use super::{DiskSource, ImportFault, Opening, RawDisk, open_backing};
use crate::error::ImageError;

pub(super) const NAME: &str = "VHD";

const SECTOR: u64 = 512;
const FOOTER: usize = 512;
/// The header of a dynamic disk.
const HEADER: usize = 1024;
const ABSENT: u32 = u32::MAX;
/// No table of blocks is longer: 2 TiB, the most of the format, in blocks of 256 KiB.
const MAX_BLOCKS: u32 = 1 << 23;
const LOCATORS: usize = 576;
/// A path relative to the child, in UTF-16.
const RELATIVE: &[u8] = b"W2ru";

/// What the footer says.
#[derive(Debug)]
struct Footer {
    at: u64,
    bytes: u64,
    kind: u32,
    header_at: u64,
    id: [u8; 16],
}

/// Whether the sum of all bytes but those of the checksum at `at` is its complement.
fn sum_is_right(bytes: &[u8], at: usize) -> bool {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
    !sum(&bytes[..at]).wrapping_add(sum(&bytes[at + 4..])) == be32(bytes, at)
}

impl Footer {
    fn read(file: &RawDisk) -> Result<Self, ImportFault> {
        // Before 2004 it had 511 bytes.
        for len in [FOOTER, FOOTER - 1] {
            let Some(at) = file.bytes().checked_sub(len as u64) else { continue };
            let mut bytes = read(file, "footer", at, len)?;
            bytes.resize(FOOTER, 0);
            if !bytes.starts_with(b"conectix") {
                continue;
            }
            let damaged = |what| Err(ImportFault::Damaged { what, offset: at });
            if !sum_is_right(&bytes, 64) {
                return damaged("footer");
            }
            if be32(&bytes, 12) >> 16 != 1 {
                return Err(ImportFault::Unsupported { what: "another version than 1", remedy: super::fault::CONVERT });
            }
            let mut id = [0; 16];
            id.copy_from_slice(&bytes[68..84]);
            let (bytes, kind, header_at) = (be64(&bytes, 48), be32(&bytes, 60), be64(&bytes, 16));
            if bytes == 0 || !bytes.is_multiple_of(SECTOR) || bytes > 1 << 42 {
                return damaged("size of the disk");
            }
            return Ok(Self { at, bytes, kind, header_at, id });
        }
        Err(ImportFault::Cut { what: "footer", offset: file.bytes() })
    }
}

/// Opens the disk in `file`.
pub(super) fn open(file: RawDisk, opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let path = file.path().to_owned();
    let refused = |fault| ImageError::Import { path: path.clone(), format: NAME, fault };
    let footer = Footer::read(&file).map_err(refused)?;
    match footer.kind {
        2 if footer.bytes <= footer.at => Ok(Box::new(MappedDisk::new(NAME, footer.bytes, vec![file], Fixed))),
        2 => Err(refused(ImportFault::Damaged { what: "size of the disk", offset: footer.at })),
        3 | 4 => {
            let header = read(&file, "header", footer.header_at, HEADER).map_err(refused)?;
            let blocks = Blocks::read(&file, &footer, &header).map_err(refused)?;
            let parent = if footer.kind == 4 { Some(parent(&file, &header, opening)?) } else { None };
            let mut disk = MappedDisk::new(NAME, footer.bytes, vec![file], blocks);
            disk.parent = parent;
            Ok(Box::new(disk))
        }
        _ => Err(refused(ImportFault::Damaged { what: "kind of disk", offset: footer.at })),
    }
}

/// The bytes of the disk, from the front of the file on.
#[derive(Debug)]
struct Fixed;

impl Layout for Fixed {
    fn piece(&self, _files: &[RawDisk], at: u64) -> Result<(Piece, u64), ImportFault> {
        Ok((Piece::Data { file: 0, offset: at }, u64::MAX))
    }
}

/// The blocks of a dynamic disk.
#[derive(Debug)]
struct Blocks {
    block: u64,
    /// The sector of each block's bitmap.
    table: Vec<u32>,
    bitmap: usize,
    /// Whether a sector that is not in the bitmap is the parent's. On a disk without a parent everything in a block counts,
    /// as QEMU has it.
    differs: bool,
    bitmaps: Tables<u8>,
}

impl Blocks {
    fn read(file: &RawDisk, footer: &Footer, header: &[u8]) -> Result<Self, ImportFault> {
        let damaged = |what, offset| Err(ImportFault::Damaged { what, offset });
        if !header.starts_with(b"cxsparse") || !sum_is_right(header, 36) {
            return damaged("header", footer.header_at);
        }
        let (table_at, entries, block) = (be64(header, 16), be32(header, 28), u64::from(be32(header, 32)));
        if !block.is_power_of_two() || !(4096..=256 << 20).contains(&block) {
            return damaged("block size", footer.header_at + 32);
        }
        let needed = footer.bytes.div_ceil(block);
        if needed > entries.into() {
            return damaged("number of blocks", footer.header_at + 28);
        }
        if needed > MAX_BLOCKS.into() {
            return Err(ImportFault::TooLarge { what: "table of blocks" });
        }
        let needed = usize::try_from(needed).unwrap_or(usize::MAX);
        let table = read_table(file, "table of blocks", table_at, needed, u32::from_be_bytes)?;
        let bitmap = (block / SECTOR / 8).next_multiple_of(SECTOR);
        // Two blocks in one place cannot both be right.
        let mut places: Vec<u32> = table.iter().copied().filter(|sector| *sector != ABSENT).collect();
        places.sort_unstable();
        let span = (bitmap + block) / SECTOR;
        let whole = places.last().is_none_or(|last| (u64::from(*last) + span) * SECTOR <= footer.at);
        if !whole {
            return Err(ImportFault::Cut { what: "block", offset: footer.at });
        }
        if places.windows(2).any(|pair| u64::from(pair[1] - pair[0]) < span) {
            return damaged("table of blocks", table_at);
        }
        let bitmap = usize::try_from(bitmap).unwrap_or(usize::MAX);
        Ok(Self { block, table, bitmap, differs: footer.kind == 4, bitmaps: Tables::new(1 << 20, bitmap) })
    }
}

impl Layout for Blocks {
    fn piece(&self, files: &[RawDisk], at: u64) -> Result<(Piece, u64), ImportFault> {
        let number = at / self.block;
        let (start, end) = (number * self.block, (number + 1) * self.block);
        let sector = self.table.get(usize::try_from(number).unwrap_or(usize::MAX)).copied().unwrap_or(ABSENT);
        if sector == ABSENT {
            return Ok((if self.differs { Piece::Parent } else { Piece::Zeros }, end));
        }
        let bitmap_at = u64::from(sector) * SECTOR;
        let data = |at: u64| Piece::Data { file: 0, offset: bitmap_at + self.bitmap as u64 + (at - start) };
        if !self.differs {
            return Ok((data(at), end));
        }
        let bitmap = self.bitmaps.get(bitmap_at, || read(&files[0], "bitmap", bitmap_at, self.bitmap))?;
        let own = |sector: u64| {
            let byte = bitmap[usize::try_from(sector / 8).unwrap_or(0)];
            byte >> (7 - sector % 8) & 1 == 1
        };
        let first = (at - start) / SECTOR;
        let sectors = self.block / SECTOR;
        let last = (first + 1..sectors).find(|sector| own(*sector) != own(first)).unwrap_or(sectors);
        Ok((if own(first) { data(at) } else { Piece::Parent }, start + last * SECTOR))
    }
}

/// Opens the parent that the header names: by its path relative to the child, or else by its name.
fn parent(file: &RawDisk, header: &[u8], opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let refused = |fault| ImageError::Import { path: file.path().to_owned(), format: NAME, fault };
    let name_of = |bytes: &[u8], parse: fn([u8; 2]) -> u16| {
        let units: Vec<u16> =
            bytes.as_chunks().0.iter().map(|unit| parse(*unit)).take_while(|unit| *unit != 0).collect();
        String::from_utf16_lossy(&units)
    };
    let mut name = name_of(&header[64..576], u16::from_be_bytes);
    for locator in header[LOCATORS..LOCATORS + 8 * 24].as_chunks::<24>().0 {
        let (len, at) = (be32(locator, 8), be64(locator, 16));
        if locator.starts_with(RELATIVE) && (2..=4096).contains(&len) {
            name = name_of(&read(file, "path of the parent", at, len as usize).map_err(refused)?, u16::from_le_bytes);
        }
    }
    let name = name.replace('\\', "/");
    let name = name.rsplit_once(':').map_or(name.as_str(), |(_, path)| path.rsplit('/').next().unwrap_or(path));
    let parent = open_backing(file, NAME, name, Some("vhd"), opening)?;
    let named = |why| ImportFault::Named { what: "parent", name: name.to_owned(), why };
    let below = RawDisk::open(parent.path());
    let id = below.ok().and_then(|file| Footer::read(&file).ok()).map(|footer| footer.id);
    if id.as_ref().is_none_or(|id| id[..] != header[40..56]) {
        return Err(refused(named("is another disk than the one that this file was made on")));
    }
    Ok(parent)
}

/// Whether a file with this front and this end is a VHD.
pub(super) fn probe(head: &[u8], tail: &[u8]) -> bool {
    head.starts_with(b"conectix")
        || tail.starts_with(b"conectix")
        || tail.get(1..).is_some_and(|tail| tail.starts_with(b"conectix"))
}

#[cfg(test)]
mod tests {
    use crate::source::tests::{bytes_of, open_as, opened, write};
    use std::path::Path;

    fn sealed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
        bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
        bytes
    }

    fn footer(bytes: u64, kind: u32, id: u8) -> Vec<u8> {
        let mut out = vec![0; 512];
        out[..8].copy_from_slice(b"conectix");
        out[12..16].copy_from_slice(&0x1_0000_u32.to_be_bytes());
        out[16..24].copy_from_slice(&if kind == 2 { u64::MAX } else { 512 }.to_be_bytes());
        out[48..56].copy_from_slice(&bytes.to_be_bytes());
        out[60..64].copy_from_slice(&kind.to_be_bytes());
        out[68..84].fill(id);
        sealed(out, 64)
    }

    /// A disk of two blocks of 4 KiB on a parent, of which the first block has its second sector alone.
    fn differencing(parent: &str, parent_id: u8) -> Vec<u8> {
        let mut header = vec![0; 1024];
        header[..8].copy_from_slice(b"cxsparse");
        header[16..24].copy_from_slice(&1536_u64.to_be_bytes());
        header[28..32].copy_from_slice(&2_u32.to_be_bytes());
        header[32..36].copy_from_slice(&4096_u32.to_be_bytes());
        header[40..56].fill(parent_id);
        let name: Vec<u8> = parent.encode_utf16().flat_map(u16::to_be_bytes).collect();
        header[64..64 + name.len()].copy_from_slice(&name);
        let mut table = vec![0xFF; 512];
        table[..4].copy_from_slice(&4_u32.to_be_bytes());
        let mut bitmap = vec![0; 512];
        bitmap[0] = 0x40;
        let footer = footer(8192, 4, 9);
        [footer.clone(), sealed(header, 36), table, bitmap, vec![7; 4096], footer].concat()
    }

    #[test]
    fn a_differencing_disk_has_its_own_sectors_and_else_those_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "base.vhd", &[vec![5; 8192], footer(8192, 2, 3)].concat());
        let child = write(dir.path(), "child.vhd", &differencing("C:\\disks\\base.vhd", 3));
        let expected = [vec![5; 512], vec![7; 512], vec![5; 7168]].concat();
        let disk = opened(&child).unwrap();
        assert_eq!(bytes_of(&*disk).unwrap(), expected);
        assert_eq!(disk.files().len(), 2);
        let stranger = write(dir.path(), "stranger.vhd", &differencing("base.vhd", 4));
        let error = opened(&stranger).unwrap_err().to_string();
        assert!(error.contains("base.vhd") && error.contains("another disk"), "{error}");
        let orphan = write(dir.path(), "orphan.vhd", &differencing("none.vhd", 4));
        assert!(opened(&orphan).unwrap_err().to_string().contains("is not there"));
        let own = write(dir.path(), "own.vhd", &differencing("own.vhd", 9));
        assert!(opened(&own).unwrap_err().to_string().contains("no end"));
    }

    #[test]
    fn blocks_that_overlap_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = differencing("base.vhd", 3);
        bytes[1540..1544].copy_from_slice(&4_u32.to_be_bytes());
        let path = write(dir.path(), "a.vhd", &bytes);
        let error = opened(&path).unwrap_err().to_string();
        assert!(error.contains("table of blocks"), "{error}");
    }

    /// Where on the disk a flip at this place of the file made by [`differencing`] may be seen: in a sector, or in a block.
    fn seen(at: usize) -> core::ops::Range<usize> {
        match at {
            1536..1544 => (at - 1536) / 4 * 4096..(at - 1536) / 4 * 4096 + 4096,
            2048..2560 => {
                let sector = (at - 2048) * 8;
                (sector * 512).min(4096)..((sector + 8) * 512).min(4096)
            }
            2560..6656 => at - 2560..at - 2559,
            _ => 0..0,
        }
    }

    #[test]
    fn a_differencing_disk_that_is_cut_or_flipped_is_an_error_or_differs_where_the_flip_was() {
        let dir = tempfile::tempdir().unwrap();
        let parent = [vec![5; 8192], footer(8192, 2, 3)].concat();
        let base = write(dir.path(), "base.vhd", &parent);
        let content = differencing("base.vhd", 3);
        let child = write(dir.path(), "child.vhd", &content);
        let read = || bytes_of(&*open_as(&child, "vhd").ok()?).ok();
        let expected = read().unwrap();
        for len in (0..content.len()).step_by(512) {
            write(dir.path(), "child.vhd", &content[..len]);
            assert_eq!(read(), None, "the child, cut at {len}");
        }
        write(dir.path(), "child.vhd", &content);
        for len in (0..parent.len()).step_by(512) {
            std::fs::write(&base, &parent[..len]).unwrap();
            assert_eq!(read(), None, "the parent, cut at {len}");
        }
        let flip = |path: &Path, content: &[u8], seen: &dyn Fn(usize) -> core::ops::Range<usize>| {
            // The copy of the footer at the front is not read; of data some bytes are enough.
            for at in (512..content.len()).filter(|at| !matches!(at, 2080..6600) || at % 256 == 0) {
                let mut flipped = content.to_vec();
                flipped[at] ^= 1 << (at % 8);
                std::fs::write(path, flipped).unwrap();
                let read = read().unwrap_or_else(|| expected.clone());
                let mut differs = (0..expected.len()).filter(|place| read[*place] != expected[*place]);
                assert!(differs.all(|place| seen(at).contains(&place)), "{}, {at}", path.display());
            }
            std::fs::write(path, content).unwrap();
        };
        std::fs::write(&base, &parent).unwrap();
        flip(&child, &content, &seen);
        flip(&base, &parent, &|at| at..at + 1);
    }
}
