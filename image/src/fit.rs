//! A GUID partition table fitted to the size of the disk it lands on.
//!
//! The backup header and its copy of the entries belong in the last sectors of the disk, wherever that is; so an image does
//! not hold them. They are made from the primary table, which on a disk of another size changes too: where the backup is,
//! the last usable sector, the checksums and the length in the protective MBR. On a disk of the same size nothing of the
//! head changes, and the backup is what partitioning tools write (UEFI specification 5.3.2).
//!
//! What can be wrong with the disk is found by [`Geometry::new`], before anything is written. [`fit`] itself cannot fail: a
//! table that cannot be fitted stays as the image has it, and [`Outcome`] says why.
//!
//! Pure functions over bytes: `create`, `export` and the agents' head shadow use the same ones.

use crate::le::u32_at;
use crate::table::gpt::{Header, header_crc, protective_entry};
use core::fmt;
use core::ops::Range;

/// How much of the front of a disk [`fit`] wants to see.
pub const HEAD_BYTES: u64 = 1 << 20;
/// The room that every GPT keeps for its entries.
const ARRAY_BYTES: u64 = 16 << 10;
/// The longest array of entries that is fitted: 1,024 entries of 128 bytes.
const MAX_ARRAY_BYTES: u64 = 128 << 10;

/// Why an image cannot be put on a disk at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FitError {
    /// No disk has sectors of so many bytes.
    Sector(u32),
    /// The disk is smaller than that of the image.
    TooSmall {
        /// Bytes of the disk.
        disk_bytes: u64,
        /// Bytes that the disk needs to have.
        need: u64,
    },
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sector(sector) => write!(f, "no disk has sectors of {sector} bytes"),
            Self::TooSmall { disk_bytes, need } => write!(f, "the disk has {disk_bytes} bytes, the image needs {need}"),
        }
    }
}

impl std::error::Error for FitError {}

/// An image's disk and the disk it goes to. It exists only where one fits on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    sector: u32,
    image_bytes: u64,
    disk_bytes: u64,
}

impl Geometry {
    /// An image of a disk of `image_bytes`, with sectors of `sector` bytes, on a disk of `disk_bytes`. This is all that can
    /// be refused because of sizes, and it needs no byte of image or disk.
    ///
    /// # Errors
    /// [`FitError`] on a smaller disk, or on sectors that no disk has.
    pub fn new(sector: u32, image_bytes: u64, disk_bytes: u64) -> Result<Self, FitError> {
        if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
            return Err(FitError::Sector(sector));
        }
        if disk_bytes < image_bytes {
            return Err(FitError::TooSmall { disk_bytes, need: image_bytes });
        }
        Ok(Self { sector, image_bytes, disk_bytes })
    }

    /// Whether the disk has the size of the image's.
    #[must_use]
    pub fn is_own_size(&self) -> bool {
        self.image_bytes == self.disk_bytes
    }
}

/// Why a GPT stays as the image has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfitted {
    /// The checksum or a field of the primary header, or the checksum of its entries, is wrong.
    Damaged,
    /// The entries reach behind the first [`HEAD_BYTES`].
    EntriesTooFar,
    /// There are more entries than are fitted.
    TooManyEntries,
    /// The last partition leaves no room for the backup table.
    NoRoom,
    /// Where the backup table belongs, the image has something else.
    Occupied,
    /// On a disk of the image's own size: the table does not say that its backup is in the last sector.
    BackupElsewhere,
}

impl fmt::Display for Unfitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "its primary header or its entries do not match their checksums",
            Self::EntriesTooFar => "its entries reach behind the first MiB of the disk",
            Self::TooManyEntries => "it has more than 1024 entries",
            Self::NoRoom => "its last partition leaves no room for the backup table at the end of the disk",
            Self::Occupied => "the image has other data where the backup table belongs",
            Self::BackupElsewhere => "it says that its backup table is not at the end of the disk",
        })
    }
}

