//! Noise for tests: random datagrams and random bytes, sent to a server or an agent in the lab.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::disk::random::Random;
use crate::error::{LabError, Result};

/// Sends `count` datagrams of random bytes and random lengths, half of them behind the magic of a discovery datagram.
///
/// # Errors
/// When no socket can be had.
pub fn datagrams(to: SocketAddr, count: u32) -> Result<()> {
    let io = |doing| LabError::io(doing, to.to_string());
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(io("binding a socket for"))?;
    let mut random = Random::new(7);
    for i in 0..count {
        let len = usize::try_from(random.below(1400)).unwrap_or(0);
        let mut bytes = random.bytes(len);
        if i % 2 == 0 && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"SLIDESEK");
            bytes.truncate(96);
        }
        // Refused or lost ones are part of it.
        let _ = socket.send_to(&bytes, to);
    }
    Ok(())
}

/// Makes `count` connections, one after the other, and sends up to 256 KiB of random bytes into each, every other one
/// behind the magic of a control link.
///
/// # Errors
/// When a connection is refused.
pub fn connections(to: SocketAddr, count: u32) -> Result<()> {
    let mut random = Random::new(8);
    for i in 0..count {
        let limit = Duration::from_secs(5);
        let mut stream =
            TcpStream::connect_timeout(&to, limit).map_err(LabError::io("connecting to", to.to_string()))?;
        let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
        let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
        let len = usize::try_from(random.below(256 * 1024)).unwrap_or(0);
        let mut bytes = random.bytes(len);
        if i % 2 == 0 && bytes.len() >= 16 {
            bytes[..8].copy_from_slice(b"SLIDECTL");
            bytes[8..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        }
        // The other side may hang up at any byte: that is the point.
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0; 64]);
    }
    Ok(())
}
