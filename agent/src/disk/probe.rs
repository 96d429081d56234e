//! Whether the disk is as large as it says: marks at its ends and at powers of two, written and read back before the body is.
//!
//! A counterfeit card, or an adapter that cuts addresses, takes every write and puts what is beyond its true size over what is
//! below. Read-back right after a write finds nothing wrong there. Different marks in places that such a disk takes for one do.
//!
//! What stood in these places is put back: blocks that are kept stay, and so does unused space. The disk carries the mark of an
//! unfinished deployment meanwhile, so that after a power cut here what is kept is compared again.

use super::fault::{Fault, Object};
use super::layout::Layout;
use super::mark::Mark;
use super::shared::Shared;
use crate::sys::AlignedBuf;
use std::collections::BTreeSet;
use std::io::IoSlice;

/// So far behind each power of two: sector 0, with the mark of the deployment, is what a disk would confuse with the power itself.
const BEHIND: u64 = 4096;
/// A disk may be wrong once, as in any read-back.
const TRIES: usize = 2;

/// Probes a disk that was marked and wiped. Gives whether it was right at the first try.
pub(super) fn probe(shared: &Shared) -> Result<bool, Fault> {
    let places = places(&shared.layout);
    if shared.io.facts().file || places.is_empty() {
        return Ok(true);
    }
    let mut probe = Probe::new(shared, places)?;
    for attempt in 0..TRIES {
        probe.write(|probe, at, into| probe.mark(at, into))?;
        let wrong = probe.first_wrong(|probe, at, into| probe.mark(at, into))?;
        // Also where something was wrong: the disk is left with what it held.
        let restored = probe.restore()?;
        match wrong {
            None => {
                probe.find_deployment_mark()?;
                return Ok(attempt == 0 && restored);
            }
            Some(Wrong { at, of: Some(other) }) => {
                return Err(Fault::Wraps { says: shared.layout.target_bytes, at, other });
            }
            Some(Wrong { at, of: None }) if attempt + 1 == TRIES => {
                return Err(Fault::Mismatch { object: Object::Probe, at });
            }
            Some(Wrong { at, of: None }) => {
                log::warn!("probing {} at {at}: not what was written; it is tried again", shared.path());
            }
        }
    }
    Ok(false)
}

/// Where the marks go: whole sectors, rising.
fn places(layout: &Layout) -> BTreeSet<u64> {
    let last = layout.target_bytes - layout.target_bytes % layout.sector;
    let powers = (BEHIND.trailing_zeros()..63).map(|power| 1 << power).filter(|power| *power >= layout.head);
    let powers = powers.map(|power| power + BEHIND);
    let ends = [1, 2, 34].into_iter().filter_map(|back| last.checked_sub(back * layout.sector));
    let fits = |at: &u64| *at >= BEHIND && at + layout.sector <= last;
    [BEHIND].into_iter().chain(powers).chain(ends).filter(fits).collect()
}

/// A place that does not hold its mark.
struct Wrong {
    at: u64,
    /// It holds the mark of this place.
    of: Option<u64>,
}

struct Probe<'a> {
    shared: &'a Shared,
    places: Vec<u64>,
    /// What the disk held, place by place.
    held: AlignedBuf,
    /// One sector.
    memory: AlignedBuf,
    sector: usize,
}

impl<'a> Probe<'a> {
    fn new(shared: &'a Shared, places: BTreeSet<u64>) -> Result<Self, Fault> {
        let sector = usize::try_from(shared.layout.sector).unwrap_or(512);
        let places: Vec<u64> = places.into_iter().collect();
        let mut held = AlignedBuf::new(places.len() * sector)?;
        for (at, into) in places.iter().zip(held.chunks_mut(sector)) {
            shared.read(Object::Probe, *at, into)?;
        }
        Ok(Self { shared, places, held, memory: AlignedBuf::new(sector)?, sector })
    }

    /// The mark of a place in this run.
    fn mark(&self, at: u64, into: &mut [u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.shared.options.seed.to_le_bytes()).update(&at.to_le_bytes());
        hasher.finalize_xof().fill(into);
        // Never a boot signature.
        into[510..512].fill(0);
    }

