//! lzip: members one after the other, each with its checksum and sizes. The library, asked for all of them, ends at what is no member, as
//! lzip itself does, and passes over a front of the next one. So it is asked for one at a time: whatever follows a member has to be one.

use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use std::io::{self, BufRead, Read};

/// How a member begins; the version follows.
const MAGIC: &[u8] = b"LZIP";

/// Whether a file with this front was packed by it.
pub(super) fn probe(head: &[u8]) -> bool {
    head.starts_with(MAGIC) && matches!(head.get(MAGIC.len()), Some(0 | 1))
}

/// Everything in all members.
pub(super) struct Members<R: BufRead> {
    /// `None` after an error.
    member: Option<XzDecoder<R>>,
    memory: u64,
}

/// What reads the member that begins where `packed` is.
fn member<R: BufRead>(packed: R, memory: u64) -> io::Result<XzDecoder<R>> {
    Ok(XzDecoder::new_stream(packed, Stream::new_lzip_decoder(memory, 0)?))
}

impl<R: BufRead> Members<R> {
    /// Unpacks with no more than `memory` bytes.
    pub(super) fn new(packed: R, memory: u64) -> io::Result<Self> {
        Ok(Self { member: Some(member(packed, memory)?), memory })
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let now = self.member.as_mut().ok_or(io::ErrorKind::InvalidData)?;
            let len = now.read(buffer)?;
            // A member that ends before its own end is an error: this is the end of one.
            if len > 0 || now.get_mut().fill_buf()?.is_empty() {
                return Ok(len);
            }
            let packed = self.member.take().ok_or(io::ErrorKind::InvalidData)?.into_inner();
            self.member = Some(member(packed, self.memory)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `lzip -9` makes of `one\n`.
    const ONE: [u8; 40] = [
        0x4C, 0x5A, 0x49, 0x50, 0x01, 0x0C, 0x00, 0x37, 0x9B, 0x88, 0xCC, 0xFB, 0xD7, 0x07, 0xFF, 0xFF, 0xFB, 0xC5,
        0x40, 0x00, 0x9F, 0xA8, 0x17, 0xF8, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00,
    ];
    /// What `lzip -9` makes of `two\n`.
    const TWO: [u8; 40] = [
        0x4C, 0x5A, 0x49, 0x50, 0x01, 0x0C, 0x00, 0x3A, 0x1D, 0xCA, 0x1B, 0xA1, 0x41, 0x61, 0xFF, 0xFF, 0xFB, 0xE5,
        0xE0, 0x00, 0x74, 0x08, 0x17, 0x96, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00,
    ];

    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        // Single bytes: a member may end with what is read at once.
        let packed = io::BufReader::with_capacity(1, packed);
        Members::new(packed, 1 << 26)?.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn members_follow_each_other() {
        assert_eq!(unpacked(&ONE).unwrap(), b"one\n");
        assert_eq!(unpacked(&[ONE, TWO, ONE].concat()).unwrap(), b"one\ntwo\none\n");
    }

    #[test]
    fn a_member_that_is_cut_anywhere_is_an_error() {
        let all = [ONE, TWO].concat();
        for cut in (0..ONE.len()).chain(ONE.len() + 1..all.len()) {
            assert!(unpacked(&all[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_follows_a_member_and_is_none_is_an_error_that_stays() {
        for more in [&b"L"[..], b"LZIQ", b"\0", b"trailing", &[0; 64]] {
            assert!(unpacked(&[&ONE, more].concat()).is_err(), "{more:?}");
        }
        let packed = [&ONE[..], b"trailing"].concat();
        let mut members = Members::new(&packed[..], 1 << 26).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(members.read(&mut buffer).unwrap(), 4);
        for _ in 0..3 {
            assert!(members.read(&mut buffer).is_err());
        }
    }
}
