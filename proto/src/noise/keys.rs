//! X25519 keys and their text: one line of 64 hexadecimal digits, in a key file with a tag in front that says which half it
//! is. Files of older versions have no tag; where their half can't be told, they are taken for what is asked for.

use crate::hex;
use core::fmt;
use core::str::FromStr;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::{Zeroize, Zeroizing};

/// What stands in front of the digits of a secret key in its file.
pub const SECRET_TAG: &str = "slidecast-secret-key-v1:";
/// What stands in front of the digits of a public key in its file.
pub const PUBLIC_TAG: &str = "slidecast-public-key-v1:";

/// The half that never leaves its machine. Not shown, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; 32]);

/// The half that everybody may know: the name of a server or, for one run, of an agent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandomness;

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system gave no random bytes")
    }
}

impl std::error::Error for NoRandomness {}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// It has not 64 characters but so many.
    Length(usize),
    /// It has other characters than hexadecimal digits.
    NotHexadecimal,
    /// It is a secret key, where the public one is meant.
    Secret,
    /// It is a public key, where the secret one is meant.
    Public,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a key has 64 hexadecimal digits, not {len} characters"),
            Self::NotHexadecimal => f.write_str("a key has nothing but hexadecimal digits"),
            Self::Secret => f.write_str("this is a secret key, which never leaves its server; the public one is meant"),
            Self::Public => f.write_str("this is a public key; the secret one is meant"),
        }
    }
}

impl std::error::Error for KeyError {}

impl SecretKey {
    /// A new key from the system's random bytes.
    ///
    /// # Errors
    /// The system gives none.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut key = Self([0; 32]);
        getrandom::fill(&mut key.0).map_err(|_| NoRandomness)?;
        Ok(key)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("snow is built with use-curve25519");
        dh.set(&self.0);
        PublicKey(dh.pubkey().try_into().expect("an X25519 public key has 32 bytes"))
    }

    /// A key for `purpose` that only this half and the other half of `peer` give (X25519, then BLAKE3's key derivation); none if
    /// `peer` is no point that a key can come of.
    #[must_use]
    pub fn shared(&self, peer: &PublicKey, purpose: &'static str) -> Option<Zeroizing<[u8; 32]>> {
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("snow is built with use-curve25519");
        dh.set(&self.0);
        let mut point = Zeroizing::new([0; 32]);
        dh.dh(&peer.0, &mut *point).ok()?;
        (*point != [0; 32]).then(|| Zeroizing::new(blake3::derive_key(purpose, &*point)))
    }

    /// The line of a key file, with its tag and without a line end.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let digits = self.to_hex();
        let mut line = Zeroizing::new(String::with_capacity(SECRET_TAG.len() + digits.len()));
        line.push_str(SECRET_TAG);
        line.push_str(&digits);
        line
    }

    /// The digits alone.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64));
        hex::write(&mut *text, &self.0).expect("writing to a string cannot fail");
        text
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut key = Self([0; 32]);
        if text.trim_start().starts_with(PUBLIC_TAG) {
            return Err(KeyError::Public);
        }
        from_hex(text, SECRET_TAG, &mut key.0)?;
        Ok(key)
    }
}

impl PublicKey {
    /// The line of a key file, with its tag and without a line end.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{PUBLIC_TAG}{self}")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut key = Self([0; 32]);
        if text.trim_start().starts_with(SECRET_TAG) {
            return Err(KeyError::Secret);
        }
        from_hex(text, PUBLIC_TAG, &mut key.0)?;
        Ok(key)
    }
}

/// Reads 64 hexadecimal digits, with or without the tag; white space around them, such as a file's line end, does not count.
fn from_hex(text: &str, tag: &str, key: &mut [u8; 32]) -> Result<(), KeyError> {
    let text = text.trim();
    let digits = text.strip_prefix(tag).unwrap_or(text);
    if digits.chars().count() != 64 {
        return Err(KeyError::Length(digits.chars().count()));
    }
    hex::fill(key, digits).ok_or(KeyError::NotHexadecimal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_that_of_rfc_7748() {
        let bob: SecretKey = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb".parse().unwrap();
        let public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
        assert_eq!(bob.public().to_string(), public);
    }

    #[test]
    fn keys_survive_their_text_and_a_line_end() {
        let key = SecretKey::generate().unwrap();
        assert_eq!(format!("{}\n", *key.to_hex()).parse(), Ok(key.clone()));
        assert_eq!(key.public().to_string().to_uppercase().parse(), Ok(key.public()));
        assert_ne!(key, SecretKey::generate().unwrap());
    }

    #[test]
    fn the_line_of_a_key_file_says_which_half_it_is() {
        let key = SecretKey::generate().unwrap();
        let (secret, public) = (format!("{}\n", *key.to_line()), format!("{}\n", key.public().to_line()));
        assert_eq!(secret.parse(), Ok(key.clone()));
        assert_eq!(public.parse(), Ok(key.public()));
        assert_eq!(secret.parse::<PublicKey>(), Err(KeyError::Secret));
        assert_eq!(public.parse::<SecretKey>(), Err(KeyError::Public));
        assert!(secret.starts_with("slidecast-secret-key-v1:") && public.starts_with("slidecast-public-key-v1:"));
    }

    #[test]
    fn what_is_no_key_says_why() {
        assert_eq!("".parse::<PublicKey>(), Err(KeyError::Length(0)));
        assert_eq!("ab".repeat(33).parse::<PublicKey>(), Err(KeyError::Length(66)));
        assert_eq!("xy".repeat(32).parse::<SecretKey>(), Err(KeyError::NotHexadecimal));
        assert_eq!("é".repeat(64).parse::<SecretKey>(), Err(KeyError::NotHexadecimal));
    }

    #[test]
    fn a_secret_key_is_not_shown() {
        assert_eq!(format!("{:?}", SecretKey([7; 32])), "SecretKey(..)");
    }
}
