//! How an agent finds the server: it broadcasts a seek, servers answer with an offer.
//!
//! An offer is only a hint where to connect; who is there shows in the handshake ([`crate::noise`]). Both datagrams have
//! the same length, so nobody can make the server send more than he sent himself. The server keeps a table of fixed size
//! to answer each address only so often, and nothing else.

use crate::noise::{Mode, PublicKey, VERSION};
use crate::units::{DeploymentId, Time};
use crate::wire::{Malformed, Parsed, array};
use core::fmt;
use core::hash::{Hash as _, Hasher as _};
use core::time::Duration;
use nom::Parser;
use nom::bytes::complete::{tag, take};
use nom::combinator::{map, map_opt, verify};
use nom::number::complete::{le_u8, le_u16};
use std::hash::DefaultHasher;
use std::net::{IpAddr, Ipv4Addr};

/// The UDP port of discovery, and the TCP port of the control link, unless the operator says otherwise.
pub const DEFAULT_PORT: u16 = 7531;
/// The length of every datagram in bytes.
pub const DATAGRAM_LEN: usize = 96;
/// How often one address is answered when it keeps asking.
pub const ANSWER_EVERY: Duration = Duration::from_millis(125);
/// How many answers an address that was silent for a while gets at once.
pub const ANSWER_BURST: u32 = 16;

const SEEK: &[u8; 8] = b"SLIDESEK";
const OFFER: &[u8; 8] = b"SLIDEOFR";

/// "Is there a server?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    /// The version the agent speaks. A server of any version answers.
    pub version: u8,
    /// Drawn by the agent, so that it knows the answers to its own question.
    pub nonce: [u8; 8],
}

impl Seek {
    /// A seek of our version.
    #[must_use]
    pub fn new(nonce: [u8; 8]) -> Self {
        Self { version: VERSION, nonce }
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; DATAGRAM_LEN] {
        let mut bytes = [0; DATAGRAM_LEN];
        bytes[..8].copy_from_slice(SEEK);
        bytes[8] = self.version;
        bytes[16..24].copy_from_slice(&self.nonce);
        bytes
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is no seek, or not as long as one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        datagram("seek", (tag(&SEEK[..]), le_u8, take(7_usize), array), bytes)
            .map(|(_, version, _, nonce)| Self { version, nonce })
    }
}

/// "Here is one."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The server's public key, to choose between offers by; none if it runs with `--insecure`. Anybody can claim it.
    pub server: Option<PublicKey>,
    /// The TCP port of the control link, at the address that the offer came from.
    pub port: u16,
    /// The deployment that takes nodes.
    pub deployment: DeploymentId,
}

/// Why a datagram is not an offer to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferError {
    /// It is no offer at all.
    Malformed(Malformed),
    /// It answers somebody else's seek, or none.
    OtherNonce,
    /// The server there speaks this version.
    OtherVersion(u8),
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::OtherNonce => f.write_str("the offer answers another seek"),
            Self::OtherVersion(theirs) => {
                write!(f, "the server speaks version {theirs} of the protocol, we speak version {VERSION}")
            }
        }
    }
}

impl std::error::Error for OfferError {}

impl Offer {
    /// The datagram that answers the seek with this nonce.
    #[must_use]
    pub fn encode(&self, nonce: [u8; 8]) -> [u8; DATAGRAM_LEN] {
        let mut bytes = [0; DATAGRAM_LEN];
        let mode = if self.server.is_some() { Mode::Pinned } else { Mode::Insecure };
        bytes[..8].copy_from_slice(OFFER);
        bytes[8] = VERSION;
        bytes[9] = mode.code();
        bytes[10..12].copy_from_slice(&self.port.to_le_bytes());
        bytes[16..24].copy_from_slice(&nonce);
        bytes[24..56].copy_from_slice(&self.server.map_or([0; 32], |key| key.0));
        bytes[56..72].copy_from_slice(&self.deployment.0);
        bytes
    }

    /// Reads an answer to the seek with this nonce.
    ///
    /// # Errors
    /// [`OfferError`]; only what our version says is looked at beyond version and nonce.
    pub fn parse(bytes: &[u8], nonce: [u8; 8]) -> Result<Self, OfferError> {
        let start = (tag(&OFFER[..]), le_u8, take(7_usize), array::<8>);
        let (_, version, _, theirs) = datagram("offer", start, bytes).map_err(OfferError::Malformed)?;
        if theirs != nonce {
            return Err(OfferError::OtherNonce);
        }
        if version != VERSION {
            return Err(OfferError::OtherVersion(version));
        }
        datagram("offer", Self::read, bytes).map_err(OfferError::Malformed)
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        let port = verify(le_u16, |port| *port != 0);
        let parser = (take(9_usize), map_opt(le_u8, Mode::from_code), port, take(12_usize), array::<32>, array::<16>);
        map(parser, |(_, mode, port, _, key, deployment)| Self {
            server: (mode == Mode::Pinned).then_some(PublicKey(key)),
            port,
            deployment: DeploymentId(deployment),
        })
        .parse(input)
    }
}

