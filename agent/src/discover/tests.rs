use super::*;
use mio::{Events, Poll};
use slidecast_proto::discovery::Responder;
use slidecast_proto::units::DeploymentId;
use std::net::UdpSocket as StdSocket;

const NONCE: [u8; 8] = [7; 8];
const FIRST: usize = 20;

fn own() -> SecretKey {
    "77".repeat(32).parse().unwrap()
}

fn key(byte: u8) -> PublicKey {
    PublicKey([byte; 32])
}

fn offer(server: Option<PublicKey>) -> Offer {
    Offer { server, port: 4000, deployment: DeploymentId([1; 16]) }
}

fn search(trust: &Trust) -> Search {
    Search::on_cards(vec!["lo".to_owned()], 1, false, trust, (NONCE, &own()), FIRST, Time(0))
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 5))
}

#[test]
fn a_server_on_the_wire_is_found_by_broadcast() {
    let server = StdSocket::bind("0.0.0.0:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let mut bytes = [0; 200];
        let (len, source) = server.recv_from(&mut bytes).unwrap();
        let seek = Seek::parse(&bytes[..len]).unwrap();
        server.send_to(b"not an offer", source).unwrap();
        server.send_to(&offer(Some(key(1))).encode(seek.nonce), source).unwrap();
    });
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(4);
    let trust = Trust::Pinned(key(1));
    let mut search = Search::on_cards(vec!["lo".to_owned()], port, true, &trust, (NONCE, &own()), FIRST, Time(0));
    let found = loop {
        search.advance(poll.registry(), Time(0)).unwrap();
        if let Some(server) = search.poll(Time(0)) {
            break server;
        }
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert!(!events.is_empty(), "nothing happened for 5 s");
        events.iter().for_each(|event| search.on_event(event));
    };
    assert_eq!(found, Server { address: ([127, 0, 0, 1], 4000).into(), card: Some("lo".to_owned()) });
    answering.join().unwrap();
}

#[test]
fn an_unknown_card_is_an_error_and_no_endless_wait() {
    let only = vec!["no-such-card".to_owned()];
    let mut search = Search::on_cards(only, 1, false, &Trust::Insecure, (NONCE, &own()), FIRST, Time(0));
    assert!(search.advance(Poll::new().unwrap().registry(), Time(0)).is_err());
}

#[test]
fn seeks_become_rarer_but_never_stop() {
    let poll = Poll::new().unwrap();
    let mut search = search(&Trust::Insecure);
    let mut times = Vec::new();
    let mut now = Time(0);
    for _ in 0..40 {
        search.advance(poll.registry(), now).unwrap();
        times.push(now);
        let SearchScope::Cards(cards) = &search.scope else { panic!() };
        now = cards.seek_at;
    }
    let in_a_second = times.iter().filter(|time| **time < Time(1_000_000)).count();
    assert!((8..=9).contains(&in_a_second), "{in_a_second}");
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| *gap <= MAX_SEEK_PAUSE * 5 / 4));
    assert!(gaps.iter().rev().take(20).all(|gap| *gap >= MAX_SEEK_PAUSE));
}

#[test]
fn two_agents_that_begin_together_do_not_go_on_together() {
    let pause = Duration::from_secs(1);
    assert_ne!(jitter(pause, [7; 8], 0), jitter(pause, [8; 8], 0));
    assert!((0..20).all(|seeks| jitter(pause, [255; 8], seeks) < pause / 4));
}

#[test]
fn what_fits_is_tried_before_what_only_claims_to_be_a_server() {
    let mut search = search(&Trust::Pinned(key(1)));
    search.on_datagram(at(1), None, &offer(Some(key(9))).encode(NONCE), NONCE, Time(0));
    search.on_datagram(at(2), None, &offer(None).encode(NONCE), NONCE, Time(0));
    search.on_datagram(at(3), None, &offer(Some(key(1))).encode(NONCE), NONCE, Time(0));
    let order: Vec<_> =
        std::iter::from_fn(|| search.poll(Time(0).after(RETRY))).map(|found| found.address.ip()).collect();
    assert_eq!(order[0], at(3).ip());
    assert_eq!(order.len(), 3, "the others are tried as well: hints may be forged");
}

#[test]
fn a_crowd_of_false_offers_does_not_push_out_the_true_one() {
    let mut search = search(&Trust::Pinned(key(1)));
    search.on_datagram(at(250), None, &offer(Some(key(1))).encode(NONCE), NONCE, Time(0));
    for last in 0..200 {
        let claim = if last % 2 == 0 { key(1) } else { key(9) };
        search.on_datagram(at(last), None, &offer(Some(claim)).encode(NONCE), NONCE, Time(1 + u64::from(last)));
    }
    assert_eq!(search.candidates.len(), CANDIDATES);
    assert_eq!(search.poll(Time(300)).map(|found| found.address.ip()), Some(at(250).ip()));
}

