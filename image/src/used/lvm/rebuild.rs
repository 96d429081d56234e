//! A physical volume made anew out of the text of its group, as `vgcfgbackup` writes it: what `pvcreate --restorefile` and
//! `vgcfgrestore` would write to its front, and where the bytes of the logical volumes belong.
//!
//! Nothing is made of a group that could only be made in part: each of its logical volumes has to be linear, and all of it on this one
//! physical volume.

use super::group::Group;
use super::label::{AREA_HEADER, AREA_MAGIC, EXTENSION, ID, Label, MAX_TEXT, SECTOR, TYPE, sum};
use super::text::Section;
use core::fmt;
use core::ops::Range;

/// Where the metadata area begins: `pvcreate` leaves a page for the label.
const AREA: usize = 4096;
/// Behind the label, zeros up to here are written as well: programs look for signatures there.
const FRONT: u64 = 1 << 20;
/// Of the extension of the header: the physical volume is in a group.
const IN_USE: u32 = 1;

/// A physical volume.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    /// Its first bytes: label, metadata area and text.
    pub(crate) front: Vec<u8>,
    pub(crate) volumes: Vec<RebuiltVolume>,
}

/// A logical volume.
#[derive(Debug)]
pub(crate) struct RebuiltVolume {
    pub(crate) name: String,
    /// Where its bytes lie on the physical volume, in the order of the logical one.
    pub(crate) places: Vec<Range<u64>>,
}

/// Why a physical volume cannot be made anew.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotRebuilt {
    /// Something of the text cannot be right.
    Damaged(&'static str),
    /// The text has it, and it is not made anew.
    Unsupported(String),
}

impl fmt::Display for NotRebuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "{what}: it is damaged"),
            Self::Unsupported(what) => write!(f, "{what}"),
        }
    }
}

/// Makes the physical volume with the identifier `uuid` (with dashes) in a partition of `bytes` bytes out of the text of the group `name`.
pub(crate) fn rebuild(text: &[u8], name: &str, uuid: &str, bytes: u64) -> Result<Rebuilt, NotRebuilt> {
    let root = Section::parse(text).ok_or(NotRebuilt::Damaged("it is no text as LVM2 writes it"))?;
    let group = root.section(name).ok_or(NotRebuilt::Damaged("it does not have this group"))?;
    let all = group.section("physical_volumes").ok_or(NotRebuilt::Damaged("it has no physical volumes"))?;
    let this = all.sections().map(|(_, section)| section).find(|section| section.text("id") == Some(uuid));
    let this = this.ok_or(NotRebuilt::Damaged("it does not have the physical volume of lvm_vg_dev.list"))?;
    if all.sections().count() > 1 {
        return Err(NotRebuilt::Unsupported("it lies on several physical volumes".to_owned()));
    }
    if this.number("ba_size").unwrap_or(0) > 0 {
        return Err(NotRebuilt::Unsupported("it has an area for a boot loader".to_owned()));
    }
    let label = label(this, uuid, bytes)?;
    let text =
        group_first(text, name, group).ok_or(NotRebuilt::Damaged("the group does not begin a line of its own"))?;
    let parsed = Group::parse(&text, &label).map_err(|kept| NotRebuilt::Unsupported(kept.to_string()))?;
    let mut taken = Vec::new();
    let mut volumes = Vec::new();
    for logical in &parsed.volumes {
        let unsupported = |why: &str| NotRebuilt::Unsupported(format!("logical volume {}: {why}", logical.name));
        let pieces = logical.pieces.as_ref().map_err(|why| unsupported(why))?;
        let places: Option<Vec<_>> = pieces.iter().map(|piece| piece.linear_place()).collect();
        let places = places.ok_or_else(|| unsupported("it is striped"))?;
        taken.extend_from_slice(&places);
        volumes.push(RebuiltVolume { name: logical.name.to_owned(), places });
    }
    taken.sort_unstable_by_key(|place| place.start);
    if taken.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(NotRebuilt::Damaged("two logical volumes have the same extents"));
    }
    Ok(Rebuilt { front: front(&label, &text)?, volumes })
}

