//! Free clusters of NTFS: the map of clusters is a file, record 6 of the master file table (layout as in Linux'
//! `fs/ntfs3/ntfs.h`).
//!
//! The map counts only if it agrees with all files (`ntfs_files.rs`) and the volume was left properly: the dirty flag is clear, the log has nothing to replay, and no
//! Windows sleeps in `hiberfil.sys` with the file system half in its memory. The boot sector's copy lies behind the last
//! cluster, and so is used.

use super::bitmap;
use super::ntfs_files;
use super::ntfs_record::{Stream, attribute, kind, names, restore};
use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use crate::le::{u16_at, u32_at, u64_at};
use core::ops::Range;

/// Records of the master file table.
const MFT: u64 = 0;
const LOG: u64 = 2;
const VOLUME: u64 = 3;
const ROOT: u64 = 5;
const BITMAP: u64 = 6;

/// Dirty; its log to be resized; to be upgraded; a check under way.
const NOT_CLEAN: u16 = 0x1 | 0x2 | 0x4 | 0x4000;
/// How much of a map is read at once, in bytes.
const PIECE: u64 = 1 << 20;
/// No root folder has a larger index that is read.
const MAX_INDEX: u64 = 64 << 20;
const HIBERNATION_HEADER: u64 = 4096;

/// The row of the table of readers.
pub(super) const READER: Reader = Reader { probe: |head| is_ntfs(head).then_some("NTFS"), unused };

/// Whether the head of a volume is that of NTFS.
fn is_ntfs(head: &[u8]) -> bool {
    head.get(3..11) == Some(b"NTFS    ") && head.get(510..512) == Some(&[0x55, 0xAA])
}

/// The free clusters of the file system on `volume`, whose first bytes are `head`.
fn unused(volume: &Volume<'_>, head: &[u8]) -> Result<Unused, Kept> {
    let ntfs = Ntfs::open(volume, head)?;
    ntfs.was_left_properly()?;
    let log = ntfs.stream(LOG)?;
    ntfs.log_is_empty(&log)?;
    ntfs.nobody_sleeps()?;
    let map = ntfs.stream(BITMAP)?;
    // What is in use for certain.
    let mut metadata: Vec<Range<u64>> = [&ntfs.mft.runs, &log.runs, &map.runs].into_iter().flatten().cloned().collect();
    metadata.push(0..1);
    metadata.push(ntfs.mirror..ntfs.mirror.saturating_add(1));
    let unused = ntfs.free(&map, &metadata)?;
    ntfs_files::are_used(&ntfs.volume, &ntfs.mft, ntfs.record, (ntfs.cluster, ntfs.clusters), &unused)?;
    Ok(unused)
}

/// An open volume.
struct Ntfs<'a> {
    volume: Volume<'a>,
    /// Bytes of a cluster.
    cluster: u64,
    clusters: u64,
    /// Bytes of a file record.
    record: usize,
    mirror: u64,
    mft: Stream,
}

impl<'a> Ntfs<'a> {
    fn open(volume: &Volume<'a>, head: &[u8]) -> Result<Self, Kept> {
        let corrupt = Kept::Corrupt("boot sector");
        let mut ntfs = Self::geometry(volume, head).ok_or(corrupt)?;
        if u64_at(head, 40)
            .and_then(|sectors| sectors.checked_mul(u16_at(head, 11)?.into()))
            .is_none_or(|end| end > volume.bytes())
        {
            return Err(Kept::TooLong);
        }
        // The beginning of the table is in one piece, and says where the rest is.
        let mut record = vec![0; ntfs.record];
        let at = u64_at(head, 48).and_then(|cluster| cluster.checked_mul(ntfs.cluster)).ok_or(corrupt)?;
        volume.read(at, &mut record)?;
        restore(&mut record, *b"FILE").ok_or(Kept::Corrupt("master file table"))?;
        ntfs.mft = stream_of(&record, MFT)?;
        Ok(ntfs)
    }

    fn geometry(volume: &Volume<'a>, head: &[u8]) -> Option<Self> {
        let sector = u64::from(u16_at(head, 11)?);
        let per_cluster = match *head.get(13)? {
            count @ 1..=0x80 => u64::from(count),
            power @ 0xF4..=0xFF => 1 << (256 - u32::from(power)),
            _ => return None,
        };
        let cluster = sector * per_cluster;
        let record = match *head.get(64)? {
            count @ 1..=0x7F => u64::from(count) * cluster,
            power @ 0xF4..=0xF7 => 1 << (256 - u32::from(power)),
            _ => return None,
        };
        let powers = sector.is_power_of_two() && per_cluster.is_power_of_two() && record.is_power_of_two();
        if !powers || !(512..=4096).contains(&sector) || cluster > 2 << 20 || !(512..=65536).contains(&record) {
            return None;
        }
        Some(Self {
            volume: *volume,
            cluster,
            clusters: u64_at(head, 40)? / per_cluster,
            record: usize::try_from(record).ok()?,
            mirror: u64_at(head, 56)?,
            mft: Stream { runs: Vec::new(), bytes: 0, written: 0 },
        })
    }

    /// A file record.
    fn record(&self, number: u64) -> Result<Vec<u8>, Kept> {
        let mut record = vec![0; self.record];
        let corrupt = Kept::Corrupt("master file table");
        let at = number.checked_mul(self.record as u64).filter(|at| *at < self.mft.written).ok_or(corrupt)?;
        self.mft.read(&self.volume, self.cluster, at, &mut record)?;
        restore(&mut record, *b"FILE").ok_or(corrupt)?;
        Ok(record)
    }

    /// The content of a file.
    fn stream(&self, number: u64) -> Result<Stream, Kept> {
        stream_of(&self.record(number)?, number)
    }

