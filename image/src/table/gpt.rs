//! The GUID partition table: its header, its protective MBR and the entries (UEFI specification, chapter 5).

use crate::le::{array_at, u32_at, u64_at};

/// How long an entry array may be that is looked at: 64 times the usual 16 KiB.
const MAX_ARRAY_BYTES: u64 = 1 << 20;
/// The bytes of a header that have a meaning.
const HEADER_BYTES: usize = 92;

/// A header whose signature, checksum, own place and sizes hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Bytes of the header that its checksum covers.
    pub(crate) len: usize,
    /// The sector of the other header.
    pub(crate) alternate: u64,
    /// The first sector of the entry array.
    pub(crate) entries: u64,
    /// How many entries there are.
    pub(crate) count: u32,
    /// Bytes of one entry.
    pub(crate) entry_bytes: u32,
    /// CRC-32 of the whole array.
    pub(crate) entries_crc: u32,
}

impl Header {
    /// The header in `sector`, which was read from sector number `own`.
    pub(crate) fn parse(sector: &[u8], own: u64) -> Option<Self> {
        let len = usize::try_from(u32_at(sector, 12)?).ok()?;
        let header = Self {
            len,
            alternate: u64_at(sector, 32)?,
            entries: u64_at(sector, 72)?,
            count: u32_at(sector, 80)?,
            entry_bytes: u32_at(sector, 84)?,
            entries_crc: u32_at(sector, 88)?,
        };
        let good = sector.starts_with(b"EFI PART")
            && (HEADER_BYTES..=sector.len()).contains(&len)
            && u32_at(sector, 16)? == header_crc(sector.get(..len)?)
            && u64_at(sector, 24)? == own
            && header.entry_bytes >= 128
            && header.entry_bytes.is_power_of_two()
            && header.count > 0
            && header.array_bytes() <= MAX_ARRAY_BYTES;
        good.then_some(header)
    }

    /// Bytes of the entry array.
    pub(crate) fn array_bytes(&self) -> u64 {
        u64::from(self.count) * u64::from(self.entry_bytes)
    }

    /// Whether `array` is what the header's checksum was made of.
    pub(crate) fn array_holds(&self, array: &[u8]) -> bool {
        crc32fast::hash(array) == self.entries_crc
    }

    /// The entries of `array` that are partitions, with their numbers from 1.
    pub(crate) fn partitions<'a>(&self, array: &'a [u8]) -> impl Iterator<Item = (u32, Entry<'a>)> {
        let size = usize::try_from(self.entry_bytes).unwrap_or(usize::MAX);
        (1..).zip(array.chunks_exact(size)).filter_map(|(index, bytes)| Some((index, Entry::parse(bytes)?)))
    }
}

/// The checksum of a header: its own field counts as zero.
pub(crate) fn header_crc(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..16]);
    crc.update(&[0; 4]);
    crc.update(&header[20..]);
    crc.finalize()
}

/// One entry in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// The type's GUID as it lies on the disk.
    pub(crate) kind: [u8; 16],
    /// Its first sector.
    pub(crate) first: u64,
    /// Its last sector, which belongs to it.
    pub(crate) last: u64,
    name: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let kind = array_at(bytes, 0)?;
        let entry = Self { kind, first: u64_at(bytes, 32)?, last: u64_at(bytes, 40)?, name: bytes.get(56..128)? };
        (kind != [0; 16]).then_some(entry)
    }

    /// Its name, at most 36 characters.
    pub(crate) fn name(&self) -> String {
        let units = self.name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        char::decode_utf16(units.take_while(|unit| *unit != 0))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .filter(|c| !c.is_control())
            .collect()
    }

    /// The type's GUID as people write it.
    pub(crate) fn kind_text(&self) -> String {
        use core::fmt::Write;
        let mut text = String::with_capacity(36);
        for (place, byte) in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "{:02X}", self.kind[*byte]);
        }
        text
    }
}

/// Where in an MBR the protective entry lies (type EE, starting at sector 1), if there is one: without it the GPT counts
/// for nothing.
pub(crate) fn protective_entry(mbr: &[u8]) -> Option<usize> {
    if mbr.get(510..512)? != [0x55, 0xAA] {
        return None;
    }
    (0..4).map(|index| 446 + index * 16).find(|at| mbr[at + 4] == 0xEE && u32_at(mbr, at + 8) == Some(1))
}
