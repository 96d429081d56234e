//! Frames of a neighbour, at either end of a chain link. The first byte chooses the end and whether the link is open already;
//! a frame is its kind, flags, number and length (one, one, four and one byte) and a payload, header and checksums put right.
#![no_main]

use core::time::Duration;
use slidecast_proto::frame::{HEADER_LEN, Header, Kind};
use slidecast_proto::link::{Receiver, Sender, Terms};
use slidecast_proto::reason::LinkClass;
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, DeploymentId, Epoch, LinkKey, NodeId, Time};

const BLOCKS: u32 = 100;
const RING: u64 = 1 << 20;
const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((flags, mut rest)) = input.split_first() else { return };
    let (mut sender, mut receiver) = pair(flags & 1 == 1);
    let mut now = Time(1_000_000);
    while let Some(([kind, flag, n0, n1, n2, n3, len], after)) = rest.split_first_chunk() {
        let (payload, after) = after.split_at(usize::from(*len).min(after.len()));
        rest = after;
        now = now.after(Duration::from_millis(u64::from(flag >> 4) * 50));
        let Some(kind) = KINDS.get(usize::from(*kind) % KINDS.len()) else { return };
        let number = u32::from_le_bytes([*n0, *n1, *n2, *n3]);
        let header = Header { flags: flag & 3, ..Header::with_payload(*kind, DEPLOYMENT, number, payload) };
        let alive = if flags & 2 == 0 {
            sender.on_frame(&header, payload, now).and_then(|_| sender.on_time(now)).is_ok()
        } else if *kind == Kind::Block {
            let header = Header { raw_len: header.payload_len, ..header };
            receiver.on_block(&header, now).map(|()| receiver.on_block_complete(BlockNo(number))).is_ok()
        } else {
            receiver.on_frame(&header, payload, now).is_ok()
        };
        if !alive {
            return;
        }
        receiver.say_again(BlockNo(number % BLOCKS));
        if receiver.on_time(receiver.received(), RING, RING, now).is_err() {
            return;
        }
        for bytes in [sender.poll_control(), receiver.poll_control()].into_iter().flatten() {
            let (header, payload) = cut(&bytes);
            assert_eq!(header.payload_len as usize, payload.len());
        }
        let (received, passed) = sender.received();
        assert!(passed <= received && sender.lacking().count() <= BLOCKS);
    }
});

const KINDS: [Kind; 12] = [
    Kind::Hello,
    Kind::Accept,
    Kind::Proof,
    Kind::Refuse,
    Kind::Manifest,
    Kind::Part,
    Kind::Block,
    Kind::End,
    Kind::Lacks,
    Kind::Ack,
    Kind::Again,
    Kind::Beat,
];

fn cut(bytes: &[u8]) -> (Header, &[u8]) {
    let (header, payload) = bytes.split_first_chunk::<HEADER_LEN>().expect("a frame has a header");
    (Header::parse(header).expect("our own frames are right"), payload)
}

/// Both ends, before or after their handshake.
fn pair(open: bool) -> (Sender, Receiver) {
    let terms = Terms {
        deployment: DEPLOYMENT,
        epoch: Epoch(3),
        pass: 0,
        from: NodeId(4),
        to: NodeId(5),
        key: LinkKey([7; 32]),
        class: LinkClass::Paced,
    };
    let now = Time(1_000_000);
    let mut sender = Sender::new(terms.clone(), [7; 16], now);
    sender.set_universe(BLOCKS);
    let hello = sender.poll_control().expect("a link begins with a Hello");
    let (header, payload) = cut(&hello);
    let mut receiver = Receiver::answer(terms, &header, payload, false, [9; 16], now).expect("the right caller");
    if open {
        let accept = receiver.poll_control().expect("an Accept");
        let (header, payload) = cut(&accept);
        sender.on_frame(&header, payload, now).expect("the right answer");
        let proof = sender.poll_control().expect("a Proof");
        let (header, payload) = cut(&proof);
        receiver.on_frame(&header, payload, now).expect("the right proof");
        receiver.say_lacks(&BlockSet::full(BLOCKS));
        while let Some(bytes) = receiver.poll_control() {
            let (header, payload) = cut(&bytes);
            sender.on_frame(&header, payload, now).expect("what is lacking");
        }
    }
    (sender, receiver)
}
