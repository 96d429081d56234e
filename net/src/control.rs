//! One end of a control link: a socket and the encrypted channel in it.
//!
//! Both ends read and write in the same way; what they do with messages, and when they give the link up, is their own. Every buffer is
//! bounded: the channel's own, and one write at a time.

use slidecast_proto::noise::{Channel, ChannelError, SendError};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

/// Why a control link is over.
#[derive(Debug)]
pub enum ControlError {
    /// The connection broke.
    Io(io::Error),
    /// The other end closed the connection.
    Closed,
    /// The two ends do not agree on the channel.
    Channel(ChannelError),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "connection broken: {}", crate::text::os_error_text(error)),
            Self::Closed => f.write_str("closed by the other end"),
            Self::Channel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Some bytes, and there may be more.
    Bytes,
    /// Nothing for now.
    Nothing,
}

/// What a socket took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// How many bytes.
    pub bytes: usize,
    /// The socket takes no more until its next event, and something is left.
    pub blocked: bool,
}

/// One end of a control link.
#[derive(Debug)]
pub struct ControlPipe<S> {
    socket: S,
    channel: Channel,
    /// What was sealed for the socket, and how much of it the socket has taken.
    out: Vec<u8>,
    written: usize,
}

impl<S> ControlPipe<S> {
    /// A new connection, on which the handshake of `channel` is to be made.
    #[must_use]
    pub fn new(socket: S, channel: Channel) -> Self {
        Self { socket, channel, out: Vec::new(), written: 0 }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// The socket, to register or to close it.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The same link over the same socket in another form.
    pub fn map_socket<T>(self, map: impl FnOnce(S) -> T) -> ControlPipe<T> {
        let Self { socket, channel, out, written } = self;
        ControlPipe { socket: map(socket), channel, out, written }
    }

    /// The channel, to ask what it knows of the other end.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Seals a message for sending.
    ///
    /// # Errors
    /// [`SendError`]: the backlog is full, or the handshake is not over.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.channel.send(message)
    }

    /// The next message that has come.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.channel.poll_message()
    }

    /// How many bytes wait for the socket, besides what the channel has not sealed yet.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }
}

impl<S: Read> ControlPipe<S> {
    /// Reads once, as much as `buffer` holds. Messages that came before an error can still be polled.
    ///
    /// # Errors
    /// [`ControlError`]: the link is of no more use.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Came, ControlError> {
        let Some(len) = self.read_once(buffer)? else { return Ok(Came::Nothing) };
        self.channel.on_bytes(&buffer[..len]).map_err(ControlError::Channel)?;
        Ok(Came::Bytes)
    }

    /// Reads once and drops what comes.
    ///
    /// # Errors
    /// [`ControlError::Io`] or [`ControlError::Closed`].
    pub fn drain(&mut self, buffer: &mut [u8]) -> Result<Came, ControlError> {
        Ok(self.read_once(buffer)?.map_or(Came::Nothing, |_| Came::Bytes))
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ControlError> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(ControlError::Closed),
                Ok(len) => return Ok(Some(len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ControlError::Io(error)),
            }
        }
    }
}

impl<S: Write> ControlPipe<S> {
    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// [`ControlError::Io`]: the link is of no more use for writing.
    pub fn write(&mut self) -> Result<Written, ControlError> {
        let mut bytes = 0;
        loop {
            if self.written == self.out.len() {
                self.written = 0;
                self.out = self.channel.poll_transmit().unwrap_or_default();
                if self.out.is_empty() {
                    return Ok(Written { bytes, blocked: false });
                }
            }
            match self.socket.write(&self.out[self.written..]) {
                Ok(len) => (self.written, bytes) = (self.written + len, bytes + len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Written { bytes, blocked: true }),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ControlError::Io(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slidecast_proto::noise::SecretKey;
    use std::collections::VecDeque;

    /// Takes and gives a few bytes at a time, and would block in between.
    #[derive(Debug, Default)]
    struct Narrow {
        incoming: VecDeque<u8>,
        outgoing: Vec<u8>,
        turn: u8,
    }

    impl Narrow {
        fn is_blocked(&mut self) -> bool {
            self.turn = (self.turn + 1) % 3;
            self.turn == 0
        }
    }

    impl Read for Narrow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.is_blocked() || self.incoming.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len = buffer.len().min(7);
            self.incoming.read(&mut buffer[..len])
        }
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_blocked() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len = bytes.len().min(5);
            self.outgoing.write(&bytes[..len])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn messages_arrive_whole_however_little_the_sockets_take() {
        let (agent, server) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let mut ends = [
            ControlPipe::new(Narrow::default(), Channel::agent(&agent, Some(server.public()))),
            ControlPipe::new(Narrow::default(), Channel::server(Some(&server))),
        ];
        let (mut sent, mut messages) = (false, Vec::new());
        for _ in 0..10_000 {
            for (here, there) in [(0, 1), (1, 0)] {
                let blocked = ends[here].write().unwrap().blocked;
                assert_eq!(blocked, ends[here].unwritten() > 0);
                let bytes = std::mem::take(&mut ends[here].socket_mut().outgoing);
                ends[there].socket_mut().incoming.extend(bytes);
                let _ = ends[there].read(&mut [0; 64]).unwrap();
                messages.extend(ends[there].poll_message());
            }
            if !sent && ends.iter().all(|end| end.channel().is_open()) {
                sent = true;
                ends[0].send(b"hello").unwrap();
                ends[1].send(&[9; 1000]).unwrap();
            }
        }
        messages.sort();
        assert_eq!(messages, [vec![9; 1000], b"hello".to_vec()]);
    }
}
