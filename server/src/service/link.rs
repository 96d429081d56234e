//! The server's end of one control link: a socket and the encrypted channel in it.

use mio::net::TcpStream;
use slidecast_net::control::{Came, ControlError, ControlPipe};
use slidecast_net::text::os_error_text;
use slidecast_proto::approval::HeldId;
use slidecast_proto::control::{ToAgent, ToServer};
use slidecast_proto::door::Place;
use slidecast_proto::noise::{Channel, ChannelError, PublicKey, SendError};
use slidecast_proto::units::{NodeId, Time};
use slidecast_proto::wire::Malformed;
use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown};

/// How many reads make a turn.
const MAX_READS: usize = 8;
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

impl From<ControlError> for Broken {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Io(error) => Self::Io(error),
            ControlError::Closed => Self::Closed,
            ControlError::Channel(error) => Self::Channel(error),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "its control link broke: {}", os_error_text(error)),
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
    pipe: ControlPipe<TcpStream>,
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
        Self {
            pipe: ControlPipe::new(socket, channel),
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
        let stage = u8::from(self.spoke) + u8::from(self.pipe.channel().is_open());
        Place { address: self.address, since: self.since, stage }
    }

    pub(super) fn socket(&mut self) -> &mut TcpStream {
        self.pipe.socket_mut()
    }

    /// The key that the agent has proven to have; none with `--insecure`.
    pub(super) fn peer_key(&self) -> Option<PublicKey> {
        self.pipe.channel().peer_key()
    }

    /// The hash of the handshake, once it is over.
    pub(super) fn handshake_hash(&self) -> Option<[u8; 32]> {
        self.pipe.channel().handshake_hash()
    }

    /// Takes some of what has come. Messages are put in `messages`, also those before an error. Gives whether more may
    /// be waiting.
    pub(super) fn read(&mut self, messages: &mut Vec<ToServer>) -> Result<bool, Broken> {
        let mut buffer = [0; READ_LEN];
        for _ in 0..MAX_READS {
            let came = match self.standing {
                Standing::Parting => self.pipe.drain(&mut buffer),
                _ => self.pipe.read(&mut buffer),
            };
            while let Some(message) = self.pipe.poll_message() {
                messages.push(ToServer::parse(&message).map_err(Broken::Malformed)?);
            }
            match came? {
                Came::Bytes => self.spoke = true,
                Came::Nothing => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Seals an order for sending.
    pub(super) fn send(&mut self, order: &ToAgent) -> Result<(), Broken> {
        self.pipe.send(&order.encode()).map_err(Broken::Unread)
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn write(&mut self) -> Result<(), Broken> {
        self.pipe.write()?;
        Ok(())
    }

    /// Begins to part: what waits still goes out, then this side is closed. The link stays until the agent has closed
    /// too, because closing with unread bytes in the socket would tear down what it has not read yet.
    pub(super) fn part(&mut self, now: Time) {
        if self.standing != Standing::Parting {
            (self.standing, self.since) = (Standing::Parting, now);
        }
        if self.write().is_ok() && self.pipe.unwritten() == 0 {
            // Failing means that it is closed already.
            let _ = self.pipe.socket().shutdown(Shutdown::Write);
        }
    }
}