    fn was_left_properly(&self) -> Result<(), Kept> {
        let record = self.record(VOLUME)?;
        let information = attribute(&record, kind::VOLUME_INFORMATION, "").and_then(|found| found.value());
        let information = information.ok_or(Kept::Corrupt("volume record"))?;
        let flags = u16_at(information, 10).ok_or(Kept::Corrupt("volume record"))?;
        if !matches!(information.get(8..10), Some([1 | 3, _])) {
            return Err(Kept::NotRead("this version of NTFS"));
        }
        if flags & NOT_CLEAN == 0 { Ok(()) } else { Err(Kept::NotClean) }
    }

    /// Both restart pages of the log say that nobody was using it, or it is filled with ones.
    fn log_is_empty(&self, log: &Stream) -> Result<(), Kept> {
        let corrupt = Kept::Corrupt("log");
        let mut page = vec![0; 4096];
        log.read(&self.volume, self.cluster, 0, &mut page)?;
        if page.iter().all(|byte| *byte == 0xFF) {
            return Ok(());
        }
        let size =
            u32_at(&page, 16).filter(|size| (4096..=65536).contains(size) && size.is_power_of_two()).ok_or(corrupt)?;
        for index in 0..2 {
            let mut page = vec![0; size as usize];
            log.read(&self.volume, self.cluster, index * u64::from(size), &mut page)?;
            restore(&mut page, *b"RSTR").ok_or(corrupt)?;
            let area = page.get(u16_at(&page, 24).ok_or(corrupt)?.into()..).ok_or(corrupt)?;
            let (in_use, flags) = (u16_at(area, 12).ok_or(corrupt)?, u16_at(area, 14).ok_or(corrupt)?);
            if in_use != 0xFFFF && flags & 2 == 0 {
                return Err(Kept::Journal);
            }
        }
        Ok(())
    }

    /// There is no `hiberfil.sys` in the root folder, or it is empty of a sleeping system.
    fn nobody_sleeps(&self) -> Result<(), Kept> {
        for (number, name) in self.root_names()? {
            if !name.eq_ignore_ascii_case("hiberfil.sys") {
                continue;
            }
            let file = self.stream(number)?;
            let mut header = vec![0; usize::try_from(HIBERNATION_HEADER).unwrap_or(0)];
            if file.bytes < HIBERNATION_HEADER {
                return Err(Kept::Hibernated);
            }
            file.read(&self.volume, self.cluster, 0, &mut header)?;
            // A system that woke up leaves its mark, or zeros.
            if !header[..4].eq_ignore_ascii_case(b"wake") && header.iter().any(|byte| *byte != 0) {
                return Err(Kept::Hibernated);
            }
        }
        Ok(())
    }

    /// Everything in the root folder, from all parts of its index, in any order.
    fn root_names(&self) -> Result<Vec<(u64, String)>, Kept> {
        let corrupt = Kept::Corrupt("root folder");
        let record = self.record(ROOT)?;
        if attribute(&record, kind::LIST, "").is_some() {
            return Err(Kept::TooLarge);
        }
        let root = attribute(&record, kind::INDEX_ROOT, "$I30").and_then(|found| found.value()).ok_or(corrupt)?;
        let mut found = names(root.get(16..).ok_or(corrupt)?).ok_or(corrupt)?;
        let Some(rest) = attribute(&record, kind::INDEX_ALLOCATION, "$I30") else { return Ok(found) };
        let rest = rest.stream().ok_or(corrupt)?;
        let size =
            u32_at(root, 8).filter(|size| (512..=65536).contains(size) && size.is_power_of_two()).ok_or(corrupt)?;
        if rest.bytes > MAX_INDEX {
            return Err(Kept::TooLarge);
        }
        let mut block = vec![0; size as usize];
        for at in (0..rest.written.min(rest.bytes)).step_by(size as usize) {
            rest.read(&self.volume, self.cluster, at, &mut block)?;
            if block.starts_with(&[0; 4]) {
                continue;
            }
            restore(&mut block, *b"INDX").ok_or(corrupt)?;
            found.extend(names(&block[24..]).ok_or(corrupt)?);
        }
        Ok(found)
    }

    /// Reads the map, in which all of `metadata` must be set.
    fn free(&self, map: &Stream, metadata: &[Range<u64>]) -> Result<Unused, Kept> {
        let len = self.clusters.div_ceil(8);
        if map.written < len || metadata.iter().any(|range| range.end > self.clusters) {
            return Err(Kept::Corrupt("map of clusters"));
        }
        let mut unused = Unused::default();
        let mut at = 0;
        while at < len {
            let bytes = PIECE.min(len - at);
            let mut piece = vec![0; usize::try_from(bytes).unwrap_or(0)];
            map.read(&self.volume, self.cluster, at, &mut piece)?;
            let (first, end) = (at * 8, ((at + bytes) * 8).min(self.clusters));
            for range in metadata {
                let (from, to) = (range.start.max(first), range.end.min(end));
                if from < to && !bitmap::all_set(&piece, from - first..to - first) {
                    return Err(Kept::Disagree("map of clusters", "places of its metadata"));
                }
            }
            bitmap::clear_runs(&piece, end - first, |run| {
                unused.push((first + run.start) * self.cluster..(first + run.end) * self.cluster);
            });
            at += bytes;
        }
        Ok(unused)
    }
}

/// Where the content of the file with this restored record lies.
fn stream_of(record: &[u8], number: u64) -> Result<Stream, Kept> {
    let data = attribute(record, kind::DATA, "").and_then(|data| data.stream());
    data.ok_or(match (number, attribute(record, kind::LIST, "")) {
        (_, Some(_)) => Kept::TooLarge,
        (..=6, None) => Kept::Corrupt("master file table"),
        _ => Kept::Corrupt("file record"),
    })
}
