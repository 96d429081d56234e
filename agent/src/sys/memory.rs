//! Zeroed memory for direct I/O: aligned to whole pages, fixed in size, taken from the kernel at once.

use super::mirror_map::MapError;
use core::ffi::c_void;
use core::fmt;
use core::num::NonZeroUsize;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// A buffer whose start suits direct I/O on every disk. Zeroed when made.
pub(crate) struct AlignedBuf {
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: the buffer owns its mapping alone; it is plain memory with no tie to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes.
    ///
    /// # Errors
    /// The kernel has not got the memory.
    pub(crate) fn new(len: usize) -> Result<Self, MapError> {
        let Some(size) = NonZeroUsize::new(len) else {
            return Ok(Self { base: NonNull::dangling(), len: 0 });
        };
        // SAFETY: a new private mapping at an address of the kernel's choice can't touch memory that is in use.
        let mapped =
            unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE) };
        let base = mapped.map_err(|source| MapError { operation: "mapping a buffer", bytes: len, source })?;
        // SAFETY: the advice covers exactly the mapping just made and doesn't change its contents. Fewer, larger pages
        // make direct I/O cheaper; without them everything still works.
        let _ = unsafe { madvise(base, len, MmapAdvise::MADV_HUGEPAGE) };
        Ok(Self { base, len })
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: `base` and `len` are the mapping made in `new`, which nobody else unmaps and no reference outlives.
            let _ = unsafe { munmap(self.base, self.len) };
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `base` are mapped and initialised (the kernel zeroes them) for the life of `self`.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr().cast(), self.len) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_zeroed_and_on_a_page() {
        let mut buffer = AlignedBuf::new(10_000).unwrap();
        assert_eq!(buffer.len(), 10_000);
        assert_eq!(buffer.as_ptr() as usize % 4096, 0);
        assert!(buffer.iter().all(|&byte| byte == 0));
        buffer[9_999] = 7;
        assert_eq!(buffer[9_999], 7);
        assert!(AlignedBuf::new(0).unwrap().is_empty());
    }
}
