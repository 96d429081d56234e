//! How an offer is proven to be the server's own.

use super::DATAGRAM_LEN;
use crate::noise::{PublicKey, SecretKey};
use core::fmt;
use std::net::IpAddr;

/// The length of a proof in bytes; it is the end of the offer.
pub(super) const PROOF_LEN: usize = 24;
/// What the key is for that server and agent share.
pub(super) const PURPOSE: &str = "slidecast offer 1";

/// What shows that an offer is of the server at `address`: keyed BLAKE3 over the offer and that address.
pub(super) fn proof(key: &[u8; 32], offer: &[u8; DATAGRAM_LEN], address: IpAddr) -> [u8; PROOF_LEN] {
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
