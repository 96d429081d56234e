//! Images of disks that are in memory.

use super::*;
use crate::source::MemoryDisk;
use crate::{ExportOptions, export, info};

const GRAIN: usize = 4096;

/// A disk of 64 grains, each filled with another byte.
fn disk() -> MemoryDisk {
    let content = (0..64_u8).flat_map(|grain| [grain, grain ^ 0xA5].repeat(GRAIN / 2)).collect();
    MemoryDisk { content, ..MemoryDisk::default() }
}

fn made(source: &MemoryDisk, output: &Path) -> Result<CreateReport, ImageError> {
    create_from(source, &CreateOptions::new(Path::new("not looked at"), output), |_| ())
}

fn exported(image: &Path) -> Vec<u8> {
    let to = image.with_extension("img");
    export(&ExportOptions { image: image.into(), to: to.clone(), verify: None }, |_| ()).unwrap();
    std::fs::read(to).unwrap()
}

#[test]
fn a_disk_in_memory_gives_the_image_that_the_same_disk_in_a_file_gives() {
    let dir = tempfile::tempdir().unwrap();
    let [file, one, other] = ["disk", "one.slide", "other.slide"].map(|name| dir.path().join(name));
    std::fs::write(&file, disk().content).unwrap();
    let of_file = create(&CreateOptions::new(&file, &one), |_| ()).unwrap();
    let of_memory = made(&disk(), &other).unwrap();
    assert_eq!((of_file.layer, of_file.root), (of_memory.layer, of_memory.root));
    assert_eq!(exported(&other), disk().content);
}

#[test]
fn holes_and_ranges_that_the_source_calls_unused_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.slide");
    let mut source = disk();
    source.content.resize(2048 * GRAIN, 7);
    source.content[8 * GRAIN..16 * GRAIN].fill(0);
    // A read inside a hole of `MemoryDisk` panics. Between 1.25 MiB and 1.5 MiB nobody looks for signatures.
    source.holes = std::iter::once(8 * GRAIN as u64..16 * GRAIN as u64).collect();
    source.unused = std::iter::once(320 * GRAIN as u64..384 * GRAIN as u64).collect();
    let report = made(&source, &image).unwrap();
    assert_eq!(report.unused_bytes, 64 * GRAIN as u64);
    assert_eq!(report.read_bytes, (2048 - 8 - 64) * GRAIN as u64);
    let mut expected = source.content.clone();
    expected[320 * GRAIN..384 * GRAIN].fill(0);
    assert_eq!(exported(&image), expected);
}

#[test]
fn a_source_that_says_it_changed_gives_no_file_and_its_sector_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.slide");
    let error = made(&MemoryDisk { change: Some("content"), ..disk() }, &image).unwrap_err();
    assert!(matches!(error, ImageError::Changed { what: "content", .. }), "{error}");
    assert!(!image.exists());
    made(&MemoryDisk { sector: Some(4096), ..disk() }, &image).unwrap();
    assert_eq!(info(&image).unwrap().sector, 4096);
}
