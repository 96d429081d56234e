use super::responder::SLOTS;
use super::*;
use crate::noise::{PublicKey, SecretKey};
use crate::units::{DeploymentId, Time};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};

const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn offer() -> Offer {
    Offer { server: Some(PublicKey([0x5e; 32])), port: 7531, deployment: DeploymentId([0xd0; 16]) }
}

fn at(millis: u64) -> Time {
    Time(millis * 1000)
}

#[test]
fn the_bytes_of_a_seek_are_frozen() {
    let mut expected = b"SLIDESEK\x03\0\0\0\0\0\0\0abcdefgh".to_vec();
    expected.resize(96, 0);
    assert_eq!(Seek::new(*b"abcdefgh").encode(), expected[..]);
}

#[test]
fn the_bytes_of_an_offer_are_frozen() {
    let mut expected = b"SLIDEOFR\x03\0\x6b\x1d\0\0\0\0abcdefgh".to_vec();
    expected.extend([0x5e; 32]);
    expected.extend([0xd0; 16]);
    expected.resize(96, 0);
    assert_eq!(offer().encode(*b"abcdefgh"), expected[..]);
    let mut insecure = expected;
    insecure[9] = 1;
    insecure[24..56].fill(0);
    assert_eq!(Offer { server: None, ..offer() }.encode(*b"abcdefgh"), insecure[..]);
}

#[test]
fn a_seek_is_answered_with_the_offer_and_its_nonce() {
    let mut responder = Responder::new(offer(), None);
    let answer = responder.on_datagram([10, 0, 0, 7].into(), OURS, &Seek::new([7; 8]).encode(), at(5)).unwrap().bytes;
    assert_eq!(Offer::parse(&answer, [7; 8]), Ok(offer()));
    assert_eq!(Offer::parse(&answer, [8; 8]), Err(OfferError::OtherNonce));
}

#[test]
fn only_the_server_itself_can_prove_an_offer_and_only_for_its_own_address() {
    let secret: SecretKey = "11".repeat(32).parse().unwrap();
    let own: SecretKey = "22".repeat(32).parse().unwrap();
    let server = secret.public();
    let true_offer = Offer { server: Some(server), ..offer() };
    let recognition = Recognition::new(&own, &server).unwrap();
    let seek = Seek { key: Some(recognition.public()), ..Seek::new([7; 8]) };
    assert_eq!(Seek::parse(&seek.encode()), Ok(seek));
    let ask = |secret: Option<SecretKey>, ours, seek: Seek| {
        let mut responder = Responder::new(true_offer, secret);
        responder.on_datagram([10, 0, 0, 7].into(), ours, &seek.encode(), at(5)).unwrap().bytes
    };
    let answer = ask(Some(secret.clone()), OURS, seek);
    assert_eq!(Offer::parse(&answer, [7; 8]), Ok(true_offer));
    assert!(recognition.is_of_server(&answer, OURS));
    assert!(recognition.is_of_server(&answer, "::ffff:10.0.0.1".parse().unwrap()));
    let elsewhere = IpAddr::from([10, 0, 0, 66]);
    assert!(!recognition.is_of_server(&answer, elsewhere), "it can't be passed on from another address");
    for at in 0..DATAGRAM_LEN {
        let mut changed = answer;
        changed[at] ^= 1;
        assert!(!recognition.is_of_server(&changed, OURS), "{at}");
    }
    assert!(!recognition.is_of_server(&answer[..95], OURS));
    assert!(!recognition.is_of_server(&ask(None, OURS, seek), OURS), "the key alone proves nothing");
    assert!(!recognition.is_of_server(&ask(Some(own.clone()), OURS, seek), OURS), "nor does another key");
    assert!(!recognition.is_of_server(&ask(Some(secret.clone()), OURS, Seek::new([7; 8])), OURS));
    let other = Seek { key: Some(PublicKey([9; 32])), ..seek };
    assert!(!recognition.is_of_server(&ask(Some(secret.clone()), OURS, other), OURS), "nor one for another agent");
    assert!(Recognition::new(&own, &PublicKey([0; 32])).is_none());
}

