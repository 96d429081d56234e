//! What a file that is no SlideCast image is, for people and for programs.

use super::{Asked, DiskSource, RawDisk, formats, qcow2};
use crate::error::{ImageError, Operation};
use core::fmt;
use serde::Serialize;
use std::path::Path;

/// What a file with a disk in another format is. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceInfo {
    /// The file.
    pub file: String,
    /// Its format.
    pub format: String,
    /// Whether `image create` reads it.
    pub imported: bool,
    /// The length of the file.
    pub file_bytes: u64,
    /// The size of the disk; nothing where only unpacking tells it.
    pub disk_bytes: Option<u64>,
    /// What of the disk may be more than zeros.
    pub data_bytes: Option<u64>,
    /// The files that the disk is read from, and the file itself first.
    pub files: Vec<String>,
    /// The snapshots inside.
    pub snapshots: Vec<String>,
}

/// Says what the file at `path` is; `None` if it has the signs of no format.
///
/// # Errors
/// [`ImageError`] naming the file and what is wrong with it.
pub fn describe(path: &Path) -> Result<Option<SourceInfo>, ImageError> {
    if path.is_dir() {
        let source = formats::open(path, &Asked::of(Path::new(".")))?;
        let mut info = SourceInfo {
            file: path.display().to_string(),
            format: source.format().to_owned(),
            imported: true,
            file_bytes: 0,
            disk_bytes: None,
            data_bytes: None,
            files: Vec::new(),
            snapshots: Vec::new(),
        };
        let lengths = source.files().into_iter().filter_map(|file| std::fs::metadata(file).ok());
        info.file_bytes = lengths.map(|metadata| metadata.len()).sum();
        info.add_disk(&*source)?;
        return Ok(Some(info));
    }
    let disk = RawDisk::open(path).map_err(ImageError::io(Operation::Open, path, None))?;
    let read = |error| ImageError::io(Operation::Read, path, None)(error);
    let Some(format) = formats::found(&disk).map_err(read)? else { return Ok(None) };
    let mut info = SourceInfo {
        file: path.display().to_string(),
        format: format.to_owned(),
        imported: formats::is_imported(&disk).map_err(read)?,
        file_bytes: disk.bytes(),
        disk_bytes: None,
        data_bytes: None,
        files: vec![path.display().to_string()],
        snapshots: Vec::new(),
    };
    if !info.imported || formats::is_packed(&disk).map_err(read)? {
        return Ok(Some(info));
    }
    if format == qcow2::NAME {
        let snapshots = qcow2::snapshots(&disk);
        info.snapshots =
            snapshots.map_err(|fault| ImageError::Import { path: path.to_owned(), format: qcow2::NAME, fault })?;
    }
    let source = formats::open(path, &Asked::of(Path::new(".")))?;
    info.add_disk(&*source)?;
    Ok(Some(info))
}

impl SourceInfo {
    /// What an open disk says of itself.
    fn add_disk(&mut self, source: &dyn DiskSource) -> Result<(), ImageError> {
        let (mut at, mut data) = (0, 0);
        while let Some(range) = source.next_data(at).map_err(ImageError::io(Operation::Read, source.path(), None))? {
            (at, data) = (range.end, data + (range.end - range.start));
        }
        self.disk_bytes = Some(source.bytes());
        self.data_bytes = Some(data);
        self.files = source.files().iter().map(|file| file.display().to_string()).collect();
        Ok(())
    }
}

impl fmt::Display for SourceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "file      {:?}", self.file)?;
        writeln!(f, "format    {}, {} bytes", self.format, self.file_bytes)?;
        match (self.disk_bytes, self.data_bytes) {
            (Some(disk), Some(data)) => writeln!(f, "disk      {disk} bytes, {data} of them may be more than zeros")?,
            _ if self.imported => writeln!(f, "disk      its size is known when it is unpacked")?,
            _ => writeln!(f, "note: image create does not read this format")?,
        }
        for below in self.files.iter().filter(|below| **below != self.file) {
            writeln!(f, "with      {below:?}")?;
        }
        self.snapshots.iter().try_for_each(|name| writeln!(f, "snapshot  {name:?}"))
    }
}
