//! A folder that FOG made of a disk: `d1.mbr` is the front of the disk up to its first partition, or the backup of sgdisk for a GPT, `d1.partitions`
//! the text of sfdisk, and `d1p1.img` an image of the first partition; the first piece of a split one has no number.
//!
//! Of a resizable image `d1.minimum.partitions` is the table that fits the file systems, which FOG made small before it saved them.

use super::folder::{Folder, put_image, swap_header};
use super::parted::PartedDisk;
use super::pieces::Pieces;
use super::tables::{SavedTable, Script, boot_records, gpt_from_bytes};
use super::{DiskSource, ImportFault, Opening};
use crate::error::ImageError;

pub(super) const NAME: &str = "FOG";

/// Whether a folder is one.
pub(super) fn probe(folder: &Folder) -> bool {
    !disks(folder).is_empty() || is_of_partimage(folder)
}

/// Before version 1.0 FOG used partimage, and files of other names.
fn is_of_partimage(folder: &Folder) -> bool {
    folder.has("sys.img.000") || folder.has("rec.img.000")
}

/// The disks in the folder, as `1`.
fn disks(folder: &Folder) -> Vec<String> {
    let number = |name: &String| {
        let number =
            name.strip_prefix('d')?.strip_suffix(".mbr").or(name.strip_prefix('d')?.strip_suffix(".partitions"))?;
        (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| number.to_owned())
    };
    let mut disks: Vec<_> = folder.names.iter().filter_map(number).collect();
    disks.sort();
    disks.dedup();
    disks
}

/// Opens the disk in a folder.
pub(super) fn open(folder: &Folder, opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let refused = |fault| ImageError::Import { path: folder.path.clone(), format: NAME, fault };
    if is_of_partimage(folder) {
        let remedy = "deploy it with FOG, and capture the machine anew";
        return Err(refused(ImportFault::Unsupported { what: "images of partimage", remedy }));
    }
    let asked = opening.disk.map(|disk| disk.trim_start_matches('d'));
    let number = folder.one_of(&disks(folder), asked).map_err(refused)?;
    let of = |end: &str| format!("d{number}{end}");
    let is_small = folder.has(&of(".minimum.partitions"));
    let text = of(if is_small { ".minimum.partitions" } else { ".partitions" });
    let named = |name: &str, fault| ImageError::Import { path: folder.path.join(name), format: NAME, fault };
    let first = folder.small(&of(".mbr"))?.unwrap_or_default();
    let script = folder.small(&text)?.map(|bytes| Script::parse(&String::from_utf8_lossy(&bytes)));
    let script = script.transpose().map_err(|fault| named(&text, fault))?;
    let is_gpt = first.get(512..520) == Some(&b"EFI PART"[..]);
    let table = match (&script, is_gpt) {
        (script, true) => gpt_from_bytes(&first, script.as_ref().map_or(512, |script| script.sector)),
        (Some(script), false) if script.is_gpt => script.table(),
        (Some(script), false) => boot_records(script, first.get(..512), size(folder, &number)?),
        (None, false) => Err(ImportFault::Named { what: "partition table", name: text.clone(), why: "is missing" }),
    };
    let table = table.map_err(|fault| named(if is_gpt { "d1.mbr" } else { &text }, fault))?;
    let files: Vec<_> = [".mbr", ".size", ".original.swapuuids"].map(of).into_iter().chain([text]).collect();
    let files: Vec<_> = files.into_iter().filter(|name| folder.has(name)).collect();
    let files = Pieces::of(&folder.paths(&files))?;
    let mut disk = PartedDisk::new(&folder.path, NAME, (table.disk_bytes, table.sector), files);
    if is_small {
        disk.notes.push("the image is resizable: its partitions are as small as FOG made them".to_owned());
    } else if !table.is_exact {
        disk.notes.push("the folder does not say how large the disk was: it ends with its last partition".to_owned());
    }
    table.put_into(&mut disk);
    if !is_gpt && first.len() > 512 {
        let start = table.first_taken();
        let end = usize::try_from(start).unwrap_or(usize::MAX).min(first.len()).max(512);
        disk.put(512, first[512..end].to_vec());
    }
    put_partitions(folder, &mut disk, &number, &table)?;
    disk.complete()
}

/// The size of the disk in bytes: `d1.size` has it behind the number of the disk.
fn size(folder: &Folder, number: &str) -> Result<Option<u64>, ImageError> {
    let text = folder.text(&format!("d{number}.size"))?;
    Ok(text.trim().split_once(':').and_then(|(_, bytes)| bytes.trim().parse().ok()))
}

fn put_partitions(folder: &Folder, disk: &mut PartedDisk, number: &str, table: &SavedTable) -> Result<(), ImageError> {
    let refused = |fault| ImageError::Import { path: folder.path.clone(), format: NAME, fault };
    let swaps = folder.text(&format!("d{number}.original.swapuuids"))?;
    for partition in &table.partitions {
        let place = partition.place.clone();
        let name = format!("d{number}p{}.img", partition.number);
        let pieces = pieces_of(folder, &name).map_err(refused)?;
        if !pieces.is_empty() {
            put_image(disk, place, Pieces::of(&folder.paths(&pieces))?, false)?;
            continue;
        }
        let uuid = swaps.lines().find_map(|line| {
            let (device, uuid) = line.split_once(' ')?;
            let digits = device.trim_start_matches(|c: char| !c.is_ascii_digit());
            let last = digits.rsplit(|c: char| !c.is_ascii_digit()).next()?;
            (last.parse() == Ok(partition.number)).then(|| uuid.trim().to_owned())
        });
        if let Some(header) = uuid.and_then(|uuid| swap_header(place.end - place.start, &uuid, "")) {
            disk.put(place.start, header);
            disk.describe(place, "swap");
            continue;
        }
        disk.notes.push(format!("partition {} was not captured: nothing is written to its place", partition.number));
        disk.describe(place, "");
    }
    Ok(())
}

/// The pieces of an image: `NAME` and `NAME.001` on, or `NAME.000` on.
fn pieces_of(folder: &Folder, name: &str) -> Result<Vec<String>, ImportFault> {
    let prefix = format!("{name}.");
    let number = |piece: &String| piece.strip_prefix(&prefix).and_then(|digits| digits.parse::<u32>().ok());
    let mut pieces: Vec<(u32, String)> =
        folder.names.iter().filter_map(|piece| Some((number(piece)?, piece.clone()))).collect();
    if folder.has(name) {
        pieces.push((0, name.to_owned()));
    }
    pieces.sort();
    if let Some((missing, _)) = (0..).zip(&pieces).find(|(expected, (number, _))| expected != number) {
        let name = if missing == 0 { name.to_owned() } else { format!("{name}.{missing:03}") };
        return Err(ImportFault::Named { what: "piece", name, why: "is missing, or there twice" });
    }
    Ok(pieces.into_iter().map(|(_, piece)| piece).collect())
}
