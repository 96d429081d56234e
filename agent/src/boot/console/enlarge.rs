//! Screens of many small letters get letters twice as large: what stands there is to be read from the other end of the rack.
//!
//! The kernel's letters are eight points wide whatever the screen: on one of 1920 points they are two millimetres wide.

use crate::sys::tty::{self, GLYPH_ROWS, Glyphs, glyph_bytes};
use std::fs::File;

/// What we show needs half of it.
const COLUMNS: u16 = 160;

/// Doubles the letters of `screen` as long as that leaves 80 columns. Where the kernel can't, they stay as they are.
pub(super) fn enlarge(screen: &File) {
    while tty::size(screen).is_some_and(|(columns, _)| columns >= COLUMNS) {
        let result = tty::glyphs(screen).map(|glyphs| doubled(&glyphs)).and_then(|larger| match larger {
            Some(larger) => tty::set_glyphs(screen, &larger),
            None => Err(nix::errno::Errno::EINVAL),
        });
        if let Err(error) = result {
            log::debug!("larger letters: {error}");
            return;
        }
    }
}

/// The same letters, every point two wide and two high; nothing where the kernel has no room for that.
fn doubled(glyphs: &Glyphs) -> Option<Glyphs> {
    let Glyphs { width, height, count, rows } = glyphs;
    let (width, height) = (width.checked_mul(2)?, height.checked_mul(2)?);
    if height > GLYPH_ROWS || width > 32 {
        return None;
    }
    let (from, to) = (glyph_bytes(glyphs.width), glyph_bytes(width));
    let (old_row, new_row) = (from / GLYPH_ROWS as usize, to / GLYPH_ROWS as usize);
    let mut larger = vec![0; to * *count as usize];
    for (old, new) in rows.chunks_exact(from).zip(larger.chunks_exact_mut(to)) {
        for y in 0..height as usize {
            let (old, new) = (&old[y / 2 * old_row..], &mut new[y * new_row..]);
            for x in (0..width as usize).filter(|x| old[x / 16] & 0x80 >> (x / 2 % 8) != 0) {
                new[x / 8] |= 0x80 >> (x % 8);
            }
        }
    }
    Some(Glyphs { width, height, count: *count, rows: larger })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_becomes_four() {
        let mut rows = vec![0; 2 * glyph_bytes(8)];
        // The second letter: a point at the left of its first row, and one at the right of its last.
        rows[32] = 0b1000_0000;
        rows[32 + 15] = 0b0000_0001;
        let larger = doubled(&Glyphs { width: 8, height: 16, count: 2, rows }).unwrap();
        assert_eq!((larger.width, larger.height, larger.count), (16, 32, 2));
        let second = &larger.rows[64..];
        assert_eq!(second[..6], [0b1100_0000, 0, 0b1100_0000, 0, 0, 0]);
        assert_eq!(second[60..], [0, 0b0000_0011, 0, 0b0000_0011]);
        assert!(larger.rows[..64].iter().all(|byte| *byte == 0));
        assert_eq!(doubled(&larger), None, "the kernel has no room for more rows");
    }

    #[test]
    fn what_is_no_screen_is_left_alone() {
        enlarge(&tempfile::tempfile().unwrap());
    }
}
