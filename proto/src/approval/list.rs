//! A list of machines that may take part: a text with one of them on each line.

use crate::control::Hello;
use crate::hex;
use crate::noise::{KeyError, PublicKey};
use core::fmt;

/// The longest list, in bytes.
pub const MAX_LIST: usize = 4 << 20;

/// What a machine is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The hardware address of one of its network cards.
    Mac([u8; 6]),
    /// The serial number of one of its disks.
    Serial(String),
    /// The key of its agent, which the handshake proves.
    Key(PublicKey),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => hex::write_mac(f, *mac),
            Self::Serial(serial) => write!(f, "serial={serial}"),
            Self::Key(key) => write!(f, "key={key}"),
        }
    }
}

impl Identity {
    /// All that an agent with this hello and this key is known by.
    pub(crate) fn all_of(hello: &Hello, key: Option<PublicKey>) -> impl Iterator<Item = Self> {
        let macs = hello.cards.iter().map(|card| Self::Mac(card.mac));
        let serials = hello.disks.iter().map(|disk| disk.serial.trim()).filter(|serial| !serial.is_empty());
        // The key first: it is the one that nobody else can say.
        key.map(Self::Key).into_iter().chain(macs).chain(serials.map(|serial| Self::Serial(serial.to_owned())))
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadEntry {
    /// It is no UTF-8.
    NotText,
    /// It is none of the three.
    Unknown(String),
    /// It looks like a hardware address and is none.
    Mac(String),
    /// No card has this hardware address: it is zero, or that of a group.
    NoCard(String),
    /// Nothing stands behind `serial=`.
    NoSerial,
    /// What stands behind `key=` is no public key.
    Key(KeyError),
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WANTED: &str = "expected a hardware address (aa:bb:cc:dd:ee:ff), serial=S or key=K";
        match self {
            Self::NotText => write!(f, "this is no UTF-8 text; {WANTED}"),
            Self::Unknown(text) => write!(f, "{text:?} names no machine; {WANTED}"),
            Self::Mac(text) => write!(f, "{text:?} is no hardware address; {WANTED}"),
            Self::NoCard(text) => write!(f, "no network card has the hardware address {text}"),
            Self::NoSerial => f.write_str("serial= needs the serial number of a disk"),
            Self::Key(error) => write!(f, "key=: {error}"),
        }
    }
}

/// Why a list can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListError {
    /// A line is wrong.
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        what: BadEntry,
    },
    /// No machine is on it.
    Empty,
    /// It is longer than [`MAX_LIST`].
    TooLong,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, what } => write!(f, "line {line}: {what}"),
            Self::Empty => f.write_str("no machine is on this list"),
            Self::TooLong => write!(f, "a list has at most {} MiB", MAX_LIST >> 20),
        }
    }
}

impl core::error::Error for ListError {}

/// Reads a list: hardware addresses, `serial=S` and `key=K`, one a line. What follows a `#` at the start of a line or behind white
/// space is for people.
///
/// # Errors
/// [`ListError`], of the first line that is wrong. A secret key in it is not shown.
pub fn parse_list(bytes: &[u8]) -> Result<Vec<Identity>, ListError> {
    if bytes.len() > MAX_LIST {
        return Err(ListError::TooLong);
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut list = Vec::new();
    for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let text = core::str::from_utf8(bytes).map_err(|_| ListError::Line { line, what: BadEntry::NotText })?;
        let entry = without_comment(text).trim();
        if !entry.is_empty() {
            list.push(parse_entry(entry).map_err(|what| ListError::Line { line, what })?);
        }
    }
    if list.is_empty() { Err(ListError::Empty) } else { Ok(list) }
}

fn without_comment(line: &str) -> &str {
    let starts = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').map(|(at, _)| at).find(|at| starts(*at));
    &line[..comment.unwrap_or(line.len())]
}

