//! The descriptor: lines of text that name the extents.

use super::super::bytes::read;
use super::super::fault::CONVERT;
use super::super::{ImportFault, RawDisk};

pub(super) const FIRST_LINE: &[u8] = b"# Disk DescriptorFile";

/// No descriptor is longer: 16 TiB in extents of 2 GiB take less than half of it.
const MAX_BYTES: u64 = 1 << 20;
const NO_PARENT: &str = "ffffffff";

/// What an extent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Flat,
    Sparse,
    Zero,
}

/// A line that names an extent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Where in the descriptor the line begins.
    pub(super) at: u64,
    pub(super) sectors: u64,
    pub(super) kind: Kind,
    pub(super) name: String,
    /// The first sector in the file.
    pub(super) offset: u64,
}

#[derive(Debug, Default)]
pub(super) struct Descriptor {
    parent: String,
    names_parent: bool,
    unknown: bool,
    pub(super) extents: Vec<Row>,
}

impl Descriptor {
    /// Reads the `bytes` bytes at `offset` of `file`, up to the first zero. It is a file of its own, or inside of an extent behind its header.
    pub(super) fn read(file: &RawDisk, offset: u64, bytes: u64) -> Result<Self, ImportFault> {
        if bytes > MAX_BYTES {
            return Err(ImportFault::TooLarge { what: "descriptor" });
        }
        let text = read(file, "descriptor", offset, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        let (text, padding) = text.split_at(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
        // In a file of its own nothing stands behind the text: a zero inside would be the end of the list of extents.
        if let Some(behind) = padding.iter().position(|byte| *byte != 0).filter(|_| offset == 0) {
            return Err(ImportFault::Damaged { what: "descriptor", offset: (text.len() + behind) as u64 });
        }
        let mut descriptor = Self::default();
        let mut at = offset;
        for line in text.split(|byte| *byte == b'\n') {
            let shown = String::from_utf8_lossy(line);
            let shown = shown.trim();
            let damaged = ImportFault::Damaged { what: "descriptor", offset: at };
            if let Some(parent) = shown.strip_prefix("parentCID") {
                descriptor.parent = parent.trim_start_matches([' ', '=']).to_ascii_lowercase();
            } else if shown.starts_with("parentFileNameHint") {
                descriptor.names_parent = true;
            } else if ["RW ", "RDONLY ", "NOACCESS "].iter().any(|access| shown.starts_with(access)) {
                descriptor.extents.extend(row(shown, at).ok_or(damaged)?);
                descriptor.unknown |= descriptor.extents.last().is_none_or(|row| row.at != at);
            } else if !is_of_no_extent(shown) {
                return Err(damaged);
            }
            at += line.len() as u64 + 1;
        }
        if descriptor.extents.is_empty() && !descriptor.unknown {
            return Err(ImportFault::Damaged { what: "descriptor", offset });
        }
        Ok(descriptor)
    }

    /// Whether all of it is read here.
    pub(super) fn check(&self) -> Result<(), ImportFault> {
        let refused = |what| Err(ImportFault::Unsupported { what, remedy: CONVERT });
        match self.parent.as_str() {
            _ if self.unknown => refused("an extent of another kind than flat, sparse and zero"),
            NO_PARENT | "" if !self.names_parent => Ok(()),
            _ => refused("a parent (it is a snapshot or a linked clone)"),
        }
    }
}

/// Whether a line is empty, `KEY=VALUE` or a comment, and not what a damaged line of an extent or two lines in one look like: a line that
/// is passed over would be a part of the disk that is missing without a word.
fn is_of_no_extent(line: &str) -> bool {
    match line.strip_prefix('#') {
        Some(comment) => !comment.contains('"'),
        None => line.is_empty() || line.contains('='),
    }
}

/// `ACCESS SECTORS KIND ["NAME" [OFFSET]]`; `None` if it is no such line, `Some(None)` for a kind that is not read.
fn row(line: &str, at: u64) -> Option<Option<Row>> {
    let mut words = line.splitn(4, ' ');
    words.next()?;
    let sectors = words.next()?.parse().ok()?;
    let kind = match words.next()? {
        "FLAT" | "VMFS" => Kind::Flat,
        "SPARSE" => Kind::Sparse,
        "ZERO" => return Some(Some(Row { at, sectors, kind: Kind::Zero, name: String::new(), offset: 0 })),
        _ => return Some(None),
    };
    let (name, offset) = words.next()?.trim().strip_prefix('"')?.split_once('"')?;
    let offset = match offset.trim() {
        "" => 0,
        offset => offset.parse().ok()?,
    };
    Some(Some(Row { at, sectors, kind, name: name.to_owned(), offset }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_extents_are_read() {
        let row_of = |kind, name: &str, offset| Some(Some(Row { at: 7, sectors: 63, kind, name: name.into(), offset }));
        assert_eq!(row("RW 63 FLAT \"a b-flat.vmdk\" 12", 7), row_of(Kind::Flat, "a b-flat.vmdk", 12));
        assert_eq!(row("RDONLY 63 SPARSE \"a-s001.vmdk\"", 7), row_of(Kind::Sparse, "a-s001.vmdk", 0));
        assert_eq!(row("RW 63 ZERO", 7), row_of(Kind::Zero, "", 0));
        assert_eq!(row("RW 63 SESPARSE \"a\"", 7), Some(None));
        for bad in ["RW x FLAT \"a\"", "RW 63 FLAT a", "RW 63 FLAT \"a", "RW 63 FLAT \"a\" x", "RW 63"] {
            assert_eq!(row(bad, 7), None, "{bad}");
        }
    }

    #[test]
    fn a_line_that_may_have_been_one_of_an_extent_is_not_passed_over() {
        for line in
            ["", "# Extent description", "#DDB", "CID=12345678", "ddb.adapterType = \"ide\"", "isNativeSnapshot=\"no\""]
        {
            assert!(is_of_no_extent(line), "{line}");
        }
        for line in ["SW 63 FLAT \"a\" 0", "# Extent description*RW 63 SPARSE \"a\"", "RW\t63 ZERO", "garbage"] {
            assert!(!is_of_no_extent(line), "{line}");
        }
    }
}
