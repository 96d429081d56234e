//! From a place on the disk to a cluster of the file, or to a part of one.

use super::super::bytes::{read_table, read_to_end};
use super::super::cache::Tables;
use super::super::mapped::{Packed, Piece};
use super::super::{DiskSource, ImportFault, RawDisk};
use super::header::{Header, View};
use flate2::{Decompress, FlushDecompress};
use std::io::Read;

/// Where a table or a cluster is; the bits around it are flags or reserved.
const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
const COPIED: u64 = 1 << 63;
const PACKED: u64 = 1 << 62;
const ZEROS: u64 = 1;
/// How many parts an extended entry has bits for.
const PARTS: u64 = 32;
/// The memory for second tables, in bytes.
const CACHE: usize = 8 << 20;
/// A packed cluster's zstd frame has no larger window, as a power of two: four times the largest cluster.
const WINDOW_LOG: u32 = 23;

/// The tables of one view of the disk.
#[derive(Debug)]
pub(super) struct Clusters {
    cluster_bits: u32,
    version: u32,
    zstd: bool,
    extended: bool,
    l1: Vec<u64>,
    l1_covers: u64,
    l2: Tables<u64>,
}

/// What a run of clusters or of parts is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Parent,
    Zeros,
    Data(u64),
    Packed(u64),
}

