//! Frames: what travels on a chain link. A 48-byte header, then the payload that it announces.
//!
//! The header is checked before any of its lengths is used. A block's header is passed on as it came, so that its payload
//! CRC is the one that `image create` computed, on every link of every chain. Byte table: `docs/WIRE.md`.

use crate::units::{BLOCK_MAX, DeploymentId, MAX_HEADER_BYTES, MAX_PART_BYTES};
use crate::wire::{Malformed, array, whole};
use nom::Parser;
use nom::number::complete::{le_u8, le_u32};

/// The length of a frame header in bytes.
pub const HEADER_LEN: usize = 48;
/// The version of the chain link. Magic and version stay where they are in every version to come.
pub const VERSION: u8 = 1;
/// In [`Header::flags`]: nothing of this kind follows (last segment of a set).
pub const LAST: u8 = 1;
/// In [`Header::flags`] of an Accept: the sender of it holds the manifest header already.
pub(crate) const HAS_HEADER: u8 = 2;

const MAGIC: [u8; 4] = *b"SLDF";

/// What a frame is. Codes below 16: handshake; 16..31: downstream; 32..47: upstream; 48 and up: both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Upstream opens: ids of both ends, epoch, nonce.
    Hello = 1,
    /// Downstream answers: nonce and proof.
    Accept = 2,
    /// Upstream's proof.
    Proof = 3,
    /// Either end hangs up and gives the reason.
    Refuse = 4,
    /// The manifest header.
    Manifest = 16,
    /// Part `number` of the manifest.
    Part = 17,
    /// Block `number`.
    Block = 18,
    /// Nothing more comes in pass `number`.
    End = 19,
    /// One segment of what the downstream lacks.
    Lacks = 32,
    /// What has arrived, and how much more may come.
    Ack = 33,
    /// Block `number` is wanted again.
    Again = 34,
    /// Heartbeat: nothing to say, but alive.
    Beat = 48,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Hello,
            2 => Self::Accept,
            3 => Self::Proof,
            4 => Self::Refuse,
            16 => Self::Manifest,
            17 => Self::Part,
            18 => Self::Block,
            19 => Self::End,
            32 => Self::Lacks,
            33 => Self::Ack,
            34 => Self::Again,
            48 => Self::Beat,
            _ => return None,
        })
    }

    /// The longest payload a frame of this kind may have, in bytes.
    #[must_use]
    pub fn payload_limit(self) -> u32 {
        match self {
            Self::Hello | Self::Accept | Self::Proof => 96,
            Self::Refuse => 512,
            Self::Manifest => MAX_HEADER_BYTES,
            Self::Part => MAX_PART_BYTES,
            Self::Block => BLOCK_MAX,
            Self::Lacks => 64 << 10,
            Self::Ack => 24,
            Self::End | Self::Again | Self::Beat => 0,
        }
    }
}

/// A frame header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// How a block's payload is compressed; 0 otherwise.
    pub codec: u8,
    /// [`LAST`], [`HAS_HEADER`].
    pub flags: u8,
    /// The deployment it belongs to.
    pub deployment: DeploymentId,
    /// Block, part, pass or segment number.
    pub number: u32,
    /// Bytes of a block before compression; 0 otherwise.
    pub raw_len: u32,
    /// Bytes that follow the header.
    pub payload_len: u32,
    /// CRC-32 (IEEE) of these bytes.
    pub payload_crc: u32,
}

/// Why 48 bytes are no frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The first bytes are not the magic number: not a SlideCast peer.
    Magic,
    /// Another version of the chain link.
    Version(u8),
    /// The header's own CRC does not hold.
    Crc,
    /// A kind that this version does not know.
    Kind(u8),
    /// A length beyond the limit of its kind.
    Length(Kind, u32),
    /// A field that must be something else.
    Field(&'static str),
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => write!(f, "not a SlideCast frame"),
            Self::Version(theirs) => write!(f, "chain link version {theirs}, this side speaks {VERSION}"),
            Self::Crc => write!(f, "frame header damaged (its CRC differs)"),
            Self::Kind(code) => write!(f, "unknown frame kind {code}"),
            Self::Length(kind, len) => write!(f, "{kind:?} frame of {len} bytes, at most {}", kind.payload_limit()),
            Self::Field(name) => write!(f, "frame field {name} out of bounds"),
        }
    }
}

impl std::error::Error for HeaderError {}

impl Header {
    /// A frame of `kind` without a payload.
    #[must_use]
    pub fn bare(kind: Kind, deployment: DeploymentId, number: u32) -> Self {
        Self { kind, codec: 0, flags: 0, deployment, number, raw_len: 0, payload_len: 0, payload_crc: 0 }
    }

