//! The ring: the fixed memory that frames are received into, relayed from and written from, without a copy.
//!
//! Space is given out front to back and comes back in the same order. A [`Slot`] is exclusive (the socket reads into it); frozen, it
//! is a [`Span`], which relaying and writing share by cloning. Once the last clone of the oldest span is gone, its space is free
//! again; a younger span that is dropped earlier waits for its turn. Because the memory is mapped twice in a row, every slot is
//! contiguous, and because every slot starts on a page, a stored block can go from it to the disk by direct I/O.
//!
//! A large ring is made of segments, each a ring of its own, and a slot is cut from the first that has room. A node that keeps up
//! thus lives in the first few megabytes, which stay in the processor's cache: going round and round in 64 MiB costs a third more
//! processor time (EPYC with 32 MiB of cache, four nodes in a row).

pub(crate) use crate::sys::MapError;
use crate::sys::Piece;
use core::fmt;
use core::num::NonZeroUsize;
use core::ops::{Deref, DerefMut};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// Slots start on a multiple of this many bytes.
pub(crate) const SLOT_ALIGN: usize = 4096;

/// What returns a piece of memory to the ring: empty while a [`Slot`] owns the piece.
type Holder = Arc<OnceLock<Piece>>;

/// The least a segment has, in bytes.
const SEGMENT: usize = 8 << 20;
/// The least a segment has, in slots of the largest size: what can't be used of the others stays small.
const SEGMENT_SLOTS: usize = 8;

/// The ring. Owned by the thread that receives; slots and spans may go anywhere.
pub(crate) struct Ring {
    segments: Vec<Segment>,
    /// Handles to use again, so that a slot costs no allocation.
    spare: Vec<Holder>,
    capacity: usize,
}

/// Memory that is given out front to back and comes back in the same order.
struct Segment {
    /// All space that is not given out, in one piece: from behind the youngest slot round to the oldest.
    free: Piece,
    /// What is given out, oldest first. The ring keeps a handle on each; when that is the only one left, the space is free.
    given: VecDeque<Holder>,
}

impl Ring {
    /// A ring of `bytes`, rounded up to whole pages, in one segment.
    ///
    /// # Errors
    /// The kernel has not got the memory.
    #[cfg(test)]
    pub(crate) fn new(bytes: usize) -> Result<Self, MapError> {
        Self::of_segments(bytes, 1, 0)
    }

    /// A ring of at most `bytes` for slots of at most `largest` bytes.
    ///
    /// # Errors
    /// The kernel has not got the memory.
    pub(crate) fn for_slots(bytes: usize, largest: u32) -> Result<Self, MapError> {
        let largest = usize::try_from(largest).unwrap_or(usize::MAX).max(1).next_multiple_of(SLOT_ALIGN);
        let segments = bytes / largest.saturating_mul(SEGMENT_SLOTS).max(SEGMENT);
        Self::of_segments(bytes, segments.clamp(1, 64), largest)
    }

    fn of_segments(bytes: usize, count: usize, largest: usize) -> Result<Self, MapError> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let page = page.and_then(|page| usize::try_from(page).ok()).unwrap_or(SLOT_ALIGN).max(SLOT_ALIGN);
        let size = (bytes / count).max(1).checked_next_multiple_of(page).and_then(NonZeroUsize::new);
        let size =
            size.ok_or(MapError { operation: "sizing the ring", bytes, source: nix::errno::Errno::EOVERFLOW })?;
        let segment = |_| Ok(Segment { free: Piece::map(size)?, given: VecDeque::new() });
        let segments: Vec<Segment> = (0..count).map(segment).collect::<Result<_, MapError>>()?;
        Ok(Self { segments, spare: Vec::new(), capacity: size.get() * count - largest * (count - 1) })
    }

    /// A slot of `len` bytes, or `None` until enough of the oldest space has come back.
    pub(crate) fn reserve(&mut self, len: u32) -> Option<Slot> {
        let len = usize::try_from(len).ok()?;
        let size = len.max(1).checked_next_multiple_of(SLOT_ALIGN)?;
        for segment in &mut self.segments {
            segment.reclaim(&mut self.spare);
            if let Some(piece) = segment.free.take_front(size) {
                let holder = self.spare.pop().unwrap_or_default();
                segment.given.push_back(Arc::clone(&holder));
                return Some(Slot { owned: Some((piece, holder)), len });
            }
        }
        None
    }

    /// How much the slots that are out may add up to in bytes, whole pages each, so that one more of the largest size
    /// is sure to be had as long as it fits under this. Less than the memory of a ring of several segments, because no slot
    /// lies in two.
    #[must_use]
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes the next slot could have.
    #[cfg(test)]
    pub(crate) fn free(&mut self) -> usize {
        let spare = &mut self.spare;
        self.segments.iter_mut().map(|segment| segment.reclaim(spare)).max().unwrap_or(0)
    }
}

