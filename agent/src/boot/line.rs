//! The words of the kernel command line, as bytes: what stands there need not be UTF-8.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_till1, take_while};
use nom::combinator::{map, value};
use nom::multi::{fold_many1, many0};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};
use slidecast_proto::noise::SECRET_TAG;

/// How many characters of a word are shown.
const SHOWN: usize = 80;

/// A word, cut at its first `=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// What stands before the `=`.
    pub(super) name: Vec<u8>,
    /// What stands behind it; `None` without any.
    pub(super) value: Option<Vec<u8>>,
    /// A quote was opened in it and never closed, so that it reaches to the end of the line.
    pub(super) open: bool,
}

impl Word {
    /// The word as it can be shown to people, shortened.
    pub(super) fn shown(&self) -> String {
        let whole = match &self.value {
            Some(value) => [&self.name[..], b"=", value].concat(),
            None => self.name.clone(),
        };
        shown(&whole)
    }

    /// Whether `text` stands anywhere in the word, in small or capital letters.
    pub(super) fn holds(&self, text: &str) -> bool {
        self.has(text, 0)
    }

    /// Whether `text` stands in the word, in small or capital letters, and does not begin it.
    pub(super) fn hides(&self, text: &str) -> bool {
        self.has(text, 1)
    }

    fn has(&self, text: &str, from: usize) -> bool {
        let whole = [&self.name[..], b"=", self.value.as_deref().unwrap_or_default()].concat();
        whole.windows(text.len()).skip(from).any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
    }
}

/// Bytes as text: what is not printable ASCII is written as `\xNN`. A secret key is cut off behind its tag.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"");
    let secret = text.find(SECRET_TAG).map(|at| at + SECRET_TAG.len());
    if text.len() > SHOWN || secret.is_some() {
        text.truncate(secret.unwrap_or(SHOWN).min(SHOWN));
        text.push_str("...");
    }
    text
}

/// The words between spaces of any kind. Quotes keep spaces inside, as for the kernel itself.
pub(super) fn words(line: &[u8]) -> Vec<Word> {
    // Whatever the bytes, each word takes at least one of them.
    let parsed = preceded(spaces, many0(terminated(word, spaces))).parse(line);
    parsed.map(|(_, words): (&[u8], Vec<Word>)| words).unwrap_or_default()
}

fn spaces(input: &[u8]) -> IResult<&[u8], ()> {
    value((), take_while(is_space)).parse(input)
}

/// Those of the kernel's own parser that are ASCII: form feed and vertical tab, too.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn word(input: &[u8]) -> IResult<&[u8], Word> {
    let quote = || tag(&b"\""[..]);
    let quoted = delimited(quote(), take_till(|byte| byte == b'"'), quote());
    // Without its end a quote takes everything that follows.
    let unfinished = preceded(quote(), take_till(|byte| byte == b'"'));
    let plain = take_till1(|byte| byte == b'"' || is_space(byte));
    let piece = alt((
        map(quoted, |bytes| (bytes, false)),
        map(unfinished, |bytes| (bytes, true)),
        map(plain, |bytes| (bytes, false)),
    ));
    let join = |(mut whole, open): (Vec<u8>, bool), (bytes, unfinished): (&[u8], bool)| {
        whole.extend_from_slice(bytes);
        (whole, open | unfinished)
    };
    let (rest, (whole, open)) = fold_many1(piece, Default::default, join).parse(input)?;
    let (name, value) = match whole.iter().position(|byte| *byte == b'=') {
        Some(at) => (whole[..at].to_vec(), Some(whole[at + 1..].to_vec())),
        None => (whole, None),
    };
    Ok((rest, Word { name, value, open }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shapes(line: &[u8]) -> Vec<String> {
        words(line).iter().map(Word::shown).collect()
    }

    #[test]
    fn words_stand_between_spaces_of_every_kind_and_quotes_keep_them() {
        assert_eq!(shapes(b" a\tb=c\x0bd\x0ce\r\n"), ["a", "b=c", "d", "e"]);
        assert_eq!(shapes(b"\"a=b c\" d=\"e f\"g"), ["a=b c", "d=e fg"]);
        assert_eq!(shapes(b""), Vec::<String>::new());
        assert_eq!(shapes(b"\"\""), [""]);
    }

    #[test]
    fn an_open_quote_is_told_from_a_closed_one() {
        let open = |line: &[u8]| words(line).iter().map(|word| word.open).collect::<Vec<_>>();
        assert_eq!(open(b"a \"b c\" d"), [false, false, false]);
        assert_eq!(open(b"a b=\"c d"), [false, true]);
        assert_eq!(open(b"a \""), [false, true]);
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(shapes(b"a=\xff\x1b[2J"), ["a=\\xff\\x1b[2J"]);
        assert_eq!(shown(&[b'x'; 500]).len(), SHOWN + 3);
        assert_eq!(shown(b"x=slidecast-secret-key-v1:00ff"), "x=slidecast-secret-key-v1:...");
        assert!(words(b"a=bSLIDECAST.key=")[0].hides("slidecast.key="));
        assert!(!words(b"slidecast.key=1")[0].hides("slidecast.key="));
    }

    proptest! {
        #[test]
        fn words_are_what_stands_between_spaces(pieces in proptest::collection::vec("[a-z.=0-9]{1,8}", 0..8)) {
            prop_assert_eq!(shapes(pieces.join("  ").as_bytes()), pieces);
        }

        #[test]
        fn every_byte_that_is_no_space_is_in_a_word(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let found: usize = words(&line).iter().map(|word| {
                let bytes = [&word.name[..], word.value.as_deref().unwrap_or_default()].concat();
                bytes.iter().filter(|byte| !is_space(**byte)).count() + usize::from(word.value.is_some())
            }).sum();
            prop_assert_eq!(found, line.iter().filter(|byte| !is_space(**byte) && **byte != b'"').count());
        }
    }
}
