//! Why machines can't be booted from here.

use super::range::DhcpRange;
use super::uki::UkiError;
use crate::failure::Failure;
use crate::nic::UnknownInterface;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Why the boot server did not start.
#[derive(Debug)]
pub enum BootError {
    /// There is no such card.
    Interface(UnknownInterface),
    /// The card has no IPv4 address.
    NoAddress {
        /// The card.
        interface: String,
    },
    /// The range is not in the card's net.
    RangeElsewhere {
        /// The range.
        range: DhcpRange,
        /// The card.
        interface: String,
        /// The net that it has.
        net: String,
    },
    /// A range was given for several cards.
    SeveralInterfaces,
    /// A boot file is missing or can't be read.
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The UKI is none, or is signed and can't be given the key.
    Uki {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: UkiError,
    },
    /// Programs or first stages are not installed.
    Missing {
        /// Their names.
        what: Vec<String>,
        /// The packages that have them.
        packages: Vec<&'static str>,
    },
    /// Another program has a port that is needed.
    PortInUse {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
        /// On which card or address.
        place: String,
        /// What is probably the matter.
        hint: &'static str,
    },
    /// Binding a port is not for everybody.
    NotAllowed {
        /// The port.
        port: u16,
    },
    /// dnsmasq ended at its start.
    Dnsmasq {
        /// Its own last words.
        said: String,
    },
    /// The system refused.
    System {
        /// What was being done.
        operation: String,
        /// What it said.
        source: io::Error,
    },
}

impl BootError {
    /// An error of the system while doing `operation`.
    pub(super) fn system(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::System { operation, source }
    }

    /// Another program has `port` at `address`, or the system refused it for another reason.
    pub(super) fn bind(error: io::Error, port: u16, address: Ipv4Addr) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse {
                protocol: "TCP",
                port,
                place: address.to_string(),
                hint: "is another boot server running? (boot-server --http-port chooses another one)",
            },
            io::ErrorKind::PermissionDenied => Self::NotAllowed { port },
            _ => Self::system(format!("listening on {address}:{port}"))(error),
        }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(unknown) => unknown.fmt(f),
            Self::NoAddress { interface } => {
                write!(
                    f,
                    "{interface} has no IPv4 address; give it one, such as: ip addr add 10.0.0.1/24 dev {interface}"
                )
            }
            Self::RangeElsewhere { range, interface, net } => {
                write!(f, "the range {range} does not fit the net of {interface}, {net}")
            }
            Self::SeveralInterfaces => f.write_str("--boot with a range of addresses is for one --interface only"),
            Self::File { path, .. } => write!(f, "boot file {} (./mkimage.sh makes it)", path.display()),
            Self::Uki { path, .. } => write!(f, "boot file {}", path.display()),
            Self::Missing { what, packages } => {
                write!(f, "not installed: {}; on Debian: apt-get install {}", what.join(", "), packages.join(" "))
            }
            Self::PortInUse { protocol, port, place, hint } => {
                write!(f, "{protocol} port {port} is in use on {place}: {hint}")
            }
            Self::NotAllowed { port } => write!(f, "port {port} is for root alone: run this as root, or with sudo"),
            Self::Dnsmasq { said } => write!(f, "dnsmasq did not start: {said}"),
            Self::System { operation, .. } => f.write_str(operation),
        }
    }
}

impl Error for BootError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::System { source, .. } => Some(source),
            Self::Uki { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        match error {
            BootError::Interface(_) | BootError::RangeElsewhere { .. } | BootError::SeveralInterfaces => {
                Self::usage(error)
            }
            _ => Self::not_done(error),
        }
    }
}
