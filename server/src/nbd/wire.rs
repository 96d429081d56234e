//! The bytes of the NBD protocol, as far as a server that only reads speaks it: fixed newstyle negotiation, structured replies and
//! block status. Source: `doc/proto.md` of the NetworkBlockDevice project. All numbers are big-endian.

/// The name of the only export; the empty name means it, too.
pub(super) const EXPORT: &str = "disk";
/// The only metadata context, and the number that it gets.
pub(super) const CONTEXT: &str = "base:allocation";
pub(super) const CONTEXT_ID: u32 = 1;

pub(super) const SERVER_MAGIC: &[u8; 8] = b"NBDMAGIC";
pub(super) const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags: fixed newstyle, no padding with zeros. Those of a client have the same numbers.
pub(super) const FIXED_NEWSTYLE: u32 = 1;
pub(super) const NO_ZEROES: u32 = 2;

/// The longest content of an option that is looked at; the longest name has 4,096 bytes.
pub(super) const MAX_OPTION_BYTES: u32 = 16 << 10;
/// The longest read, and the longest content of a write that is read and thrown away.
pub(super) const MAX_PAYLOAD: u32 = 32 << 20;

pub(super) const OPT_EXPORT_NAME: u32 = 1;
pub(super) const OPT_ABORT: u32 = 2;
pub(super) const OPT_LIST: u32 = 3;
pub(super) const OPT_INFO: u32 = 6;
pub(super) const OPT_GO: u32 = 7;
pub(super) const OPT_STRUCTURED_REPLY: u32 = 8;
pub(super) const OPT_LIST_META_CONTEXT: u32 = 9;
pub(super) const OPT_SET_META_CONTEXT: u32 = 10;

pub(super) const REP_ACK: u32 = 1;
pub(super) const REP_SERVER: u32 = 2;
pub(super) const REP_INFO: u32 = 3;
pub(super) const REP_META_CONTEXT: u32 = 4;
pub(super) const REP_ERR_UNSUP: u32 = 1 << 31 | 1;
pub(super) const REP_ERR_INVALID: u32 = 1 << 31 | 3;
pub(super) const REP_ERR_UNKNOWN: u32 = 1 << 31 | 6;
pub(super) const REP_ERR_TOO_BIG: u32 = 1 << 31 | 9;

pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_NAME: u16 = 1;
pub(super) const INFO_DESCRIPTION: u16 = 2;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

pub(super) const CMD_READ: u16 = 0;
pub(super) const CMD_WRITE: u16 = 1;
pub(super) const CMD_DISC: u16 = 2;
pub(super) const CMD_FLUSH: u16 = 3;
pub(super) const CMD_TRIM: u16 = 4;
pub(super) const CMD_CACHE: u16 = 5;
pub(super) const CMD_WRITE_ZEROES: u16 = 6;
pub(super) const CMD_BLOCK_STATUS: u16 = 7;

pub(super) const FLAG_DF: u16 = 1 << 2;
pub(super) const FLAG_REQ_ONE: u16 = 1 << 3;

pub(super) const EPERM: u32 = 1;
pub(super) const EIO: u32 = 5;
pub(super) const EINVAL: u32 = 22;
pub(super) const EOVERFLOW: u32 = 75;

/// Bits of the state of a run in `base:allocation`.
pub(super) const STATE_HOLE: u32 = 1;
pub(super) const STATE_ZERO: u32 = 2;

const CHUNK_DONE: u16 = 1;
const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15 | 1;

/// The transmission flags of the export: read-only, flushes and cache requests are taken, several connections see the same bytes;
/// "don't fragment" is understood where replies are structured.
pub(super) fn export_flags(structured: bool) -> u16 {
    const HAS_FLAGS: u16 = 1;
    const READ_ONLY: u16 = 1 << 1;
    const SEND_FLUSH: u16 = 1 << 2;
    const SEND_DF: u16 = 1 << 7;
    const CAN_MULTI_CONN: u16 = 1 << 8;
    const SEND_CACHE: u16 = 1 << 10;
    let flags = HAS_FLAGS | READ_ONLY | SEND_FLUSH | CAN_MULTI_CONN | SEND_CACHE;
    if structured { flags | SEND_DF } else { flags }
}

