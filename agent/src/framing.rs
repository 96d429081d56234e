//! Frames on a socket: payloads of blocks go straight into the ring and out of it, everything else through small buffers.
//!
//! Reading asks for the rest of a payload and the next header in one call, and never for more: whatever was read belongs to
//! one frame and lies where it is to stay. The payload's CRC is computed piece by piece, while the bytes are still in the
//! processor's cache.

use crate::ring::{Slot, Span};
use crate::target::plain;
use slidecast_proto::frame::{HEADER_LEN, Header, HeaderError, Kind};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::sync::Arc;

/// The most bytes of a payload that one call asks for: what the second-level cache holds for the CRC.
const READ_MOST: usize = 512 << 10;
/// The longest payload that a stranger may send: any frame of the handshake fits.
const STRANGER_MOST: u32 = 512;

/// Something that came in complete.
#[derive(Debug)]
pub enum Arrival {
    /// The header of a block. Its payload stays in the socket until [`FrameReader::receive_into`] or
    /// [`FrameReader::skip`] says what becomes of it.
    Announced(Header),
    /// A block with its payload.
    Block {
        /// Its header.
        header: Header,
        /// Its payload.
        payload: Slot,
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
    /// A frame that only a proven neighbour may send.
    Early(Kind),
    /// The other end closed the connection.
    Closed,
    /// The connection broke.
    Io(io::Error),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Early(kind) => write!(f, "{kind:?} frame before the link key was proven"),
            Self::Closed => f.write_str("closed by the other end"),
            Self::Io(error) => f.write_str(&plain(error)),
        }
    }
}

impl std::error::Error for ReadError {}

/// What one call to a socket moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How many bytes.
    pub bytes: usize,
    /// It was less than was asked for: the socket has no more, or takes no more, until its next event.
    pub blocked: bool,
}

/// The payload that is coming in.
#[derive(Debug)]
struct Body {
    header: Header,
    filled: usize,
    into: Into,
}

#[derive(Debug)]
enum Into {
    Memory(Vec<u8>),
    Ring(Slot, crc32fast::Hasher),
    Nowhere(Box<[u8]>),
}

impl Body {
    fn left(&self) -> usize {
        self.header.payload_len as usize - self.filled
    }

    /// Where the next bytes go: at most all that is left.
    fn room(&mut self) -> &mut [u8] {
        let (from, len) = (self.filled, self.left().min(READ_MOST));
        match &mut self.into {
            Into::Memory(memory) => &mut memory[from..from + len],
            Into::Ring(slot, _) => &mut slot[from..from + len],
            Into::Nowhere(scratch) => {
                let len = len.min(scratch.len());
                &mut scratch[..len]
            }
        }
    }

    fn took(&mut self, bytes: usize) {
        if let Into::Ring(slot, crc) = &mut self.into {
            crc.update(&slot[self.filled..self.filled + bytes]);
        }
        self.filled += bytes;
    }

    fn complete(self) -> Arrival {
        let header = self.header;
        match self.into {
            Into::Memory(payload) => Arrival::Control(header, payload),
            Into::Nowhere(_) => Arrival::Skipped(header),
            Into::Ring(payload, crc) => Arrival::Block { header, payload, crc: crc.finalize() },
        }
    }
}

/// Cuts what a socket gives into frames.
#[derive(Debug)]
pub struct FrameReader {
    head: [u8; HEADER_LEN],
    head_filled: usize,
    body: Option<Body>,
    announced: Option<Header>,
    proven: bool,
    payload_bytes: usize,
}

impl FrameReader {
    /// A reader for a connection whose other end has proven nothing yet: only short control frames may come.
    #[must_use]
    pub fn new() -> Self {
        Self { head: [0; HEADER_LEN], head_filled: 0, body: None, announced: None, proven: false, payload_bytes: 0 }
    }

