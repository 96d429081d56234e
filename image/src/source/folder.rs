//! Folders that other programs make of a disk: which of them one is, and what their formats share.

use super::parted::{Forward, PartedDisk, Volume};
use super::pieces::Pieces;
use super::{DiskSource, ImportFault, Opening, clonezilla, fog, packed, partclone};
use crate::error::{ImageError, Operation};
use core::ops::Range;
use slidecast_proto::hex;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// No file about a disk, as a partition table or a list, is larger.
const MAX_SMALL: u64 = 4 << 20;
/// No folder has more files.
const MAX_NAMES: usize = 1 << 18;

/// Opens a folder of one program as the disk that it holds.
type Open = fn(&Folder, &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError>;

/// How a disk is read out of the folders of one program.
pub(super) struct Format {
    /// What `--format` calls it.
    pub(super) name: &'static str,
    probe: fn(&Folder) -> bool,
    open: Open,
}

pub(super) const FORMATS: &[Format] = &[
    Format { name: "clonezilla", probe: clonezilla::probe, open: clonezilla::open },
    Format { name: "fog", probe: fog::probe, open: fog::open },
];

/// Opens the disk in the folder at `path`.
pub(super) fn open(
    path: &Path,
    format: Option<&str>,
    opening: &Opening<'_>,
) -> Result<Box<dyn DiskSource>, ImageError> {
    let refused = |fault| Err(ImageError::Import { path: path.to_owned(), format: "folder", fault });
    if let Some(asked) = opening.snapshot {
        return refused(ImportFault::NoSnapshot { asked: asked.to_owned(), has: Vec::new() });
    }
    if opening.table.is_some() {
        return refused(ImportFault::NoTable);
    }
    let folder = Folder::read(path)?;
    let row = match format {
        Some(name) => FORMATS.iter().find(|format| format.name == name),
        None => FORMATS.iter().find(|format| (format.probe)(&folder)),
    };
    let Some(row) = row else {
        return refused(ImportFault::NoFolder);
    };
    (row.open)(&folder, opening)
}

/// A folder and the names in it.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Sorted.
    pub(super) names: Vec<String>,
}