fn parse_entry(entry: &str) -> Result<Identity, BadEntry> {
    if let Some(serial) = entry.strip_prefix("serial=") {
        let serial = serial.trim();
        return if serial.is_empty() { Err(BadEntry::NoSerial) } else { Ok(Identity::Serial(serial.to_owned())) };
    }
    if let Some(key) = entry.strip_prefix("key=") {
        return key.parse().map(Identity::Key).map_err(BadEntry::Key);
    }
    if !entry.contains([':', '-']) || entry.len() > 40 {
        // It may be a key without its `key=`, and that a secret one: not more of it than tells which line is meant.
        return Err(BadEntry::Unknown(entry.chars().take(12).collect()));
    }
    let mac = hex::parse_mac(entry, if entry.contains(':') { ':' } else { '-' })
        .ok_or_else(|| BadEntry::Mac(entry.to_owned()))?;
    let is_group = mac[0] & 1 != 0;
    if mac == [0; 6] || is_group { Err(BadEntry::NoCard(entry.to_owned())) } else { Ok(Identity::Mac(mac)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::SecretKey;
    use proptest::prelude::*;

    fn wrong(text: &str) -> String {
        parse_list(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_list_has_addresses_serials_keys_and_words_for_people() {
        let key = SecretKey::generate().unwrap().public();
        let text = format!(
            "\u{feff}# room 7\r\n\r\n52:54:00:Ab:cd:EF  # pc1\r\n52-54-00-00-00-01\n  serial= WD X-1#2 # a disk\nkey={key}\n\
             key={}\n\t# the end",
            key.to_line()
        );
        let expected = [
            Identity::Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]),
            Identity::Mac([0x52, 0x54, 0, 0, 0, 1]),
            Identity::Serial("WD X-1#2".to_owned()),
            Identity::Key(key),
            Identity::Key(key),
        ];
        assert_eq!(parse_list(text.as_bytes()).unwrap(), expected);
        assert_eq!(expected[0].to_string(), "52:54:00:ab:cd:ef");
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        assert_eq!(
            wrong("# a\n52:54:00:00:00:01\npc7\n"),
            "line 3: \"pc7\" names no machine; expected a hardware address (aa:bb:cc:dd:ee:ff), serial=S or key=K"
        );
        for text in
            ["52:54:00:00:00", "52:54:00:00:00:01:02", "52:54:00:00:00:0g", "52:54-00:00:00:01", "+2:54:00:00:00:01"]
        {
            assert!(wrong(text).starts_with(&format!("line 1: {text:?} is no hardware address")), "{}", wrong(text));
        }
        for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            assert!(wrong(text).starts_with("line 1: no network card has"), "{}", wrong(text));
        }
        assert_eq!(wrong("\nserial= # none"), "line 2: serial= needs the serial number of a disk");
        assert!(wrong("key=0011").starts_with("line 1: key=: a key has 64"));
        assert_eq!(
            parse_list(b"a:b\n\xff").unwrap_err(),
            ListError::Line { line: 1, what: BadEntry::Mac("a:b".into()) }
        );
        assert_eq!(parse_list(b"\n\xff").unwrap_err(), ListError::Line { line: 2, what: BadEntry::NotText });
    }

    #[test]
    fn a_list_without_a_machine_or_without_an_end_is_none() {
        assert_eq!(parse_list(b""), Err(ListError::Empty));
        assert_eq!(parse_list(b"# nobody\n\n"), Err(ListError::Empty));
        assert_eq!(parse_list(&vec![b'\n'; MAX_LIST + 1]), Err(ListError::TooLong));
    }

    #[test]
    fn a_secret_key_in_a_list_is_refused_and_not_shown() {
        let secret = SecretKey::generate().unwrap();
        for text in [format!("key={}", *secret.to_line()), secret.to_line().to_string(), secret.to_hex().to_string()] {
            let line = wrong(&text);
            assert!(!line.contains(&secret.to_hex()[16..]), "{line}");
        }
        assert!(wrong(&format!("key={}", *secret.to_line())).contains("this is a secret key"));
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_list(&bytes);
        }

        #[test]
        fn every_identity_survives_its_text(mac in any::<[u8; 6]>(), serial in "[!-~]{1,20}( [!-~&&[^#]]{1,5})?") {
            let mut mac = mac;
            mac[0] = mac[0] & 0xfe | 2;
            let list = [Identity::Mac(mac), Identity::Serial(serial.trim_start_matches('#').trim().to_owned())];
            prop_assume!(list[1] != Identity::Serial(String::new()));
            let text = format!("{}\n{}\n", list[0], list[1]);
            prop_assert_eq!(parse_list(text.as_bytes()).unwrap(), list);
        }
    }
}