    /// Takes frames of every kind from now on.
    pub fn trust(&mut self) {
        self.proven = true;
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
    pub fn receive_into(&mut self, slot: Slot) {
        self.start(Into::Ring(slot, crc32fast::Hasher::new()));
    }

    /// Lets the payload of the announced block go by.
    pub fn skip(&mut self) {
        self.start(Into::Nowhere(vec![0; 64 << 10].into()));
    }

    fn start(&mut self, into: Into) {
        if let Some(header) = self.announced.take() {
            self.body = Some(Body { header, filled: 0, into });
        }
    }

    /// The next thing that is complete.
    ///
    /// # Errors
    /// [`ReadError::Header`] or [`ReadError::Early`]: the caller hangs up.
    pub fn poll(&mut self) -> Result<Option<Arrival>, ReadError> {
        if let Some(body) = self.body.take_if(|body| body.left() == 0) {
            return Ok(Some(body.complete()));
        }
        if self.body.is_some() || self.announced.is_some() || self.head_filled < HEADER_LEN {
            return Ok(None);
        }
        let header = Header::parse(&self.head).map_err(ReadError::Header)?;
        self.head_filled = 0;
        if !self.proven && (header.kind == Kind::Block || header.payload_len > STRANGER_MOST) {
            return Err(ReadError::Early(header.kind));
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

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

/// A frame on its way out.
#[derive(Debug)]
pub enum Outgoing {
    /// A frame in one piece.
    Bytes(Vec<u8>),
    /// A header, and a payload that is kept in memory.
    Shared([u8; HEADER_LEN], Arc<[u8]>),
    /// A header, and a payload that lies in the ring.
    Block([u8; HEADER_LEN], Span),
}

impl Outgoing {
    /// Its length in bytes, header included.
    #[expect(clippy::len_without_is_empty, reason = "a frame has a header")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Bytes(bytes) => [bytes, &[]],
            Self::Shared(head, payload) => [head, payload],
            Self::Block(head, payload) => [head, payload],
        }
    }
}

/// The one frame that a socket is being given.
#[derive(Debug, Default)]
pub struct FrameWriter {
    current: Option<Outgoing>,
    sent: usize,
}

impl FrameWriter {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Takes the next frame; there is none that is not out yet.
    pub fn start(&mut self, frame: Outgoing) {
        debug_assert!(self.is_idle(), "frames go out one by one");
        (self.current, self.sent) = (Some(frame), 0);
    }

    /// Writes once to `sink`; a sink that would block, or that took less than it was given, is blocked for now. After this
    /// the writer is idle if the frame is out as a whole.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&mut self, sink: &mut impl Write) -> io::Result<Moved> {
        let Some(frame) = &self.current else { return Ok(Moved { bytes: 0, blocked: false }) };
        let [head, payload] = frame.parts();
        let of_head = self.sent.min(head.len());
        let (head, payload) = (&head[of_head..], &payload[self.sent - of_head..]);
        let asked = head.len() + payload.len();
        match sink.write_vectored(&[IoSlice::new(head), IoSlice::new(payload)]) {
            Ok(bytes) if bytes == asked => {
                self.current = None;
                Ok(Moved { bytes, blocked: false })
            }
            Ok(bytes) => {
                self.sent += bytes;
                Ok(Moved { bytes, blocked: true })
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Moved { bytes: 0, blocked: true }),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Moved { bytes: 0, blocked: false }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Ring;
    use slidecast_proto::units::DeploymentId;
    use std::net::{TcpListener, TcpStream};

    const DEPLOYMENT: DeploymentId = DeploymentId([3; 16]);

    /// Gives at most so many bytes per call, then would block once.
    struct Dribble<'a> {
        bytes: &'a [u8],
        most: usize,
        dry: bool,
    }

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.dry = !self.dry;
            if self.dry && !self.bytes.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let most = self.most.min(out.len());
            self.bytes.read(&mut out[..most])
        }
    }

    fn block(number: u32, payload: &[u8]) -> Header {
        let raw_len = u32::try_from(payload.len()).unwrap();
        Header { raw_len, ..Header::with_payload(Kind::Block, DEPLOYMENT, number, payload) }
    }

    fn control(number: u32, payload: &[u8]) -> Vec<u8> {
        [&Header::with_payload(Kind::Part, DEPLOYMENT, number, payload).encode()[..], payload].concat()
    }

