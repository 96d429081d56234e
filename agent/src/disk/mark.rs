//! The mark: what stands in sector 0 of a disk from the first write until it is complete.
//!
//! It has no boot signature, so no firmware starts the disk, and it says to whom it belongs.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | `SLIDEMRK` |
//! | 8..10 | version, 1 |
//! | 16..32 | deployment |
//! | 32..64 | manifest root |
//! | 64..72 | bytes of the image's disk |
//! | 72..80 | bytes of the target |
//! | 80..84 | CRC-32 of bytes 0..80 |
//! | 96..240 | a sentence for people |
//! | 510..512 | zeros, where a boot signature would be |
//!
//! All else is zero; numbers are little-endian.

use slidecast_proto::units::{DeploymentId, Hash};

const MAGIC: &[u8; 8] = b"SLIDEMRK";
const VERSION: u16 = 1;
const SENTENCE: &[u8] = b"\r\nSlideCast is writing this disk and has not finished. It does not boot.\r\n\
    Deploy to it again to go on.\r\n";

/// Whose an unfinished disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The deployment that began to write it.
    pub(crate) deployment: DeploymentId,
    /// The root of the image's manifest.
    pub(crate) root: Hash,
    /// The size of the image's disk in bytes.
    pub(crate) disk_bytes: u64,
    /// The size of the target in bytes.
    pub(crate) target_bytes: u64,
}

impl Mark {
    /// Writes the mark into a sector of at least 512 bytes.
    pub(super) fn encode(&self, sector: &mut [u8]) {
        sector.fill(0);
        sector[..8].copy_from_slice(MAGIC);
        sector[8..10].copy_from_slice(&VERSION.to_le_bytes());
        sector[16..32].copy_from_slice(&self.deployment.0);
        sector[32..64].copy_from_slice(&self.root.0);
        sector[64..72].copy_from_slice(&self.disk_bytes.to_le_bytes());
        sector[72..80].copy_from_slice(&self.target_bytes.to_le_bytes());
        let crc = crc32fast::hash(&sector[..80]);
        sector[80..84].copy_from_slice(&crc.to_le_bytes());
        sector[96..96 + SENTENCE.len()].copy_from_slice(SENTENCE);
    }

    /// The mark in sector 0, if there is one.
    #[must_use]
    pub(crate) fn parse(sector: &[u8]) -> Option<Self> {
        let fields = sector.first_chunk::<84>()?;
        let crc = crc32fast::hash(&fields[..80]).to_le_bytes();
        if fields[..8] != MAGIC[..] || fields[8..10] != VERSION.to_le_bytes() || fields[80..] != crc {
            return None;
        }
        let number = |at: usize| fields[at..].first_chunk().copied().map(u64::from_le_bytes);
        Some(Self {
            deployment: DeploymentId(fields[16..].first_chunk().copied()?),
            root: Hash(fields[32..].first_chunk().copied()?),
            disk_bytes: number(64)?,
            target_bytes: number(72)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { deployment: DeploymentId([1; 16]), root: Hash([2; 32]), disk_bytes: 3, target_bytes: 4 << 40 }
    }

    #[test]
    fn a_mark_comes_back_and_is_no_boot_sector() {
        for sector in [512, 4096] {
            let mut bytes = vec![0xff; sector];
            mark().encode(&mut bytes);
            assert_eq!(Mark::parse(&bytes), Some(mark()));
            assert_eq!(bytes[510..512], [0, 0]);
        }
    }

    #[test]
    fn the_mark_has_its_golden_bytes() {
        let mut bytes = [0; 512];
        mark().encode(&mut bytes);
        let mut golden = b"SLIDEMRK\x01\0\0\0\0\0\0\0".to_vec();
        golden.extend_from_slice(&[1; 16]);
        golden.extend_from_slice(&[2; 32]);
        golden.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
        assert_eq!(bytes[..80], golden[..]);
        assert!(bytes[240..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_damaged_mark_is_none() {
        let mut bytes = [0; 512];
        mark().encode(&mut bytes);
        for at in 0..84 {
            bytes[at] ^= 1;
            assert_eq!(Mark::parse(&bytes), None, "{at}");
            bytes[at] ^= 1;
        }
        assert_eq!(Mark::parse(&bytes[..83]), None);
        assert_eq!(Mark::parse(&[0; 512]), None);
    }
}
