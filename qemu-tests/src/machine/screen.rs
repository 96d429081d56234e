//! A picture of a machine's screen: there is something on it, or not.

use std::path::Path;

use crate::error::{LabError, Result};

/// A screenshot.
#[derive(Debug, Clone)]
pub struct Screen {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Red, green, blue of each pixel, row by row.
    pixels: Vec<u8>,
}

impl Screen {
    /// Reads a picture in the form that QEMU writes (PPM, `P6`, one byte a colour).
    ///
    /// # Errors
    /// When it is none.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(LabError::io("reading", path))?;
        let wrong = || LabError::Unable { why: format!("{} is no picture in PPM form", path.display()) };
        Self::parse(&bytes).ok_or_else(wrong)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.splitn(4, |byte| byte.is_ascii_whitespace());
        let (kind, width, height) = (fields.next()?, fields.next()?, fields.next()?);
        let rest = fields.next()?;
        let colours = rest.iter().position(u8::is_ascii_whitespace)?;
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<usize>().ok();
        let (width, height) = (number(width)?, number(height)?);
        let pixels = rest[colours + 1..].to_vec();
        let whole = width.checked_mul(height)?.checked_mul(3)? == pixels.len();
        (kind == b"P6" && number(&rest[..colours])? == 255 && whole).then_some(Self { width, height, pixels })
    }

    /// How many rows of pixels have something brighter than dark grey on them: text has about half of its rows lit.
    pub fn lit_rows(&self) -> usize {
        let row = self.width * 3;
        self.pixels.chunks(row.max(1)).filter(|row| row.iter().any(|value| *value > 80)).count()
    }

    /// Whether each row of pixels with an even number is the same as the next: all that stands there is drawn with points two
    /// pixels high.
    pub fn has_double_rows(&self) -> bool {
        let row = self.width * 3;
        self.pixels.chunks(row.max(1) * 2).all(|pair| pair.len() == 2 * row && pair[..row] == pair[row..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_light_on_them_are_counted() {
        let mut bytes = b"P6\n2 3\n255\n".to_vec();
        bytes.extend([0; 6]);
        bytes.extend([0, 0, 0, 0, 255, 0]);
        bytes.extend([9; 6]);
        assert_eq!(Screen::parse(&bytes).unwrap().lit_rows(), 1);
        assert!(Screen::parse(&bytes[..bytes.len() - 1]).is_none());
        assert!(Screen::parse(b"P6\n").is_none());
    }

    #[test]
    fn double_rows_are_told_from_single_ones() {
        let screen = |rows: [u8; 4]| Screen { width: 1, height: 4, pixels: rows.map(|value| [value; 3]).concat() };
        assert!(screen([1, 1, 9, 9]).has_double_rows());
        assert!(!screen([1, 9, 9, 1]).has_double_rows());
    }
}