#[test]
fn the_bytes_of_a_proven_offer_are_frozen() {
    let secret: SecretKey = "11".repeat(32).parse().unwrap();
    let own: SecretKey = "22".repeat(32).parse().unwrap();
    let mut responder = Responder::new(Offer { server: Some(secret.public()), ..offer() }, Some(secret));
    let seek = Seek { key: Some(own.public()), ..Seek::new([7; 8]) };
    let answer = responder.on_datagram([10, 0, 0, 7].into(), OURS, &seek.encode(), at(5)).unwrap();
    let proof: String = answer.bytes[72..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(proof, "be52f1c6cd393f2922346a6e412ee0b5725d8621da4c4810");
}

#[test]
fn another_version_is_answered_and_named() {
    let mut responder = Responder::new(offer(), None);
    let seek = Seek { version: 9, nonce: [7; 8], key: None };
    let mut answer = responder.on_datagram([10, 0, 0, 7].into(), OURS, &seek.encode(), at(5)).unwrap().bytes;
    answer[8] = 9;
    answer[9] = 99;
    let error = Offer::parse(&answer, [7; 8]).unwrap_err();
    assert_eq!(error.to_string(), "the server speaks version 9 of the protocol, we speak version 3");
}

#[test]
fn an_offer_that_says_nothing_useful_is_malformed() {
    let good = offer().encode([7; 8]);
    for (byte, value) in [(0, b'X'), (9, 2)] {
        let mut bytes = good;
        bytes[byte] = value;
        assert!(matches!(Offer::parse(&bytes, [7; 8]), Err(OfferError::Malformed(_))), "{byte}");
    }
    let no_port = Offer { port: 0, ..offer() }.encode([7; 8]);
    assert!(matches!(Offer::parse(&no_port, [7; 8]), Err(OfferError::Malformed(_))));
    assert!(Offer::parse(&good[..95], [7; 8]).is_err());
    assert!(Offer::parse(&[&good[..], &[0]].concat(), [7; 8]).is_err());
}

#[test]
fn a_shorter_or_longer_seek_is_not_answered() {
    let mut responder = Responder::new(offer(), None);
    let seek = Seek::new([7; 8]).encode();
    assert_eq!(responder.on_datagram([10, 0, 0, 7].into(), OURS, &seek[..95], at(5)), None);
    assert_eq!(responder.on_datagram([10, 0, 0, 7].into(), OURS, &[&seek[..], &[0]].concat(), at(5)), None);
    let own_offer = offer().encode([7; 8]);
    assert_eq!(responder.on_datagram([10, 0, 0, 7].into(), OURS, &own_offer, at(5)), None, "servers do not talk");
}

#[test]
fn one_address_is_answered_in_a_burst_and_then_at_a_steady_rate() {
    let mut responder = Responder::new(offer(), None);
    let seek = Seek::new([7; 8]).encode();
    let mut answered = |source: [u8; 4], from: u64, until: u64| {
        (from..until).filter(|ms| responder.on_datagram(source.into(), OURS, &seek, at(*ms)).is_some()).count()
    };
    assert_eq!(answered([10, 0, 0, 7], 1000, 1100), 16);
    assert_eq!(answered([10, 0, 0, 8], 1100, 1110), 10, "its neighbour has its own bucket");
    assert_eq!(answered([10, 0, 0, 7], 1100, 11_000), 79, "8 a second from then on");
    assert_eq!(answered([10, 0, 0, 7], 60_000, 60_100), 16, "a full bucket again");
}

#[test]
fn a_flood_of_random_datagrams_costs_no_memory_and_no_agent_its_answer() {
    let mut responder = Responder::new(offer(), None);
    let seek = Seek::new([7; 8]).encode();
    let mut random = 1_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut answers = 0;
    for no in 0..200_000_u64 {
        let source = IpAddr::from(u32::try_from(next() >> 32).unwrap().to_be_bytes());
        let mut bytes: Vec<u8> = (0..12).flat_map(|_| next().to_le_bytes()).collect();
        if no % 2 == 0 {
            bytes[..16].copy_from_slice(&seek[..16]); // one that means it, from a forged address
        }
        let now = Time(no * 5);
        answers +=
            usize::from(responder.on_datagram(source, OURS, &bytes, now).is_some_and(|a| a.bytes.len() <= bytes.len()));
        if no % 50_000 == 0 {
            assert!(responder.on_datagram([10, 0, 0, 7].into(), OURS, &seek, now).is_some());
        }
    }
    assert_eq!(answers, 100_000);
    assert_eq!(responder.table.len(), SLOTS);
    assert!(size_of_val(&*responder.table) <= 64 << 10);
}

#[test]
fn a_crowd_of_new_addresses_is_answered_by_broadcast_and_old_ones_directly() {
    let mut responder = Responder::new(offer(), None);
    let seek = Seek::new([7; 8]).encode();
    let mut ask = |source: u32, ms: u64| {
        let source = IpAddr::from(source.to_be_bytes());
        responder.on_datagram(source, OURS, &seek, at(ms)).map(|answer| answer.broadcast)
    };
    assert_eq!(ask(0x0a00_0001, 1000), Some(false));
    let direct = (0..10_000_u32).filter(|no| ask(0x0b00_0000 + no, 1000 + u64::from(no / 10)) == Some(false)).count();
    assert!((128..=139).contains(&direct), "{direct} in a second");
    assert!((0..4).all(|no| ask(0x0c00_0000 + no, 2000).is_some()), "still answered");
    assert_eq!(ask(0x0c00_0004, 2000), Some(true));
    assert_eq!(ask(0x0c00_0004, 2001), Some(false), "directly, as soon as it asks again");
    assert_eq!(ask(0x0d00_0002, 60_000), Some(false));
}

proptest! {
    #[test]
    fn what_is_offered_is_read(key in any::<Option<[u8; 32]>>(), port in 1..=u16::MAX, id: [u8; 16], nonce: [u8; 8]) {
        let offer = Offer { server: key.map(PublicKey), port, deployment: DeploymentId(id) };
        prop_assert_eq!(Offer::parse(&offer.encode(nonce), nonce), Ok(offer));
        prop_assert_eq!(Seek::parse(&Seek::new(nonce).encode()), Ok(Seek::new(nonce)));
    }

    #[test]
    fn arbitrary_bytes_are_neither_seek_nor_offer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Seek::parse(&bytes).is_err());
        prop_assert!(Offer::parse(&bytes, [0; 8]).is_err());
    }
}
