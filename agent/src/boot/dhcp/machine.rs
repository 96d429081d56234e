//! The states of RFC 2131, figure 5, for one card: what is asked when, and what a reply means.
//!
//! Unlike there, the first question is asked again after one second (not four): switch ports that come up late swallow it, and
//! a person is waiting. The first offer is taken.

use super::message::{Ask, Kind, Lease, Reply, Request};
use slidecast_proto::units::Time;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The pause after the first question; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two questions, while there is no address.
const MAX_PAUSE: Duration = Duration::from_secs(16);
/// How often an offer is asked for before others are heard again.
const SELECTS: u32 = 4;
/// The pause after a refusal.
const REFUSED: Duration = Duration::from_secs(1);
/// The shortest pause between two tries to keep an address.
const MIN_RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To everybody on the wire; there may be no address to send it from.
    Everybody,
    /// To this server, from the address there is.
    Server(Ipv4Addr),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// There is an address, or the one there is may be used longer.
    Bound(Lease),
    /// The address may not be used any more.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Looking for a server.
    Selecting { since: Time },
    /// An offer was taken.
    Requesting { since: Time, offer: Lease },
    /// There is an address.
    Bound { lease: Lease, since: Time },
    /// Its server is asked to prolong it, or any server is.
    Keeping { lease: Lease, since: Time, asked: Time, anybody: bool },
}

/// DHCP on one card.
#[derive(Debug)]
pub(crate) struct Dhcp {
    mac: [u8; 6],
    state: State,
    xid: u32,
    seed: u64,
    /// Questions asked in this state.
    tries: u32,
    ask_at: Time,
    event: Option<Event>,
}

impl Dhcp {
    /// Begins to look for a server. `seed` must be random; the numbers of all exchanges come from it.
    pub(crate) fn new(mac: [u8; 6], seed: u64, now: Time) -> Self {
        let mut dhcp =
            Self { mac, state: State::Selecting { since: now }, xid: 0, seed, tries: 0, ask_at: now, event: None };
        dhcp.begin(now);
        dhcp
    }

    /// Since when an address is being looked for, if there is none.
    pub(crate) fn searching_since(&self) -> Option<Time> {
        match self.state {
            State::Selecting { since } | State::Requesting { since, .. } => Some(since),
            State::Bound { .. } | State::Keeping { .. } => None,
        }
    }

    /// The cable was plugged in again, perhaps elsewhere: an address there is must be confirmed.
    pub(crate) fn on_carrier(&mut self, now: Time) {
        match &self.state {
            State::Bound { lease, since } | State::Keeping { lease, since, .. } => {
                let (lease, since) = (lease.clone(), *since);
                self.keep(lease, since, true, now);
            }
            State::Selecting { .. } | State::Requesting { .. } => self.begin(now),
        }
    }

    /// Takes a datagram that came to our port.
    pub(crate) fn on_datagram(&mut self, bytes: &[u8], now: Time) {
        let Some(reply) = Reply::parse(bytes) else { return };
        if reply.xid != self.xid || reply.mac != self.mac {
            return;
        }
        match (&self.state, reply.kind, reply.lease) {
            (State::Selecting { since }, Kind::Offer, Some(offer)) => {
                self.state = State::Requesting { since: *since, offer };
                (self.tries, self.ask_at) = (0, now);
            }
            (State::Requesting { offer, .. }, Kind::Ack, Some(lease)) if lease.server == offer.server => {
                self.bind(lease, now);
            }
            (State::Requesting { offer, .. }, Kind::Nak, _) if reply.server.is_none_or(|from| from == offer.server) => {
                self.begin(now.after(REFUSED));
            }
            (State::Keeping { .. }, Kind::Ack, Some(lease)) => self.bind(lease, now),
            (State::Keeping { .. }, Kind::Nak, _) => {
                self.event = Some(Event::Lost);
                self.begin(now.after(REFUSED));
            }
            _ => {}
        }
    }

