//! One end of the channel: bytes and messages go in, messages and bytes come out.

use super::keys::{PublicKey, SecretKey};
use super::preface::{End, Mode, PREFACE_LEN, Preface, VERSION, Verdict};
use crate::control::MAX_MESSAGE;
use crate::reason::Reason;
use core::fmt;
use snow::{Builder, HandshakeState, TransportState};
use std::collections::VecDeque;

/// How many bytes of messages may wait for [`Channel::poll_message`]. A caller that polls after every [`Channel::on_bytes`] of at
/// most half of it never gets near.
pub const MAX_QUEUED: usize = 1 << 20;
/// How many bytes may wait for [`Channel::poll_transmit`].
pub const MAX_UNSENT: usize = 1 << 20;

/// What Noise adds to a message.
const TAG: usize = 16;
/// `e` of the insecure pattern, in clear.
const BARE_KEY: usize = 32;
/// `e, es` and `e, ee`: a key in clear, an empty payload.
const SEALED_NOTHING: usize = 48;
/// `s, se`: an encrypted key, an empty payload. The longest handshake message of either pattern, and the last one.
const SEALED_KEY: usize = 64;

/// Why a channel is over. Nothing but [`Channel::poll_transmit`] makes sense after it: what is left there tells the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// The peer is none of us, or its bytes were damaged on the way.
    Garbage {
        /// What was expected.
        expected: &'static str,
    },
    /// The peer speaks another version.
    VersionMismatch {
        /// Ours.
        ours: u8,
        /// The peer's.
        theirs: u8,
    },
    /// `--insecure` was given on one side only.
    InsecureMismatch {
        /// On which.
        insecure: End,
    },
    /// The key that the agent has pinned is not the server's.
    KeyMismatch,
    /// The server takes no more connections now.
    Busy,
    /// More messages wait than [`MAX_QUEUED`]: they were not polled.
    Overrun,
    /// Our own side could not do its part: no random bytes.
    NoRandomness,
}

impl ChannelError {
    /// The reason to report.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Garbage { .. } => Reason::ProtocolError,
            Self::VersionMismatch { .. } => Reason::VersionMismatch,
            Self::InsecureMismatch { .. } => Reason::InsecureMismatch,
            Self::KeyMismatch => Reason::KeyMismatch,
            Self::Busy => Reason::ServerLost,
            Self::Overrun | Self::NoRandomness => Reason::Internal,
        }
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage { expected } => write!(f, "the peer sent something else than a {expected}"),
            Self::VersionMismatch { ours, theirs } => {
                write!(f, "the peer speaks version {theirs} of the protocol, we speak version {ours}")
            }
            Self::InsecureMismatch { insecure } => write!(f, "only the {insecure} was started with --insecure"),
            Self::KeyMismatch => f.write_str("the server's key is not the one that the agent has pinned"),
            Self::Busy => f.write_str("the server takes no more connections now"),
            Self::Overrun => f.write_str("messages arrive faster than they are taken"),
            Self::NoRandomness => f.write_str("the system gave no random bytes"),
        }
    }
}

impl std::error::Error for ChannelError {}

/// Why a message was not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The handshake is not over, or the channel is.
    NotOpen,
    /// The message has so many bytes, more than [`MAX_MESSAGE`].
    TooLong(usize),
    /// More than [`MAX_UNSENT`] bytes wait already: the peer does not read.
    Backlog,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen => f.write_str("the channel is not open"),
            Self::TooLong(len) => write!(f, "a message of {len} bytes is longer than {MAX_MESSAGE}"),
            Self::Backlog => f.write_str("the peer does not read"),
        }
    }
}

impl std::error::Error for SendError {}

/// One end of a control link.
pub struct Channel {
    state: State,
    end: End,
    mode: Mode,
    /// Our half; none in insecure mode.
    secret: Option<SecretKey>,
    /// The peer's key: for the agent the pinned one, for the server the one it was proved.
    peer: Option<PublicKey>,
    /// The hash of the handshake, once it is over.
    hash: [u8; 32],
    /// Of the preface or message that is arriving, what is here. Never more than one.
    partial: Vec<u8>,
    messages: VecDeque<Vec<u8>>,
    queued: usize,
    unsent: Vec<u8>,
}

