//! One connection from the server to the head of a chain: the [`Feed`] machine's frames over a socket.

use super::incoming::{Got, Incoming};
use super::outgoing::{Outgoing, WriteError};
use super::readahead::Readahead;
use super::source::FromImage;
use crate::failure::one_line;
use mio::net::TcpStream;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{SetStruct, TcpUserTimeout};
use slidecast_image::Resolved;
use slidecast_proto::feed::{Feed, FeedOrder, FeedTransmit};
use slidecast_proto::frame::HeaderError;
use slidecast_proto::link::LinkFault;
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::Time;
use std::fmt;
use std::io;

/// The most unsent bytes the kernel holds for a link: what is behind them stays able to change its mind. A call may
/// overshoot by one pipe's worth (64 KiB), so that it stays within 512 KiB.
const UNSENT: u32 = 448 << 10;
/// The kernel gives a connection up, in milliseconds, when what it sent is not acknowledged for so long; it looks when a
/// retransmission is due, so that takes up to one more. It also gives up one whose other end acknowledges but has had no room for so
/// long (tcp(7), `TCP_USER_TIMEOUT`): a head whose process stands still that long is called again.
const USER_TIMEOUT_MS: u32 = 4000;

/// `TCP_NOTSENT_LOWAT`, tcp(7).
#[derive(Clone, Debug)]
struct NotSentLowat;

nix::setsockopt_impl!(NotSentLowat, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, u32, SetStruct<'_, u32>);

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum ConnectionError {
    /// The system said so.
    Io(io::Error),
    /// The head hung up.
    Closed,
    /// What came is no frame.
    Frame(HeaderError),
    /// A block in the image file is not what it must be, which no other connection could help with: file, place and fault in one
    /// line.
    Image(String),
}

impl ConnectionError {
    /// The fault of the link, or else the fault of the image.
    pub(crate) fn into_fault(self) -> Result<LinkFault, String> {
        match self {
            Self::Image(detail) => Err(detail),
            Self::Frame(error) => Ok(error.into()),
            Self::Io(_) | Self::Closed => Ok(LinkFault::Broken(self.to_string())),
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Closed => f.write_str("the head closed the connection"),
            Self::Frame(error) => error.fmt(f),
            Self::Image(detail) => f.write_str(detail),
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<HeaderError> for ConnectionError {
    fn from(error: HeaderError) -> Self {
        Self::Frame(error)
    }
}

/// What one turn did.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Bytes given to the kernel.
    pub(crate) written: u64,
    /// There is nothing to do until the socket or the clock says so.
    pub(crate) idle: bool,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    source: FromImage,
    todo: BlockSet,
    readahead: Readahead,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Connection {
    /// Starts to connect to the head that `order` names.
    pub(crate) fn open(order: &FeedOrder, source: FromImage) -> io::Result<Self> {
        let socket = TcpStream::connect(order.address)?;
        socket.set_nodelay(true)?;
        setsockopt(&socket, NotSentLowat, &UNSENT)?;
        setsockopt(&socket, TcpUserTimeout, &USER_TIMEOUT_MS)?;
        Ok(Self {
            socket,
            source,
            todo: order.blocks.clone(),
            readahead: Readahead::new(),
            incoming: Incoming::new(),
            outgoing: Outgoing::default(),
        })
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Gives the machine what came, and writes at most one more frame. Where that ends the link, the machine has no link any more.
    pub(crate) fn turn(&mut self, machine: &mut Feed, now: Time) -> Result<Turn, ConnectionError> {
        let heard = self.read(machine, now)?;
        machine.on_time(now);
        if self.outgoing.is_empty() {
            self.refill(machine);
        }
        if self.outgoing.is_empty() {
            return Ok(Turn { written: 0, idle: !heard && machine.has_link() });
        }
        let image = self.source.image();
        let (written, more) = self.outgoing.write(&self.socket, image).map_err(|error| in_words(error, image))?;
        if written > 0 {
            machine.on_transmitted(self.outgoing.is_empty(), now);
        }
        Ok(Turn { written, idle: !more && !heard })
    }

    /// Reads once; gives whether there may be more.
    fn read(&mut self, machine: &mut Feed, now: Time) -> Result<bool, ConnectionError> {
        match self.incoming.read(&mut self.socket)? {
            Got::Nothing => return Ok(false),
            Got::Closed => return Err(ConnectionError::Closed),
            Got::Bytes => machine.on_alive(now),
        }
        while machine.has_link()
            && let Some((header, payload)) = self.incoming.next_frame()?
        {
            if let Some(block) = machine.on_frame(&header, &payload, now) {
                // Damaged on the way, or on our own disk? The head asks again once, then it gives the link up.
                self.source.image().check_block(block).map_err(|error| ConnectionError::Image(one_line(&error)))?;
                machine.resend(block);
            }
        }
        Ok(true)
    }

    /// Queues the next frame, if there is one and credit covers it.
    fn refill(&mut self, machine: &mut Feed) {
        match machine.poll_transmit(&self.source) {
            None => {}
            Some(FeedTransmit::Bytes(bytes)) => self.outgoing.push_bytes(bytes.into(), false),
            Some(FeedTransmit::Shared(header, bytes)) => {
                self.outgoing.push_bytes(header.into(), true);
                self.outgoing.push_bytes(bytes, false);
            }
            Some(FeedTransmit::Block(header, block, stored)) => {
                self.readahead.sent(self.source.image(), &self.todo, block, stored.stored_len);
                self.outgoing.push_bytes(header.into(), true);
                self.outgoing.push_payload(block, &stored);
            }
        }
    }
}

fn in_words(error: WriteError, image: &Resolved) -> ConnectionError {
    match error {
        WriteError::Connection(error) => ConnectionError::Io(error),
        WriteError::Image { block, layer, offset, source } => {
            let path = image.path(layer).display();
            let detail = format!("reading block {block} at {offset} of {path}: {source}");
            ConnectionError::Image(detail)
        }
    }
}
