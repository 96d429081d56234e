//! Router advertisements on a net of our own, where no router sends any.
//!
//! iPXE of before 2022, which Debian 12 has, asks for a router and waits 16 s for one although DHCP has answered long
//! since. Any advertisement ends that. Ours says that we are no default router (lifetime 0) and names no prefix: nobody
//! gets an address or a route by it. RFC 4861, sections 4.1 and 4.2.

use super::card::Card;
use super::event::Mac;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use std::ffi::OsString;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICITATION: u8 = 133;
/// How often an advertisement goes out unasked.
const EVERY: Duration = Duration::from_secs(60);
/// How often at most, however many ask.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// How long the thread may take to see that it is to end.
const LOOK: Duration = Duration::from_millis(250);

/// The sender of advertisements; dropping it ends its thread.
#[derive(Debug)]
pub(super) struct Router {
    stop: Arc<AtomicBool>,
}

impl Router {
    /// Starts to advertise on `card`.
    pub(super) fn start(card: &Card) -> io::Result<Self> {
        let socket = open(card)?;
        let (stop, index, packet) = (Arc::new(AtomicBool::new(false)), card.index, advertisement(card.mac));
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("slidecast-router".to_owned())
            .spawn(move || advertise(&socket, index, &packet, &stopped))?;
        Ok(Self { stop })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A raw ICMPv6 socket. What the standard library offers for UDP sockets are system calls that work for any datagram socket.
fn open(card: &Card) -> io::Result<UdpSocket> {
    let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(&card.name))?;
    // Receivers drop what a router could have passed on: only 255 shows that none did.
    setsockopt(&socket, sockopt::Ipv6MulticastHops, &255)?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(LOOK))?;
    socket.join_multicast_v6(&ALL_ROUTERS, card.index)?;
    Ok(socket)
}

fn advertise(socket: &UdpSocket, index: u32, packet: &[u8], stop: &AtomicBool) {
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, index);
    let mut sent: Option<Instant> = None;
    let mut bytes = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let asked = match socket.recv(&mut bytes) {
            Ok(len) => len > 0 && bytes[0] == SOLICITATION,
            Err(_) => false,
        };
        let pause = if asked { MIN_INTERVAL } else { EVERY };
        if sent.is_none_or(|sent| sent.elapsed() >= pause) {
            sent = Some(Instant::now());
            // Such as before the card has an address of its own; a machine that needs it asks again.
            if let Err(error) = socket.send_to(packet, to) {
                log::debug!("router advertisement: {error}");
            }
        }
    }
}

/// The advertisement; the kernel fills in the checksum.
fn advertisement(mac: Option<Mac>) -> Vec<u8> {
    let mut packet = vec![0; 16];
    packet[0] = 134;
    if let Some(Mac(mac)) = mac {
        // Option 1, of one unit of eight bytes: the sender's hardware address.
        packet.extend([1, 1]);
        packet.extend(mac);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advertisement_gives_nobody_a_route_or_an_address() {
        let packet = advertisement(Some(Mac([2, 0, 0, 0, 0, 9])));
        assert_eq!(packet.len(), 24);
        assert_eq!(packet[..16], [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "flags and lifetime are zero");
        assert_eq!(packet[16..], [1, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(advertisement(None).len(), 16);
    }
}
