//! Headers, regions and metadata of a VHDX. Each has a checksum but the metadata.

use super::super::bytes::{le16, le32, le64, read};
use super::super::fault::CONVERT;
use super::super::{DiskSource, ImportFault, RawDisk};
use crate::used::crc32c;

pub(super) const MAGIC: &[u8] = b"vhdxfile";

const KIB: u64 = 1 << 10;
const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
const REGIONS: [u64; 2] = [192 * KIB, 256 * KIB];
const HEADER_BYTES: usize = 4096;
const REGION_BYTES: usize = 64 << 10;
const ROW: usize = 32;
/// The most rows of a table of regions, and of metadata.
const MAX_ROWS: usize = 2047;

type Guid = [u8; 16];
const TABLE: Guid = guid(0x2DC2_7766, 0xF623, 0x4200, 0x9D64_115E_9BFD_4A08);
const METADATA: Guid = guid(0x8B7C_A206, 0x4790, 0x4B9A, 0xB8FE_575F_050F_886E);
const PARAMETERS: Guid = guid(0xCAA1_6737, 0xFA36, 0x4D43, 0xB3B6_33F0_AA44_E76B);
const DISK_SIZE: Guid = guid(0x2FA5_4224, 0xCD1B, 0x4876, 0xB211_5DBE_D83B_F4B8);
const SECTOR: Guid = guid(0x8141_BF1D, 0xA96F, 0x4709, 0xBA47_F233_A8FA_AB5F);

/// The bytes of a GUID as it stands on the disk: three numbers in little-endian order, and the rest as it is written.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> Guid {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// The sizes of a disk, and where its table of blocks is.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) bytes: u64,
    pub(super) sector: u32,
    pub(super) block: u64,
    /// Blocks between two entries of bitmaps.
    pub(super) chunk: u64,
    pub(super) table_at: u64,
    pub(super) table_bytes: u64,
}

/// Whether the CRC-32C at 4 is that of `bytes` with zeros in its place.
fn sum_is_right(bytes: &[u8]) -> bool {
    !crc32c(crc32c(crc32c(!0, &bytes[..4]), &[0; 4]), &bytes[8..]) == le32(bytes, 4)
}

impl Shape {
    pub(super) fn read(file: &RawDisk) -> Result<Self, ImportFault> {
        let damaged = |what, offset| ImportFault::Damaged { what, offset };
        check_log(file)?;
        let (table_at, table_bytes, metadata_at, metadata_bytes) = regions(file)?;
        let metadata = Metadata::read(file, metadata_at, metadata_bytes)?;
        let parameters = metadata.item(file, &PARAMETERS, 8)?;
        let bytes = le64(&metadata.item(file, &DISK_SIZE, 8)?, 0);
        let sector = le32(&metadata.item(file, &SECTOR, 4)?, 0);
        let (block, flags) = (u64::from(le32(&parameters, 0)), le32(&parameters, 4));
        if flags & 2 != 0 {
            return Err(ImportFault::Unsupported {
                what: "a parent (it is a checkpoint)",
                remedy: "merge it first: Merge-VHD",
            });
        }
        if flags > 3 || !block.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block) {
            return Err(damaged("block size", metadata_at));
        }
        if !matches!(sector, 512 | 4096) {
            return Err(damaged("sector size", metadata_at));
        }
        if bytes == 0 || bytes > 64 << 40 || !bytes.is_multiple_of(sector.into()) {
            return Err(damaged("size of the disk", metadata_at));
        }
        let chunk = (1 << 23) * u64::from(sector) / block;
        let blocks = bytes.div_ceil(block);
        let entries = blocks + (blocks - 1) / chunk;
        if entries * 8 > table_bytes {
            return Err(damaged("length of the table of blocks", table_at));
        }
        Ok(Self { bytes, sector, block, chunk, table_at, table_bytes })
    }
}

