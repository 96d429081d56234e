//! Discovery at the server: one UDP socket, answers by the rules of [`Responder`], on the cards in use alone.
//!
//! A socket that takes no answer now says nothing of what has come: both are told with the same number (EAGAIN), and the kernel tells
//! only once that something has come.
//!
//! The kernel tells of each datagram which card it came in on, and the answer leaves by that card, from the address that
//! the seek reached.

use crate::nic::Nics;
use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use slidecast_proto::discovery::{DATAGRAM_LEN, Responder};
use slidecast_proto::units::Time;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

/// How many datagrams make a turn: a flood must leave time for the nodes.
const AT_ONCE: usize = 64;
/// What the kernel keeps for a server that is busy, in bytes. It counts 768 for a datagram and allows twice this number (socket(7)):
/// 1,365 datagrams, 0.14 s of a flood of 10,000 a second. More would make every answer late while the server can't keep up.
const QUEUE: usize = 512 << 10;

/// The socket and what it says.
#[derive(Debug)]
pub(super) struct Answerer {
    socket: UdpSocket,
    /// Says to everybody what can't be said to one; answers that wait for a machine that is not there don't fill it.
    loud: std::net::UdpSocket,
    responder: Responder,
}

impl Answerer {
    /// A socket that listens on `port` of every address.
    pub(super) fn listen(port: u16) -> io::Result<UdpSocket> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        // Without the privilege to exceed the system's limit, up to the limit; its default holds 554 datagrams.
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUE).or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &QUEUE))?;
        Ok(UdpSocket::from_std(socket))
    }

    /// Answers what comes to a socket of [`Self::listen`].
    pub(super) fn new(socket: UdpSocket, responder: Responder) -> io::Result<Self> {
        let loud = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        loud.set_nonblocking(true)?;
        loud.set_broadcast(true)?;
        Ok(Self { socket, loud, responder })
    }

    pub(super) fn socket(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Answers some of what has come; gives whether more may be waiting.
    pub(super) fn turn(&mut self, nics: &Nics, now: Time) -> bool {
        for _ in 0..AT_ONCE {
            match self.receive() {
                Ok(Some(seek)) => self.answer(seek, nics, now),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                // Such as the refusal of an earlier answer: of no interest, and over with having been told.
                Err(errno) => log::debug!("discovery: {errno}"),
            }
        }
        true
    }

    /// The next datagram, if it says where it came from.
    fn receive(&self) -> nix::Result<Option<Datagram>> {
        // One byte more than any datagram of ours, so that a longer one is not taken for one.
        let mut bytes = [0; DATAGRAM_LEN + 1];
        let mut space = nix::cmsg_space!(libc::in_pktinfo);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
        let card = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        let (len, source) = (message.bytes, message.address);
        Ok(source.zip(card).map(|(source, card)| Datagram { bytes, len, source, card }))
    }

    fn answer(&mut self, seek: Datagram, nics: &Nics, now: Time) {
        let Datagram { bytes, len, source, mut card } = seek;
        let index = u32::try_from(card.ipi_ifindex).unwrap_or(0);
        // What a machine says to itself may come by the loopback card.
        if nics.with_index(index).is_none() && !source.ip().is_loopback() {
            return;
        }
        // The address that was reached, or that of the card for a broadcast: the answer leaves from it, ip(7).
        let ours = IpAddr::V4(Ipv4Addr::from(u32::from_be(card.ipi_spec_dst.s_addr)));
        let Some(answer) = self.responder.on_datagram(IpAddr::V4(source.ip()), ours, &bytes[..len], now) else {
            return;
        };
        card.ipi_addr.s_addr = 0;
        let control = [ControlMessage::Ipv4PacketInfo(&card)];
        let send = |fd, to: &SockaddrIn| {
            sendmsg(fd, &[IoSlice::new(&answer.bytes)], &control, MsgFlags::MSG_DONTWAIT, Some(to)).map(drop)
        };
        let mut result = Err(Errno::EAGAIN);
        if !answer.broadcast {
            result = send(self.socket.as_raw_fd(), &source);
        }
        if result.is_err() && !source.ip().is_loopback() {
            let everybody = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::BROADCAST, source.port()));
            result = send(self.loud.as_raw_fd(), &everybody);
        }
        if let Err(errno) = result {
            // The agent asks again.
            log::debug!("discovery: answering {}: {errno}", source.ip());
        }
    }
}

/// What came, from where and by which card.
struct Datagram {
    bytes: [u8; DATAGRAM_LEN + 1],
    len: usize,
    source: SockaddrIn,
    card: libc::in_pktinfo,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use slidecast_proto::discovery::{Offer, Seek};
    use slidecast_proto::units::DeploymentId;
    use std::time::Duration;

    fn answerer() -> (Answerer, u16) {
        let offer = Offer { server: None, port: 9, deployment: DeploymentId([7; 16]) };
        let mut answerer = Answerer::new(Answerer::listen(0).unwrap(), Responder::new(offer, None)).unwrap();
        let port = answerer.socket().local_addr().unwrap().port();
        (answerer, port)
    }

    #[test]
    fn a_seek_is_answered_and_random_datagrams_are_not() {
        let (mut answerer, port) = answerer();
        let nics = Nics::of_this_machine(&[], &[]).unwrap();
        let agent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        agent.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for len in [0, 1, 95, 96, 97, 1400] {
            agent.send_to(&vec![0xA5; len], ("127.0.0.1", port)).unwrap();
        }
        agent.send_to(&Seek::new([3; 8]).encode(), ("127.0.0.1", port)).unwrap();
        assert!(!answerer.turn(&nics, Clock::start().now()));
        let mut bytes = [0; 200];
        let (len, from) = agent.recv_from(&mut bytes).unwrap();
        assert_eq!(from.port(), port);
        assert_eq!(Offer::parse(&bytes[..len], [3; 8]).unwrap().port, 9);
        agent.set_nonblocking(true).unwrap();
        assert!(agent.recv_from(&mut bytes).is_err(), "one answer and no more");
    }

    #[test]
    fn a_seek_behind_a_flood_that_came_while_the_server_was_busy_is_answered() {
        let (mut answerer, port) = answerer();
        let nics = Nics::of_this_machine(&[], &[]).unwrap();
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..500 {
            stranger.send_to(b"noise", ("127.0.0.1", port)).unwrap();
        }
        let agent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        agent.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        agent.send_to(&Seek::new([3; 8]).encode(), ("127.0.0.1", port)).unwrap();
        let now = Clock::start().now();
        while answerer.turn(&nics, now) {}
        let mut bytes = [0; 200];
        let len = agent.recv(&mut bytes).unwrap();
        assert!(Offer::parse(&bytes[..len], [3; 8]).is_ok());
    }

    #[test]
    fn a_flood_is_taken_in_turns() {
        let (mut answerer, port) = answerer();
        let nics = Nics::of_this_machine(&[], &[]).unwrap();
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..=AT_ONCE {
            stranger.send_to(b"noise", ("127.0.0.1", port)).unwrap();
        }
        let now = Clock::start().now();
        assert!(answerer.turn(&nics, now));
        assert!(!answerer.turn(&nics, now));
    }
}
