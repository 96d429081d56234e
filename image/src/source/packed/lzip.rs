//! lzip: members one after the other, each with its checksum and sizes. The library ends at what is no member, as lzip itself
//! does; here anything behind the last member is an error, since members may follow that would be lost without a word.

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use std::io::{self, BufRead, Read};

/// How a member begins; the version follows.
const MAGIC: &[u8] = b"LZIP";

/// Whether a file with this front was packed by it.
pub(super) fn probe(head: &[u8]) -> bool {
    head.starts_with(MAGIC) && matches!(head.get(MAGIC.len()), Some(0 | 1))
}

/// Everything in all members.
pub(super) struct Members<R: BufRead>(XzDecoder<R>);

impl<R: BufRead> Members<R> {
    /// Unpacks with no more than `memory` bytes.
    pub(super) fn new(packed: R, memory: u64) -> io::Result<Self> {
        Ok(Self(XzDecoder::new_stream(packed, Stream::new_lzip_decoder(memory, CONCATENATED)?)))
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(buffer)?;
        if len == 0 && !buffer.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "something else follows its last member"));
        }
        Ok(len)
    }
}