/// What became of a partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is no GPT.
    NoGpt,
    /// The GPT is right for the disk; the backup table lies in these bytes of the disk.
    Fitted(Range<u64>),
    /// The GPT is as the image has it.
    Unfitted(Unfitted, Geometry),
}

impl Outcome {
    /// What an operator should know: the disk is larger than the image's and its GPT was not fitted, or is damaged.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Unfitted(why, geometry) if !geometry.is_own_size() || *why == Unfitted::Damaged => {
                let Geometry { image_bytes, disk_bytes, .. } = geometry;
                Some(format!(
                    "the GPT was not fitted to the disk of {disk_bytes} bytes and is as on the image's disk of \
                     {image_bytes} bytes: {why}"
                ))
            }
            _ => None,
        }
    }
}

/// The bytes at the end of a disk in which [`fit`] may put a backup GPT: room for the longest array of entries and one
/// sector of header. Empty on a disk too small for that. On a disk that is no multiple of its sectors it ends with
/// the last whole one.
#[must_use]
pub fn tail_area(disk_bytes: u64, sector: u32) -> Range<u64> {
    let sector = u64::from(sector.max(1));
    let end = disk_bytes - disk_bytes % sector;
    let bytes = MAX_ARRAY_BYTES.next_multiple_of(sector) + sector;
    // In front: protective MBR, header, entries.
    if end < 2 * bytes + sector { end..end } else { end - bytes..end }
}

