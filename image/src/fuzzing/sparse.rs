//! A disk in a few kilobytes: its size, and what is on it that is not zero.

use crate::source::ReadAt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Places and lengths are counted in this many bytes.
const UNIT: usize = 16;
/// The largest disk, in sectors of 512 bytes: 64 MiB, so that no input takes long.
const MAX_SECTORS: u32 = 1 << 17;
/// In place of a length: one byte, repeated for a 16-bit number of units.
const REPEATED: u8 = 0xFF;

/// A disk that a fuzz input describes: its size in sectors, then pieces. A piece is its place in units of 16 bytes (32 bits),
/// its length in units less one (8 bits) and its bytes; or 255, a byte to be repeated and the number of units (16 bits).
/// A later piece covers an earlier one. All numbers are little-endian.
#[derive(Debug)]
pub struct SparseDisk<'a> {
    bytes: u64,
    pieces: Vec<(u64, Piece<'a>)>,
}

#[derive(Debug)]
enum Piece<'a> {
    Given(&'a [u8]),
    Made(Vec<u8>),
    Repeated(u8, u64),
}

impl Piece<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Given(bytes) => bytes.len() as u64,
            Self::Made(bytes) => bytes.len() as u64,
            Self::Repeated(_, count) => *count,
        }
    }
}

impl<'a> SparseDisk<'a> {
    /// Reads a description; whatever the bytes are, they describe some disk.
    #[must_use]
    pub fn parse(input: &'a [u8]) -> Self {
        let (sectors, mut rest) =
            input.split_first_chunk().map_or((0, input), |(n, rest)| (u32::from_le_bytes(*n), rest));
        let mut pieces = Vec::new();
        while let Some((place, after)) = rest.split_first_chunk() {
            let Some((len, after)) = after.split_first() else { break };
            let place = u64::from(u32::from_le_bytes(*place)) * UNIT as u64;
            if *len == REPEATED {
                let Some(([byte, low, high], after)) = after.split_first_chunk() else { break };
                let units = u64::from(u16::from_le_bytes([*low, *high]));
                pieces.push((place, Piece::Repeated(*byte, units * UNIT as u64)));
                rest = after;
            } else {
                let (bytes, after) = after.split_at(((usize::from(*len) + 1) * UNIT).min(after.len()));
                pieces.push((place, Piece::Given(bytes)));
                rest = after;
            }
        }
        Self { bytes: u64::from(sectors % (MAX_SECTORS + 1)) * 512, pieces }
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes `file` a file with this content.
    pub(super) fn write_to(&self, file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.set_len(self.bytes)?;
        for (place, piece) in &self.pieces {
            let held = usize::try_from(piece.bytes().min(self.bytes.saturating_sub(*place))).unwrap_or(0);
            match piece {
                Piece::Given(bytes) => file.write_all_at(&bytes[..held], *place)?,
                Piece::Made(bytes) => file.write_all_at(&bytes[..held], *place)?,
                Piece::Repeated(byte, _) => file.write_all_at(&vec![*byte; held], *place)?,
            }
        }
        Ok(())
    }

    /// Writes `bytes` at `at`.
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.pieces.push((at, Piece::Made(bytes.to_vec())));
    }
}

impl ReadAt for SparseDisk<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.bytes);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        for (place, piece) in &self.pieces {
            let (from, to) = (offset.max(*place), end.min(place + piece.bytes()));
            if from >= to {
                continue;
            }
            let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let out = &mut buffer[index(from - offset)..index(to - offset)];
            let held = index(from - place)..index(to - place);
            match piece {
                Piece::Given(bytes) => out.copy_from_slice(&bytes[held]),
                Piece::Made(bytes) => out.copy_from_slice(&bytes[held]),
                Piece::Repeated(byte, _) => out.fill(*byte),
            }
        }
        Ok(())
    }
}

/// The description of a disk with these bytes, as a seed for the targets.
#[must_use]
pub fn encode(disk: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(disk.len() / 512).unwrap_or(0).to_le_bytes().to_vec();
    let units: Vec<_> = disk.chunks_exact(UNIT).collect();
    let mut at = 0;
    while let Some(unit) = units.get(at) {
        if unit.iter().all(|byte| *byte == 0) {
            at += 1;
            continue;
        }
        out.extend(u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes());
        let rest = &units[at..];
        let same = rest.iter().take_while(|other| other.iter().all(|byte| *byte == unit[0])).count();
        if same > 2 {
            let count = same.min(usize::from(u16::MAX));
            out.extend([REPEATED, unit[0]]);
            out.extend(u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
            at += count;
            continue;
        }
        let ends = |pair: &[&[u8]]| pair.iter().all(|unit| unit.iter().all(|byte| *byte == unit[0]));
        let len = (1..rest.len().min(255)).find(|len| ends(&rest[*len..rest.len().min(len + 3)])).unwrap_or(1);
        out.push(u8::try_from(len - 1).unwrap_or(0));
        rest[..len].iter().for_each(|unit| out.extend_from_slice(unit));
        at += len;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_comes_back_from_its_description() {
        let mut disk = vec![0_u8; 64 << 10];
        disk[..16].copy_from_slice(b"0123456789abcdef");
        disk[4096..12288].fill(0xFF);
        (20_000..30_000).for_each(|at| disk[at] = u8::try_from(at % 251).unwrap());
        disk[65_535] = 1;
        let description = encode(&disk);
        assert!(description.len() < 12_000);
        let mut found = vec![9; disk.len()];
        SparseDisk::parse(&description).read_at(0, &mut found).unwrap();
        assert!(found == disk);
        let file = tempfile::NamedTempFile::new().unwrap();
        SparseDisk::parse(&description).write_to(file.as_file()).unwrap();
        assert!(std::fs::read(file.path()).unwrap() == disk);
    }
}
