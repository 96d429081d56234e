//! The 16 bytes that each side sends before anything else. Their places never change, whatever the version.

use crate::wire::{Malformed, Parsed, whole};
use core::fmt;
use nom::Parser;
use nom::bytes::complete::tag;
use nom::combinator::{map, map_opt};
use nom::number::complete::le_u8;

/// The version of everything that agents, the server and neighbours tell each other.
pub const VERSION: u8 = 3;
/// The length of a preface in bytes.
pub(crate) const PREFACE_LEN: usize = 16;

const MAGIC: &[u8; 8] = b"SLIDECTL";

/// Whether the agent knows the server's key beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does: nobody else can take the server's place.
    Pinned,
    /// It does not (`--insecure`): anybody can.
    Insecure,
}

impl Mode {
    /// The byte on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Pinned => 0,
            Self::Insecure => 1,
        }
    }

    /// The mode of a byte from the wire.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Pinned),
            1 => Some(Self::Insecure),
            _ => None,
        }
    }
}

/// One of the two ends of a control link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that connects.
    Agent,
    /// The one that listens.
    Server,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Server => "server",
        })
    }
}

/// What the server makes of the agent's preface. In the agent's own preface it is [`Verdict::GoOn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    Version,
    Mode,
    Busy,
}

/// A preface, but for its magic. The mode of another version may be one that this one does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preface {
    pub(super) version: u8,
    pub(super) mode: u8,
    pub(super) verdict: Verdict,
}

impl Preface {
    pub(super) fn of(mode: Mode, verdict: Verdict) -> Self {
        Self { version: VERSION, mode: mode.code(), verdict }
    }

    pub(super) fn encode(self) -> [u8; PREFACE_LEN] {
        let mut bytes = [0; PREFACE_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = self.version;
        bytes[9] = self.mode;
        bytes[10] = match self.verdict {
            Verdict::GoOn => 0,
            Verdict::Version => 1,
            Verdict::Mode => 2,
            Verdict::Busy => 3,
        };
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        whole("preface", Self::read, bytes)
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        let verdict = map_opt(le_u8, |code| match code {
            0 => Some(Verdict::GoOn),
            1 => Some(Verdict::Version),
            2 => Some(Verdict::Mode),
            3 => Some(Verdict::Busy),
            _ => None,
        });
        map((tag(&MAGIC[..]), le_u8, le_u8, verdict, tag(&[0; 5][..])), |(_, version, mode, verdict, _)| Self {
            version,
            mode,
            verdict,
        })
        .parse(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_the_prefaces_are_frozen() {
        assert_eq!(&Preface::of(Mode::Pinned, Verdict::GoOn).encode(), b"SLIDECTL\x03\0\0\0\0\0\0\0");
        assert_eq!(&Preface::of(Mode::Insecure, Verdict::GoOn).encode(), b"SLIDECTL\x03\x01\0\0\0\0\0\0");
        assert_eq!(&Preface::of(Mode::Pinned, Verdict::Version).encode(), b"SLIDECTL\x03\0\x01\0\0\0\0\0");
        assert_eq!(&Preface::of(Mode::Pinned, Verdict::Mode).encode(), b"SLIDECTL\x03\0\x02\0\0\0\0\0");
        assert_eq!(&Preface::of(Mode::Pinned, Verdict::Busy).encode(), b"SLIDECTL\x03\0\x03\0\0\0\0\0");
    }

    #[test]
    fn a_preface_of_any_version_and_mode_is_read() {
        let preface = Preface { version: 200, mode: 77, verdict: Verdict::Version };
        assert_eq!(Preface::parse(&preface.encode()), Ok(preface));
        assert!(Preface::parse(b"SLIDECTL\x03\0\x04\0\0\0\0\0").is_err(), "no such verdict");
        assert!(Preface::parse(b"SLIDECTL\x03\0\0\0\0\0\0\x01").is_err(), "the rest is zero");
        assert!(Preface::parse(b"slidectl\x01\0\0\0\0\0\0\0").is_err());
    }
}
