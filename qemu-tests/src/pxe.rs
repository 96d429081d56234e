//! A machine that wants to boot, as far as its questions go: DHCP with the options of PXE and of UEFI HTTP Boot (RFC 2131,
//! 4578, 5970), and the router solicitation that iPXE sends (RFC 4861). For tests of the boot server.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use crate::error::{LabError, Result};

/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const OPTIONS_AT: usize = 240;

/// The client.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The card to ask on.
    pub interface: String,
    /// Its architecture, option 93.
    pub arch: u16,
    /// Its vendor class up to the first colon: `PXEClient` or `HTTPClient`.
    pub class: String,
    /// It is iPXE.
    pub ipxe: bool,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The server that answered.
    pub server: Ipv4Addr,
    /// The address that is offered, unspecified if none is.
    pub address: Ipv4Addr,
    /// The boot file, empty if none is named.
    pub file: String,
    /// The vendor class, empty if it has none.
    pub class: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server={} address={} file={:?} class={:?}", self.server, self.address, self.file, self.class)
    }
}

impl Asker {
    /// Broadcasts a DISCOVER and gives every offer that comes.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn discover(&self) -> Result<Vec<Answer>> {
        self.ask((Ipv4Addr::BROADCAST, 67).into(), 1, &[])
    }

    /// Asks a proxy that has answered for its boot file, as firmware does: a REQUEST to port 4011. BIOS names the entry of
    /// the menu that it wants.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn ask_boot_server(&self, server: Ipv4Addr) -> Result<Vec<Answer>> {
        // iPXE's entry is the fourth that the boot server is configured with, the BIOS's own the first.
        let item = [43, 7, 71, 4, 0x80, if self.ipxe { 3 } else { 0 }, 0, 0, 255];
        self.ask((server, 4011).into(), 3, if self.arch == 0 { &item } else { &[] })
    }

    fn ask(&self, to: SocketAddr, kind: u8, more: &[u8]) -> Result<Vec<Answer>> {
        let socket = self.socket().map_err(LabError::io("binding DHCP port on", &self.interface))?;
        let io = |doing| LabError::io(doing, to.to_string());
        let own = if to.port() == 67 { Ipv4Addr::UNSPECIFIED } else { own_address(to).map_err(io("reaching"))? };
        let message = self.message(kind, own, more);
        socket.send_to(&message, to).map_err(io("asking"))?;
        let (deadline, mut answers) = (Instant::now() + PATIENCE, Vec::new());
        let mut bytes = [0; 2048];
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left)).map_err(io("asking"))?;
            let Ok((len, from)) = socket.recv_from(&mut bytes) else { break };
            if let (SocketAddr::V4(from), Some(answer)) = (from, bytes.get(..len)) {
                answers.extend(parse(answer, *from.ip(), &message[4..8]));
            }
        }
        Ok(answers)
    }

    fn socket(&self) -> io::Result<UdpSocket> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        setsockopt(&socket, sockopt::Broadcast, &true)?;
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(&self.interface))?;
        let address = nix::sys::socket::SockaddrIn::new(0, 0, 0, 0, 68);
        nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address)?;
        Ok(socket.into())
    }

    fn message(&self, kind: u8, own: Ipv4Addr, more: &[u8]) -> Vec<u8> {
        let mac = [0x02, 0x51, 0x1d, 0xe0, 0, self.arch.to_be_bytes()[1]];
        let mut message = vec![0; OPTIONS_AT];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[4..8].copy_from_slice(&[0x51, kind, self.arch.to_be_bytes()[1], u8::from(self.ipxe)]);
        // The answer is to be a broadcast: this machine has no address yet.
        message[10] = if own.is_unspecified() { 0x80 } else { 0 };
        message[12..16].copy_from_slice(&own.octets());
        message[28..34].copy_from_slice(&mac);
        message[236..240].copy_from_slice(&COOKIE);
        let class = format!("{}:Arch:{:05}:UNDI:003001", self.class, self.arch);
        let mut option = |code: u8, value: &[u8]| {
            message.extend([code, u8::try_from(value.len()).unwrap_or(0)]);
            message.extend(value);
        };
        option(53, &[kind]);
        option(60, class.as_bytes());
        option(93, &self.arch.to_be_bytes());
        option(94, &[1, 3, 1]);
        option(97, &[&[0], &mac[..], &[0; 10]].concat());
        option(55, &[1, 3, 43, 60, 66, 67, 97]);
        if self.ipxe {
            option(77, b"iPXE");
            option(175, &[0xb1, 5, 1, 0x10, 0x34, 0x10, 0]);
        }
        message.extend(more);
        message.push(255);
        message
    }
}

