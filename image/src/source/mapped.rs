//! Disks that a table maps piece by piece to places of files. A format says where each piece is ([`Layout`]); reading, holes,
//! parents and unpacking are the same for all.

use super::bytes::fill;
use super::{DiskSource, ImportFault, RawDisk, ReadAt};
use core::fmt::Debug;
use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The most that [`DiskSource::next_data`] joins of neighbouring pieces, in bytes.
const MOST_JOINED: u64 = 256 << 20;

/// What a piece of the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Zeros.
    Zeros,
    /// These four bytes, again and again.
    Fill([u8; 4]),
    /// Bytes of the file with that number, from `offset` on.
    Data {
        /// Which file.
        file: usize,
        /// Where in it the piece begins.
        offset: u64,
    },
    /// In a unit that has to be unpacked.
    Packed(Packed),
    /// What the parent has at the same place, or zeros where there is none.
    Parent,
}

/// A unit that has to be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    /// Where on the disk the unit begins.
    pub(super) start: u64,
    /// Its length unpacked, which the format bounds.
    pub(super) len: usize,
    /// Which file it is in.
    pub(super) file: usize,
    /// Where in that file.
    pub(super) offset: u64,
    /// How many bytes of the file it takes at most; 0 where that stands in front of them.
    pub(super) stored: usize,
}

/// Where the pieces of a disk are.
pub(super) trait Layout: Debug + Send + Sync {
    /// What the disk has at `at`, which lies inside it, and the place up to which that goes on.
    fn piece(&self, files: &[RawDisk], at: u64) -> Result<(Piece, u64), ImportFault>;

    /// Unpacks a unit into `out`, which has its length.
    fn unpack(&self, _files: &[RawDisk], unit: Packed, _out: &mut [u8]) -> Result<(), ImportFault> {
        Err(ImportFault::Unpack { what: "data", offset: unit.offset })
    }
}

/// The unit that was unpacked last.
#[derive(Debug, Default)]
struct Unpacked {
    unit: Option<Packed>,
    bytes: Vec<u8>,
}

/// A disk of such pieces.
#[derive(Debug)]
pub(super) struct MappedDisk<L> {
    pub(super) format: &'static str,
    pub(super) bytes: u64,
    pub(super) sector: Option<u32>,
    /// What the pieces are in; the first one is the file that was opened.
    pub(super) files: Vec<RawDisk>,
    pub(super) parent: Option<Box<dyn DiskSource>>,
    pub(super) unused: Vec<Range<u64>>,
    pub(super) notes: Vec<String>,
    pub(super) layout: L,
    unpacked: Mutex<Unpacked>,
}

impl<L: Layout> MappedDisk<L> {
    /// A disk of `bytes` bytes in `files`, without a parent.
    pub(super) fn new(format: &'static str, bytes: u64, files: Vec<RawDisk>, layout: L) -> Self {
        let (sector, parent, unused, notes) = (None, None, Vec::new(), Vec::new());
        Self { format, bytes, sector, files, parent, unused, notes, layout, unpacked: Mutex::default() }
    }

    /// The piece at `at`, which never ends behind the disk.
    fn piece(&self, at: u64) -> Result<(Piece, u64), ImportFault> {
        let (piece, end) = self.layout.piece(&self.files, at)?;
        Ok((piece, end.clamp(at + 1, self.bytes)))
    }

    /// What may be other than zeros of the piece at `at`, and the place where it ends.
    fn data(&self, at: u64) -> io::Result<(Option<Range<u64>>, u64)> {
        let (piece, end) = self.piece(at)?;
        Ok(match piece {
            Piece::Zeros | Piece::Fill([0, 0, 0, 0]) => (None, end),
            Piece::Fill(_) | Piece::Data { .. } | Piece::Packed(_) => (Some(at..end), end),
            Piece::Parent => {
                let parents = self.parent.as_ref().map_or(Ok(None), |parent| parent.next_data(at))?;
                match parents {
                    None => (None, end),
                    Some(data) => ((data.start < end).then(|| data.start..data.end.min(end)), end),
                }
            }
        })
    }

