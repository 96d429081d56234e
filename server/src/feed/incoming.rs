//! Frames as they come from the head of a chain: few and small.

use slidecast_proto::frame::{HEADER_LEN, Header, HeaderError};
use std::io::{self, Read};

/// The longest payload that a downstream may send: one segment of a set.
const LONGEST: usize = 64 << 10;

/// Collects bytes until a frame is complete.
#[derive(Debug)]
pub(crate) struct Incoming {
    buffer: Vec<u8>,
    filled: usize,
}

/// What the connection gave.
#[derive(Debug)]
pub(crate) enum Got {
    /// This many bytes.
    Bytes,
    /// Nothing for now.
    Nothing,
    /// The other end has closed.
    Closed,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; HEADER_LEN + LONGEST], filled: 0 }
    }

    /// Reads once.
    ///
    /// # Errors
    /// What the system said, but for "not now".
    pub(crate) fn read(&mut self, socket: &mut impl Read) -> io::Result<Got> {
        match socket.read(&mut self.buffer[self.filled..]) {
            Ok(0) => Ok(Got::Closed),
            Ok(len) => {
                self.filled += len;
                Ok(Got::Bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Got::Bytes),
            Err(error) => Err(error),
        }
    }

    /// The next complete frame.
    ///
    /// # Errors
    /// The bytes are no frame, or one that no downstream sends.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(Header, Vec<u8>)>, HeaderError> {
        let Some(bytes) = self.buffer[..self.filled].first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::parse(bytes)?;
        let len = header.payload_len as usize;
        if len > LONGEST {
            return Err(HeaderError::Length(header.kind, header.payload_len));
        }
        let end = HEADER_LEN + len;
        if self.filled < end {
            return Ok(None);
        }
        let payload = self.buffer[HEADER_LEN..end].to_vec();
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        Ok(Some((header, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slidecast_proto::frame::Kind;
    use slidecast_proto::units::DeploymentId;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        [&Header::with_payload(kind, DeploymentId([3; 16]), 0, payload).encode()[..], payload].concat()
    }

    #[test]
    fn frames_are_complete_however_the_bytes_come() {
        let bytes = [frame(Kind::Ack, &[1; 24]), frame(Kind::Beat, &[]), frame(Kind::Lacks, &[9; 64 << 10])].concat();
        for step in [1, 47, 49, 100_000] {
            let (mut incoming, mut kinds) = (Incoming::new(), Vec::new());
            for mut piece in bytes.chunks(step) {
                while !piece.is_empty() {
                    incoming.read(&mut piece).unwrap();
                    while let Some((header, payload)) = incoming.next_frame().unwrap() {
                        assert_eq!(payload.len(), header.payload_len as usize);
                        kinds.push(header.kind);
                    }
                }
            }
            assert_eq!(kinds, [Kind::Ack, Kind::Beat, Kind::Lacks]);
        }
    }

    #[test]
    fn what_is_no_frame_or_too_long_for_a_downstream_is_an_error() {
        let mut incoming = Incoming::new();
        incoming.read(&mut &[0x55; 100][..]).unwrap();
        assert_eq!(incoming.next_frame().unwrap_err(), HeaderError::Magic);
        let mut incoming = Incoming::new();
        incoming.read(&mut &frame(Kind::Part, &[0; 65 << 10])[..]).unwrap();
        assert!(matches!(incoming.next_frame(), Err(HeaderError::Length(Kind::Part, _))));
    }
}
