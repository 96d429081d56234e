//! The domains in which short names are looked up: option 119 (RFC 3397, with the compression of RFC 1035), or else the one
//! domain of option 15.

/// How many domains are kept, and how many bytes they may have together: more is cut by the C library's resolver.
const MOST: usize = 6;
const BYTES: usize = 240;
/// The longest name of RFC 1035.
const NAME: usize = 253;

/// The value of option 119. Names that no host can have are left out; where the value stops making sense, so does the list.
pub(super) fn search_list(value: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < value.len() {
        let Some((name, next)) = name(value, at) else { break };
        at = next;
        keep(&mut found, name);
    }
    found
}

/// The value of option 15. Some servers put several domains there, with spaces between.
pub(super) fn domain(value: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let text = str::from_utf8(value).unwrap_or_default();
    text.trim_end_matches('\0').split_ascii_whitespace().for_each(|name| keep(&mut found, name.to_owned()));
    found
}

fn keep(found: &mut Vec<String>, name: String) {
    let name = name.trim_end_matches('.');
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let used: usize = found.iter().map(|name| name.len() + 1).sum();
    let fits = found.len() < MOST && used + name.len() <= BYTES && name.len() <= NAME;
    if fits && !name.is_empty() && name.bytes().all(fine) && !found.iter().any(|known| known == name) {
        found.push(name.to_owned());
    }
}

/// The name that begins at `at`, and where the next one does.
fn name(value: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut at, mut next, mut name) = (at, None, String::new());
    loop {
        let len = *value.get(at)?;
        match len >> 6 {
            0 if len == 0 => return Some((name, next.unwrap_or(at + 1))),
            0 => {
                let label = value.get(at + 1..at + 1 + usize::from(len))?;
                name.extend(label.iter().map(|byte| char::from(*byte)));
                name.push('.');
                at += 1 + usize::from(len);
            }
            3 => {
                let target = usize::from(len & 0x3f) << 8 | usize::from(*value.get(at + 1)?);
                // Each pointer leads further back: none leads round in circles.
                if target >= at {
                    return None;
                }
                next.get_or_insert(at + 2);
                at = target;
            }
            _ => return None,
        }
        // Labels may be read more than once, but only so many.
        if name.len() > 2 * NAME {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_search_list_is_read_with_its_compression() {
        // The example of RFC 3397, section 2: eng.apple.com. and marketing.apple.com.
        let value = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        assert_eq!(search_list(value), ["eng.apple.com", "marketing.apple.com"]);
    }

    #[test]
    fn pointers_that_lead_nowhere_or_round_in_circles_end_the_list() {
        for value in [&b"\x01a\x00\xc0\x03"[..], b"\x01a\x00\x01b\xc0\xff", b"\x01a\x00\x3fshort", b"\x01a\x00\x80"] {
            assert_eq!(search_list(value), ["a"], "{value:?}");
        }
        assert_eq!(search_list(b"\xc0\x00"), Vec::<String>::new());
        assert_eq!(search_list(b"\x01a\xc0\x00"), Vec::<String>::new());
    }

    #[test]
    fn names_that_no_host_can_have_are_left_out() {
        assert_eq!(search_list(b"\x03a\nb\x00\x01c\x00\x01c\x00"), ["c"]);
        assert_eq!(domain(b"lab.test\0"), ["lab.test"]);
        assert_eq!(domain(b"lab.test. x.test"), ["lab.test", "x.test"]);
        assert_eq!(domain(b"lab.test\noptions"), ["lab.test", "options"]);
        assert_eq!(domain(b"\xff"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_all_fits_one_line(value in proptest::collection::vec(any::<u8>(), 0..600)) {
            for found in [search_list(&value), domain(&value)] {
                let line = found.join(" ");
                prop_assert!(found.len() <= MOST && line.len() <= BYTES + MOST);
                prop_assert!(line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
            }
        }
    }
}
