//! The four checksums that btrfs can be made with, each over everything behind the 32 bytes that it has room in.

use crate::used::ext_sums::crc32c;
use sha2::Digest as _;

/// Room for a checksum. A shorter one leaves the rest zero.
const ROOM: usize = 32;

/// Which of them a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    Crc32c,
    XxHash64,
    Sha256,
    Blake2b,
}

impl Sum {
    /// The one with this number in the superblock.
    pub(super) fn numbered(number: u16) -> Option<Self> {
        [Self::Crc32c, Self::XxHash64, Self::Sha256, Self::Blake2b].get(usize::from(number)).copied()
    }

    /// Whether the bytes of a superblock or node have the right checksum in front.
    pub(super) fn is_right(self, bytes: &[u8]) -> bool {
        let Some((stated, bytes)) = bytes.split_at_checked(ROOM) else { return false };
        match self {
            Self::Crc32c => stated.starts_with(&(!crc32c(!0, bytes)).to_le_bytes()),
            Self::XxHash64 => stated.starts_with(&twox_hash::XxHash64::oneshot(0, bytes).to_le_bytes()),
            Self::Sha256 => stated == sha2::Sha256::digest(bytes).as_slice(),
            Self::Blake2b => stated == blake2::Blake2b::<blake2::digest::consts::U32>::digest(bytes).as_slice(),
        }
    }
}
