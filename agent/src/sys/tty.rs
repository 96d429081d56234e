//! How large a terminal is (tty_ioctl(4)), and the letters of a screen (ioctl_console(2)).

use nix::{ioctl_read_bad, ioctl_readwrite_bad};
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

/// The letters of a screen, as the kernel keeps them: each is 32 rows of as many whole bytes as its width needs, the leftmost
/// point in the highest bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glyphs {
    /// Points in a row.
    pub(crate) width: u32,
    /// Rows that are used.
    pub(crate) height: u32,
    /// How many letters there are.
    pub(crate) count: u32,
    /// The rows of all letters.
    pub(crate) rows: Vec<u8>,
}

/// How many rows the kernel keeps for a letter, used or not.
pub(crate) const GLYPH_ROWS: u32 = 32;
/// The most letters that a screen has.
const GLYPHS: u32 = 512;

/// `struct console_font_op` of linux/kd.h.
#[repr(C)]
struct FontOp {
    op: libc::c_uint,
    flags: libc::c_uint,
    width: libc::c_uint,
    height: libc::c_uint,
    count: libc::c_uint,
    data: *mut u8,
}

/// `KD_FONT_OP_SET` and `KD_FONT_OP_GET`.
const SET: libc::c_uint = 0;
const GET: libc::c_uint = 1;

ioctl_readwrite_bad!(
    /// KDFONTOP: reads or sets the letters of a screen.
    font_op,
    0x4b72,
    FontOp
);

/// Bytes of a letter of this width.
pub(crate) fn glyph_bytes(width: u32) -> usize {
    (width.div_ceil(8) * GLYPH_ROWS) as usize
}

/// The letters of a screen.
///
/// # Errors
/// It is no screen, or does not say.
pub(crate) fn glyphs(screen: &File) -> nix::Result<Glyphs> {
    let mut rows = vec![0; glyph_bytes(32) * GLYPHS as usize];
    let data = rows.as_mut_ptr();
    let mut op = FontOp { op: GET, flags: 0, width: 32, height: GLYPH_ROWS, count: GLYPHS, data };
    // SAFETY: the descriptor is open. The kernel writes at most `count` letters of at most the width and height given,
    // for which `rows` has room, and refuses where its letters are larger or more. Both outlive the call.
    unsafe { font_op(screen.as_raw_fd(), &raw mut op) }?;
    rows.truncate(glyph_bytes(op.width) * op.count as usize);
    Ok(Glyphs { width: op.width, height: op.height, count: op.count, rows })
}

/// Gives a screen other letters; how many fit on it changes with them.
///
/// # Errors
/// It is no screen, or can't have letters like these.
pub(crate) fn set_glyphs(screen: &File, glyphs: &Glyphs) -> nix::Result<()> {
    let Glyphs { width, height, count, ref rows } = *glyphs;
    if height > GLYPH_ROWS || rows.len() < glyph_bytes(width) * count as usize {
        return Err(nix::errno::Errno::EINVAL);
    }
    // The kernel only reads: it gets a copy all the same, so that no shared bytes are behind a mutable pointer.
    let mut rows = rows.clone();
    let mut op = FontOp { op: SET, flags: 0, width, height, count, data: rows.as_mut_ptr() };
    // SAFETY: the descriptor is open. The kernel reads `count` letters of this width, 32 rows each, from `rows`, which
    // holds them by the check above and outlives the call.
    unsafe { font_op(screen.as_raw_fd(), &raw mut op) }.map(drop)
}