    /// The next message to send, if one is due.
    pub(crate) fn poll_transmit(&mut self, now: Time) -> Option<(Destination, Vec<u8>)> {
        self.on_time(now);
        if now < self.ask_at {
            return None;
        }
        let (ask, to, since) = match &self.state {
            State::Selecting { since } => (Ask::Discover, Destination::Everybody, *since),
            State::Requesting { since, offer } => {
                (Ask::Select { address: offer.address, server: offer.server }, Destination::Everybody, *since)
            }
            State::Bound { .. } => return None,
            State::Keeping { lease, anybody, asked, .. } => {
                let to = if *anybody { Destination::Everybody } else { Destination::Server(lease.server) };
                (Ask::Keep { address: lease.address }, to, *asked)
            }
        };
        self.tries = self.tries.saturating_add(1);
        self.ask_at = now.after(self.pause(now));
        let seconds = u16::try_from(now.since(since).as_secs()).unwrap_or(u16::MAX);
        Some((to, Request { ask, xid: self.xid, mac: self.mac, seconds }.encode()))
    }

    /// What came of it, once.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// When [`Self::poll_transmit`] has something to do at the latest. The thread of a card looks more often anyway.
    #[cfg(test)]
    pub(crate) fn deadline(&self) -> Time {
        match &self.state {
            State::Selecting { .. } | State::Requesting { .. } => self.ask_at,
            State::Bound { lease, since } => match lease.time {
                Some(_) => since.after(lease.renew.0),
                None => Time(u64::MAX),
            },
            State::Keeping { lease, since, .. } => {
                let end = lease.time.map_or(Time(u64::MAX), |time| since.after(time));
                self.ask_at.min(end)
            }
        }
    }

    fn on_time(&mut self, now: Time) {
        match &self.state {
            State::Requesting { .. } if self.tries >= SELECTS && now >= self.ask_at => self.begin(now),
            State::Bound { lease, since } if lease.time.is_some() && now >= since.after(lease.renew.0) => {
                self.keep(lease.clone(), *since, false, now);
            }
            State::Keeping { lease, since, .. } if lease.time.is_some_and(|time| now >= since.after(time)) => {
                self.event = Some(Event::Lost);
                self.begin(now);
            }
            State::Keeping { lease, since, anybody: false, .. } if now >= since.after(lease.renew.1) => {
                self.keep(lease.clone(), *since, true, now);
            }
            _ => {}
        }
    }

    fn begin(&mut self, now: Time) {
        let since = self.searching_since().unwrap_or(now);
        self.renumber();
        self.state = State::Selecting { since };
        (self.tries, self.ask_at) = (0, now);
    }

    fn bind(&mut self, lease: Lease, now: Time) {
        self.event = Some(Event::Bound(lease.clone()));
        self.state = State::Bound { lease, since: now };
        self.tries = 0;
    }

    fn keep(&mut self, lease: Lease, since: Time, anybody: bool, now: Time) {
        self.renumber();
        self.state = State::Keeping { lease, since, asked: now, anybody };
        (self.tries, self.ask_at) = (0, now);
    }

    /// How long the answer to the question just asked is awaited.
    fn pause(&mut self, now: Time) -> Duration {
        let plain = match &self.state {
            State::Keeping { lease, since, anybody, .. } => {
                // Half of what is left until the next thing happens (RFC 2131, section 4.4.5).
                let next = if *anybody { lease.time } else { Some(lease.renew.1) };
                let left = next.map_or(MAX_PAUSE, |next| since.after(next).since(now));
                return (left / 2).max(MIN_RENEWAL_PAUSE);
            }
            _ => FIRST_PAUSE.saturating_mul(1 << self.tries.saturating_sub(1).min(8)).min(MAX_PAUSE),
        };
        // Machines that were switched on together must not ask together for ever: up to a fifth more or less.
        let spread = plain / 5;
        let part = u32::try_from(self.random() % 1000).expect("below a thousand");
        plain - spread + spread * 2 * part / 1000
    }

    fn renumber(&mut self) {
        self.xid = u32::try_from(self.random() >> 32).expect("the upper half");
    }

    /// `SplitMix64`: not secret, only different.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{MAC, reply_bytes};
    use super::*;
    use proptest::prelude::*;

    const SERVER: [u8; 4] = [10, 0, 0, 1];
    const OURS: [u8; 4] = [10, 0, 0, 9];
    const OFFER: u8 = 2;
    const ACK: u8 = 5;
    const NAK: u8 = 6;

    fn at(seconds: u64) -> Time {
        Time(0).after(Duration::from_secs(seconds))
    }

    fn reply(dhcp: &Dhcp, kind: u8) -> Vec<u8> {
        reply_bytes(kind, dhcp.xid, OURS, &[(54, &SERVER), (1, &[255, 255, 255, 0]), (51, &1000_u32.to_be_bytes())])
    }

    fn kind_of(message: &[u8]) -> u8 {
        message[242]
    }