/// Looks at the header that counts: the valid one with the higher number. Its log must be empty.
fn check_log(file: &RawDisk) -> Result<(), ImportFault> {
    let mut newest: Option<(u64, Vec<u8>)> = None;
    for at in HEADERS {
        let header = read(file, "header", at, HEADER_BYTES)?;
        let number = le64(&header, 8);
        let valid = header.starts_with(b"head") && sum_is_right(&header);
        if valid && newest.as_ref().is_none_or(|(other, _)| number > *other) {
            newest = Some((number, header));
        }
    }
    let (_, header) = newest.ok_or(ImportFault::Damaged { what: "header", offset: HEADERS[0] })?;
    if le16(&header, 66) != 1 {
        return Err(ImportFault::Unsupported { what: "another version than 1", remedy: CONVERT });
    }
    if header[48..64].iter().any(|byte| *byte != 0) {
        return Err(ImportFault::Unsupported {
            what: "a log that has to be replayed (it was not closed properly)",
            remedy: "attach it once in Hyper-V, or repair it: qemu-img check -r all",
        });
    }
    Ok(())
}

/// Place and length of the table of blocks and of the metadata.
fn regions(file: &RawDisk) -> Result<(u64, u64, u64, u64), ImportFault> {
    let mut found = None;
    for at in REGIONS {
        let table = read(file, "table of regions", at, REGION_BYTES)?;
        if table.starts_with(b"regi") && sum_is_right(&table) {
            found = Some((at, table));
            break;
        }
    }
    let (at, table) = found.ok_or(ImportFault::Damaged { what: "table of regions", offset: REGIONS[0] })?;
    let damaged = ImportFault::Damaged { what: "table of regions", offset: at };
    let count = le32(&table, 8) as usize;
    if count > MAX_ROWS {
        return Err(damaged);
    }
    let (mut blocks, mut metadata) = (None, None);
    for row in table[16..].chunks_exact(ROW).take(count) {
        let place = (le64(row, 16), u64::from(le32(row, 24)));
        match row[..16].try_into() {
            Ok(TABLE) => blocks = Some(place),
            Ok(METADATA) => metadata = Some(place),
            _ if le32(row, 28) & 1 != 0 => {
                return Err(ImportFault::Unsupported { what: "a region unknown to this program", remedy: CONVERT });
            }
            _ => {}
        }
    }
    match (blocks, metadata) {
        (Some((table_at, table_bytes)), Some((metadata_at, metadata_bytes))) => {
            let end = table_at.checked_add(table_bytes).ok_or(damaged)?;
            if end > file.bytes() {
                return Err(ImportFault::Cut { what: "table of blocks", offset: table_at });
            }
            Ok((table_at, table_bytes, metadata_at, metadata_bytes))
        }
        _ => Err(damaged),
    }
}

/// The table of metadata.
struct Metadata {
    at: u64,
    bytes: u64,
    table: Vec<u8>,
    count: usize,
}

impl Metadata {
    fn read(file: &RawDisk, at: u64, bytes: u64) -> Result<Self, ImportFault> {
        let table = read(file, "metadata", at, REGION_BYTES)?;
        let count = usize::from(le16(&table, 10));
        if !table.starts_with(b"metadata") || count > MAX_ROWS {
            return Err(ImportFault::Damaged { what: "metadata", offset: at });
        }
        Ok(Self { at, bytes, table, count })
    }

    /// The first `len` bytes of an item.
    fn item(&self, file: &RawDisk, guid: &Guid, len: usize) -> Result<Vec<u8>, ImportFault> {
        let damaged = ImportFault::Damaged { what: "metadata", offset: self.at };
        let mut rows = self.table[32..].chunks_exact(ROW).take(self.count);
        let row = rows.find(|row| row.starts_with(guid));
        let Some(row) = row else { return Err(damaged) };
        let (offset, has) = (u64::from(le32(row, 16)), le32(row, 20) as usize);
        if has < len || offset < REGION_BYTES as u64 || offset + len as u64 > self.bytes {
            return Err(damaged);
        }
        read(file, "metadata", self.at + offset, len)
    }
}