#[test]
fn a_proven_offer_is_tried_at_once_whatever_else_was_offered_before() {
    let secret: SecretKey = "11".repeat(32).parse().unwrap();
    let mut search = search(&Trust::Pinned(secret.public()));
    let true_offer = offer(Some(secret.public()));
    for no in 0..10_000_u16 {
        let source = SocketAddr::from(([10, 1, no.to_be_bytes()[0], no.to_be_bytes()[1]], 5));
        search.on_datagram(source, None, &true_offer.encode(NONCE), NONCE, Time(u64::from(no)));
    }
    let now = Time(20_000);
    let tried: Vec<_> = (0..TRIES).filter_map(|_| search.poll(now)).collect();
    assert_eq!(tried.len(), TRIES, "others are tried until then");
    let SearchScope::Cards(cards) = &search.scope else { panic!() };
    let mut responder = Responder::new(true_offer, Some(secret));
    let seek = cards.seek.encode();
    let answer = responder.on_datagram([10, 0, 0, 9].into(), at(1).ip(), &seek, now).unwrap();
    assert_eq!(search.makes_room(&tried, now), None);
    search.on_datagram(at(1), None, &answer.bytes, NONCE, now);
    search.on_datagram(at(2), None, &answer.bytes, NONCE, now);
    assert_eq!(search.makes_room(&tried, now), Some(0));
    assert_eq!(search.makes_room(&[Server::from(SocketAddr::new(at(1).ip(), 4000))], now), None, "it is proven, too");
    assert_eq!(search.poll(now).map(|found| found.address.ip()), Some(at(1).ip()));
    assert_eq!(search.candidates.len(), CANDIDATES);
}

#[test]
fn what_failed_is_remembered_when_it_is_offered_again() {
    let mut search = search(&Trust::Pinned(key(1)));
    let good = offer(Some(key(1))).encode(NONCE);
    search.on_datagram(at(1), None, &good, NONCE, Time(0));
    let false_one = search.poll(Time(0)).unwrap();
    search.on_failure(&false_one, Reason::KeyMismatch, "wrong key", Time(0));
    for last in 2..2 + u8::try_from(CANDIDATES).unwrap() {
        search.on_datagram(at(last), None, &good, NONCE, Time(1));
    }
    assert!(!search.candidates.iter().any(|candidate| candidate.server == false_one), "it made room");
    search.candidates.clear();
    search.on_datagram(at(1), None, &good, NONCE, Time(2));
    assert_eq!(search.poll(Time(2)), None);
    assert!(!search.has_untried(Time(2)));
    assert_eq!(search.poll(Time(0).after(RETRY_OTHER)), Some(false_one));
}

#[test]
fn a_server_that_answers_on_two_cards_is_tried_on_both() {
    let mut search = search(&Trust::Pinned(key(1)));
    for card in ["eth0", "eth1"] {
        let offer = offer(Some(key(1))).encode(NONCE);
        search.on_datagram(at(1), Some(card.to_owned()), &offer, NONCE, Time(0));
    }
    let first = search.poll(Time(0)).unwrap();
    search.on_failure(&first, Reason::ServerLost, "no answer", Time(0));
    let second = search.poll(Time(0)).unwrap();
    assert_eq!(first.address, second.address);
    assert_ne!(first.card, second.card);
    assert_eq!(search.poll(Time(0)), None);
}

#[test]
fn answers_to_other_seeks_and_other_versions_are_no_candidates() {
    let mut search = search(&Trust::Insecure);
    search.on_datagram(at(1), None, &offer(None).encode([8; 8]), NONCE, Time(0));
    let mut newer = offer(None).encode(NONCE);
    newer[8] = 99;
    search.on_datagram(at(2), None, &newer, NONCE, Time(0));
    search.on_datagram(at(3), None, &[0; DATAGRAM_LEN], NONCE, Time(0));
    assert!(search.candidates.is_empty());
    assert!(search.version_said.is_some());
}

#[test]
fn a_server_with_a_wrong_key_is_tried_again_later_than_one_that_is_not_up_yet() {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let mut search = Search::of_name("127.0.0.1".to_owned(), 5, &Trust::Insecure, waker, Time(0));
    search.advance(poll.registry(), Time(0)).unwrap();
    let server = search.poll(Time(0)).unwrap();
    search.on_failure(&server, Reason::ServerLost, "connection refused", Time(0));
    assert_eq!(search.poll(Time(0).after(RETRY)), Some(server.clone()));
    assert_eq!(search.poll(Time(0).after(RETRY * 2)), None, "one try at a time");
    search.on_failure(&server, Reason::KeyMismatch, "wrong key", Time(0));
    assert_eq!(search.poll(Time(0).after(RETRY)), None);
    assert_eq!(search.poll(Time(0).after(RETRY_OTHER)), Some(server.clone()));
}