    /// A machine with a lease of 1000 s since second 0.
    fn bound() -> Dhcp {
        let mut dhcp = Dhcp::new(MAC, 1, at(0));
        dhcp.poll_transmit(at(0)).unwrap();
        dhcp.on_datagram(&reply(&dhcp, OFFER), at(0));
        dhcp.poll_transmit(at(0)).unwrap();
        dhcp.on_datagram(&reply(&dhcp, ACK), at(0));
        assert!(matches!(dhcp.poll_event(), Some(Event::Bound(_))));
        dhcp
    }

    #[test]
    fn discover_offer_request_ack_gives_an_address() {
        let mut dhcp = Dhcp::new(MAC, 1, at(0));
        let (to, discover) = dhcp.poll_transmit(at(0)).unwrap();
        assert_eq!((to, kind_of(&discover)), (Destination::Everybody, 1));
        dhcp.on_datagram(&reply(&dhcp, OFFER), at(0));
        let (to, request) = dhcp.poll_transmit(at(0)).unwrap();
        assert_eq!((to, kind_of(&request)), (Destination::Everybody, 3));
        assert_eq!(dhcp.poll_event(), None);
        dhcp.on_datagram(&reply(&dhcp, ACK), at(1));
        let Some(Event::Bound(lease)) = dhcp.poll_event() else { panic!() };
        assert_eq!((lease.address, lease.prefix), (OURS.into(), 24));
        assert_eq!(dhcp.poll_transmit(at(2)), None);
        assert_eq!(dhcp.searching_since(), None);
    }

    #[test]
    fn replies_to_others_are_not_heard() {
        let mut dhcp = Dhcp::new(MAC, 1, at(0));
        dhcp.poll_transmit(at(0)).unwrap();
        let mut wrong_xid = reply(&dhcp, OFFER);
        wrong_xid[4] ^= 1;
        let mut wrong_mac = reply(&dhcp, OFFER);
        wrong_mac[33] ^= 1;
        let mut no_server = reply(&dhcp, OFFER);
        no_server[243] = 99;
        for bytes in [wrong_xid, wrong_mac, no_server, reply(&dhcp, ACK), reply(&dhcp, NAK)] {
            dhcp.on_datagram(&bytes, at(0));
            assert!(matches!(dhcp.state, State::Selecting { .. }));
        }
    }

    #[test]
    fn another_servers_ack_does_not_count_while_one_was_chosen() {
        let mut dhcp = Dhcp::new(MAC, 1, at(0));
        dhcp.on_datagram(&reply(&dhcp, OFFER), at(0));
        let other = reply_bytes(ACK, dhcp.xid, OURS, &[(54, &[10, 0, 0, 2])]);
        dhcp.on_datagram(&other, at(0));
        assert_eq!(dhcp.poll_event(), None);
    }

