//! The whole disk: its table, what is in each partition, and what of all that is unused.

use super::sniff::{Signs, look};
use super::volume::{Kept, Volume};
use crate::fit::{Geometry, HEAD_BYTES, Outcome, Unfitted, fit, tail_area};
use crate::manifest::TableKind;
use crate::report::PartitionInfo;
use crate::signatures;
use crate::source::{Content, ReadAt};
use crate::table::{self, Partition};
use core::ops::Range;
use slidecast_proto::units::GRAIN_MIN;

/// What was found on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskReport {
    /// The partition table.
    pub table: TableKind,
    /// The partitions in the order of the table. A file system on the whole disk is one partition with the index 0.
    pub partitions: Vec<PartitionInfo>,
    /// Bytes of the disk whose content does not matter: sorted, apart, aligned inward to the smallest grain (the last one
    /// may end with the disk).
    pub unused: Vec<Range<u64>>,
    /// What of `unused` is to be zeros: where probes look for signatures. Neither the backup GPT, which is made anew, is
    /// among them, nor is the rest of the smallest grains that lie there in part.
    pub zeros: Vec<Range<u64>>,
    /// What a person should know about the disk as a whole, and about volumes inside of its partitions.
    pub notes: Vec<String>,
}

impl DiskReport {
    /// Everything that a person should know: about the disk, and about each partition that is kept as a whole though
    /// something was recognised in it.
    #[must_use]
    pub fn all_notes(&self) -> Vec<String> {
        let kept = self.partitions.iter().filter(|partition| !partition.note.is_empty());
        let of_partitions = kept.map(|found| format!("{}: {}", title(found), found.note));
        self.notes.iter().cloned().chain(of_partitions).collect()
    }
}

/// What messages call a partition.
fn title(PartitionInfo { index, fs, .. }: &PartitionInfo) -> String {
    match (*index, fs.as_str()) {
        (0, fs) => format!("{fs} on the whole disk"),
        (index, "") => format!("partition {index}"),
        (index, fs) => format!("partition {index}, {fs}"),
    }
}

/// Finds what of a disk of `disk_bytes` with sectors of `sector` bytes is unused.
///
/// Never fails: what cannot be read or understood is used, and a note says so.
#[must_use]
pub fn scan(source: &dyn ReadAt, disk_bytes: u64, sector: u32) -> DiskReport {
    scan_with(source, disk_bytes, sector, Known::default())
}

/// What the source of a disk knows of it: sorted and apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// Ranges that are unused whatever lies around them.
    pub unused: &'a [Range<u64>],
    /// Partitions, or the whole disk, in which nothing has to be looked up.
    pub contents: &'a [Content],
}

/// As [`scan`], on a disk of which its source knows something.
#[must_use]
pub fn scan_with(source: &dyn ReadAt, disk_bytes: u64, sector: u32, known: Known<'_>) -> DiskReport {
    let around = Around { source, contents: known.contents };
    let (mut report, Free { mut unused, mut places, made_anew }) = look_around(&around, disk_bytes, sector, known);
    let end = made_anew.as_ref().map_or(disk_bytes, |area| area.start);
    unused.extend(signatures::intersection(known.unused, core::slice::from_ref(&(0..end))));
    // An old signature in free space would be found by the next program that probes the disk.
    places.extend(signatures::places(0, disk_bytes));
    places.extend(report.partitions.iter().flat_map(|found| signatures::places(found.start, found.bytes)));
    let unused = signatures::joined(unused);
    report.zeros = grains(signatures::intersection(&unused, &signatures::joined(places)), disk_bytes);
    report.unused = grains(unused.into_iter().chain(made_anew).collect(), disk_bytes);
    report
}

/// A disk without the contents that its source knows: zeros are there.
struct Around<'a> {
    source: &'a dyn ReadAt,
    contents: &'a [Content],
}

impl ReadAt for Around<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        let mut at = offset;
        let contents = self.contents.iter().map(|content| content.range.clone());
        for content in
            contents.filter(|range| range.end > offset && range.start < end).chain(core::iter::once(end..end))
        {
            let place = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            if at < content.start {
                self.source.read_at(at, &mut buffer[place(at)..place(content.start)])?;
                at = content.start;
            }
            let known_end = content.end.min(end);
            if at < known_end {
                buffer[place(at)..place(known_end)].fill(0);
                at = known_end;
            }
        }
        Ok(())
    }
}

/// What is free by the disk's own word.
#[derive(Default)]
struct Free {
    /// Of its file systems, in the order of the table.
    unused: Vec<Range<u64>>,
    /// Where programs look for signatures in the volumes inside of partitions.
    places: Vec<Range<u64>>,
    /// The backup GPT.
    made_anew: Option<Range<u64>>,
}

