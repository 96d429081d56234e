//! The encrypted channel: it opens, carries messages however the bytes are cut, and every failure has its name on both sides.

use proptest::collection::vec;
use proptest::prelude::*;
use slidecast_proto::control::MAX_MESSAGE;
use slidecast_proto::noise::*;
use slidecast_proto::reason::Reason;

fn key(byte: u8) -> SecretKey {
    format!("{byte:02x}").repeat(32).parse().expect("64 hexadecimal digits")
}

fn pinned() -> (Channel, Channel) {
    let server = key(1);
    (Channel::agent(&key(2), Some(server.public())), Channel::server(Some(&server)))
}

fn insecure() -> (Channel, Channel) {
    (Channel::agent(&key(2), None), Channel::server(None))
}

/// Carries bytes to and fro until nobody has anything to say; gives what each end made of it.
fn talk(agent: &mut Channel, server: &mut Channel) -> (Result<(), ChannelError>, Result<(), ChannelError>) {
    let (mut at_agent, mut at_server) = (Ok(()), Ok(()));
    loop {
        let up = agent.poll_transmit();
        let down = server.poll_transmit();
        if up.is_none() && down.is_none() {
            return (at_agent, at_server);
        }
        if let Some(bytes) = up {
            at_server = server.on_bytes(&bytes);
        }
        if let Some(bytes) = down {
            at_agent = agent.on_bytes(&bytes);
        }
    }
}

fn open(mut ends: (Channel, Channel)) -> (Channel, Channel) {
    assert_eq!(talk(&mut ends.0, &mut ends.1), (Ok(()), Ok(())));
    assert!(ends.0.is_open() && ends.1.is_open());
    ends
}

#[test]
fn a_pinned_channel_opens_and_each_end_knows_the_other() {
    let (agent, server) = open(pinned());
    assert_eq!(agent.peer_key(), Some(key(1).public()));
    assert_eq!(server.peer_key(), Some(key(2).public()));
}

#[test]
fn an_insecure_channel_opens_and_nobody_knows_anybody() {
    let (agent, server) = open(insecure());
    assert_eq!((agent.peer_key(), server.peer_key()), (None, None));
}

#[test]
fn both_ends_of_a_channel_and_no_other_have_its_handshake_hash() {
    for ends in [pinned, insecure] {
        assert_eq!(ends().0.handshake_hash(), None);
        let ((agent, server), (other, _)) = (open(ends()), open(ends()));
        assert!(agent.handshake_hash().is_some_and(|hash| hash != [0; 32]));
        assert_eq!(agent.handshake_hash(), server.handshake_hash());
        assert_ne!(agent.handshake_hash(), other.handshake_hash());
    }
}

