//! A GPT: out of the backup that sgdisk writes, out of the first sectors of its disk, or out of the text of sfdisk. The backup at the
//! end of the disk is made anew wherever an image lands, so only the front is made here.

use super::super::ImportFault;
use super::script::{Row, Script};
use super::{SavedPartition, SavedTable, WHAT};
use crate::le::u64_at;
use crate::table::gpt::{Header, header_crc};
use slidecast_proto::hex;

/// The sector of files of sgdisk, whatever that of the disk is.
const FILE_SECTOR: usize = 512;
const ENTRIES: u32 = 128;
const ENTRY_BYTES: u32 = 128;

fn damaged() -> ImportFault {
    ImportFault::Damaged { what: WHAT, offset: 512 }
}

/// The table of a backup of sgdisk (MBR, header, backup header, entries), or of a copy of the first sectors, of a disk with
/// sectors of `sector` bytes.
pub(in super::super) fn from_bytes(bytes: &[u8], sector: u32) -> Result<SavedTable, ImportFault> {
    let is_backup = bytes.get(1024..1032) == Some(&b"EFI PART"[..]);
    let step = if is_backup { FILE_SECTOR } else { sector as usize };
    let boot = bytes.get(..FILE_SECTOR).ok_or_else(damaged)?;
    let first = bytes.get(step..step + FILE_SECTOR).ok_or_else(damaged)?;
    let header = Header::parse(first, 1).ok_or_else(damaged)?;
    let entries_at = if is_backup { 3 * FILE_SECTOR as u64 } else { header.entries.saturating_mul(sector.into()) };
    let len = usize::try_from(header.array_bytes()).map_err(|_| damaged())?;
    let at = usize::try_from(entries_at).map_err(|_| damaged())?;
    let end = at.checked_add(len).ok_or_else(damaged)?;
    let array = bytes.get(at..end).filter(|array| header.array_holds(array)).ok_or_else(damaged)?;
    table(sector, boot, first, &header, array)
}

/// The table of a text.
pub(super) fn from_script(script: &Script) -> Result<SavedTable, ImportFault> {
    let sector = u64::from(script.sector);
    let array_sectors = u64::from(ENTRIES * ENTRY_BYTES).div_ceil(sector);
    let last = script.last_usable.ok_or_else(damaged)?;
    let sectors = last.checked_add(array_sectors + 2).ok_or_else(damaged)?;
    let mut array = vec![0; (ENTRIES * ENTRY_BYTES) as usize];
    for row in &script.rows {
        let index = row.number as usize - 1;
        let entry = array.chunks_exact_mut(ENTRY_BYTES as usize).nth(index).ok_or_else(damaged)?;
        fill_entry(entry, row).ok_or_else(damaged)?;
    }
    let mut header = vec![0; FILE_SECTOR];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
    let first_usable = script.first_usable.unwrap_or(2 + array_sectors);
    for (at, number) in [(24, 1), (32, sectors - 1), (40, first_usable), (48, last), (72, 2)] {
        header[at..at + 8].copy_from_slice(&u64::to_le_bytes(number));
    }
    header[56..72].copy_from_slice(&guid(&script.id).ok_or_else(damaged)?);
    for (at, number) in [(80, ENTRIES), (84, ENTRY_BYTES), (88, crc32fast::hash(&array))] {
        header[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
    }
    let crc = header_crc(&header[..92]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    let mut boot = vec![0; FILE_SECTOR];
    let covered = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    boot[446..454].copy_from_slice(&[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF]);
    boot[454..458].copy_from_slice(&1_u32.to_le_bytes());
    boot[458..462].copy_from_slice(&covered.to_le_bytes());
    boot[510..].copy_from_slice(&[0x55, 0xAA]);
    let parsed = Header::parse(&header, 1).ok_or_else(damaged)?;
    table(script.sector, &boot, &header, &parsed, &array)
}

fn table(sector: u32, boot: &[u8], first: &[u8], header: &Header, array: &[u8]) -> Result<SavedTable, ImportFault> {
    let bytes = u64::from(sector);
    let place = |first: u64, last: u64| Some(first.checked_mul(bytes)?..last.checked_add(1)?.checked_mul(bytes)?);
    let mut partitions = Vec::new();
    for (number, entry) in header.partitions(array) {
        partitions.push(SavedPartition { number, place: place(entry.first, entry.last).ok_or_else(damaged)? });
    }
    let disk = place(0, header.alternate).ok_or_else(damaged)?;
    let first_usable = u64_at(first, 40).and_then(|usable| usable.checked_mul(bytes)).ok_or_else(damaged)?;
    let entries = header.entries.checked_mul(bytes).ok_or_else(damaged)?;
    if header.entries < 2 || entries + array.len() as u64 > first_usable {
        return Err(damaged());
    }
    let areas = vec![(0, boot.to_vec()), (bytes, first.to_vec()), (entries, array.to_vec())];
    SavedTable { sector, disk_bytes: disk.end, is_exact: true, areas, partitions }.checked()
}

fn fill_entry(entry: &mut [u8], row: &Row) -> Option<()> {
    entry[..16].copy_from_slice(&guid(&row.kind)?);
    entry[16..32].copy_from_slice(&guid(&row.uuid)?);
    entry[32..40].copy_from_slice(&row.sectors.start.to_le_bytes());
    entry[40..48].copy_from_slice(&(row.sectors.end - 1).to_le_bytes());
    let mut bits = 0_u64;
    for word in row.attributes.split([' ', ',']).filter(|word| !word.is_empty()) {
        bits |= match word.trim_start_matches("GUID:") {
            "RequiredPartition" => 1,
            "NoBlockIOProtocol" => 2,
            "LegacyBIOSBootable" => 4,
            bit => 1_u64.checked_shl(bit.parse().ok()?)?,
        };
    }
    entry[48..56].copy_from_slice(&bits.to_le_bytes());
    for (place, unit) in entry[56..].as_chunks_mut::<2>().0.iter_mut().zip(row.name.encode_utf16()) {
        *place = unit.to_le_bytes();
    }
    Some(())
}

/// A GUID as it lies on a disk.
fn guid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let mut bytes: [u8; 16] = hex::parse(&digits)?;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}