    /// Reads until the end, putting blocks into the ring except those skipped: what arrived, in words.
    fn read_all(reader: &mut FrameReader, source: &mut impl Read, ring: &mut Ring, skip: u32) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            while let Some(arrival) = reader.poll().unwrap() {
                seen.push(match arrival {
                    Arrival::Announced(header) if header.number == skip => {
                        reader.skip();
                        continue;
                    }
                    Arrival::Announced(header) => {
                        reader.receive_into(ring.reserve(header.payload_len).unwrap());
                        continue;
                    }
                    Arrival::Block { header, payload, crc } => {
                        let sum: u64 = payload.iter().map(|byte| u64::from(*byte)).sum();
                        format!("block {} {sum} {}", header.number, crc == header.payload_crc)
                    }
                    Arrival::Skipped(header) => format!("skipped {}", header.number),
                    Arrival::Control(header, payload) => format!("{:?} {} {payload:?}", header.kind, header.number),
                });
            }
            match reader.read(source) {
                Ok(_) => {}
                Err(ReadError::Closed) => return seen,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn frames_are_cut_right_however_the_bytes_come() {
        let (small, large) = (vec![1; 100], vec![2; 200_000]);
        let damaged = Header { payload_crc: 7, ..block(4, &small) };
        let stream = [
            &Header::bare(Kind::Beat, DEPLOYMENT, 0).encode()[..],
            &block(1, &large).encode(),
            &large,
            &control(2, &[5, 6]),
            &block(3, &large).encode(),
            &large,
            &damaged.encode(),
            &small,
        ]
        .concat();
        for most in [1, 47, 48, 49, 1000, 1 << 20] {
            let mut reader = FrameReader::new();
            reader.trust();
            let mut ring = Ring::new(1 << 20).unwrap();
            let mut source = Dribble { bytes: &stream, most, dry: true };
            let seen = read_all(&mut reader, &mut source, &mut ring, 3);
            assert_eq!(seen, ["Beat 0 []", "block 1 400000 true", "Part 2 [5, 6]", "skipped 3", "block 4 100 false"]);
        }
    }

    #[test]
    fn nothing_is_read_while_a_block_waits_for_its_place() {
        let stream = [&block(1, &[9; 100]).encode()[..], &[9; 100]].concat();
        let mut reader = FrameReader::new();
        reader.trust();
        let mut source = &stream[..];
        reader.read(&mut source).unwrap();
        assert!(matches!(reader.poll(), Ok(Some(Arrival::Announced(_)))));
        assert_eq!(reader.read(&mut source).unwrap(), Moved { bytes: 0, blocked: false });
        assert_eq!((source.len(), reader.announced().map(|header| header.number)), (100, Some(1)));
    }

    #[test]
    fn a_stranger_can_send_neither_blocks_nor_long_frames() {
        let long = Header { payload_len: 4 << 20, ..Header::bare(Kind::Manifest, DEPLOYMENT, 0) };
        for (bytes, kind) in [(block(1, &[1]).encode(), Kind::Block), (long.encode(), Kind::Manifest)] {
            let mut reader = FrameReader::new();
            reader.read(&mut &bytes[..]).unwrap();
            assert!(matches!(reader.poll(), Err(ReadError::Early(early)) if early == kind));
        }
        let mut reader = FrameReader::new();
        reader.read(&mut &[b'G'; 48][..]).unwrap();
        assert!(matches!(reader.poll(), Err(ReadError::Header(HeaderError::Magic))));
    }

    #[test]
    fn what_is_written_into_a_socket_arrives_on_the_other_side() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut back, _) = listener.accept().unwrap();
        let there = std::thread::spawn(move || {
            let mut reader = FrameReader::new();
            reader.trust();
            read_all(&mut reader, &mut back, &mut Ring::new(64 << 20).unwrap(), u32::MAX)
        });
        out.set_nonblocking(true).unwrap();
        let mut ring = Ring::new(32 << 20).unwrap();
        let mut writer = FrameWriter::default();
        for number in 0..20 {
            let mut slot = ring.reserve(1 << 20).unwrap();
            slot.fill(1);
            let span = slot.freeze();
            let part: Arc<[u8]> = vec![4].into();
            let head = Header::with_payload(Kind::Part, DEPLOYMENT, number, &part).encode();
            for frame in [
                Outgoing::Block(block(number, &span).encode(), span),
                Outgoing::Shared(head, part),
                Outgoing::Bytes(control(number, &[5])),
            ] {
                writer.start(frame);
                while !writer.is_idle() {
                    if writer.write(&mut out).unwrap().blocked {
                        std::thread::yield_now();
                    }
                }
            }
        }
        assert_eq!(ring.free(), ring.capacity(), "what was written lets go of the ring");
        drop(out);
        let expected =
            (0..20).flat_map(|n| [format!("block {n} 1048576 true"), format!("Part {n} [4]"), format!("Part {n} [5]")]);
        assert_eq!(there.join().unwrap(), expected.collect::<Vec<_>>());
    }
}
