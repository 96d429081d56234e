//! Packing and unpacking of one block: stored as it is, lz4 or zstd.
//!
//! Unpacking writes into a buffer of exactly the length that the block table promises, so no payload can make it take
//! more memory; contexts are reused.

use core::fmt;

/// How the payload of a block is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    Stored = 0,
    /// One lz4 block, without a frame and without the length in front.
    Lz4 = 1,
    /// One zstd frame.
    Zstd = 2,
}

impl Codec {
    /// The codec of that number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Stored, Self::Lz4, Self::Zstd].into_iter().find(|codec| *codec as u8 == byte)
    }

    /// Its name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A payload that does not unpack to the promised number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecError {
    /// How it was said to be packed.
    pub codec: Codec,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the payload ({}) does not unpack to the block's length", self.codec)
    }
}

impl std::error::Error for CodecError {}

/// Unpacks blocks, one after the other.
#[derive(Default)]
pub struct Decoder {
    /// Made with the first zstd block.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    /// A decoder that has not unpacked anything yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Unpacks `payload` into `out`, which it must fill exactly.
    ///
    /// # Errors
    /// [`CodecError`] if the payload is no such thing, or is longer or shorter unpacked.
    pub fn decode(&mut self, codec: Codec, payload: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        let fault = CodecError { codec };
        let len = match codec {
            Codec::Stored if payload.len() == out.len() => {
                out.copy_from_slice(payload);
                out.len()
            }
            Codec::Stored => return Err(fault),
            Codec::Lz4 => lz4_flex::block::decompress_into(payload, out).map_err(|_| fault)?,
            Codec::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    empty => empty.insert(zstd::bulk::Decompressor::new().map_err(|_| fault)?),
                };
                zstd.decompress_to_buffer(payload, out).map_err(|_| fault)?
            }
        };
        if len == out.len() { Ok(()) } else { Err(fault) }
    }
}

/// How `create` packs blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As they are.
    None,
    /// lz4.
    Lz4,
    /// zstd at this level, 1 to 19.
    Zstd(i32),
}

impl Default for Packing {
    fn default() -> Self {
        Self::Zstd(3)
    }
}

impl core::str::FromStr for Packing {
    type Err = &'static str;

    /// `none`, `lz4`, `zstd` or `zstd:LEVEL`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':').unwrap_or((text, "3")) {
            ("none", _) if text == "none" => Ok(Self::None),
            ("lz4", _) if text == "lz4" => Ok(Self::Lz4),
            ("zstd", level) => match level.parse() {
                Ok(level @ 1..=19) => Ok(Self::Zstd(level)),
                _ => Err("zstd levels are 1 to 19"),
            },
            _ => Err("a codec is zstd:LEVEL, lz4 or none"),
        }
    }
}

/// Packs blocks, one after the other.
pub(crate) struct Encoder {
    packing: Packing,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
}

impl Encoder {
    /// An encoder for blocks of at most `block` bytes.
    pub(crate) fn new(packing: Packing, block: usize) -> std::io::Result<Self> {
        let (zstd, bound) = match packing {
            Packing::None => (None, 0),
            Packing::Lz4 => (None, lz4_flex::block::get_maximum_output_size(block)),
            Packing::Zstd(level) => (Some(zstd::bulk::Compressor::new(level)?), zstd::zstd_safe::compress_bound(block)),
        };
        Ok(Self { packing, zstd, out: vec![0; bound] })
    }

    /// The packed form of `raw`, or `raw` itself if packing gains less than 3 %.
    pub(crate) fn encode<'a>(&'a mut self, raw: &'a [u8]) -> (Codec, &'a [u8]) {
        let (codec, len) = match (self.packing, &mut self.zstd) {
            (Packing::Zstd(_), Some(zstd)) => (Codec::Zstd, zstd.compress_to_buffer(raw, &mut self.out[..]).ok()),
            (Packing::Lz4, _) => (Codec::Lz4, lz4_flex::block::compress_into(raw, &mut self.out).ok()),
            _ => (Codec::Stored, None),
        };
        match len {
            Some(len) if len <= raw.len() - raw.len() / 32 => (codec, &self.out[..len]),
            _ => (Codec::Stored, raw),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACKINGS: [Packing; 3] = [Packing::None, Packing::Lz4, Packing::Zstd(3)];

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|at| b"the quick brown fox"[at * at % 19]).collect()
    }

    #[test]
    fn what_was_packed_unpacks() {
        for packing in PACKINGS {
            let raw = text(100_000);
            let mut encoder = Encoder::new(packing, raw.len()).unwrap();
            let (codec, payload) = encoder.encode(&raw);
            assert_eq!(codec == Codec::Stored, packing == Packing::None);
            let mut out = vec![0; raw.len()];
            Decoder::new().decode(codec, payload, &mut out).unwrap();
            assert_eq!(out, raw);
        }
    }

    #[test]
    fn a_payload_that_is_longer_or_shorter_unpacked_is_refused() {
        for packing in PACKINGS {
            let raw = text(10_000);
            let mut encoder = Encoder::new(packing, raw.len()).unwrap();
            let (codec, payload) = encoder.encode(&raw);
            for len in [0, 1, 9_999, 10_001, 20_000] {
                assert_eq!(Decoder::new().decode(codec, payload, &mut vec![0; len]), Err(CodecError { codec }));
            }
        }
    }

    #[test]
    fn little_gain_is_stored() {
        let mut noise = vec![0; 64 << 10];
        getrandom::fill(&mut noise).unwrap();
        assert_eq!(Encoder::new(Packing::Zstd(3), noise.len()).unwrap().encode(&noise).0, Codec::Stored);
        assert_eq!(Encoder::new(Packing::Lz4, noise.len()).unwrap().encode(&noise).0, Codec::Stored);
    }

    #[test]
    fn codecs_are_named_as_on_the_command_line() {
        assert_eq!("zstd:9".parse(), Ok(Packing::Zstd(9)));
        assert_eq!("zstd".parse(), Ok(Packing::Zstd(3)));
        assert_eq!("lz4".parse(), Ok(Packing::Lz4));
        assert_eq!("none".parse(), Ok(Packing::None));
        for wrong in ["zstd:0", "zstd:20", "zstd:", "lz4:1", "none:1", "gzip", ""] {
            assert!(wrong.parse::<Packing>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..300), len in 0usize..5000) {
            let mut decoder = Decoder::new();
            for codec in [Codec::Stored, Codec::Lz4, Codec::Zstd] {
                let _ = decoder.decode(codec, &payload, &mut vec![0; len]);
            }
        }
    }
}