/// Runs `parser` over a datagram of the one length there is; what it leaves is for later versions.
fn datagram<'a, T>(
    what: &'static str,
    mut parser: impl Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
    bytes: &'a [u8],
) -> Result<T, Malformed> {
    match parser.parse(bytes) {
        Ok((_, value)) if bytes.len() == DATAGRAM_LEN => Ok(value),
        _ => Err(Malformed { what }),
    }
}

/// The server's side: what to answer to whom.
#[derive(Debug)]
pub struct Responder {
    offer: Offer,
    /// [`WAYS`] slots for every value of an address's hash.
    table: Box<[Slot]>,
}

/// A token bucket in one number (the "virtual scheduling" form of GCRA, ITU-T I.371).
#[derive(Clone, Copy, Debug)]
struct Slot {
    source: IpAddr,
    /// When the bucket is full again. A bucket that is full is as good as none.
    full: Time,
}

const SLOTS: usize = 1024;
const WAYS: usize = 4;

impl Responder {
    /// A responder that makes this offer.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        let empty = Slot { source: IpAddr::V4(Ipv4Addr::UNSPECIFIED), full: Time(0) };
        Self { offer, table: vec![empty; SLOTS].into() }
    }

    /// What to send back to `source` for this datagram, if anything. Never allocates; never longer than the datagram.
    pub fn on_datagram(&mut self, source: IpAddr, bytes: &[u8], now: Time) -> Option<[u8; DATAGRAM_LEN]> {
        let seek = Seek::parse(bytes).ok()?;
        self.take_token(source, now).then(|| self.offer.encode(seek.nonce))
    }

    fn take_token(&mut self, source: IpAddr, now: Time) -> bool {
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let sets = (SLOTS / WAYS) as u64;
        let first = usize::try_from(hasher.finish() % sets).expect("there are few sets") * WAYS;
        let set = &mut self.table[first..first + WAYS];
        // A new address takes the place of the one that has been silent the longest.
        let way = set.iter().position(|slot| slot.source == source);
        let way = way.or_else(|| (0..WAYS).min_by_key(|way| set[*way].full)).unwrap_or(0);
        let slot = &mut set[way];
        if slot.source != source {
            *slot = Slot { source, full: now };
        }
        let full = slot.full.max(now).after(ANSWER_EVERY);
        let allowed = full.since(now) <= ANSWER_EVERY * ANSWER_BURST;
        if allowed {
            slot.full = full;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        let mut responder = Responder::new(offer());
        let answer = responder.on_datagram([10, 0, 0, 7].into(), &Seek::new([7; 8]).encode(), at(5)).unwrap();
        assert_eq!(Offer::parse(&answer, [7; 8]), Ok(offer()));
        assert_eq!(Offer::parse(&answer, [8; 8]), Err(OfferError::OtherNonce));
    }

    #[test]
    fn another_version_is_answered_and_named() {
        let mut responder = Responder::new(offer());
        let seek = Seek { version: 9, nonce: [7; 8] };
        let mut answer = responder.on_datagram([10, 0, 0, 7].into(), &seek.encode(), at(5)).unwrap();
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
        let mut responder = Responder::new(offer());
        let seek = Seek::new([7; 8]).encode();
        assert_eq!(responder.on_datagram([10, 0, 0, 7].into(), &seek[..95], at(5)), None);
        assert_eq!(responder.on_datagram([10, 0, 0, 7].into(), &[&seek[..], &[0]].concat(), at(5)), None);
        let own_offer = offer().encode([7; 8]);
        assert_eq!(responder.on_datagram([10, 0, 0, 7].into(), &own_offer, at(5)), None, "servers do not talk");
    }

    #[test]
    fn one_address_is_answered_in_a_burst_and_then_at_a_steady_rate() {
        let mut responder = Responder::new(offer());
        let seek = Seek::new([7; 8]).encode();
        let mut answered = |source: [u8; 4], from: u64, until: u64| {
            (from..until).filter(|ms| responder.on_datagram(source.into(), &seek, at(*ms)).is_some()).count()
        };
        assert_eq!(answered([10, 0, 0, 7], 1000, 1100), 16);
        assert_eq!(answered([10, 0, 0, 8], 1100, 1110), 10, "its neighbour has its own bucket");
        assert_eq!(answered([10, 0, 0, 7], 1100, 11_000), 79, "8 a second from then on");
        assert_eq!(answered([10, 0, 0, 7], 60_000, 60_100), 16, "a full bucket again");
    }

    #[test]
    fn a_flood_of_random_datagrams_costs_no_memory_and_no_agent_its_answer() {
        let mut responder = Responder::new(offer());
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
            answers += usize::from(responder.on_datagram(source, &bytes, now).is_some_and(|a| a.len() <= bytes.len()));
            if no % 50_000 == 0 {
                assert!(responder.on_datagram([10, 0, 0, 7].into(), &seek, now).is_some());
            }
        }
        assert_eq!(answers, 100_000);
        assert_eq!(responder.table.len(), SLOTS);
        assert!(size_of_val(&*responder.table) <= 64 << 10);
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
}
