//! Free clusters of FAT12, FAT16 and FAT32 (Microsoft's "FAT32 File System Specification", 1.03).
//!
//! The boot sector gives the geometry; the file allocation table has an entry for each cluster, 0 for a free one. Read are
//! all copies of the table, which must be the same; and no entry may lead to a free cluster.

use super::bitmap;
use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use crate::le::{u16_at, u32_at};

/// Bytes of a table read at once: a multiple of every entry and of every sector.
const PIECE: usize = 3 << 18;
const CORRUPT: Kept = Kept::Corrupt("boot sector");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Bits12,
    Bits16,
    Bits32,
}

/// The numbers of a boot sector that fit together.
#[derive(Debug)]
struct Layout {
    width: Width,
    media: u8,
    /// Where the first table begins, and its size, in bytes.
    tables_at: u64,
    table_bytes: u64,
    tables: u64,
    data_at: u64,
    cluster: u64,
    clusters: u32,
    end: u64,
}

/// The row of the table of readers.
pub(super) const READER: Reader = Reader { probe: name, unused };

/// What the file system is called, if the head of a volume is that of one.
fn name(head: &[u8]) -> Option<&'static str> {
    Layout::parse(head).map(|layout| match layout.width {
        Width::Bits12 => "FAT12",
        Width::Bits16 => "FAT16",
        Width::Bits32 => "FAT32",
    })
}

impl Layout {
    fn parse(head: &[u8]) -> Option<Self> {
        let jump = matches!(head, [0xEB, _, 0x90, ..] | [0xE9, ..]);
        if !jump || head.get(510..512)? != [0x55, 0xAA] {
            return None;
        }
        let sector = u64::from(u16_at(head, 11)?);
        let per_cluster = u64::from(*head.get(13)?);
        let reserved = u64::from(u16_at(head, 14)?);
        let tables = u64::from(*head.get(16)?);
        let root = u64::from(u16_at(head, 17)?);
        let media = *head.get(21)?;
        let short_or_long = |short, long| {
            Some(match u16_at(head, short)? {
                0 => u64::from(u32_at(head, long)?),
                short => u64::from(short),
            })
        };
        let sectors = short_or_long(19, 32)?;
        let table_sectors = short_or_long(22, 36)?;
        let powers = sector.is_power_of_two() && (512..=4096).contains(&sector) && per_cluster.is_power_of_two();
        if !powers
            || reserved == 0
            || !(1..=2).contains(&tables)
            || (media != 0xF0 && media < 0xF8)
            || table_sectors == 0
        {
            return None;
        }
        let data = reserved + tables * table_sectors + (root * 32).div_ceil(sector);
        let clusters = u32::try_from(sectors.checked_sub(data)? / per_cluster).ok()?;
        let width = match clusters {
            _ if u16_at(head, 22) == Some(0) => Width::Bits32,
            0 => return None,
            1..4085 => Width::Bits12,
            4085..65525 => Width::Bits16,
            _ => return None,
        };
        let (bits, most) = match width {
            Width::Bits12 => (12, 4085),
            Width::Bits16 => (16, 65525),
            Width::Bits32 => (32, 0x0FFF_FFF5),
        };
        let entries = u64::from(clusters) + 2;
        let fits = clusters < most && clusters > 0 && (entries * bits).div_ceil(8) <= table_sectors * sector;
        if !fits || (width == Width::Bits32) != (root == 0) {
            return None;
        }
        Some(Self {
            width,
            media,
            tables_at: reserved * sector,
            table_bytes: table_sectors * sector,
            tables,
            data_at: data * sector,
            cluster: per_cluster * sector,
            clusters,
            end: sectors * sector,
        })
    }

