//! A volume group of LVM2 in a folder of Clonezilla: of the physical volume nothing is saved but the text of the group, and each logical
//! volume has an image of its own. `lvm_vg_dev.list` says which partition is in which group, `lvm_logv.list` which logical volumes there were.

use super::super::ImportFault;
use super::super::folder::{Folder, VolumeImage};
use super::super::parted::PartedDisk;
use super::super::pieces::Pieces;
use super::{NAME, is_plain, pieces_of, saved_swap};
use crate::error::ImageError;
use crate::signatures;
use crate::used::{RebuiltVolume, rebuild_lvm};
use core::ops::Range;

const DEVICES: &str = "lvm_vg_dev.list";
const VOLUMES: &str = "lvm_logv.list";

/// The files about volume groups.
pub(super) fn files(folder: &Folder) -> impl Iterator<Item = &String> {
    folder.names.iter().filter(|name| name.starts_with("lvm_"))
}

/// Puts the physical volume that the partition `place` was into the disk; `false` if it was none.
pub(super) fn put_group(
    folder: &Folder,
    disk: &mut PartedDisk,
    place: &Range<u64>,
    device: &str,
) -> Result<bool, ImageError> {
    let refused = |fault| ImageError::Import { path: folder.path.clone(), format: NAME, fault };
    let list = folder.text(DEVICES)?;
    let path = format!("/dev/{device}");
    let row = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let Some(row) = row.into_iter().find(|row| row.get(1) == Some(&path.as_str())) else { return Ok(false) };
    let group = row[0];
    let Some(uuid) = row.get(2).filter(|_| !group.starts_with('/')) else {
        let what = "an LVM physical volume that is in no volume group (lvm_vg_dev.list)";
        let remedy = "Clonezilla saves nothing of it; save the disk in another way";
        return Err(refused(ImportFault::Unsupported { what, remedy }));
    };
    let name = format!("lvm_{group}.conf");
    let Some(text) = folder.small(&name)? else {
        return Err(refused(ImportFault::Named { what: "volume group file", name, why: "is missing" }));
    };
    let rebuilt = rebuild_lvm(&text, group, uuid, place.end - place.start).map_err(|why| {
        let fault = ImportFault::Group { name: group.to_owned(), why: why.to_string() };
        ImageError::Import { path: folder.path.join(&name), format: NAME, fault }
    })?;
    disk.put(place.start, rebuilt.front);
    for volume in rebuilt.volumes {
        put_volume(folder, disk, place.start, group, volume)?;
    }
    disk.describe(place.clone(), "LVM2");
    Ok(true)
}

/// Where `range` of a volume in `places` lies.
fn outside(places: &[Range<u64>], range: &Range<u64>) -> Vec<Range<u64>> {
    let (mut at, mut found) = (0, Vec::new());
    for place in places {
        let len = place.end - place.start;
        let (start, end) = (range.start.clamp(at, at + len), range.end.clamp(at, at + len));
        if start < end {
            found.push(place.start + (start - at)..place.start + (end - at));
        }
        at += len;
    }
    found
}

fn put_volume(
    folder: &Folder,
    disk: &mut PartedDisk,
    start: u64,
    group: &str,
    volume: RebuiltVolume,
) -> Result<(), ImageError> {
    let refused = |fault| ImageError::Import { path: folder.path.clone(), format: NAME, fault };
    let places: Vec<_> = volume.places.iter().map(|place| start + place.start..start + place.end).collect();
    let bytes = places.iter().map(|place| place.end - place.start).sum();
    for range in signatures::places(0, bytes) {
        outside(&places, &range).into_iter().for_each(|range| disk.blank(range));
    }
    let put = |disk: &mut PartedDisk, at: u64, content: Vec<u8>| {
        let mut rest = content.as_slice();
        for place in outside(&places, &(at..at + content.len() as u64)) {
            let (now, later) = rest.split_at(usize::try_from(place.end - place.start).unwrap_or(rest.len()));
            disk.put(place.start, now.to_vec());
            rest = later;
        }
    };
    let device = format!("{group}-{}", volume.name);
    if let Some((base, names)) = pieces_of(folder, &device).map_err(refused)? {
        let pieces = Pieces::of(&folder.paths(&names))?;
        let image = VolumeImage::open(pieces, bytes, is_plain(&base, &device))?;
        if let Some((at, content)) = image.last_sector {
            put(disk, at, content);
        }
        disk.put_inner_volume(&places, image.volume);
        return Ok(());
    }
    if let Some(header) = saved_swap(folder, &device, bytes)? {
        put(disk, 0, header);
        return Ok(());
    }
    let path = format!("/dev/{group}/{}", volume.name);
    let is_listed = folder.text(VOLUMES)?.lines().any(|line| line.split_whitespace().next() == Some(path.as_str()));
    if is_listed {
        let why = "has no image in the folder";
        return Err(refused(ImportFault::Named { what: "logical volume", name: path, why }));
    }
    disk.notes.push(format!("{path} was not saved: nothing is written to its place"));
    Ok(())
}
