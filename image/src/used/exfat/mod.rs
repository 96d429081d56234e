//! Free clusters of exFAT (Microsoft's "exFAT file system specification", 1.00).
//!
//! The boot sector gives the geometry, under a checksum. One bit for each cluster, in a file that the root folder names,
//! says which are in use. Nothing guards these bits, so all folders are read: whatever a file has must be in use, and no
//! cluster may be part of two files. Of files and folders only those with gaps have entries in the allocation table that
//! mean anything.

mod folders;

use super::bitmap;
use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use crate::le::{u16_at, u32_at, u64_at};
use folders::Folders;

/// Flags of the volume: not unmounted, and errors of the medium.
const DIRTY: u16 = 2;
const FAILED: u16 = 4;
/// No larger map of clusters is read. Two of them are in memory.
const MAX_MAP: u64 = 32 << 20;
/// The boot sector, its extended sectors, and what follows them, up to the checksum.
const SUMMED_SECTORS: usize = 11;
const CORRUPT: Kept = Kept::Corrupt("boot sector");

/// The row of the table of readers.
pub(super) const READER: Reader = Reader { probe: |head| is_exfat(head).then_some("exFAT"), unused };

fn is_exfat(head: &[u8]) -> bool {
    head.get(3..11) == Some(b"EXFAT   ")
}

/// The free clusters of the file system on `volume`, whose first bytes are `head`.
fn unused(volume: &Volume<'_>, head: &[u8]) -> Result<Unused, Kept> {
    let layout = Layout::parse(head)?;
    if layout.end > volume.bytes() {
        return Err(Kept::TooLong);
    }
    let map = Folders::new(volume, &layout)?.checked_map()?;
    let mut unused = Unused::default();
    bitmap::clear_runs(&map, layout.clusters.into(), |run| {
        unused.push(layout.heap + run.start * layout.cluster..layout.heap + run.end * layout.cluster);
    });
    Ok(unused)
}

/// The numbers of a boot sector that fit together.
struct Layout {
    /// The allocation table and the first cluster, in bytes of the volume.
    table: u64,
    heap: u64,
    end: u64,
    /// Bytes of a cluster.
    cluster: u64,
    clusters: u32,
    root: u32,
}

impl Layout {
    fn parse(head: &[u8]) -> Result<Self, Kept> {
        let sector = head.get(108).filter(|shift| (9..=12).contains(*shift)).map(|shift| 1_usize << shift);
        let sector = sector.ok_or(CORRUPT)?;
        if head.get(510..512) != Some(&[0x55, 0xAA]) {
            return Err(CORRUPT);
        }
        let summed = head.get(..SUMMED_SECTORS * sector).ok_or(CORRUPT)?;
        let sums = head.get(summed.len()..summed.len() + sector).ok_or(CORRUPT)?;
        let sum = boot_sum(summed).to_le_bytes();
        if sums.chunks_exact(4).any(|stated| stated != sum) {
            return Err(Kept::Disagree("boot sector", "checksum"));
        }
        if head.get(105) != Some(&1) {
            return Err(Kept::NotRead("this version of exFAT"));
        }
        if head.get(110) != Some(&1) {
            return Err(Kept::NotRead("exFAT with several allocation tables"));
        }
        let flags = u16_at(head, 106).ok_or(CORRUPT)?;
        if flags & DIRTY != 0 {
            return Err(Kept::NotClean);
        }
        if flags & FAILED != 0 {
            return Err(Kept::Errors);
        }
        let layout = Self::numbers(head, sector as u64).ok_or(CORRUPT)?;
        if layout.map_bytes() > MAX_MAP {
            return Err(Kept::TooLarge);
        }
        Ok(layout)
    }

    /// The geometry; `None` if its numbers cannot be.
    fn numbers(head: &[u8], sector: u64) -> Option<Self> {
        let shift = u32::from(*head.get(109)?);
        if shift > 25 - sector.trailing_zeros() {
            return None;
        }
        let word = |at| u32_at(head, at).map(u64::from);
        let (table, table_sectors, heap) = (word(80)?, word(84)?, word(88)?);
        let (sectors, clusters, root) = (u64_at(head, 72)?, u32_at(head, 92)?, u32_at(head, 96)?);
        let fits = table >= 2 * (SUMMED_SECTORS as u64 + 1)
            && (u64::from(clusters) + 2) * 4 <= table_sectors * sector
            && table + table_sectors <= heap
            && heap + (u64::from(clusters) << shift) <= sectors;
        if !fits || clusters == 0 || !(2..u64::from(clusters) + 2).contains(&root.into()) {
            return None;
        }
        Some(Self {
            table: table * sector,
            heap: heap * sector,
            end: sectors.checked_mul(sector)?,
            cluster: sector << shift,
            clusters,
            root,
        })
    }

    /// Bytes of the map of clusters.
    fn map_bytes(&self) -> u64 {
        u64::from(self.clusters).div_ceil(8)
    }
}

/// The checksum of the boot region, without the flags of the volume and how full it is.
pub(crate) fn boot_sum(region: &[u8]) -> u32 {
    let summed = region.iter().enumerate().filter(|(at, _)| !matches!(at, 106 | 107 | 112));
    summed.fold(0_u32, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u32::from(*byte)))
}
