//! The superblock: geometry and features.

use super::{SUPER_AT, sum};
use crate::le::{u32_at, u64_at};
use crate::used::volume::Kept;

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
/// Blocks of a segment, and the power of two that it is.
pub(super) const SEGMENT: u64 = 512;
const SEGMENT_LOG: u32 = 9;
const SUPER_BYTES: usize = 3072;
/// The first fields: the magic number, and all of the geometry.
const GEOMETRY: core::ops::Range<usize> = 0..108;
const FEATURE_SUM: u32 = 0x800;
/// Known and harmless to the tables: encryption, atomic writes, more attributes, project quota, checksums of inodes,
/// flexible attributes, quota files, creation times, lost+found, verity, this checksum, case folding, compression.
const FEATURES_KNOWN: u32 = 0x3FFD;
const FEATURE_ZONED: u32 = 0x2;
const CORRUPT: Kept = Kept::Corrupt("superblock");

/// What the superblock says, each number checked against the others. Places are blocks of the volume.
pub(super) struct Layout {
    pub(super) blocks: u64,
    pub(super) checkpoints: u64,
    /// Blocks of a checkpoint behind its first one, with more of its bits.
    pub(super) payload: u64,
    pub(super) sit: u64,
    pub(super) sit_segments: u64,
    pub(super) nat: u64,
    pub(super) nat_segments: u64,
    pub(super) main: u64,
    /// Segments of the main area.
    pub(super) segments: u32,
}

impl Layout {
    /// Parses the head of a volume, which has the superblock twice.
    pub(super) fn parse(head: &[u8]) -> Result<Self, Kept> {
        let copy = |at: usize| head.get(at..at + SUPER_BYTES).ok_or(CORRUPT);
        let (raw, other) = (copy(SUPER_AT)?, copy(SUPER_AT + 4096)?);
        if raw[GEOMETRY] != other[GEOMETRY] {
            return Err(Kept::Disagree("superblock", "copy of it"));
        }
        let features = u32_at(raw, 2180).ok_or(CORRUPT)?;
        for raw in [raw, other] {
            let holds = || u32_at(raw, 32) == Some(3068) && u32_at(raw, 3068) == Some(sum(&[&raw[..3068]]));
            if features & FEATURE_SUM != 0 && !holds() {
                return Err(Kept::Disagree("superblock", "checksum"));
            }
        }
        if features & FEATURE_ZONED != 0 {
            return Err(Kept::NotRead("F2FS on a zoned device"));
        }
        if features & !FEATURES_KNOWN != 0 {
            return Err(Kept::Feature("F2FS", features & !FEATURES_KNOWN));
        }
        if raw[2201] != 0 {
            return Err(Kept::NotRead("F2FS on several devices"));
        }
        if u32_at(raw, 16) != Some(12) || u32_at(raw, 20) != Some(SEGMENT_LOG) {
            return Err(Kept::NotRead("F2FS with blocks or segments of another size"));
        }
        Self::numbers(raw).ok_or(CORRUPT)
    }

    /// The geometry; `None` if its areas do not follow one another to the end.
    fn numbers(raw: &[u8]) -> Option<Self> {
        let word = |at| u32_at(raw, at).map(u64::from);
        let blocks = u64_at(raw, 36)?;
        blocks.checked_mul(BLOCK)?;
        let mut place = word(72)?;
        // Segments of checkpoints, SIT, NAT, summaries and the main area, and where each begins.
        let mut areas = [(0, 0); 5];
        for (number, area) in areas.iter_mut().enumerate() {
            *area = (word(52 + 4 * number)?, word(76 + 4 * number)?);
            if area.1 != place {
                return None;
            }
            place += area.0 * SEGMENT;
        }
        let [(checkpoints, first), (sit_segments, sit), (nat_segments, nat), _, (segments, main)] = areas;
        let payload = word(1664)?;
        let fits = place <= blocks
            && place <= first + word(48)? * SEGMENT
            && first > 1
            && checkpoints == 2
            && sit_segments % 2 == 0
            && nat_segments % 2 == 0
            && payload < SEGMENT
            && segments.div_ceil(super::tables::SIT_ENTRIES) <= sit_segments / 2 * SEGMENT;
        fits.then_some(Self {
            blocks,
            checkpoints: first,
            payload,
            sit,
            sit_segments,
            nat,
            nat_segments,
            main,
            segments: u32::try_from(segments).ok()?,
        })
    }

    /// The first block behind the main area.
    pub(super) fn end(&self) -> u64 {
        self.main + u64::from(self.segments) * SEGMENT
    }
}