/// The address that datagrams to `to` leave from.
fn own_address(to: SocketAddr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    match socket.local_addr()? {
        SocketAddr::V4(own) => Ok(*own.ip()),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Reads an answer to the question with this transaction id.
fn parse(bytes: &[u8], server: Ipv4Addr, id: &[u8]) -> Option<Answer> {
    if bytes.first() != Some(&2) || bytes.get(4..8)? != id || bytes.get(236..240)? != COOKIE {
        return None;
    }
    let address: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
    let text = |bytes: &[u8]| {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut answer = Answer { server, address: address.into(), file: text(bytes.get(108..236)?), class: String::new() };
    let mut rest = bytes.get(OPTIONS_AT..)?;
    while let [code, tail @ ..] = rest {
        match code {
            0 => rest = tail,
            255 => break,
            code => {
                let (len, tail) = tail.split_first()?;
                let value = tail.get(..usize::from(*len))?;
                match code {
                    60 => answer.class = text(value),
                    67 => answer.file = text(value),
                    _ => {}
                }
                rest = &tail[usize::from(*len)..];
            }
        }
    }
    Some(answer)
}

/// Solicits a router on `interface` and gives its advertisement.
///
/// # Errors
/// When no socket can be had, or none comes in time.
pub fn solicit(interface: &str) -> Result<Vec<u8>> {
    let io = |doing| LabError::io(doing, interface);
    let index = nix::net::if_::if_nametoindex(interface).map_err(io::Error::from).map_err(io("finding"))?;
    let open = || -> io::Result<UdpSocket> {
        let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(interface))?;
        setsockopt(&socket, sockopt::Ipv6MulticastHops, &255)?;
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(socket)
    };
    let socket = open().map_err(io("opening a socket on"))?;
    let routers = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), 0, 0, index);
    let (deadline, mut bytes) = (Instant::now() + PATIENCE * 3, [0; 1500]);
    while Instant::now() < deadline {
        // A card's own address is not there at once after it came up: again until it is.
        let _ = socket.send_to(&[133, 0, 0, 0, 0, 0, 0, 0], routers);
        while let Ok(len) = socket.recv(&mut bytes) {
            if bytes[0] == 134 {
                return Ok(bytes[..len].to_vec());
            }
        }
    }
    Err(LabError::Late { what: "a router advertisement".to_owned(), after: PATIENCE * 3, tail: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_options_or_its_file_field() {
        let asker = Asker { interface: "eth0".to_owned(), arch: 16, class: "HTTPClient".to_owned(), ipxe: false };
        let mut message = asker.message(1, Ipv4Addr::UNSPECIFIED, &[]);
        let id = message[4..8].to_vec();
        assert_eq!(parse(&message, Ipv4Addr::LOCALHOST, &id), None, "a question is no answer");
        message[0] = 2;
        message[16..20].copy_from_slice(&[10, 0, 0, 9]);
        message[108..111].copy_from_slice(b"a.b");
        let answer = parse(&message, Ipv4Addr::LOCALHOST, &id).unwrap();
        assert_eq!((answer.file.as_str(), answer.address), ("a.b", [10, 0, 0, 9].into()));
        assert_eq!(answer.class, "HTTPClient:Arch:00016:UNDI:003001");
        message.pop();
        message.extend([67, 3, b'u', b'r', b'l', 255]);
        assert_eq!(parse(&message, Ipv4Addr::LOCALHOST, &id).unwrap().file, "url");
        assert_eq!(parse(&message, Ipv4Addr::LOCALHOST, b"none"), None);
        message.truncate(message.len() - 3);
        assert_eq!(parse(&message, Ipv4Addr::LOCALHOST, &id), None, "an option that is cut off");
    }
}