impl Folder {
    fn read(path: &Path) -> Result<Self, ImageError> {
        let read = |error| ImageError::io(Operation::Read, path, None)(error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(ImageError::io(Operation::Open, path, None))?.take(MAX_NAMES) {
            // A name that is no text is none of a file that is looked for.
            names.extend(entry.map_err(read)?.file_name().into_string());
        }
        names.sort();
        Ok(Self { path: path.to_owned(), names })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    pub(super) fn paths(&self, names: &[String]) -> Vec<PathBuf> {
        names.iter().map(|name| self.path.join(name)).collect()
    }

    /// A small file; `None` if there is none of that name.
    pub(super) fn small(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        if !self.has(name) {
            return Ok(None);
        }
        let path = self.path.join(name);
        let mut content = Vec::new();
        let file = File::open(&path).map_err(ImageError::io(Operation::Open, &path, None))?;
        let read = file.take(MAX_SMALL).read_to_end(&mut content);
        read.map_err(ImageError::io(Operation::Read, &path, None))?;
        Ok(Some(content))
    }

    /// A small file of text; empty if there is none of that name.
    pub(super) fn text(&self, name: &str) -> Result<String, ImageError> {
        Ok(String::from_utf8_lossy(&self.small(name)?.unwrap_or_default()).into_owned())
    }

    /// The one disk of `disks` that was asked for, or that there is.
    pub(super) fn one_of(&self, disks: &[String], asked: Option<&str>) -> Result<String, ImportFault> {
        match (asked, disks) {
            (Some(asked), _) if disks.iter().any(|disk| disk == asked) => Ok(asked.to_owned()),
            (None, [disk]) => Ok(disk.clone()),
            _ => Err(ImportFault::Disks { asked: asked.map(str::to_owned), has: disks.to_vec() }),
        }
    }
}

/// Names of images that are not read, and how they begin.
const OTHERS: &[(&str, &[u8])] =
    &[("an image of ntfsclone", b"\0ntfsclone-image"), ("an image of partimage", b"PaRtImAgE-VoLuMe")];

/// Puts the image in `pieces` into the partition `place` of a disk. One without a header is the bytes of the partition, where
/// `is_plain` says that it may be.
pub(super) fn put_image(
    disk: &mut PartedDisk,
    place: Range<u64>,
    pieces: Pieces,
    is_plain: bool,
) -> Result<(), ImageError> {
    VolumeImage::open(pieces, place.end - place.start, is_plain)?.put_into(disk, place);
    Ok(())
}

/// The image of a partition or of a logical volume.
pub(super) struct VolumeImage {
    /// What is in it.
    pub(super) what: String,
    pub(super) volume: Box<dyn Volume>,
    /// Bytes that belong somewhere in it, and that the image does not hold.
    pub(super) last_sector: Option<(u64, Vec<u8>)>,
}

impl VolumeImage {
    /// Opens the image in `pieces`, which must be of no more than `bytes` bytes.
    pub(super) fn open(pieces: Pieces, bytes: u64, is_plain: bool) -> Result<Self, ImageError> {
        let path = pieces.path().to_owned();
        let refused = |fault| ImageError::Import { path: path.clone(), format: "partition image", fault };
        let mut head = Vec::new();
        let input = packed::unpacked(&pieces).map_err(refused)?;
        input.take(32).read_to_end(&mut head).map_err(|error| refused(ImportFault::Stream { error }))?;
        if let Some((what, _)) = OTHERS.iter().find(|(_, magic)| head.starts_with(magic)) {
            let remedy = "restore it with the program that made it, and image the disk";
            return Err(refused(ImportFault::Unsupported { what, remedy }));
        }
        if partclone::probe(&head, &[]) {
            let refused = |fault| ImageError::Import { path: path.clone(), format: partclone::NAME, fault };
            let image = partclone::Image::open(pieces).map_err(refused)?;
            if image.bytes() > bytes {
                return Err(refused(ImportFault::Partition { asked: None, bytes: image.bytes(), fits: Vec::new() }));
            }
            return Ok(image.into_volume());
        }
        if !is_plain {
            return Err(refused(ImportFault::Damaged { what: "header", offset: 0 }));
        }
        let volume = Box::new(Plain { pieces, used: 0..bytes });
        Ok(Self { what: "raw".to_owned(), volume, last_sector: None })
    }

    /// Puts it into the partition `place` of a disk, which has room for it.
    pub(super) fn put_into(self, disk: &mut PartedDisk, place: Range<u64>) {
        if let Some((at, bytes)) = self.last_sector {
            disk.put(place.start + at, bytes);
        }
        disk.put_volume(place, &self.what, self.volume);
    }
}

/// The bytes of a partition.
#[derive(Debug)]
struct Plain {
    pieces: Pieces,
    used: Range<u64>,
}

impl Volume for Plain {
    fn used(&self) -> &[Range<u64>] {
        core::slice::from_ref(&self.used)
    }

    fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    fn format(&self) -> &'static str {
        "partition image"
    }

    fn forward(&self) -> Result<Box<dyn Forward>, ImportFault> {
        Ok(Box::new(PlainData { input: packed::unpacked(&self.pieces)?, at: 0, end: self.used.end }))
    }
}

struct PlainData {
    input: Box<dyn Read + Send>,
    at: u64,
    end: u64,
}

impl Forward for PlainData {
    fn at(&self) -> u64 {
        self.at
    }

    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<(), ImportFault> {
        let cut = |offset| ImportFault::Cut { what: "data", offset };
        let skip = at - self.at;
        let stream = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut(at),
            _ => ImportFault::Stream { error },
        };
        if io::copy(&mut (&mut self.input).take(skip), &mut io::sink()).map_err(stream)? < skip {
            return Err(cut(at));
        }
        self.input.read_exact(bytes).map_err(stream)?;
        self.at = at + bytes.len() as u64;
        // What unpacks has its checksum at the end, so the end has to be reached.
        if self.at == self.end && io::copy(&mut (&mut self.input).take(1), &mut io::sink()).map_err(stream)? > 0 {
            return Err(ImportFault::Damaged { what: "end", offset: self.end });
        }
        Ok(())
    }
}

/// What `mkswap` writes to the front of a swap partition of `bytes` bytes: of such, only the identifier and the label are ever saved.
pub(super) fn swap_header(bytes: u64, uuid: &str, label: &str) -> Option<Vec<u8>> {
    const PAGE: usize = 4096;
    let digits: String = uuid.chars().filter(|c| *c != '-').collect();
    let uuid: [u8; 16] = hex::parse(&digits)?;
    let last_page = u32::try_from(bytes / PAGE as u64 - 1).unwrap_or(u32::MAX);
    let mut header = vec![0; PAGE];
    header[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    header[1028..1032].copy_from_slice(&last_page.to_le_bytes());
    header[1036..1052].copy_from_slice(&uuid);
    let label = &label.as_bytes()[..label.len().min(15)];
    header[1052..1052 + label.len()].copy_from_slice(label);
    header[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    Some(header)
}
