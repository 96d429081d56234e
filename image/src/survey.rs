//! What of a source is in use.

use crate::manifest::TableKind;
use crate::source::Source;
use core::ops::Range;
use std::io;

/// What was found out about a source before reading it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// Sorted ranges of bytes whose content does not matter.
    pub(crate) unused: Vec<Range<u64>>,
    pub(crate) table: TableKind,
    /// The partition report, encoded.
    pub(crate) report: Vec<u8>,
    pub(crate) notes: Vec<String>,
}

/// Looks at the partition table and the file systems of `source`.
pub(crate) fn survey(_source: &Source) -> io::Result<Survey> {
    Ok(Survey::default())
}
