//! The checksums of partclone images.

use twox_hash::{XxHash3_128, XxHash64};

/// Which checksums an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Crc32,
    Xxh64,
    /// Written by Clonezilla since April 2026.
    Xxh3,
    /// Four bytes behind each block that say nothing of it, in version 1.
    Unchecked,
    /// The same in eight bytes, as some systems of 64 bits wrote them.
    UncheckedLong,
}

impl Kind {
    /// The kind of checksum of `len` bytes that the header calls `mode`.
    pub(super) fn of(mode: u16, len: u16) -> Option<Self> {
        match (mode, len) {
            (0, 0) => Some(Self::None),
            (0x20, 4) => Some(Self::Crc32),
            (0x30, 8) => Some(Self::Xxh64),
            (0x31, 16) => Some(Self::Xxh3),
            _ => None,
        }
    }

    /// Bytes of one.
    pub(super) fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32 | Self::Unchecked => 4,
            Self::Xxh64 | Self::UncheckedLong => 8,
            Self::Xxh3 => 16,
        }
    }
}

/// The CRC-32 that everybody knows, without its last step.
pub(super) fn crc_without_inversion(bytes: &[u8]) -> u32 {
    !crc32fast::hash(bytes)
}

/// What version 1 calls the checksum of a block: `seed` continued by the first byte, as often as the block has bytes.
pub(super) fn crc_of_first_byte(seed: u32, byte: u8, block: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!seed);
    let piece = [byte; 512];
    (0..block / piece.len()).for_each(|_| hasher.update(&piece));
    !hasher.finalize()
}

/// A checksum that is being computed.
pub(super) enum Sum {
    /// None is checked.
    None,
    Crc32(crc32fast::Hasher),
    Xxh64(XxHash64),
    Xxh3(Box<XxHash3_128>),
}

impl Sum {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::None | Kind::Unchecked | Kind::UncheckedLong => Self::None,
            Kind::Crc32 => Self::Crc32(crc32fast::Hasher::new()),
            Kind::Xxh64 => Self::Xxh64(XxHash64::with_seed(0)),
            Kind::Xxh3 => Self::Xxh3(Box::new(XxHash3_128::new())),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc32(hasher) => hasher.update(bytes),
            Self::Xxh64(hasher) => core::hash::Hasher::write(hasher, bytes),
            Self::Xxh3(hasher) => hasher.write(bytes),
        }
    }

    /// Whether `stored` is the checksum of what there was so far.
    pub(super) fn is(&self, stored: &[u8]) -> bool {
        match self {
            Self::None => true,
            Self::Crc32(hasher) => (!hasher.clone().finalize()).to_le_bytes() == stored,
            Self::Xxh64(hasher) => core::hash::Hasher::finish(hasher).to_le_bytes() == stored,
            Self::Xxh3(hasher) => hasher.finish_128().to_le_bytes() == stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the empty input and of "abc" that the authors of the functions publish.
    #[test]
    fn checksums_are_those_that_are_known() {
        let of = |kind, bytes: &[u8], expected: &[u8]| {
            let mut sum = Sum::new(kind);
            sum.update(bytes);
            assert!(sum.is(expected), "{kind:?} of {bytes:?}");
        };
        of(Kind::Crc32, b"123456789", &(!0xCBF4_3926_u32).to_le_bytes());
        of(Kind::Xxh64, b"", &0xEF46_DB37_51D8_E999_u64.to_le_bytes());
        of(Kind::Xxh64, b"abc", &0x44BC_2CF5_AD77_0999_u64.to_le_bytes());
        of(Kind::Xxh3, b"", &0x99AA_06D3_0147_98D8_6001_C324_468D_497F_u128.to_le_bytes());
        of(Kind::Xxh3, b"abc", &0x06B0_5AB6_733A_6185_78AF_5F94_892F_3950_u128.to_le_bytes());
    }
}