    fn held(&self, at: u64, into: &mut [u8]) {
        let no = self.places.binary_search(&at).unwrap_or(0);
        into.copy_from_slice(&self.held[no * self.sector..][..self.sector]);
    }

    fn write(&mut self, content: impl Fn(&Self, u64, &mut [u8])) -> Result<(), Fault> {
        let mut memory = std::mem::replace(&mut self.memory, AlignedBuf::new(0)?);
        for at in &self.places {
            content(self, *at, &mut memory);
            self.shared.write(Object::Probe, *at, &mut [IoSlice::new(&memory)])?;
        }
        self.memory = memory;
        self.shared.flush()?;
        self.shared.io.drop_cache();
        Ok(())
    }

    /// The first place that does not hold what it should. What wraps is what counts: it is looked for in all places first.
    fn first_wrong(&mut self, content: impl Fn(&Self, u64, &mut [u8])) -> Result<Option<Wrong>, Fault> {
        let mut memory = std::mem::replace(&mut self.memory, AlignedBuf::new(0)?);
        let mut right = vec![0; self.sector];
        let mut wrong = None;
        for at in &self.places {
            self.shared.read(Object::Probe, *at, &mut memory)?;
            content(self, *at, &mut right);
            if memory[..] == right[..] {
                continue;
            }
            let is_there = |other: &u64| {
                let mut mark = vec![0; self.sector];
                self.mark(*other, &mut mark);
                memory[..] == mark[..]
            };
            let of = self.places.iter().copied().filter(|other| other != at).find(is_there);
            let found = Wrong { at: *at, of };
            if found.of.is_some() {
                wrong = Some(found);
                break;
            }
            wrong.get_or_insert(found);
        }
        self.memory = memory;
        Ok(wrong)
    }

    /// Puts back what the disk held. Gives whether that went well at once.
    fn restore(&mut self) -> Result<bool, Fault> {
        for attempt in 0..TRIES {
            self.write(Self::held)?;
            match self.first_wrong(Self::held)? {
                None => return Ok(attempt == 0),
                // Nothing is kept on a disk that wraps: it is refused for that.
                Some(_) if attempt + 1 < TRIES => {}
                Some(Wrong { at, .. }) => return Err(Fault::Mismatch { object: Object::Probe, at }),
            }
        }
        Ok(false)
    }

    /// The mark of the deployment must have outlived all this.
    fn find_deployment_mark(&mut self) -> Result<(), Fault> {
        self.shared.read(Object::Mark, 0, &mut self.memory)?;
        match Mark::parse(&self.memory) {
            Some(mark) if mark.root == self.shared.root => Ok(()),
            _ => Err(Fault::Mismatch { object: Object::Mark, at: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::header;
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn marks_stand_at_powers_of_two_and_at_the_end() {
        let layout = Layout::new(&header(3 * MIB, 4096, 512), 3 * MIB);
        let found: Vec<u64> = places(&layout).into_iter().collect();
        let powers = [MIB + 4096, 2 * MIB + 4096];
        let ends = [34, 2, 1].map(|back| 3 * MIB - back * 512);
        assert!(found.iter().copied().eq([4096].into_iter().chain(powers).chain(ends)), "{found:?}");
        let places = places(&Layout::new(&header(MIB, 4096, 4096), (16 << 40) + 4096));
        assert!(places.iter().all(|at| at % 4096 == 0 && at + 4096 <= (16 << 40) + 4096));
        assert!(places.contains(&((8 << 40) + 4096)));
    }

    #[test]
    fn any_disk_of_half_or_a_quarter_the_size_takes_two_places_for_one() {
        for power in 24..42 {
            let layout = Layout::new(&header(MIB, 4096, 512), 1 << power);
            for smaller in [1, 2, 3] {
                let wrapped: BTreeSet<u64> = places(&layout).iter().map(|at| at % (1 << (power - smaller))).collect();
                assert!(wrapped.len() < places(&layout).len());
            }
        }
    }
}
