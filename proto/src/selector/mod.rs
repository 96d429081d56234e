//! Which disk of a node is the target: exactly one, or none with a reason.
//!
//! Two selectors must hold, the server's and the agent's own. Where both are empty, every disk that cannot be a target is
//! left out and exactly one must remain. Where something was asked for, exactly one disk must be it, and then that disk
//! must be able to be the target. Nothing here ever guesses.

mod choose;
mod glob;
mod text;

pub use choose::{Refusal, choose};

use crate::control::{Disk, MAX_LINE};
use crate::quantity::parse_bytes;
use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;
use text::Written;

/// What a target must be: `/dev/PATH`, `serial=S`, `wwn=W`, `model=GLOB`, `size=A..B`, `transport=T`, with a comma for
/// "and". The empty one is any disk. A value with a comma of its own stands in quotes (`model='ACME, Inc.*'`) or has a
/// backslash before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Path(String),
    Serial(String),
    Wwn(String),
    Model(String),
    Size(RangeInclusive<u64>, String),
    Transport(String),
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorError {
    /// This part is none of those there are.
    UnknownPart(String),
    /// Nothing stands after this word and its equals sign, or between two commas.
    Empty(&'static str),
    /// This part is there twice.
    Repeated(&'static str),
    /// This is no range of sizes.
    Size(String),
    /// The quote before this text is not closed.
    OpenQuote(String),
    /// Something other than a comma stands behind the quotes around this text.
    AfterQuote(String),
    /// A backslash stands before this, which makes no character.
    Escape(String),
    /// It is longer than [`MAX_LINE`] bytes.
    TooLong,
    /// It has control characters.
    ControlCharacter,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPart(part) => {
                write!(f, "{part:?} is none of /PATH, serial=S, wwn=W, model=GLOB, size=A..B, transport=T")
            }
            Self::Empty(part) => write!(f, "{part} is empty"),
            Self::Repeated(part) => write!(f, "{part} is given twice"),
            Self::Size(range) => write!(f, "{range:?} is no range of sizes such as 100G..1T, 100G.. or ..1T"),
            Self::OpenQuote(text) => write!(f, "the quote before {text:?} is not closed"),
            Self::AfterQuote(text) => write!(f, "only a comma may follow the quotes around {text:?}"),
            Self::Escape(text) if text.is_empty() => f.write_str("a backslash at the end stands for nothing"),
            Self::Escape(text) => {
                write!(
                    f,
                    "\\{text} is no character; expected \\xHH with 20 to 7e, or \\ before a comma or another character"
                )
            }
            Self::TooLong => write!(f, "a selector has at most {MAX_LINE} bytes"),
            Self::ControlCharacter => f.write_str("a selector has no control characters"),
        }
    }
}

impl std::error::Error for SelectorError {}

impl Part {
    const fn name(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Serial(_) => "serial",
            Self::Wwn(_) => "wwn",
            Self::Model(_) => "model",
            Self::Size(..) => "size",
            Self::Transport(_) => "transport",
        }
    }

    fn read(written: Written) -> Result<Self, SelectorError> {
        let Written { name, value } = written;
        let Some(name) = name else {
            return match &value[..] {
                "" => Err(SelectorError::Empty("a part")),
                path if path.starts_with('/') => Ok(Self::Path(value)),
                _ => Err(SelectorError::UnknownPart(value)),
            };
        };
        let part = match &name[..] {
            "serial" => Self::Serial(value.clone()),
            "wwn" => Self::Wwn(value.clone()),
            "model" => Self::Model(value.clone()),
            "size" => Self::Size(parse_range(&value)?, value.clone()),
            "transport" => Self::Transport(value.clone()),
            _ => return Err(SelectorError::UnknownPart(format!("{name}={value}"))),
        };
        if value.is_empty() { Err(SelectorError::Empty(part.name())) } else { Ok(part) }
    }

    fn matches(&self, disk: &Disk) -> bool {
        match self {
            Self::Path(path) => disk.is_at(path),
            Self::Serial(serial) => disk.serial.trim() == serial,
            Self::Wwn(wwn) => !disk.wwn.is_empty() && bare_wwn(&disk.wwn).eq_ignore_ascii_case(bare_wwn(wwn)),
            Self::Model(model) => glob::matches(model, disk.model.trim()),
            Self::Size(range, _) => range.contains(&disk.bytes),
            Self::Transport(transport) => disk.transport.eq_ignore_ascii_case(transport),
        }
    }
}

