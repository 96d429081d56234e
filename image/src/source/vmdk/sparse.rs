//! A sparse extent: a directory of tables of grains. Packed grains are zlib streams behind a header of 12 bytes.

use super::super::bytes::{fill, le16, le32, le64, read, read_table};
use super::super::cache::Tables;
use super::super::fault::CONVERT;
use super::super::mapped::{Packed, Piece};
use super::super::{DiskSource, ImportFault, RawDisk};
use super::SECTOR;
use super::descriptor::Descriptor;
use flate2::{Decompress, FlushDecompress, Status};

pub(super) const MAGIC: &[u8] = b"KDMV";

const HEADER: usize = 512;
/// There is a second directory, with tables of its own that say the same.
const TWICE: u32 = 1 << 1;
const ZEROED: u32 = 1 << 2;
const PACKED: u32 = 1 << 16;
/// In place of the directory's place: that stands in a second header, the footer, a kilobyte before the end.
const IN_FOOTER: u64 = u64::MAX;
const FOOTER: u64 = 1024;
const TABLE: usize = 512;
/// The entries of all directories of a disk: 16 TiB in grains of 4 KiB.
pub(super) const MAX_GD: u64 = 1 << 23;
/// In front of a packed grain: its sector (8) and its length (4).
const GRAIN_HEADER: usize = 12;

/// A sparse extent.
#[derive(Debug)]
pub(super) struct Sparse {
    /// The number of its file.
    file: usize,
    bytes: u64,
    grain: u64,
    packed: bool,
    zeroed: bool,
    directory: Vec<u32>,
    /// The second directory; empty where there is none.
    copy: Vec<u32>,
    tables: Tables<u32>,
    descriptor: (u64, u64),
}

