//! What the answer to a request for a range means: decided here, without a connection.

use core::ops::Range;
use core::time::Duration;
use std::io::{self, ErrorKind};

/// How often in a row a request may fail without a single new byte.
const MAX_FAILURES: u32 = 8;
/// The longest wait before a request is made again.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// The longest wait that a server may ask for.
const MAX_ASKED_WAIT: Duration = Duration::from_secs(60);

/// What tells an object from another one under the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Its length.
    pub(super) bytes: u64,
    /// Its entity tag, or else the time of its last change, as the server says it.
    pub(super) tag: Option<String>,
}

/// The head of an answer, as far as it matters.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) status: u16,
    /// `Content-Range`: first byte, last byte, length of the whole.
    pub(super) range: Option<(u64, u64, u64)>,
    pub(super) len: Option<u64>,
    pub(super) tag: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// The code in the body of an S3 error.
    pub(super) code: Option<String>,
    /// Where else it is.
    pub(super) location: Option<String>,
    /// The region of the bucket.
    pub(super) region: Option<String>,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may go well the next time; the server may have said when.
    Passing(String, Option<Duration>),
    /// It will not.
    Final(ErrorKind, String),
}

impl Fault {
    pub(super) fn last(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self::Final(kind, what.into())
    }
}

const CHANGED: &str = "the object was replaced while it was read: start again when it is at rest";
const NO_RANGES: &str = "the server ignores ranges and sends the whole object: it cannot be read piece by piece";

/// Reads the value of a `Content-Range`.
pub(super) fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, total.parse().ok()?))
}

/// What the answer to a request for `asked` is. `known` is what earlier answers said of the object. `Ok` means that the body has the bytes
/// from `asked.start` to the end of `asked` or of the object, whichever comes first.
pub(super) fn judge(head: &Head, asked: &Range<u64>, known: Option<&Identity>) -> Result<Identity, Fault> {
    let whole = head.len.filter(|len| asked.start == 0 && *len <= asked.end);
    let bytes = match (head.status, head.range, whole) {
        (200 | 206, Some((first, last, total)), _) => {
            let end = asked.end.min(total);
            let right = first == asked.start && last.checked_add(1) == Some(end) && first <= last;
            let len_agrees = head.len.is_none_or(|len| len == end.saturating_sub(first));
            if !right || !len_agrees {
                return Err(Fault::last(
                    ErrorKind::InvalidData,
                    "the server answers another range than it was asked for",
                ));
            }
            total
        }
        (200, None, Some(len)) => len,
        (200, None, None) => return Err(Fault::last(ErrorKind::Unsupported, NO_RANGES)),
        (206, None, _) => {
            return Err(Fault::last(ErrorKind::InvalidData, "the server does not say which range it answers"));
        }
        _ => return Err(refusal(head)),
    };
    let found = Identity { bytes, tag: head.tag.clone() };
    match known {
        Some(known) if *known != found => Err(Fault::last(ErrorKind::InvalidData, CHANGED)),
        _ => Ok(found),
    }
}

/// What a status that is no success means.
pub(super) fn refusal(head: &Head) -> Fault {
    let status = head.status;
    let code = head.code.as_ref().map_or(String::new(), |code| format!(", {code}"));
    let said = format!("the server answers {status}{code}");
    match (status, head.code.as_deref()) {
        (_, Some("RequestTimeTooSkewed")) => {
            Fault::last(ErrorKind::PermissionDenied, format!("{said}: the clock of this machine is wrong"))
        }
        (_, Some("ExpiredToken" | "TokenRefreshRequired" | "InvalidToken")) => {
            Fault::last(ErrorKind::PermissionDenied, format!("{said}: the credentials have expired, get new ones"))
        }
        (_, Some("SlowDown")) | (408 | 429 | 500 | 502..=504, _) => Fault::Passing(said, head.retry_after),
        (404 | 410, _) => Fault::last(ErrorKind::NotFound, format!("{said}: there is no such object")),
        (401 | 403, _) => Fault::last(
            ErrorKind::PermissionDenied,
            format!("{said}: it needs credentials, or others than those given"),
        ),
        (412, _) => Fault::last(ErrorKind::InvalidData, CHANGED),
        (416, _) => Fault::last(ErrorKind::InvalidData, "the object is empty, or shorter than it was"),
        (300..=400, _) if head.region.is_some() => {
            let region = head.region.as_deref().unwrap_or_default();
            Fault::last(ErrorKind::Other, format!("{said}: the bucket is in the region {region}: set AWS_REGION"))
        }
        (300..=399, _) if head.location.is_some() => {
            let what = "the server wants this from another address, and this is not followed: name the server itself";
            Fault::last(ErrorKind::Other, format!("{said}: {what}"))
        }
        (300..=399, _) => {
            let what =
                "it is at another address, and the server does not say at which: set AWS_REGION or AWS_ENDPOINT_URL";
            Fault::last(ErrorKind::Other, format!("{said}: {what}"))
        }
        _ => Fault::last(ErrorKind::Other, said),
    }
}

/// What a status that is no success of a write means.
pub(super) fn refusal_of_write(head: &Head) -> Fault {
    match (head.status, head.code.as_deref()) {
        (409 | 412, _) | (_, Some("PreconditionFailed")) => {
            Fault::last(ErrorKind::AlreadyExists, "an object of this name is there already")
        }
        _ => refusal(head),
    }
}

