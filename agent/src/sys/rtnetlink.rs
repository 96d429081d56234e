//! Network cards: up, addresses, routes, by rtnetlink (rtnetlink(7)). No unsafe code is needed for it.
//!
//! Every request is one message that the kernel answers with an error number.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
/// NLM_F_REQUEST | NLM_F_ACK.
const ASK: u16 = 0x0005;
/// The same with NLM_F_REPLACE | NLM_F_CREATE.
const SET: u16 = ASK | 0x0500;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_RT_PRIORITY: u16 = 9;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
/// AF_INET, in the one byte it has here.
const INET: u8 = 2;
/// struct nlmsghdr.
const HEADER: usize = 16;

/// An address of a card, and how much its routes are preferred (a smaller metric is).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The kernel's number of the card.
    pub(crate) index: u32,
    pub(crate) ip: Ipv4Addr,
    /// How many bits of it are the network.
    pub(crate) prefix: u8,
    /// The metric of the route into its network.
    pub(crate) metric: u32,
}

/// A connection to the kernel's tables.
#[derive(Debug)]
pub(crate) struct RtNetlink {
    socket: OwnedFd,
    sequence: u32,
}

impl RtNetlink {
    /// Opens it.
    ///
    /// # Errors
    /// Those of `socket`.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Switches a card on.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.request(RTM_NEWLINK, ASK, &link_up(index))
    }

    /// Gives a card an address, or the same one anew.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn add_address(&mut self, address: Address) -> io::Result<()> {
        self.request(RTM_NEWADDR, SET, &address_body(address))
    }

    /// Takes an address from a card.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn remove_address(&mut self, address: Address) -> io::Result<()> {
        self.request(RTM_DELADDR, ASK, &address_body(address))
    }

    /// Sends what is for the network `to` (its bits behind `prefix` are zero) from `address`, through a router or straight
    /// onto the wire. The route goes when its address does.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn add_route(&mut self, address: Address, to: (Ipv4Addr, u8), via: Option<Ipv4Addr>) -> io::Result<()> {
        self.request(RTM_NEWROUTE, SET, &route_body(address, to, via))
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = message(kind, flags, self.sequence, body);
        sendto(self.socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        loop {
            let bytes = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            if let Some(errno) = verdict(&answer[..bytes], self.sequence) {
                return if errno == 0 { Ok(()) } else { Err(Errno::from_raw(errno).into()) };
            }
        }
    }
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    let len = u32::try_from(HEADER + body.len()).expect("bodies are small and made here");
    out.extend(len.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(body);
    out
}

/// The error number (positive; 0 is none) in the kernel's answer to request `sequence`.
fn verdict(answer: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let of = u32::from_ne_bytes(answer.get(8..12)?.try_into().ok()?);
    let errno = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR && of == sequence).then(|| errno.saturating_neg())
}

fn link_up(index: u32) -> Vec<u8> {
    // struct ifinfomsg: family, padding, type, index, flags, which flags change.
    let mut out = vec![0; 4];
    for word in [index, IFF_UP, IFF_UP] {
        out.extend(word.to_ne_bytes());
    }
    out
}

fn address_body(address: Address) -> Vec<u8> {
    let Address { index, ip, prefix, metric } = address;
    let scope = if ip.is_link_local() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    // struct ifaddrmsg: family, prefix, flags, scope, index.
    let mut out = vec![INET, prefix, 0, scope];
    out.extend(index.to_ne_bytes());
    attribute(&mut out, IFA_LOCAL, ip.octets());
    attribute(&mut out, IFA_ADDRESS, ip.octets());
    if prefix < 31 {
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        attribute(&mut out, IFA_BROADCAST, (ip.to_bits() | hosts).to_be_bytes());
    }
    attribute(&mut out, IFA_RT_PRIORITY, metric.to_ne_bytes());
    out
}

fn route_body(address: Address, (to, prefix): (Ipv4Addr, u8), via: Option<Ipv4Addr>) -> Vec<u8> {
    let scope = if via.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    // struct rtmsg: family, two prefixes (to, from), tos, table, protocol, scope, type, flags.
    let mut out = vec![INET, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0];
    if prefix > 0 {
        attribute(&mut out, RTA_DST, to.octets());
    }
    if let Some(router) = via {
        attribute(&mut out, RTA_GATEWAY, router.octets());
    }
    attribute(&mut out, RTA_OIF, address.index.to_ne_bytes());
    attribute(&mut out, RTA_PRIORITY, address.metric.to_ne_bytes());
    attribute(&mut out, RTA_PREFSRC, address.ip.octets());
    out
}

/// All attributes here have four bytes, so none needs padding.
fn attribute(out: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    out.extend(8_u16.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Address = Address { index: 3, ip: Ipv4Addr::new(10, 1, 2, 3), prefix: 24, metric: 100 };

    #[test]
    fn an_address_is_told_with_its_broadcast_and_metric() {
        let body = address_body(ADDRESS);
        assert_eq!(body[..4], [2, 24, 0, 0]);
        assert!(body.windows(4).any(|bytes| bytes == [10, 1, 2, 255]));
        assert_eq!(body.len() % 4, 0);
        let local = Address { ip: Ipv4Addr::new(169, 254, 7, 7), prefix: 16, ..ADDRESS };
        assert_eq!(address_body(local)[3], RT_SCOPE_LINK);
        let alone = address_body(Address { prefix: 32, ..ADDRESS });
        assert_eq!(alone.len() + 8, body.len(), "a network of one has no broadcast");
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let mut answer = message(NLMSG_ERROR, 0, 7, &(-17_i32).to_ne_bytes());
        assert_eq!(verdict(&answer, 7), Some(17));
        assert_eq!(verdict(&answer, 8), None);
        answer.truncate(18);
        assert_eq!(verdict(&answer, 7), None);
    }

    #[test]
    fn the_kernel_refuses_a_card_that_is_not_there() {
        let mut netlink = RtNetlink::open().unwrap();
        assert!(netlink.set_up(0x7fff_fff0).is_err());
        assert!(netlink.add_address(Address { index: 0x7fff_fff0, ..ADDRESS }).is_err());
    }
}
