//! Frames with right checksums whose meaning is wrong: counts, credits, orders, parts, repetitions, the wrong side.

use slidecast_proto::frame::{Header, Kind, LAST};
use slidecast_proto::link::Terms;
use slidecast_proto::units::DeploymentId;

use super::sample::Sample;
use crate::disk::random::Random;

/// A number near an end of what is sensible, or any.
pub(super) fn number(random: &mut Random, count: u32) -> u32 {
    let some = u32::try_from(random.below(u64::from(count.max(1)))).unwrap_or(0);
    match random.below(8) {
        0 => 0,
        1 => count.saturating_sub(1),
        2 => count,
        3 => count.saturating_add(1),
        4 => u32::MAX,
        5 => 1 << 24,
        _ => some,
    }
}

/// The same in 64 bits.
pub(super) fn long(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => u64::MAX - 1,
        4 => 1 << 63,
        _ => random.word() >> random.below(64),
    }
}

fn bytes(header: Header, payload: &[u8]) -> Vec<u8> {
    [&header.encode()[..], payload].concat()
}

fn flipped(random: &mut Random, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    if let Some(at) = payload.len().checked_sub(1) {
        let at = usize::try_from(random.below(at as u64 + 1)).unwrap_or(0);
        payload[at] ^= 1 << random.below(8);
    }
    payload
}

fn pick<'a, T>(random: &mut Random, all: &'a [T]) -> Option<&'a T> {
    let at = random.below(all.len().max(1) as u64);
    all.get(usize::try_from(at).unwrap_or(0))
}

/// A frame of the image as it is: the one number `at` of header, parts, blocks, End.
pub(super) fn honest(sample: &Sample, terms: &Terms, at: usize) -> Option<Vec<u8>> {
    let of = terms.deployment;
    if let Some(part) = sample.parts.get(at) {
        let number = u32::try_from(at).unwrap_or(u32::MAX);
        return Some(bytes(Header::with_payload(Kind::Part, of, number, part), part));
    }
    let at = at - sample.parts.len();
    if let Some((header, payload)) = sample.blocks.get(at) {
        return Some(bytes(Header { deployment: of, ..*header }, payload));
    }
    (at == sample.blocks.len()).then(|| bytes(Header::bare(Kind::End, of, terms.pass), &[]))
}

/// A frame that an upstream should not send, or not now.
pub(super) fn down(random: &mut Random, sample: &Sample, terms: &Terms) -> Vec<u8> {
    let of = terms.deployment;
    let parts = u32::try_from(sample.parts.len()).unwrap_or(u32::MAX);
    let part = pick(random, &sample.parts).cloned().unwrap_or_default();
    let (block, payload) =
        pick(random, &sample.blocks).cloned().unwrap_or_else(|| (Header::bare(Kind::Block, of, 0), vec![0; 8]));
    let block = Header { deployment: of, ..block };
    let fresh = |kind, number, payload: &[u8]| bytes(Header::with_payload(kind, of, number, payload), payload);
    match random.below(20) {
        0 => fresh(Kind::Manifest, 0, &sample.header),
        1 => fresh(Kind::Manifest, 0, &flipped(random, &sample.header)),
        2 => {
            let len = usize::try_from(random.below(400)).unwrap_or(0);
            fresh(Kind::Manifest, number(random, 2), &random.bytes(len))
        }
        3 => fresh(Kind::Part, number(random, parts), &part),
        4 => fresh(Kind::Part, 0, &flipped(random, &part)),
        5 => fresh(Kind::Part, 0, &part[..part.len() / 2]),
        6 => bytes(block, &payload),
        7 => bytes(Header { number: number(random, sample.count), ..block }, &payload),
        8 => {
            let payload = flipped(random, &payload);
            let crc = Header::with_payload(Kind::Block, of, 0, &payload).payload_crc;
            bytes(Header { payload_crc: crc, ..block }, &payload)
        }
        9 => bytes(
            Header { raw_len: block.payload_len.max(number(random, block.raw_len).min(16 << 20)), ..block },
            &payload,
        ),
        10 => bytes(Header { codec: u8::try_from(random.below(5)).unwrap_or(0), ..block }, &payload),
        11 => bytes(Header { payload_crc: 0, ..block }, &payload),
        12 => fresh(Kind::End, terms.pass, &[]),
        13 => fresh(Kind::End, number(random, 3), &[]),
        14 => fresh(Kind::Beat, number(random, 3), &[]),
        15 => up(random, sample, terms),
        16 => fresh(Kind::Proof, 0, &random.bytes(32)),
        17 => fresh(Kind::Hello, 0, &random.bytes(40)),
        18 => fresh(Kind::Refuse, 0, &random.bytes(30)),
        _ => either(random, of, block, &payload),
    }
}

/// A frame that a downstream should not send, or not now.
pub(super) fn up(random: &mut Random, sample: &Sample, terms: &Terms) -> Vec<u8> {
    let of = terms.deployment;
    let fresh = |kind, number, payload: &[u8]| bytes(Header::with_payload(kind, of, number, payload), payload);
    match random.below(12) {
        0..=2 => {
            let counts = [long(random), long(random), long(random)].map(u64::to_le_bytes).concat();
            fresh(Kind::Ack, 0, &counts)
        }
        3 => {
            let count = random.below(u64::from(sample.count) + 2);
            fresh(Kind::Ack, 0, &[count, random.below(count + 2), long(random)].map(u64::to_le_bytes).concat())
        }
        4 | 5 => {
            let len = match random.below(4) {
                0 => 0,
                1 => 8,
                2 => usize::try_from(random.below(200)).unwrap_or(0),
                _ => 64 << 10,
            };
            let payload = random.bytes(len);
            let flags = if random.below(2) == 0 { LAST } else { 0 };
            bytes(Header { flags, ..Header::with_payload(Kind::Lacks, of, number(random, 2), &payload) }, &payload)
        }
        6 | 7 => {
            let again = |random: &mut Random| fresh(Kind::Again, number(random, sample.count), &[]);
            (0..=random.below(40)).flat_map(|_| again(random)).collect()
        }
        8 => fresh(Kind::Beat, 0, &[]),
        9 => fresh(Kind::Accept, 0, &random.bytes(48)),
        10 => fresh(Kind::Manifest, 0, &sample.header),
        _ => match sample.blocks.first() {
            Some((block, payload)) => either(random, of, Header { deployment: of, ..*block }, payload),
            None => fresh(Kind::Refuse, 0, b"no"),
        },
    }
}

/// Another deployment, unknown flags, a kind that there is not; all with right checksums.
fn either(random: &mut Random, of: DeploymentId, block: Header, payload: &[u8]) -> Vec<u8> {
    match random.below(3) {
        0 => bytes(Header { deployment: DeploymentId([9; 16]), ..block }, payload),
        1 => bytes(Header { flags: 0xFF, ..block }, payload),
        _ => bytes(Header { flags: LAST, ..Header::bare(Kind::Lacks, of, 0) }, &[]),
    }
}
