//! The two datagrams.

use crate::noise::{Mode, PublicKey, VERSION};
use crate::units::DeploymentId;
use crate::wire::{Malformed, Parsed, array};
use core::fmt;
use nom::Parser;
use nom::bytes::complete::{tag, take};
use nom::combinator::{map, map_opt, verify};
use nom::number::complete::{le_u8, le_u16};

/// The length of every datagram in bytes.
pub const DATAGRAM_LEN: usize = 96;

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
