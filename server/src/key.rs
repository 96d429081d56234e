//! The key by which agents know this server: made by `key new`, or once under the state folder.
//!
//! A key file holds the secret as one line, a tag and hexadecimal digits, and is for its owner alone; the public part lies
//! beside it, under the same name with `.pub` behind and with a tag of its own. Files of older versions have the digits alone.

use slidecast_proto::noise::{KeyError, NoRandomness, PUBLIC_TAG, PublicKey, SECRET_TAG, SecretKey};
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The key file in the state folder.
const KEY_NAME: &str = "server.key";
/// A key file is one line; whatever is longer is none.
const MAX_FILE: u64 = 256;

/// Why there is no key.
#[derive(Debug)]
pub enum KeyFileError {
    /// The file is there already; it is never overwritten.
    Exists {
        /// Which one.
        path: PathBuf,
    },
    /// The system refused.
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// What is in the file is no key.
    Content {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: KeyError,
    },
    /// It is a public key, where the secret one is needed.
    Public {
        /// Which file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    NoRandomness(NoRandomness),
    /// Neither `--state` nor the environment says where state is kept.
    NoStateFolder,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { path } => write!(f, "{} exists already and is not overwritten", path.display()),
            Self::Io { operation, path, .. } => write!(f, "{operation} {}", path.display()),
            Self::Content { path, .. } => write!(f, "{} is no key file", path.display()),
            Self::Public { path } => {
                write!(f, "{} is the public part of a key; the server needs the secret one", path.display())
            }
            Self::NoRandomness(_) => f.write_str("making a key"),
            Self::NoStateFolder => {
                f.write_str("no folder for the server's key: neither XDG_STATE_HOME nor HOME is set; give --state DIR")
            }
        }
    }
}

impl Error for KeyFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Content { source, .. } => Some(source),
            Self::NoRandomness(source) => Some(source),
            _ => None,
        }
    }
}

/// The file of the public part of the key in `path`.
#[must_use]
pub fn public_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".pub");
    PathBuf::from(name)
}

/// Makes a key and writes it to `path`, its public part beside it.
///
/// # Errors
/// Either file exists, or can't be written; then neither is left behind.
pub fn create(path: &Path) -> Result<SecretKey, KeyFileError> {
    let secret = SecretKey::generate().map_err(KeyFileError::NoRandomness)?;
    let public = public_path(path);
    if public.exists() {
        return Err(KeyFileError::Exists { path: public });
    }
    write_new(path, 0o600, &secret.to_line())?;
    write_new(&public, 0o644, &secret.public().to_line()).inspect_err(|_| {
        // What went wrong is told already; without its public part the key is of no use.
        let _ = std::fs::remove_file(path);
    })?;
    Ok(secret)
}

fn write_new(path: &Path, mode: u32, line: &str) -> Result<(), KeyFileError> {
    let failed = |operation| move |source| KeyFileError::Io { operation, path: path.to_owned(), source };
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyFileError::Exists { path: path.to_owned() });
        }
        opened => opened.map_err(failed("creating"))?,
    };
    let written = file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all());
    written.map_err(failed("writing")).inspect_err(|_| {
        let _ = std::fs::remove_file(path);
    })
}

/// Reads the secret key in `path`.
///
/// # Errors
/// The file can't be read, or what is in it is no secret key.
pub fn read(path: &Path) -> Result<SecretKey, KeyFileError> {
    let failed = |operation| move |source| KeyFileError::Io { operation, path: path.to_owned(), source };
    let file = File::open(path).map_err(failed("opening"))?;
    let open_to_others = file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    let mut text = zeroize::Zeroizing::new(String::new());
    match file.take(MAX_FILE).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(KeyFileError::Content { path: path.to_owned(), source: KeyError::NotHexadecimal });
        }
        result => result.map_err(failed("reading"))?,
    };
    if is_public(path, &text) {
        return Err(KeyFileError::Public { path: path.to_owned() });
    }
    let secret = text.parse().map_err(|source| match source {
        KeyError::Public => KeyFileError::Public { path: path.to_owned() },
        source => KeyFileError::Content { path: path.to_owned(), source },
    })?;
    if open_to_others {
        log::warn!("the key file {} can be read by others; chmod 600 would keep it secret", path.display());
    }
    Ok(secret)
}

/// Whether what begins with `head` is a key file, of either half, with or without a tag.
pub(crate) fn is_key(head: &[u8]) -> bool {
    let digits = |text: &str| text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let tagged = [SECRET_TAG, PUBLIC_TAG].iter().any(|tag| head.starts_with(tag.as_bytes()));
    tagged || std::str::from_utf8(head).is_ok_and(|text| digits(text.trim()))
}

/// In files without a tag both halves look alike; but this one is named as public, or another one beside it says so.
fn is_public(path: &Path, text: &str) -> bool {
    let beside = |path: &Path| std::fs::read_to_string(path).ok().map(zeroize::Zeroizing::new);
    let Ok(public) = text.parse::<PublicKey>() else { return false };
    if let Some(secret) = path.to_str().and_then(|path| path.strip_suffix(".pub")) {
        let secret = beside(Path::new(secret)).and_then(|text| text.parse::<SecretKey>().ok());
        return secret.is_none_or(|secret| public == secret.public());
    }
    // A copy of the public half under the name of the secret one.
    beside(&public_path(path)).is_some_and(|text| text.parse() == Ok(public))
}

