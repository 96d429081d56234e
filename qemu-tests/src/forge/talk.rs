//! Both ends of a chain link as a forger plays them: honest up to some step, with the right key, then not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use slidecast_proto::frame::{HEADER_LEN, Header, Kind};
use slidecast_proto::link::{Receiver, ReceiverEvent, Sender, SenderEvent, Terms};
use slidecast_proto::set::BlockSet;

use super::frames;
use super::sample::Sample;
use crate::disk::random::Random;
use crate::peer::Clock;

/// The longest that a forger plays one link.
const LONGEST: Duration = Duration::from_millis(400);
/// The longest payload that a forger takes.
const MAX_PAYLOAD: u32 = 16 << 20;

/// Reads a frame. What does not come within the socket's timeout is an error.
fn read(socket: &mut TcpStream) -> io::Result<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    socket.read_exact(&mut head)?;
    let header = Header::parse(&head).map_err(io::Error::other)?;
    if header.payload_len > MAX_PAYLOAD {
        return Err(io::Error::other("too long"));
    }
    let mut payload = vec![0; header.payload_len as usize];
    socket.read_exact(&mut payload)?;
    Ok((header, payload))
}

fn limits(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(150)))?;
    socket.set_write_timeout(Some(LONGEST))
}

/// Plays the upstream of whoever listens at `to`.
pub(super) fn upstream(to: SocketAddr, terms: &Terms, sample: &Sample, random: &mut Random) -> io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&to, LONGEST)?;
    limits(&socket)?;
    let clock = Clock::start();
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&random.bytes(16));
    let mut sender = Sender::new(terms.clone(), nonce, clock.now());
    sender.set_universe(sample.count);
    // How many honest steps there are; the handshake is the first three.
    let honest = random.below(5 + sample.parts.len() as u64 + sample.blocks.len() as u64 / 2);
    let lie = |socket: &mut TcpStream, random: &mut Random| -> io::Result<()> {
        (0..=random.below(5)).try_for_each(|_| socket.write_all(&frames::down(random, sample, terms)))
    };
    if honest == 0 {
        return lie(&mut socket, random);
    }
    while let Some(bytes) = sender.poll_control() {
        socket.write_all(&bytes)?;
    }
    if honest == 1 {
        return lie(&mut socket, random);
    }
    let until = Instant::now() + LONGEST;
    while !sender.is_open() && Instant::now() < until {
        let (header, payload) = read(&mut socket)?;
        if let SenderEvent::Proven { has_header } =
            sender.on_frame(&header, &payload, clock.now()).map_err(io::Error::other)?
        {
            while let Some(bytes) = sender.poll_control() {
                socket.write_all(&bytes)?;
            }
            if honest == 2 {
                lie(&mut socket, random)?;
            }
            if !has_header {
                let header = Header::with_payload(Kind::Manifest, terms.deployment, 0, &sample.header);
                socket.write_all(&[&header.encode()[..], &sample.header].concat())?;
            }
        }
    }
    for at in 0..usize::try_from(honest.saturating_sub(3)).unwrap_or(0) {
        let Some(bytes) = frames::honest(sample, terms, at) else { break };
        socket.write_all(&bytes)?;
    }
    lie(&mut socket, random)?;
    // Long enough to see what becomes of it.
    while Instant::now() < until && random.below(3) > 0 {
        read(&mut socket)?;
    }
    Ok(())
}

/// Plays the downstream of whoever calls at `listener`.
pub(super) fn downstream(
    listener: &TcpListener,
    terms: &Terms,
    sample: &Sample,
    random: &mut Random,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + LONGEST;
    let mut socket = loop {
        match listener.accept() {
            Ok((socket, _)) => break socket,
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    socket.set_nonblocking(false)?;
    limits(&socket)?;
    let clock = Clock::start();
    let honest = random.below(12);
    let lie = |socket: &mut TcpStream, random: &mut Random| -> io::Result<()> {
        (0..=random.below(5)).try_for_each(|_| socket.write_all(&frames::up(random, sample, terms)))
    };
    if honest == 0 {
        return lie(&mut socket, random);
    }
    let (header, payload) = read(&mut socket)?;
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&random.bytes(16));
    let mut receiver =
        Receiver::answer(terms.clone(), &header, &payload, false, nonce, clock.now()).map_err(io::Error::other)?;
    let (mut step, until) = (0, Instant::now() + LONGEST);
    while step < honest && Instant::now() < until {
        while let Some(bytes) = receiver.poll_control() {
            socket.write_all(&bytes)?;
        }
        step += 1;
        let (header, payload) = read(&mut socket)?;
        if header.kind == Kind::Block {
            receiver.on_block(&header, clock.now()).map_err(io::Error::other)?;
            receiver.on_block_complete(slidecast_proto::units::BlockNo(header.number));
        } else if let ReceiverEvent::Manifest =
            receiver.on_frame(&header, &payload, clock.now()).map_err(io::Error::other)?
        {
            receiver.say_lacks(&BlockSet::empty(sample.count).complement());
        }
        receiver.on_time(0, 4 << 20, 4 << 20, clock.now()).map_err(io::Error::other)?;
    }
    while let Some(bytes) = receiver.poll_control() {
        socket.write_all(&bytes)?;
    }
    lie(&mut socket, random)?;
    while Instant::now() < until && random.below(3) > 0 {
        read(&mut socket)?;
    }
    Ok(())
}
