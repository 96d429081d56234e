//! Frames of lz4 (`doc/lz4_Frame_format.md` of lz4): one after the other, skippable ones between them.
//!
//! The decoder takes the end of its input for the end of a frame, so it is given one frame at a time: the bytes of one are followed up to
//! its end mark, and nothing but another frame lies behind it.

use crate::le::u32_at;
use lz4_flex::frame::FrameDecoder;
use std::io::{self, Read};

pub(super) const MAGIC: &[u8] = b"\x04\x22\x4D\x18";

/// All frames of an input, unpacked.
pub(super) struct Frames<R: Read> {
    state: Option<State<R>>,
}

enum State<R: Read> {
    /// A frame, or the end, comes next.
    Between(R),
    Inside(Box<FrameDecoder<FrameBytes<R>>>),
}

/// The bytes of one frame.
struct FrameBytes<R> {
    input: R,
    /// Bytes that were read from the input already, and how many of them were given on.
    held: Vec<u8>,
    given: usize,
    /// What of the block that was begun is left, with its checksum.
    left: u64,
    block_sum: bool,
    content_sum: bool,
    ended: bool,
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Appends the next `len` bytes of the input.
fn hold(input: &mut impl Read, held: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let start = held.len();
    held.resize(start + len, 0);
    input.read_exact(&mut held[start..])
}

impl<R: Read> FrameBytes<R> {
    /// The frame that begins at the front of `input`; `None` for one that is to be skipped, and was. At the end there is none.
    fn begin(mut input: R) -> io::Result<Result<Self, (R, bool)>> {
        let mut held = Vec::new();
        if (&mut input).take(1).read_to_end(&mut held)? == 0 {
            return Ok(Err((input, true)));
        }
        hold(&mut input, &mut held, 3)?;
        let magic = u32_at(&held, 0).unwrap_or(0);
        if magic & 0xFFFF_FFF0 == 0x184D_2A50 {
            hold(&mut input, &mut held, 4)?;
            let len = u64::from(u32_at(&held, 4).unwrap_or(0));
            let skipped = io::copy(&mut (&mut input).take(len), &mut io::sink())?;
            return if skipped == len { Ok(Err((input, false))) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if held != MAGIC {
            return Err(damaged("no frame begins where one should"));
        }
        hold(&mut input, &mut held, 2)?;
        let flags = held[4];
        if flags & 0xC0 != 0x40 || flags & 1 != 0 {
            return Err(damaged("a frame with a dictionary, or of an unknown version"));
        }
        // Perhaps the length of the content, then a byte of checksum.
        hold(&mut input, &mut held, if flags & 0x8 != 0 { 9 } else { 1 })?;
        let (block_sum, content_sum) = (flags & 0x10 != 0, flags & 0x4 != 0);
        Ok(Ok(Self { input, held, given: 0, left: 0, block_sum, content_sum, ended: false }))
    }

    /// Reads the length of the next block, or the end mark.
    fn next_block(&mut self) -> io::Result<()> {
        self.held.clear();
        self.given = 0;
        hold(&mut self.input, &mut self.held, 4)?;
        let len = u32_at(&self.held, 0).unwrap_or(0) & 0x7FFF_FFFF;
        if len == 0 {
            self.ended = true;
            if self.content_sum {
                hold(&mut self.input, &mut self.held, 4)?;
            }
        } else {
            self.left = u64::from(len) + if self.block_sum { 4 } else { 0 };
        }
        Ok(())
    }
}

impl<R: Read> Read for FrameBytes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.held.len() && self.left == 0 && !self.ended {
            self.next_block()?;
        }
        if self.given < self.held.len() {
            let len = (&self.held[self.given..]).read(buffer)?;
            self.given += len;
            return Ok(len);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.input.read(&mut buffer[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => {
                self.left -= len as u64;
                Ok(len)
            }
        }
    }
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Self { state: Some(State::Between(input)) }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // What fails leaves no state: nothing follows an error.
            match self.state.take() {
                None => return Ok(0),
                Some(State::Between(input)) => {
                    self.state = match FrameBytes::begin(input)? {
                        Ok(frame) => Some(State::Inside(Box::new(FrameDecoder::new(frame)))),
                        Err((_, true)) => None,
                        Err((input, false)) => Some(State::Between(input)),
                    };
                }
                Some(State::Inside(mut frame)) => {
                    let len = frame.read(buffer)?;
                    if len > 0 || buffer.is_empty() {
                        self.state = Some(State::Inside(frame));
                        return Ok(len);
                    }
                    let bytes = frame.into_inner();
                    if !bytes.ended || bytes.given < bytes.held.len() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.state = Some(State::Between(bytes.input));
                }
            }
        }
    }
}
