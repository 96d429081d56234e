//! What a machine asks for over HTTP: the bytes of a request's head, and which part of a file they mean.

/// The longest head of a request.
pub(super) const MAX_HEAD: usize = 8 << 10;
const MAX_FIELDS: usize = 48;

/// A method that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
}

/// A part of a file, as asked for (RFC 9110, section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// From one byte to another one, or to the end.
    From(u64, Option<u64>),
    /// So many bytes at the end.
    Last(u64),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) range: Option<Asked>,
    /// The connection may carry another request.
    pub(super) stays: bool,
}

/// What some bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a request.
    Partial,
    /// A request and how many bytes it has.
    Whole(Request, usize),
    /// Nothing that is served; this status is the answer.
    Refused(u16),
}

/// Reads the head of a request.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(431),
        Err(_) => return Parsed::Refused(400),
    };
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => return Parsed::Refused(405),
    };
    let field =
        |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
    let has_body = field("content-length").is_some_and(|value| value != b"0") || field("transfer-encoding").is_some();
    if has_body {
        return Parsed::Refused(400);
    }
    let says = |word: &str| field("connection").is_some_and(|value| has_word(value, word));
    let stays = if head.version == Some(1) { !says("close") } else { says("keep-alive") };
    let range = field("range").and_then(|value| std::str::from_utf8(value).ok()).and_then(range);
    let path = head.path.unwrap_or_default().to_owned();
    Parsed::Whole(Request { method, path, range, stays }, len)
}

fn has_word(value: &[u8], word: &str) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// One range of bytes. Anything else may be ignored, and is: the answer is then the whole file.
fn range(value: &str) -> Option<Asked> {
    let (first, last) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (first, last) {
        ("", last) => number(last).map(Asked::Last),
        (first, "") => number(first).map(|first| Asked::From(first, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Asked::From(first, Some(last)))
        }
    }
}

impl Asked {
    /// The bytes of a file of `len` that are meant, from the first to before the last; none: there are none.
    pub(super) fn of(self, len: u64) -> Option<(u64, u64)> {
        match self {
            Self::From(first, last) => {
                let end = last.map_or(len, |last| last.saturating_add(1).min(len));
                (first < end).then_some((first, end))
            }
            Self::Last(count) => {
                let first = len.saturating_sub(count);
                (first < len).then_some((first, len))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Whole(request, len) => {
                assert_eq!(len, text.len());
                request
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_of_firmware_and_ipxe_are_understood() {
        let ipxe = whole(
            "GET /vmlinuz HTTP/1.1\r\nConnection: keep-alive\r\nUser-Agent: iPXE/1.0.0+\r\nHost: 10.0.0.1:7580\r\n\r\n",
        );
        assert_eq!(ipxe, Request { method: Method::Get, path: "/vmlinuz".to_owned(), range: None, stays: true });
        let efi = whole(
            "HEAD /slidecast.efi HTTP/1.1\r\nHost: 10.0.0.1\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n",
        );
        assert_eq!((efi.method, efi.stays), (Method::Head, true));
    }

    #[test]
    fn connections_stay_as_the_version_and_the_field_say() {
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").stays);
        assert!(whole("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").stays);
        assert!(!whole("GET / HTTP/1.1\r\nconnection: te, CLOSE\r\n\r\n").stays);
    }

    #[test]
    fn a_range_is_understood_and_odd_ones_are_ignored() {
        let asked = |range: &str| whole(&format!("GET / HTTP/1.1\r\nRange: {range}\r\n\r\n")).range;
        assert_eq!(asked("bytes=0-99").unwrap().of(50), Some((0, 50)));
        assert_eq!(asked("bytes=10-19").unwrap().of(50), Some((10, 20)));
        assert_eq!(asked("bytes=10-").unwrap().of(50), Some((10, 50)));
        assert_eq!(asked("bytes=-5").unwrap().of(50), Some((45, 50)));
        assert_eq!(asked("bytes=-500").unwrap().of(50), Some((0, 50)));
        assert_eq!(asked("bytes=50-").unwrap().of(50), None);
        assert_eq!(asked("bytes=-0").unwrap().of(50), None);
        assert_eq!(asked("bytes=0-18446744073709551615").unwrap().of(50), Some((0, 50)));
        for odd in ["bytes=5-4", "bytes=0-1,3-4", "items=0-1", "bytes=+1-2", "bytes=-", "bytes=99999999999999999999-"] {
            assert_eq!(asked(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_is_no_request_for_a_file_is_refused() {
        assert_eq!(parse(b"POST /vmlinuz HTTP/1.1\r\n\r\n"), Parsed::Refused(405));
        assert_eq!(parse(b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), Parsed::Refused(400));
        assert_eq!(parse(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), Parsed::Refused(400));
        assert_eq!(parse(b"\x16\x03\x01\x02\0"), Parsed::Refused(400));
        assert_eq!(parse(b"GET /vmlinuz HTTP/2.0\r\n\r\n"), Parsed::Refused(400));
    }

    #[test]
    fn a_head_is_bounded_in_bytes_and_fields() {
        let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
        long.resize(MAX_HEAD - 1, b'x');
        assert_eq!(parse(&long), Parsed::Partial);
        long.push(b'x');
        assert_eq!(parse(&long), Parsed::Refused(431));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(parse(many.as_bytes()), Parsed::Refused(431));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_range_never_leaves_the_file(first in any::<u64>(), last in any::<Option<u64>>(), len in any::<u64>()) {
            for asked in [Asked::From(first, last), Asked::Last(first)] {
                if let Some((from, to)) = asked.of(len) {
                    prop_assert!(from < to && to <= len);
                }
            }
        }
    }
}
