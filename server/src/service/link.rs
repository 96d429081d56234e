//! The server's end of one control link: a socket and the encrypted channel in it.

use mio::net::TcpStream;
use slidecast_proto::approval::HeldId;
use slidecast_proto::control::{ToAgent, ToServer};
use slidecast_proto::door::Place;
use slidecast_proto::noise::{Channel, ChannelError, PublicKey, SendError};
use slidecast_proto::units::{NodeId, Time};
use slidecast_proto::wire::Malformed;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown};

/// How many reads make a turn.
const READS: usize = 8;
/// How much one read takes, in bytes: far less than what the channel may queue.
const READ_LEN: usize = 64 << 10;

/// Why a control link is over.
#[derive(Debug)]
pub(super) enum Broken {
    /// The system said so.
    Io(io::Error),
    /// The agent hung up.
    Closed,
    /// The two ends don't agree on the channel.
    Channel(ChannelError),
    /// A message that can't be understood, or one out of turn.
    Malformed(Malformed),
    /// The agent does not read what is sent.
    Unread(SendError),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "its control link broke: {error}"),
            Self::Closed => f.write_str("it hung up"),
            Self::Channel(error) => error.fmt(f),
            Self::Malformed(error) => error.fmt(f),
            Self::Unread(error) => error.fmt(f),
        }
    }
}

/// What the other end has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not said hello yet.
    Stranger,
    /// It has said hello and waits for approval.
    Waiting(HeldId),
    /// It is this node.
    Node(NodeId),
    /// Nothing of it counts any more; the last words are on their way.
    Parting,
}

impl Standing {
    /// Whether it may stay for as long as it is heard.
    pub(super) fn may_stay(self) -> bool {
        matches!(self, Self::Node(_) | Self::Waiting(_))
    }
}

/// One control link.
#[derive(Debug)]
pub(super) struct ControlLink {
    socket: TcpStream,
    channel: Channel,
    out: Vec<u8>,
    written: usize,
    /// Where it calls from.
    pub(super) address: IpAddr,
    /// The server's card that it came in on.
    pub(super) card: String,
    /// When it called, or when parting began.
    pub(super) since: Time,
    /// Who it is.
    pub(super) standing: Standing,
    /// It has no place, and is told so.
    pub(super) busy: bool,
    /// Something came that was in order.
    spoke: bool,
}

impl ControlLink {
    pub(super) fn new(socket: TcpStream, channel: Channel, address: IpAddr, card: String, now: Time) -> Self {
        let (out, written) = (Vec::new(), 0);
        Self {
            socket,
            channel,
            out,
            written,
            address,
            card,
            since: now,
            standing: Standing::Stranger,
            busy: false,
            spoke: false,
        }
    }

    /// Its place among those that have not said hello.
    pub(super) fn place(&self) -> Place {
        let stage = u8::from(self.spoke) + u8::from(self.channel.is_open());
        Place { address: self.address, since: self.since, stage }
    }

    pub(super) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The key that the agent has proven to have; none with `--insecure`.
    pub(super) fn peer_key(&self) -> Option<PublicKey> {
        self.channel.peer_key()
    }

    /// The hash of the handshake, once it is over.
    pub(super) fn handshake_hash(&self) -> Option<[u8; 32]> {
        self.channel.handshake_hash()
    }

    /// Takes some of what has come. Messages are put in `messages`, also those before an error. Gives whether more may
    /// be waiting.
    pub(super) fn read(&mut self, messages: &mut Vec<ToServer>) -> Result<bool, Broken> {
        let mut buffer = [0; READ_LEN];
        for _ in 0..READS {
            let len = match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Broken::Closed),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Io(error)),
            };
            if self.standing == Standing::Parting {
                continue;
            }
            let taken = self.channel.on_bytes(&buffer[..len]);
            while let Some(message) = self.channel.poll_message() {
                messages.push(ToServer::parse(&message).map_err(Broken::Malformed)?);
            }
            taken.map_err(Broken::Channel)?;
            self.spoke = true;
        }
        Ok(true)
    }

    /// Seals an order for sending.
    pub(super) fn send(&mut self, order: &ToAgent) -> Result<(), Broken> {
        self.channel.send(&order.encode()).map_err(Broken::Unread)
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn write(&mut self) -> Result<(), Broken> {
        loop {
            if self.written == self.out.len() {
                let Some(bytes) = self.channel.poll_transmit() else { return Ok(()) };
                (self.out, self.written) = (bytes, 0);
            }
            match self.socket.write(&self.out[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Io(error)),
            }
        }
    }

    /// Begins to part: what waits still goes out, then this side is closed. The link stays until the agent has closed
    /// too, because closing with unread bytes in the socket would tear down what it has not read yet.
    pub(super) fn part(&mut self, now: Time) {
        if self.standing != Standing::Parting {
            (self.standing, self.since) = (Standing::Parting, now);
        }
        if self.write().is_ok() && self.written == self.out.len() {
            // Failing means that it is closed already.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }
}
