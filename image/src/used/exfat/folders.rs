//! The folders of exFAT, from the root on: what each file has is compared with the map of clusters.

use super::Layout;
use crate::le::{u16_at, u32_at, u64_at};
use crate::used::bitmap;
use crate::used::volume::{Kept, Volume};
use core::ops::Range;

/// Types of entries of a folder.
const MAP: u8 = 0x81;
const UPPER_CASE: u8 = 0x82;
const LABEL: u8 = 0x83;
const FILE: u8 = 0x85;
const VOLUME_GUID: u8 = 0xA0;
const PADDING: u8 = 0xA1;
const STREAM: u8 = 0xC0;
/// Bits of a type: in use, and belonging to the entry before.
const IN_USE: u8 = 0x80;
const SECONDARY: u8 = 0x40;
/// Flags of what an entry has: clusters may be there, in one piece.
const HAS_CLUSTERS: u8 = 1;
const IN_ONE_PIECE: u8 = 2;
const FOLDER: u16 = 0x10;

const ENTRY: usize = 32;
/// How much of a folder or of the allocation table is read at once.
const PIECE: u64 = 16 << 10;
/// No folder is larger, by the specification.
const MAX_FOLDER: u64 = 256 << 20;
/// No more folders, files of a folder or pieces of a file are remembered at once.
const MAX_WAITING: usize = 1 << 19;
const CORRUPT: Kept = Kept::Corrupt("folders");

/// Content: its first cluster, its bytes as far as they are known, and whether it is in one piece.
#[derive(Clone, Copy)]
struct Content {
    first: u32,
    bytes: Option<u64>,
    in_one_piece: bool,
}

/// The walk through all folders.
pub(super) struct Folders<'a> {
    volume: &'a Volume<'a>,
    layout: &'a Layout,
    /// The clusters that are in use, and those that a file was found to have. Bit 0 is cluster 2.
    map: Vec<u8>,
    seen: Vec<u8>,
    /// A piece of the allocation table, and its first entry.
    table: Vec<u8>,
    table_first: Option<u64>,
    waiting: Vec<Content>,
}

impl<'a> Folders<'a> {
    /// The map of clusters is read, the folders are not.
    pub(super) fn new(volume: &'a Volume<'a>, layout: &'a Layout) -> Result<Self, Kept> {
        let len = usize::try_from(layout.map_bytes()).map_err(|_| Kept::TooLarge)?;
        let mut folders = Self {
            volume,
            layout,
            map: vec![0; len],
            seen: vec![0; len],
            table: Vec::new(),
            table_first: None,
            waiting: Vec::new(),
        };
        let root = Content { first: layout.root, bytes: None, in_one_piece: false };
        let runs = folders.runs(root)?;
        let mut maps = Vec::new();
        folders.each_entry(&runs, root.bytes, |entry| {
            if entry[0] == MAP {
                maps.push((entry[1], u32_at(entry, 20), u64_at(entry, 24)));
            }
            Ok(())
        })?;
        // A second map belongs to a second allocation table.
        let [(0, Some(first), Some(bytes))] = maps.as_slice() else { return Err(Kept::Corrupt("map of clusters")) };
        if *bytes != layout.map_bytes() {
            return Err(Kept::Corrupt("map of clusters"));
        }
        let runs = folders.runs(Content { first: *first, bytes: Some(*bytes), in_one_piece: false })?;
        let mut at = 0;
        for run in runs {
            let held = ((run.end - run.start) * layout.cluster).min(*bytes - at);
            let (from, to) = (usize::try_from(at).unwrap_or(0), usize::try_from(at + held).unwrap_or(0));
            volume.read(layout.heap + run.start * layout.cluster, &mut folders.map[from..to])?;
            at += held;
        }
        folders.waiting.push(root);
        Ok(folders)
    }

    /// Reads all folders, and gives the map if everything that was found in them is in use and once only.
    pub(super) fn checked_map(mut self) -> Result<Vec<u8>, Kept> {
        // Clusters of what is read here are in use by no other file, so no folder is read twice.
        while let Some(folder) = self.waiting.pop() {
            let runs = self.runs(folder)?;
            self.take(&runs)?;
            let mut set = EntrySet::default();
            let mut found = Vec::new();
            self.each_entry(&runs, folder.bytes, |entry| {
                set.take(entry, &mut found)?;
                if found.len() > MAX_WAITING { Err(Kept::TooLarge) } else { Ok(()) }
            })?;
            set.end()?;
            for (content, is_folder) in found {
                if is_folder {
                    self.waiting.push(content);
                } else {
                    let runs = self.runs(content)?;
                    self.take(&runs)?;
                }
            }
            if self.waiting.len() > MAX_WAITING {
                return Err(Kept::TooLarge);
            }
        }
        Ok(self.map)
    }

    /// Marks clusters as found.
    fn take(&mut self, runs: &[Range<u64>]) -> Result<(), Kept> {
        for run in runs {
            if !bitmap::all_set(&self.map, run.clone()) {
                return Err(Kept::Disagree("files", "map of clusters"));
            }
            for cluster in run.clone() {
                if bitmap::all_set(&self.seen, cluster..cluster + 1) {
                    return Err(CORRUPT);
                }
                bitmap::set(&mut self.seen, cluster..cluster + 1);
            }
        }
        Ok(())
    }

