//! The front of a partclone image, little-endian: what was saved, and how.

use super::super::ImportFault;
use super::super::bytes::{le16, le32, le64};
use super::sums::{Kind, crc_without_inversion};
use std::io::Read;

pub(in super::super) const MAGIC: &[u8] = b"partclone-image";

/// Bytes of the header of version 2.
const V2_BYTES: usize = 110;
/// Bytes in front of the map in version 1: 64 with a meaning and 4,096 without.
const V1_BYTES: usize = 64 + 4096;
const REMEDY: &str = "restore it with partclone to a raw file first";
/// No disk is larger, as in the images that are made of them.
const MAX_BYTES: u64 = 1 << 60;

/// How the map of used blocks is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapKind {
    /// There is none: all blocks are used.
    None,
    /// A bit for each block, and a checksum.
    Bits,
    /// A byte for each block, and a magic word.
    Bytes,
}

/// What the header says.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// Version 1 or 2.
    pub(super) version: u32,
    /// The file system, as partclone calls it.
    pub(crate) file_system: String,
    /// The size of the partition in bytes, or for some file systems that of the file system.
    pub(crate) device_bytes: u64,
    pub(super) blocks: u64,
    /// Used blocks as the map has them; not in version 1.
    pub(super) used: Option<u64>,
    /// The block in bytes.
    pub(super) block: u32,
    pub(super) map: MapKind,
    pub(super) sums: Kind,
    /// Blocks that one checksum is over.
    pub(super) blocks_per_sum: u32,
    /// Each checksum begins anew.
    pub(super) reseed: bool,
}

fn read_exactly(input: &mut dyn Read, bytes: &mut [u8], offset: u64) -> Result<(), ImportFault> {
    super::data::fill(input, bytes, "header", offset)
}

impl Header {
    /// Reads the header from the front of an image.
    pub(super) fn read(input: &mut dyn Read) -> Result<Self, ImportFault> {
        let mut front = [0; V2_BYTES];
        read_exactly(input, &mut front[..36], 0)?;
        if !front.starts_with(MAGIC) {
            return Err(ImportFault::Damaged { what: "header", offset: 0 });
        }
        let header = match &front[30..34] {
            b"0001" => {
                let mut bytes = [0; V1_BYTES];
                read_exactly(input, &mut bytes[36..], 36)?;
                bytes[..36].copy_from_slice(&front[..36]);
                Self::version_1(&bytes)
            }
            b"0002" => {
                read_exactly(input, &mut front[36..], 36)?;
                Self::version_2(&front)?
            }
            _ => return Err(ImportFault::Unsupported { what: "another version than 1 and 2", remedy: REMEDY }),
        };
        header.checked()
    }

    fn version_1(bytes: &[u8; V1_BYTES]) -> Self {
        Self {
            version: 1,
            file_system: text(&bytes[15..30]),
            block: le32(bytes, 36),
            device_bytes: le64(bytes, 40),
            blocks: le64(bytes, 48),
            used: None,
            map: MapKind::Bytes,
            // Each block has a checksum of its first byte alone.
            sums: Kind::Unchecked,
            blocks_per_sum: 1,
            reseed: true,
        }
    }

    fn version_2(bytes: &[u8; V2_BYTES]) -> Result<Self, ImportFault> {
        let unsupported = |what| Err(ImportFault::Unsupported { what, remedy: REMEDY });
        match bytes[34..36] {
            [0xDE, 0xC0] => {}
            [0xC0, 0xDE] => return unsupported("the byte order of another kind of machine"),
            _ => return Err(ImportFault::Damaged { what: "byte order", offset: 34 }),
        }
        if crc_without_inversion(&bytes[..106]) != le32(bytes, 106) {
            return Err(ImportFault::Differs { what: "its header", offset: 0 });
        }
        if le32(bytes, 88) != 18 || le16(bytes, 92) != 2 {
            return unsupported("other options than those of version 2");
        }
        if le16(bytes, 94) != 64 {
            return unsupported("the layout of a system of 32 bits");
        }
        let map = match bytes[105] {
            0 => MapKind::None,
            1 => MapKind::Bits,
            _ => return unsupported("a map of used blocks of another kind"),
        };
        let Some(sums) = Kind::of(le16(bytes, 96), le16(bytes, 98)) else {
            return unsupported("checksums of another kind than CRC-32, XXH64 and XXH3-128");
        };
        Ok(Self {
            version: 2,
            file_system: text(&bytes[36..52]),
            device_bytes: le64(bytes, 52),
            blocks: le64(bytes, 60),
            used: Some(le64(bytes, 76)),
            block: le32(bytes, 84),
            map,
            sums,
            blocks_per_sum: le32(bytes, 100),
            reseed: bytes[104] != 0,
        })
    }

    fn checked(self) -> Result<Self, ImportFault> {
        let damaged = |what| Err(ImportFault::Damaged { what, offset: 52 });
        if self.block == 0 || !self.block.is_multiple_of(512) || self.block > 1 << 24 {
            return damaged("block size");
        }
        let bytes = self.blocks.checked_mul(self.block.into());
        if self.blocks == 0 || bytes.is_none_or(|bytes| bytes > MAX_BYTES) || self.device_bytes > MAX_BYTES {
            return damaged("size");
        }
        if self.used.is_some_and(|used| used > self.blocks) {
            return damaged("number of used blocks");
        }
        if self.sums != Kind::None && self.blocks_per_sum == 0 {
            return damaged("number of blocks of a checksum");
        }
        Ok(self)
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        if self.version == 1 { V1_BYTES as u64 } else { V2_BYTES as u64 }
    }
}

/// The text up to the first zero, without what no terminal should see.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes[..end].iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
}
