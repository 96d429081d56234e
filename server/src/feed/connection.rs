//! One connection from the server to the head of a chain: the [`Feed`] machine's frames over a socket.

use super::outgoing::{Outgoing, WriteError};
use super::source::FromImage;
use crate::failure::one_line;
use mio::net::TcpStream;
use slidecast_image::Resolved;
use slidecast_net::frames::{Arrival, FrameReader, ReadError};
use slidecast_net::options::{limit_unacknowledged, limit_unsent};
use slidecast_proto::feed::{Feed, FeedOrder, FeedTransmit};
use slidecast_proto::frame::{Header, HeaderError, Kind};
use slidecast_proto::link::LinkFault;
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::Time;
use std::fmt;
use std::io;
use std::time::Duration;

/// The most unsent bytes the kernel holds for a link: what is behind them stays able to change its mind. A call may
/// overshoot by one pipe's worth (64 KiB), so that it stays within 512 KiB.
const MAX_UNSENT: u32 = 448 << 10;
/// How long the kernel tries to get bytes acknowledged: a head whose process stands still that long is called again.
const USER_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest payload that a head may send, in bytes: one segment of a set.
const MAX_PAYLOAD: u32 = 64 << 10;
/// How much is read from the head before the rest has its turn, in bytes.
const READ_TURN: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum ConnectionError {
    /// The system said so.
    Io(io::Error),
    /// The head hung up.
    Closed,
    /// What came is no frame, or none that a head may send.
    Link(LinkFault),
    /// A block in the image file is not what it must be, which no other connection could help with: file, place and fault in one
    /// line.
    Image(String),
}

impl ConnectionError {
    /// The fault of the link, or else the fault of the image.
    pub(crate) fn into_fault(self) -> Result<LinkFault, String> {
        match self {
            Self::Image(detail) => Err(detail),
            Self::Link(fault) => Ok(fault),
            Self::Io(_) | Self::Closed => Ok(LinkFault::Broken(self.to_string())),
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Closed => f.write_str("the head closed the connection"),
            Self::Link(fault) => fault.fmt(f),
            Self::Image(detail) => f.write_str(detail),
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ReadError> for ConnectionError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Header(error) => Self::Link(error.into()),
            ReadError::Early(Header { kind: Kind::Block, .. }) => Self::Link(LinkFault::Unexpected(Kind::Block)),
            ReadError::Early(header) => Self::Link(HeaderError::Length(header.kind, header.payload_len).into()),
            ReadError::Closed => Self::Closed,
            ReadError::Io(error) => Self::Io(error),
        }
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
    incoming: FrameReader<Vec<u8>>,
    outgoing: Outgoing,
}

impl Connection {
    /// Starts to connect to the head that `order` names.
    pub(crate) fn open(order: &FeedOrder, source: FromImage) -> io::Result<Self> {
        let socket = TcpStream::connect(order.address)?;
        socket.set_nodelay(true)?;
        limit_unsent(&socket, MAX_UNSENT)?;
        limit_unacknowledged(&socket, USER_TIMEOUT)?;
        Ok(Self {
            socket,
            source,
            todo: order.blocks.clone(),
            incoming: FrameReader::new(MAX_PAYLOAD),
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

    /// Reads what has come; gives whether it was anything, and so whether there may be more.
    fn read(&mut self, machine: &mut Feed, now: Time) -> Result<bool, ConnectionError> {
        let mut read = 0;
        while machine.has_link() && read < READ_TURN {
            let moved = self.incoming.read(&mut self.socket)?;
            if moved.bytes > 0 {
                read += moved.bytes;
                machine.on_alive(now);
            }
            while machine.has_link()
                && let Some(arrival) = self.incoming.poll()?
            {
                if let Arrival::Control(header, payload) = arrival {
                    self.take(machine, &header, &payload, now)?;
                }
            }
            if moved.blocked {
                break;
            }
        }
        Ok(read > 0)
    }

    fn take(&self, machine: &mut Feed, header: &Header, payload: &[u8], now: Time) -> Result<(), ConnectionError> {
        if let Some(block) = machine.on_frame(header, payload, now) {
            // Damaged on the way, or on our own disk? The head asks again once, then it gives the link up.
            self.source.image().check_block(block).map_err(|error| ConnectionError::Image(one_line(&error)))?;
            machine.resend(block);
        }
        Ok(())
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
                self.source.sent(&self.todo, block, stored.stored_len);
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
