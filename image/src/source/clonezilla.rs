//! A folder that Clonezilla made of a disk: the partition table in several files, and an image of each partition, packed and
//! perhaps split.
//!
//! `parts` has neither swap nor extended partitions, of the boot records of logical partitions only the first is there, and the backup GPT lacks some
//! of its entries: so everything is made out of the text of sfdisk, the backup of sgdisk and the boot sector, and swap anew.

mod lvm;

use super::folder::{Folder, put_image, swap_header};
use super::parted::PartedDisk;
use super::pieces::Pieces;
use super::tables::{SavedTable, Script, boot_records, gpt_from_bytes};
use super::{DiskSource, ImportFault, Opening};
use crate::error::ImageError;
use core::ops::Range;

pub(super) const NAME: &str = "Clonezilla";

const TABLE: &str = "-pt.sf";
/// The endings of packed images.
const PACKED: &[&str] = &["gz", "bz2", "lzo", "lzma", "xz", "lzip", "lz", "lrz", "lz4", "zst", "uncomp"];

/// Whether a folder is one.
pub(super) fn probe(folder: &Folder) -> bool {
    folder.has("clonezilla-img") || folder.has("parts") && !disks(folder).is_empty()
}

/// The disks in the folder.
fn disks(folder: &Folder) -> Vec<String> {
    folder.names.iter().filter_map(|name| name.strip_suffix(TABLE)).map(str::to_owned).collect()
}

/// Opens the disk in a folder.
pub(super) fn open(folder: &Folder, opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let refused = |fault| ImageError::Import { path: folder.path.clone(), format: NAME, fault };
    let name = folder.one_of(&disks(folder), opening.disk).map_err(refused)?;
    let saved = Saved::read(folder, name)?;
    let files = saved.files().into_iter().filter(|name| folder.has(name));
    let files: Vec<_> = files.chain(lvm::files(folder).cloned()).collect();
    let table = &saved.table;
    let files = Pieces::of(&folder.paths(&files))?;
    let mut disk = PartedDisk::new(&folder.path, NAME, (table.disk_bytes, table.sector), files);
    if !table.is_exact {
        disk.notes
            .push(format!("the folder does not say how large {} was: it ends with its last partition", saved.name));
    }
    table.put_into(&mut disk);
    if let Some(hidden) = folder.small(&format!("{}-hidden-data-after-mbr", saved.name))?.filter(|_| !saved.is_gpt) {
        let room = usize::try_from(table.first_taken().saturating_sub(512)).unwrap_or(usize::MAX);
        disk.put(512, hidden[..room.min(hidden.len())].to_vec());
    }
    for partition in &table.partitions {
        let device = saved.device(partition.number);
        saved.put_partition(folder, &mut disk, partition.place.clone(), &device)?;
    }
    disk.complete()
}

/// What a folder says of one disk.
struct Saved {
    name: String,
    script: Script,
    is_gpt: bool,
    table: SavedTable,
    /// The partitions that were saved, by the names of their devices.
    parts: Vec<String>,
}

impl Saved {
    fn read(folder: &Folder, name: String) -> Result<Self, ImageError> {
        let of = |end: &str| format!("{name}{end}");
        let named = |end: &str, fault| ImageError::Import { path: folder.path.join(of(end)), format: NAME, fault };
        let script = Script::parse(&folder.text(&of(TABLE))?).map_err(|fault| named(TABLE, fault))?;
        // Old versions of sfdisk show the protective partition only.
        let is_gpt = script.is_gpt || script.rows.iter().any(|row| row.kind.eq_ignore_ascii_case("ee"));
        let mut table = None;
        for end in ["-gpt.gdisk", "-gpt-1st"] {
            if let Some(bytes) = folder.small(&of(end))?.filter(|_| is_gpt && table.is_none()) {
                table = Some(gpt_from_bytes(&bytes, script.sector).map_err(|fault| named(end, fault))?);
            }
        }
        let table = match table {
            Some(table) => table,
            None if is_gpt => script.table().map_err(|fault| named(TABLE, fault))?,
            None => {
                let first = folder.small(&of("-mbr"))?;
                let size = size_by_parted(&folder.text(&of("-pt.parted"))?, script.sector);
                boot_records(&script, first.as_deref(), size).map_err(|fault| named(TABLE, fault))?
            }
        };
        let parts = folder.text("parts")?.split_whitespace().map(str::to_owned).collect();
        Ok(Self { name, script, is_gpt, table, parts })
    }

