//! X25519 keys and their text: one line of 64 hexadecimal digits.

use core::fmt::{self, Write as _};
use core::str::FromStr;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::{Zeroize, Zeroizing};

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
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a key has 64 hexadecimal digits, not {len} characters"),
            Self::NotHexadecimal => f.write_str("a key has nothing but hexadecimal digits"),
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

    /// The text that a key file holds, without a line end.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in self.0 {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
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
        from_hex(text, &mut key.0)?;
        Ok(key)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
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
        from_hex(text, &mut key.0)?;
        Ok(key)
    }
}

/// Reads 64 hexadecimal digits; white space around them, such as a file's line end, does not count.
fn from_hex(text: &str, key: &mut [u8; 32]) -> Result<(), KeyError> {
    let digits = text.trim();
    if digits.chars().count() != 64 {
        return Err(KeyError::Length(digits.chars().count()));
    }
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(KeyError::NotHexadecimal);
    }
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit | 0x20) - b'a' + 10,
        };
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    Ok(())
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