/// The reply to an option.
pub(super) fn option_reply(option: u32, kind: u32, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let mut out = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    [option, kind, len].iter().for_each(|field| out.extend_from_slice(&field.to_be_bytes()));
    out.extend_from_slice(content);
    out
}

/// A request of the transmission phase, without the content of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
}

pub(super) const REQUEST_BYTES: usize = 28;

impl Request {
    /// Reads a request; `None` if it does not begin like one.
    pub(super) fn parse(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let magic = fields.u32()?;
        let (flags, command) = (fields.u16()?, fields.u16()?);
        let (cookie, offset, len) = (fields.u64()?, fields.u64()?, fields.u32()?);
        (magic == REQUEST_MAGIC).then_some(Self { flags, command, cookie, offset, len })
    }
}

/// What is left of the content of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A text with its length in front.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(usize::try_from(len).ok()?)
    }
}

/// The head of a simple reply; the bytes that were read follow it if `error` is 0.
pub(super) fn simple_reply(cookie: u64, error: u32) -> Vec<u8> {
    let mut out = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out
}

fn chunk(cookie: u64, done: bool, kind: u16, len: usize) -> Vec<u8> {
    let mut out = CHUNK_MAGIC.to_be_bytes().to_vec();
    out.extend_from_slice(&if done { CHUNK_DONE } else { 0 }.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    out
}

/// A reply without content: all went well.
pub(super) fn none_chunk(cookie: u64) -> Vec<u8> {
    chunk(cookie, true, CHUNK_NONE, 0)
}

/// The head of `len` bytes that were read at `offset`.
pub(super) fn data_chunk(cookie: u64, done: bool, offset: u64, len: usize) -> Vec<u8> {
    let mut out = chunk(cookie, done, CHUNK_DATA, len + 8);
    out.extend_from_slice(&offset.to_be_bytes());
    out
}

/// `len` zeros at `offset`.
pub(super) fn hole_chunk(cookie: u64, done: bool, offset: u64, len: u32) -> Vec<u8> {
    let mut out = chunk(cookie, done, CHUNK_HOLE, 12);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out
}

/// The runs of a part of the disk, as length and state.
pub(super) fn status_chunk(cookie: u64, runs: &[(u32, u32)]) -> Vec<u8> {
    let mut out = chunk(cookie, true, CHUNK_STATUS, 4 + runs.len() * 8);
    out.extend_from_slice(&CONTEXT_ID.to_be_bytes());
    runs.iter().flat_map(|run| [run.0, run.1]).for_each(|field| out.extend_from_slice(&field.to_be_bytes()));
    out
}

/// The request failed.
pub(super) fn error_chunk(cookie: u64, error: u32) -> Vec<u8> {
    let mut out = chunk(cookie, true, CHUNK_ERROR, 6);
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&0u16.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_golden_bytes() {
        let request = *b"\x25\x60\x95\x13\0\x04\0\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\x10\0\0\0\x02\0";
        let parsed = Request { flags: FLAG_DF, command: CMD_BLOCK_STATUS, cookie: 9, offset: 4096, len: 512 };
        assert_eq!(Request::parse(&request), Some(parsed));
        assert_eq!(Request::parse(&[0; REQUEST_BYTES]), None);
        assert_eq!(simple_reply(9, EPERM), b"\x67\x44\x66\x98\0\0\0\x01\0\0\0\0\0\0\0\x09");
        let head = b"\x66\x8e\x33\xef\0\x01\0\x02\0\0\0\0\0\0\0\x09\0\0\0\x0c\0\0\0\0\0\0\x10\0\0\0\x02\0";
        assert_eq!(hole_chunk(9, true, 4096, 512), head);
        assert_eq!(error_chunk(9, EIO)[..8], *b"\x66\x8e\x33\xef\0\x01\x80\x01");
        assert_eq!(status_chunk(9, &[(512, 3)])[20..], *b"\0\0\0\x01\0\0\x02\0\0\0\0\x03");
        assert_eq!(option_reply(7, REP_ACK, b"")[..8], *b"\0\x03\xe8\x89\x04\x55\x65\xa9");
    }
}