enum State {
    /// The peer's preface is awaited. A busy server answers it and ends.
    Preface {
        busy: bool,
    },
    /// The peer's next handshake message has `len` bytes.
    Handshake {
        noise: Box<HandshakeState>,
        len: usize,
    },
    Open(Box<TransportState>),
    Over(ChannelError),
}

impl Channel {
    /// The end of an agent. It has pinned `server`; without one the channel is insecure.
    #[must_use]
    pub fn agent(secret: &SecretKey, server: Option<PublicKey>) -> Self {
        let mode = if server.is_some() { Mode::Pinned } else { Mode::Insecure };
        let mut channel = Self::new(End::Agent, mode, server.map(|_| secret.clone()));
        channel.peer = server;
        channel.unsent = Preface::of(mode, Verdict::GoOn).encode().to_vec();
        channel
    }

    /// The end of a server with this key; without one the channel is insecure.
    #[must_use]
    pub fn server(secret: Option<&SecretKey>) -> Self {
        let mode = if secret.is_some() { Mode::Pinned } else { Mode::Insecure };
        Self::new(End::Server, mode, secret.cloned())
    }

    /// The end of a server that has no room for another agent: it says so and ends with [`ChannelError::Busy`].
    #[must_use]
    pub fn busy_server(mode: Mode) -> Self {
        let mut channel = Self::new(End::Server, mode, None);
        channel.state = State::Preface { busy: true };
        channel
    }

    fn new(end: End, mode: Mode, secret: Option<SecretKey>) -> Self {
        Self {
            state: State::Preface { busy: false },
            end,
            mode,
            secret,
            peer: None,
            hash: [0; 32],
            partial: Vec::new(),
            messages: VecDeque::new(),
            queued: 0,
            unsent: Vec::new(),
        }
    }

    /// Takes bytes as they arrive, cut anywhere.
    ///
    /// # Errors
    /// The channel is over, now or since an earlier call. Messages that came before can still be polled.
    pub fn on_bytes(&mut self, mut bytes: &[u8]) -> Result<(), ChannelError> {
        loop {
            let missing = self.wanted()? - self.partial.len();
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            if now.len() < missing {
                return Ok(());
            }
            if let Err(error) = self.on_complete() {
                self.partial = Vec::new();
                self.state = State::Over(error);
                return Err(error);
            }
        }
    }

    /// How long `partial` is when what arrives is complete: a preface, the length of a message, a message with its length.
    fn wanted(&self) -> Result<usize, ChannelError> {
        match (&self.state, &self.partial[..]) {
            (State::Over(error), _) => Err(*error),
            (State::Preface { .. }, _) => Ok(PREFACE_LEN),
            (_, [low, high, ..]) => Ok(2 + usize::from(u16::from_le_bytes([*low, *high]))),
            (_, _) => Ok(2),
        }
    }

    /// Acts on a complete `partial`.
    fn on_complete(&mut self) -> Result<(), ChannelError> {
        if let State::Preface { busy } = self.state {
            let preface = core::mem::take(&mut self.partial);
            return self.on_preface(&preface, busy);
        }
        if self.partial.len() == 2 {
            return self.on_length();
        }
        let message = core::mem::take(&mut self.partial);
        match core::mem::replace(&mut self.state, State::Over(ChannelError::NoRandomness)) {
            State::Handshake { noise, .. } => self.on_handshake(noise, &message[2..]),
            State::Open(mut transport) => {
                let plain = unseal(&mut transport, &message[2..])?;
                self.queued += message.len();
                self.messages.push_back(plain);
                self.state = State::Open(transport);
                if self.queued > MAX_QUEUED { Err(ChannelError::Overrun) } else { Ok(()) }
            }
            state @ (State::Preface { .. } | State::Over(_)) => {
                self.state = state;
                Ok(())
            }
        }
    }

