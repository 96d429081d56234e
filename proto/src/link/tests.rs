use super::*;
use crate::frame::HEADER_LEN;
use crate::set::BlockSet;

const T0: Time = Time(1_000_000);

fn terms(key: u8) -> Terms {
    Terms {
        deployment: DeploymentId([1; 16]),
        epoch: Epoch(3),
        pass: 0,
        from: NodeId(4),
        to: NodeId(5),
        key: LinkKey([key; 32]),
        class: LinkClass::Paced,
    }
}

fn cut(bytes: &[u8]) -> (Header, Vec<u8>) {
    let header = Header::parse(bytes[..HEADER_LEN].try_into().unwrap()).unwrap();
    (header, bytes[HEADER_LEN..].to_vec())
}

fn answered(upstream: Terms, downstream: Terms) -> (Sender, Result<Receiver, LinkFault>) {
    let mut sender = Sender::new(upstream, [7; 16], T0);
    let (header, payload) = cut(&sender.poll_control().unwrap());
    (sender, Receiver::answer(downstream, &header, &payload, false, [9; 16], T0))
}

fn open(lacks: &BlockSet) -> (Sender, Receiver) {
    let (mut sender, receiver) = answered(terms(1), terms(1));
    let mut receiver = receiver.unwrap();
    sender.set_universe(lacks.universe());
    let (header, payload) = cut(&receiver.poll_control().unwrap());
    assert_eq!(sender.on_frame(&header, &payload, T0), Ok(SenderEvent::Proven { has_header: false }));
    let (header, payload) = cut(&sender.poll_control().unwrap());
    assert_eq!(receiver.on_frame(&header, &payload, T0), Ok(ReceiverEvent::Proven));
    receiver.say_lacks(lacks);
    while let Some(bytes) = receiver.poll_control() {
        let (header, payload) = cut(&bytes);
        sender.on_frame(&header, &payload, T0).unwrap();
    }
    assert!(sender.is_open() && receiver.is_open());
    (sender, receiver)
}

fn block(number: u32, len: u32) -> Header {
    Header { number, raw_len: len, payload_len: len, ..Header::bare(Kind::Block, DeploymentId([1; 16]), 0) }
}

#[test]
fn the_bytes_of_the_hello_are_frozen() {
    let bytes = Sender::new(terms(1), [7; 16], T0).poll_control().unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "534c44460101000001010101010101010101010101010101000000000000000028000000ffddf0d100000000c15eb402\
         040000000500000003000000000000000000000000000000\
         07070707070707070707070707070707"
    );
}

#[test]
fn both_proofs_are_frozen() {
    let hello =
        Greeting { from: NodeId(4), to: NodeId(5), epoch: Epoch(3), pass: 0, class: LinkClass::Paced, nonce: [7; 16] };
    let said = hello.encode();
    let proofs = [DOWNSTREAM, UPSTREAM].map(|label| proof(&terms(1), label, &said, &[9; 16]));
    let all: Vec<u8> = [terms(1).deployment.0.to_vec(), said, vec![9; 16]].concat();
    let by_the_book = [&b"slidecast link 1 downstream"[..], b"slidecast link 1 upstream"]
        .map(|label| *blake3::keyed_hash(&terms(1).key.0, &[label, &all].concat()).as_bytes());
    assert_eq!(proofs, by_the_book);
    assert_eq!(blake3::Hash::from(proofs[0]).to_hex()[..16], *"b606b4c776e4559d");
}

#[test]
fn a_neighbour_without_the_key_is_refused_by_either_end() {
    let (mut sender, receiver) = answered(terms(1), terms(2));
    let (header, payload) = cut(&receiver.unwrap().poll_control().unwrap());
    assert_eq!(sender.on_frame(&header, &payload, T0), Err(LinkFault::Proof));

    let (_, receiver) = answered(terms(1), terms(1));
    let mut receiver = receiver.unwrap();
    let (header, payload) = cut(&framed(Kind::Proof, terms(1).deployment, 0, 0, &[0; 32]));
    assert_eq!(receiver.on_frame(&header, &payload, T0), Err(LinkFault::Proof));
}

#[test]
fn a_call_from_an_older_epoch_or_another_node_is_a_stranger() {
    let stale = Terms { epoch: Epoch(2), ..terms(1) };
    let (_, receiver) = answered(stale, terms(1));
    assert_eq!(receiver.err(), Some(LinkFault::Stranger { from: NodeId(4), epoch: Epoch(2) }));
    let other = Terms { from: NodeId(6), ..terms(1) };
    let (_, receiver) = answered(other, terms(1));
    assert_eq!(receiver.err(), Some(LinkFault::Stranger { from: NodeId(6), epoch: Epoch(3) }));
}

#[test]
fn the_upstream_learns_exactly_what_is_lacking() {
    let mut lacks = BlockSet::empty(1_200_000);
    [0, 5, 600_000, 1_199_999].into_iter().for_each(|block| assert!(lacks.insert(BlockNo(block))));
    let (mut sender, _) = open(&lacks);
    assert_eq!(sender.lacking(), &lacks);
    sender.sent_block(&block(5, 10));
    assert!(!sender.lacks(BlockNo(5)));
}

