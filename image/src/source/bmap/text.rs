//! The text of a block map: XML as `bmaptool create` writes it, versions 1.3 to 2.0, with SHA-256.

use super::super::ImportFault;
use core::ops::Range;
use sha2::{Digest, Sha256};
use slidecast_proto::hex;

type Ranges = Vec<(Range<u64>, Option<[u8; 32]>)>;

/// The ranges of the map `content` of an image of `bytes` bytes.
pub(super) fn parse(content: &[u8], bytes: u64) -> Result<Ranges, ImportFault> {
    let damaged = |what| ImportFault::Damaged { what, offset: 0 };
    let text = core::str::from_utf8(content).map_err(|_| damaged("text"))?;
    let plain = without_comments(text).ok_or(damaged("comment"))?;
    if !plain.contains("<bmap ") {
        return Err(damaged("text"));
    }
    let value = |name: &str| element(&plain, name).map(str::trim);
    if value("ChecksumType").is_some_and(|kind| kind != "sha256") || value("BmapFileSHA1").is_some() {
        let remedy = "make it anew: bmaptool create, or image without it: --format";
        return Err(ImportFault::Unsupported { what: "other checksums than SHA-256", remedy });
    }
    if let Some(sum) = value("BmapFileChecksum")
        && !holds(text, sum)
    {
        return Err(ImportFault::Differs { what: "itself", offset: 0 });
    }
    let number = |name| value(name).and_then(|text| text.parse::<u64>().ok());
    let (size, block) = (number("ImageSize"), number("BlockSize").filter(|block| (512..=1 << 30).contains(block)));
    let (Some(size), Some(block)) = (size, block) else { return Err(damaged("size")) };
    if size != bytes {
        let (what, name) = ("size of the image", format!("{size} bytes"));
        let why = "is not that of the file beside it; move the map away, or image without it: --format";
        return Err(ImportFault::Named { what, name, why });
    }
    let list = element(&plain, "BlockMap").ok_or(damaged("list of ranges"))?;
    ranges(list, size, block).ok_or(damaged("list of ranges"))
}

/// The text without its comments.
fn without_comments(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("<!--") {
        plain.push_str(before);
        rest = comment.split_once("-->")?.1;
    }
    plain.push_str(rest);
    Some(plain)
}

/// What stands in the first element of that name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    Some(text.split_once(&open)?.1.split_once(&close)?.0)
}

/// Whether `sum` is the checksum of the text, in which its own digits count as zeros.
fn holds(text: &str, sum: &str) -> bool {
    let zeros = "0".repeat(sum.len());
    let found = Sha256::digest(text.replacen(sum, &zeros, 1));
    hex::parse::<32>(sum).is_some_and(|sum| sum == found.as_slice())
}

/// The ranges in bytes, which rise and lie on the disk. A map that was made without checksums has none.
fn ranges(list: &str, size: u64, block: u64) -> Option<Ranges> {
    let mut ranges: Ranges = Vec::new();
    let mut rest = list;
    while let Some((_, element)) = rest.split_once("<Range") {
        let (attributes, behind) = element.split_once('>')?;
        let (content, behind) = behind.split_once("</Range>")?;
        let sum = match attributes.trim() {
            "" => None,
            attribute => Some(hex::parse(attribute.strip_prefix("chksum=\"")?.strip_suffix('"')?)?),
        };
        let (first, last) = content.trim().split_once('-').unwrap_or((content.trim(), content.trim()));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let (start, end) = (first.checked_mul(block)?, last.checked_add(1)?.checked_mul(block)?.min(size));
        if start < ranges.last().map_or(0, |(range, _)| range.end) || start >= end {
            return None;
        }
        ranges.push((start..end, sum));
        rest = behind;
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn map(ranges: &str) -> String {
        format!(
            "<?xml version=\"1.0\" ?>\n<!-- <Range -->\n<bmap version=\"2.0\">\n<ImageSize> 10000 </ImageSize>\n<BlockSize> 4096 </BlockSize>\
             <ChecksumType> sha256 </ChecksumType>\n<BlockMap>\n{ranges}</BlockMap>\n</bmap>\n"
        )
    }

    fn range(blocks: &str) -> String {
        format!("<Range chksum=\"{SUM}\"> {blocks} </Range>\n")
    }

    #[test]
    fn ranges_end_with_the_image() {
        let found = parse(map(&[range("0"), range("2")].concat()).as_bytes(), 10000).unwrap();
        let [(first, sum), (second, _)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((first.clone(), second.clone(), sum.unwrap()[0]), (0..4096, 8192..10000, 0xE3));
        assert_eq!(parse(map(&range("0-2")).as_bytes(), 10000).unwrap()[0].0, 0..10000);
    }

    #[test]
    fn maps_that_contradict_themselves_or_the_image_are_refused() {
        let huge = u64::MAX.to_string();
        for wrong in ["1-0", "3", "x", &huge, "0-18446744073709551615", ""] {
            assert!(parse(map(&range(wrong)).as_bytes(), 10000).is_err(), "{wrong}");
        }
        assert!(parse(map(&[range("1"), range("0")].concat()).as_bytes(), 10000).is_err());
        assert!(parse(map(&[range("0-1"), range("1")].concat()).as_bytes(), 10000).is_err());
        for sum in ["12", &SUM.replacen("e3", "+3", 1), &SUM.replacen("e3", " 3", 1), &SUM.replacen("e3", "é", 1)] {
            assert!(parse(map(&range("0").replace(SUM, sum)).as_bytes(), 10000).is_err(), "{sum}");
        }
        assert_eq!(parse(map("<Range> 0 </Range>").as_bytes(), 10000).unwrap(), [(0..4096, None)]);
        let error = parse(map("").as_bytes(), 9999).unwrap_err().to_string();
        assert!(error.contains("10000 bytes") && error.contains("--format"), "{error}");
        let sealed = map("").replace("<BlockMap>", &format!("<BmapFileChecksum> {SUM} </BmapFileChecksum><BlockMap>"));
        assert!(parse(sealed.as_bytes(), 10000).unwrap_err().to_string().contains("itself"));
        for cut in 0..map(&range("0")).find("</BlockMap>").unwrap() {
            assert!(parse(&map(&range("0")).as_bytes()[..cut], 10000).is_err(), "{cut}");
        }
    }
}
