//! Why a server can't be operated from here.

use crate::failure::{Failure, one_line};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a command to a server failed.
#[derive(Debug)]
pub enum RemoteError {
    /// The address is none, or the token would travel in the clear.
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token can't be read.
    Token {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file of an authority's certificates can't be read.
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// This system trusts no authority.
    NoAuthority,
    /// TLS can't be set up.
    Tls(rustls::Error),
    /// The server can't be reached, or is not the one that is meant.
    Connect {
        /// Its address.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// The conversation broke off.
    Broken {
        /// The address of the server.
        server: String,
        /// What happened.
        why: String,
    },
    /// The server has answered that it can't be done.
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Its words.
        detail: String,
    },
    /// The report can't be written.
    Report {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime can't be made.
    Runtime(io::Error),
}

impl RemoteError {
    /// Whether it may be otherwise in a moment: the server is started again, or the network is back.
    pub(super) fn passes(&self) -> bool {
        match self {
            // A certificate that is refused stays refused.
            Self::Connect { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            Self::Broken { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { url, why } => write!(f, "--server {url}: {why}"),
            Self::Token { path, .. } => write!(f, "reading the token {}", path.display()),
            Self::Authority { path, .. } => write!(f, "reading the certificates in {}", path.display()),
            Self::NoAuthority => f.write_str(
                "this system trusts no certificate authority: give --ca FILE, or --fingerprint for a certificate that the server made itself",
            ),
            Self::Tls(_) => f.write_str("setting up TLS"),
            Self::Connect { server, source } if source.kind() == io::ErrorKind::InvalidData => write!(
                f,
                "{server} does not prove that it is the server that is meant: {}; --fingerprint or --ca says who it is",
                one_line(source)
            ),
            Self::Connect { server, .. } => write!(f, "connecting to {server}"),
            Self::Broken { server, why } => write!(f, "{server} broke off: {why}"),
            Self::Refused { status, detail } => write!(f, "the server refused ({status}): {detail}"),
            Self::Report { path, .. } => write!(f, "writing the report {}", path.display()),
            Self::Runtime(_) => f.write_str("setting up the connection"),
        }
    }
}

impl std::error::Error for RemoteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Token { source, .. } | Self::Report { source, .. } => Some(source),
            Self::Connect { source, .. } if source.kind() != io::ErrorKind::InvalidData => Some(source),
            Self::Authority { source, .. } => Some(source),
            Self::Tls(source) => Some(source),
            Self::Runtime(source) => Some(source),
            _ => None,
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Address { .. } => Self::usage(error),
            _ => Self::not_done(error),
        }
    }
}
