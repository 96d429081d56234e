//! What differs between two images: what a deployment of the second one sends to disks that hold the first one.
//!
//! Nothing is unpacked. Layers that both images share hold the same grains; other grains are compared by the hashes that each layer
//! has of its own. A block is sent if any of its places holds something else, as nodes that compare their disks decide it, too.

mod compare;
mod report;

pub use report::{DiffArea, DiffPartition, DiffReport, DiffSide};

use crate::chain::Image;
use crate::error::ImageError;
use compare::Old;
use core::ops::Range;
use slidecast_proto::units::BlockNo;

/// Compares the image at `from`, which disks hold, with the image at `to`, which they are to get.
///
/// # Errors
/// [`ImageError`] naming the file and what is wrong with it; [`ImageError::Incomparable`] for images with different grains.
pub fn diff(from: &Image, to: &Image) -> Result<DiffReport, ImageError> {
    let resolved = to.resolve()?;
    let mut old = Old::new(from, to)?;
    let header = resolved.header();
    let grain = u64::from(header.grain);
    let mut found = Found::default();
    let mut changed = Vec::new();
    for number in (0..header.blocks).map(BlockNo) {
        changed.clear();
        let own = resolved.origin(number);
        let content = resolved.content(number);
        for place in resolved.block_places(number) {
            old.differing(own, content, place, &mut changed)?;
        }
        let Some(first) = changed.first() else { continue };
        match resolved.stored(number) {
            Some(stored) => found.sent.push((first.start * grain, stored.stored_len)),
            None => found.filled_bytes += changed.iter().map(|run| (run.end - run.start) * grain).sum::<u64>(),
        }
        found.changed.extend(changed.iter().map(|run| run.start * grain..(run.end * grain).min(header.disk_bytes)));
    }
    found.changed.sort_unstable_by_key(|range| range.start);
    let side = |image: &Image| DiffSide {
        image: image.newest().core.path.display().to_string(),
        layer: image.header().layer.to_string(),
        root: image.root().to_string(),
        disk_bytes: image.header().disk_bytes,
    };
    Ok(report::made(side(from), side(to), &resolved, to.report()?.partitions, &found))
}

/// What is found on the way.
#[derive(Debug, Default)]
struct Found {
    /// Of each stored block that is sent: the first byte of the disk that it changes, and the length of its payload.
    sent: Vec<(u64, u32)>,
    /// Ranges of the disk that change, in bytes.
    changed: Vec<Range<u64>>,
    /// Of these, bytes that are fills.
    filled_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateOptions, create};
    use std::path::{Path, PathBuf};

    fn made(dir: &Path, name: &str, disk: &[u8], parent: Option<&Path>) -> PathBuf {
        let (source, output) = (dir.join("disk"), dir.join(name));
        std::fs::write(&source, disk).unwrap();
        let parent = parent.map(Path::to_owned);
        create(&CreateOptions { parent, ..CreateOptions::new(&source, &output) }, |_| ()).unwrap();
        output
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn between(from: &Path, to: &Path) -> DiffReport {
        diff(&Image::open(from).unwrap(), &Image::open(to).unwrap()).unwrap()
    }

    #[test]
    fn a_change_is_found_whether_the_images_share_layers_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = noise(8 << 20);
        disk[6 << 20..].fill(0);
        let base = made(dir.path(), "base.slide", &disk, None);
        disk[(2 << 20) + 5..][..10].fill(1);
        disk[6 << 20..][..64 << 10].fill(7);
        disk[4 << 20..][..128 << 10].fill(0);
        let child = made(dir.path(), "child.slide", &disk, Some(&base));
        let apart = made(dir.path(), "apart.slide", &disk, None);
        for to in [&child, &apart] {
            let report = between(&base, to);
            let changed: Vec<_> = report.areas.iter().map(|area| (area.start, area.changed_bytes)).collect();
            assert_eq!(changed, [(2 << 20, 4096), (4 << 20, 128 << 10), (6 << 20, 64 << 10)], "{report}");
            assert_eq!((report.changed_bytes, report.filled_bytes), (4096 + (192 << 10), 192 << 10));
            assert_eq!(report.sent_blocks, 1);
        }
        // One grain is stored by the child; of an image that stands alone the whole block of that grain is sent.
        assert!(between(&base, &child).sent_bytes < 5000);
        assert!((1 << 20..2 << 20).contains(&between(&base, &apart).sent_bytes));
        for (from, to) in [(&child, &apart), (&apart, &child), (&base, &base)] {
            let report = between(from, to);
            assert_eq!((report.changed_bytes, report.sent_blocks, report.areas.len()), (0, 0, 0), "{report}");
        }
    }

    #[test]
    fn damaged_grain_hashes_are_named_and_not_compared() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = noise(2 << 20);
        let old = made(dir.path(), "old.slide", &disk, None);
        disk[5] ^= 1;
        let new = made(dir.path(), "new.slide", &disk, None);
        let image = Image::open(&new).unwrap();
        let section = *image.newest().section(crate::format::Section::GrainHashes);
        let mut bytes = std::fs::read(&new).unwrap();
        bytes[usize::try_from(section.offset).unwrap() + 100] ^= 1;
        std::fs::write(&new, bytes).unwrap();
        let error = diff(&Image::open(&old).unwrap(), &Image::open(&new).unwrap()).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { what: "grain hashes", .. }), "{error}");
    }

    #[test]
    fn what_the_old_disk_lacks_is_sent_and_other_grains_cannot_be_compared() {
        let dir = tempfile::tempdir().unwrap();
        let disk = noise(4 << 20);
        let short = made(dir.path(), "short.slide", &disk[..3 << 20], None);
        let long = made(dir.path(), "long.slide", &disk, None);
        let report = between(&short, &long);
        assert_eq!((report.sent_blocks, report.changed_bytes), (1, 1 << 20), "{report}");
        assert_eq!(between(&long, &short).changed_bytes, 0);
        let coarse = dir.path().join("coarse.slide");
        let options = CreateOptions { grain: Some(8192), ..CreateOptions::new(&dir.path().join("disk"), &coarse) };
        create(&options, |_| ()).unwrap();
        let error = diff(&Image::open(&short).unwrap(), &Image::open(&coarse).unwrap()).unwrap_err();
        assert!(matches!(error, ImageError::Incomparable { .. }), "{error}");
    }
}