    fn on_preface(&mut self, bytes: &[u8], busy: bool) -> Result<(), ChannelError> {
        let theirs = Preface::parse(bytes).map_err(|_| ChannelError::Garbage { expected: "preface" })?;
        let verdict = self.judge(theirs, busy);
        let agent = match self.end {
            End::Agent => Preface::of(self.mode, Verdict::GoOn).encode(),
            End::Server => {
                let answer = match verdict {
                    Ok(()) => Some(Verdict::GoOn),
                    Err(ChannelError::VersionMismatch { .. }) => Some(Verdict::Version),
                    Err(ChannelError::InsecureMismatch { .. }) => Some(Verdict::Mode),
                    Err(ChannelError::Busy) => Some(Verdict::Busy),
                    Err(_) => None,
                };
                if let Some(answer) = answer {
                    self.unsent.extend_from_slice(&Preface::of(self.mode, answer).encode());
                }
                theirs.encode()
            }
        };
        verdict?;
        let server = Preface::of(self.mode, Verdict::GoOn).encode();
        let noise = self.start(&[agent, server].concat())?;
        let len = if self.mode == Mode::Insecure && self.end == End::Server { BARE_KEY } else { SEALED_NOTHING };
        self.state = self.go_on(noise, len)?;
        Ok(())
    }

    fn judge(&self, theirs: Preface, busy: bool) -> Result<(), ChannelError> {
        if theirs.version != VERSION {
            return Err(ChannelError::VersionMismatch { ours: VERSION, theirs: theirs.version });
        }
        let mode = Mode::from_code(theirs.mode).ok_or(ChannelError::Garbage { expected: "preface" })?;
        if mode != self.mode {
            let insecure = match (self.end, mode) {
                (End::Agent, Mode::Insecure) | (End::Server, Mode::Pinned) => End::Server,
                (End::Server, Mode::Insecure) | (End::Agent, Mode::Pinned) => End::Agent,
            };
            return Err(ChannelError::InsecureMismatch { insecure });
        }
        match theirs.verdict {
            Verdict::Busy if self.end == End::Agent => Err(ChannelError::Busy),
            Verdict::GoOn if busy => Err(ChannelError::Busy),
            Verdict::GoOn => Ok(()),
            _ => Err(ChannelError::Garbage { expected: "preface" }),
        }
    }

    fn start(&self, prologue: &[u8]) -> Result<Box<HandshakeState>, ChannelError> {
        let pattern = match self.mode {
            Mode::Pinned => "Noise_XK_25519_ChaChaPoly_BLAKE2s",
            Mode::Insecure => "Noise_NN_25519_ChaChaPoly_BLAKE2s",
        };
        let build = || {
            let mut builder = Builder::new(pattern.parse()?).prologue(prologue)?;
            if let Some(secret) = &self.secret {
                builder = builder.local_private_key(secret.bytes())?;
            }
            if let Some(peer) = &self.peer {
                builder = builder.remote_public_key(&peer.0)?;
            }
            match self.end {
                End::Agent => builder.build_initiator(),
                End::Server => builder.build_responder(),
            }
        };
        build().map(Box::new).map_err(|_| ChannelError::NoRandomness)
    }

    /// Says what it is our turn to say, and finds out whether that was all; if not, `len` bytes are awaited.
    fn go_on(&mut self, mut noise: Box<HandshakeState>, len: usize) -> Result<State, ChannelError> {
        if noise.is_my_turn() && !noise.is_handshake_finished() {
            let mut message = [0; SEALED_KEY];
            let len = noise.write_message(&[], &mut message).map_err(|_| ChannelError::NoRandomness)?;
            put_message(&mut self.unsent, &message[..len]);
        }
        if !noise.is_handshake_finished() {
            return Ok(State::Handshake { noise, len });
        }
        if self.end == End::Server {
            self.peer = noise.get_remote_static().and_then(|key| key.try_into().ok()).map(PublicKey);
        }
        self.hash = noise.get_handshake_hash().try_into().expect("a hash of BLAKE2s has 32 bytes");
        let transport = noise.into_transport_mode().map_err(|_| ChannelError::NoRandomness)?;
        Ok(State::Open(Box::new(transport)))
    }

