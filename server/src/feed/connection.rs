//! One connection from the server to the head of a chain: drives the [`Feed`] machine over a socket.

use super::incoming::{Got, Incoming};
use super::outgoing::{Outgoing, WriteError};
use super::readahead::Readahead;
use super::{FeedContext, FeedOrder};
use crate::failure::one_line;
use mio::net::TcpStream;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{SetStruct, TcpUserTimeout};
use slidecast_image::{Resolved, StoredRef};
use slidecast_proto::feed::{BlockFrame, Feed, FeedTransmit, Source};
use slidecast_proto::frame::HeaderError;
use slidecast_proto::link::{LinkFault, SenderEvent};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, PartNo, Time};
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;

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
    /// The rules of the link were broken, or the head went silent.
    Fault(LinkFault),
    /// A block in the image file is not what it should be; nothing the network could help with.
    Image {
        /// The block.
        block: BlockNo,
        /// File, place and fault in one line.
        detail: String,
    },
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Closed => f.write_str("the head closed the connection"),
            Self::Fault(fault) => fault.fmt(f),
            Self::Image { detail, .. } => f.write_str(detail),
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<LinkFault> for ConnectionError {
    fn from(fault: LinkFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<HeaderError> for ConnectionError {
    fn from(error: HeaderError) -> Self {
        Self::Fault(error.into())
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
    machine: Feed,
    source: FromImage,
    todo: BlockSet,
    readahead: Readahead,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Connection {
    /// Starts to connect to the head that `order` names.
    pub(crate) fn open(order: &FeedOrder, context: &FeedContext) -> io::Result<Self> {
        let socket = TcpStream::connect(order.address)?;
        socket.set_nodelay(true)?;
        setsockopt(&socket, NotSentLowat, &UNSENT)?;
        setsockopt(&socket, TcpUserTimeout, &USER_TIMEOUT_MS)?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let (terms, todo) = (order.terms.clone(), order.blocks.clone());
        let machine = Feed::new(terms, context.shape.clone(), todo, nonce, context.clock.now());
        Ok(Self {
            socket,
            machine,
            source: FromImage { image: context.image.clone(), part: RefCell::default() },
            todo: order.blocks.clone(),
            readahead: Readahead::new(),
            incoming: Incoming::new(),
            outgoing: Outgoing::default(),
        })
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Whether the head has proven its link key.
    pub(crate) fn is_proven(&self) -> bool {
        self.machine.is_proven()
    }

    /// Whether everything of the pass was given to the kernel.
    pub(crate) fn is_drained(&self) -> bool {
        self.machine.is_drained() && self.outgoing.is_empty()
    }

    /// Whether the socket has not taken all that it was given, or the head gives no credit for what comes next.
    pub(crate) fn is_sending(&self) -> bool {
        !self.outgoing.is_empty() || self.machine.waits_for_credit()
    }

    /// When to call [`Self::turn`] at the latest.
    pub(crate) fn deadline(&self) -> Time {
        self.machine.deadline()
    }

    /// Takes what came, and writes at most one more frame.
    pub(crate) fn turn(&mut self, now: Time) -> Result<Turn, ConnectionError> {
        let heard = self.read(now)?;
        self.machine.on_time(now)?;
        if self.outgoing.is_empty() {
            self.refill();
        }
        if self.outgoing.is_empty() {
            return Ok(Turn { written: 0, idle: !heard });
        }
        let image = self.source.image.as_ref();
        let (written, more) = self.outgoing.write(&self.socket, image).map_err(|error| in_words(error, image))?;
        if written > 0 {
            self.machine.on_transmitted(now);
        }
        Ok(Turn { written, idle: !more && !heard })
    }

    /// Reads once; gives whether there may be more.
    fn read(&mut self, now: Time) -> Result<bool, ConnectionError> {
        match self.incoming.read(&mut self.socket)? {
            Got::Nothing => return Ok(false),
            Got::Closed => return Err(ConnectionError::Closed),
            Got::Bytes => self.machine.on_alive(now),
        }
        while let Some((header, payload)) = self.incoming.next_frame()? {
            if let SenderEvent::Again(block) = self.machine.on_frame(&header, &payload, now)? {
                // Damaged on the way, or on our own disk? The head asks again once, then it gives the link up.
                let rotten = |error| ConnectionError::Image { block, detail: one_line(&error) };
                self.source.image.check_block(block).map_err(rotten)?;
                self.machine.resend(block);
            }
        }
        Ok(true)
    }

    /// Queues the next frame, if there is one and credit covers it.
    fn refill(&mut self) {
        match self.machine.poll_transmit(&self.source) {
            None => {}
            Some(FeedTransmit::Bytes(bytes)) => self.outgoing.push_bytes(bytes.into(), false),
            Some(FeedTransmit::Shared(header, bytes)) => {
                self.outgoing.push_bytes(header.into(), true);
                self.outgoing.push_bytes(bytes, false);
            }
            Some(FeedTransmit::Block(header, block)) => {
                let image = &self.source.image;
                let stored = image.stored(block).expect("the machine sends blocks that the source said are stored");
                self.readahead.sent(image, &self.todo, block, stored.stored_len);
                self.outgoing.push_bytes(header.into(), true);
                self.outgoing.push_payload(block, &stored);
            }
        }
    }
}

/// Where the machine gets what it sends.
#[derive(Debug)]
struct FromImage {
    image: Arc<Resolved>,
    /// The part made last: while it waits for credit it is asked for again and again.
    part: RefCell<Option<(PartNo, Arc<[u8]>)>>,
}

impl Source for FromImage {
    fn manifest(&self) -> Arc<[u8]> {
        self.image.header_bytes().into()
    }

    fn part(&self, part: PartNo) -> Arc<[u8]> {
        let mut made = self.part.borrow_mut();
        match &*made {
            Some((last, bytes)) if *last == part => bytes.clone(),
            _ => made.insert((part, self.image.part_bytes(part).into())).1.clone(),
        }
    }

    fn block(&self, block: BlockNo) -> Option<BlockFrame> {
        let StoredRef { codec, raw_len, stored_len, crc, .. } = self.image.stored(block)?;
        Some(BlockFrame { codec: codec as u8, raw_len, stored_len, crc })
    }
}

fn in_words(error: WriteError, image: &Resolved) -> ConnectionError {
    match error {
        WriteError::Connection(error) => ConnectionError::Io(error),
        WriteError::Image { block, layer, offset, source } => {
            let path = image.path(layer).display();
            let detail = format!("reading block {block} at {offset} of {path}: {source}");
            ConnectionError::Image { block, detail }
        }
    }
}
