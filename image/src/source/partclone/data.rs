//! The used blocks, read from the first to the last, with their checksums.

use super::super::ImportFault;
use super::super::parted::Forward;
use super::header::Header;
use super::map::Map;
use super::sums::{Kind, Sum, crc_of_first_byte};
use core::ops::Range;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

/// How much is read at once of what nobody asked for.
const STEP: usize = 64 << 10;
const WHAT: &str = "data";

/// Fills `bytes`, which are the `what` of the image at `offset`.
pub(super) fn fill(input: &mut dyn Read, bytes: &mut [u8], what: &'static str, offset: u64) -> Result<(), ImportFault> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ImportFault::Cut { what, offset },
        _ => ImportFault::Stream { error },
    })
}

/// The blocks of an image, being read.
pub(super) struct Data {
    input: Box<dyn Read + Send>,
    /// Where in the unpacked image the next byte lies.
    offset: u64,
    /// Used bytes that were read, of `total`.
    at: u64,
    total: u64,
    /// How many of these one checksum is over.
    unit: u64,
    kind: Kind,
    reseed: bool,
    sum: Sum,
    /// The used bytes of the volume, the run that the next one is in, and its place there.
    runs: Arc<Vec<Range<u64>>>,
    run: usize,
    in_run: u64,
}

impl Data {
    /// The data of an image of which `input` has passed the map.
    pub(super) fn new(mut input: Box<dyn Read + Send>, header: &Header, map: &Map) -> Result<Self, ImportFault> {
        let block = u64::from(header.block);
        let offset = header.len() + map.stored_bytes();
        let (mut kind, total) = (header.sums, map.bytes(header));
        if kind == Kind::Unchecked && total > 0 {
            (kind, input) = of_version_1(input, header.block as usize, offset)?;
        }
        let unit = if kind == Kind::None { u64::MAX } else { block * u64::from(header.blocks_per_sum) };
        let (sum, runs, reseed) = (Sum::new(kind), map.shared_runs(), header.reseed);
        let mut data = Self { input, offset, at: 0, total, unit, kind, reseed, sum, runs, run: 0, in_run: 0 };
        if total == 0 {
            data.end()?;
        }
        Ok(data)
    }

    /// The next used bytes, all of the same run.
    fn take(&mut self, mut bytes: &mut [u8]) -> Result<(), ImportFault> {
        self.in_run += bytes.len() as u64;
        while !bytes.is_empty() {
            let unit_end = (self.at / self.unit).saturating_add(1).saturating_mul(self.unit).min(self.total);
            let len = usize::try_from(unit_end - self.at).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at_mut(len);
            fill(&mut *self.input, now, WHAT, self.offset)?;
            self.sum.update(now);
            self.at += len as u64;
            self.offset += len as u64;
            if self.at == unit_end {
                self.check()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Compares what was read with the checksum that follows it, and looks for the end behind the last one.
    fn check(&mut self) -> Result<(), ImportFault> {
        let mut stored = [0; 16];
        let stored = &mut stored[..self.kind.len()];
        fill(&mut *self.input, stored, WHAT, self.offset)?;
        if !self.sum.is(stored) {
            return Err(ImportFault::Differs { what: "its data", offset: self.offset });
        }
        self.offset += stored.len() as u64;
        if self.reseed {
            self.sum = Sum::new(self.kind);
        }
        if self.at == self.total { self.end() } else { Ok(()) }
    }

    /// Whatever unpacks has checksums of its own at the end, so the end has to be reached.
    fn end(&mut self) -> Result<(), ImportFault> {
        match io::copy(&mut (&mut self.input).take(1), &mut io::sink()) {
            Ok(0) => Ok(()),
            Ok(_) => Err(ImportFault::Damaged { what: "end", offset: self.offset }),
            Err(error) => Err(ImportFault::Stream { error }),
        }
    }

    /// Reads and drops `len` bytes of the run.
    fn skip(&mut self, mut len: u64) -> Result<(), ImportFault> {
        let mut dropped = vec![0; usize::try_from(len).unwrap_or(STEP).min(STEP)];
        while len > 0 {
            let now = usize::try_from(len).unwrap_or(STEP).min(STEP);
            self.take(&mut dropped[..now])?;
            len -= now as u64;
        }
        Ok(())
    }
}

impl Forward for Data {
    fn at(&self) -> u64 {
        self.runs.get(self.run).map_or(u64::MAX, |run| run.start + self.in_run)
    }

    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<(), ImportFault> {
        while let Some(run) = self.runs.get(self.run).cloned().filter(|run| run.end <= at) {
            self.skip(run.end - run.start - self.in_run)?;
            (self.run, self.in_run) = (self.run + 1, 0);
        }
        let now = self.at();
        self.skip(at.saturating_sub(now))?;
        self.take(bytes)
    }
}

/// How long the checksums of an image of version 1 are: 4 bytes, or 8 where a system of 64 bits wrote a number of its own
/// length. Each goes on from the last one, over the first byte of its block again and again, so those of the first two blocks tell.
fn of_version_1(
    mut input: Box<dyn Read + Send>,
    block: usize,
    offset: u64,
) -> Result<(Kind, Box<dyn Read + Send>), ImportFault> {
    let mut front = Vec::new();
    let most = 2 * (block + 8) as u64;
    (&mut input).take(most).read_to_end(&mut front).map_err(|error| ImportFault::Stream { error })?;
    let sum_at = |at: usize| crate::le::u32_at(&front, at);
    let first = front.first().map(|byte| crc_of_first_byte(u32::MAX, *byte, block));
    let Some(first) = first.filter(|first| sum_at(block) == Some(*first)) else {
        let cut = front.len() < block + 4;
        let offset = offset + block as u64;
        return Err(if cut { ImportFault::Cut { what: WHAT, offset } } else { differs(offset) });
    };
    let fits = |len: usize| match front.get(block + len) {
        Some(byte) => {
            let follows = |seed| sum_at(2 * block + len) == Some(crc_of_first_byte(seed, *byte, block));
            follows(first) || follows(u32::MAX)
        }
        None => front.len() == block + len,
    };
    let kind = match (fits(4), fits(8)) {
        (true, _) => Kind::Unchecked,
        (false, true) => Kind::UncheckedLong,
        _ => return Err(differs(offset + 2 * block as u64)),
    };
    Ok((kind, Box::new(Cursor::new(front).chain(input))))
}

fn differs(offset: u64) -> ImportFault {
    ImportFault::Differs { what: "its data", offset }
}
