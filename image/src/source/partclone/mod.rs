//! partclone images, versions 1 and 2: a header, a map of the used blocks of one file system, and those blocks one after the other.
//!
//! They are read from the front to the end, packed or not, as `image create` reads a disk: nothing is unpacked into a file. What
//! the map calls unused is unused in the image; the file system itself is not looked at.
//!
//! Memory: 16 bytes for each run of used blocks, at most 32 MiB, 16 for each gap, at most 16 MiB, and what unpacks ([`packed`]).

mod data;
mod header;
mod map;
mod sums;

use super::folder::VolumeImage;
use super::parted::{Forward, PartedDisk, Volume};
use super::pieces::Pieces;
use super::tables::{SavedPartition, SavedTable};
use super::{DiskSource, ImportFault, Opening, RawDisk, packed};
use crate::error::{ImageError, Operation};
use core::ops::Range;
pub(super) use header::{Header, MAGIC};
use map::Map;
use std::io::{self, Read};

pub(super) const NAME: &str = "partclone";

/// The sector of a disk that no table says anything about.
const SECTOR: u32 = 512;
/// No larger file is read as a partition table.
const MAX_TABLE: u64 = 2 << 20;

/// Whether a file with this front is one.
pub(super) fn probe(head: &[u8], _tail: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// The used bytes and the size of the file system in an image that begins so, if it can be one.
#[cfg(any(fuzzing, test))]
pub(crate) fn front(mut bytes: &[u8]) -> Option<(Vec<Range<u64>>, u64)> {
    let header = Header::read(&mut bytes).ok()?;
    let map = Map::read(&header, &mut bytes).ok()?;
    Some((map.runs().to_vec(), header.blocks * u64::from(header.block)))
}

/// Opens the disk that the partition in `file` is of: the partition alone, or with the table that was given.
pub(super) fn open(file: RawDisk, opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let path = file.path().to_owned();
    let refused = |fault| ImageError::Import { path: path.clone(), format: NAME, fault };
    let image = Image::open(Pieces::of(core::slice::from_ref(&path))?).map_err(refused)?;
    if image.is_raw() && opening.table.is_none() {
        // Whoever saved a whole disk this way has a table and file systems in it.
        return packed::spool(file, NAME, &mut image.as_read().map_err(refused)?, opening);
    }
    let Some(table_file) = opening.table else {
        let bytes = image.bytes().next_multiple_of(SECTOR.into());
        let mut disk = PartedDisk::new(&path, NAME, (bytes, SECTOR), Pieces::of(&[])?);
        disk.notes.push(format!("the disk is this one {} without a partition table", image.header.file_system));
        image.put_into(&mut disk, 0..bytes);
        return disk.complete();
    };
    let files = Pieces::of(&[table_file.to_owned()])?;
    let read = files.head(MAX_TABLE).map_err(ImageError::io(Operation::Read, table_file, None))?;
    let table = SavedTable::of_file(&read);
    let table = table.map_err(|fault| ImageError::Import { path: table_file.to_owned(), format: "table", fault })?;
    let place = partition_of(&table, &image, opening.partition).map_err(refused)?;
    let mut disk = PartedDisk::new(&path, NAME, (table.disk_bytes, table.sector), files);
    table.put_into(&mut disk);
    let others = table.partitions.iter().filter(|other| other.place != place);
    for other in others {
        disk.notes.push(format!("partition {} of the table is empty: its content is not in this file", other.number));
        disk.describe(other.place.clone(), "");
    }
    image.put_into(&mut disk, place);
    disk.complete()
}

/// The place of the partition that `image` is of: the one that was asked for, the only one of about its size, or the only one with
/// so much room.
fn partition_of(table: &SavedTable, image: &Image, asked: Option<u32>) -> Result<Range<u64>, ImportFault> {
    let bytes = image.bytes();
    let len = |partition: &&SavedPartition| partition.place.end - partition.place.start;
    let roomy: Vec<_> = table.partitions.iter().filter(|partition| len(partition) >= bytes).collect();
    // A file system may leave less than one of its blocks, or of the steps that partitions are made in.
    let equal: Vec<_> = roomy.iter().copied().filter(|partition| len(partition) - bytes < 1 << 20).collect();
    let found = match (asked, &equal[..], &roomy[..]) {
        (Some(asked), _, _) => roomy.iter().copied().find(|partition| partition.number == asked),
        (None, [one], _) | (None, _, [one]) => Some(*one),
        _ => None,
    };
    let fits = || roomy.iter().map(|partition| partition.number).collect();
    found.map(|partition| partition.place.clone()).ok_or_else(|| ImportFault::Partition { asked, bytes, fits: fits() })
}

/// An image of one file system.
#[derive(Debug)]
pub(super) struct Image {
    /// The file, or the pieces of it.
    pieces: Pieces,
    pub(super) header: Header,
    map: Map,
    /// Where NTFS has a copy of its first sector, which no image holds: its place on the volume and its bytes.
    pub(super) last_sector: Option<(u64, Vec<u8>)>,
}

impl Image {
    /// Reads header and map, and the first sector of an NTFS.
    pub(super) fn open(pieces: Pieces) -> Result<Self, ImportFault> {
        let mut input = packed::unpacked(&pieces)?;
        let header = Header::read(&mut input)?;
        let map = Map::read(&header, &mut input)?;
        let mut image = Self { pieces, header, map, last_sector: None };
        if image.header.file_system == "NTFS" {
            image.last_sector = image.backup_boot_sector(input)?;
        }
        Ok(image)
    }

    /// The size of the partition that it was made of, or at least that of the file system.
    pub(super) fn bytes(&self) -> u64 {
        self.header.device_bytes.max(self.header.blocks * u64::from(self.header.block))
    }

    /// NTFS keeps a copy of sector 0 behind its last cluster (at `total sectors`, byte 40).
    fn backup_boot_sector(&self, input: Box<dyn Read + Send>) -> Result<Option<(u64, Vec<u8>)>, ImportFault> {
        if self.map.runs().first().is_none_or(|first| first.start != 0) {
            return Ok(None);
        }
        let mut boot = vec![0; 512];
        self.data(input)?.read(0, &mut boot)?;
        let sector = u64::from(super::bytes::le16(&boot, 11));
        let at = super::bytes::le64(&boot, 40).checked_mul(sector);
        let clusters_end = self.header.blocks * u64::from(self.header.block);
        let fits = |at: &u64| sector == 512 && *at >= clusters_end && *at + 512 <= self.bytes();
        Ok(at.filter(fits).map(|at| (at, boot)))
    }

    /// Whether it is of bytes that nobody looked into.
    fn is_raw(&self) -> bool {
        self.header.file_system == "raw"
    }

    /// All bytes of a raw image.
    fn as_read(&self) -> Result<AsRead, ImportFault> {
        Ok(AsRead { at: 0, end: self.map.runs().last().map_or(0, |run| run.end), data: self.forward()? })
    }

    /// The file system, to be put into something that has room for it.
    pub(super) fn into_volume(mut self) -> VolumeImage {
        let last_sector = self.last_sector.take();
        VolumeImage { what: self.header.file_system.clone(), volume: Box::new(self), last_sector }
    }

    /// Puts the file system into the partition `place` of a disk, which has room for it.
    fn put_into(self, disk: &mut PartedDisk, place: Range<u64>) {
        self.into_volume().put_into(disk, place);
    }

    fn data(&self, input: Box<dyn Read + Send>) -> Result<data::Data, ImportFault> {
        data::Data::new(input, &self.header, &self.map)
    }
}

/// The bytes of a raw image, all of which are used.
struct AsRead {
    at: u64,
    end: u64,
    data: Box<dyn Forward>,
}

impl Read for AsRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if len > 0 {
            self.data.read(self.at, &mut buffer[..len])?;
        }
        self.at += len as u64;
        Ok(len)
    }
}

impl Volume for Image {
    fn used(&self) -> &[Range<u64>] {
        self.map.runs()
    }

    fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    fn format(&self) -> &'static str {
        NAME
    }

    fn forward(&self) -> Result<Box<dyn Forward>, ImportFault> {
        let mut input = packed::unpacked(&self.pieces)?;
        let skip = self.header.len() + self.map.stored_bytes();
        let skipped = io::copy(&mut (&mut input).take(skip), &mut io::sink());
        match skipped {
            Ok(len) if len == skip => Ok(Box::new(self.data(input)?)),
            Ok(len) => Err(ImportFault::Cut { what: "map of used blocks", offset: len }),
            Err(error) => Err(ImportFault::Stream { error }),
        }
    }
}
