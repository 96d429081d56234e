//! Random disks that change at random: every layer gives back its disk, and its manifest says the same.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Bench, noise};
use proptest::collection::vec;
use proptest::prelude::*;
use slidecast_image::manifest::{Content, Part};
use slidecast_image::{CreateOptions, Image, create, verify};
use slidecast_proto::units::{BlockNo, PartNo};

const GRAINS: usize = 300;
const GRAIN: usize = 4096;

/// A run of grains: where, how long, and which content it begins with; content goes on in steps of one.
type Run = (usize, usize, u64);

fn runs(most: usize) -> impl Strategy<Value = Vec<Run>> {
    vec((0..GRAINS, 1usize..40, prop_oneof![0u64..4, 0u64..400]), 0..most)
}

/// Content 0 is zeros, 1 to 3 are other fills, the rest is data.
fn grain(content: u64) -> Vec<u8> {
    if content < 4 { (content * 0x0101).to_le_bytes().repeat(GRAIN / 8) } else { noise(content, GRAIN) }
}

fn apply(disk: &mut [u8], runs: &[Run]) {
    for (start, len, content) in runs {
        for by in 0..*len {
            let step = if *content < 4 { 0 } else { by as u64 };
            if let Some(bytes) = disk.get_mut((start + by) * GRAIN..(start + by + 1) * GRAIN) {
                bytes.copy_from_slice(&grain(content + step));
            }
        }
    }
}

/// Writes the disk from the manifest alone, with the blocks of the export as the only content.
fn check_manifest(bench: &Bench, name: &str, disk: &[u8]) {
    let resolved = Image::open(&bench.path(name)).unwrap().resolve().unwrap();
    let header = resolved.header();
    let padded = |at: usize| disk.get(at).copied().unwrap_or(0);
    let mut seen = vec![false; disk.len().div_ceil(GRAIN)];
    let mut lowest = None;
    for no in 0..u32::try_from(header.parts.len()).unwrap() {
        let part = Part::parse(header, PartNo(no), &resolved.part_bytes(PartNo(no))).unwrap();
        for block in header.part_blocks(PartNo(no)).map(BlockNo) {
            let info = part.block(block).unwrap();
            assert!(lowest < Some(info.lowest_target()));
            lowest = Some(info.lowest_target());
            let mut live: Vec<u8> = Vec::new();
            for run in info.live_runs() {
                for source in run {
                    let place = info.places.iter().find(|p| (p.source..p.source + p.grains).contains(&source)).unwrap();
                    let at = (usize::try_from(place.target).unwrap() + (source - place.source) as usize) * GRAIN;
                    live.extend((at..at + GRAIN).map(padded));
                }
            }
            for place in info.places {
                for by in 0..u64::from(place.grains) {
                    let target = usize::try_from(place.target + by).unwrap();
                    assert!(!core::mem::replace(&mut seen[target], true), "grain {target} twice");
                    if let Content::Fill { pattern } = info.content {
                        let bytes = pattern.to_le_bytes();
                        assert!(
                            (0..GRAIN)
                                .all(|at| target * GRAIN + at >= disk.len()
                                    || disk[target * GRAIN + at] == bytes[at % 8])
                        );
                    }
                }
            }
            if let Content::Stored { live: hash, .. } = info.content {
                assert_eq!(*blake3::hash(&live).as_bytes(), hash.0);
            }
            assert!(resolved.stored(block).is_some() != matches!(info.content, Content::Fill { .. }));
        }
    }
    assert!(seen.iter().all(|seen| *seen), "every grain is in some block");
    assert_eq!(header.raw_bytes, disk.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_layer_gives_back_its_disk(
        first in runs(20),
        changes in vec((runs(6), 1..GRAINS * 8), 0..4),
        sectors in GRAINS * 8 - 8..GRAINS * 8,
        resizes in any::<bool>(),
        dedup_run in prop_oneof![Just(1u64), Just(4096), Just(16 << 10), Just(100 << 10)],
    ) {
        let bench = Bench::new();
        let mut disk = vec![0; GRAINS * GRAIN];
        apply(&mut disk, &first);
        let mut parent = None;
        for (no, (change, resized)) in [(vec![], sectors)].into_iter().chain(changes).enumerate() {
            apply(&mut disk, &change);
            let bytes = if resizes { resized } else { sectors } * 512;
            let path = bench.path("disk");
            std::fs::write(&path, &disk[..bytes]).unwrap();
            let name = format!("{no}.slide");
            let options = CreateOptions {
                parent: parent.map(|name: String| bench.path(&name)),
                block: (no == 0).then_some(64 << 10),
                dedup_run,
                ..CreateOptions::new(&path, &bench.path(&name))
            };
            create(&options, |_| ()).unwrap();
            prop_assert!(bench.is_equal(&name, &path), "{}", name);
            verify(&bench.path(&name), |_| ()).unwrap();
            check_manifest(&bench, &name, &disk[..bytes]);
            parent = Some(name);
        }
    }
}