impl Clusters {
    pub(super) fn open(file: &RawDisk, header: &Header, view: &View) -> Result<Self, ImportFault> {
        let covers = header.l1_covers();
        let entries = usize::try_from(view.bytes.div_ceil(covers)).unwrap_or(usize::MAX);
        // What the tables map lies behind them or in front; the file must have all of them.
        let l1 = read_table(file, "first table", view.l1_offset, entries, u64::from_be_bytes)?;
        for (number, entry) in (0_u64..).zip(&l1) {
            let offset = entry & OFFSET;
            if entry & !(OFFSET | COPIED) != 0 || !offset.is_multiple_of(1 << header.cluster_bits) {
                return Err(ImportFault::Damaged { what: "first table", offset: view.l1_offset + 8 * number });
            }
            if offset != 0 && offset >= file.bytes() {
                return Err(ImportFault::Cut { what: "second table", offset });
            }
        }
        Ok(Self {
            cluster_bits: header.cluster_bits,
            version: header.version,
            zstd: header.zstd,
            extended: header.extended,
            l1,
            l1_covers: covers,
            l2: Tables::new(CACHE, 1 << (header.cluster_bits - 3)),
        })
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The piece at `at` and its end.
    pub(super) fn at(&self, file: &RawDisk, at: u64) -> Result<(Piece, u64), ImportFault> {
        let number = usize::try_from(at / self.l1_covers).unwrap_or(usize::MAX);
        let first = at / self.l1_covers * self.l1_covers;
        let offset = self.l1.get(number).map_or(0, |entry| entry & OFFSET);
        if offset == 0 {
            return Ok((Piece::Parent, first + self.l1_covers));
        }
        let words = 1_usize << (self.cluster_bits - 3);
        let table = self.l2.get(offset, || read_table(file, "second table", offset, words, u64::from_be_bytes))?;
        if self.extended { self.part(offset, &table, first, at) } else { self.run(offset, &table, first, at) }
    }

    /// A run of clusters in a table of plain entries.
    fn run(&self, offset: u64, table: &[u64], first: u64, at: u64) -> Result<(Piece, u64), ImportFault> {
        let index = usize::try_from((at - first) >> self.cluster_bits).unwrap_or(usize::MAX);
        let entry_at = |index: usize| self.entry(table[index], offset + 8 * index as u64);
        let run = entry_at(index)?;
        let start = first + ((index as u64) << self.cluster_bits);
        let mut end = index + 1;
        let goes_on = |end: usize| -> Result<bool, ImportFault> {
            let next = entry_at(end)?;
            let steps = ((end - index) as u64) << self.cluster_bits;
            Ok(match run {
                Run::Data(begin) => next == Run::Data(begin + steps),
                Run::Packed(_) => false,
                Run::Parent | Run::Zeros => next == run,
            })
        };
        while end < table.len() && goes_on(end)? {
            end += 1;
        }
        Ok((self.piece(run, start, at), first + ((end as u64) << self.cluster_bits)))
    }

    /// A run of parts of one cluster.
    fn part(&self, offset: u64, table: &[u64], first: u64, at: u64) -> Result<(Piece, u64), ImportFault> {
        let index = usize::try_from((at - first) >> self.cluster_bits).unwrap_or(usize::MAX);
        let place = offset + 16 * index as u64;
        let damaged = ImportFault::Damaged { what: "second table", offset: place };
        let start = first + ((index as u64) << self.cluster_bits);
        let (entry, bits) = (table[2 * index], table[2 * index + 1]);
        let (allocated, zeros) = (bits & 0xFFFF_FFFF, bits >> PARTS);
        let cluster = match self.entry(entry, place)? {
            run @ Run::Packed(_) if bits == 0 => return Ok((self.piece(run, start, at), start + self.cluster())),
            Run::Data(cluster) if allocated & zeros == 0 => Some(cluster),
            Run::Parent if allocated == 0 => None,
            _ => return Err(damaged),
        };
        let part_bytes = self.cluster() / PARTS;
        let kind = |part: u64| match (zeros >> part & 1, allocated >> part & 1) {
            (1, _) => Run::Zeros,
            // The whole cluster's place: parts of it are one run.
            (_, 1) => cluster.map_or(Run::Parent, Run::Data),
            _ => Run::Parent,
        };
        let part = (at - start) / part_bytes;
        let run = kind(part);
        let end = (part + 1..PARTS).find(|next| kind(*next) != run).unwrap_or(PARTS);
        Ok((self.piece(run, start, at), start + end * part_bytes))
    }

    /// What a run is at `at`, where it (or its cluster) begins at `start`.
    fn piece(&self, run: Run, start: u64, at: u64) -> Piece {
        match run {
            Run::Parent => Piece::Parent,
            Run::Zeros => Piece::Zeros,
            Run::Data(offset) => Piece::Data { file: 0, offset: offset + (at - start) },
            Run::Packed(entry) => {
                let bits = 62 - (self.cluster_bits - 8);
                let offset = entry & ((1 << bits) - 1);
                let sectors = (entry & !(COPIED | PACKED)) >> bits;
                let stored = (sectors + 1) * 512 - offset % 512;
                let stored = usize::try_from(stored).unwrap_or(usize::MAX);
                Piece::Packed(Packed { start, len: 1 << self.cluster_bits, file: 0, offset, stored })
            }
        }
    }

    /// What an entry at `place` of the file says.
    fn entry(&self, entry: u64, place: u64) -> Result<Run, ImportFault> {
        let damaged = Err(ImportFault::Damaged { what: "second table", offset: place });
        if entry & PACKED != 0 {
            return if entry & COPIED == 0 { Ok(Run::Packed(entry)) } else { damaged };
        }
        let offset = entry & OFFSET;
        let zeros = entry & ZEROS != 0;
        let zeros_known = self.version > 2 && !self.extended;
        if entry & !(OFFSET | COPIED | ZEROS) != 0
            || !offset.is_multiple_of(self.cluster())
            || zeros && !zeros_known
            || offset == 0 && entry & COPIED != 0
        {
            return damaged;
        }
        Ok(match (zeros, offset) {
            (true, _) => Run::Zeros,
            (false, 0) => Run::Parent,
            (false, offset) => Run::Data(offset),
        })
    }

    /// Unpacks a cluster.
    pub(super) fn unpack_cluster(&self, file: &RawDisk, unit: Packed, out: &mut [u8]) -> Result<(), ImportFault> {
        let (what, offset) = ("cluster", unit.offset);
        if offset >= file.bytes() {
            return Err(ImportFault::Cut { what, offset });
        }
        // The length counts whole sectors; the file may end before the last one does.
        let stored = read_to_end(file, what, offset, unit.stored)?;
        let failed = || ImportFault::Unpack { what, offset };
        if self.zstd {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(&stored[..]).map_err(|_| failed())?.single_frame();
            decoder.window_log_max(WINDOW_LOG).map_err(|_| failed())?;
            return decoder.read_exact(out).map_err(|_| failed());
        }
        let mut inflater = Decompress::new(false);
        inflater.decompress(&stored, out, FlushDecompress::Finish).map_err(|_| failed())?;
        if inflater.total_out() == out.len() as u64 { Ok(()) } else { Err(failed()) }
    }
}
