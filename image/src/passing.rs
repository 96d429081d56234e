//! A file that gets its name when it is complete. Until then it has none, and disappears with the process that makes it, even if that is
//! killed (open(2), `O_TMPFILE`); where a file system knows no such files it has a passing name in the same folder.
//!
//! Whoever makes the file holds a lock on it (flock(2)), which ends with the process. A file under a passing name that
//! nobody holds was left by one that was killed; the next that is begun in its folder removes it.

use crate::error::{ImageError, Operation};
use crate::format;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Between the name that a file will have and its passing name's end.
const RANDOM_DIGITS: usize = 16;
const END: &str = ".partial";
/// How often a file is begun that somebody else gets hold of.
const ATTEMPTS: usize = 8;

/// A file on its way to its name.
#[derive(Debug)]
pub(crate) struct PassingFile {
    file: File,
    path: PathBuf,
    passing: PathBuf,
    /// It can be found under `passing` now.
    named: bool,
    /// Tells others that somebody makes it. `None` where the file system knows no locks, and so nobody else gets one.
    _lock: Option<Flock<File>>,
}

impl PassingFile {
    /// Begins the file that will be `path`, in the same folder.
    pub(crate) fn begin(path: &Path) -> Result<Self, ImageError> {
        collect(path);
        // Somebody who collects may find the file before it is held; then it is begun again.
        let begun = (0..ATTEMPTS).find_map(|_| Self::attempt(path).transpose());
        let begun = begun.unwrap_or_else(|| Err(std::io::ErrorKind::ResourceBusy.into()));
        begun.map_err(ImageError::io(Operation::Create, path, None))
    }

    /// `None` if somebody else holds the file that was just made.
    fn attempt(path: &Path) -> std::io::Result<Option<Self>> {
        let passing = passing_name(path)?;
        let open = |options: &mut OpenOptions, at: &Path| options.read(true).write(true).open(at);
        let unnamed = open(OpenOptions::new().custom_flags(OFlag::O_TMPFILE.bits()), folder_of(path));
        let (file, named) = match unnamed.ok().filter(|file| descriptor_of(file).exists()) {
            Some(file) => (file, false),
            None => (open(OpenOptions::new().create_new(true), &passing)?, true),
        };
        let lock = match lock(file.try_clone()?) {
            Ok(lock) => Some(lock),
            Err(Errno::EWOULDBLOCK) => return Ok(None),
            Err(_) => None,
        };
        if named && !is_there(&passing, &file) {
            return Ok(None);
        }
        Ok(Some(Self { file, path: path.to_owned(), passing, named, _lock: lock }))
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

/// A name for the time until the file `path` is complete.
fn passing_name(path: &Path) -> std::io::Result<PathBuf> {
    let mut random = [0; RANDOM_DIGITS / 2];
    getrandom::fill(&mut random).map_err(|_| std::io::Error::from(std::io::ErrorKind::Other))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{:016x}{END}", u64::from_le_bytes(random))))
}

/// The name that a file with this passing name would have had.
fn name_of(passing: &str) -> Option<&str> {
    let (rest, random) = passing.strip_prefix('.')?.strip_suffix(END)?.rsplit_once('.')?;
    let digits = random.len() == RANDOM_DIGITS && random.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    (digits && !rest.is_empty()).then_some(rest)
}

/// Removes what was left in the folder of `path` by those that were killed: under the passing name of this very file, or
/// of another that is empty or begins as an image. Others may work in the same folder; what cannot be removed stays.
fn collect(path: &Path) {
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in std::fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let Some(name) = found.to_str().and_then(name_of) else { continue };
        let left = path.with_file_name(&found);
        if let Some(_held) = abandoned(&left, name == own)
            && std::fs::remove_file(&left).is_ok()
        {
            log::info!("{}: removed, the one who made it was killed", left.display());
        }
    }
}

/// The file at `path`, locked, if nobody makes it and it is ours: by its name, or by what it begins with.
fn abandoned(path: &Path, ours: bool) -> Option<Flock<File>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).ok()?;
    let found = file.metadata().ok().filter(|found| found.is_file() && found.nlink() == 1)?;
    if !(ours || found.len() == 0 || format::begins_as_layer(&file)) {
        return None;
    }
    let held = lock(file).ok()?;
    is_there(path, &held).then_some(held)
}

fn lock(file: File) -> Result<Flock<File>, Errno> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)
}

/// Whether `file` is what stands at `path`.
fn is_there(path: &Path, file: &File) -> bool {
    let there = std::fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()));
    let open = file.metadata().map(|open| (open.dev(), open.ino()));
    matches!((there, open), (Ok(there), Ok(open)) if there == open)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
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
        drop(PassingFile { file, path, passing, named: true, _lock: None });
        assert_eq!(names(dir.path()), [""; 0]);
        assert!(PassingFile::begin(&dir.path().join("none/a")).is_err());
    }

    /// A file with that content under the passing name of `name`.
    fn left(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = passing_name(&folder.join(name)).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn what_a_killed_one_left_goes_when_the_next_file_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        left(dir.path(), "a", b"whatever");
        left(dir.path(), "b.slide", b"SLIDEIMG\x01\x00\x01");
        drop(PassingFile::begin(&dir.path().join("a")).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn what_somebody_makes_or_what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| dir.path().join(name);
        let made = left(dir.path(), "a", b"");
        let held = lock(OpenOptions::new().read(true).write(true).open(&made).unwrap()).unwrap();
        left(dir.path(), "b", b"nobody knows");
        for name in [".a.partial", ".a.0123.partial", "a.0123456789abcdef.partial", ".a.0123456789ABCDEF.partial"] {
            std::fs::write(of(name), "").unwrap();
        }
        std::fs::write(of("precious"), "x").unwrap();
        std::os::unix::fs::symlink(of("precious"), of(".a.0123456789abcde0.partial")).unwrap();
        std::fs::hard_link(of("precious"), of(".a.0123456789abcde1.partial")).unwrap();
        std::fs::create_dir(of(".a.0123456789abcde2.partial")).unwrap();
        nix::unistd::mkfifo(&of(".a.0123456789abcde3.partial"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let before = names(dir.path()).len();
        drop(PassingFile::begin(&of("a")).unwrap());
        assert_eq!(names(dir.path()).len(), before);
        drop(held);
        drop(PassingFile::begin(&of("a")).unwrap());
        assert_eq!(names(dir.path()).len(), before - 1);
        assert!(!made.exists() && of("precious").exists());
    }

    #[test]
    fn a_file_is_held_from_its_beginning_until_it_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = PassingFile::begin(&dir.path().join("a")).unwrap();
        assert!(lock(File::open(descriptor_of(&one.file)).unwrap()).is_err());
        one.finish().unwrap();
        drop(one);
        assert!(lock(File::open(dir.path().join("a")).unwrap()).is_ok());
    }
}