    /// Calls `each` with every entry, from that of cluster 2 on (0 and 1 hold flags), until it says no.
    fn each_entry(&self, volume: &Volume<'_>, mut each: impl FnMut(u32, u32) -> bool) -> Result<(), Kept> {
        let end = u64::from(self.clusters) + 2;
        let mut number = 0;
        let mut piece = vec![0; PIECE];
        let mut read = 0;
        while read < self.table_bytes && number < end {
            let len = usize::try_from((self.table_bytes - read).min(PIECE as u64)).unwrap_or(PIECE);
            let piece = &mut piece[..len];
            volume.read(self.tables_at + read, piece)?;
            read += len as u64;
            let mut entry = |value: u32| {
                let wanted = (2..end).contains(&number);
                let go_on = !wanted || each(u32::try_from(number).unwrap_or(u32::MAX), value);
                number += 1;
                go_on
            };
            let done = match self.width {
                Width::Bits12 => piece.chunks(3).all(|bytes| {
                    let byte = |at: usize| u32::from(bytes.get(at).copied().unwrap_or(0));
                    entry(byte(0) | (byte(1) & 0xF) << 8) && (bytes.len() < 3 || entry(byte(1) >> 4 | byte(2) << 4))
                }),
                Width::Bits16 => {
                    piece.chunks_exact(2).all(|bytes| entry(u16::from_le_bytes([bytes[0], bytes[1]]).into()))
                }
                Width::Bits32 => piece
                    .chunks_exact(4)
                    .all(|bytes| entry(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & 0x0FFF_FFFF)),
            };
            if !done {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The flags of the boot sector and of the first two entries: unmounted, and no errors.
    fn clean(&self, volume: &Volume<'_>, head: &[u8]) -> Result<(), Kept> {
        let mut entries = [0; 8];
        volume.read(self.tables_at, &mut entries)?;
        let (flags_at, unmounted, no_errors) = match self.width {
            Width::Bits12 => (37, true, true),
            Width::Bits16 => (37, entries[3] & 0x80 != 0, entries[3] & 0x40 != 0),
            Width::Bits32 => (65, entries[7] & 8 != 0, entries[7] & 4 != 0),
        };
        let extended = matches!(head.get(flags_at + 1), Some(0x28 | 0x29));
        let flags = head.get(flags_at).copied().filter(|_| extended).unwrap_or(0);
        if entries[0] != self.media {
            Err(Kept::Disagree("boot sector", "allocation table"))
        } else if !unmounted || flags & 1 != 0 {
            Err(Kept::NotClean)
        } else if !no_errors || flags & 2 != 0 {
            Err(Kept::Errors)
        } else {
            Ok(())
        }
    }

    /// All copies of the table are the same.
    fn copies_agree(&self, volume: &Volume<'_>) -> Result<(), Kept> {
        let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
        let mut at = 0;
        while self.tables == 2 && at < self.table_bytes {
            let len = usize::try_from((self.table_bytes - at).min(PIECE as u64)).unwrap_or(PIECE);
            volume.read(self.tables_at + at, &mut one[..len])?;
            volume.read(self.tables_at + self.table_bytes + at, &mut other[..len])?;
            if one[..len] != other[..len] {
                return Err(Kept::Disagree("first allocation table", "second"));
            }
            at += len as u64;
        }
        Ok(())
    }

    /// The number of free clusters that FAT32 states, if it states one.
    fn stated(&self, volume: &Volume<'_>, head: &[u8]) -> Result<Option<u32>, Kept> {
        let sector = u64::from(u16_at(head, 11).ok_or(CORRUPT)?);
        let at = u64::from(u16_at(head, 48).ok_or(CORRUPT)?);
        if self.width != Width::Bits32 || at == 0 || at == 0xFFFF {
            return Ok(None);
        }
        let info = volume.bytes_at(at * sector, 512)?;
        let signed = info.starts_with(b"RRaA") && info[484..488] == *b"rrAa";
        Ok(u32_at(&info, 488).filter(|stated| signed && *stated != u32::MAX))
    }
}

/// The free clusters of the file system on `volume`, whose first bytes are `head`.
fn unused(volume: &Volume<'_>, head: &[u8]) -> Result<Unused, Kept> {
    let layout = Layout::parse(head).ok_or(CORRUPT)?;
    if layout.end > volume.bytes() {
        return Err(Kept::TooLong);
    }
    let wide = layout.width == Width::Bits32;
    if wide && (u16_at(head, 42) != Some(0) || u16_at(head, 40) != Some(0)) {
        return Err(Kept::Feature("FAT32", u32_at(head, 40).unwrap_or(0)));
    }
    layout.clean(volume, head)?;
    layout.copies_agree(volume)?;
    let end = u64::from(layout.clusters) + 2;
    // One bit for each cluster, set for those in use: at most 32 MiB.
    let mut map = vec![0; usize::try_from(end.div_ceil(8)).unwrap_or(0)];
    bitmap::set(&mut map, 0..2);
    layout.each_entry(volume, |cluster, next| {
        if next != 0 {
            bitmap::set(&mut map, cluster.into()..u64::from(cluster) + 1);
        }
        true
    })?;
    let mut lost = false;
    layout.each_entry(volume, |_, next| {
        let next = u64::from(next);
        lost |= (2..end).contains(&next) && !bitmap::all_set(&map, next..next + 1);
        !lost
    })?;
    let root = u64::from(u32_at(head, 44).ok_or(CORRUPT)?);
    if lost || (wide && ((root < 2 || root >= end) || !bitmap::all_set(&map, root..root + 1))) {
        return Err(Kept::Disagree("files", "allocation table"));
    }
    let mut unused = Unused::default();
    let place = |cluster: u64| layout.data_at + (cluster - 2) * layout.cluster;
    let mut counted = 0;
    bitmap::clear_runs(&map, end, |run| {
        counted += run.end - run.start;
        unused.push(place(run.start)..place(run.end));
    });
    match layout.stated(volume, head)? {
        Some(stated) if u64::from(stated) != counted => Err(Kept::Counts { stated: stated.into(), counted }),
        _ => Ok(unused),
    }
}
