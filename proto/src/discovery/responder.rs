//! The server's side: what to answer to whom, and how often.

use super::proof::{PROOF_LEN, PURPOSE, proof};
use super::{DATAGRAM_LEN, Offer, Seek};
use crate::noise::SecretKey;
use crate::units::Time;
use core::hash::{Hash as _, Hasher as _};
use core::time::Duration;
use std::hash::DefaultHasher;
use std::net::{IpAddr, Ipv4Addr};

/// How often one address is answered when it keeps asking.
const ANSWER_EVERY: Duration = Duration::from_millis(125);
/// How many answers an address that was silent for a while gets at once.
const ANSWER_BURST: u32 = 16;

/// How often an address that was not heard of lately is answered directly. Each such answer makes the kernel look for the machine
/// with that address; of those that it has looked for lately it keeps 1,024 and no more (arp(7), `gc_thresh3`).
const NEW_EVERY: Duration = Duration::from_millis(100);
/// How many such addresses are answered directly at once.
const NEW_BURST: u32 = 128;

/// How often an offer is proven; others are made without, so that a flood of seeks does not keep the processor busy.
const PROVE_EVERY: Duration = Duration::from_millis(1);
/// How many offers are proven at once.
const PROVE_BURST: u32 = 256;

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
    pub(super) table: Box<[Slot]>,
}

/// A token bucket in one number (the "virtual scheduling" form of GCRA, ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    source: IpAddr,
    /// When the bucket is full again. A bucket that is full is as good as none.
    full: Time,
}

pub(super) const SLOTS: usize = 1024;
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
