//! What an image is made of: a raw file or a block device, read at any place, with its size, sector and holes.

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A raw disk image or a block device, open for reading.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    bytes: u64,
    sector: u32,
    device: bool,
}

impl Source {
    /// Opens a regular file or a block device.
    ///
    /// The sector of a device is the kernel's word; that of a file is 512, or 4096 if a GPT stands where only such a
    /// disk has it.
    ///
    /// # Errors
    /// The error of the system; [`io::ErrorKind::InvalidInput`] for anything that is neither file nor device.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let device = metadata.file_type().is_block_device();
        if !device && !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
        }
        let bytes = if device { io::Seek::seek(&mut &file, io::SeekFrom::End(0))? } else { metadata.len() };
        let mut source = Self { file, path: path.to_owned(), bytes, sector: 512, device };
        source.sector = if device { device_sector(metadata.rdev())? } else { source.file_sector()? };
        Ok(source)
    }

    /// The sector of a disk in a file: where its GPT header begins.
    fn file_sector(&self) -> io::Result<u32> {
        let mut signature = [0; 8];
        for sector in [512, 4096] {
            if u64::from(sector) + 8 <= self.bytes {
                self.read_at(u64::from(sector), &mut signature)?;
                if signature == *b"EFI PART" && self.bytes.is_multiple_of(u64::from(sector)) {
                    return Ok(sector);
                }
            }
        }
        Ok(512)
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The logical sector in bytes.
    #[must_use]
    pub fn sector(&self) -> u32 {
        self.sector
    }

    /// Whether this is a block device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.device
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The error of the system; [`io::ErrorKind::UnexpectedEof`] beyond the end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// The next range at or after `from` that is no hole; `None` if only holes follow. Where the system knows no holes,
    /// everything is data.
    ///
    /// # Errors
    /// The error of the system.
    pub fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        if from >= self.bytes {
            return Ok(None);
        }
        let seek = |at: u64, whence| lseek(&self.file, at.cast_signed(), whence);
        let start = match seek(from, Whence::SeekData) {
            Ok(start) => start.cast_unsigned().max(from),
            Err(Errno::ENXIO) => return Ok(None),
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some(from..self.bytes)),
            Err(error) => return Err(error.into()),
        };
        let end = seek(start, Whence::SeekHole)?.cast_unsigned();
        Ok((start < self.bytes).then(|| start..end.clamp(start + 1, self.bytes)))
    }
}

/// Bytes that are read at any place: a [`Source`], or a disk that is in memory.
pub trait ReadAt {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The error of the system; [`io::ErrorKind::UnexpectedEof`] beyond the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for Source {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The logical sector of the block device `device`; a partition has that of its disk.
fn device_sector(device: u64) -> io::Result<u32> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let folder = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let text = std::fs::read_to_string(folder.join("queue/logical_block_size"))
        .or_else(|_| std::fs::read_to_string(folder.join("../queue/logical_block_size")))?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "unreadable logical_block_size"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn holes_of_a_file_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        file.as_file().write_all_at(&[1; 4096], 4 << 20).unwrap();
        let source = Source::open(file.path()).unwrap();
        assert_eq!((source.bytes(), source.sector(), source.is_device()), (16 << 20, 512, false));
        let data = source.next_data(0).unwrap().unwrap();
        assert!(data.start <= 4 << 20 && data.end >= (4 << 20) + 4096);
        assert_eq!(source.next_data(16 << 20).unwrap(), None);
    }

    #[test]
    fn a_gpt_at_4096_means_sectors_of_4096() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[0; 4096]).unwrap();
        file.write_all(b"EFI PART").unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        assert_eq!(Source::open(file.path()).unwrap().sector(), 4096);
    }

    #[test]
    fn a_folder_is_no_source() {
        assert!(Source::open(Path::new("/")).is_err());
    }
}
