//! The label of a physical volume, its header, and its metadata areas, of which each has the text of the volume group.

use crate::le::{array_at, u32_at, u64_at};
use crate::used::volume::{Kept, Volume};
use core::ops::Range;

/// A label is in one of the first four sectors of 512 bytes, whatever the sector of the disk.
pub(super) const SECTOR: usize = 512;
const SECTORS: usize = 4;
pub(super) const ID: &[u8] = b"LABELONE";
pub(super) const TYPE: &[u8] = b"LVM2 001";
pub(super) const AREA_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
/// The header of a metadata area; behind it the ring of texts begins.
pub(super) const AREA_HEADER: u64 = 512;
/// Of a place of a text: it is kept on other disks only.
const IGNORED: u32 = 1;
/// The newest extension of the header of a physical volume.
pub(super) const EXTENSION: u32 = 2;
/// Twice what `pvcreate` makes room for by default.
pub(super) const MAX_TEXT: u64 = 2 << 20;
const START_OF_SUMS: u32 = 0xF597_A6CF;
const CORRUPT: Kept = Kept::Corrupt("LVM2 label");
const AREA_CORRUPT: Kept = Kept::Corrupt("LVM2 metadata area");

/// LVM2's CRC-32 of `bytes`: its own start, and no final inversion.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!START_OF_SUMS);
    hasher.update(bytes);
    !hasher.finalize()
}

/// What a physical volume says of itself.
pub(super) struct Label {
    /// The identifier without dashes.
    pub(super) uuid: [u8; 32],
    /// The size of the device, in bytes.
    pub(super) bytes: u64,
    /// Where the extents begin, in bytes.
    pub(super) data: u64,
    /// The metadata areas, in bytes.
    pub(super) areas: Vec<Range<u64>>,
}

impl Label {
    /// Where in the first sectors of a volume labels are.
    pub(super) fn places(head: &[u8]) -> impl Iterator<Item = usize> + '_ {
        (0..SECTORS).map(|no| no * SECTOR).filter(|at| head.get(*at..).is_some_and(|sector| sector.starts_with(ID)))
    }

    /// Reads the label at the front of `volume`, whose first bytes are `head`.
    pub(super) fn read(volume: &Volume<'_>, head: &[u8]) -> Result<Self, Kept> {
        let mut places = Self::places(head);
        let (Some(at), None) = (places.next(), places.next()) else { return Err(CORRUPT) };
        let sector = head.get(at..at + SECTOR).ok_or(CORRUPT)?;
        let stated = u64_at(sector, 8) == Some((at / SECTOR) as u64) && u32_at(sector, 16) == Some(sum(&sector[20..]));
        if !stated || sector[24..32] != *TYPE {
            return Err(CORRUPT);
        }
        let header = u32_at(sector, 20).and_then(|at| usize::try_from(at).ok()).ok_or(CORRUPT)?;
        let label = Self::header(sector.get(header..).ok_or(CORRUPT)?).ok_or(CORRUPT)?;
        if label.bytes > volume.bytes() {
            return Err(Kept::TooLong);
        }
        if label.areas.is_empty() {
            return Err(Kept::NotRead("LVM2 without metadata on this disk"));
        }
        Ok(label)
    }

    /// The header of the physical volume.
    fn header(raw: &[u8]) -> Option<Self> {
        let mut at = 40;
        let mut list = || {
            let mut found = Vec::new();
            loop {
                let (start, bytes) = (u64_at(raw, at)?, u64_at(raw, at + 8)?);
                at += 16;
                if start == 0 {
                    return Some(found);
                }
                found.push(start..start.checked_add(bytes)?);
            }
        };
        let data = list()?;
        let areas = list()?;
        let [data] = data.as_slice() else { return None };
        let known = u32_at(raw, at)? <= EXTENSION;
        known.then_some(Self { uuid: array_at(raw, 0)?, bytes: u64_at(raw, 32)?, data: data.start, areas })
    }

    /// The text of the volume group, which all areas have alike.
    pub(super) fn text(&self, volume: &Volume<'_>) -> Result<Vec<u8>, Kept> {
        let mut texts = self.areas.iter().map(|area| text(volume, area));
        let first = texts.next().ok_or(AREA_CORRUPT)??;
        for other in texts {
            if other? != first {
                return Err(Kept::Disagree("first LVM2 metadata area", "second"));
            }
        }
        Ok(first)
    }
}

/// The text that one metadata area has.
fn text(volume: &Volume<'_>, area: &Range<u64>) -> Result<Vec<u8>, Kept> {
    let header = volume.bytes_at(area.start, SECTOR)?;
    let size = area.end - area.start;
    let right = u32_at(&header, 0) == Some(sum(&header[4..]))
        && header[4..20] == *AREA_MAGIC
        && u32_at(&header, 20) == Some(1)
        && u64_at(&header, 24) == Some(area.start)
        && u64_at(&header, 32) == Some(size);
    if !right || size <= AREA_HEADER || area.end > volume.bytes() {
        return Err(AREA_CORRUPT);
    }
    let place = |no: usize| {
        let at = 40 + no * 24;
        Some((u64_at(&header, at)?, u64_at(&header, at + 8)?, u32_at(&header, at + 16)?, u32_at(&header, at + 20)?))
    };
    let (Some((start, len, stated, flags)), Some((next, ..))) = (place(0), place(1)) else { return Err(AREA_CORRUPT) };
    if flags & IGNORED != 0 {
        return Err(Kept::NotRead("LVM2 without metadata on this disk"));
    }
    if start == 0 {
        return Err(Kept::NotRead("an LVM2 physical volume that is in no volume group"));
    }
    // The second place has what was written and not made valid: an interrupted command.
    if next != 0 {
        return Err(Kept::NotClean);
    }
    if len > MAX_TEXT {
        return Err(Kept::TooLarge);
    }
    if !(AREA_HEADER..size).contains(&start) || len > size - AREA_HEADER || flags != 0 {
        return Err(AREA_CORRUPT);
    }
    // The texts are written into a ring.
    let together = len.min(size - start);
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| AREA_CORRUPT)?];
    let (front, back) = bytes.split_at_mut(usize::try_from(together).map_err(|_| AREA_CORRUPT)?);
    volume.read(area.start + start, front)?;
    volume.read(area.start + AREA_HEADER, back)?;
    if sum(&bytes) == stated { Ok(bytes) } else { Err(Kept::Corrupt("LVM2 metadata")) }
}