#[test]
fn credit_bounds_what_may_come_and_a_frame_beyond_it_ends_the_link() {
    let (mut sender, mut receiver) = open(&BlockSet::full(10));
    assert!(!sender.may_send(4096));
    receiver.on_time(0, 8192, 8192, T0).unwrap();
    let (header, payload) = cut(&receiver.poll_control().unwrap());
    assert_eq!(sender.on_frame(&header, &payload, T0), Ok(SenderEvent::Acked));
    assert!(sender.may_send(8192) && !sender.may_send(8193));
    assert_eq!(receiver.on_block(&block(0, 5000), T0), Ok(()));
    assert_eq!(receiver.on_block(&block(1, 1), T0), Err(LinkFault::Credit));
}

#[test]
fn a_mebibyte_that_came_is_acknowledged_at_once_though_no_space_is_free_again() {
    let (_, mut receiver) = open(&BlockSet::full(10));
    receiver.on_time(0, 64 << 20, 64 << 20, T0).unwrap();
    assert!(receiver.poll_control().is_some(), "the first credit");
    let arrive = |receiver: &mut Receiver, number| {
        receiver.on_block(&block(number, 512 << 10), T0).unwrap();
        receiver.on_block_complete(BlockNo(number));
        receiver.on_time(0, (64 << 20) - u64::from(number + 1) * (512 << 10), 64 << 20, T0).unwrap();
        receiver.poll_control()
    };
    assert_eq!(arrive(&mut receiver, 0), None);
    let (header, payload) = cut(&arrive(&mut receiver, 1).unwrap());
    assert_eq!((header.kind, &payload[..8]), (Kind::Ack, &2u64.to_le_bytes()[..]));
    assert_eq!(arrive(&mut receiver, 2), None);
}

#[test]
fn an_ack_for_frames_never_sent_is_malformed() {
    let (mut sender, _) = open(&BlockSet::full(10));
    let payload = [1u64.to_le_bytes(), 0u64.to_le_bytes(), 0u64.to_le_bytes()].concat();
    let (header, payload) = cut(&framed(Kind::Ack, terms(1).deployment, 0, 0, &payload));
    assert_eq!(sender.on_frame(&header, &payload, T0), Err(LinkFault::Malformed("Ack")));
}

#[test]
fn silence_is_found_after_two_seconds_and_a_beat_prevents_it() {
    let (mut sender, mut receiver) = open(&BlockSet::full(10));
    let later = T0.after(Duration::from_millis(1900));
    sender.on_time(later).unwrap();
    let (header, payload) = cut(&sender.poll_control().unwrap());
    assert_eq!(header.kind, Kind::Beat);
    receiver.on_frame(&header, &payload, later).unwrap();
    let end = T0.after(Duration::from_millis(2100));
    assert!(matches!(sender.on_time(end), Err(LinkFault::Silent(_))));
    assert_eq!(receiver.on_time(0, 0, 1, end), Ok(()));
}

#[test]
fn a_proven_link_lives_while_the_manifest_is_awaited_or_a_disk_is_hashed() {
    let (mut sender, receiver) = answered(terms(1), terms(1));
    let mut receiver = receiver.unwrap();
    let (header, payload) = cut(&receiver.poll_control().unwrap());
    sender.on_frame(&header, &payload, T0).unwrap();
    let (header, payload) = cut(&sender.poll_control().unwrap());
    receiver.on_frame(&header, &payload, T0).unwrap();
    for step in 1..100 {
        let now = T0.after(BEAT * step);
        assert_eq!((sender.on_time(now), receiver.on_time(0, 0, 1, now)), (Ok(()), Ok(())), "after {step} beats");
        let (header, payload) = cut(&sender.poll_control().unwrap());
        assert_eq!(receiver.on_frame(&header, &payload, now), Ok(ReceiverEvent::Nothing));
        sender.on_said(now);
        let (header, payload) = cut(&receiver.poll_control().unwrap());
        assert_eq!(sender.on_frame(&header, &payload, now), Ok(SenderEvent::Nothing));
        receiver.on_said(now);
    }
}

#[test]
fn an_end_with_nothing_to_say_sleeps_until_its_next_beat() {
    let (mut sender, mut receiver) = open(&BlockSet::full(10));
    let mut now = T0;
    for _ in 0..100 {
        receiver.on_time(0, 4096, 4096, now).unwrap();
        sender.on_time(now).unwrap();
        let next = receiver.deadline().min(sender.deadline());
        assert!(next > now, "it would be asked again at once");
        while let Some(bytes) = receiver.poll_control() {
            let (header, payload) = cut(&bytes);
            sender.on_frame(&header, &payload, now).unwrap();
        }
        // The sender's socket takes nothing: its beat waits.
        receiver.on_alive(now);
        now = next;
    }
    assert!(now >= T0.after(BEAT * 20), "100 turns took only {:?}", now.since(T0));
}

#[test]
fn a_handshake_that_never_completes_is_given_up() {
    let (mut sender, _) = answered(terms(1), terms(1));
    assert_eq!(sender.on_time(T0.after(HANDSHAKE)), Err(LinkFault::Handshake));
}

#[test]
fn blocks_before_the_link_is_open_are_out_of_turn() {
    let (_, receiver) = answered(terms(1), terms(1));
    assert_eq!(receiver.unwrap().on_block(&block(0, 1), T0), Err(LinkFault::Unexpected(Kind::Block)));
}

#[test]
fn a_refusal_is_passed_on_as_one_clean_line() {
    let (mut sender, _) = answered(terms(1), terms(1));
    let (header, payload) = cut(&refusal(terms(1).deployment, "not\nyet"));
    assert_eq!(sender.on_frame(&header, &payload, T0), Err(LinkFault::Refused("notyet".into())));
}