    /// The files that say what was on the disk, whether they are there or not.
    fn files(&self) -> Vec<String> {
        let ends = [TABLE, "-gpt.gdisk", "-gpt-1st", "-mbr", "-pt.parted", "-hidden-data-after-mbr"];
        ends.iter().map(|end| format!("{}{end}", self.name)).chain(["parts".to_owned()]).collect()
    }

    /// The name of the device of a partition.
    fn device(&self, number: u32) -> String {
        let row = self.script.rows.iter().find(|row| row.number == number && row.device.starts_with(&self.name));
        row.map_or_else(
            || {
                let p = if self.name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
                format!("{}{p}{number}", self.name)
            },
            |row| row.device.clone(),
        )
    }

    fn put_partition(
        &self,
        folder: &Folder,
        disk: &mut PartedDisk,
        place: Range<u64>,
        device: &str,
    ) -> Result<(), ImageError> {
        let refused = |fault| ImageError::Import { path: folder.path.clone(), format: NAME, fault };
        if let Some((base, names)) = pieces_of(folder, device).map_err(refused)? {
            let pieces = Pieces::of(&folder.paths(&names))?;
            return put_image(disk, place, pieces, is_plain(&base, device));
        }
        if lvm::put_group(folder, disk, &place, device)? {
            return Ok(());
        }
        if is_opened(folder, device)? {
            let what = "an opened LUKS container (luks-dev.list)";
            let remedy = "restore it with Clonezilla, and image the disk";
            return Err(refused(ImportFault::Unsupported { what, remedy }));
        }
        if let Some(header) = saved_swap(folder, device, place.end - place.start)? {
            disk.put(place.start, header);
            disk.describe(place, "swap");
            return Ok(());
        }
        if self.parts.iter().any(|part| part == device) {
            let why = "has no image in the folder";
            return Err(refused(ImportFault::Named { what: "partition", name: device.to_owned(), why }));
        }
        disk.notes.push(format!("{device} was not saved: nothing is written to its place"));
        disk.describe(place, "");
        Ok(())
    }
}

/// The header of a swap area of `bytes` bytes, if the folder has one for the device.
fn saved_swap(folder: &Folder, device: &str, bytes: u64) -> Result<Option<Vec<u8>>, ImageError> {
    let swap = folder.text(&format!("swappt-{device}.info"))?;
    let value = |key: &str| {
        let line = swap.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim().trim_matches('"').to_owned()
    };
    Ok(if swap.is_empty() { None } else { swap_header(bytes, &value("UUID"), &value("LABEL")) })
}

/// Whether a LUKS container was opened on a device: then what is inside was saved, and could only be encrypted anew with its key.
fn is_opened(folder: &Folder, device: &str) -> Result<bool, ImageError> {
    let device = format!("/dev/{device}");
    Ok(folder.text("luks-dev.list")?.split_whitespace().any(|word| word == device))
}

/// The size of the disk in bytes that the text of parted states in sectors.
fn size_by_parted(text: &str, sector: u32) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("Disk /"))?;
    let sectors: u64 = line.rsplit_once(": ")?.1.trim().strip_suffix('s')?.parse().ok()?;
    sectors.checked_mul(sector.into())
}

/// Whether the image `base` of a device is its plain bytes.
fn is_plain(base: &str, device: &str) -> bool {
    base.strip_prefix(device).is_some_and(|kind| kind.starts_with(".dd-"))
}

