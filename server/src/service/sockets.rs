//! The two sockets of a service. They are opened first, so that a port that is in use shows before anything takes time.

use super::answer::Answerer;
use mio::net::{TcpListener, UdpSocket};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a service could not begin.
#[derive(Debug)]
pub enum ServiceError {
    /// Another program has the port.
    PortInUse {
        /// `TCP` or `UDP`.
        what: &'static str,
        /// The port.
        port: u16,
    },
    /// The system refused.
    System {
        /// What was being done.
        operation: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortInUse { what, port } => {
                write!(f, "{what} port {port} is in use: is another deployment running? --port chooses another one")
            }
            Self::System { operation, .. } => f.write_str(operation),
        }
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::PortInUse { .. } => None,
            Self::System { source, .. } => Some(source),
        }
    }
}

impl ServiceError {
    /// The system refused while doing `operation`.
    pub fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { operation, source }
    }

    fn in_use(what: &'static str, port: u16, operation: &'static str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { what, port },
            _ => Self::system(operation)(error),
        }
    }
}

/// The listener for control links and the socket for seeks.
#[derive(Debug)]
pub struct Sockets {
    pub(super) listener: TcpListener,
    pub(super) seeks: UdpSocket,
    pub(super) port: u16,
}

impl Sockets {
    /// Listens on `port`: for control links on both families, or on IPv4 alone where there is no IPv6.
    ///
    /// # Errors
    /// [`ServiceError`]: the port is in use, or the system refuses.
    pub fn listen(port: u16) -> Result<Self, ServiceError> {
        let both = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let listener = match both {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            }
            both => both,
        };
        let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = listener.map(TcpListener::from_std);
        let listener = listener.map_err(|error| ServiceError::in_use("TCP", port, "listening for agents", error))?;
        let seeks = Answerer::listen(port);
        let seeks = seeks.map_err(|error| ServiceError::in_use("UDP", port, "listening for seeks", error))?;
        Ok(Self { listener, seeks, port })
    }
}
