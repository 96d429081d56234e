//! Layers in local files.

use super::{LayerBytes, LayerStore};
use core::ops::Range;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFiles;

impl LayerStore for LocalFiles {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LayerBytes>> {
        // Looked at before it is opened: opening a pipe waits for somebody at its other end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Arc::new(LocalFile::new(File::open(path)?)?))
    }

    fn beside(&self, path: &Path) -> Vec<PathBuf> {
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let paths = entries.map(|entry| path.with_file_name(entry.file_name()));
        let mut layers: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "slide")).collect();
        layers.sort();
        layers
    }
}

/// An open layer file.
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: File,
    bytes: u64,
}

impl LocalFile {
    /// Takes the length that `file` has now.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }
}

impl LayerBytes for LocalFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn prefetch(&self, range: Range<u64>) {
        let start = i64::try_from(range.start).unwrap_or(i64::MAX);
        let len = i64::try_from(range.end.saturating_sub(range.start)).unwrap_or(i64::MAX);
        // Advice only: where it is not taken, the bytes are read when their turn comes.
        let _ = posix_fadvise(&self.file, start, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }

    fn descriptor(&self, _range: Range<u64>) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}
