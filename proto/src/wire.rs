//! The few primitives every encoding is made of: little-endian numbers, and byte strings with a bounded length.
//!
//! Reading is done with nom parsers that never allocate before a length was checked; running out of bytes, a length over
//! its limit and text that is no UTF-8 are the only errors.

use crate::units::Hash;
use nom::IResult;
use nom::Parser;
use nom::bytes::complete::take;
use nom::combinator::{map, map_res, verify};
use nom::error::Error;
use nom::number::complete::{le_u8, le_u16, le_u32};

/// What a parser here gives: the rest of the input and the value.
pub type Parsed<'a, T> = IResult<&'a [u8], T, Error<&'a [u8]>>;

/// Why bytes from outside were not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "malformed {}", self.what)
    }
}

impl std::error::Error for Malformed {}

/// Runs `parser` over all of `bytes`; bytes left over are an error too.
///
/// # Errors
/// [`Malformed`] naming `what` if the parser fails or leaves bytes.
pub fn whole<'a, T>(
    what: &'static str,
    mut parser: impl FnMut(&'a [u8]) -> Parsed<'a, T>,
    bytes: &'a [u8],
) -> Result<T, Malformed> {
    match parser(bytes) {
        Ok(([], value)) => Ok(value),
        _ => Err(Malformed { what }),
    }
}

/// A fixed number of bytes.
pub fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    map_res(take(N), <[u8; N]>::try_from).parse(input)
}

/// A hash.
pub fn hash(input: &[u8]) -> Parsed<'_, Hash> {
    map(array::<32>, Hash).parse(input)
}

/// One byte that is 0 or 1.
pub fn flag(input: &[u8]) -> Parsed<'_, bool> {
    map(verify(le_u8, |byte| *byte < 2), |byte| byte == 1).parse(input)
}

/// Text with a 16-bit length in front, at most `limit` bytes of UTF-8.
pub fn text<'a>(limit: u16) -> impl FnMut(&'a [u8]) -> Parsed<'a, String> {
    move |input| {
        let (rest, len) = verify(le_u16, |len| *len <= limit).parse(input)?;
        map_res(take(len), |bytes: &[u8]| core::str::from_utf8(bytes).map(str::to_owned)).parse(rest)
    }
}

/// A list with a 32-bit count in front, at most `limit` long.
pub fn list<'a, T>(
    limit: u32,
    mut item: impl FnMut(&'a [u8]) -> Parsed<'a, T>,
) -> impl FnMut(&'a [u8]) -> Parsed<'a, Vec<T>> {
    move |input| {
        let (mut rest, count) = verify(le_u32, |count| *count <= limit).parse(input)?;
        let mut items = Vec::new();
        for _ in 0..count {
            let (after, value) = item(rest)?;
            items.push(value);
            rest = after;
        }
        Ok((rest, items))
    }
}

/// Appends `text` with its 16-bit length, cut at a character boundary to at most `limit` bytes.
pub fn put_text(out: &mut Vec<u8>, text: &str, limit: u16) {
    let mut end = text.len().min(usize::from(limit));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&u16::try_from(end).unwrap_or(limit).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// Appends the 32-bit count of a list, at most `limit`, and then that many of its items.
pub(crate) fn put_list<T>(out: &mut Vec<u8>, items: &[T], limit: u32, mut put: impl FnMut(&mut Vec<u8>, &T)) {
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX).min(limit);
    out.extend_from_slice(&count.to_le_bytes());
    items.iter().take(count as usize).for_each(|item| put(out, item));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_over_its_limit_is_refused_before_it_is_read() {
        let mut bytes = Vec::new();
        put_text(&mut bytes, "abcdef", 6);
        assert!(whole("t", text(5), &bytes).is_err());
        assert_eq!(whole("t", text(6), &bytes).unwrap(), "abcdef");
    }

    #[test]
    fn a_count_without_its_items_is_malformed() {
        assert!(whole("l", list(1 << 30, le_u32), &[255, 255, 255, 15]).is_err());
    }

    #[test]
    fn text_is_cut_at_a_character_boundary() {
        let mut bytes = Vec::new();
        put_text(&mut bytes, "aé", 2);
        assert_eq!(whole("t", text(2), &bytes).unwrap(), "a");
    }
}
