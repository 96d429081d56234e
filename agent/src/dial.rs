//! Connections that leave by one network card, whatever the routes say.
//!
//! A machine whose cards have addresses of the same network, as they all have where nobody gives out any, has several routes
//! to the server that answered on one of them. Only the card that the answer came by is known to lead there.

use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

/// A server, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The card by which it is reached; none: whichever the routes say.
    pub(crate) card: Option<String>,
}

impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Self {
        Self { address, card: None }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Starts to connect to `address`, by `card` if one is named.
///
/// # Errors
/// There is no way to the address, no such card, or no socket left.
pub(crate) fn dial(address: SocketAddr, card: Option<&str>) -> io::Result<TcpStream> {
    if card.is_none() {
        return TcpStream::connect(address);
    }
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    keep_to(&socket, card)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from_std(socket.into())),
        Err(error) => Err(error.into()),
    }
}

/// Makes a socket send and receive by `card` only; without one, by any.
///
/// # Errors
/// There is no such card.
pub(crate) fn keep_to(socket: &impl AsFd, card: Option<&str>) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::BindToDevice, &OsString::from(card.unwrap_or_default()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn a_connection_keeps_to_its_card() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for card in [None, Some("lo")] {
            let stream = dial(address, card).unwrap();
            let bound = nix::sys::socket::getsockopt(&stream, sockopt::BindToDevice).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            drop(stream);
            assert_eq!(accepted.read(&mut [0; 1]).unwrap(), 0);
            assert_eq!(bound.to_str().unwrap().trim_end_matches('\0'), card.unwrap_or_default());
        }
        assert!(dial(address, Some("no-such-card")).is_err());
    }

    #[test]
    fn a_listener_can_be_kept_to_a_card_and_let_go_again() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        for card in [Some("lo"), None] {
            keep_to(&listener, card).unwrap();
            let bound = nix::sys::socket::getsockopt(&listener, sockopt::BindToDevice).unwrap();
            assert_eq!(bound.to_str().unwrap().trim_end_matches('\0'), card.unwrap_or_default());
        }
    }
}
