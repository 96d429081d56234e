//! How the parts of a selector are written: commas between them, and quotes or backslashes where a value has a comma of its own.
//!
//! A value that begins with `'` or `"` reaches to the next such character; nothing but spaces may follow it. Elsewhere `\`
//! takes the character behind it as it is, and `\xHH` is the ASCII character of that number: a boot loader that eats quotes
//! and spaces lets it through.

use super::SelectorError;
use core::fmt;
use core::iter::Peekable;
use core::str::Chars;

/// A part as it is written, quotes and backslashes undone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// What stands before the first `=`; none for a path.
    pub(super) name: Option<String>,
    /// The value or the path.
    pub(super) value: String,
}

/// The parts of a selector; none if it is empty.
pub(super) fn parts(text: &str) -> Result<Vec<Written>, SelectorError> {
    let mut parts = Vec::new();
    if text.trim().is_empty() {
        return Ok(parts);
    }
    let mut chars = text.chars().peekable();
    loop {
        parts.push(part(&mut chars)?);
        if chars.next().is_none() {
            return Ok(parts);
        }
    }
}

/// One part; stops before the comma behind it.
fn part(chars: &mut Peekable<Chars<'_>>) -> Result<Written, SelectorError> {
    skip_spaces(chars);
    let may_be_path = matches!(chars.peek(), Some('/' | '\'' | '"' | '\\'));
    if may_be_path {
        let value = value(chars)?;
        return Ok(Written { name: None, value });
    }
    let mut name = String::new();
    while let Some(next) = chars.next_if(|next| !matches!(next, ',' | '=')) {
        name.push(next);
    }
    let name = name.trim().to_owned();
    if chars.next_if_eq(&'=').is_none() {
        return Ok(Written { name: None, value: name });
    }
    skip_spaces(chars);
    Ok(Written { name: Some(name), value: value(chars)? })
}

/// A value; stops before the comma behind it.
fn value(chars: &mut Peekable<Chars<'_>>) -> Result<String, SelectorError> {
    let mut value = String::new();
    if let Some(quote) = chars.next_if(|next| matches!(next, '\'' | '"')) {
        loop {
            match chars.next() {
                None => return Err(SelectorError::OpenQuote(value)),
                Some(next) if next == quote => break,
                Some(next) => value.push(next),
            }
        }
        skip_spaces(chars);
        let ends = chars.peek().is_none_or(|next| *next == ',');
        return if ends { Ok(value) } else { Err(SelectorError::AfterQuote(value)) };
    }
    // Spaces at the end do not count unless a backslash stands before them.
    let mut counts = 0;
    while let Some(next) = chars.next_if(|next| *next != ',') {
        let plain = next != '\\';
        value.push(if plain { next } else { escaped(chars)? });
        if !(plain && next.is_whitespace()) {
            counts = value.len();
        }
    }
    value.truncate(counts);
    Ok(value)
}

/// What a backslash, which was read, stands for together with what follows it.
fn escaped(chars: &mut Peekable<Chars<'_>>) -> Result<char, SelectorError> {
    match chars.next() {
        None => Err(SelectorError::Escape(String::new())),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
            let byte = byte.filter(|byte| (0x20..0x7f).contains(byte));
            byte.map(char::from).ok_or_else(|| SelectorError::Escape(format!("x{digits}")))
        }
        Some(next) => Ok(next),
    }
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|next| next.is_whitespace()).is_some() {}
}

/// Writes a value so that [`parts`] reads it again.
pub(super) fn write(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    let last = value.chars().count().saturating_sub(1);
    for (at, next) in value.chars().enumerate() {
        let edge = at == 0 || at == last;
        let escape = matches!(next, ',' | '\\') || (at == 0 && matches!(next, '\'' | '"'));
        if escape || (edge && next.is_whitespace()) {
            f.write_str("\\")?;
        }
        // A letter behind the backslash would be taken for something else; no such character is one.
        write!(f, "{next}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let parts = parts(text).unwrap();
        parts.into_iter().map(|part| (part.name.unwrap_or_default(), part.value)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_comma_in_a_value_is_quoted_or_has_a_backslash() {
        let expected = [pair("model", "ACME, Inc. Fast"), pair("serial", "S1")];
        for text in [
            "model='ACME, Inc. Fast',serial=S1",
            "model = \"ACME, Inc. Fast\" , serial = S1 ",
            r"model=ACME\, Inc. Fast,serial=S1",
            r"model=ACME\x2c\x20Inc.\x20Fast,serial=S1",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(read(r"'/dev/disk/by-id/a,b c'"), [pair("", "/dev/disk/by-id/a,b c")]);
        assert_eq!(read(r"/dev/disk/by-id/a\,b=c"), [pair("", "/dev/disk/by-id/a,b=c")]);
    }

    #[test]
    fn quotes_inside_a_value_and_spaces_at_its_ends_are_what_they_were() {
        assert_eq!(
            read("model= Disk 3.5\" x 'y' ,serial=O'Neil"),
            [pair("model", "Disk 3.5\" x 'y'"), pair("serial", "O'Neil")]
        );
        assert_eq!(read(r"model=\ a\ "), [pair("model", " a ")]);
        assert_eq!(read("model=' a '"), [pair("model", " a ")]);
    }

    #[test]
    fn what_is_wrong_with_quotes_and_backslashes_is_named() {
        assert_eq!(parts("model='a,b"), Err(SelectorError::OpenQuote("a,b".into())));
        assert_eq!(parts("model='a'b"), Err(SelectorError::AfterQuote("a".into())));
        for (text, escape) in
            [(r"serial=a\", ""), (r"serial=a\x2", "x2"), (r"serial=\xzz", "xzz"), (r"serial=\x0a", "x0a")]
        {
            assert_eq!(parts(text), Err(SelectorError::Escape(escape.into())), "{text}");
        }
    }
}
