//! VMDK, as VMware and QEMU write it ("Virtual Disk Format 5.0"): a descriptor of text, beside its extents or inside the only
//! one; extents are flat, sparse (two levels of tables), or sparse and packed (streamOptimized).
//!
//! Memory: the first table of each sparse extent (at most 32 MiB in all), and second ones of at most 1 MiB.

mod descriptor;
mod sparse;

use super::fault::CONVERT;
use super::mapped::{Layout, MappedDisk, Packed, Piece};
use super::{DiskSource, ImportFault, Opening, RawDisk};
use crate::error::ImageError;
use core::ops::Range;
use descriptor::{Descriptor, Kind, Row};
use sparse::Sparse;
use std::collections::HashSet;
use std::path::PathBuf;

pub(super) const NAME: &str = "VMDK";

const SECTOR: u64 = 512;

/// Whether a file with this front is one.
pub(super) fn probe(head: &[u8], _tail: &[u8]) -> bool {
    head.starts_with(sparse::MAGIC) || head.starts_with(descriptor::FIRST_LINE) || head.starts_with(b"COWD")
}

/// Opens the disk that `file` holds or describes.
pub(super) fn open(file: RawDisk, _opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let path: PathBuf = file.path().to_owned();
    let refused = |fault| ImageError::Import { path: path.clone(), format: NAME, fault };
    let head = super::bytes::read_to_end(&file, "header", 0, 512).map_err(refused)?;
    let disk = match &head {
        head if !probe(head, &[]) => Err(ImportFault::Damaged { what: "header", offset: 0 }),
        head if head.starts_with(b"COWD") => {
            Err(ImportFault::Unsupported { what: "an extent of an old ESX server", remedy: CONVERT })
        }
        head if head.starts_with(sparse::MAGIC) => one_file(file),
        _ => described(file),
    };
    Ok(Box::new(disk.map_err(refused)?))
}

/// A disk in one sparse extent, which has its descriptor inside.
fn one_file(file: RawDisk) -> Result<MappedDisk<Extents>, ImportFault> {
    let mut room = sparse::MAX_GD;
    let extent = Sparse::open(&file, 0, &mut room)?;
    // The extents of a disk in several files have no descriptor inside, or a blank one.
    match extent.descriptor(&file)? {
        Some(descriptor) if descriptor.extents.len() < 2 => descriptor.check()?,
        _ => {
            let what = "one extent of a disk in several files";
            return Err(ImportFault::Unsupported { what, remedy: "give the small .vmdk that names all of them" });
        }
    }
    let bytes = extent.bytes();
    Ok(MappedDisk::new(NAME, bytes, vec![file], Extents(vec![Extent { end: bytes, what: What::Sparse(extent) }])))
}

/// A disk whose extents are files beside the descriptor.
fn described(file: RawDisk) -> Result<MappedDisk<Extents>, ImportFault> {
    let descriptor = Descriptor::read(&file, 0, file.bytes())?;
    descriptor.check()?;
    let (mut extents, mut end, mut room) = (Vec::new(), 0_u64, sparse::MAX_GD);
    let (mut files, mut flat, mut sparse_names) = (vec![file], Vec::new(), HashSet::new());
    for row in &descriptor.extents {
        let start = end;
        let bytes = row.sectors.checked_mul(SECTOR).filter(|bytes| *bytes > 0);
        end = bytes
            .and_then(|bytes| end.checked_add(bytes))
            .filter(|end| *end <= 1 << 62)
            .ok_or(ImportFault::Damaged { what: "size of an extent", offset: row.at })?;
        let named = |why| ImportFault::Named { what: "extent", name: row.name.clone(), why };
        let beside = || {
            // The name comes from whoever made the descriptor, and is that of a file beside it.
            if row.name.contains('/') || matches!(row.name.as_str(), "" | "." | "..") {
                return Err(named("lies outside the folder of the descriptor"));
            }
            let file = RawDisk::open(&files[0].path().with_file_name(&row.name)).map_err(|_| named("is not there"))?;
            if file.is_device() || !is_beside(&files[0], &file) {
                return Err(named("lies outside the folder of the descriptor"));
            }
            Ok(file)
        };
        let what = match row.kind {
            Kind::Zero => What::Zero,
            Kind::Flat => {
                let (file, offset) = (beside()?, row.offset.checked_mul(SECTOR));
                let has = offset.and_then(|offset| offset.checked_add(end - start));
                let (Some(offset), Some(has)) = (offset, has.filter(|has| *has <= file.bytes())) else {
                    return Err(named("is shorter than the descriptor says"));
                };
                flat.push((row, offset..has, file.bytes()));
                files.push(file);
                What::Flat { file: files.len() - 1, offset }
            }
            Kind::Sparse => {
                let file = beside()?;
                if !sparse_names.insert(&row.name) {
                    return Err(named("is the file of two extents"));
                }
                let extent = Sparse::open(&file, files.len(), &mut room)?;
                if extent.bytes() != end - start {
                    return Err(named("has another size than the descriptor says"));
                }
                files.push(file);
                What::Sparse(extent)
            }
        };
        extents.push(Extent { end, what });
    }
    flat_files_are_whole(flat)?;
    Ok(MappedDisk::new(NAME, end, files, Extents(extents)))
}