/// The same text as LVM2 has it on a disk: the group comes before what is said of the text itself, and a zero byte ends it.
fn group_first(text: &[u8], name: &str, group: &Section<'_>) -> Option<Vec<u8>> {
    let line = format!("{name} {{");
    let starts_here = |at: &usize| (*at == 0 || text[at - 1] == b'\n') && text[*at..].starts_with(line.as_bytes());
    let (about, rest) = text.split_at((0..text.len()).find(starts_here)?);
    let turned = [rest, b"\n", about, b"\0"].concat();
    let is_same = Section::parse(&turned)?.section(name) == Some(group);
    is_same.then_some(turned)
}

/// What the text says that the label has to say.
fn label(this: &Section<'_>, uuid: &str, bytes: u64) -> Result<Label, NotRebuilt> {
    let short: Vec<u8> = uuid.bytes().filter(|byte| *byte != b'-').collect();
    let uuid = short.try_into().map_err(|_| NotRebuilt::Damaged("the physical volume has no proper identifier"))?;
    let in_bytes = |key| this.number(key).and_then(|sectors| sectors.checked_mul(SECTOR as u64));
    let data = in_bytes("pe_start").filter(|data| *data >= AREA as u64 + 2 * AREA_HEADER && *data <= bytes);
    let data = data.ok_or(NotRebuilt::Damaged("the place of the first extent cannot be right"))?;
    // Old texts do not say how large the device was.
    let bytes = match in_bytes("dev_size") {
        Some(stated) if stated > bytes => {
            return Err(NotRebuilt::Damaged("the physical volume is larger than its partition"));
        }
        stated => stated.unwrap_or(bytes),
    };
    Ok(Label { uuid, bytes, data, areas: core::iter::once(AREA as u64..data).collect() })
}

/// Label, header of the metadata area and text.
fn front(label: &Label, text: &[u8]) -> Result<Vec<u8>, NotRebuilt> {
    let area = label.data - AREA as u64;
    // A ring has room for the text and the next one, or LVM2 cannot change the group.
    if text.len() as u64 > MAX_TEXT.min((area - AREA_HEADER) / 2) {
        return Err(NotRebuilt::Unsupported(
            "its text is longer than what the physical volume has room for".to_owned(),
        ));
    }
    let end = (AREA as u64 + AREA_HEADER + text.len() as u64).next_multiple_of(SECTOR as u64);
    let mut front = vec![0; usize::try_from(end.max(FRONT.min(label.data))).unwrap_or(0)];
    let sector = &mut front[SECTOR..2 * SECTOR];
    sector[..8].copy_from_slice(ID);
    sector[8..16].copy_from_slice(&1_u64.to_le_bytes());
    sector[20..24].copy_from_slice(&32_u32.to_le_bytes());
    sector[24..32].copy_from_slice(TYPE);
    sector[32..64].copy_from_slice(&label.uuid);
    // One place of data, which goes to the end, and one of metadata; zeros end each list.
    let numbers = [label.bytes, label.data, 0, 0, 0, AREA as u64, area, 0, 0];
    let extension = 64 + size_of_val(&numbers);
    put_numbers(&mut sector[64..], &numbers);
    sector[extension..extension + 4].copy_from_slice(&EXTENSION.to_le_bytes());
    sector[extension + 4..extension + 8].copy_from_slice(&IN_USE.to_le_bytes());
    let checked = sum(&sector[20..]);
    sector[16..20].copy_from_slice(&checked.to_le_bytes());
    // The header of an area is one sector.
    let (header, ring) = front[AREA..].split_at_mut(SECTOR);
    header[4..20].copy_from_slice(AREA_MAGIC);
    header[20..24].copy_from_slice(&1_u32.to_le_bytes());
    put_numbers(&mut header[24..], &[AREA as u64, area, AREA_HEADER, text.len() as u64, u64::from(sum(text))]);
    let checked = sum(&header[4..]);
    header[..4].copy_from_slice(&checked.to_le_bytes());
    ring[..text.len()].copy_from_slice(text);
    Ok(front)
}

fn put_numbers(out: &mut [u8], numbers: &[u64]) {
    for (place, number) in out.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}
