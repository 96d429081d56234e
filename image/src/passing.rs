//! A file that gets its name when it is complete. Until then it has none, and disappears with the process that makes it, even if that is
//! killed (open(2), `O_TMPFILE`); where a file system knows no such files it has a passing name in the same folder.

use crate::error::{ImageError, Operation};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file on its way to its name.
#[derive(Debug)]
pub(crate) struct PassingFile {
    file: File,
    path: PathBuf,
    passing: PathBuf,
    /// It can be found under `passing` now.
    named: bool,
}

impl PassingFile {
    /// Begins the file that will be `path`, in the same folder.
    pub(crate) fn begin(path: &Path) -> Result<Self, ImageError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|_| ImageError::io(Operation::Create, path, None)(std::io::ErrorKind::Other.into()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let passing = path.with_file_name(format!(".{name}.{:016x}.partial", u64::from_le_bytes(random)));
        let open = |options: &mut OpenOptions, at: &Path| options.read(true).write(true).open(at);
        let unnamed = open(OpenOptions::new().custom_flags(OFlag::O_TMPFILE.bits()), folder_of(path));
        if let Some(file) = unnamed.ok().filter(|file| descriptor_of(file).exists()) {
            return Ok(Self { file, path: path.to_owned(), passing, named: false });
        }
        let named = open(OpenOptions::new().create_new(true), &passing);
        let file = named.map_err(ImageError::io(Operation::Create, path, None))?;
        Ok(Self { file, path: path.to_owned(), passing, named: true })
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The name it will have.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file, which is on the disk already, its name, in place of whatever has it now.
    pub(crate) fn finish(&mut self) -> Result<(), ImageError> {
        let path = &self.path;
        if !self.named {
            let from = descriptor_of(&self.file);
            let linked = nix::unistd::linkat(AT_FDCWD, &from, AT_FDCWD, &self.passing, AtFlags::AT_SYMLINK_FOLLOW);
            linked.map_err(|errno| ImageError::io(Operation::Rename, path, None)(errno.into()))?;
            self.named = true;
        }
        std::fs::rename(&self.passing, path).map_err(ImageError::io(Operation::Rename, path, None))?;
        self.named = false;
        let folder = folder_of(path);
        let flushed = File::open(folder).and_then(|folder| folder.sync_all());
        flushed.map_err(ImageError::io(Operation::Flush, folder, None))
    }
}

impl Drop for PassingFile {
    fn drop(&mut self) {
        if self.named {
            let _ = std::fs::remove_file(&self.passing);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// The name that an open file has for the process that opened it.
fn descriptor_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_has_its_name_when_it_is_complete_and_takes_it_from_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let mut passing = PassingFile::begin(&path).unwrap();
        passing.file().write_all_at(b"new", 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        passing.finish().unwrap();
        drop(passing);
        assert_eq!((std::fs::read(&path).unwrap(), names(dir.path())), (b"new".to_vec(), vec!["a".to_owned()]));
    }

    #[test]
    fn of_a_file_that_is_not_completed_nothing_is_left_with_or_without_a_passing_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        drop(PassingFile::begin(&path).unwrap());
        let passing = dir.path().join(".a.partial");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&passing).unwrap();
        drop(PassingFile { file, path, passing, named: true });
        assert_eq!(names(dir.path()), [""; 0]);
        assert!(PassingFile::begin(&dir.path().join("none/a")).is_err());
    }
}
