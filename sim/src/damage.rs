//! Frames that are damaged on the way, and hosts that damage what they send.

use crate::network::Frame;
use slidecast_proto::frame::{Header, Kind};

/// How a frame is damaged on the way, past the checksum of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The payload of the next block: seen by its CRC.
    Block,
    /// The same, and the CRC happens to hold.
    Content,
    /// The next frame that is no block.
    Control,
    /// The header of the next frame of any kind.
    Head,
    /// One bit in the next part of the manifest, before its CRC was made: seen by its hash alone.
    Part,
}

/// How a host damages what it sends on chain links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corruption {
    /// So many of a thousand frames.
    pub(crate) permille: u64,
    /// Any frame, either way, headers too; otherwise the payloads of blocks and parts.
    pub(crate) all: bool,
}

/// Damages `frame` if it is of the kind that is meant.
pub(crate) fn harm(frame: &mut Frame, damage: Damage) -> bool {
    match (frame, damage) {
        (Frame::Block(_, _, content), Damage::Block) => *content ^= 1 << 7,
        (Frame::Block(_, _, content), Damage::Content) => *content ^= 1 << 40,
        (Frame::Whole(bytes), Damage::Control) => {
            let at = bytes.len() / 2;
            bytes[at] ^= 0x10;
        }
        (Frame::Block(head, ..) | Frame::Shared(head, _), Damage::Head) => head[26] ^= 0x04,
        (Frame::Whole(bytes), Damage::Head) => bytes[26] ^= 0x04,
        (Frame::Shared(head, bytes), Damage::Part) => {
            let Ok(header @ Header { kind: Kind::Part, .. }) = Header::parse(head) else { return false };
            let mut payload = bytes.to_vec();
            payload[3] ^= 0x20;
            let Header { deployment, number, .. } = header;
            *head = Header::with_payload(Kind::Part, deployment, number, &payload).encode();
            *bytes = payload.into();
        }
        _ => return false,
    }
    true
}