    /// A frame of `kind` that carries `payload`.
    #[must_use]
    pub fn with_payload(kind: Kind, deployment: DeploymentId, number: u32, payload: &[u8]) -> Self {
        let payload_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Self { payload_len, payload_crc: crc32fast::hash(payload), ..Self::bare(kind, deployment, number) }
    }

    /// The 48 bytes of this header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[6] = self.codec;
        out[7] = self.flags;
        out[8..24].copy_from_slice(&self.deployment.0);
        out[24..28].copy_from_slice(&self.number.to_le_bytes());
        out[28..32].copy_from_slice(&self.raw_len.to_le_bytes());
        out[32..36].copy_from_slice(&self.payload_len.to_le_bytes());
        out[36..40].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..HEADER_LEN - 4]);
        out[44..48].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header in `bytes`, with every length inside the limit of its kind.
    ///
    /// # Errors
    /// [`HeaderError`]; the caller hangs up, nothing of the header may be used.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        if bytes[..4] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if bytes[4] != VERSION {
            return Err(HeaderError::Version(bytes[4]));
        }
        if crc32fast::hash(&bytes[..44]).to_le_bytes() != bytes[44..] {
            return Err(HeaderError::Crc);
        }
        let fields = (le_u8, le_u8, le_u8, array::<16>, le_u32, le_u32, le_u32, le_u32, le_u32);
        let mut parser = fields;
        let (code, codec, flags, deployment, number, raw_len, payload_len, payload_crc, reserved) =
            whole("frame header", |input| parser.parse(input), &bytes[5..44])
                .map_err(|Malformed { what }| HeaderError::Field(what))?;
        let kind = Kind::from_code(code).ok_or(HeaderError::Kind(code))?;
        if reserved != 0 {
            return Err(HeaderError::Field("reserved"));
        }
        if payload_len > kind.payload_limit() {
            return Err(HeaderError::Length(kind, payload_len));
        }
        if kind == Kind::Block && (payload_len == 0 || raw_len > BLOCK_MAX || payload_len > raw_len) {
            return Err(HeaderError::Field("raw_len"));
        }
        Ok(Self { kind, codec, flags, deployment: DeploymentId(deployment), number, raw_len, payload_len, payload_crc })
    }

    /// What this frame costs of the credit and of the ring: its payload, rounded up to 4 KiB.
    #[must_use]
    pub fn charge(&self) -> u64 {
        u64::from(self.payload_len).next_multiple_of(4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block() -> Header {
        Header {
            kind: Kind::Block,
            codec: 2,
            flags: 0,
            deployment: DeploymentId([0xAB; 16]),
            number: 7,
            raw_len: 1 << 20,
            payload_len: 300_000,
            payload_crc: 0x1234_5678,
        }
    }

    #[test]
    fn the_bytes_of_a_block_header_are_frozen() {
        let hex: String = block().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "534c444601120200abababababababababababababababab0700000000001000e093040078563412000000001481439b"
        );
    }

    #[test]
    fn another_version_is_told_before_anything_else_is_looked_at() {
        let mut bytes = block().encode();
        bytes[4] = 9;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Version(9)));
    }

    #[test]
    fn lengths_beyond_the_limit_of_the_kind_are_refused() {
        for (kind, len) in [(Kind::Beat, 1), (Kind::Block, BLOCK_MAX + 1), (Kind::Part, u32::MAX), (Kind::Ack, 25)] {
            let header = Header { kind, payload_len: len, raw_len: u32::MAX, ..block() };
            assert_eq!(Header::parse(&header.encode()), Err(HeaderError::Length(kind, len)));
        }
        let grown = Header { raw_len: 1000, payload_len: 1001, ..block() };
        assert_eq!(Header::parse(&grown.encode()), Err(HeaderError::Field("raw_len")));
        let empty = Header { payload_len: 0, ..block() };
        assert_eq!(Header::parse(&empty.encode()), Err(HeaderError::Field("raw_len")));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen(at in 0usize..HEADER_LEN * 8) {
            let mut bytes = block().encode();
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert!(Header::parse(&bytes).is_err());
        }

        #[test]
        fn what_is_encoded_is_parsed(number: u32, raw_len in 1u32..=BLOCK_MAX, crc: u32, codec: u8, flags: u8) {
            let header = Header { number, raw_len, payload_len: raw_len, payload_crc: crc, codec, flags, ..block() };
            prop_assert_eq!(Header::parse(&header.encode()), Ok(header));
        }
    }
}
