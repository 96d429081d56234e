//! Follows the frames of a chain link through a stream that is cut anywhere, so that the proxy can strike in one of them.

use slidecast_proto::frame::{HEADER_LEN, Header, Kind};
use slidecast_proto::units::DeploymentId;

/// Which frames are looked for, and what is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// One bit of the payload of the next frame of this kind changes. With `mended`, the CRC of the frame is that of the changed
    /// payload: what bad memory does, ahead of the sender's arithmetic.
    Flip {
        /// The kind.
        kind: Kind,
        /// Whether the CRC is computed anew.
        mended: bool,
    },
    /// No frame of the image passes any more. Frames of the handshake do.
    Hold,
}

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// They pass.
    On,
    /// They pass, and one of them was changed.
    Struck,
    /// The next frame is one that may not pass.
    Held(DeploymentId),
}

/// The frames of one direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The beginning of a frame that has not passed yet.
    partial: Vec<u8>,
    /// Bytes of the payload of a frame that has begun to pass.
    payload_left: usize,
    /// Something came that is no frame: nothing more is looked for.
    lost: bool,
}

impl Frames {
    /// Takes `bytes` and gives in `out` what passes now. Without an aim everything passes; frames are followed all the same.
    pub(super) fn push(&mut self, bytes: &[u8], aim: Option<Aim>, out: &mut Vec<u8>) -> Then {
        self.partial.extend_from_slice(bytes);
        self.advance(aim, out)
    }

    /// As [`Frames::push`], when nothing came.
    pub(super) fn advance(&mut self, aim: Option<Aim>, out: &mut Vec<u8>) -> Then {
        let mut then = Then::On;
        loop {
            if self.lost {
                out.append(&mut self.partial);
                return then;
            }
            let now = self.payload_left.min(self.partial.len());
            out.extend(self.partial.drain(..now));
            self.payload_left -= now;
            let Some(head) = self.partial.first_chunk::<HEADER_LEN>() else { return then };
            let Ok(header) = Header::parse(head) else {
                self.lost = true;
                continue;
            };
            let len = usize::try_from(header.payload_len).expect("at most 16 MiB, as parsed");
            match aim {
                Some(Aim::Hold) if matches!(header.kind, Kind::Part | Kind::Block | Kind::End) => {
                    return Then::Held(header.deployment);
                }
                Some(Aim::Flip { kind, mended }) if kind == header.kind && len > 0 && then == Then::On => {
                    if self.partial.len() < HEADER_LEN + len {
                        return then;
                    }
                    let payload = &mut self.partial[HEADER_LEN..HEADER_LEN + len];
                    payload[len / 2] ^= 0x10;
                    if mended {
                        let crc = Header::with_payload(kind, header.deployment, header.number, payload).payload_crc;
                        let head = Header { payload_crc: crc, ..header }.encode();
                        self.partial[..HEADER_LEN].copy_from_slice(&head);
                    }
                    then = Then::Struck;
                }
                _ => {}
            }
            out.extend(self.partial.drain(..HEADER_LEN));
            self.payload_left = len;
        }
    }

    /// Whether the last frame that passed is complete on the other side.
    pub(super) fn between(&self) -> bool {
        self.payload_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: DeploymentId = DeploymentId([7; 16]);

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        [&Header::with_payload(kind, ID, 0, payload).encode()[..], payload].concat()
    }

    fn in_pieces(bytes: &[u8], aim: Option<Aim>, piece: usize) -> (Vec<u8>, Vec<Then>) {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        let then = bytes.chunks(piece).map(|piece| frames.push(piece, aim, &mut out)).collect();
        (out, then)
    }

    #[test]
    fn what_is_not_aimed_at_passes_as_it_is_however_it_is_cut() {
        let all = [frame(Kind::Manifest, &[1; 100]), frame(Kind::Part, &[2; 70]), frame(Kind::Beat, &[])].concat();
        for piece in [1, 7, 48, 1000] {
            assert_eq!(in_pieces(&all, None, piece).0, all);
            assert_eq!(
                in_pieces(b"SLIDECTL and what follows, longer than a header of a frame", None, piece).0.len(),
                58
            );
        }
    }

    #[test]
    fn one_bit_of_the_aimed_frame_changes_and_its_crc_is_mended_or_not() {
        let all = [frame(Kind::Manifest, &[1; 100]), frame(Kind::Part, &[2; 70]), frame(Kind::Beat, &[])].concat();
        for mended in [false, true] {
            let (out, then) = in_pieces(&all, Some(Aim::Flip { kind: Kind::Part, mended }), 9);
            assert_eq!(then.iter().filter(|then| **then == Then::Struck).count(), 1);
            let differ: u32 = out.iter().zip(&all).skip(148 + 48).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!((out.len(), differ), (all.len(), 1));
            let head: &[u8; HEADER_LEN] = out[148..].first_chunk().unwrap();
            let crc = Header::parse(head).unwrap().payload_crc;
            assert_eq!(crc == Header::with_payload(Kind::Part, ID, 0, &out[196..266]).payload_crc, mended);
        }
    }

    #[test]
    fn the_handshake_passes_and_the_first_frame_of_the_image_is_held() {
        let greeting = [frame(Kind::Hello, &[1; 40]), frame(Kind::Manifest, &[1; 100])].concat();
        let all = [greeting.clone(), frame(Kind::Part, &[2; 70])].concat();
        let (out, then) = in_pieces(&all, Some(Aim::Hold), 1000);
        assert_eq!((out, then), (greeting, vec![Then::Held(ID)]));
    }
}
