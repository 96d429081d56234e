//! The bytes of one record of `/dev/kmsg` (the kernel's Documentation/ABI/testing/dev-kmsg).
//!
//! ```text
//! PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,MORE];TEXT\n
//!  KEY=VALUE\n
//! ```
//!
//! The priority is eight times the facility, which is 0 for the kernel's own words, plus the level of syslog. What is not
//! printable stands as `\xNN`, in the text and in the values.

use nom::bytes::complete::{tag, take_till};
use nom::character::complete::{u32 as number, u64 as long_number};
use nom::{IResult, Parser};
use slidecast_proto::hex;

/// The longest text that is kept, in bytes.
const TEXT: usize = 240;
/// The longest value.
const VALUE: usize = 64;

/// What the kernel said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// 0 is an emergency, 3 an error, 4 a warning, 7 for programmers.
    pub(super) level: u32,
    /// 0: the kernel itself. Programs that write to its log have others.
    pub(super) facility: u32,
    /// Since the machine was started.
    pub(super) microseconds: u64,
    /// One line, without control characters.
    pub(super) text: String,
    /// `SUBSYSTEM=`, or nothing.
    pub(super) subsystem: String,
    /// `DEVICE=`, or nothing: `+scsi:0:0:0:0`, `b8:0`, `n2`.
    pub(super) device: String,
}

impl Record {
    /// Reads one record; `None` where it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (rest, (priority, microseconds)) = prefix(bytes).ok()?;
        let mut lines = rest.split(|byte| *byte == b'\n');
        let text = printable(lines.next()?, TEXT);
        let mut record = Self { level: priority & 7, facility: priority >> 3, microseconds, text, ..Self::default() };
        for line in lines.filter_map(|line| line.strip_prefix(b" ")) {
            if let Some(value) = line.strip_prefix(b"SUBSYSTEM=") {
                record.subsystem = printable(value, VALUE);
            } else if let Some(value) = line.strip_prefix(b"DEVICE=") {
                record.device = printable(value, VALUE);
            }
        }
        Some(record)
    }
}

fn prefix(input: &[u8]) -> IResult<&[u8], (u32, u64)> {
    let comma = || tag(&b","[..]);
    let (rest, (priority, _, _sequence, _, microseconds)) =
        (number, comma(), long_number, comma(), long_number).parse(input)?;
    // Flags, and whatever a later kernel adds.
    let (rest, _) = (take_till(|byte| byte == b';'), tag(&b";"[..])).parse(rest)?;
    Ok((rest, (priority, microseconds)))
}

/// The text with its escapes undone, control characters as spaces, at most `most` bytes.
fn printable(mut bytes: &[u8], most: usize) -> String {
    let mut plain = Vec::new();
    while let Some((&byte, rest)) = bytes.split_first() {
        let escaped = bytes.strip_prefix(b"\\x").and_then(|rest| rest.split_first_chunk::<2>());
        let escaped = escaped.and_then(|(digits, rest)| Some((hex::byte(*digits)?, rest)));
        let (byte, rest) = escaped.unwrap_or((byte, rest));
        plain.push(byte);
        bytes = rest;
        if plain.len() > most {
            break;
        }
    }
    let text = String::from_utf8_lossy(&plain);
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > most {
            break;
        }
        out.push(c);
    }
    out.trim().to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::boot::kmsg) fn record(bytes: &[u8]) -> Record {
        Record::parse(bytes).unwrap()
    }

    #[test]
    fn a_record_is_read_with_its_level_time_and_device() {
        let disk = record(b"3,514,7123456,-;sd 0:0:0:0: [sda] tag#3 Sense Key : Medium Error\n SUBSYSTEM=scsi\n DEVICE=+scsi:0:0:0:0\n");
        assert_eq!((disk.level, disk.facility, disk.microseconds), (3, 0, 7_123_456));
        assert_eq!(disk.text, "sd 0:0:0:0: [sda] tag#3 Sense Key : Medium Error");
        assert_eq!((disk.subsystem.as_str(), disk.device.as_str()), ("scsi", "+scsi:0:0:0:0"));
        let program = record(b"12,1,2,-;hello\n");
        assert_eq!((program.level, program.facility), (4, 1));
        // A later kernel adds the caller.
        assert_eq!(record(b"6,339,5140900,-,caller=T1;NET: Registered\n").text, "NET: Registered");
        assert_eq!(record(b"4,1,2,c;part of a line").text, "part of a line");
    }

    #[test]
    fn escapes_are_undone_and_control_characters_are_spaces() {
        assert_eq!(record(b"3,1,2,-;a\\x5cb \\x1b[2J \\xc3\\xa4 \\xzz \\x\n").text, "a\\b  [2J \u{e4} \\xzz \\x");
        assert_eq!(record(b"3,1,2,-;\\x0a\\xff\n").text, "\u{fffd}");
    }

    #[test]
    fn what_is_no_record_is_none() {
        for bytes in [&b""[..], b"hello", b"3,1,2,-", b"x,1,2,-;a", b"3,1;a", b"99999999999,1,2,-;a"] {
            assert_eq!(Record::parse(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_the_text_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Record::parse(&bytes);
            let found = record(&[&b"3,1,2,-;"[..], &bytes].concat());
            prop_assert!(found.text.len() <= TEXT && !found.text.chars().any(char::is_control));
        }
    }
}
