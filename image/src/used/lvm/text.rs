//! The text in which LVM2 keeps a volume group: `key = value` and `key { ... }`, as in its configuration files.
//!
//! Only what LVM2 writes itself is read. Anything else, and a key that is there twice, makes the whole text unusable.

/// Sections inside of sections.
const MAX_DEPTH: usize = 8;

/// What stands behind a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number that is not negative.
    Number(u64),
    /// What stands between quotation marks, as it is; or a word without them.
    Text(&'a str),
    /// A list, without lists in it.
    List(Vec<Self>),
    /// `{ ... }`
    Section(Section<'a>),
}

/// Keys and values, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section<'a>(pub(super) Vec<(&'a str, Value<'a>)>);

impl<'a> Section<'a> {
    /// Reads a whole text, which may end with a zero byte.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = core::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()?;
        let mut parser = Parser { rest: text };
        let section = parser.section(0)?;
        parser.rest.is_empty().then_some(section)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        if let Some(Value::Number(number)) = self.get(key) { Some(*number) } else { None }
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        if let Some(Value::Text(text)) = self.get(key) { Some(text) } else { None }
    }

    pub(super) fn list(&self, key: &str) -> Option<&[Value<'a>]> {
        if let Some(Value::List(list)) = self.get(key) { Some(list) } else { None }
    }

    pub(super) fn section(&self, key: &str) -> Option<&Self> {
        if let Some(Value::Section(section)) = self.get(key) { Some(section) } else { None }
    }

    /// Its sections, with their names.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&'a str, &Self)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((*name, section)),
            _ => None,
        })
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let Some(comment) = self.rest.strip_prefix('#') else { return };
            self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    /// Takes `mark` if it is next.
    fn take(&mut self, mark: char) -> Option<()> {
        self.skip();
        self.rest = self.rest.strip_prefix(mark)?;
        Some(())
    }

    /// A key, a number or a word without quotation marks.
    fn word(&mut self) -> Option<&'a str> {
        self.skip();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
        let len = self.rest.bytes().take_while(|byte| is_part(*byte)).count();
        let (word, rest) = self.rest.split_at(len);
        self.rest = rest;
        (len > 0).then_some(word)
    }

    /// The keys and values up to the end of the text or, inside of another section, to its bracket.
    fn section(&mut self, depth: usize) -> Option<Section<'a>> {
        let mut found = Vec::new();
        loop {
            self.skip();
            if self.rest.is_empty() && depth == 0 {
                break;
            }
            if depth > 0 && self.take('}').is_some() {
                break;
            }
            let key = self.word()?;
            let value = if self.take('{').is_some() {
                if depth == MAX_DEPTH {
                    return None;
                }
                Value::Section(self.section(depth + 1)?)
            } else {
                self.take('=')?;
                self.value()?
            };
            found.push((key, value));
        }
        let mut keys: Vec<&str> = found.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.windows(2).all(|pair| pair[0] != pair[1]).then_some(Section(found))
    }

    fn value(&mut self) -> Option<Value<'a>> {
        if self.take('[').is_none() {
            return self.scalar();
        }
        let mut list = Vec::new();
        while self.take(']').is_none() {
            if !list.is_empty() {
                self.take(',')?;
            }
            list.push(self.scalar()?);
        }
        Some(Value::List(list))
    }

    fn scalar(&mut self) -> Option<Value<'a>> {
        self.skip();
        let Some(text) = self.rest.strip_prefix('"') else {
            let word = self.word()?;
            return Some(word.parse().map_or(Value::Text(word), Value::Number));
        };
        let mut escaped = false;
        let end = text.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.rest = &text[end + 1..];
        Some(Value::Text(&text[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Section<'_>> {
        Section::parse(text.as_bytes())
    }

    #[test]
    fn keys_values_lists_and_sections_are_found_and_comments_are_not() {
        let text = "# a comment\nvg {\n\tid = \"a-b\" # \"another\n n=18446744073709551615\nlist = [\"pv0\", 0,\n\"x\", 7]\nempty = []\n\
                    deep { deeper { t = \"with \\\" and # \\\\\" } } neg = -1 }\nversion = 1\0";
        let found = parse(text).unwrap();
        assert_eq!(found.number("version"), Some(1));
        let (name, group) = found.sections().next().unwrap();
        assert_eq!((name, group.text("id"), group.number("n")), ("vg", Some("a-b"), Some(u64::MAX)));
        let list = [Value::Text("pv0"), Value::Number(0), Value::Text("x"), Value::Number(7)];
        assert_eq!((group.list("list"), group.list("empty")), (Some(&list[..]), Some(&[][..])));
        let deeper = group.section("deep").unwrap().section("deeper").unwrap();
        assert_eq!(deeper.text("t"), Some("with \\\" and # \\\\"));
        assert_eq!((group.number("neg"), group.text("neg")), (None, Some("-1")));
    }

    #[test]
    fn what_lvm_does_not_write_is_refused() {
        for text in [
            "a",
            "a =",
            "a {",
            "a = {}",
            "}",
            "a = 1 }",
            "a = [1",
            "a = [1 2]",
            "a = [1,]",
            "a = [[1]]",
            "a = \"x",
            "a = 1 a = 2",
            "a { b = 1 b { } }",
            "a/b = 1",
            "\"a\" = 1",
            "a = 1\0\0",
            "a = @x",
            "= 1",
            "a = 'x'",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(Section::parse(b"a = \"\xFF\""), None);
        let deep = |depth| "a {".repeat(depth) + &"}".repeat(depth);
        assert!(parse(&deep(MAX_DEPTH)).is_some());
        assert_eq!(parse(&deep(MAX_DEPTH + 1)), None);
        assert_eq!(parse(&"a {".repeat(1 << 20)), None);
    }
}
