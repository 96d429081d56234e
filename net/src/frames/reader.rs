//! Cuts what a socket gives into frames.
//!
//! Reading asks for the rest of a payload and the next header in one call, and never for more: whatever was read belongs to
//! one frame and lies where it is to stay. The payload's CRC is computed piece by piece, while the bytes are still in the
//! processor's cache.

use super::Moved;
use crate::text::os_error_text;
use slidecast_proto::frame::{HEADER_LEN, Header, HeaderError, Kind};
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::ops::DerefMut;

/// The most bytes of a payload that one call asks for: what the second-level cache holds for the CRC.
const MAX_READ: usize = 512 << 10;

/// Something that came in complete. `S` is where payloads of blocks go.
#[derive(Debug)]
pub enum Arrival<S> {
    /// The header of a block. Its payload stays in the socket until [`FrameReader::receive_into`] or
    /// [`FrameReader::skip`] says what becomes of it.
    Announced(Header),
    /// A block with its payload.
    Block {
        /// Its header.
        header: Header,
        /// Its payload.
        payload: S,
        /// The CRC-32 of the payload as it came.
        crc: u32,
    },
    /// A block that was skipped has gone by.
    Skipped(Header),
    /// A frame of any other kind.
    Control(Header, Vec<u8>),
}

/// Why nothing more can be read from a connection.
#[derive(Debug)]
pub enum ReadError {
    /// The bytes are no frame.
    Header(HeaderError),
    /// A block, or a frame with so long a payload as only a trusted other end may send.
    Early(Header),
    /// The other end closed the connection.
    Closed,
    /// The connection broke.
    Io(io::Error),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Early(header) => {
                write!(f, "{:?} frame of {} bytes before the link key was proven", header.kind, header.payload_len)
            }
            Self::Closed => f.write_str("closed by the other end"),
            Self::Io(error) => f.write_str(&os_error_text(error)),
        }
    }
}

impl std::error::Error for ReadError {}

/// The payload that is coming in.
#[derive(Debug)]
struct Body<S> {
    header: Header,
    filled: usize,
    into: Into<S>,
}

#[derive(Debug)]
enum Into<S> {
    Memory(Vec<u8>),
    Slot(S, crc32fast::Hasher),
    Nowhere(Box<[u8]>),
}

impl<S: DerefMut<Target = [u8]>> Body<S> {
    fn left(&self) -> usize {
        self.header.payload_len as usize - self.filled
    }

    /// Where the next bytes go: at most all that is left.
    fn room(&mut self) -> &mut [u8] {
        let (from, len) = (self.filled, self.left().min(MAX_READ));
        match &mut self.into {
            Into::Memory(memory) => &mut memory[from..from + len],
            Into::Slot(slot, _) => &mut slot[from..from + len],
            Into::Nowhere(scratch) => {
                let len = len.min(scratch.len());
                &mut scratch[..len]
            }
        }
    }

    fn took(&mut self, bytes: usize) {
        if let Into::Slot(slot, crc) = &mut self.into {
            crc.update(&slot[self.filled..self.filled + bytes]);
        }
        self.filled += bytes;
    }

    fn complete(self) -> Arrival<S> {
        let header = self.header;
        match self.into {
            Into::Memory(payload) => Arrival::Control(header, payload),
            Into::Nowhere(_) => Arrival::Skipped(header),
            Into::Slot(payload, crc) => Arrival::Block { header, payload, crc: crc.finalize() },
        }
    }
}

/// Cuts what a socket gives into frames; payloads of blocks go into an `S`.
#[derive(Debug)]
pub struct FrameReader<S> {
    head: [u8; HEADER_LEN],
    head_filled: usize,
    body: Option<Body<S>>,
    announced: Option<Header>,
    /// The longest payload that may come, in bytes; nothing: frames of all kinds may.
    max_payload: Option<u32>,
    payload_bytes: usize,
}

