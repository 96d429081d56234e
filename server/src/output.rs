//! Where a command may write what it was not made for: a report. The place is looked at before anything starts, and what lies
//! there is damaged by nothing: a regular file is replaced as a whole at the end, pipes, terminals and the null device take
//! the text as it is, and everything else (a disk, a key, a layer, a state file, a folder) is refused.

use crate::key;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{major, minor};
use nix::unistd::{AccessFlags, access};
use std::error::Error;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much of a file is looked at to learn what it is, in bytes.
const HEAD: u64 = 4096;
/// How long the reader of a FIFO may take to open it.
const READER_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked for.
const READER_EVERY: Duration = Duration::from_millis(20);
/// What a layer begins with: `docs/IMAGE.md`.
const LAYER: &[u8] = b"SLIDEIMG";

/// Why nothing can be written there.
#[derive(Debug)]
pub enum OutputError {
    /// Something lies there that must not be overwritten.
    Precious {
        /// The path, as it was given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The system refused.
    Io {
        /// What was being done.
        operation: &'static str,
        /// The path, as it was given.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Precious { path, what } => {
                write!(f, "{} is {what} and is not overwritten by a report", path.display())
            }
            Self::Io { operation, path, .. } => write!(f, "{operation} {}", path.display()),
        }
    }
}

impl Error for OutputError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Precious { .. } => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

/// How the text gets there.
#[derive(Debug)]
enum Way {
    /// A regular file, which is there already or not, by the path behind all symbolic links.
    Replace(PathBuf),
    /// What this program has as its standard output or standard error, by whatever name.
    Inherited { error: bool },
    /// A pipe with a name. It is opened when there is something to write: opening waits for a reader.
    Fifo,
    /// A terminal, or a device that keeps nothing.
    Device(File),
}

/// A place to write to.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    way: Way,
}

impl Output {
    /// Looks at what is at `path`. Nothing is changed. What lies in the folder `state`, and the files `precious`, are not
    /// overwritten whatever they hold.
    ///
    /// # Errors
    /// It must not be overwritten, or could not be written.
    pub(crate) fn check(
        path: &Path,
        state: Option<&Path>,
        precious: &[(&Path, &'static str)],
    ) -> Result<Self, OutputError> {
        let failed = |source| OutputError::Io { operation: "writing the report", path: path.to_owned(), source };
        let refuse = |what| OutputError::Precious { path: path.to_owned(), what };
        let way = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.symlink_metadata().is_ok() {
                    return Err(refuse("a symbolic link to nothing"));
                }
                let (folder, name) = (folder_of(path), path.file_name());
                let name = name.ok_or_else(|| failed(io::Error::from(io::ErrorKind::IsADirectory)))?;
                if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                    return Err(refuse("the name of a folder"));
                }
                Way::Replace(folder.canonicalize().map_err(failed)?.join(name))
            }
            Err(error) => return Err(failed(error)),
            Ok(there) => {
                if let Some((_, what)) = precious.iter().find(|(other, _)| same(&there, std::fs::metadata(other).ok()))
                {
                    return Err(refuse(what));
                }
                existing(path, &there).map_err(failed)?.map_err(refuse)?
            }
        };
        if let Way::Replace(real) = &way {
            if state.is_some_and(|state| is_state(real, state)) {
                return Err(refuse("the name of a file of the server's state"));
            }
            // What would fail at the end fails now.
            drop(beside(real).map_err(failed)?);
        }
        Ok(Self { path: path.to_owned(), way })
    }

    /// Writes `text` there.
    ///
    /// # Errors
    /// What the system said. A regular file is then as it was.
    pub(crate) fn write(self, text: &str) -> Result<(), OutputError> {
        let written = match &self.way {
            Way::Replace(real) => replace(real, text),
            Way::Inherited { error: false } => io::stdout().lock().write_all(text.as_bytes()),
            Way::Inherited { error: true } => io::stderr().lock().write_all(text.as_bytes()),
            Way::Fifo => open_fifo(&self.path).and_then(|mut fifo| fifo.write_all(text.as_bytes())),
            Way::Device(file) => (&*file).write_all(text.as_bytes()),
        };
        written.map_err(|source| OutputError::Io { operation: "writing the report", path: self.path, source })
    }
}

