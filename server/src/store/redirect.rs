//! Whether and where an answer sends a client that reads: decided here, without a connection. What writes or lists is never sent on.

use super::answer::{Fault, Head};
use std::io::ErrorKind;
use url::Url;

/// How often one request may be sent on.
pub(super) const MAX_REDIRECTS: u32 = 10;

/// The address that the answer `head` of `from` leads to; `None` if it does not lead elsewhere.
pub(super) fn target(from: &str, head: &Head) -> Result<Option<String>, Fault> {
    let Some(location) = head.location.as_ref().filter(|_| matches!(head.status, 301 | 302 | 303 | 307 | 308)) else {
        return Ok(None);
    };
    let joined = Url::parse(from).ok().and_then(|from| from.join(location).ok());
    let Some(to) = joined.filter(|to| matches!(to.scheme(), "http" | "https")) else {
        return Err(Fault::last(ErrorKind::InvalidData, "the server redirects to something that is no address"));
    };
    if from.starts_with("https:") && to.scheme() != "https" {
        let what = "the server redirects to an address without encryption";
        return Err(Fault::last(ErrorKind::PermissionDenied, what));
    }
    Ok(Some(to.into()))
}

/// A request was sent on too often.
pub(super) fn endless() -> Fault {
    Fault::last(ErrorKind::Other, "the server redirects again and again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(from: &str, status: u16, location: Option<&str>) -> Result<Option<String>, ErrorKind> {
        let head = Head { status, location: location.map(str::to_owned), ..Head::default() };
        target(from, &head).map_err(|fault| match fault {
            Fault::Final(kind, _) => kind,
            Fault::Passing(..) => ErrorKind::Interrupted,
        })
    }

    #[test]
    fn a_redirect_leads_to_where_it_says_and_never_out_of_encryption() {
        let to = |location| leads("https://h/d/a?x=1", 302, Some(location)).map(Option::unwrap);
        assert_eq!(to("/b").unwrap(), "https://h/b");
        assert_eq!(to("b?y=2").unwrap(), "https://h/d/b?y=2");
        assert_eq!(to("//g/b").unwrap(), "https://g/b");
        assert_eq!(to("https://g/b%20c").unwrap(), "https://g/b%20c");
        assert_eq!(to("http://h/b"), Err(ErrorKind::PermissionDenied));
        assert_eq!(to("file:///etc/passwd"), Err(ErrorKind::InvalidData));
        assert_eq!(to("https://"), Err(ErrorKind::InvalidData));
        assert_eq!(leads("http://h/a", 308, Some("https://h/a")).unwrap().unwrap(), "https://h/a");
        assert_eq!(leads("https://h/a", 301, None), Ok(None));
        assert_eq!(leads("https://h/a", 206, Some("/b")), Ok(None), "only a redirect redirects");
        assert_eq!(leads("https://h/a", 304, Some("/b")), Ok(None));
    }
}
