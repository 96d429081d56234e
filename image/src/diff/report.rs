//! A difference, for people and for programs.

use super::Found;
use crate::info::{Size, one_line};
use crate::report::PartitionInfo;
use crate::resolved::Resolved;
use core::fmt;
use core::ops::Range;
use serde::Serialize;

/// Changes that are no farther apart than this are one area.
const GAP_BYTES: u64 = 1 << 20;
/// The most areas; with more, those that are near are joined.
const MAX_AREAS: usize = 1000;
/// How many areas people are shown.
const SHOWN_AREAS: usize = 16;

/// One of the two images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffSide {
    /// The file of its newest layer.
    pub image: String,
    /// The id of that layer.
    pub layer: String,
    /// The manifest root.
    pub root: String,
    /// The size of the disk.
    pub disk_bytes: u64,
}

/// What changes in a partition of the new image; the last row, with index 0 and without a size, is what lies in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffPartition {
    /// Its number in the table.
    pub index: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// What it holds.
    pub fs: String,
    /// Its name, if the table has names.
    pub name: String,
    /// Bytes of it that change.
    pub changed_bytes: u64,
    /// Payload bytes of the blocks that are sent and change it first.
    pub sent_bytes: u64,
}

/// A part of the disk with changes in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffArea {
    /// The first byte that changes.
    pub start: u64,
    /// From there to behind the last one.
    pub bytes: u64,
    /// Bytes in it that change.
    pub changed_bytes: u64,
}

/// What a deployment of one image sends to disks that hold another. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffReport {
    /// What the disks hold.
    pub from: DiffSide,
    /// What they are to get.
    pub to: DiffSide,
    /// The blocks of the new image that have a payload.
    pub stored_blocks: u32,
    /// Their payloads.
    pub stored_bytes: u64,
    /// Those that are sent.
    pub sent_blocks: u32,
    /// Their payloads.
    pub sent_bytes: u64,
    /// Bytes of the disk that change, to a grain.
    pub changed_bytes: u64,
    /// Of these, bytes that become zeros or another fill, for which nothing is sent.
    pub filled_bytes: u64,
    /// The partitions of the new image.
    pub partitions: Vec<DiffPartition>,
    /// Where changes are.
    pub areas: Vec<DiffArea>,
}

/// Makes the report of what was found.
pub(super) fn made(
    from: DiffSide,
    to: DiffSide,
    resolved: &Resolved,
    partitions: Vec<PartitionInfo>,
    found: &Found,
) -> DiffReport {
    let len = |range: &Range<u64>| range.end - range.start;
    let mut rows: Vec<DiffPartition> = partitions.into_iter().map(row).collect();
    let changed_bytes = found.changed.iter().map(len).sum();
    let sent_bytes = found.sent.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
    for row in &mut rows {
        let within = row.start..row.start.saturating_add(row.bytes);
        let first = found.changed.partition_point(|range| range.end <= within.start);
        let inside = found.changed[first..].iter().take_while(|range| range.start < within.end);
        row.changed_bytes = inside.map(|range| len(&(range.start.max(within.start)..range.end.min(within.end)))).sum();
        let sent = found.sent.iter().filter(|(at, _)| within.contains(at));
        row.sent_bytes = sent.map(|(_, bytes)| u64::from(*bytes)).sum();
    }
    let outside = |all: u64, of: fn(&DiffPartition) -> u64| all.saturating_sub(rows.iter().map(of).sum());
    let (changed, sent) = (outside(changed_bytes, |row| row.changed_bytes), outside(sent_bytes, |row| row.sent_bytes));
    rows.push(DiffPartition { changed_bytes: changed, sent_bytes: sent, ..row(PartitionInfo::default()) });
    DiffReport {
        from,
        to,
        stored_blocks: resolved.header().stored_blocks,
        stored_bytes: resolved.stored_bytes(),
        sent_blocks: u32::try_from(found.sent.len()).unwrap_or(u32::MAX),
        sent_bytes,
        changed_bytes,
        filled_bytes: found.filled_bytes,
        partitions: rows,
        areas: areas(&found.changed),
    }
}

fn row(partition: PartitionInfo) -> DiffPartition {
    let PartitionInfo { index, start, bytes, fs, name, .. } = partition;
    DiffPartition { index, start, bytes, fs, name, changed_bytes: 0, sent_bytes: 0 }
}

/// Joins sorted ranges that are near each other, until there are few enough.
fn areas(changed: &[Range<u64>]) -> Vec<DiffArea> {
    let mut gap = GAP_BYTES;
    loop {
        let mut out: Vec<DiffArea> = Vec::new();
        for range in changed {
            let bytes = range.end - range.start;
            match out.last_mut() {
                Some(last) if range.start <= (last.start + last.bytes).saturating_add(gap) => {
                    last.bytes = last.bytes.max(range.end - last.start);
                    last.changed_bytes += bytes;
                }
                _ => out.push(DiffArea { start: range.start, bytes, changed_bytes: bytes }),
            }
        }
        if out.len() <= MAX_AREAS {
            return out;
        }
        gap = gap.saturating_mul(2);
    }
}

impl fmt::Display for DiffReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, side) in [("from", &self.from), ("to", &self.to)] {
            writeln!(f, "{word:<5} {} (root {})", one_line(&side.image), side.root)?;
        }
        let (sent, all) = (Size(self.sent_bytes), Size(self.stored_bytes));
        let (blocks, stored) = (self.sent_blocks, self.stored_blocks);
        writeln!(f, "sends {blocks} of {stored} blocks, {sent} of {all}, to a disk that holds the first image")?;
        let (changed, filled) = (Size(self.changed_bytes), Size(self.filled_bytes));
        writeln!(f, "changes {changed} of the disk, {filled} of it to fills")?;
        writeln!(f, "partitions:")?;
        for row in &self.partitions {
            let (changed, sent) = (Size(row.changed_bytes), Size(row.sent_bytes));
            if row.bytes == 0 && row.index == 0 {
                writeln!(f, "  outside: {changed} changed, {sent} sent")?;
                continue;
            }
            write!(
                f,
                "  {:>3}  {:>9} at {:>9}  {:<8}",
                row.index,
                Size(row.bytes),
                Size(row.start),
                one_line(&row.fs)
            )?;
            writeln!(f, " {}: {changed} changed, {sent} sent", one_line(&row.name))?;
        }
        let mut largest: Vec<&DiffArea> = self.areas.iter().collect();
        largest.sort_by_key(|area| core::cmp::Reverse(area.changed_bytes));
        largest.truncate(SHOWN_AREAS);
        largest.sort_by_key(|area| area.start);
        let all = self.areas.len();
        if all > SHOWN_AREAS {
            writeln!(f, "areas with the most changes, {SHOWN_AREAS} of {all}:")?;
        } else if all > 0 {
            writeln!(f, "areas:")?;
        }
        for area in largest {
            let DiffArea { start, bytes, changed_bytes } = area;
            writeln!(f, "  at {start}: {} changed within {}", Size(*changed_bytes), Size(*bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_changes_are_one_area_and_there_are_never_too_many() {
        let one = |at: u64| at..at + 10;
        assert_eq!(areas(&[one(0), one(100), one(5 << 20)]).len(), 2);
        let many: Vec<_> = (0..5000).map(|at| one(at << 22)).collect();
        let joined = areas(&many);
        assert!((1..=MAX_AREAS).contains(&joined.len()), "{}", joined.len());
        assert_eq!(joined.iter().map(|area| area.changed_bytes).sum::<u64>(), 50_000);
    }
}