impl Segment {
    /// Takes back what the oldest slots and spans have let go of; gives how much is free then.
    fn reclaim(&mut self, spare: &mut Vec<Holder>) -> usize {
        while let Some(oldest) = self.given.front_mut() {
            let Some(piece) = Arc::get_mut(oldest).and_then(OnceLock::take) else { break };
            self.free.join(piece).expect("space comes back in the order in which it was given out");
            spare.extend(self.given.pop_front());
        }
        self.free.len()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans: usize = self.segments.iter().map(|segment| segment.given.len()).sum();
        write!(f, "Ring({} bytes in {} segments, {spans} spans)", self.capacity, self.segments.len())
    }
}

/// A part of the ring that one owner fills. Holds whatever was there before. Dropped unfrozen, its space goes back.
pub(crate) struct Slot {
    /// Empty only within `freeze` and `drop`.
    owned: Option<(Piece, Holder)>,
    len: usize,
}

impl Slot {
    /// Ends the filling; from now on the bytes are shared and don't change.
    #[must_use]
    pub(crate) fn freeze(mut self) -> Span {
        let (piece, holder) = self.owned.take().expect("a slot owns its piece until it is frozen or dropped");
        give_back(piece, &holder);
        Span { holder, len: self.len }
    }
}

fn give_back(piece: Piece, holder: &Holder) {
    holder.set(piece).expect("a holder is empty while its slot owns the piece");
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((piece, holder)) = self.owned.take() {
            give_back(piece, &holder);
        }
    }
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (piece, _) = self.owned.as_ref().expect("a slot owns its piece until it is frozen or dropped");
        &piece[..self.len]
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (piece, _) = self.owned.as_mut().expect("a slot owns its piece until it is frozen or dropped");
        &mut piece[..self.len]
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({} bytes)", self.len)
    }
}

/// Received bytes in the ring, shared by all their users.
#[derive(Clone)]
pub(crate) struct Span {
    holder: Holder,
    len: usize,
}

impl Deref for Span {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.holder.get().expect("a span's holder is filled before the span is made")[..self.len]
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u32 = 4096;

    fn filled(ring: &mut Ring, len: u32, byte: u8) -> Option<Span> {
        let mut slot = ring.reserve(len)?;
        slot.fill(byte);
        Some(slot.freeze())
    }

    #[test]
    fn a_full_ring_gives_nothing_until_its_oldest_span_is_gone() {
        let mut ring = Ring::new(4 * 4096).unwrap();
        let spans: Vec<Span> = (0..4).map(|i| filled(&mut ring, PAGE, i).unwrap()).collect();
        assert_eq!(ring.free(), 0);
        assert!(ring.reserve(1).is_none());
        let mut spans = VecDeque::from(spans);
        // Younger spans go first: their space waits for the oldest.
        spans.remove(2);
        spans.remove(1);
        assert!(ring.reserve(1).is_none());
        spans.pop_front();
        assert_eq!(ring.free(), 3 * 4096);
        assert_eq!(&spans[0][..], &[3; 4096]);
    }

    #[test]
    fn space_is_free_only_when_the_last_clone_is_gone() {
        let mut ring = Ring::new(4096).unwrap();
        let span = filled(&mut ring, 10, 5).unwrap();
        let clone = span.clone();
        drop(span);
        assert_eq!(ring.free(), 0);
        assert_eq!(&clone[..], &[5; 10]);
        drop(clone);
        assert_eq!(ring.free(), 4096);
    }

    #[test]
    fn a_slot_over_the_end_is_contiguous() {
        let mut ring = Ring::new(4 * 4096).unwrap();
        drop(filled(&mut ring, 3 * PAGE, 1));
        let mut slot = ring.reserve(2 * PAGE).unwrap();
        for (i, byte) in slot.iter_mut().enumerate() {
            *byte = u8::try_from(i / 64).unwrap();
        }
        let span = slot.freeze();
        assert!(span.iter().enumerate().all(|(i, &byte)| usize::from(byte) == i / 64));
    }

