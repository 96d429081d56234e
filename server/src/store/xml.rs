//! What servers say in XML of an upload, read as loosely as they write it: some leave out the name space, or fields, or call the whole
//! otherwise.

/// The text of the first element `name` in `text`.
pub(super) fn field(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = value.replace("&quot;", "\"").replace("&#34;", "\"").replace("&lt;", "<").replace("&gt;", ">");
    Some(plain.replace("&amp;", "&").trim().to_owned())
}

/// A part of an upload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Counted from 1.
    pub(super) number: u16,
    pub(super) bytes: u64,
    pub(super) tag: String,
}

/// Reads a page of the list of an upload's parts, and what the next one is asked with.
pub(super) fn parts(text: &str) -> Option<(Vec<Part>, Option<u16>)> {
    field(text, "UploadId")?;
    let parts = text.split("<Part>").skip(1).map(|part| {
        let number = |name: &str| field(part, name)?.parse::<u64>().ok();
        let (at, bytes) = (number("PartNumber")?, number("Size")?);
        Some(Part { number: u16::try_from(at).ok()?, bytes, tag: field(part, "ETag")? })
    });
    let parts = parts.collect::<Option<_>>()?;
    let goes_on = field(text, "IsTruncated").is_some_and(|said| said == "true");
    let next = field(text, "NextPartNumberMarker").and_then(|next| next.parse().ok());
    Some((parts, next.filter(|_| goes_on)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_from_each_server_as_it_writes_them() {
        let part = "<Part><PartNumber>2</PartNumber><ETag>&#34;a&#34;</ETag>\n<Size> 5 </Size></Part>";
        let read = |head: &str, tail: &str| parts(&format!("{head}<UploadId>u</UploadId>{part}{tail}"));
        let one = || vec![Part { number: 2, bytes: 5, tag: "\"a\"".to_owned() }];
        let marker = "<NextPartNumberMarker>2</NextPartNumberMarker>";
        let aws = "<ListPartsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
        let more = format!("{marker}<IsTruncated>true</IsTruncated></ListPartsResult>");
        assert_eq!(read(aws, &more).unwrap(), (one(), Some(2)));
        let done = format!("{marker}<IsTruncated>false</IsTruncated></ListPartsResponse>");
        assert_eq!(read("<ListPartsResponse>", &done).unwrap(), (one(), None), "moto");
        assert_eq!(read("<ListPartsResult>", "</ListPartsResult>").unwrap(), (one(), None), "rclone");
        assert!(parts("<html>").is_none());
        let wrong = "<UploadId>u</UploadId><Part><PartNumber>70000</PartNumber><ETag>a</ETag><Size>5</Size></Part>";
        assert!(parts(wrong).is_none());
    }
}