/// The name of the image of a partition without the end of its first piece, and the names of all pieces; `None` if there is no image.
fn pieces_of(folder: &Folder, device: &str) -> Result<Option<(String, Vec<String>)>, ImportFault> {
    let prefix = format!("{device}.");
    let mut found: Option<(String, Vec<String>)> = None;
    for name in &folder.names {
        let Some(rest) = name.strip_prefix(&prefix).and_then(image_of) else { continue };
        let base = &name[..prefix.len() + rest.len()];
        match &mut found {
            Some((known, names)) if known == base => names.push(name.clone()),
            Some((known, _)) => {
                let why = "is not the only image of its partition; move one of them away";
                return Err(ImportFault::Named { what: "image", name: format!("{known}, {base}"), why });
            }
            None => found = Some((base.to_owned(), vec![name.clone()])),
        }
    }
    let Some((base, mut names)) = found else { return Ok(None) };
    names.sort_by_key(|name| (name.len(), name.clone()));
    let is_split = names.iter().any(|name| *name != base);
    if is_split {
        let mut expected = "aa".to_owned();
        for name in &names {
            let piece = format!("{base}.{expected}");
            if *name == base {
                let why = "is there as a whole and in pieces; move one of them away";
                return Err(ImportFault::Named { what: "image", name: base, why });
            }
            if *name != piece {
                return Err(ImportFault::Named { what: "piece", name: piece, why: "is missing" });
            }
            expected = next_end(&expected);
        }
    }
    Ok(Some((base, names)))
}

/// The part of the name of a file, behind the name of its device, that all pieces of an image share; `None` if it is none of an image.
fn image_of(name: &str) -> Option<&str> {
    let at = ["-ptcl-img", "-img"].iter().find_map(|mark| Some(name.find(mark)? + mark.len()))?;
    // Names of logical volumes may have dots, but that of a file system has none.
    let (_, rest) = name.split_at_checked(at).filter(|(kind, _)| !kind.contains('.'))?;
    let mut ends = rest.split('.').skip(1);
    let mut base = at;
    let mut end = ends.next();
    if let Some(packed) = end.filter(|end| PACKED.contains(end)) {
        base += 1 + packed.len();
        end = ends.next();
    }
    let is_piece = |end: &str| end.len() >= 2 && end.bytes().all(|byte| byte.is_ascii_lowercase());
    let known = (rest.is_empty() || rest.starts_with('.')) && end.is_none_or(is_piece) && ends.next().is_none();
    known.then(|| &name[..base])
}

/// What `split` writes after that: `az` is followed by `ba`, and from `yz` on there are more letters (`zaaa`).
fn next_end(end: &str) -> String {
    let mut bytes = end.as_bytes().to_vec();
    for byte in bytes.iter_mut().rev() {
        if *byte < b'z' {
            *byte += 1;
            break;
        }
        *byte = b'a';
    }
    if bytes.len().is_multiple_of(2)
        && bytes[bytes.len() / 2 - 1] == b'z'
        && bytes[bytes.len() / 2..].iter().all(|byte| *byte == b'a')
    {
        bytes.extend(b"aa");
    }
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_told_from_others_and_from_their_pieces() {
        for (name, base) in [
            ("ext4-ptcl-img.gz.aa", Some("ext4-ptcl-img.gz")),
            ("ext4-ptcl-img.xz", Some("ext4-ptcl-img.xz")),
            ("ext4-ptcl-img.zst.abc", Some("ext4-ptcl-img.zst")),
            ("ext4-ptcl-img.aa", Some("ext4-ptcl-img")),
            ("dd-img", Some("dd-img")),
            ("ntfs-img.aa", Some("ntfs-img")),
            ("ext4-ptcl-img.gz.md5", None),
            ("ext4-ptcl-imgs", None),
            ("old.ext4-ptcl-img.gz", None),
            ("info", None),
        ] {
            assert_eq!(image_of(name), base, "{name}");
        }
    }

    #[test]
    fn pieces_are_named_as_split_names_them() {
        for (one, next) in [("aa", "ab"), ("az", "ba"), ("yz", "zaaa"), ("zaaz", "zaba"), ("zyzz", "zzaaaa")] {
            assert_eq!(next_end(one), next);
        }
    }

    #[test]
    fn the_size_of_a_disk_is_what_parted_says_in_sectors() {
        assert_eq!(size_by_parted("Model: X\nDisk /dev/sda: 409600s\n", 512), Some(209_715_200));
        assert_eq!(size_by_parted("Disk /dev/sda: 200MB\n", 512), None);
        assert_eq!(size_by_parted("Disk /dev/sda: 18446744073709551615s\n", 512), None);
    }
}