/// A part of a file that is a flat extent, and the length of the file.
type FlatPart<'a> = (&'a Row, Range<u64>, u64);

/// Flat extents have no header that would say what they are of, and descriptors have no checksum: so no file is a part of the disk twice, and none
/// is longer than its extents.
fn flat_files_are_whole(mut parts: Vec<FlatPart<'_>>) -> Result<(), ImportFault> {
    parts.sort_by(|(one, one_part, _), (other, other_part, _)| {
        (&one.name, one_part.start).cmp(&(&other.name, other_part.start))
    });
    for (index, (row, part, bytes)) in parts.iter().enumerate() {
        let named = |why| Err(ImportFault::Named { what: "extent", name: row.name.clone(), why });
        match parts.get(index + 1).filter(|(next, ..)| next.name == row.name) {
            Some((_, next, _)) if next.start < part.end => return named("is a part of the disk twice"),
            None if part.end != *bytes => return named("is longer than the descriptor says"),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file lies in the folder of another one, also when links are followed.
fn is_beside(descriptor: &RawDisk, file: &RawDisk) -> bool {
    let folder = |file: &RawDisk| file.path().canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned()));
    matches!((folder(descriptor), folder(file)), (Some(one), Some(other)) if one == other)
}

#[derive(Debug)]
enum What {
    Zero,
    Flat { file: usize, offset: u64 },
    Sparse(Sparse),
}

/// A part of the disk, and where on it that ends.
#[derive(Debug)]
struct Extent {
    end: u64,
    what: What,
}

/// The extents, in the order of the disk.
#[derive(Debug)]
struct Extents(Vec<Extent>);

impl Extents {
    /// The extent that has `at`, and its start on the disk.
    fn find(&self, at: u64) -> Option<(u64, &Extent)> {
        let number = self.0.partition_point(|extent| extent.end <= at);
        let start = number.checked_sub(1).map_or(0, |before| self.0[before].end);
        Some((start, self.0.get(number)?))
    }
}

impl Layout for Extents {
    fn piece(&self, files: &[RawDisk], at: u64) -> Result<(Piece, u64), ImportFault> {
        let Some((start, extent)) = self.find(at) else {
            return Err(ImportFault::Damaged { what: "list of extents", offset: at });
        };
        Ok(match &extent.what {
            What::Zero => (Piece::Zeros, extent.end),
            What::Flat { file, offset } => (Piece::Data { file: *file, offset: offset + (at - start) }, extent.end),
            What::Sparse(sparse) => {
                let (piece, end) = sparse.piece(files, start, at - start)?;
                (piece, (start + end).min(extent.end))
            }
        })
    }

    fn unpack(&self, files: &[RawDisk], unit: Packed, out: &mut [u8]) -> Result<(), ImportFault> {
        match self.find(unit.start) {
            Some((start, Extent { what: What::Sparse(sparse), .. })) => {
                sparse.unpack(files, unit.start - start, unit, out)
            }
            _ => Err(ImportFault::Unpack { what: "grain", offset: unit.offset }),
        }
    }
}
