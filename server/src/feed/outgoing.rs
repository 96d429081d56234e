//! What is being written to the head of a chain: control bytes from memory, payloads straight from the layer file, or through
//! a buffer where the store of the layers has no file with them.

use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, send};
use slidecast_image::{Resolved, StoredRef};
use slidecast_proto::units::BlockNo;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// The most that one sendfile call is asked for, so that the thread looks up now and then.
const AT_ONCE: u64 = 1 << 20;
/// The most that is read at once from a layer without a file descriptor.
const BUFFER: u64 = 64 << 10;

/// What follows comes at once: the kernel need not send a short segment, tcp(7).
const MORE: MsgFlags = MsgFlags::from_bits_retain(libc::MSG_MORE);

#[derive(Debug)]
enum Piece {
    /// Bytes from memory; with `more`, something follows at once.
    Bytes { bytes: Arc<[u8]>, at: usize, more: bool },
    /// A payload from a layer.
    Payload { block: BlockNo, layer: u16, offset: u64, left: u64 },
}

/// Why writing stopped for good.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The connection failed.
    Connection(io::Error),
    /// The layer file did not give the bytes of a block.
    Image {
        /// The block.
        block: BlockNo,
        /// Its layer.
        layer: u16,
        /// Where in the file.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// The queue of one link. Frames are never mixed: what is queued goes out in order.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pieces: VecDeque<Piece>,
    /// What was read last from a layer without a file descriptor.
    buffer: Vec<u8>,
}

impl Outgoing {
    /// Whether everything queued was given to the kernel.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Queues bytes from memory; with `more` something follows at once.
    pub(crate) fn push_bytes(&mut self, bytes: Arc<[u8]>, more: bool) {
        self.pieces.push_back(Piece::Bytes { bytes, at: 0, more });
    }

    /// Queues the payload of `block`.
    pub(crate) fn push_payload(&mut self, block: BlockNo, stored: &StoredRef) {
        let StoredRef { layer, offset, stored_len, .. } = *stored;
        self.pieces.push_back(Piece::Payload { block, layer, offset, left: u64::from(stored_len) });
    }

    /// Writes until the queue is empty or the socket takes no more. Gives the bytes written and whether it takes more.
    ///
    /// # Errors
    /// [`WriteError`]; the link is of no more use.
    pub(crate) fn write(&mut self, socket: &impl AsFd, image: &Resolved) -> Result<(u64, bool), WriteError> {
        let mut written = 0;
        while let Some(piece) = self.pieces.front_mut() {
            let (result, done) = match piece {
                Piece::Bytes { bytes, at, more } => {
                    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                    let flags = if *more { flags | MORE } else { flags };
                    let result = send(socket.as_fd().as_raw_fd(), &bytes[*at..], flags);
                    *at += result.unwrap_or(0);
                    (result, *at == bytes.len())
                }
                Piece::Payload { block, layer, offset, left } => {
                    let at_once = (*left).min(AT_ONCE);
                    let result = match image.layer(*layer).descriptor(*offset..*offset + at_once) {
                        Some(file) => {
                            let mut from = i64::try_from(*offset).unwrap_or(i64::MAX);
                            let count = usize::try_from(at_once).unwrap_or(usize::MAX);
                            sendfile64(socket, file, Some(&mut from), count)
                        }
                        None => {
                            let count = usize::try_from((*left).min(BUFFER)).unwrap_or(usize::MAX);
                            self.buffer.resize(count, 0);
                            let read = image.layer(*layer).read_at(*offset, &mut self.buffer);
                            read.map_err(|error| image_error(*block, *layer, *offset, error))?;
                            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                            send(socket.as_fd().as_raw_fd(), &self.buffer, flags)
                        }
                    };
                    match result {
                        // The file has grown shorter since it was opened.
                        Ok(0) => return Err(image_error(*block, *layer, *offset, io::ErrorKind::UnexpectedEof.into())),
                        Err(Errno::EIO) => return Err(image_error(*block, *layer, *offset, Errno::EIO.into())),
                        _ => {}
                    }
                    let sent = result.unwrap_or(0) as u64;
                    (*offset, *left) = (*offset + sent, *left - sent);
                    (result, *left == 0)
                }
            };
            match result {
                Ok(sent) => written += sent as u64,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok((written, false)),
                Err(errno) => return Err(WriteError::Connection(errno.into())),
            }
            if done {
                self.pieces.pop_front();
            }
        }
        Ok((written, true))
    }
}

fn image_error(block: BlockNo, layer: u16, offset: u64, source: io::Error) -> WriteError {
    WriteError::Image { block, layer, offset, source }
}