    #[test]
    fn questions_become_rarer_but_never_stop() {
        let mut dhcp = Dhcp::new(MAC, 1, at(0));
        let mut now = at(0);
        let mut gaps = Vec::new();
        for _ in 0..8 {
            assert!(dhcp.poll_transmit(now).is_some());
            assert_eq!(dhcp.poll_transmit(now), None, "not before its time");
            gaps.push(dhcp.deadline().since(now).as_secs_f64());
            now = dhcp.deadline();
        }
        for (gap, plain) in gaps.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0, 16.0]) {
            assert!((gap / plain - 1.0).abs() <= 0.2, "{gaps:?}");
        }
    }

    #[test]
    fn an_offer_that_is_never_confirmed_is_forgotten() {
        let mut dhcp = Dhcp::new(MAC, 1, at(0));
        dhcp.on_datagram(&reply(&dhcp, OFFER), at(0));
        let mut now = at(0);
        for _ in 0..SELECTS {
            assert_eq!(kind_of(&dhcp.poll_transmit(now).unwrap().1), 3);
            now = dhcp.deadline();
        }
        assert_eq!(kind_of(&dhcp.poll_transmit(now).unwrap().1), 1);
    }

    #[test]
    fn a_refused_request_begins_anew_after_a_moment() {
        let mut dhcp = Dhcp::new(MAC, 1, at(0));
        dhcp.on_datagram(&reply(&dhcp, OFFER), at(0));
        let old = dhcp.xid;
        dhcp.on_datagram(&reply(&dhcp, NAK), at(0));
        assert_eq!(dhcp.poll_transmit(at(0)), None);
        assert_eq!(kind_of(&dhcp.poll_transmit(at(1)).unwrap().1), 1);
        assert_ne!(dhcp.xid, old, "late replies to the old exchange mean nothing now");
    }

    #[test]
    fn a_lease_is_renewed_with_its_server_at_half_time() {
        let mut dhcp = bound();
        assert_eq!(dhcp.deadline(), at(500));
        assert_eq!(dhcp.poll_transmit(at(499)), None);
        let (to, request) = dhcp.poll_transmit(at(500)).unwrap();
        assert_eq!((to, kind_of(&request)), (Destination::Server(SERVER.into()), 3));
        assert_eq!(request[12..16], OURS);
        dhcp.on_datagram(&reply(&dhcp, ACK), at(501));
        assert!(matches!(dhcp.poll_event(), Some(Event::Bound(_))));
        assert_eq!(dhcp.deadline(), at(1001));
    }

    #[test]
    fn a_silent_server_is_asked_again_then_any_server_then_the_address_is_given_up() {
        let mut dhcp = bound();
        let mut sent = Vec::new();
        let mut now = dhcp.deadline();
        let lost = loop {
            if let Some((to, _)) = dhcp.poll_transmit(now) {
                sent.push((to, now));
            }
            if let Some(event) = dhcp.poll_event() {
                break event;
            }
            now = dhcp.deadline();
        };
        assert_eq!((lost, now), (Event::Lost, at(1000)));
        let server: Vec<_> = sent.iter().filter(|(to, _)| *to == Destination::Server(SERVER.into())).collect();
        let anybody: Vec<_> = sent.iter().filter(|(to, _)| *to == Destination::Everybody).collect();
        assert!(server.len() >= 4 && server.iter().all(|(_, when)| *when < at(876)), "{sent:?}");
        assert!(anybody.len() >= 3 && anybody[0].1 >= at(875), "{sent:?}");
        assert!(sent.last().is_some_and(|(_, when)| *when == at(1000)), "and it begins anew at once");
    }

    #[test]
    fn a_refusal_while_renewing_takes_the_address_away() {
        let mut dhcp = bound();
        dhcp.poll_transmit(at(500)).unwrap();
        dhcp.on_datagram(&reply(&dhcp, NAK), at(500));
        assert_eq!(dhcp.poll_event(), Some(Event::Lost));
        assert!(dhcp.searching_since().is_some());
    }

    #[test]
    fn a_cable_plugged_in_again_makes_the_address_be_confirmed_by_anybody() {
        let mut dhcp = bound();
        dhcp.on_carrier(at(10));
        let (to, request) = dhcp.poll_transmit(at(10)).unwrap();
        assert_eq!((to, kind_of(&request)), (Destination::Everybody, 3));
        dhcp.on_datagram(&reply(&dhcp, ACK), at(10));
        assert!(matches!(dhcp.poll_event(), Some(Event::Bound(_))));
    }

    #[test]
    fn a_lease_without_an_end_is_never_renewed() {
        let mut dhcp = Dhcp::new(MAC, 1, at(0));
        dhcp.on_datagram(&reply(&dhcp, OFFER), at(0));
        let ack = reply_bytes(ACK, dhcp.xid, OURS, &[(54, &SERVER), (51, &[255; 4])]);
        dhcp.on_datagram(&ack, at(0));
        assert_eq!(dhcp.deadline(), Time(u64::MAX));
        assert_eq!(dhcp.poll_transmit(at(1 << 33)), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_whenever_it_always_has_something_to_wait_for(
            steps in proptest::collection::vec((0..2000_u64, 0..8_u8, any::<u32>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..60)
        ) {
            let mut dhcp = Dhcp::new(MAC, 7, at(0));
            let mut now = at(0);
            for (gap, kind, lease, noise) in steps {
                now = now.after(Duration::from_secs(gap));
                let lease = lease.to_be_bytes();
                let options: Vec<(u8, &[u8])> = vec![(54, &SERVER), (51, &lease)];
                let mut bytes = reply_bytes(kind, dhcp.xid, OURS, &options);
                bytes.truncate(bytes.len() - 1);
                bytes.extend(&noise);
                dhcp.on_datagram(&bytes, now);
                let _ = dhcp.poll_event();
                while let Some((_, message)) = dhcp.poll_transmit(now) {
                    prop_assert!(message.len() >= 300);
                }
                prop_assert!(dhcp.deadline() > now);
            }
        }
    }
}
