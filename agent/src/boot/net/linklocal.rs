//! An address without any server (RFC 3927): one of 169.254/16 that nobody on the wire has.

use nom::Parser;
use nom::bytes::complete::{tag, take};
use nom::number::complete::be_u16;
use slidecast_proto::units::Time;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How many bits are the network.
pub(super) const PREFIX: u8 = 16;
/// How often is asked whether somebody has the address, and the pause after each time.
const PROBES: u32 = 3;
const PROBE_PAUSE: Duration = Duration::from_millis(1500);
/// How often everybody is told, and the pause between.
const ANNOUNCEMENTS: u32 = 2;
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(2);
/// After so many taken addresses, the next one waits.
const CONFLICTS: u32 = 10;
const CROWDED: Duration = Duration::from_secs(60);
/// The first bytes of every ARP message here: Ethernet and IPv4, six and four bytes.
const ARP: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ETHER_ARP: [u8; 2] = [8, 6];

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Nobody has this address: it is ours.
    Claimed(Ipv4Addr),
    /// Somebody else uses the address that was ours.
    Lost,
}

/// The search for an address on one card.
#[derive(Debug)]
pub(super) struct LinkLocal {
    mac: [u8; 6],
    seed: u64,
    address: Ipv4Addr,
    said: u32,
    next: Time,
    conflicts: u32,
    claimed: bool,
    event: Option<Event>,
}

impl LinkLocal {
    /// Begins. The same `seed` tries the same addresses in the same order.
    pub(super) fn new(mac: [u8; 6], seed: u64, now: Time) -> Self {
        let (address, said, conflicts) = (candidate(seed, 0), 0, 0);
        Self { mac, seed, address, said, next: now, conflicts, claimed: false, event: None }
    }

    /// Hears a frame: does somebody else have the address?
    pub(super) fn on_frame(&mut self, frame: &[u8], now: Time) {
        let Some(arp) = Arp::parse(frame) else { return };
        if arp.sender == self.mac {
            return;
        }
        // Until the address is ours, another host that probes for it wants it too.
        let wanted = !self.claimed && arp.sender_ip.is_unspecified() && arp.target_ip == self.address;
        if arp.sender_ip != self.address && !wanted {
            return;
        }
        if self.claimed {
            self.event = Some(Event::Lost);
        }
        self.conflicts = self.conflicts.saturating_add(1);
        self.address = candidate(self.seed, self.conflicts);
        (self.said, self.claimed) = (0, false);
        self.next = if self.conflicts < CONFLICTS { now } else { now.after(CROWDED) };
    }

    /// The next frame to send, if one is due.
    pub(super) fn poll_transmit(&mut self, now: Time) -> Option<Vec<u8>> {
        if now < self.next {
            return None;
        }
        if !self.claimed && self.said == PROBES {
            (self.claimed, self.said) = (true, 0);
            self.event = Some(Event::Claimed(self.address));
        }
        self.said += 1;
        let (from, last, pause) = if self.claimed {
            (self.address, self.said == ANNOUNCEMENTS, ANNOUNCE_PAUSE)
        } else {
            (Ipv4Addr::UNSPECIFIED, false, PROBE_PAUSE)
        };
        self.next = if last { Time(u64::MAX) } else { now.after(pause) };
        Some(request(self.mac, from, self.address))
    }

    /// What came of it, once.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// When [`Self::poll_transmit`] has something to do. The thread of a card looks more often anyway.
    #[cfg(test)]
    fn deadline(&self) -> Time {
        self.next
    }
}