/// What to do with what is there; the inner error says what it is that must not be overwritten.
fn existing(path: &Path, there: &Metadata) -> io::Result<Result<Way, &'static str>> {
    let kind = there.file_type();
    for (error, fd) in [(false, io::stdout().as_fd()), (true, io::stderr().as_fd())] {
        let inherited = fd.try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
        if !kind.is_block_device() && same(there, inherited.ok()) {
            return Ok(Ok(Way::Inherited { error }));
        }
    }
    Ok(if kind.is_dir() {
        Err("a folder")
    } else if kind.is_block_device() {
        Err("a block device")
    } else if kind.is_fifo() {
        access(path, AccessFlags::W_OK)?;
        Ok(Way::Fifo)
    } else if kind.is_char_device() {
        // mem(4) and null(4): null, zero and full. Anything else that is no terminal may be a machine's memory.
        let harmless = (major(there.rdev()), [3, 5, 7].contains(&minor(there.rdev()))) == (1, true);
        let file = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(path)?;
        if harmless || file.is_terminal() { Ok(Way::Device(file)) } else { Err("a device that is no terminal") }
    } else if kind.is_file() {
        access(path, AccessFlags::W_OK)?;
        let real = path.canonicalize()?;
        content(&real)?.map_or(Ok(Way::Replace(real)), Err)
    } else {
        Err("a socket")
    })
}

/// What a file is by its content, if that is worth more than a report.
fn content(path: &Path) -> io::Result<Option<&'static str>> {
    let file = match OpenOptions::new().read(true).open(path) {
        // Written but not read: no key of ours, and nothing more can be said.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        opened => opened?,
    };
    let mut head = zeroize::Zeroizing::new(Vec::new());
    file.take(HEAD).read_to_end(&mut head)?;
    let has = |text: &[u8]| head.windows(text.len()).any(|window| window == text);
    Ok(if key::is_key(&head) {
        Some("a key")
    } else if head.starts_with(LAYER) {
        Some("a layer of an image")
    } else if head.starts_with(b"{\"version\":") && has(b"\"asked\":") {
        Some("the state of a deployment")
    } else {
        None
    })
}

/// Whether `path` is one of the names that the server uses in its state folder, also where no such file is yet.
fn is_state(path: &Path, state: &Path) -> bool {
    let inside = state.canonicalize().is_ok_and(|state| path.parent() == Some(&state));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    inside && (name.starts_with("deploy-") || name.starts_with("server.key"))
}

