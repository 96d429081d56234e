//! qcow2, version 2 and 3 (`docs/interop/qcow2.txt` of QEMU): two levels of tables map clusters of the disk to clusters of the
//! file; what is in no table is in the backing file, or zeros.
//!
//! Memory: the first table (at most 32 MiB, as in QEMU), 8 MiB of second ones (at least two), one cluster.

mod clusters;
mod header;
mod snapshot;

use super::mapped::{Layout, MappedDisk, Packed, Piece};
use super::{DiskSource, ImportFault, Opening, RawDisk, open_backing};
use crate::error::ImageError;
use clusters::Clusters;
use header::Header;
use std::path::PathBuf;

pub(super) const NAME: &str = "qcow2";

/// Whether a file with this front is one.
pub(super) fn probe(head: &[u8], _tail: &[u8]) -> bool {
    head.starts_with(header::MAGIC)
}

/// Opens the disk in `file`, or the snapshot of it that was asked for.
pub(super) fn open(file: RawDisk, opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let path: PathBuf = file.path().to_owned();
    let refused = |fault| ImageError::Import { path: path.clone(), format: NAME, fault };
    let header = Header::read(&file).map_err(refused)?;
    let view = match opening.snapshot {
        Some(name) => snapshot::find(&file, &header, name).map_err(refused)?,
        None => header.active(),
    };
    let clusters = Clusters::open(&file, &header, &view).map_err(refused)?;
    let parent = match &header.backing {
        Some(backing) => Some(open_backing(&file, NAME, &backing.name, backing.format.as_deref(), opening)?),
        None => None,
    };
    let mut disk = MappedDisk::new(NAME, view.bytes, vec![file], clusters);
    disk.parent = parent;
    Ok(Box::new(disk))
}

/// The names of the snapshots in `file`.
pub(super) fn snapshots(file: &RawDisk) -> Result<Vec<String>, ImportFault> {
    snapshot::names(file, &Header::read(file)?)
}

impl Layout for Clusters {
    fn piece(&self, files: &[RawDisk], at: u64) -> Result<(Piece, u64), ImportFault> {
        self.at(&files[0], at)
    }

    fn unpack(&self, files: &[RawDisk], unit: Packed, out: &mut [u8]) -> Result<(), ImportFault> {
        self.unpack_cluster(&files[0], unit, out)
    }
}
