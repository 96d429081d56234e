//! Members of Linux md arrays (`include/uapi/linux/raid/md_p.h` and `drivers/md/md.c` of the kernel).
//!
//! A member of a RAID1 has the whole array, as it is, between the places that its superblock tells; so the array is looked
//! into. The superblock is at the front (version 1.1), 4 KiB behind it (1.2), or at the end (0.90, 1.0). Everything around
//! the array, the superblock, the bitmap and the log of bad blocks among it, is used. Members of other levels have pieces
//! of an array and are used as a whole.

use super::inside::Inside;
use super::mapped::Piece;
use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use crate::le::{u16_at, u32_at, u64_at};
use core::ops::Range;

pub(super) const NAME: &str = "md RAID";
const MAGIC: u32 = 0xA92B_4EFC;
const SECTOR: u64 = 512;
const BYTES: usize = 4096;
/// Of version 1 without the roles of the devices.
const FIXED: usize = 256;
const CORRUPT: Kept = Kept::Corrupt("md superblock");

/// Features of version 1 under which a member has the whole array as it is: a bitmap of writes.
const BITMAP: u32 = 1;
/// The superblock of version 0.90, in words: the state of the array, its checksum, and this member.
const STATE: usize = 33;
const SUM: usize = 38;
const THIS_DISK: usize = 992;
const CLEAN: u32 = 1;
const ERRORS: u32 = 2;
/// Of the state of a member: faulty, active, in sync, removed.
const DISK_STATE: u32 = 0xF;
/// Active and in sync.
const IN_SYNC: u32 = 2 | 4;
const NOT_IN_SYNC: Kept = Kept::NotRead("a member that is not in sync with its md RAID array");

/// The row of the table of readers, for superblocks at the front.
pub(super) const READER: Reader = Reader {
    probe: |head| FRONT.into_iter().any(|at| has_magic(head, at)).then_some(NAME),
    unused: |volume, head| {
        let mut places = FRONT.into_iter().filter(|at| has_magic(head, *at));
        let (Some(at), None) = (places.next(), places.next()) else { return Err(CORRUPT) };
        unused(volume, version_1(volume, at as u64)?)
    },
};

/// Where versions 1.1 and 1.2 have it.
const FRONT: [usize; 2] = [0, 4096];

fn has_magic(head: &[u8], at: usize) -> bool {
    u32_at(head, at) == Some(MAGIC)
}

/// Where superblocks of versions 0.90 and 1.0 would be.
pub(super) fn places_at_the_end(bytes: u64) -> [Option<u64>; 2] {
    let old = (bytes & !0xFFFF).checked_sub(64 << 10);
    let new = (bytes & !0x1FF).checked_sub(8 << 10).map(|at| at & !0xFFF);
    [old, new]
}