    /// The clusters of a content, counted from the first one of the heap, in its order.
    fn runs(&mut self, content: Content) -> Result<Vec<Range<u64>>, Kept> {
        let count = u64::from(self.layout.clusters);
        let inside = |cluster: u64| cluster.checked_sub(2).filter(|cluster| *cluster < count).ok_or(CORRUPT);
        let needed = content.bytes.map(|bytes| bytes.div_ceil(self.layout.cluster));
        if needed == Some(0) && content.first == 0 {
            return Ok(Vec::new());
        }
        let first = inside(content.first.into())?;
        if let (true, Some(needed)) = (content.in_one_piece, needed) {
            let end = first.checked_add(needed).filter(|end| *end <= count && needed > 0).ok_or(CORRUPT)?;
            return Ok(core::iter::once(first..end).collect());
        }
        let mut runs: Vec<Range<u64>> = core::iter::once(first..first + 1).collect();
        let (mut at, mut len) = (first, 1);
        loop {
            let next = self.next(at)?;
            if next == u32::MAX {
                break;
            }
            at = inside(next.into())?;
            len += 1;
            if len > count {
                return Err(CORRUPT);
            }
            match runs.last_mut() {
                Some(last) if last.end == at => last.end += 1,
                _ => runs.push(at..at + 1),
            }
            if runs.len() > MAX_WAITING {
                return Err(Kept::TooLarge);
            }
        }
        if needed.is_some_and(|needed| len < needed) { Err(CORRUPT) } else { Ok(runs) }
    }

    /// The entry of the allocation table for a cluster of the heap.
    fn next(&mut self, cluster: u64) -> Result<u32, Kept> {
        let number = cluster + 2;
        let first = number - number % (PIECE / 4);
        if self.table_first != Some(first) {
            let entries = (u64::from(self.layout.clusters) + 2 - first).min(PIECE / 4);
            self.table_first = None;
            self.table =
                self.volume.bytes_at(self.layout.table + first * 4, usize::try_from(entries * 4).unwrap_or(0))?;
            self.table_first = Some(first);
        }
        u32_at(&self.table, usize::try_from((number - first) * 4).unwrap_or(0)).ok_or(CORRUPT)
    }

    /// Calls `each` with each entry of a folder, up to the end mark or the end of the folder.
    fn each_entry(
        &self,
        runs: &[Range<u64>],
        bytes: Option<u64>,
        mut each: impl FnMut(&[u8]) -> Result<(), Kept>,
    ) -> Result<(), Kept> {
        let mut left = bytes.unwrap_or(MAX_FOLDER);
        if left > MAX_FOLDER {
            return Err(CORRUPT);
        }
        for run in runs {
            let (mut at, end) = (run.start * self.layout.cluster, run.end * self.layout.cluster);
            while at < end && left > 0 {
                let len = (end - at).min(PIECE).min(left);
                let piece = self.volume.bytes_at(self.layout.heap + at, usize::try_from(len).unwrap_or(0))?;
                for entry in piece.chunks_exact(ENTRY) {
                    if entry[0] == 0 {
                        return Ok(());
                    }
                    each(entry)?;
                }
                (at, left) = (at + len, left - len);
            }
        }
        Ok(())
    }
}

/// The entries of one file, which come one behind the other under one checksum.
#[derive(Default)]
struct EntrySet {
    /// How many are still to come.
    missing: u8,
    sum: u16,
    stated: u16,
    is_folder: bool,
}

impl EntrySet {
    /// Takes the next entry of a folder; content that it has is added to `found`, with whether that is a folder.
    fn take(&mut self, entry: &[u8], found: &mut Vec<(Content, bool)>) -> Result<(), Kept> {
        let kind = entry[0];
        if kind & IN_USE == 0 {
            return self.end();
        }
        if kind & SECONDARY != 0 {
            self.missing = self.missing.checked_sub(1).ok_or(CORRUPT)?;
            self.sum = entry_sum(self.sum, entry, false);
            if entry[1] & HAS_CLUSTERS != 0 {
                let in_one_piece = entry[1] & IN_ONE_PIECE != 0;
                found.push((content(entry, in_one_piece)?, self.is_folder && kind == STREAM));
            }
            return if self.missing == 0 && self.sum != self.stated { Err(CORRUPT) } else { Ok(()) };
        }
        self.end()?;
        match kind {
            FILE => {
                let word = |at| u16_at(entry, at).ok_or(CORRUPT);
                *self = Self {
                    missing: entry[1],
                    sum: entry_sum(0, entry, true),
                    stated: word(2)?,
                    is_folder: word(4)? & FOLDER != 0,
                };
                // A file has at least its stream and a name.
                if self.missing < 2 { Err(CORRUPT) } else { Ok(()) }
            }
            MAP | UPPER_CASE => {
                found.push((content(entry, false)?, false));
                Ok(())
            }
            LABEL | VOLUME_GUID | PADDING => Ok(()),
            other => Err(Kept::Feature("folder entry", other.into())),
        }
    }

    /// Nothing of it is missing.
    fn end(&self) -> Result<(), Kept> {
        if self.missing == 0 { Ok(()) } else { Err(CORRUPT) }
    }
}

/// The content that an entry has.
fn content(entry: &[u8], in_one_piece: bool) -> Result<Content, Kept> {
    let first = u32_at(entry, 20).ok_or(CORRUPT)?;
    Ok(Content { first, bytes: Some(u64_at(entry, 24).ok_or(CORRUPT)?), in_one_piece })
}

/// The checksum of a set of entries, which leaves out the place where it stands in the first one.
fn entry_sum(sum: u16, entry: &[u8], is_first: bool) -> u16 {
    let summed = entry.iter().enumerate().filter(|(at, _)| !(is_first && matches!(at, 2 | 3)));
    summed.fold(sum, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}
