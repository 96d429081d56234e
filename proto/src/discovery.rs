//! How an agent finds the server: it broadcasts a seek, servers answer with an offer.
//!
//! An offer is only a hint where to connect; the handshake proves the identity of the server ([`crate::noise`]). An agent that knows the server's
//! key puts a key of its own into the seek, and the server proves with both that the offer is its own and where it can be reached:
//! such offers are tried before all others, however many of those there are. Both datagrams have
//! the same length, so nobody can make the server send more than he sent himself. The server keeps a table of fixed size
//! to answer each address only so often, and nothing else.

use crate::noise::{Mode, PublicKey, SecretKey, VERSION};
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

/// How often an address that was not heard of lately is answered directly. Each such answer makes the kernel look for the machine
/// with that address; of those that it has looked for lately it keeps 1,024 and no more (arp(7), `gc_thresh3`).
pub const NEW_EVERY: Duration = Duration::from_millis(100);
/// How many such addresses are answered directly at once.
pub const NEW_BURST: u32 = 128;

/// How often an offer is proven; others are made without, so that a flood of seeks does not keep the processor busy.
pub const PROVE_EVERY: Duration = Duration::from_millis(1);
/// How many offers are proven at once.
pub const PROVE_BURST: u32 = 256;
/// The length of a proof in bytes.
const PROOF_LEN: usize = 24;
const PURPOSE: &str = "slidecast offer 1";

const SEEK: &[u8; 8] = b"SLIDESEK";
const OFFER: &[u8; 8] = b"SLIDEOFR";

/// "Is there a server?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    /// The version the agent speaks. A server of any version answers.
    pub version: u8,
    /// Drawn by the agent, so that it knows the answers to its own question.
    pub nonce: [u8; 8],
    /// The public half of a key that the agent drew for its search, if it wants the offer proven.
    pub key: Option<PublicKey>,
}

impl Seek {
    /// A seek of our version.
    #[must_use]
    pub fn new(nonce: [u8; 8]) -> Self {
        Self { version: VERSION, nonce, key: None }
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; DATAGRAM_LEN] {
        let mut bytes = [0; DATAGRAM_LEN];
        bytes[..8].copy_from_slice(SEEK);
        bytes[8] = self.version;
        bytes[16..24].copy_from_slice(&self.nonce);
        bytes[24..56].copy_from_slice(&self.key.map_or([0; 32], |key| key.0));
        bytes
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is no seek, or not as long as one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let fields = (tag(&SEEK[..]), le_u8, take(7_usize), array, array::<32>);
        datagram("seek", fields, bytes).map(|(_, version, _, nonce, key)| {
            let key = (key != [0; 32]).then_some(PublicKey(key));
            Self { version, nonce, key }
        })
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

/// What shows that an offer is of the server at `address`: keyed BLAKE3 over the offer and that address.
fn proof(key: &[u8; 32], offer: &[u8; DATAGRAM_LEN], address: IpAddr) -> [u8; PROOF_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&offer[..DATAGRAM_LEN - PROOF_LEN]);
    match address.to_canonical() {
        IpAddr::V4(address) => hasher.update(&address.octets()),
        IpAddr::V6(address) => hasher.update(&address.octets()),
    };
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a proof")
}

/// What an agent that knows the server's key recognises that server's offers by.
pub struct Recognition {
    public: PublicKey,
    key: zeroize::Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Recognition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recognition").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Recognition {
    /// `secret` is drawn for one search; `server` is the key that is known. None if that is no key.
    #[must_use]
    pub fn new(secret: &SecretKey, server: &PublicKey) -> Option<Self> {
        Some(Self { public: secret.public(), key: secret.shared(server, PURPOSE)? })
    }

