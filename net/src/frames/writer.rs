//! Writes frames to a socket, one by one.

use super::Moved;
use slidecast_proto::frame::HEADER_LEN;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::ops::Deref;
use std::sync::Arc;

/// A frame on its way out. `S` holds the payloads of blocks.
#[derive(Debug)]
pub enum Outgoing<S> {
    /// A frame in one piece.
    Bytes(Vec<u8>),
    /// A header, and a payload that is kept in memory.
    Shared([u8; HEADER_LEN], Arc<[u8]>),
    /// A header, and the payload of a block where it lies.
    Block([u8; HEADER_LEN], S),
}

impl<S: Deref<Target = [u8]>> Outgoing<S> {
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
#[derive(Debug)]
pub struct FrameWriter<S> {
    current: Option<Outgoing<S>>,
    sent: usize,
}

impl<S> Default for FrameWriter<S> {
    fn default() -> Self {
        Self { current: None, sent: 0 }
    }
}

impl<S: Deref<Target = [u8]>> FrameWriter<S> {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Takes the next frame; there is none that is not out yet.
    pub fn start(&mut self, frame: Outgoing<S>) {
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