/// Fits the GPT in `head`, the first [`HEAD_BYTES`] of a disk (or all of it), to the disk; `tail` is its [`tail_area`].
/// Where the head is the whole disk, `tail` is empty and the backup table is put at the end of the head.
///
/// Both hold what the image has there, and zeros where it has nothing. Nothing but zeros and this very backup table, or a
/// part of it, is overwritten.
pub fn fit(head: &mut [u8], tail: &mut [u8], geometry: Geometry) -> Outcome {
    let unfitted = |why| Outcome::Unfitted(why, geometry);
    let (sector, size) = (geometry.sector, u64::from(geometry.sector));
    let table = match Table::read(head, sector) {
        Ok(Some(table)) => table,
        Ok(None) => return Outcome::NoGpt,
        Err(why) => return unfitted(why),
    };
    let last = (geometry.disk_bytes / size).saturating_sub(1);
    if geometry.is_own_size() && table.header.alternate != last {
        return unfitted(Unfitted::BackupElsewhere);
    }
    if table.array.len() as u64 > MAX_ARRAY_BYTES {
        return unfitted(Unfitted::TooManyEntries);
    }
    let Some(first) = table.backup_first(last, sector).filter(|first| table.end <= *first) else {
        return unfitted(Unfitted::NoRoom);
    };
    let header = table.header_for(head, sector, last, first);
    let backup = table.backup(&header, &head[table.array.clone()], sector, last, first);
    let area = first * size..(last + 1) * size;
    let old = table.old_backup(head, geometry, &area);
    let base = if tail.is_empty() { 0 } else { area.end.saturating_sub(tail.len() as u64) };
    let place = area.start.checked_sub(base).zip(area.end.checked_sub(base));
    let place = place.and_then(|(start, end)| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
    let buffer = if tail.is_empty() { &mut *head } else { tail };
    let Some(found) = place.and_then(|place| buffer.get_mut(place)) else { return unfitted(Unfitted::NoRoom) };
    // The image leaves out whole grains of its own backup: of the first sectors of the entries it may hold a grain's rest, which
    // on a disk that is a little larger lies where the new backup belongs.
    let is_free = |((found, right), old): ((&u8, &u8), &u8)| *found == 0 || found == right || found == old;
    if found.iter().zip(&backup).zip(&old).all(is_free) {
        found.copy_from_slice(&backup);
    } else if !holds_backup(found, &backup, sector) {
        return unfitted(Unfitted::Occupied);
    }
    table.put_header(head, &header, sector, last);
    Outcome::Fitted(area)
}

/// Turns a table that was [`fit`]ted to a larger disk back into that of a disk of `disk_bytes`, if it is one.
pub fn unfit(head: &mut [u8], sector: u32, disk_bytes: u64) {
    let last = (disk_bytes / u64::from(sector.max(1))).saturating_sub(1);
    let Ok(Some(table)) = Table::read(head, sector) else { return };
    let Some(first) = table.backup_first(last, sector).filter(|first| table.end <= *first) else { return };
    let header = table.header_for(head, sector, last, first);
    table.put_header(head, &header, sector, last);
}

/// Whether `found` is a backup of the table that `backup` was made from: the same disk, entries and sizes in a header whose
/// checksum holds, and the entries themselves. Bytes that neither covers must be the same.
fn holds_backup(found: &[u8], backup: &[u8], sector: u32) -> bool {
    let Some(header_at) = found.len().checked_sub(sector as usize).filter(|at| *at > 0) else { return false };
    let (entries, header) = found.split_at(header_at);
    let (right_entries, right_header) = backup.split_at(header_at);
    // Everything but the two checksummed words that depend on the size of the header: its length and its own checksum.
    let same = header[..12] == right_header[..12] && header[20..92] == right_header[20..92];
    let own = |header: &[u8]| header.get(24..32).and_then(|own| Some(u64::from_le_bytes(own.try_into().ok()?)));
    let parsed = own(header).and_then(|own| Header::parse(header, own));
    let rest_is_zero = |parsed: Header| header[parsed.len..].iter().all(|byte| *byte == 0);
    entries == right_entries && same && parsed.is_some_and(rest_is_zero)
}

/// A primary table that holds, with the place of its array in the head and the end of its last partition.
struct Table {
    header: Header,
    array: Range<usize>,
    end: u64,
}

impl Table {
    /// `None` where there are no signs of a GPT.
    fn read(head: &[u8], sector: u32) -> Result<Option<Self>, Unfitted> {
        let size = sector as usize;
        let (Some(_), Some(bytes)) = (protective_entry(head), head.get(size..2 * size)) else { return Ok(None) };
        let header = Header::parse(bytes, 1).ok_or(Unfitted::Damaged)?;
        let start = header.entries.checked_mul(u64::from(sector)).and_then(|start| usize::try_from(start).ok());
        let len = usize::try_from(header.array_bytes()).ok();
        let array = start.zip(len).and_then(|(start, len)| Some(start..start.checked_add(len)?));
        let array = array.ok_or(Unfitted::EntriesTooFar)?;
        let entries = head.get(array.clone()).ok_or(Unfitted::EntriesTooFar)?;
        if array.start < 2 * size || !header.array_holds(entries) {
            return Err(Unfitted::Damaged);
        }
        let end = header.partitions(entries).map(|(_, entry)| entry.last.saturating_add(1)).max().unwrap_or(0);
        Ok(Some(Self { header, array, end }))
    }

    /// The first sector of the backup table on a disk whose last sector is `last`, if it is behind the primary table.
    fn backup_first(&self, last: u64, sector: u32) -> Option<u64> {
        let size = u64::from(sector);
        let first = last.checked_sub((self.array.len() as u64).max(ARRAY_BYTES).div_ceil(size))?;
        ((self.array.end as u64).div_ceil(size) <= first).then_some(first)
    }

    /// The primary header for that disk.
    fn header_for(&self, head: &[u8], sector: u32, last: u64, first: u64) -> Vec<u8> {
        let mut header = head[sector as usize..][..self.header.len].to_vec();
        if self.header.alternate != last {
            header[32..40].copy_from_slice(&last.to_le_bytes());
            header[48..56].copy_from_slice(&(first - 1).to_le_bytes());
            seal(&mut header);
        }
        header
    }

    /// The backup table of that disk: entries, then the header in the last sector.
    fn backup(&self, header: &[u8], entries: &[u8], sector: u32, last: u64, first: u64) -> Vec<u8> {
        let size = sector as usize;
        let mut backup = vec![0; usize::try_from(last + 1 - first).unwrap_or(0) * size];
        let header_at = backup.len() - size;
        let array_sectors = entries.len().div_ceil(size);
        let array_at = header_at - array_sectors * size;
        backup[array_at..array_at + entries.len()].copy_from_slice(entries);
        let header_of_backup = &mut backup[header_at..header_at + header.len()];
        header_of_backup.copy_from_slice(header);
        header_of_backup[24..32].copy_from_slice(&last.to_le_bytes());
        header_of_backup[32..40].copy_from_slice(&1_u64.to_le_bytes());
        header_of_backup[72..80].copy_from_slice(&(last - array_sectors as u64).to_le_bytes());
        seal(header_of_backup);
        backup
    }

    /// What the backup on the image's own disk has in `area`, in bytes of a disk; zeros elsewhere.
    fn old_backup(&self, head: &[u8], geometry: Geometry, area: &Range<u64>) -> Vec<u8> {
        let len = |bytes: u64| usize::try_from(bytes).unwrap_or(0);
        let mut found = vec![0; len(area.end - area.start)];
        let size = u64::from(geometry.sector);
        let last = (geometry.image_bytes / size).saturating_sub(1);
        let Some(first) = self.backup_first(last, geometry.sector).filter(|_| self.header.alternate == last) else {
            return found;
        };
        let header = self.header_for(head, geometry.sector, last, first);
        let backup = self.backup(&header, &head[self.array.clone()], geometry.sector, last, first);
        let old = first * size..(last + 1) * size;
        let (start, end) = (old.start.max(area.start), old.end.min(area.end));
        if start < end {
            let from = len(start - old.start);
            found[len(start - area.start)..len(end - area.start)]
                .copy_from_slice(&backup[from..from + len(end - start)]);
        }
        found
    }

    fn put_header(&self, head: &mut [u8], header: &[u8], sector: u32, last: u64) {
        if self.header.alternate != last {
            head[sector as usize..][..header.len()].copy_from_slice(header);
            fit_protective(head, self.header.alternate, last);
        }
    }
}

/// Puts the right checksum into a header.
fn seal(header: &mut [u8]) {
    let crc = header_crc(header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
}

/// Lets the protective MBR cover the disk up to sector `last`, if it covered it up to sector `old` (or claims to cover
/// some other size while it stands alone). An entry of the largest possible length covers every disk.
fn fit_protective(head: &mut [u8], old: u64, last: u64) {
    let Some(at) = protective_entry(head) else { return };
    let sectors = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let alone = (0..4).map(|index| 446 + index * 16).all(|other| other == at || head[other + 4] == 0);
    match u32_at(head, at + 12) {
        Some(u32::MAX) => return,
        Some(length) if length == sectors(old) || alone => {}
        // A hybrid MBR: the entry ends where the first copied partition begins.
        _ => return,
    }
    head[at + 5..at + 8].copy_from_slice(&cylinder_head_sector(last));
    head[at + 12..at + 16].copy_from_slice(&sectors(last).to_le_bytes());
}

/// Sector `lba` in the geometry of 255 heads and 63 sectors a track, or all ones if it is too far out.
fn cylinder_head_sector(lba: u64) -> [u8; 3] {
    let (track, sector) = (lba / 63, lba % 63 + 1);
    let (cylinder, head) = (track / 255, track % 255);
    match (u8::try_from(head), u8::try_from(sector | (cylinder >> 8) << 6), u8::try_from(cylinder & 0xFF)) {
        (Ok(head), Ok(sector), Ok(cylinder_low)) if cylinder < 1024 => [head, sector, cylinder_low],
        _ => [0xFF; 3],
    }
}

#[cfg(test)]
mod tests;
