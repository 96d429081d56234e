//! Discovery at the server: one UDP socket, answers by the rules of [`Responder`], on the cards in use alone.
//!
//! The kernel tells of each datagram which card it came in on, and the answer leaves by that card, from the address that
//! the seek reached.

use crate::nic::Nics;
use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt::Ipv4PacketInfo,
};
use slidecast_proto::discovery::{DATAGRAM_LEN, Responder};
use slidecast_proto::units::Time;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

/// How many datagrams make a turn: a flood must leave time for the nodes.
const AT_ONCE: usize = 64;

/// The socket and what it says.
#[derive(Debug)]
pub(super) struct Answerer {
    socket: UdpSocket,
    responder: Responder,
}

impl Answerer {
    /// A socket that listens on `port` of every address.
    pub(super) fn listen(port: u16) -> io::Result<UdpSocket> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
        Ok(UdpSocket::from_std(socket))
    }

    /// Answers what comes to a socket of [`Self::listen`].
    pub(super) fn new(socket: UdpSocket, responder: Responder) -> Self {
        Self { socket, responder }
    }

    pub(super) fn socket(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Answers some of what has come; gives whether more may be waiting.
    pub(super) fn turn(&mut self, nics: &Nics, now: Time) -> bool {
        for _ in 0..AT_ONCE {
            match self.answer_one(nics, now) {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                // Such as the refusal of an earlier answer: of no interest, and over with having been told.
                Err(errno) => log::debug!("discovery: {errno}"),
            }
        }
        true
    }

    fn answer_one(&mut self, nics: &Nics, now: Time) -> nix::Result<()> {
        // One byte more than any datagram of ours, so that a longer one is not taken for one.
        let mut bytes = [0; DATAGRAM_LEN + 1];
        let mut space = nix::cmsg_space!(libc::in_pktinfo);
        let (len, source, card) = {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let fd = self.socket.as_raw_fd();
            let message = recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
            let card = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
                _ => None,
            });
            (message.bytes, message.address, card)
        };
        let (Some(source), Some(mut card)) = (source, card) else { return Ok(()) };
        let index = u32::try_from(card.ipi_ifindex).unwrap_or(0);
        // What a machine says to itself may come by the loopback card.
        let ours = nics.with_index(index).is_some() || source.ip().is_loopback();
        let Some(answer) =
            ours.then(|| self.responder.on_datagram(IpAddr::V4(source.ip()), &bytes[..len], now)).flatten()
        else {
            return Ok(());
        };
        let slices = [IoSlice::new(&answer)];
        // `ipi_spec_dst` is already the address that was reached, or that of the card for a broadcast: ip(7).
        card.ipi_addr.s_addr = 0;
        let control = [ControlMessage::Ipv4PacketInfo(&card)];
        sendmsg(self.socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&source)).map(drop)
    }
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
        let mut answerer = Answerer::new(Answerer::listen(0).unwrap(), Responder::new(offer));
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