impl Sparse {
    /// Reads the header and the directory of `file`, which gets that number. `room` is how many entries all directories may
    /// still have.
    pub(super) fn open(file: &RawDisk, number: usize, room: &mut u64) -> Result<Self, ImportFault> {
        let mut header_at = 0;
        let mut header = read(file, "header", 0, HEADER)?;
        if le64(&header, 56) == IN_FOOTER {
            header_at = file.bytes().saturating_sub(FOOTER);
            header = read(file, "footer", header_at, HEADER)?;
            if !header.starts_with(MAGIC) {
                return Err(ImportFault::Cut { what: "footer", offset: header_at });
            }
        }
        let damaged = |what, at: u64| Err(ImportFault::Damaged { what, offset: header_at + at });
        if !header.starts_with(MAGIC) || !(1..=3).contains(&le32(&header, 4)) {
            return damaged("header", 0);
        }
        // What a transfer as text would have changed.
        if le32(&header, 8) & 1 != 0 && header[73..77] != *b"\n \r\n" {
            return damaged("test of line ends", 73);
        }
        let (flags, sectors, grain) = (le32(&header, 8), le64(&header, 12), le64(&header, 20));
        let packed = flags & PACKED != 0;
        match (packed, le16(&header, 77)) {
            (_, 0 | 1) => {}
            _ => return Err(ImportFault::Unsupported { what: "a compression that is not deflate", remedy: CONVERT }),
        }
        if packed != (le16(&header, 77) == 1) {
            return damaged("compression", 77);
        }
        if le32(&header, 44) as usize != TABLE || !grain.is_power_of_two() || !(8..=1 << 13).contains(&grain) {
            return damaged("size of a grain", 20);
        }
        if sectors == 0 || sectors > 1 << 53 {
            return damaged("size of the disk", 12);
        }
        let entries = sectors.div_ceil(grain * TABLE as u64);
        let copy_at = if flags & TWICE != 0 { le64(&header, 48) } else { 0 };
        let needed = if copy_at == 0 { entries } else { 2 * entries };
        *room = room.checked_sub(needed).ok_or(ImportFault::TooLarge { what: "directory" })?;
        let offset = le64(&header, 56).checked_mul(SECTOR).filter(|offset| *offset != 0);
        let Some(offset) = offset else { return damaged("place of the directory", 56) };
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        let directory = read_table(file, "directory", offset, entries, u32::from_le_bytes)?;
        let copy = match copy_at.checked_mul(SECTOR) {
            Some(0) => Vec::new(),
            Some(offset) => read_table(file, "second directory", offset, entries, u32::from_le_bytes)?,
            None => return damaged("place of the second directory", 48),
        };
        if !copy.is_empty() && directory.iter().zip(&copy).any(|(one, other)| (*one == 0) != (*other == 0)) {
            return damaged("directory", 56);
        }
        if directory.iter().any(|table| u64::from(*table) * SECTOR >= file.bytes()) {
            return Err(ImportFault::Cut { what: "table of grains", offset: file.bytes() });
        }
        Ok(Self {
            file: number,
            bytes: sectors * SECTOR,
            grain: grain * SECTOR,
            packed,
            zeroed: flags & ZEROED != 0,
            directory,
            copy,
            tables: Tables::new(1 << 20, TABLE),
            descriptor: (le64(&header, 28), le64(&header, 36)),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The descriptor inside, if there is one that is not blank.
    pub(super) fn descriptor(&self, file: &RawDisk) -> Result<Option<Descriptor>, ImportFault> {
        let (at, sectors) = self.descriptor;
        if at == 0 || sectors == 0 {
            return Ok(None);
        }
        match (at.checked_mul(SECTOR), sectors.checked_mul(SECTOR)) {
            (Some(at), Some(bytes)) => {
                let first = read(file, "descriptor", at, 1)?;
                if first[0] == 0 { Ok(None) } else { Descriptor::read(file, at, bytes).map(Some) }
            }
            _ => Err(ImportFault::Damaged { what: "place of the descriptor", offset: 28 }),
        }
    }

    /// The piece at `at` of an extent that begins at `start` of the disk, and its end in the extent.
    pub(super) fn piece(&self, files: &[RawDisk], start: u64, at: u64) -> Result<(Piece, u64), ImportFault> {
        let number = at / self.grain;
        let table_number = number / TABLE as u64;
        let table_at = self.directory.get(usize::try_from(table_number).unwrap_or(usize::MAX)).copied().unwrap_or(0);
        if table_at == 0 {
            return Ok((Piece::Zeros, (table_number + 1) * TABLE as u64 * self.grain));
        }
        let offset = u64::from(table_at) * SECTOR;
        let file = &files[self.file];
        let load = || {
            let table = read_table(file, "table of grains", offset, TABLE, u32::from_le_bytes)?;
            // Nothing else would tell a damaged entry.
            if let Some(copy) = self.copy.get(usize::try_from(table_number).unwrap_or(usize::MAX)) {
                let other_at = u64::from(*copy) * SECTOR;
                if table != read_table(file, "table of grains", other_at, TABLE, u32::from_le_bytes)? {
                    return Err(ImportFault::Damaged { what: "table of grains", offset });
                }
            }
            Ok(table)
        };
        let table = self.tables.get(offset, load)?;
        let entry = table[usize::try_from(number % TABLE as u64).unwrap_or(0)];
        let (grain_at, end) = (number * self.grain, (number + 1) * self.grain);
        if entry == 0 || entry == 1 && self.zeroed {
            return Ok((Piece::Zeros, end));
        }
        let place = u64::from(entry) * SECTOR;
        if !self.packed {
            return Ok((Piece::Data { file: self.file, offset: place + (at - grain_at) }, end));
        }
        let len = usize::try_from(self.grain).unwrap_or(usize::MAX);
        Ok((Piece::Packed(Packed { start: start + grain_at, len, file: self.file, offset: place, stored: 0 }), end))
    }

    /// Unpacks the grain at `at` of the extent.
    pub(super) fn unpack(&self, files: &[RawDisk], at: u64, unit: Packed, out: &mut [u8]) -> Result<(), ImportFault> {
        let (file, offset) = (&files[unit.file], unit.offset);
        let failed = || ImportFault::Unpack { what: "grain", offset };
        let mut header = [0; GRAIN_HEADER];
        fill(file, "grain", offset, &mut header)?;
        let stored = le32(&header, 8) as usize;
        // Deflate makes nothing longer by more than a few bytes for each block of it.
        if le64(&header, 0) != at / SECTOR || stored > out.len() * 2 + 1024 {
            return Err(failed());
        }
        let stored = read(file, "grain", offset + GRAIN_HEADER as u64, stored)?;
        let mut inflater = Decompress::new(true);
        let status = inflater.decompress(&stored, out, FlushDecompress::Finish).map_err(|_| failed())?;
        // Only at the end of the stream its checksum was compared.
        if status != Status::StreamEnd {
            return Err(failed());
        }
        // The last one has no more than the disk has.
        let has = usize::try_from(inflater.total_out()).unwrap_or(usize::MAX);
        let wanted = usize::try_from((self.bytes - at).min(self.grain)).unwrap_or(usize::MAX);
        if has < wanted {
            return Err(failed());
        }
        out[has..].fill(0);
        Ok(())
    }
}