/// How often a request was made for nothing.
#[derive(Debug)]
pub(super) struct Patience {
    failures: u32,
    first_wait: Duration,
}

impl Patience {
    pub(super) fn new(first_wait: Duration) -> Self {
        Self { failures: 0, first_wait }
    }

    /// New bytes came: whatever failed before has passed.
    pub(super) fn progress(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next try; an error where there is none. `random` spreads those who wait for the same server.
    pub(super) fn after(&mut self, fault: Fault, random: u8) -> io::Result<Duration> {
        match fault {
            Fault::Final(kind, what) => Err(io::Error::new(kind, what)),
            Fault::Passing(what, _) if self.failures + 1 >= MAX_FAILURES => {
                let tries = self.failures + 1;
                Err(io::Error::new(ErrorKind::TimedOut, format!("{what}; given up after {tries} tries")))
            }
            Fault::Passing(_, asked) => {
                let wait = self.first_wait.saturating_mul(1 << self.failures).min(MAX_WAIT);
                self.failures += 1;
                // Between half and all of it.
                let spread = wait / 2 + wait.mul_f64(f64::from(random) / 512.0);
                Ok(asked.map_or(spread, |asked| asked.min(MAX_ASKED_WAIT).max(spread)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(range: (u64, u64, u64)) -> Head {
        Head { status: 206, range: Some(range), tag: Some("\"a\"".into()), ..Head::default() }
    }

    fn kind(result: Result<Identity, Fault>) -> ErrorKind {
        match result.unwrap_err() {
            Fault::Final(kind, _) => kind,
            Fault::Passing(..) => ErrorKind::Interrupted,
        }
    }

    #[test]
    fn an_answer_counts_only_if_it_is_the_range_that_was_asked_for_of_the_same_object() {
        let known = Identity { bytes: 100, tag: Some("\"a\"".into()) };
        assert_eq!(judge(&part((10, 19, 100)), &(10..20), None).unwrap(), known);
        assert_eq!(judge(&part((90, 99, 100)), &(90..200), Some(&known)).unwrap(), known);
        let as_200 = Head { status: 200, ..part((10, 19, 100)) };
        assert!(judge(&as_200, &(10..20), None).is_ok(), "the status alone is wrong");
        for wrong in [(11, 19, 100), (10, 18, 100), (10, 20, 100), (19, 10, 100), (10, u64::MAX, 100)] {
            assert_eq!(kind(judge(&part(wrong), &(10..20), None)), ErrorKind::InvalidData, "{wrong:?}");
        }
        let short = Head { len: Some(9), ..part((10, 19, 100)) };
        assert_eq!(kind(judge(&short, &(10..20), None)), ErrorKind::InvalidData);
        assert_eq!(kind(judge(&part((10, 19, 101)), &(10..20), Some(&known))), ErrorKind::InvalidData, "replaced");
        let other = Head { tag: Some("\"b\"".into()), ..part((10, 19, 100)) };
        assert_eq!(kind(judge(&other, &(10..20), Some(&known))), ErrorKind::InvalidData, "replaced");
    }

    #[test]
    fn a_whole_object_in_place_of_a_range_is_taken_only_if_it_is_no_longer() {
        let whole = |len| Head { status: 200, len: Some(len), ..Head::default() };
        assert_eq!(judge(&whole(50), &(0..100), None).unwrap().bytes, 50);
        assert_eq!(kind(judge(&whole(101), &(0..100), None)), ErrorKind::Unsupported);
        assert_eq!(kind(judge(&whole(50), &(10..100), None)), ErrorKind::Unsupported);
    }

    #[test]
    fn each_refusal_says_what_to_do_and_only_passing_ones_are_tried_again() {
        let refused = |status, code: Option<&str>| {
            let code = code.map(str::to_owned);
            kind(judge(&Head { status, code, ..Head::default() }, &(0..10), None))
        };
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(refused(status, None), ErrorKind::Interrupted);
        }
        assert_eq!(refused(404, None), ErrorKind::NotFound);
        assert_eq!(refused(403, Some("RequestTimeTooSkewed")), ErrorKind::PermissionDenied);
        assert_eq!(refused(400, Some("ExpiredToken")), ErrorKind::PermissionDenied);
        assert_eq!(refused(412, None), ErrorKind::InvalidData);
        assert_eq!(refused(301, None), ErrorKind::Other);
        assert_eq!(content_range("bytes 0-9/10"), Some((0, 9, 10)));
        assert!(content_range("bytes */10").is_none() && content_range("bytes 0-9/*").is_none());
    }

    #[test]
    fn waits_grow_and_end_and_new_bytes_begin_anew() {
        let mut patience = Patience::new(Duration::from_millis(200));
        let mut fails = |asked| patience.after(Fault::Passing("busy".into(), asked), 255);
        let (first, second) = (fails(None).unwrap(), fails(None).unwrap());
        assert!(first <= Duration::from_millis(200) && second > first);
        assert!(fails(Some(Duration::from_secs(30))).unwrap() >= Duration::from_secs(30));
        assert!(fails(Some(Duration::MAX)).unwrap() <= Duration::from_secs(60));
        patience.progress();
        let waits = (0..20).map(|_| patience.after(Fault::Passing("busy".into(), None), 0));
        let ended = waits.take_while(Result::is_ok).count();
        assert_eq!(ended, 7);
    }
}