/// Reads the table and what is in each partition.
fn look_around(source: &dyn ReadAt, disk_bytes: u64, sector: u32, known: Known<'_>) -> (DiskReport, Free) {
    let (mut report, mut free) = (DiskReport::default(), Free::default());
    let whole = Partition { index: 0, start: 0, bytes: disk_bytes, kind: String::new(), name: String::new() };
    if let [content] = known.contents
        && content.range == (0..disk_bytes)
    {
        report.partitions.push(described(&whole, content, known.unused));
        return (report, free);
    }
    let volume = Volume::new(source, 0, disk_bytes);
    let on_the_disk_itself = Signs::find(&volume);
    let table = match table::read(source, disk_bytes, sector) {
        Ok(table) => table,
        Err(fault) => {
            report.notes.push(format!("everything on the disk is kept: {fault}"));
            return (report, free);
        }
    };
    report.table = table.kind;
    // An array of disks has its signs at the end of each, and the partition table belongs to the array.
    if let (TableKind::Gpt | TableKind::Mbr, Ok(Some(raid))) =
        (table.kind, on_the_disk_itself.as_ref().map(Signs::raid))
    {
        report.notes.push(format!(
            "everything on the disk is kept: it has a partition table ({}) and the signs of {raid}",
            table.kind
        ));
        return (report, free);
    }
    match (table.kind, on_the_disk_itself) {
        (TableKind::None, Ok(signs)) if signs.name().is_empty() => {}
        (TableKind::None, signs) => partition(&whole, &volume, signs, &mut report, &mut free),
        // A GPT lies where the beginnings of most file systems are, an MBR does not.
        (TableKind::Mbr, Ok(signs)) if signs.outlives_a_table() => {
            let name = signs.name();
            report.notes.push(format!("everything on the disk is kept: it has an MBR and the signs of {name}"));
            return (report, free);
        }
        _ => {
            for found in &table.partitions {
                if let Some(content) = known.contents.iter().find(|content| content.range.start == found.start) {
                    report.partitions.push(described(found, content, known.unused));
                    continue;
                }
                let volume = Volume::new(source, found.start, found.bytes);
                partition(found, &volume, Signs::find(&volume), &mut report, &mut free);
            }
        }
    }
    if table.kind == TableKind::Gpt {
        match backup(&volume, disk_bytes, sector) {
            Ok(area) => free.made_anew = Some(area),
            Err(Some(why)) => report.notes.push(format!("the end of the disk is kept as it is: of the GPT, {why}")),
            Err(None) => report.notes.push("the end of the disk is kept as it is: it cannot be read".to_owned()),
        }
    }
    (report, free)
}

/// Whether the `bytes` bytes from `start` on begin or end like anything known. What cannot be read might.
pub(crate) fn is_anything(source: &dyn ReadAt, start: u64, bytes: u64) -> bool {
    !Signs::find(&Volume::new(source, start, bytes)).is_ok_and(|signs| signs.name().is_empty())
}

/// One partition of which the source knows the content.
fn described(found: &Partition, content: &Content, unused: &[Range<u64>]) -> PartitionInfo {
    let place = found.start..found.start + found.bytes;
    let unused = signatures::intersection(unused, core::slice::from_ref(&place));
    let unused_bytes = unused.iter().map(|range| range.end - range.start).sum();
    PartitionInfo {
        index: found.index,
        start: found.start,
        bytes: found.bytes,
        kind: found.kind.clone(),
        name: found.name.clone(),
        fs: content.what.clone(),
        used_bytes: found.bytes - unused_bytes,
        unused_bytes,
        ..PartitionInfo::default()
    }
}

/// Looks into one partition and adds it to `report`; what is unused of it is added to `free`, as bytes of the disk.
fn partition(
    found: &Partition,
    volume: &Volume<'_>,
    signs: Result<Signs, Kept>,
    report: &mut DiskReport,
    free: &mut Free,
) {
    let (fs, unused) = look(volume, signs);
    let mut info = PartitionInfo {
        index: found.index,
        start: found.start,
        bytes: found.bytes,
        kind: found.kind.clone(),
        name: found.name.clone(),
        fs: fs.to_owned(),
        used_bytes: found.bytes,
        ..PartitionInfo::default()
    };
    let on_the_disk = |range: &Range<u64>| found.start + range.start..found.start + range.end;
    match unused {
        Ok(None) => {}
        Ok(Some(unused)) => {
            info.unused_bytes = unused.bytes();
            info.used_bytes = found.bytes - unused.bytes();
            free.unused.extend(unused.ranges().iter().map(on_the_disk));
            free.places.extend(unused.places.iter().map(on_the_disk));
            report.notes.extend(unused.notes.iter().map(|note| format!("{}: {note}", title(&info))));
        }
        Err(kept) => info.note = format!("all of it is kept: {kept}"),
    }
    report.partitions.push(info);
}

/// Where the backup GPT lies that is made anew on a disk of the same size: only a backup of this very table, or zeros, is
/// left out of an image. Else why it is not.
fn backup(volume: &Volume<'_>, disk_bytes: u64, sector: u32) -> Result<Range<u64>, Option<Unfitted>> {
    let geometry = Geometry::new(sector, disk_bytes, disk_bytes).map_err(|_| None)?;
    let tail = tail_area(disk_bytes, sector);
    let read = |range: Range<u64>| {
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        volume.bytes_at(range.start, len).map_err(|_| None)
    };
    let head_end = if tail.is_empty() { disk_bytes } else { HEAD_BYTES.min(disk_bytes) };
    let (mut head, mut tail) = (read(0..head_end)?, read(tail)?);
    match fit(&mut head, &mut tail, geometry) {
        Outcome::Fitted(area) => Ok(area),
        Outcome::Unfitted(why, _) => Err(Some(why)),
        Outcome::NoGpt => Err(None),
    }
}

/// Sorts, joins what touches and aligns inward.
fn grains(ranges: Vec<Range<u64>>, disk_bytes: u64) -> Vec<Range<u64>> {
    let grain = u64::from(GRAIN_MIN);
    let mut joined = signatures::joined(ranges);
    joined.retain_mut(|range| {
        range.start = range.start.next_multiple_of(grain);
        if range.end != disk_bytes {
            range.end -= range.end % grain;
        }
        range.start < range.end
    });
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_before_they_are_aligned_inward() {
        let disk = 100_000;
        assert_eq!(grains(vec![9000..20_000, 1..5000, 5000..8192], disk), [4096..8192, 12_288..16_384]);
        let one = |range: Range<u64>| grains(Vec::from([range]), disk).pop();
        assert_eq!(one(4097..8191), None);
        assert_eq!(one(90_000..disk), Some(90_112..disk));
        assert_eq!(one(99_000..disk), None);
    }
}