    fn read_parent(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let has = self.parent.as_ref().map_or(0, |parent| parent.bytes().saturating_sub(at));
        let (inside, behind) = buffer.split_at_mut(usize::try_from(has).unwrap_or(usize::MAX).min(buffer.len()));
        behind.fill(0);
        match &self.parent {
            Some(parent) if !inside.is_empty() => parent.read_at(at, inside),
            _ => Ok(()),
        }
    }

    fn read_packed(&self, unit: Packed, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if unpacked.unit != Some(unit) {
            unpacked.unit = None;
            unpacked.bytes.resize(unit.len, 0);
            self.layout.unpack(&self.files, unit, &mut unpacked.bytes)?;
            unpacked.unit = Some(unit);
        }
        let from = usize::try_from(at - unit.start).unwrap_or(usize::MAX);
        let bytes = from.checked_add(buffer.len()).and_then(|end| unpacked.bytes.get(from..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::InvalidData)?);
        Ok(())
    }
}

impl<L: Layout> ReadAt for MappedDisk<L> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (piece, end) = self.piece(at)?;
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            match piece {
                Piece::Zeros => now.fill(0),
                Piece::Fill(pattern) => {
                    // A fill begins at a multiple of its four bytes.
                    let places = at..;
                    places.zip(now).for_each(|(place, byte)| *byte = pattern[usize::try_from(place % 4).unwrap_or(0)]);
                }
                Piece::Data { file, offset } => fill(&self.files[file], "data", offset, now)?,
                Piece::Packed(unit) => self.read_packed(unit, at, now)?,
                Piece::Parent => self.read_parent(at, now)?,
            }
            (at, rest) = (at + len as u64, later);
        }
        Ok(())
    }
}

impl<L: Layout> DiskSource for MappedDisk<L> {
    fn path(&self) -> &Path {
        self.files[0].path()
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn sector(&self) -> Option<u32> {
        self.sector
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let mut at = from;
        while at < self.bytes {
            let (data, end) = self.data(at)?;
            at = end;
            let Some(mut data) = data else { continue };
            // A parent may have more data in the same piece than is told at once.
            while data.end == at && at < self.bytes && at - data.start < MOST_JOINED {
                match self.data(at)? {
                    (Some(next), end) if next.start == at => {
                        data.end = next.end;
                        at = end;
                    }
                    _ => break,
                }
            }
            return Ok(Some(data));
        }
        Ok(None)
    }

    fn unused(&self) -> &[Range<u64>] {
        &self.unused
    }

    fn below(&self) -> Option<&dyn DiskSource> {
        self.parent.as_deref()
    }

    fn next_of_below(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let Some(parent) = &self.parent else { return Ok(None) };
        // Behind the end of the parent are zeros.
        let last = self.bytes.min(parent.bytes());
        let (mut at, mut found) = (from, None::<Range<u64>>);
        while at < last && found.as_ref().is_none_or(|found| at - found.start < MOST_JOINED) {
            let (piece, end) = self.piece(at)?;
            match (piece, &mut found) {
                (Piece::Parent, Some(found)) => found.end = end.min(last),
                (Piece::Parent, None) => found = Some(at..end.min(last)),
                (_, Some(_)) => break,
                (_, None) => {}
            }
            at = end;
        }
        Ok(found)
    }

    fn files(&self) -> Vec<PathBuf> {
        let own = self.files.iter().map(|file| file.path().to_owned());
        own.chain(self.parent.iter().flat_map(|parent| parent.files())).collect()
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        for file in &self.files {
            if let Some(change) = file.change()? {
                return Ok(Some(change));
            }
        }
        self.parent.as_ref().map_or(Ok(None), |parent| parent.change())
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
