//! Which blocks of the file system an image holds, as runs.

use super::super::ImportFault;
use super::data::fill;
use super::header::{Header, MapKind};
use core::ops::Range;
use std::io::Read;
use std::sync::Arc;

/// How much of the map is read at once.
const STEP: usize = 64 << 10;
/// The most runs that are kept: 32 MiB. A file system of 1 TiB that has so many has one for each 512 KiB.
const MAX_RUNS: usize = 2 << 20;
/// Behind a map of bytes.
const MAGIC: &[u8; 8] = b"BiTmAgIc";
const WHAT: &str = "map of used blocks";

/// The used blocks.
#[derive(Debug)]
pub(super) struct Map {
    /// In bytes of the volume: sorted and apart.
    runs: Arc<Vec<Range<u64>>>,
    /// Used blocks.
    used: u64,
    /// The bytes that it takes in the image, with what follows it.
    stored: u64,
}

impl Map {
    /// Reads the map that follows the header.
    pub(super) fn read(header: &Header, input: &mut dyn Read) -> Result<Self, ImportFault> {
        let mut map = Self { runs: Arc::default(), used: 0, stored: 0 };
        match header.map {
            MapKind::None => map.push(header, 0..header.blocks)?,
            MapKind::Bits => map.read_bits(header, input)?,
            MapKind::Bytes => map.read_bytes(header, input)?,
        }
        if header.used.is_some_and(|used| used != map.used) {
            return Err(ImportFault::Damaged { what: WHAT, offset: header.len() });
        }
        Ok(map)
    }

    fn read_bits(&mut self, header: &Header, input: &mut dyn Read) -> Result<(), ImportFault> {
        let len = header.blocks.div_ceil(8);
        let mut crc = crc32fast::Hasher::new();
        self.read_pieces(header, len, input, |map, at, piece| {
            crc.update(piece);
            let mut first = at * 8;
            // Bits behind the last block may be anything.
            for byte in piece {
                let end = header.blocks.min(first + 8);
                match *byte {
                    0 => {}
                    0xFF => map.push(header, first..end)?,
                    byte => {
                        for block in (first..end).filter(|block| byte >> (block - first) & 1 == 1) {
                            map.push(header, block..block + 1)?;
                        }
                    }
                }
                first += 8;
            }
            Ok(())
        })?;
        let mut stored = [0; 4];
        fill(input, &mut stored, WHAT, header.len() + len)?;
        self.stored = len + 4;
        if (!crc.finalize()).to_le_bytes() == stored {
            Ok(())
        } else {
            Err(ImportFault::Differs { what: "its map of used blocks", offset: header.len() })
        }
    }

    fn read_bytes(&mut self, header: &Header, input: &mut dyn Read) -> Result<(), ImportFault> {
        let damaged = ImportFault::Damaged { what: WHAT, offset: header.len() };
        let mut wrong = false;
        self.read_pieces(header, header.blocks, input, |map, at, piece| {
            for (block, byte) in (at..).zip(piece) {
                match byte {
                    0 => {}
                    1 => map.push(header, block..block + 1)?,
                    _ => wrong = true,
                }
            }
            Ok(())
        })?;
        let mut magic = [0; 8];
        fill(input, &mut magic, WHAT, header.len() + header.blocks)?;
        self.stored = header.blocks + 8;
        if wrong || magic != *MAGIC { Err(damaged) } else { Ok(()) }
    }

    fn read_pieces(
        &mut self,
        header: &Header,
        len: u64,
        input: &mut dyn Read,
        mut take: impl FnMut(&mut Self, u64, &[u8]) -> Result<(), ImportFault>,
    ) -> Result<(), ImportFault> {
        let mut buffer = vec![0; STEP];
        let mut at = 0;
        while at < len {
            let piece = usize::try_from(len - at).unwrap_or(STEP).min(STEP);
            fill(input, &mut buffer[..piece], WHAT, header.len() + at)?;
            take(self, at, &buffer[..piece])?;
            at += piece as u64;
        }
        Ok(())
    }

    /// Adds used blocks behind all others.
    fn push(&mut self, header: &Header, blocks: Range<u64>) -> Result<(), ImportFault> {
        let block = u64::from(header.block);
        self.used += blocks.end - blocks.start;
        let (start, end) = (blocks.start * block, blocks.end * block);
        // Nobody else has them while they are read.
        let runs = Arc::make_mut(&mut self.runs);
        let count = runs.len();
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ if count >= MAX_RUNS => return Err(ImportFault::TooLarge { what: WHAT }),
            _ => runs.push(start..end),
        }
        Ok(())
    }

    /// The used bytes of the volume.
    pub(super) fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// The same, to be kept.
    pub(super) fn shared_runs(&self) -> Arc<Vec<Range<u64>>> {
        Arc::clone(&self.runs)
    }

    /// Bytes of used blocks.
    pub(super) fn bytes(&self, header: &Header) -> u64 {
        self.used * u64::from(header.block)
    }

    /// The bytes that it takes in the image.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored
    }
}
