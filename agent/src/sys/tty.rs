//! How large a terminal is (tty_ioctl(4)).

use nix::ioctl_read_bad;
use std::fs::File;
use std::os::fd::AsRawFd;

ioctl_read_bad!(
    /// TIOCGWINSZ: rows and columns.
    get_size,
    libc::TIOCGWINSZ,
    libc::winsize
);

/// Columns and rows of a terminal, where it says so.
pub(crate) fn size(terminal: &File) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the call writes one `winsize` to the address, which is a valid one.
    unsafe { get_size(terminal.as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