/// Whether a superblock begins at one of them.
pub(super) fn is_at_the_end(volume: &Volume<'_>) -> Result<bool, Kept> {
    for at in places_at_the_end(volume.bytes()).into_iter().flatten() {
        if u32_at(&volume.bytes_at(at, 4)?, 0) == Some(MAGIC) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The array on a member whose superblock is at its end; `None` if that is none of a member.
pub(super) fn array_at_the_end(volume: &Volume<'_>) -> Option<Result<Range<u64>, Kept>> {
    let [old, new] = places_at_the_end(volume.bytes());
    let found = |at: Option<u64>, read: fn(&Volume<'_>, u64) -> Result<Range<u64>, Kept>| match read(volume, at?) {
        Err(CORRUPT) => None,
        array => Some(array),
    };
    match (found(old, version_0), found(new, version_1)) {
        (Some(_), Some(_)) => Some(Err(CORRUPT)),
        (one, other) => one.or(other),
    }
}

/// What is unused inside the array that has these bytes of a member.
pub(super) fn unused(member: &Volume<'_>, array: Range<u64>) -> Result<Unused, Kept> {
    let mut inside = Inside::default();
    inside.volume(member, "array", Vec::from([Piece::linear(array.start, array.end - array.start)]));
    inside.finish()
}

/// Where a member with a superblock of version 1.x at `at` has the array.
fn version_1(volume: &Volume<'_>, at: u64) -> Result<Range<u64>, Kept> {
    let len = volume.bytes().saturating_sub(at).min(BYTES as u64);
    let raw = volume.bytes_at(at, usize::try_from(len).unwrap_or(0))?;
    let numbers = (u32_at(&raw, 4), u64_at(&raw, 144), u32_at(&raw, 220));
    let (Some(1), Some(own), Some(devices)) = numbers else { return Err(CORRUPT) };
    let end = usize::try_from(devices).ok().and_then(|devices| devices.checked_mul(2)?.checked_add(FIXED));
    let summed = end.and_then(|end| raw.get(..end)).ok_or(CORRUPT)?;
    if !has_magic(&raw, 0) || own.checked_mul(SECTOR) != Some(at) || u32_at(&raw, 216) != Some(sum(summed, 216)) {
        return Err(CORRUPT);
    }
    let word = |at| u32_at(&raw, at).ok_or(CORRUPT);
    let bytes = |at| u64_at(&raw, at).and_then(|sectors| sectors.checked_mul(SECTOR)).ok_or(CORRUPT);
    is_mirror(word(72)?)?;
    let features = word(8)?;
    if features & !BITMAP != 0 {
        return Err(Kept::Feature("md", features & !BITMAP));
    }
    let number = usize::try_from(word(160)?).map_err(|_| CORRUPT)?;
    let role = number.checked_mul(2).and_then(|at| u16_at(summed.get(FIXED..)?, at)).ok_or(CORRUPT)?;
    if u32::from(role) >= word(92)? {
        return Err(NOT_IN_SYNC);
    }
    // Sectors up to here are in sync: all of them, unless the array is being written or made.
    if u64_at(&raw, 208) != Some(u64::MAX) {
        return Err(Kept::NotClean);
    }
    let (data, space, size) = (bytes(128)?, bytes(136)?, bytes(80)?);
    let end = data.checked_add(size).ok_or(CORRUPT)?;
    let superblock = at..at + len.min(FIXED as u64);
    let apart = end <= superblock.start || data >= superblock.end;
    if size == 0 || size > space || end > volume.bytes() || !apart {
        return Err(Kept::Disagree("md superblock", "size"));
    }
    Ok(data..end)
}

/// Where a member with a superblock of version 0.90 at `at` has the array.
fn version_0(volume: &Volume<'_>, at: u64) -> Result<Range<u64>, Kept> {
    let raw = volume.bytes_at(at, BYTES)?;
    let word = |no: usize| u32_at(&raw, no * 4).unwrap_or(0);
    if word(0) != MAGIC || word(1) != 0 || word(SUM) != sum(&raw, SUM * 4) {
        return Err(CORRUPT);
    }
    is_mirror(word(7))?;
    // 91 is an array that changes its shape.
    if word(2) != 90 || word(12) != 0 {
        return Err(Kept::Feature("md", word(2)));
    }
    if word(STATE) & (CLEAN | ERRORS) != CLEAN {
        return Err(Kept::NotClean);
    }
    if word(THIS_DISK + 4) & DISK_STATE != IN_SYNC {
        return Err(NOT_IN_SYNC);
    }
    let size = u64::from(word(8)) << 10;
    if size == 0 || size > at { Err(Kept::Disagree("md superblock", "size")) } else { Ok(0..size) }
}

/// Whether the members of an array of this level have all of it each.
fn is_mirror(level: u32) -> Result<(), Kept> {
    Err(Kept::NotRead(match level {
        1 => return Ok(()),
        0 => "a member of an md RAID0",
        4 => "a member of an md RAID4",
        5 => "a member of an md RAID5",
        6 => "a member of an md RAID6",
        10 => "a member of an md RAID10",
        _ => "a member of an md array of this level",
    }))
}

/// The sum of all words but the one at `own`, the carry added to it once.
pub(crate) fn sum(bytes: &[u8], own: usize) -> u32 {
    let words = bytes.chunks(4).enumerate().filter(|(no, _)| no * 4 != own);
    let value = |word: &[u8]| word.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let sum: u64 = words.map(|(_, word)| value(word)).sum();
    u32::try_from(((sum & 0xFFFF_FFFF) + (sum >> 32)) & 0xFFFF_FFFF).unwrap_or(0)
}