impl<S: DerefMut<Target = [u8]>> FrameReader<S> {
    /// A reader that takes no blocks, and other frames with a payload of at most `max_payload` bytes.
    #[must_use]
    pub fn new(max_payload: u32) -> Self {
        Self {
            head: [0; HEADER_LEN],
            head_filled: 0,
            body: None,
            announced: None,
            max_payload: Some(max_payload),
            payload_bytes: 0,
        }
    }

    /// Takes frames of every kind from now on.
    pub fn trust(&mut self) {
        self.max_payload = None;
    }

    /// How many bytes of payloads came in since the last call.
    pub fn take_payload_bytes(&mut self) -> usize {
        std::mem::take(&mut self.payload_bytes)
    }

    /// How much of the payload that is coming in is missing.
    #[must_use]
    pub fn left(&self) -> usize {
        self.body.as_ref().map_or(0, Body::left)
    }

    /// The block whose payload waits for a place to go.
    #[must_use]
    pub fn announced(&self) -> Option<&Header> {
        self.announced.as_ref()
    }

    /// Says where the payload of the announced block goes. The slot has its length.
    pub fn receive_into(&mut self, slot: S) {
        self.start(Into::Slot(slot, crc32fast::Hasher::new()));
    }

    /// Lets the payload of the announced block go by.
    pub fn skip(&mut self) {
        self.start(Into::Nowhere(vec![0; 64 << 10].into()));
    }

    fn start(&mut self, into: Into<S>) {
        if let Some(header) = self.announced.take() {
            self.body = Some(Body { header, filled: 0, into });
        }
    }

    /// The next thing that is complete.
    ///
    /// # Errors
    /// [`ReadError::Header`] or [`ReadError::Early`]: the caller hangs up.
    pub fn poll(&mut self) -> Result<Option<Arrival<S>>, ReadError> {
        if let Some(body) = self.body.take_if(|body| body.left() == 0) {
            return Ok(Some(body.complete()));
        }
        if self.body.is_some() || self.announced.is_some() || self.head_filled < HEADER_LEN {
            return Ok(None);
        }
        let header = Header::parse(&self.head).map_err(ReadError::Header)?;
        self.head_filled = 0;
        if self.max_payload.is_some_and(|max| header.kind == Kind::Block || header.payload_len > max) {
            return Err(ReadError::Early(header));
        }
        if header.kind == Kind::Block {
            self.announced = Some(header);
            return Ok(Some(Arrival::Announced(header)));
        }
        let body = Body { header, filled: 0, into: Into::Memory(vec![0; header.payload_len as usize]) };
        if header.payload_len == 0 {
            return Ok(Some(body.complete()));
        }
        self.body = Some(body);
        Ok(None)
    }

    /// Reads once from `source`, unless a block waits for its place. A source that would block, or
    /// that gave less than was asked for, is blocked for now.
    ///
    /// # Errors
    /// [`ReadError::Closed`] or [`ReadError::Io`].
    pub fn read(&mut self, source: &mut impl Read) -> Result<Moved, ReadError> {
        let head = &mut self.head[self.head_filled..];
        let (asked, result) = match &mut self.body {
            _ if self.announced.is_some() => return Ok(Moved { bytes: 0, blocked: false }),
            None => (head.len(), source.read(head)),
            Some(body) => {
                let left = body.left();
                let room = body.room();
                if room.len() == left {
                    (left + head.len(), source.read_vectored(&mut [IoSliceMut::new(room), IoSliceMut::new(head)]))
                } else {
                    (room.len(), source.read(room))
                }
            }
        };
        match result {
            Ok(0) if asked > 0 => Err(ReadError::Closed),
            Ok(bytes) => {
                let of_body = self.body.as_mut().map_or(0, |body| {
                    let of_body = bytes.min(body.left());
                    body.took(of_body);
                    of_body
                });
                self.payload_bytes += of_body;
                self.head_filled += bytes - of_body;
                Ok(Moved { bytes, blocked: bytes < asked })
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Moved { bytes: 0, blocked: true }),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Moved { bytes: 0, blocked: false }),
            Err(error) => Err(ReadError::Io(error)),
        }
    }
}