/// The key in the state folder `state`, made there if there is none. Gives whether it is new.
///
/// # Errors
/// The folder or the key can't be made, or what is there is no key.
pub fn of_state_folder(state: &Path) -> Result<(SecretKey, bool), KeyFileError> {
    let path = state.join(KEY_NAME);
    let mut folder = std::fs::DirBuilder::new();
    let made = folder.recursive(true).mode(0o700).create(state);
    made.map_err(|source| KeyFileError::Io { operation: "creating", path: state.to_owned(), source })?;
    match create(&path) {
        Ok(secret) => Ok((secret, true)),
        Err(KeyFileError::Exists { path: existing }) if existing == path || path.exists() => {
            read(&path).map(|secret| (secret, false))
        }
        Err(error) => Err(error),
    }
}

/// Where state is kept: `--state`, or `slidecast` in the user's XDG state folder.
///
/// # Errors
/// The environment does not say where that is.
pub fn state_folder(given: Option<&Path>) -> Result<PathBuf, KeyFileError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let xdg = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let folder = xdg.or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    folder.map(|folder| folder.join("slidecast")).ok_or(KeyFileError::NoStateFolder)
}

/// What people are told of a key.
#[must_use]
pub fn describe(public: &PublicKey) -> String {
    format!("server key: {public} (agents: --server-key {public})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::one_line;

    #[test]
    fn a_new_key_is_for_its_owner_alone_and_has_its_public_part_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let secret = create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), secret);
        let public = std::fs::read_to_string(dir.path().join("k.pub")).unwrap();
        assert_eq!(public, format!("slidecast-public-key-v1:{}\n", secret.public()));
    }

    #[test]
    fn neither_half_is_ever_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(dir.path().join("k.pub"), "mine").unwrap();
        assert!(matches!(create(&path), Err(KeyFileError::Exists { path }) if path.ends_with("k.pub")));
        assert!(!path.exists());
        std::fs::remove_file(dir.path().join("k.pub")).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(create(&path), Err(KeyFileError::Exists { path }) if path.ends_with("k")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        assert!(!dir.path().join("k.pub").exists());
    }

    #[test]
    fn a_bad_key_file_is_named_in_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let line = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            one_line(&read(&path).unwrap_err())
        };
        assert!(line(b"").ends_with("k is no key file: a key has 64 hexadecimal digits, not 0 characters"));
        assert!(line(&[0xFF; 64]).contains("is no key file"));
        assert!(line(&vec![b'a'; 1 << 20]).contains("is no key file"));
        std::fs::remove_file(&path).unwrap();
        let missing = one_line(&read(&path).unwrap_err());
        assert!(missing.starts_with("opening ") && missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn the_public_part_is_not_taken_for_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        create(&path).unwrap();
        assert!(matches!(read(&public_path(&path)), Err(KeyFileError::Public { .. })));
        // Under whatever name.
        let moved = dir.path().join("moved");
        std::fs::rename(public_path(&path), &moved).unwrap();
        let line = one_line(&read(&moved).unwrap_err());
        assert!(line.ends_with("moved is the public part of a key; the server needs the secret one"), "{line}");
    }

    #[test]
    fn files_of_older_versions_without_a_tag_are_read_unless_they_are_evidently_public() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("k"), dir.path().join("k.pub"));
        let secret = SecretKey::generate().unwrap();
        std::fs::write(&path, format!("{}\n", *secret.to_hex())).unwrap();
        assert_eq!(read(&path).unwrap(), secret);
        std::fs::write(&beside, format!("{}\n", secret.public())).unwrap();
        assert_eq!(read(&path).unwrap(), secret);
        assert!(matches!(read(&beside), Err(KeyFileError::Public { .. })));
        std::fs::copy(&beside, &path).unwrap();
        assert!(matches!(read(&path), Err(KeyFileError::Public { .. })));
    }

    #[test]
    fn key_files_are_known_by_their_content() {
        let secret = SecretKey::generate().unwrap();
        for text in [secret.to_line().to_string(), secret.public().to_line(), secret.public().to_string() + "\n"] {
            assert!(is_key(text.as_bytes()), "{text}");
        }
        assert!(!is_key(b"") && !is_key(b"{}") && !is_key(&[b'a'; 63]) && !is_key(&[0xFF; 64]));
    }

    #[test]
    fn the_state_folder_gets_its_key_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let (first, new) = of_state_folder(&state).unwrap();
        let (second, again) = of_state_folder(&state).unwrap();
        assert!(new && !again);
        assert_eq!(first, second);
        std::fs::write(state.join(KEY_NAME), "rubbish\n").unwrap();
        assert!(matches!(of_state_folder(&state), Err(KeyFileError::Content { .. })));
    }
}
