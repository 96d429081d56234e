//! Whether dnsmasq will get its ports, asked before it is started: so the answer names port and card.

use super::card::Card;
use super::error::BootError;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt::BindToDevice,
};
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

const DHCP: u16 = 67;
const TFTP: u16 = 69;
/// PXE boot servers: asked by firmware that a proxy has answered.
const PXE: u16 = 4011;

/// Whether the ports are free on `card`; the one of PXE is needed by a proxy alone.
pub(super) fn check(card: &Card, proxy: bool) -> Result<(), BootError> {
    let dhcp = "is a DHCP server running on this machine? docs/BOOT.md says how to add network boot to it";
    free(card, Ipv4Addr::UNSPECIFIED, DHCP, dhcp)?;
    free(card, card.address, TFTP, "is a TFTP server running on this machine?")?;
    if proxy {
        free(card, Ipv4Addr::UNSPECIFIED, PXE, "is a PXE server running on this machine?")?;
    }
    Ok(())
}

/// Binds the port as dnsmasq will, on this card alone, but without sharing it with anybody.
fn free(card: &Card, address: Ipv4Addr, port: u16, hint: &'static str) -> Result<(), BootError> {
    let try_it = || {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, BindToDevice, &OsString::from(&card.name))?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, port)))
    };
    let error = match try_it() {
        Ok(()) => return Ok(()),
        Err(errno) => io::Error::from(errno),
    };
    Err(match error.kind() {
        io::ErrorKind::AddrInUse => BootError::PortInUse { protocol: "UDP", port, place: card.name.clone(), hint },
        io::ErrorKind::PermissionDenied => BootError::NotAllowed { port },
        _ => BootError::system(format!("binding UDP port {port} on {}", card.name))(error),
    })
}
