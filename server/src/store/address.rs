//! What names an object: a path, an address of the web, or an object of S3.

use super::s3::Object;
use core::fmt;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Where an object on a server is.
#[derive(Clone)]
pub(super) enum Address {
    /// An address as it is asked for.
    Web(String),
    /// An object of S3.
    S3(Object),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => write!(f, "Web({})", public(url)),
            Self::S3(object) => object.fmt(f),
        }
    }
}

impl Address {
    /// The server's object that `path` names; `None` if it names a file.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        if !is_remote(path) {
            return Ok(None);
        }
        let text = path.to_str().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "an address is text"))?;
        let is_s3 = text.starts_with("s3://");
        Ok(Some(if is_s3 { Self::S3(Object::of(text)?) } else { Self::Web(escaped(text, is_of_address)) }))
    }

    /// The address to ask.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Web(url) => url.clone(),
            Self::S3(object) => object.url(),
        }
    }
}

/// Whether `path` names an object on a server rather than a file.
#[must_use]
pub fn is_remote(path: &Path) -> bool {
    starts_with(path, &["http://", "https://", "s3://"])
}

/// Whether `path` is an address of the web.
pub(super) fn is_web(path: &Path) -> bool {
    starts_with(path, &["http://", "https://"])
}

fn starts_with(path: &Path, schemes: &[&str]) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    schemes.iter().any(|scheme| text.starts_with(scheme.as_bytes()))
}

/// `url` without what may be secret in it: the name and password before the host, and all behind the path, such as a signature.
pub(super) fn public(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// The address of the object called `name` in the folder of the object at `url`.
pub(super) fn beside(url: &str, name: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let host = path.find("://").map_or(0, |at| at + 3);
    let folder = path.rfind('/').filter(|at| *at >= host).map_or(path.len(), |at| at);
    format!("{}/{}", &path[..folder], escaped(name, is_of_name))
}

/// The name that the file at `path` has: the last piece of the path, without what an address escapes in it.
pub(crate) fn name_of(path: &Path) -> Option<String> {
    if !is_web(path) {
        return path.file_name().and_then(OsStr::to_str).map(str::to_owned);
    }
    let url = public(path.to_str()?);
    unescaped(url.rsplit('/').next()?)
}

/// What `text`, a piece of an address, means.
pub(super) fn unescaped(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(core::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(name).ok()
}

/// What may stand in an address. A `%` may be part of one that is escaped already.
fn is_of_address(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte)
}

/// What stands for itself in a name, RFC 3986 section 2.3.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `text` with everything escaped that `keeps` does not keep.
fn escaped(text: &str, keeps: fn(u8) -> bool) -> String {
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
        let asked = |text: &str| Address::of(Path::new(text)).unwrap().unwrap().url();
        assert_eq!(asked("https://h:1/a%20b/c.slide?x=1"), "https://h:1/a%20b/c.slide?x=1");
        assert_eq!(asked("https://h/d/my bäse.slide"), "https://h/d/my%20b%C3%A4se.slide");
    }

    #[test]
    fn a_parent_lies_beside_its_child_whatever_its_name_is_made_of() {
        assert_eq!(beside("https://h/d/child.slide?sig=a/b", "my bäse.slide"), "https://h/d/my%20b%C3%A4se.slide");
        assert_eq!(beside("https://u:p@h/a.slide", "50%25?#.slide"), "https://u:p@h/50%2525%3F%23.slide");
        assert_eq!(beside("https://h", "a.slide"), "https://h/a.slide");
        for name in ["my bäse.slide", "50%25?#.slide", "a+b&c.slide"] {
            let path = beside("https://h/d/child.slide?sig=a/b", name);
            assert_eq!(name_of(Path::new(&path)).as_deref(), Some(name));
        }
        assert_eq!(name_of(Path::new("s3://b/d/50%25?.slide")).as_deref(), Some("50%25?.slide"));
        assert!(name_of(Path::new("https://h/d/%zz.slide")).is_none());
    }

    #[test]
    fn what_is_public_of_an_address_has_no_password_and_no_signature() {
        assert_eq!(public("https://u:p@h:1/d/a.slide?X-Amz-Signature=5ec/ret#x"), "https://h:1/d/a.slide");
        assert_eq!(public("https://h?a@b"), "https://h");
        let address = Address::of(Path::new("https://u:p@h/a?5ec")).unwrap();
        assert_eq!(format!("{address:?}"), "Some(Web(https://h/a))");
    }
}
