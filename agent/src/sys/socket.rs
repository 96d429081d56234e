//! The one socket option that the wrappers we use don't know.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets `TCP_NOTSENT_LOWAT`: the kernel takes no more for `socket` once it holds `bytes` that were not sent yet, so that
/// what is said next is never far behind (tcp(7)).
///
/// # Errors
/// Those of `setsockopt`.
pub(crate) fn bound_unsent(socket: BorrowedFd<'_>, bytes: libc::c_int) -> io::Result<()> {
    const LEN: libc::socklen_t = 4;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads four bytes from `bytes`, which
    // is a `c_int` and outlives the call. There is no safe wrapper for this option.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            std::ptr::from_ref(&bytes).cast(),
            LEN,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
