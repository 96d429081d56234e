//! `--approve`: which machines may take part. What it means is decided by `slidecast_proto::approval`; here lists are read, codes are
//! heard, and those that wait are put into words.

mod typing;
mod words;

pub use typing::Heard;
pub(crate) use typing::start as hear_codes;
pub use words::UnapprovedView;
pub(crate) use words::{Telling, describe};

use slidecast_proto::approval::{Identity, ListError, MAX_LIST, Rules, parse_list};
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// One `--approve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApproveBy {
    /// The machines on this list.
    List(PathBuf),
    /// The machine with the code that is typed here.
    Code,
}

impl From<OsString> for ApproveBy {
    fn from(text: OsString) -> Self {
        if text == "code" { Self::Code } else { Self::List(text.into()) }
    }
}

/// Why a list can't be used.
#[derive(Debug)]
pub enum ApproveError {
    /// It can't be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What stands there is wrong.
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ListError,
    },
    /// It has keys, and with `--insecure` there are none.
    Insecure {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for ApproveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "reading the list of machines {}", path.display()),
            Self::List { path, error } => write!(f, "{}, {error}", path.display()),
            Self::Insecure { path } => {
                write!(f, "{}: key= approves nobody with --insecure, which uses no keys", path.display())
            }
        }
    }
}

impl Error for ApproveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::List { .. } | Self::Insecure { .. } => None,
        }
    }
}

/// The rules that these flags make; none without flags.
///
/// # Errors
/// A list can't be used: file and line are named.
pub fn rules(flags: &[ApproveBy], insecure: bool) -> Result<Option<Rules>, ApproveError> {
    let mut rules = Rules::default();
    for flag in flags {
        match flag {
            ApproveBy::Code => rules.codes = true,
            ApproveBy::List(path) => {
                let list = read(path)?;
                if insecure && list.iter().any(|identity| matches!(identity, Identity::Key(_))) {
                    return Err(ApproveError::Insecure { path: path.clone() });
                }
                rules.list.extend(list);
            }
        }
    }
    Ok((!flags.is_empty()).then_some(rules))
}

fn read(path: &Path) -> Result<Vec<Identity>, ApproveError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LIST as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|source| ApproveError::Read { path: path.to_owned(), source })?;
    parse_list(&bytes).map_err(|error| ApproveError::List { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::one_line;

    fn list(path: &Path) -> ApproveBy {
        ApproveBy::from(path.as_os_str().to_owned())
    }

    #[test]
    fn lists_and_codes_are_rules_together_and_without_flags_there_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&first, "52:54:00:00:00:01\n").unwrap();
        std::fs::write(&second, "serial=S2\n").unwrap();
        let flags = [list(&first), ApproveBy::from(OsString::from("code")), list(&second)];
        let both = rules(&flags, true).unwrap().unwrap();
        assert!(both.codes);
        assert_eq!(both.list, [Identity::Mac([0x52, 0x54, 0, 0, 0, 1]), Identity::Serial("S2".to_owned())]);
        assert_eq!(rules(&[], false).unwrap(), None);
    }

    #[test]
    fn a_bad_list_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("room7.txt");
        let said = |insecure| one_line(&rules(&[list(&path)], insecure).unwrap_err());
        let name = path.display();
        assert_eq!(said(false), format!("reading the list of machines {name}: No such file or directory"));
        std::fs::write(&path, "# room 7\n52:54:00:00:00\n").unwrap();
        assert!(said(false).starts_with(&format!("{name}, line 2: \"52:54:00:00:00\" is no hardware address")));
        std::fs::write(&path, "# nobody\n").unwrap();
        assert_eq!(said(false), format!("{name}, no machine is on this list"));
        std::fs::write(&path, format!("key={}\n", "ab".repeat(32))).unwrap();
        assert!(said(true).contains("--insecure") && rules(&[list(&path)], false).is_ok());
        assert!(one_line(&rules(&[list(dir.path())], false).unwrap_err()).ends_with("Is a directory"));
    }
}
