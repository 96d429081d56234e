//! The socket options that the wrappers we use don't know.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets `TCP_NOTSENT_LOWAT`: the kernel takes no more for `socket` once it holds `bytes` that were not sent yet, so that
/// what is said next is never far behind (tcp(7)).
///
/// # Errors
/// Those of `setsockopt`.
pub(crate) fn bound_unsent(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)
}

/// Sets `SO_RCVLOWAT`: the kernel reports `socket` as readable once `bytes` have come, or when it was closed (socket(7)).
///
/// # Errors
/// Those of `setsockopt`.
pub(crate) fn wake_at(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: usize) -> io::Result<()> {
    const LEN: libc::socklen_t = 4;
    let value = libc::c_int::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads four bytes from `value`, which
    // is a `c_int` and outlives the call. There is no safe wrapper for these options.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), LEN) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
