//! Sockets that see whole Ethernet frames, for what comes before there is an address: DHCP and ARP.
//!
//! The kernel's filter passes nothing else, so such a socket costs nothing while a disk is being received on the same card.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use pnet_datalink::{Channel, ChannelType, Config, DataLinkReceiver, DataLinkSender, NetworkInterface};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

/// `ETH_P_ALL`: frames of every kind; the filter below chooses.
const EVERY_KIND: u16 = 3;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Passes ARP, and UDP over IPv4 to port 68 that is whole (no fragment), on Ethernet (linux/filter.h).
const FILTER: [libc::sock_filter; 12] = [
    step(0x28, 0, 0, 12),     // the frame's type
    step(0x15, 8, 0, 0x0806), // ARP: pass
    step(0x15, 0, 8, 0x0800), // not IPv4: drop
    step(0x30, 0, 0, 23),     // its protocol
    step(0x15, 0, 6, 17),     // not UDP: drop
    step(0x28, 0, 0, 20),     // flags and offset of a fragment
    step(0x45, 4, 0, 0x1fff), // not the first: drop
    step(0xb1, 0, 0, 14),     // the length of the IP header
    step(0x48, 0, 0, 16),     // the port it is for
    step(0x15, 0, 1, 68),     // not ours: drop
    step(0x06, 0, 0, 0xffff), // pass
    step(0x06, 0, 0, 0),      // drop
];

/// Both directions of one card.
pub(crate) struct Frames {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

impl Frames {
    /// Opens a socket on `card`; receiving waits up to `patience`. The card does not become promiscuous.
    ///
    /// # Errors
    /// What the kernel says: no such card (any more), no right.
    pub(crate) fn open(card: &NetworkInterface, patience: Duration) -> io::Result<Self> {
        // Bound to nothing yet, it receives nothing: no frame slips in before the filter is there.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        attach(&socket)?;
        let config = Config {
            read_timeout: Some(patience),
            write_timeout: Some(patience),
            channel_type: ChannelType::Layer3(EVERY_KIND),
            promiscuous: false,
            socket_fd: Some(socket.into_raw_fd()),
            ..Config::default()
        };
        match pnet_datalink::channel(card, config)? {
            Channel::Ethernet(sender, receiver) => Ok(Self { sender, receiver }),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.sender.send_to(frame, None).unwrap_or(Err(io::ErrorKind::Unsupported.into()))
    }

    /// The next frame; `None` when none came in time.
    ///
    /// # Errors
    /// What the kernel says: the card is down or gone.
    pub(crate) fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        match self.receiver.next() {
            Ok(frame) => Ok(Some(frame)),
            Err(error) => match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(error),
            },
        }
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Frames")
    }
}

fn attach(socket: &OwnedFd) -> io::Result<()> {
    let mut program = FILTER;
    let len = u16::try_from(program.len()).expect("a dozen steps");
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).expect("a small structure");
    // SAFETY: the descriptor is open, the kernel reads one `sock_fprog` of the given size and the `len` steps it points
    // to, all of which live until the call returns; it copies them. There is no safe wrapper for this option.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a frame, by a plain reading of its steps.
    fn passes(frame: &[u8]) -> bool {
        let (mut a, mut x, mut pc) = (0_u32, 0_u32, 0_usize);
        let byte = |at: u32| frame.get(at as usize).copied().map(u32::from);
        let half = |at: u32| Some(byte(at)? << 8 | byte(at + 1)?);
        loop {
            let step = FILTER[pc];
            pc += 1;
            let loaded = match step.code {
                0x28 => half(step.k),
                0x30 => byte(step.k),
                0x48 => half(x + step.k),
                0xb1 => byte(step.k).map(|first| (first & 15) * 4),
                0x15 | 0x45 => {
                    let yes = if step.code == 0x15 { a == step.k } else { a & step.k != 0 };
                    pc += usize::from(if yes { step.jt } else { step.jf });
                    continue;
                }
                _ => return step.k != 0,
            };
            // The kernel drops a frame that ends before what is asked for.
            let Some(loaded) = loaded else { return false };
            if step.code == 0xb1 { x = loaded } else { a = loaded }
        }
    }

    fn frame(kind: u16, protocol: u8, fragment: u16, ihl: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 14 + usize::from(ihl) * 4 + 8];
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        frame[14] = 0x40 | ihl;
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        frame[23] = protocol;
        let at = 14 + usize::from(ihl) * 4 + 2;
        frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn the_filter_passes_arp_and_dhcp_only() {
        assert!(passes(&frame(0x0806, 0, 0, 5, 0)));
        assert!(passes(&frame(0x0800, 17, 0, 5, 68)));
        assert!(passes(&frame(0x0800, 17, 0x4000, 15, 68)), "options in the IP header, and the bit not to cut it");
        assert!(!passes(&frame(0x0800, 17, 0, 5, 67)));
        assert!(!passes(&frame(0x0800, 17, 1, 5, 68)));
        assert!(!passes(&frame(0x0800, 6, 0, 5, 68)));
        assert!(!passes(&frame(0x86dd, 17, 0, 5, 68)));
        assert!(!passes(&[0; 13]));
    }

    #[test]
    fn a_card_that_is_not_there_is_an_error() {
        let mut card = pnet_datalink::interfaces().into_iter().find(NetworkInterface::is_loopback).unwrap();
        card.index = 0x7fff_fff0;
        assert!(Frames::open(&card, Duration::from_millis(1)).is_err());
    }
}
