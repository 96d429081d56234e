//! An MBR and the boot records of its logical partitions, made out of the text of a table: of those only the first is ever saved.

use super::super::ImportFault;
use super::script::{Row, Script};
use super::{SavedPartition, SavedTable, WHAT};
use core::ops::Range;

const SECTOR: usize = 512;
/// What programs leave between the boot record of a logical partition and the partition, in sectors.
const USUAL_GAP: u64 = 2048;

/// The table of `script`. `first` is the first sector of the disk as it was saved, whose table is taken where it says the same;
/// `disk_bytes` the size of the disk where it is known.
pub(in super::super) fn boot_records(
    script: &Script,
    first: Option<&[u8]>,
    disk_bytes: Option<u64>,
) -> Result<SavedTable, ImportFault> {
    let sector = u64::from(script.sector);
    let damaged = || ImportFault::Damaged { what: WHAT, offset: 0 };
    let (primary, logical): (Vec<_>, Vec<_>) = script.rows.iter().partition(|row| row.number <= 4);
    let end = script.rows.iter().map(|row| row.sectors.end).max().unwrap_or(0);
    let bytes = |sectors: &Range<u64>| {
        let end = sectors.end.checked_mul(sector)?;
        Some(sectors.start * sector..end)
    };
    let mut areas = vec![(0, master(script, &primary, first).ok_or_else(damaged)?)];
    if !logical.is_empty() {
        let mut extended = primary.iter().filter(|row| row.is_extended());
        let (Some(extended), None) = (extended.next(), extended.next()) else { return Err(damaged()) };
        for (at, record) in chain(&extended.sectors, logical).ok_or_else(damaged)? {
            areas.push((at.checked_mul(sector).ok_or_else(damaged)?, record));
        }
    }
    let mut partitions = Vec::new();
    for row in script.rows.iter().filter(|row| !row.is_extended()) {
        partitions.push(SavedPartition { number: row.number, place: bytes(&row.sectors).ok_or_else(damaged)? });
    }
    let least = end.checked_mul(sector).ok_or_else(damaged)?;
    let table = SavedTable {
        sector: script.sector,
        disk_bytes: disk_bytes.unwrap_or(least),
        is_exact: disk_bytes.is_some(),
        areas,
        partitions,
    };
    table.checked()
}

/// The master boot record.
fn master(script: &Script, primary: &[&Row], first: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut record = vec![0; SECTOR];
    let saved = first.and_then(|first| first.get(..SECTOR));
    if let Some(saved) = saved {
        record.copy_from_slice(saved);
        let says_the_same = |row: &&Row| {
            let entry = &saved[446 + 16 * (row.number as usize - 1)..][..16];
            entry[4] == row.mbr_kind().unwrap_or(0)
                && entry[8..] == [row.sectors.start, row.sectors.end - row.sectors.start].map(low_bytes).concat()
        };
        if saved[510..] == [0x55, 0xAA] && primary.iter().all(says_the_same) {
            return Some(record);
        }
    } else if let Ok(id) = u32::from_str_radix(script.id.trim_start_matches("0x"), 16) {
        record[440..444].copy_from_slice(&id.to_le_bytes());
    }
    record[446..510].fill(0);
    for row in primary {
        let entry = entry(row, row.sectors.start)?;
        record[446 + 16 * (row.number as usize - 1)..][..16].copy_from_slice(&entry);
    }
    record[510..].copy_from_slice(&[0x55, 0xAA]);
    Some(record)
}

fn low_bytes(sectors: u64) -> [u8; 4] {
    u32::try_from(sectors).unwrap_or(u32::MAX).to_le_bytes()
}

/// An entry whose partition begins `start` sectors behind what its boot record counts from. Cylinders are as large as they get:
/// nothing reads them any more.
fn entry(row: &Row, start: u64) -> Option<[u8; 16]> {
    let sectors = u32::try_from(row.sectors.end - row.sectors.start).ok()?;
    Some(raw_entry(row.bootable, row.mbr_kind()?, u32::try_from(start).ok()?, sectors))
}

fn raw_entry(bootable: bool, kind: u8, start: u32, sectors: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[0] = if bootable { 0x80 } else { 0 };
    entry[1..4].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
    entry[4] = kind;
    entry[5..8].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..].copy_from_slice(&sectors.to_le_bytes());
    entry
}

/// The boot records of the logical partitions, with their sectors: the first at the front of the extended partition, each other
/// one in the gap before its partition.
fn chain(extended: &Range<u64>, mut logical: Vec<&Row>) -> Option<Vec<(u64, Vec<u8>)>> {
    logical.sort_by_key(|row| row.number);
    let mut places = Vec::new();
    for (index, row) in logical.iter().enumerate() {
        let start = row.sectors.start;
        let ends = logical.iter().map(|other| other.sectors.end).filter(|end| *end <= start);
        let free = ends.max().unwrap_or(extended.start + 1);
        let place = if index == 0 { extended.start } else { free.max(start.saturating_sub(USUAL_GAP)) };
        let inside = extended.start <= place && place < start && row.sectors.end <= extended.end;
        if !inside || logical.iter().any(|other| other.sectors.contains(&place)) || places.contains(&place) {
            return None;
        }
        places.push(place);
    }
    let mut records = Vec::new();
    for (index, (row, place)) in logical.iter().zip(&places).enumerate() {
        let mut record = vec![0; SECTOR];
        record[446..462].copy_from_slice(&entry(row, row.sectors.start - place)?);
        if let (Some(next), Some(at)) = (logical.get(index + 1), places.get(index + 1)) {
            // The way to the next record counts from the extended partition, and reaches up to the end of its partition.
            let (start, sectors) = (at - extended.start, next.sectors.end - at);
            let link = raw_entry(false, 0x05, u32::try_from(start).ok()?, u32::try_from(sectors).ok()?);
            record[462..478].copy_from_slice(&link);
        }
        record[510..].copy_from_slice(&[0x55, 0xAA]);
        records.push((*place, record));
    }
    Some(records)
}