/// The address tried after so many conflicts: from 169.254.1.0 to 169.254.254.255.
fn candidate(seed: u64, conflicts: u32) -> Ipv4Addr {
    let mixed = (seed ^ u64::from(conflicts)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let number = u32::try_from(mixed % (254 * 256)).expect("below 65024");
    Ipv4Addr::from_bits(Ipv4Addr::new(169, 254, 1, 0).to_bits() + number)
}

/// "Who has `wanted`? Tell `from`", to everybody. With equal addresses it is an announcement.
fn request(mac: [u8; 6], from: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let mut out = [[0xff; 6], mac].concat();
    out.extend(ETHER_ARP);
    out.extend(ARP);
    out.extend([0, 1]);
    out.extend(mac);
    out.extend(from.octets());
    out.extend([0; 6]);
    out.extend(wanted.octets());
    out
}

struct Arp {
    sender: [u8; 6],
    sender_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
}

impl Arp {
    fn parse(frame: &[u8]) -> Option<Self> {
        let fields = (
            take::<_, _, nom::error::Error<&[u8]>>(12_usize),
            tag(&ETHER_ARP[..]),
            tag(&ARP[..]),
            be_u16,
            take(6_usize),
            take(4_usize),
            take(6_usize),
            take(4_usize),
        );
        let (_, (_, _, _, _, sender, sender_ip, _, target_ip)) = { fields }.parse(frame).ok()?;
        let ip = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
        Some(Self { sender: sender.try_into().ok()?, sender_ip: ip(sender_ip)?, target_ip: ip(target_ip)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    /// Runs until the address is claimed; gives it and the number of frames sent before.
    fn claim(machine: &mut LinkLocal, mut now: Time) -> (Ipv4Addr, u32, Time) {
        for sent in 0..20 {
            assert!(machine.poll_transmit(now).is_some());
            if let Some(Event::Claimed(address)) = machine.poll_event() {
                return (address, sent, now);
            }
            now = machine.deadline();
        }
        panic!("never claimed");
    }

    #[test]
    fn an_address_that_nobody_answers_for_is_claimed_and_announced() {
        let mut machine = LinkLocal::new(MAC, 5, Time(0));
        let (address, probes, now) = claim(&mut machine, Time(0));
        assert!(address.is_link_local());
        assert_eq!(probes, PROBES);
        assert_eq!(machine.poll_transmit(machine.deadline()), Some(request(MAC, address, address)));
        assert_eq!(machine.deadline(), Time(u64::MAX));
        assert_eq!(machine.poll_transmit(now.after(CROWDED)), None);
    }

    #[test]
    fn a_taken_address_is_left_to_whoever_has_it() {
        let mut machine = LinkLocal::new(MAC, 5, Time(0));
        machine.poll_transmit(Time(0)).unwrap();
        let taken = machine.address;
        machine.on_frame(&request(OTHER, taken, Ipv4Addr::new(169, 254, 9, 9)), Time(1));
        assert_ne!(machine.address, taken);
        let wanted = machine.address;
        machine.on_frame(&request(OTHER, Ipv4Addr::UNSPECIFIED, wanted), Time(1));
        assert_ne!(machine.address, wanted, "two that ask for the same one both take another");
        let mut machine = LinkLocal::new(MAC, 5, Time(0));
        let (ours, _, now) = claim(&mut machine, Time(0));
        machine.on_frame(&request(OTHER, Ipv4Addr::UNSPECIFIED, ours), now);
        assert_eq!(machine.poll_event(), None, "the kernel answers who only asks");
        machine.on_frame(&request(OTHER, ours, ours), now);
        assert_eq!(machine.poll_event(), Some(Event::Lost));
    }

    #[test]
    fn our_own_frames_are_no_conflict() {
        let mut machine = LinkLocal::new(MAC, 5, Time(0));
        let before = machine.address;
        let frame = machine.poll_transmit(Time(0)).unwrap();
        machine.on_frame(&frame, Time(0));
        assert_eq!(machine.address, before);
    }

    #[test]
    fn a_crowded_wire_is_not_flooded() {
        let mut machine = LinkLocal::new(MAC, 5, Time(0));
        for _ in 0..CONFLICTS {
            let taken = machine.address;
            machine.on_frame(&request(OTHER, taken, taken), Time(0));
        }
        assert_eq!(machine.deadline(), Time(0).after(CROWDED));
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0..42_usize) {
            let _ = Arp::parse(&bytes);
            let mut frame = request(MAC, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(169, 254, 1, 1));
            frame.truncate(cut);
            prop_assert!(Arp::parse(&frame).is_none());
        }

        #[test]
        fn every_candidate_is_in_the_range_for_hosts(seed: u64, conflicts: u32) {
            let octets = candidate(seed, conflicts).octets();
            prop_assert!(octets[..2] == [169, 254] && (1..=254).contains(&octets[2]));
        }
    }
}
