//! Frames of lz4 (`doc/lz4_Frame_format.md` of lz4): one after the other, skippable ones between them.
//!
//! The decoder takes the end of a file for the end of a frame, so each frame is walked through before it is unpacked: it has
//! an end mark, and nothing but another frame lies behind it.

use crate::le::u32_at;
use lz4_flex::frame::FrameDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

pub(super) const MAGIC: &[u8] = b"\x04\x22\x4D\x18";

const BUFFER: usize = 1 << 20;

/// All frames of a file, unpacked.
pub(super) struct Frames {
    file: File,
    bytes: u64,
    at: u64,
    frame: Option<FrameDecoder<BufReader<Section>>>,
}

/// A part of a file.
struct Section {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..len], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What stands at a place where a frame may begin.
enum Next {
    End,
    /// To be skipped, up to there.
    Skip(u64),
    /// A frame of data, up to there.
    Data(u64),
}

impl Frames {
    pub(super) fn new(file: File, bytes: u64) -> Self {
        Self { file, bytes, at: 0, frame: None }
    }

    fn u32_at(&self, at: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        if at.checked_add(4).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn next(&self) -> io::Result<Next> {
        let damaged = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        if self.at == self.bytes {
            return Ok(Next::End);
        }
        let magic = self.u32_at(self.at)?;
        if magic & 0xFFFF_FFF0 == 0x184D_2A50 {
            let end = self.at + 8 + u64::from(self.u32_at(self.at + 4)?);
            return if end <= self.bytes { Ok(Next::Skip(end)) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if Some(magic) != u32_at(MAGIC, 0) {
            return Err(damaged("no frame begins where one should"));
        }
        let flags = self.u32_at(self.at + 4)?;
        if flags & 0xC0 != 0x40 || flags & 1 != 0 {
            return Err(damaged("a frame with a dictionary, or of an unknown version"));
        }
        let sum = |bit: u32| if flags & bit != 0 { 4 } else { 0 };
        let (block_sum, content_sum) = (sum(0x10), sum(0x4));
        // Magic, two bytes of flags, perhaps the length of the content, a byte of checksum.
        let mut at = self.at + 7 + if flags & 0x8 != 0 { 8 } else { 0 };
        loop {
            let len = u64::from(self.u32_at(at)? & 0x7FFF_FFFF);
            if len == 0 {
                break;
            }
            at += 4 + len + block_sum;
        }
        let end = at + 4 + content_sum;
        if end <= self.bytes { Ok(Next::Data(end)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                match frame.read(buffer)? {
                    0 => self.frame = None,
                    read => return Ok(read),
                }
            }
            match self.next()? {
                Next::End => return Ok(0),
                Next::Skip(end) => self.at = end,
                Next::Data(end) => {
                    let section = Section { file: self.file.try_clone()?, at: self.at, end };
                    self.frame = Some(FrameDecoder::new(BufReader::with_capacity(BUFFER, section)));
                    self.at = end;
                }
            }
        }
    }
}
