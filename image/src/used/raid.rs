//! Members of RAID arrays that are told by the end of a disk: md 0.90 and 1.0, and the formats of firmware RAID.
//!
//! An array has the disk, and the disk has the partition table of the array: free space of a file system on it is free on
//! the whole array only. So a disk with one of these signs is kept as a whole; but for members of md ([`md`]). Places and magics are those that libblkid
//! 2.38.1 looks for.

use super::md;
use super::volume::{Kept, Volume};

const SECTOR: u64 = 512;
/// Where Promise FastTrack keeps its metadata, in sectors from the end.
const PROMISE: [u64; 13] = [63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087];

/// A sign at a fixed distance from the end: name, sectors from the end, place in the sector, bytes.
const SIGNS: &[(&str, u64, usize, &[u8])] = &[
    ("Intel RAID", 2, 0, b"Intel Raid ISM Cfg Sig. "),
    ("DDF RAID", 1, 0, b"\xDE\x11\xDE\x11"),
    ("DDF RAID", 257, 0, b"\xDE\x11\xDE\x11"),
    ("LSI RAID", 1, 0, b"$XIDE$"),
    ("Silicon Image RAID", 1, 0x60, b"\0\0\0\x2F"),
    ("NVIDIA RAID", 2, 0, b"NVIDIA"),
    ("HighPoint RAID", 11, 0, b"\xF3\x16\x78\x5A"),
    ("HighPoint RAID", 11, 0, b"\xFD\x16\x78\x5A"),
    ("Adaptec RAID", 1, 0, b"\x37\xFC\x4D\x1E"),
];

/// The array format whose sign the end of `volume` has.
pub(super) fn at_the_end(volume: &Volume<'_>) -> Result<Option<&'static str>, Kept> {
    let sectors = volume.bytes() / SECTOR;
    let sector = |from_end: u64| match sectors.checked_sub(from_end) {
        Some(at) => volume.bytes_at(at * SECTOR, 512).map(Some),
        None => Ok(None),
    };
    for (name, from_end, at, magic) in SIGNS {
        if sector(*from_end)?.is_some_and(|bytes| bytes[*at..].starts_with(magic)) {
            return Ok(Some(name));
        }
    }
    for from_end in PROMISE {
        if sector(from_end)?.is_some_and(|bytes| bytes.starts_with(b"Promise Technology, Inc.")) {
            return Ok(Some("Promise RAID"));
        }
    }
    let last = sector(1)?;
    if last.as_deref().is_some_and(is_via) {
        return Ok(Some("VIA RAID"));
    }
    if last.as_deref().is_some_and(is_jmicron) {
        return Ok(Some("JMicron RAID"));
    }
    Ok(md::is_at_the_end(volume)?.then_some(md::NAME))
}

/// Two bytes are no sign without the checksum over the 50 bytes in front of it.
fn is_via(last: &[u8]) -> bool {
    let sum = last[..50].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    last.starts_with(&[0x55, 0xAA]) && last[2] <= 2 && sum == last[50]
}

/// The 16-bit words of the first 128 bytes sum up to 0 or 1.
fn is_jmicron(last: &[u8]) -> bool {
    let words = last[..128].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    last.starts_with(b"JM") && words.fold(0, u16::wrapping_add) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &Vec<u8>) -> Option<&'static str> {
        at_the_end(&Volume::new(bytes, 0, bytes.len() as u64)).unwrap()
    }

    #[test]
    fn every_sign_is_found_at_its_place_and_nothing_on_blank_or_tiny_disks() {
        for len in [0, 100, 512, 4096, 4 << 20] {
            assert_eq!(found(&vec![0; len]), None);
        }
        let promise = PROMISE.iter().map(|from_end| ("Promise RAID", *from_end, 0, &b"Promise Technology, Inc."[..]));
        for (name, from_end, at, magic) in SIGNS.iter().copied().chain(promise) {
            let mut disk = vec![0; (4 << 20) + 100];
            let place = (4 << 20) - usize::try_from(from_end).unwrap() * 512 + at;
            disk[place..place + magic.len()].copy_from_slice(magic);
            assert_eq!(found(&disk), Some(name), "{from_end}");
        }
    }

    #[test]
    fn signs_of_two_bytes_need_their_checksum() {
        let mut disk = vec![0; 1 << 20];
        let last = (1 << 20) - 512;
        disk[last..last + 2].copy_from_slice(&[0x55, 0xAA]);
        assert_eq!(found(&disk), None);
        disk[last + 50] = 0xFF;
        assert_eq!(found(&disk), Some("VIA RAID"));
        disk[last..last + 51].fill(0);
        disk[last..last + 4].copy_from_slice(b"JMxx");
        assert_eq!(found(&disk), None);
        let sum = 0_u16.wrapping_sub(u16::from_le_bytes(*b"JM"));
        disk[last + 2..last + 4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(found(&disk), Some("JMicron RAID"));
    }
}
