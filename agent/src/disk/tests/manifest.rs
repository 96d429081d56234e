//! Small manifests for tests.

use slidecast_image::manifest::{Content, ManifestHeader, Part, PartEntry, PartWriter, Place, TableKind};
use slidecast_proto::units::{BlockNo, Hash, PartNo};

pub(in crate::disk) type Block = (Content, Vec<Place>);

/// A stored block of `grains` grains (content unknown) at `target`.
pub(in crate::disk) fn stored(grains: u32, target: u64) -> Block {
    let hash = Hash([1; 32]);
    (Content::Stored { grains, hash, live: hash }, vec![Place { source: 0, grains, target }])
}

/// A fill of `grains` grains at `target`.
pub(in crate::disk) fn fill(pattern: u64, grains: u32, target: u64) -> Block {
    (Content::Fill { pattern }, vec![Place { source: 0, grains, target }])
}

/// A manifest of one part, for a disk of 1 TiB with grains of 4 KiB.
pub(in crate::disk) fn part(blocks: &[Block]) -> (ManifestHeader, Part) {
    let mut writer = PartWriter::new(BlockNo(0));
    for (content, places) in blocks {
        writer.push(*content, places.len(), places.iter().copied());
    }
    let bytes = writer.finish();
    let header = ManifestHeader {
        layer: Hash([0; 32]),
        disk_bytes: 1 << 40,
        sector: 512,
        grain: 4096,
        block: 1 << 20,
        blocks: u32::try_from(blocks.len()).unwrap(),
        stored_blocks: 0,
        raw_bytes: 0,
        table: TableKind::None,
        parts: vec![PartEntry { first: BlockNo(0), hash: Hash::of(&bytes) }],
    };
    let part = Part::parse(&header, PartNo(0), &bytes).unwrap();
    (header, part)
}
