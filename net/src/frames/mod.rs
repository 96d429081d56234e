//! Frames on a socket: payloads of blocks go straight to where they are to stay and out of it, everything else through small buffers.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{Arrival, FrameReader, ReadError};
pub use writer::{FrameWriter, Outgoing};

/// What one call to a socket moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How many bytes.
    pub bytes: usize,
    /// It was less than was asked for: the socket has no more, or takes no more, until its next event.
    pub blocked: bool,
}
