//! What names an object: a path, an address of the web, or an object of S3.

use super::s3::Object;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Where an object on a server is.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// An address as it is asked for.
    Web(String),
    /// An object of S3.
    S3(Object),
}

impl Address {
    /// The server's object that `path` names; `None` if it names a file.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        if !is_remote(path) {
            return Ok(None);
        }
        let text = path.to_str().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "an address is text"))?;
        let is_s3 = text.starts_with("s3://");
        Ok(Some(if is_s3 { Self::S3(Object::of(text)?) } else { Self::Web(escaped(text)) }))
    }

    /// The address to ask.
    pub(super) fn url(&self) -> io::Result<String> {
        match self {
            Self::Web(url) => Ok(url.clone()),
            Self::S3(object) => Ok(object.url()),
        }
    }
}

/// Whether `path` names an object on a server rather than a file.
#[must_use]
pub fn is_remote(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    [b"http://".as_slice(), b"https://", b"s3://"].iter().any(|scheme| text.starts_with(scheme))
}

/// An address in which only what may stand in one is left as it is. Names of parents are no addresses, so they are escaped here; a
/// `%` may be part of an address that is escaped already.
fn escaped(text: &str) -> String {
    let keeps = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if keeps(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_file_and_an_address_is_asked_for_as_an_address() {
        for file in ["a.slide", "/http://a", "HTTP", "./https://a"] {
            assert!(Address::of(Path::new(file)).unwrap().is_none(), "{file}");
        }
        let asked = |text: &str| Address::of(Path::new(text)).unwrap().unwrap().url().unwrap();
        assert_eq!(asked("https://h:1/a%20b/c.slide?x=1"), "https://h:1/a%20b/c.slide?x=1");
        let parent = Path::new("https://h/d/child.slide").with_file_name("my bäse.slide");
        assert_eq!(asked(parent.to_str().unwrap()), "https://h/d/my%20b%C3%A4se.slide");
    }
}
