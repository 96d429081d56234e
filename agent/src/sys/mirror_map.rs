//! One piece of memory mapped twice in a row, so that a range that runs over the end goes on at the start and is still
//! one contiguous slice.
//!
//! Memory is handed out as [`Piece`]s. A new map gives one piece that is all of it; from then on pieces are only split and
//! joined. Two pieces therefore never share a byte, which is the whole argument for this file's safety.

use core::ffi::c_void;
use core::fmt;
use core::num::NonZeroUsize;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use nix::unistd::ftruncate;
use std::sync::Arc;

/// Maps start on a border of this many bytes, so that the kernel may use its large pages.
const HUGE: usize = 2 << 20;

/// Memory that the kernel wouldn't give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapError {
    /// What was tried.
    pub(crate) operation: &'static str,
    /// How many bytes were asked for.
    pub(crate) bytes: usize,
    /// The kernel's answer.
    pub(crate) source: Errno,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes: {}", self.operation, self.bytes, self.source.desc())
    }
}

impl core::error::Error for MapError {}

/// The mapping: `len` bytes at `base`, and the same bytes again at `base + len`.
struct MirrorMap {
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: this is an address and a length; the memory is only reached through pieces.
unsafe impl Send for MirrorMap {}
// SAFETY: as above.
unsafe impl Sync for MirrorMap {}

impl MirrorMap {
    fn new(len: NonZeroUsize) -> Result<Self, MapError> {
        let bytes = len.get();
        let failed = |operation| move |source| MapError { operation, bytes, source };
        let file = memfd_create(c"slidecast-ring", MFdFlags::MFD_CLOEXEC).map_err(failed("making the ring"))?;
        let size = i64::try_from(bytes).map_err(|_| failed("sizing the ring")(Errno::EOVERFLOW))?;
        ftruncate(&file, size).map_err(failed("sizing the ring"))?;

        let whole = bytes.checked_mul(2).and_then(|both| both.checked_add(HUGE)).and_then(NonZeroUsize::new);
        let whole = whole.ok_or_else(|| failed("reserving addresses for the ring")(Errno::ENOMEM))?;
        // SAFETY: a new inaccessible mapping at an address of the kernel's choice can't touch memory that is in use.
        let reserved = unsafe { mmap_anonymous(None, whole, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE) }
            .map_err(failed("reserving addresses for the ring"))?;
        let lead = reserved.as_ptr().cast::<u8>().align_offset(HUGE);
        // SAFETY: `lead` is less than HUGE, so `lead + 2 * bytes` stays within the reservation.
        let base = unsafe { reserved.add(lead) };
        // From here on `map` unmaps what it covers; what lies around it goes now.
        let map = Self { base, len: bytes };
        for (start, size) in [(0, lead), (lead + 2 * bytes, HUGE - lead)] {
            if size > 0 {
                // SAFETY: these bytes belong to the reservation above and lie outside of `map`.
                let _ = unsafe { munmap(reserved.add(start), size) };
            }
        }
        for offset in [0, bytes] {
            // SAFETY: `offset` is 0 or `bytes`: inside the reservation of 2 * bytes.
            let address = unsafe { base.add(offset) };
            let address = NonZeroUsize::new(address.as_ptr() as usize);
            let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
            // SAFETY: MAP_FIXED replaces only addresses of our own reservation, to which no reference exists yet.
            unsafe { mmap(address, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, &file, 0) }
                .map_err(failed("mapping the ring"))?;
        }
        // SAFETY: the advice covers exactly our two views and doesn't change their contents. Fewer, larger pages make
        // direct I/O and socket copies cheaper; without them everything still works.
        let _ = unsafe { madvise(base, 2 * bytes, MmapAdvise::MADV_HUGEPAGE) };
        Ok(map)
    }
}

impl Drop for MirrorMap {
    fn drop(&mut self) {
        // SAFETY: the map covers exactly these addresses, and every piece (the only way to reach them) held the map alive.
        let _ = unsafe { munmap(self.base, 2 * self.len) };
    }
}

/// Exclusive ownership of a contiguous range of a mirrored map.
pub(crate) struct Piece {
    map: Arc<MirrorMap>,
    /// Always below `map.len`; `start + len` may lie in the second view.
    start: usize,
    /// At most `map.len`.
    len: usize,
}

impl Piece {
    /// Maps `len` bytes (whole pages) and gives all of them.
    ///
    /// # Errors
    /// The kernel has not got the memory, or `len` is not a multiple of its page size.
    pub(crate) fn map(len: NonZeroUsize) -> Result<Self, MapError> {
        let map = MirrorMap::new(len)?;
        Ok(Self { map: Arc::new(map), start: 0, len: len.get() })
    }

    /// Takes the first `len` bytes off; `None` (and no change) when the piece is shorter.
    pub(crate) fn take_front(&mut self, len: usize) -> Option<Self> {
        let rest = self.len.checked_sub(len)?;
        let front = Self { map: Arc::clone(&self.map), start: self.start, len };
        self.start = (self.start + len) % self.map.len;
        self.len = rest;
        Some(front)
    }

    /// Joins `next`, which must begin where this piece ends in the same map; gives it back otherwise.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        let end = (self.start + self.len) % self.map.len;
        if !Arc::ptr_eq(&self.map, &next.map) || next.start != end {
            return Err(next);
        }
        // Pieces of one map never overlap, so the sum can't exceed the map.
        self.len += next.len;
        Ok(())
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start < map.len` and `len <= map.len`, so the range lies in the two views, which are mapped and initialised
        // (the kernel zeroes a memfd). No other piece covers a byte of it (see the file's head), so nobody writes it meanwhile.
        unsafe { core::slice::from_raw_parts(self.map.base.as_ptr().cast::<u8>().add(self.start), self.len) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.map.base.as_ptr().cast::<u8>().add(self.start), self.len) }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({}+{} of {})", self.start, self.len, self.map.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(len: usize) -> Piece {
        Piece::map(NonZeroUsize::new(len).unwrap()).unwrap()
    }

    #[test]
    fn a_range_over_the_end_goes_on_at_the_start() {
        let mut free = map(8192);
        let mut first = free.take_front(4096).unwrap();
        first.fill(1);
        let second = free.take_front(4096).unwrap();
        assert!(free.take_front(1).is_none());
        free.join(first).unwrap();
        free.join(second).unwrap();
        // The free piece now starts in the middle and runs over the end.
        let mut wrapped = free.take_front(8192).unwrap();
        let start: Vec<u8> = (0..=255).cycle().take(8192).collect();
        wrapped.copy_from_slice(&start);
        free.join(wrapped).unwrap();
        let low = free.take_front(4096).unwrap();
        let high = free.take_front(4096).unwrap();
        assert_eq!(&low[..], &start[..4096]);
        assert_eq!(&high[..], &start[4096..]);
    }

    #[test]
    fn pieces_that_do_not_touch_are_not_joined() {
        let mut free = map(12288);
        let mut first = free.take_front(4096).unwrap();
        let _second = free.take_front(4096).unwrap();
        let third = free.take_front(4096).unwrap();
        assert!(first.join(third).is_err());
        assert!(first.join(map(4096)).is_err());
    }

    #[test]
    fn the_map_stays_until_its_last_piece_is_gone() {
        let mut free = map(8192);
        let mut piece = free.take_front(4096).unwrap();
        drop(free);
        piece.fill(9);
        assert!(piece.iter().all(|&byte| byte == 9));
    }
}