#[test]
fn the_longest_message_passes_and_a_longer_one_is_refused() {
    for (mut agent, mut server) in [open(pinned()), open(insecure())] {
        let message = vec![7; MAX_MESSAGE];
        agent.send(&message).unwrap();
        assert_eq!(agent.send(&[7; MAX_MESSAGE + 1]), Err(SendError::TooLong(MAX_MESSAGE + 1)));
        server.send(b"yes").unwrap();
        assert_eq!(talk(&mut agent, &mut server), (Ok(()), Ok(())));
        assert_eq!(server.poll_message(), Some(message));
        assert_eq!(server.poll_message(), None);
        assert_eq!(agent.poll_message(), Some(b"yes".to_vec()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_arrive_in_order_however_the_bytes_are_cut(
        messages in vec(vec(any::<u8>(), 0..300), 1..8), cuts in vec(1..100_usize, 1..50)
    ) {
        let (mut agent, mut server) = pinned();
        let mut cuts = cuts.into_iter().cycle();
        let mut carry = |from: &mut Channel, to: &mut Channel| {
            let bytes = from.poll_transmit().unwrap_or_default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                to.on_bytes(now).unwrap();
                rest = later;
            }
        };
        for _ in 0..3 {
            carry(&mut agent, &mut server);
            carry(&mut server, &mut agent);
        }
        for message in &messages {
            agent.send(message).unwrap();
        }
        carry(&mut agent, &mut server);
        for message in messages {
            prop_assert_eq!(server.poll_message(), Some(message));
        }
    }

    #[test]
    fn random_bytes_at_any_stage_end_a_channel_and_never_open_it(bytes in vec(any::<u8>(), 100..2000), stage in 0..4) {
        let (mut agent, mut server) = pinned();
        for _ in 0..stage {
            if let Some(bytes) = agent.poll_transmit() { server.on_bytes(&bytes).unwrap() }
            if let Some(bytes) = server.poll_transmit() { agent.on_bytes(&bytes).unwrap() }
        }
        for end in [&mut agent, &mut server] {
            let was_open = end.is_open();
            if let Err(error) = end.on_bytes(&bytes) {
                prop_assert!(!end.is_open());
                prop_assert_eq!(end.on_bytes(&[]), Err(error), "it stays over");
            }
            prop_assert!(was_open || !end.is_open());
            prop_assert_eq!(end.poll_message(), None);
        }
    }
}

#[test]
fn random_bytes_and_other_protocols_are_garbage_on_both_sides() {
    for bytes in [&[0xa5; 4096][..], b"GET / HTTP/1.1\r\nHost: slidecast\r\n\r\n", b"SSH-2.0-OpenSSH_9.2p1\r\n"] {
        for (mut agent, mut server) in [pinned(), insecure()] {
            assert_eq!(server.on_bytes(bytes), Err(ChannelError::Garbage { expected: "preface" }));
            assert_eq!(server.poll_transmit(), None, "nothing is said to a stranger");
            assert_eq!(agent.on_bytes(bytes), Err(ChannelError::Garbage { expected: "preface" }));
        }
    }
}

#[test]
fn another_version_is_named_on_both_sides() {
    let (mut agent, mut server) = pinned();
    let mut preface = agent.poll_transmit().unwrap();
    preface[8] = 9;
    let error = ChannelError::VersionMismatch { ours: VERSION, theirs: 9 };
    assert_eq!(server.on_bytes(&preface), Err(error));
    assert_eq!(error.to_string(), "the peer speaks version 9 of the protocol, we speak version 3");
    // What an agent of version 9 is told, and what our agent makes of a server of version 9.
    let mut answer = server.poll_transmit().unwrap();
    assert_eq!(answer, b"SLIDECTL\x03\0\x01\0\0\0\0\0");
    answer[8] = 9;
    assert_eq!(agent.on_bytes(&answer), Err(error));
    assert_eq!(error.reason(), Reason::VersionMismatch);
}

#[test]
fn insecure_on_one_side_only_is_named_on_both_sides() {
    let server = key(1);
    let cases = [
        (Channel::agent(&key(2), None), Channel::server(Some(&server)), End::Agent),
        (Channel::agent(&key(2), Some(server.public())), Channel::server(None), End::Server),
    ];
    for (mut agent, mut server, insecure) in cases {
        let error = ChannelError::InsecureMismatch { insecure };
        assert_eq!(talk(&mut agent, &mut server), (Err(error), Err(error)));
        assert_eq!(error.to_string(), format!("only the {insecure} was started with --insecure"));
        assert_eq!(error.reason(), Reason::InsecureMismatch);
    }
}

#[test]
fn a_pinned_agent_never_goes_on_insecurely_whatever_the_server_says() {
    let (mut agent, _) = pinned();
    let lie = b"SLIDECTL\x03\x01\0\0\0\0\0\0";
    assert_eq!(agent.on_bytes(lie), Err(ChannelError::InsecureMismatch { insecure: End::Server }));
    let (mut agent, _) = pinned();
    assert_eq!(agent.on_bytes(b"SLIDECTL\x03\x07\0\0\0\0\0\0"), Err(ChannelError::Garbage { expected: "preface" }));
}

#[test]
fn a_server_with_another_key_than_the_pinned_one_is_named_on_both_sides() {
    let mut agent = Channel::agent(&key(2), Some(key(3).public()));
    let mut server = Channel::server(Some(&key(1)));
    let error = ChannelError::KeyMismatch;
    assert_eq!(talk(&mut agent, &mut server), (Err(error), Err(error)));
    assert!(!agent.is_open() && !server.is_open());
    assert_eq!((server.peer_key(), error.reason()), (None, Reason::KeyMismatch));
}

#[test]
fn a_fake_server_that_answers_without_the_key_is_a_key_mismatch() {
    let (mut agent, _) = pinned();
    agent.on_bytes(b"SLIDECTL\x03\0\0\0\0\0\0\0").unwrap();
    let mut answer = vec![48, 0];
    answer.extend([9; 48]);
    assert_eq!(agent.on_bytes(&answer), Err(ChannelError::KeyMismatch));
}

#[test]
fn a_busy_server_says_so() {
    let mut agent = Channel::agent(&key(2), Some(key(1).public()));
    let mut server = Channel::busy_server(Mode::Pinned);
    assert_eq!(talk(&mut agent, &mut server), (Err(ChannelError::Busy), Err(ChannelError::Busy)));
}

#[test]
fn a_message_that_was_changed_repeated_or_left_out_ends_the_channel() {
    let garbage = Err(ChannelError::Garbage { expected: "message" });
    let sent = |server: &mut Channel| {
        server.send(b"abort").unwrap();
        server.poll_transmit().unwrap()
    };
    let (mut agent, mut server) = open(pinned());
    let mut bytes = sent(&mut server);
    bytes[4] ^= 1;
    assert_eq!(agent.on_bytes(&bytes), garbage);
    assert_eq!((agent.poll_message(), agent.is_open()), (None, false));

    let (mut agent, mut server) = open(pinned());
    let bytes = sent(&mut server);
    assert_eq!(agent.on_bytes(&bytes), Ok(()));
    assert_eq!(agent.on_bytes(&bytes), garbage);
    assert_eq!(agent.poll_message(), Some(b"abort".to_vec()), "what came before is still there");

    let (mut agent, mut server) = open(pinned());
    sent(&mut server);
    assert_eq!(agent.on_bytes(&sent(&mut server)), garbage);
}

#[test]
fn a_recorded_run_replayed_to_a_server_ends_at_the_handshake() {
    let (mut agent, mut server) = pinned();
    let mut recorded = Vec::new();
    for _ in 0..3 {
        if let Some(bytes) = agent.poll_transmit() {
            recorded.extend(&bytes);
            server.on_bytes(&bytes).unwrap();
        }
        if let Some(bytes) = server.poll_transmit() {
            agent.on_bytes(&bytes).unwrap();
        }
    }
    assert!(server.is_open());
    let mut again = Channel::server(Some(&key(1)));
    assert_eq!(again.on_bytes(&recorded), Err(ChannelError::Garbage { expected: "handshake message" }));
    assert_eq!(again.peer_key(), None);
}

#[test]
fn a_length_that_cannot_be_is_refused_before_a_byte_is_kept() {
    for len in [0_u16, 1, 15, 65_017, 65_535] {
        let (mut agent, _server) = open(pinned());
        assert_eq!(agent.on_bytes(&len.to_le_bytes()), Err(ChannelError::Garbage { expected: "message" }), "{len}");
    }
    for len in [0_u16, 1, 47, 49, 64, 65_535] {
        let (_, mut server) = pinned();
        server.on_bytes(b"SLIDECTL\x03\0\0\0\0\0\0\0").unwrap();
        let expected = Err(ChannelError::Garbage { expected: "handshake message" });
        assert_eq!(server.on_bytes(&len.to_le_bytes()), expected, "{len}");
    }
}

#[test]
fn buffers_are_bounded_in_both_directions() {
    let (mut agent, mut server) = open(pinned());
    let message = vec![7; MAX_MESSAGE];
    let mut bytes = Vec::new();
    while bytes.len() <= MAX_QUEUED {
        agent.send(&message).unwrap();
        bytes.extend(agent.poll_transmit().unwrap());
    }
    assert_eq!(server.on_bytes(&bytes), Err(ChannelError::Overrun));

    let (mut agent, _server) = open(pinned());
    let taken = (0..1000).take_while(|_| agent.send(&message).is_ok()).count();
    assert!((16..=18).contains(&taken), "{taken}");
    assert_eq!(agent.send(b"x"), Err(SendError::Backlog));
}

#[test]
fn nothing_can_be_sent_before_the_channel_is_open_or_after_it_is_over() {
    let (mut agent, mut server) = pinned();
    assert_eq!(agent.send(b"x"), Err(SendError::NotOpen));
    assert_eq!(server.send(b"x"), Err(SendError::NotOpen));
    assert!(server.on_bytes(&[0; 16]).is_err());
    assert_eq!(server.send(b"x"), Err(SendError::NotOpen));
}

#[test]
fn a_channel_shows_no_secret() {
    let (agent, server) = open(pinned());
    for text in [format!("{agent:?}"), format!("{server:?}")] {
        assert!(!text.contains("0202") && !text.contains("0101"), "{text}");
    }
}
