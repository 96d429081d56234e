//! What can go wrong in the lab itself. A test that fails because of the product panics instead.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Result of a lab operation.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Why the lab could not do something.
#[derive(Debug)]
pub enum LabError {
    /// A system call on a file failed.
    Io {
        /// The operation, as a verb: "creating".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A tool could not be started.
    Start {
        /// The program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A tool ended with a failure.
    Tool {
        /// Program and arguments.
        command: String,
        /// Its exit code, none when a signal ended it.
        code: Option<i32>,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// Something did not happen in time.
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The end of the process's output.
        tail: String,
    },
    /// A process ended before it did what was waited for.
    Ended {
        /// What was waited for.
        what: String,
        /// The end of the process's output.
        tail: String,
    },
    /// A program under test has not been built.
    NotBuilt {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        looked: PathBuf,
    },
    /// This machine or user cannot do it.
    Unable {
        /// What is missing and what would help.
        why: String,
    },
    /// A disk is not what it should be.
    Differs {
        /// The node's disk.
        disk: PathBuf,
        /// What it was compared with.
        with: String,
        /// Where and how it differs.
        how: String,
    },
    /// A report that does not follow its contract.
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

impl LabError {
    /// An [`LabError::Io`] maker for `map_err`.
    pub fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            Self::Start { program, source } => write!(f, "starting {program}: {source}"),
            Self::Tool { command, code: Some(code), stderr } => write!(f, "{command}: exit {code}: {}", stderr.trim()),
            Self::Tool { command, code: None, stderr } => write!(f, "{command}: ended by a signal: {}", stderr.trim()),
            Self::Late { what, after, tail } => {
                write!(f, "{what}: not within {:.1} s; its output ends:\n{tail}", after.as_secs_f64())
            }
            Self::Ended { what, tail } => write!(f, "{what}: the process ended first; its output ends:\n{tail}"),
            Self::NotBuilt { program, looked } => write!(
                f,
                "{program} is not at {}: build it first (cargo build -p slidecast-server -p slidecast-agent)",
                looked.display()
            ),
            Self::Unable { why } => f.write_str(why),
            Self::Differs { disk, with, how } => write!(f, "{} is not equal to {with}: {how}", disk.display()),
            Self::Report { path, detail } => write!(f, "report {}: {detail}", path.display()),
        }
    }
}

impl std::error::Error for LabError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Start { source, .. } => Some(source),
            _ => None,
        }
    }
}