    /// Judges the length of a message before a byte of it is kept.
    fn on_length(&self) -> Result<(), ChannelError> {
        let len = self.wanted()? - 2;
        match &self.state {
            // A server that cannot read our first message says so with an empty one.
            State::Handshake { .. } if len == 0 && self.end == End::Agent && self.mode == Mode::Pinned => {
                Err(ChannelError::KeyMismatch)
            }
            State::Handshake { len: awaited, .. } if len != *awaited => {
                Err(ChannelError::Garbage { expected: "handshake message" })
            }
            State::Open(_) if !(TAG..=MAX_MESSAGE + TAG).contains(&len) => {
                Err(ChannelError::Garbage { expected: "message" })
            }
            _ => Ok(()),
        }
    }

    fn on_handshake(&mut self, mut noise: Box<HandshakeState>, message: &[u8]) -> Result<(), ChannelError> {
        let mut payload = [0; SEALED_KEY];
        match noise.read_message(message, &mut payload) {
            Ok(_) => {
                self.state = self.go_on(noise, SEALED_KEY)?;
                Ok(())
            }
            // A caller that pinned another key sealed its first message for that key; the answer is sealed by the key it was for.
            Err(snow::Error::Decrypt) if self.mode == Mode::Pinned && message.len() == SEALED_NOTHING => {
                if self.end == End::Server {
                    put_message(&mut self.unsent, &[]);
                }
                Err(ChannelError::KeyMismatch)
            }
            Err(_) => Err(ChannelError::Garbage { expected: "handshake message" }),
        }
    }

    /// The next message, decrypted.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        let message = self.messages.pop_front()?;
        self.queued -= 2 + message.len() + TAG;
        Some(message)
    }

    /// Whether the handshake is over: the peer has proved its key, messages can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The peer's key: an agent's pinned server at any time, a server's agent once the channel is open.
    #[must_use]
    pub fn peer_key(&self) -> Option<PublicKey> {
        self.peer
    }

    /// The hash of the handshake: the same at both ends of one channel, another one at every other channel. None before it is over.
    #[must_use]
    pub fn handshake_hash(&self) -> Option<[u8; 32]> {
        self.is_open().then_some(self.hash)
    }

    /// Encrypts a message for [`Self::poll_transmit`].
    ///
    /// # Errors
    /// [`SendError`]; the channel is as before.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        let State::Open(transport) = &mut self.state else { return Err(SendError::NotOpen) };
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLong(message.len()));
        }
        if self.unsent.len() > MAX_UNSENT {
            return Err(SendError::Backlog);
        }
        let mut sealed = vec![0; message.len() + TAG];
        let len = transport.write_message(message, &mut sealed).map_err(|_| SendError::NotOpen)?;
        put_message(&mut self.unsent, &sealed[..len]);
        Ok(())
    }

    /// All bytes that are to go to the peer. Ask for more once these are written: that is what bounds them.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if self.unsent.is_empty() { None } else { Some(core::mem::take(&mut self.unsent)) }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Preface { .. } => "preface",
            State::Handshake { .. } => "handshake",
            State::Open(_) => "open",
            State::Over(_) => "over",
        };
        f.debug_struct("Channel")
            .field("end", &self.end)
            .field("mode", &self.mode)
            .field("state", &state)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Appends a message with its length in front.
fn put_message(out: &mut Vec<u8>, message: &[u8]) {
    let len = u16::try_from(message.len()).expect("no message is longer than MAX_MESSAGE and a tag");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(message);
}

fn unseal(transport: &mut TransportState, sealed: &[u8]) -> Result<Vec<u8>, ChannelError> {
    let mut plain = vec![0; sealed.len()];
    let len = transport.read_message(sealed, &mut plain).map_err(|_| ChannelError::Garbage { expected: "message" })?;
    plain.truncate(len);
    Ok(plain)
}