fn same(ours: &Metadata, other: Option<Metadata>) -> bool {
    other.is_some_and(|other| (ours.dev(), ours.ino(), ours.rdev()) == (other.dev(), other.ino(), other.rdev()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file beside `path`, with the permissions that `path` has or would get.
fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mode = std::fs::metadata(path).map_or(0o666, |there| there.permissions().mode() & 0o777);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".report").permissions(PermissionsExt::from_mode(mode));
    builder.tempfile_in(folder_of(path))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Opens a FIFO, as soon as somebody reads it.
fn open_fifo(path: &Path) -> io::Result<File> {
    let until = Instant::now() + READER_WITHIN;
    loop {
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
        match opened {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) && Instant::now() < until => {
                std::thread::sleep(READER_EVERY);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads it"));
            }
            opened => {
                let file = opened?;
                let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
                fcntl(&file, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
                return Ok(file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::one_line;
    use nix::sys::stat::Mode;

    fn check(path: &Path) -> Result<Output, OutputError> {
        Output::check(path, None, &[])
    }

    fn refused(path: &Path) -> String {
        one_line(&check(path).unwrap_err())
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_at_the_end_and_untouched_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old, link) = (dir.path().join("new"), dir.path().join("old"), dir.path().join("link"));
        drop(check(&new).unwrap());
        assert!(!new.exists());
        std::fs::write(&old, "a report that is longer").unwrap();
        std::fs::set_permissions(&old, PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("old", &link).unwrap();
        let output = check(&link).unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "a report that is longer");
        output.write("another").unwrap();
        check(&new).unwrap().write("the first").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "another");
        assert_eq!(std::fs::metadata(&old).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_to_string(&new).unwrap(), "the first");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing else is left");
    }

    #[test]
    fn what_a_report_would_destroy_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let secret = key::create(&path("k")).unwrap();
        std::fs::write(path("old-key"), format!("{}\n", *secret.to_hex())).unwrap();
        std::fs::write(path("layer"), b"SLIDEIMG and more").unwrap();
        std::fs::write(path("left.json"), br#"{"version":1,"image":"a.slide","asked":{}}"#).unwrap();
        std::os::unix::fs::symlink("k", path("link")).unwrap();
        std::os::unix::fs::symlink("nothing", path("dangling")).unwrap();
        for (name, what) in [
            ("k", "is a key"),
            ("k.pub", "is a key"),
            ("link", "is a key"),
            ("old-key", "is a key"),
            ("layer", "is a layer of an image"),
            ("left.json", "is the state of a deployment"),
            ("dangling", "is a symbolic link to nothing"),
            ("", "is a folder"),
            ("new/", "is the name of a folder"),
        ] {
            let line = refused(&path(name));
            assert!(line.contains(what) && line.ends_with("is not overwritten by a report"), "{name}: {line}");
        }
        assert_eq!(key::read(&path("k")).unwrap(), secret);
        assert!(refused(&path("no/such/folder")).contains("No such file or directory"));
    }

    #[test]
    fn the_names_of_the_state_folder_and_files_in_use_are_refused_whatever_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["deploy-7531.json", "deploy-7531.lock", "server.key", "server.key.pub"] {
            let error = Output::check(&path(name), Some(dir.path()), &[]).unwrap_err();
            assert!(one_line(&error).contains("state"), "{error}");
            assert!(check(&path(name)).is_ok());
        }
        std::fs::write(path("in-use"), "").unwrap();
        let precious = [(&*path("in-use"), "the key file"), (&*path("absent"), "nothing")];
        let error = Output::check(&path("in-use"), None, &precious).unwrap_err();
        assert!(one_line(&error).contains("is the key file"), "{error}");
    }

    #[test]
    fn devices_that_keep_nothing_are_written_and_all_others_refused() {
        check(Path::new("/dev/null")).unwrap().write("nobody reads it").unwrap();
        let full = check(Path::new("/dev/full")).unwrap().write("no room").unwrap_err();
        assert_eq!(one_line(&full), "writing the report /dev/full: No space left on device");
        for device in ["/dev/loop-control", "/dev/mem", "/dev/kmsg"] {
            // A container may have none of them, or let nobody open them.
            assert!(!Path::new(device).exists() || check(Path::new(device)).is_err(), "{device}");
        }
        let disks = std::fs::read_dir("/dev").unwrap().flatten().map(|entry| entry.path());
        let disks = disks.filter(|path| std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device()));
        for disk in disks {
            assert!(refused(&disk).contains("is a block device"), "{}", disk.display());
        }
    }

    #[test]
    fn a_fifo_is_opened_at_the_end_and_without_a_reader_the_report_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::from_bits_retain(0o600)).unwrap();
        let output = check(&path).unwrap();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || std::fs::read_to_string(path).unwrap()
        });
        output.write("for the reader").unwrap();
        assert_eq!(reader.join().unwrap(), "for the reader");
        let error = check(&path).unwrap().write("for nobody").unwrap_err();
        assert!(one_line(&error).ends_with("nobody reads it"), "{error}");
    }
}
