//! Volumes inside a volume: what a reader of volume groups or arrays finds in its own, put together as bytes of its own.

use super::mapped::{Mapped, Piece};
use super::sniff::{Signs, look};
use super::volume::{Kept, Unused, Volume};
use crate::signatures;
use core::cmp::Reverse;
use core::ops::Range;

/// Notes about single volumes inside one; further ones are counted only.
const MAX_NOTES: usize = 64;

/// Unused ranges that are kept while volumes are looked into; of more the shortest count as used.
const MAX_RANGES: usize = 1 << 20;

/// What of an outer volume is unused, collected from free areas of its own and from what lies in it.
#[derive(Default)]
pub(super) struct Inside {
    unused: Vec<Range<u64>>,
    places: Vec<Range<u64>>,
    notes: Vec<String>,
    untold: usize,
}

impl Inside {
    /// Adds a range that belongs to no inner volume.
    pub(super) fn free(&mut self, range: Range<u64>) {
        self.unused.push(range);
        self.forget();
    }

    /// Says something about one of the inner volumes, or about all of them.
    pub(super) fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        } else {
            self.untold += 1;
        }
    }

    /// Looks into the inner volume `name`, which has these pieces of `outer`.
    pub(super) fn volume(&mut self, outer: &Volume<'_>, name: &str, pieces: Vec<Piece>) {
        let mapped = Mapped::new(*outer, pieces);
        let volume = mapped.volume();
        let signs = if volume.is_too_deep() { Err(Kept::TooDeep) } else { Signs::find(&volume) };
        let (fs, free) = look(&volume, signs);
        let title = if fs.is_empty() { name.to_owned() } else { format!("{name}, {fs}") };
        match free {
            Ok(Some(free)) => {
                for range in free.ranges() {
                    mapped.outside(range.clone(), &mut self.unused);
                    self.forget();
                }
                let own = signatures::places(0, volume.bytes());
                own.into_iter().chain(free.places).for_each(|range| mapped.outside(range, &mut self.places));
                free.notes.into_iter().for_each(|note| self.note(format!("{title}: {note}")));
            }
            Ok(None) => self.note(format!("{title}: all of it is kept: its content is not known")),
            Err(kept) => self.note(format!("{title}: all of it is kept: {kept}")),
        }
    }

    /// Forgets the shorter half of the ranges, where there are too many.
    fn forget(&mut self) {
        if self.unused.len() > 2 * MAX_RANGES {
            self.unused.select_nth_unstable_by_key(MAX_RANGES, |range| Reverse(range.end - range.start));
            self.unused.truncate(MAX_RANGES);
        }
    }

    /// All of it. If something was called unused twice, nothing is.
    pub(super) fn finish(mut self) -> Result<Unused, Kept> {
        self.unused.retain(|range| !range.is_empty());
        self.unused.sort_unstable_by_key(|range| range.start);
        if self.unused.windows(2).any(|pair| pair[0].end > pair[1].start) {
            return Err(Kept::Corrupt("map of its volumes"));
        }
        if self.untold > 0 {
            self.notes.push(format!("{} more such notes are left out", self.untold));
        }
        let mut unused = Unused::default();
        unused.places = signatures::joined(self.places);
        unused.notes = self.notes;
        self.unused.into_iter().for_each(|range| unused.push(range));
        Ok(unused)
    }
}
