//! The partition report: what `create` found on the disk, for people. It is in the layer and under its id, but nothing
//! that is written to a disk depends on it.

use crate::used::DiskReport;
use crate::varint::{self, Reader};
use serde::Serialize;
use slidecast_proto::wire::Malformed;

/// The most partitions or notes that are kept.
const MAX_ROWS: usize = 1024;
/// The longest text that is kept, in bytes.
const MAX_TEXT: usize = 255;

/// What was found in a partition, or on a disk without a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionInfo {
    /// Its number in the table; 0 is a disk without one.
    pub index: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its type as the table says.
    pub kind: String,
    /// Its name, if the table has names.
    pub name: String,
    /// What it holds: a file system, swap space, or nothing that we know.
    pub fs: String,
    /// Bytes in use, as far as that is known.
    pub used_bytes: u64,
    /// Bytes that are left out of the image.
    pub unused_bytes: u64,
    /// Why everything in it counts as used, where that is so.
    pub note: String,
}

/// What was found on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) partitions: Vec<PartitionInfo>,
    pub(crate) notes: Vec<String>,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    varint::put(out, end as u64);
    out.extend_from_slice(&text.as_bytes()[..end]);
}

fn text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let len = reader.varint()?;
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_TEXT).ok_or(reader.malformed())?;
    let bytes = reader.take(len)?;
    core::str::from_utf8(bytes).map(str::to_owned).map_err(|_| reader.malformed())
}

fn count(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let count = reader.varint()?;
    if count <= MAX_ROWS as u64 { Ok(count) } else { Err(reader.malformed()) }
}

impl Report {
    /// What was found, without what only `create` needs.
    pub(crate) fn of(disk: &DiskReport) -> Self {
        Self { partitions: disk.partitions.clone(), notes: disk.notes.clone() }
    }

    /// The report as it stands in the layer; what is beyond the limits is cut off.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        varint::put(&mut out, self.partitions.len().min(MAX_ROWS) as u64);
        for partition in self.partitions.iter().take(MAX_ROWS) {
            let PartitionInfo { index, start, bytes, kind, name, fs, used_bytes, unused_bytes, note } = partition;
            for number in [u64::from(*index), *start, *bytes, *used_bytes, *unused_bytes] {
                varint::put(&mut out, number);
            }
            for text in [kind, name, fs, note] {
                put_text(&mut out, text);
            }
        }
        varint::put(&mut out, self.notes.len().min(MAX_ROWS) as u64);
        self.notes.iter().take(MAX_ROWS).for_each(|note| put_text(&mut out, note));
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "partition report");
        let mut report = Self::default();
        for _ in 0..count(&mut reader)? {
            report.partitions.push(PartitionInfo {
                index: reader.varint_u32()?,
                start: reader.varint()?,
                bytes: reader.varint()?,
                used_bytes: reader.varint()?,
                unused_bytes: reader.varint()?,
                kind: text(&mut reader)?,
                name: text(&mut reader)?,
                fs: text(&mut reader)?,
                note: text(&mut reader)?,
            });
        }
        for _ in 0..count(&mut reader)? {
            report.notes.push(text(&mut reader)?);
        }
        if reader.is_empty() { Ok(report) } else { Err(reader.malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_cut_to_its_limits() {
        let partition = PartitionInfo { index: 2, start: 1 << 40, fs: "ext4".into(), ..PartitionInfo::default() };
        let report = Report { partitions: vec![partition], notes: vec!["é".repeat(200)] };
        let parsed = Report::parse(&report.encode()).unwrap();
        assert_eq!(parsed.partitions, report.partitions);
        assert_eq!(parsed.notes, ["é".repeat(127)]);
        let many = Report { notes: vec![String::new(); 2000], ..Report::default() };
        assert_eq!(Report::parse(&many.encode()).unwrap().notes.len(), MAX_ROWS);
    }

    #[test]
    fn a_damaged_report_is_malformed() {
        let bytes = Report { notes: vec!["abc".into()], ..Report::default() }.encode();
        assert!((0..bytes.len()).all(|len| Report::parse(&bytes[..len]).is_err()));
        assert!(Report::parse(&[0xff; 20]).is_err());
    }
}