    #[test]
    fn slots_start_on_pages_and_have_the_length_asked_for() {
        let mut ring = Ring::new(1 << 20).unwrap();
        for len in [1, 4095, 4096, 4097, 100_000] {
            let slot = ring.reserve(len).unwrap();
            assert_eq!(slot.len(), len as usize);
            assert_eq!(slot.as_ptr() as usize % SLOT_ALIGN, 0);
        }
    }

    #[test]
    fn a_node_that_keeps_up_stays_in_the_first_segment() {
        let mut ring = Ring::for_slots(64 << 20, 1 << 20).unwrap();
        assert_eq!(ring.segments.len(), 8);
        let mut live = VecDeque::new();
        for _ in 0..200 {
            live.push_back(ring.reserve(1 << 20).unwrap());
            if live.len() > 4 {
                live.pop_front();
            }
        }
        assert!(ring.segments[1..].iter().all(|segment| segment.given.is_empty()));
        assert_eq!(Ring::for_slots(64 << 20, 16 << 20).unwrap().capacity(), 64 << 20, "few large slots: one segment");
    }

    #[test]
    fn an_abandoned_slot_gives_its_space_back() {
        let mut ring = Ring::new(2 * 4096).unwrap();
        let slot = ring.reserve(2 * PAGE).unwrap();
        assert_eq!(ring.free(), 0);
        drop(slot);
        assert_eq!(ring.free(), 2 * 4096);
    }

    #[test]
    fn a_slot_longer_than_the_ring_is_never_given() {
        let mut ring = Ring::new(4096).unwrap();
        assert!(ring.reserve(4097).is_none());
        assert!(ring.reserve(u32::MAX).is_none());
        assert!(ring.reserve(4096).is_some());
    }

    #[test]
    fn the_ring_may_go_before_its_spans() {
        let mut ring = Ring::new(4096).unwrap();
        let span = filled(&mut ring, 100, 8).unwrap();
        drop(ring);
        assert_eq!(&span[..], &[8; 100]);
    }

    #[test]
    fn spans_are_dropped_on_other_threads() {
        let mut ring = Ring::new(8 * 4096).unwrap();
        let (give, take) = std::sync::mpsc::channel::<(u8, Span)>();
        let reader = std::thread::spawn(move || {
            while let Ok((byte, span)) = take.recv() {
                assert!(span.iter().all(|&b| b == byte));
            }
        });
        for i in 0..2000u32 {
            let byte = u8::try_from(i % 251).unwrap();
            loop {
                if let Some(span) = filled(&mut ring, 1 + i % 9000, byte) {
                    give.send((byte, span)).unwrap();
                    break;
                }
                std::thread::yield_now();
            }
        }
        drop(give);
        reader.join().unwrap();
        assert_eq!(ring.free(), ring.capacity());
    }

    proptest! {
        /// As long as all slots together stay under the capacity, every slot is to be had at once.
        #[test]
        fn what_fits_under_the_capacity_is_never_refused(
            steps in proptest::collection::vec((1u32..=256 << 10, 0usize..4), 1..400)
        ) {
            let mut ring = Ring::for_slots(32 << 20, 256 << 10).unwrap();
            prop_assert!(ring.segments.len() > 1);
            let mut live: VecDeque<Slot> = VecDeque::new();
            let charge = |slot: &Slot| slot.len().next_multiple_of(SLOT_ALIGN);
            for (len, gone) in steps {
                let len = if gone == 3 { 256 << 10 } else { len };
                live.drain(..gone.min(live.len()) / 3);
                while live.iter().map(charge).sum::<usize>() + (len as usize).next_multiple_of(SLOT_ALIGN) > ring.capacity() {
                    live.pop_front();
                }
                let slot = ring.reserve(len);
                prop_assert!(slot.is_some());
                live.extend(slot);
            }
        }

        /// Whatever the order of drops, no two live spans share a byte and all space comes back.
        #[test]
        fn live_spans_never_share_memory(steps in proptest::collection::vec((1u32..20_000, 0usize..8), 1..200)) {
            let mut ring = Ring::new(16 * 4096).unwrap();
            let mut live: Vec<(u8, Span)> = Vec::new();
            for (i, (len, gone)) in steps.into_iter().enumerate() {
                let byte = u8::try_from(i % 256).unwrap();
                match filled(&mut ring, len, byte) {
                    Some(span) => live.push((byte, span)),
                    None => prop_assert!(!live.is_empty() || len > 16 * 4096),
                }
                if gone < live.len() {
                    live.swap_remove(gone);
                }
                for (byte, span) in &live {
                    prop_assert!(span.iter().all(|b| b == byte));
                }
            }
            live.clear();
            prop_assert_eq!(ring.free(), ring.capacity());
        }
    }
}