    /// What goes into the seek.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Whether this datagram is an offer that the server made for the address that it came from.
    #[must_use]
    pub fn is_of_server(&self, offer: &[u8], source: IpAddr) -> bool {
        let Ok(offer) = <&[u8; DATAGRAM_LEN]>::try_from(offer) else { return false };
        let right = proof(&self.key, offer, source);
        // An attacker has one guess per datagram, and learns nothing from the time that this takes.
        let differs = right.iter().zip(&offer[DATAGRAM_LEN - PROOF_LEN..]).fold(0, |sum, (a, b)| sum | (a ^ b));
        differs == 0
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

/// What to send back for a seek.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The datagram.
    pub bytes: [u8; DATAGRAM_LEN],
    /// To everybody on the network that the seek came from, instead of to its source: a crowd of forged sources would fill the
    /// kernel's table of neighbours, and nobody could be answered any more.
    pub broadcast: bool,
}

/// The server's side: what to answer to whom.
#[derive(Debug)]
pub struct Responder {
    offer: Offer,
    /// What proves offers; none if the server runs with `--insecure`.
    secret: Option<SecretKey>,
    /// When offers may be proven in full number again.
    proven_full: Time,
    /// When new addresses may be answered directly in full number again.
    new_full: Time,
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
    /// A responder that makes this offer, and proves it with the secret half of the key in it.
    #[must_use]
    pub fn new(offer: Offer, secret: Option<SecretKey>) -> Self {
        let empty = Slot { source: IpAddr::V4(Ipv4Addr::UNSPECIFIED), full: Time(0) };
        Self { offer, secret, proven_full: Time(0), new_full: Time(0), table: vec![empty; SLOTS].into() }
    }

    /// What to send back to `source` for this datagram, if anything, from the address `ours`. Never longer than the datagram.
    pub fn on_datagram(&mut self, source: IpAddr, ours: IpAddr, bytes: &[u8], now: Time) -> Option<Answer> {
        let seek = Seek::parse(bytes).ok()?;
        let (slot, new) = self.slot(source, now);
        if !take_token(&mut slot.full, ANSWER_EVERY, ANSWER_BURST, now) {
            return None;
        }
        let broadcast = new && !source.is_loopback() && !take_token(&mut self.new_full, NEW_EVERY, NEW_BURST, now);
        let mut bytes = self.offer.encode(seek.nonce);
        if let (Some(secret), Some(key)) = (&self.secret, seek.key)
            && take_token(&mut self.proven_full, PROVE_EVERY, PROVE_BURST, now)
            && let Some(shared) = secret.shared(&key, PURPOSE)
        {
            let proof = proof(&shared, &bytes, ours);
            bytes[DATAGRAM_LEN - PROOF_LEN..].copy_from_slice(&proof);
        }
        Some(Answer { bytes, broadcast })
    }

    /// The bucket of an address, and whether it had none.
    fn slot(&mut self, source: IpAddr, now: Time) -> (&mut Slot, bool) {
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let sets = (SLOTS / WAYS) as u64;
        let first = usize::try_from(hasher.finish() % sets).expect("there are few sets") * WAYS;
        let set = &mut self.table[first..first + WAYS];
        // A new address takes the place of the one that has been silent the longest.
        let way = set.iter().position(|slot| slot.source == source);
        let way = way.or_else(|| (0..WAYS).min_by_key(|way| set[*way].full)).unwrap_or(0);
        let slot = &mut set[way];
        let new = slot.source != source;
        if new {
            *slot = Slot { source, full: now };
        }
        (slot, new)
    }
}

/// Takes a token out of the bucket that is full again at `full`, if there is one.
fn take_token(full: &mut Time, every: Duration, burst: u32, now: Time) -> bool {
    let then = (*full).max(now).after(every);
    let allowed = then.since(now) <= every * burst;
    if allowed {
        *full = then;
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        let answer =
            responder.on_datagram([10, 0, 0, 7].into(), OURS, &Seek::new([7; 8]).encode(), at(5)).unwrap().bytes;
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
            answers += usize::from(
                responder.on_datagram(source, OURS, &bytes, now).is_some_and(|a| a.bytes.len() <= bytes.len()),
            );
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
        let direct =
            (0..10_000_u32).filter(|no| ask(0x0b00_0000 + no, 1000 + u64::from(no / 10)) == Some(false)).count();
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
}
