//! What keeps the agent from running at all. What goes wrong in a deployment has a `Reason` instead, and is told to the
//! server.

use std::io;

/// Why the agent could not run.
#[derive(Debug)]
pub(crate) enum AgentError {
    /// `--interface` names a card that this machine does not have.
    NoSuchInterface { name: String },
    /// The system gives no random bytes.
    NoRandomness,
    /// A system call that everything else needs failed.
    System {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl std::fmt::Display for AgentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchInterface { name } => {
                write!(f, "--interface {name}: this machine has no such network card")
            }
            Self::NoRandomness => f.write_str("the system gives no random bytes"),
            Self::System { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for AgentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoSuchInterface { .. } | Self::NoRandomness => None,
            Self::System { source, .. } => Some(source),
        }
    }
}

/// Says what was being done when a system call failed.
pub(crate) trait Doing<T> {
    /// Turns the failure into an [`AgentError::System`].
    fn doing(self, doing: &'static str) -> Result<T, AgentError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, AgentError> {
        self.map_err(|source| AgentError::System { doing, source })
    }
}