/// `A..B` with both ends in it; either may be missing. A lone size is both ends.
fn parse_range(text: &str) -> Result<RangeInclusive<u64>, SelectorError> {
    let error = || SelectorError::Size(text.to_owned());
    let size = |text: &str| parse_bytes(text).map_err(|_| error());
    let (from, to) = match text.split_once("..") {
        None => (size(text)?, size(text)?),
        Some(("", "")) => return Err(error()),
        Some(("", to)) => (0, size(to)?),
        Some((from, "")) => (size(from)?, u64::MAX),
        Some((from, to)) => (size(from)?, size(to)?),
    };
    if from <= to { Ok(from..=to) } else { Err(error()) }
}

/// A world wide name without the prefix that some tools put before it.
fn bare_wwn(wwn: &str) -> &str {
    let wwn = wwn.trim();
    ["wwn-0x", "naa.", "eui.", "uuid.", "0x"].into_iter().find_map(|prefix| wwn.strip_prefix(prefix)).unwrap_or(wwn)
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// [`SelectorError`] names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > usize::from(MAX_LINE) {
            return Err(SelectorError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(SelectorError::ControlCharacter);
        }
        let mut parts = Vec::<Part>::new();
        for written in text::parts(text)? {
            let part = Part::read(written)?;
            if parts.iter().any(|other| other.name() == part.name()) {
                return Err(SelectorError::Repeated(part.name()));
            }
            parts.push(part);
        }
        Ok(Self { parts })
    }

    /// Nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The path that is asked for, if one is.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.parts.iter().find_map(|part| match part {
            Part::Path(path) => Some(&path[..]),
            _ => None,
        })
    }

    /// The same selector with another path, if it has one: links such as `/dev/disk/by-id/..` are for the agent to follow
    /// before it compares.
    #[must_use]
    pub fn map_path(mut self, follow: impl Fn(&str) -> String) -> Self {
        for part in &mut self.parts {
            if let Part::Path(path) = part {
                *path = follow(path);
            }
        }
        self
    }

    /// The disk is all that is asked for.
    #[must_use]
    pub fn matches(&self, disk: &Disk) -> bool {
        self.parts.iter().all(|part| part.matches(disk))
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (no, part) in self.parts.iter().enumerate() {
            let comma = if no == 0 { "" } else { "," };
            match part {
                Part::Path(path) => {
                    f.write_str(comma)?;
                    text::write(f, path)?;
                }
                Part::Serial(value)
                | Part::Wwn(value)
                | Part::Model(value)
                | Part::Size(_, value)
                | Part::Transport(value) => {
                    write!(f, "{comma}{}=", part.name())?;
                    text::write(f, value)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::choose::tests::disk;
    use proptest::prelude::*;

    fn matches(selector: &str, disk: &Disk) -> bool {
        Selector::parse(selector).unwrap().matches(disk)
    }

    #[test]
    fn every_part_is_compared_and_a_comma_means_and() {
        let disk = Disk {
            model: "ACME Fast 1TB ".into(),
            serial: " S1".into(),
            wwn: "naa.5002538F31234567".into(),
            transport: "sata".into(),
            bytes: 500 << 30,
            ..disk("/dev/sda")
        };
        for yes in [
            "",
            "/dev/sda",
            "serial=S1",
            "wwn=naa.5002538f31234567",
            "wwn=0x5002538f31234567",
            "wwn=5002538f31234567",
            "model=acme*",
            "model=*fast ?TB",
            "size=500G..500G",
            "size=500G",
            "size=100G..",
            "size=..1T",
            "transport=SATA",
            "serial=S1,size=100G..1T, transport=sata,model=ACME*,wwn=5002538f31234567,/dev/sda",
        ] {
            assert!(matches(yes, &disk), "{yes}");
        }
        for no in [
            "/dev/sdb",
            "/dev/sd",
            "serial=s1",
            "serial=S",
            "wwn=5002538f3123456",
            "model=ACME",
            "model=?",
            "size=501G..1T",
            "size=..499G",
            "transport=nvme",
            "serial=S1,transport=nvme",
        ] {
            assert!(!matches(no, &disk), "{no}");
        }
    }

    #[test]
    fn a_disk_without_the_attribute_does_not_match() {
        let bare = Disk { model: String::new(), serial: String::new(), wwn: String::new(), ..disk("/dev/sda") };
        assert!(!matches("serial=S1", &bare));
        assert!(!matches("wwn=0x", &bare), "no name is not the empty name");
        assert!(!matches("model=?*", &bare));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| Selector::parse(text).unwrap_err();
        assert_eq!(error("sda"), SelectorError::UnknownPart("sda".into()));
        assert_eq!(error("serial=S,colour=red"), SelectorError::UnknownPart("colour=red".into()));
        assert_eq!(error("serial=S,"), SelectorError::Empty("a part"));
        assert_eq!(error("serial="), SelectorError::Empty("serial"));
        assert_eq!(error("serial=S,serial=T"), SelectorError::Repeated("serial"));
        assert_eq!(error("/dev/sda,/dev/sdb"), SelectorError::Repeated("path"));
        for size in ["..", "big", "2G..1G", "1G..x", "1G..2G..3G", "-1G.."] {
            assert_eq!(error(&format!("size={size}")), SelectorError::Size(size.into()));
        }
        assert_eq!(error(&format!("serial={}", "x".repeat(1018))), SelectorError::TooLong);
        assert_eq!(error("serial=a\nb"), SelectorError::ControlCharacter);
        assert!(error("sda").to_string().starts_with(r#""sda" is none of /PATH, serial=S"#));
    }

    #[test]
    fn a_disk_with_two_paths_is_found_by_either() {
        let disk = Disk { other_paths: vec!["/dev/sdb".into()], ..disk("/dev/sda") };
        assert!(matches("/dev/sda", &disk) && matches("/dev/sdb", &disk) && !matches("/dev/sdc", &disk));
        assert_eq!(disk.by_path(Some("/dev/sdb")).path, "/dev/sdb");
        assert_eq!(disk.by_path(Some("/dev/sdb")).other_paths, ["/dev/sda"]);
        assert_eq!((disk.by_path(None), disk.by_path(Some("/dev/sdc"))), (disk.clone(), disk));
    }

    #[test]
    fn a_model_with_a_comma_can_be_asked_for() {
        let disk = Disk { model: "ACME, Inc. Fast".into(), ..disk("/dev/sda") };
        for yes in ["model='ACME, Inc.*',/dev/sda", r"model=acme\, inc. fast", r"transport=sata,model=ACME\x2c?Inc*"] {
            assert!(matches(yes, &disk), "{yes}");
        }
    }

    #[test]
    fn a_path_is_followed_by_whoever_can() {
        let selector = Selector::parse("serial=S1,/dev/disk/by-id/x").unwrap();
        assert_eq!(selector.path(), Some("/dev/disk/by-id/x"));
        let followed = selector.map_path(|_| "/dev/sda".into());
        assert_eq!(followed.to_string(), "serial=S1,/dev/sda");
    }

    proptest! {
        #[test]
        fn a_selector_survives_its_text(text in "((serial|wwn|model|transport)=([a-zA-Z0-9*?. -]|\\\\[,'x2c]|\\\\x2[0-9a-f]|['\\\"]){1,9},?|/dev/[a-z]{1,4},?|size=[0-9]{1,3}[GT]?(\\.\\.)?,?){0,3}") {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
            }
        }

        #[test]
        fn arbitrary_text_is_a_selector_or_an_error(text in any::<String>()) {
            let _ = Selector::parse(&text).map(|selector| selector.matches(&disk("/dev/sda")));
        }
    }
}
