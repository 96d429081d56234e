//! Blocks that stand on the disk already are kept; a disk that holds the image is not written at all.

use super::image::{Dice, TestImage, gpt_front, to_usize};
use super::recorder::{Recorder, Step};
use super::rig::{Rig, deploy, options};
use crate::disk::Event;
use slidecast_image::fit::HEAD_BYTES;
use slidecast_proto::reason::{Free, LookedAt, Verified, Verify};
use slidecast_proto::units::BlockNo;
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;

fn image(seed: u64) -> TestImage {
    TestImage::random(4 * MIB, 512, seed, Some(&gpt_front(4 * MIB, 512)))
}

/// A target that holds the image already.
fn complete(image: &TestImage) -> Recorder {
    complete_on(image, 4 * MIB)
}

fn complete_on(image: &TestImage, bytes: u64) -> Recorder {
    Recorder::new(image.expected(&Dice::new(55).bytes(to_usize(bytes))), 512, false)
}

fn writes(target: &Recorder) -> usize {
    target.state().log.iter().filter(|step| matches!(step, Step::Write { .. })).count()
}

/// The blocks that have a place with this byte of the disk.
fn blocks_at(image: &TestImage, at: u64) -> Vec<BlockNo> {
    let grain = at / 4096;
    let holds = |block: &BlockNo| {
        let part = image.part_of(*block);
        let places = part.block(*block).unwrap().places;
        places.iter().any(|place| (place.target..place.target + u64::from(place.grains)).contains(&grain))
    };
    (0..image.blocks()).map(BlockNo).filter(holds).collect()
}

#[test]
fn a_disk_that_holds_the_image_is_done_without_a_write() {
    let image = image(1);
    // On a larger target, too, where the partition table was fitted.
    for bytes in [4 * MIB, 6 * MIB] {
        let target = complete_on(&image, bytes);
        let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
        assert_eq!(rig.compare().len(), image.blocks() as usize);
        rig.engine.finish();
        let end = rig.wait(|_| false);
        let last_look = (LookedAt::No, 0);
        assert_eq!(
            end,
            Event::Ended {
                verified: Verified::Direct,
                written: 0,
                kept: image.blocks(),
                last_look,
                note: String::new()
            }
        );
        assert_eq!(writes(&target), 0);
    }
}

/// A process that was killed may have written blocks, or the head, that no flush covered: what is found on the disk is said to survive
/// a power cut.
#[test]
fn what_an_older_process_wrote_is_flushed_before_it_counts_as_held() {
    let image = image(1);
    let target = complete(&image);
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    rig.compare();
    assert_eq!(target.state().log.first(), Some(&Step::Flush));
}

#[test]
fn only_blocks_that_differ_are_lacking() {
    let image = image(2);
    let target = complete(&image);
    let mut changed = BTreeSet::new();
    for (at, _) in image.used().step_by(37) {
        target.state().disk[at + 77] ^= 1;
        changed.extend(blocks_at(&image, at as u64));
    }
    let expected = image.expected_on(target.state().disk.clone());
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    let same = rig.compare();
    let lacking: BTreeSet<BlockNo> = (0..image.blocks()).map(BlockNo).filter(|block| !same.contains(block)).collect();
    assert_eq!(lacking, changed);
    let end = rig.deploy(&mut Dice::new(2), |block| lacking.contains(&block));
    assert!(matches!(end, Event::Ended { written, .. } if written as usize == changed.len()), "{end:?}");
    assert!(target.state().disk == expected);
}

#[test]
fn a_damaged_backup_table_is_written_anew_without_any_block() {
    let image = image(3);
    let target = complete(&image);
    let whole = target.state().disk.clone();
    let last = whole.len() - 1;
    target.state().disk[last - 300] ^= 1;
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    assert_eq!(rig.compare().len(), image.blocks() as usize);
    rig.engine.finish();
    assert!(matches!(rig.wait(|_| false), Event::Ended { written: 0, .. }));
    assert!(target.state().disk == whole);
    let state = target.state();
    assert!(
        matches!(&state.log[..], [.., Step::Write { at: 0, bytes }, Step::Flush, Step::Read(_)] if bytes.len() == 512)
    );
}

#[test]
fn what_stood_in_unused_space_of_head_and_backup_does_not_come_back() {
    let image = TestImage::random(4 * MIB, 512, 8, None);
    // Another system's disk, of which the image's first block happens to be there.
    let old = Dice::new(9).bytes(to_usize(4 * MIB));
    let fresh = image.expected(&old);
    let mut disk = old;
    let (at, grain) = image.used().next().unwrap();
    disk[at..at + grain.len()].copy_from_slice(grain);
    let target = Recorder::new(disk, 512, false);
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    let same = rig.compare();
    assert!(matches!(rig.deploy(&mut Dice::new(8), |block| !same.contains(&block)), Event::Ended { .. }));
    assert!(target.state().disk == fresh);
}

#[test]
fn the_mark_never_becomes_part_of_the_image() {
    // Nothing in this image says what sector 0 is.
    let image = (0..).map(|seed| TestImage::random(4 * MIB, 512, seed, None));
    let image = image.into_iter().find(|image| blocks_at(image, 0).is_empty()).unwrap();
    let target = Recorder::new(Dice::new(1).bytes(to_usize(4 * MIB)), 512, false);
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    rig.engine.begin();
    rig.wait(|event| *event == Event::Began);
    drop(rig);
    let disk = target.state().disk.clone();
    let target = target.restarted(disk);
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    let same = rig.compare();
    let end = rig.deploy(&mut Dice::new(1), |block| !same.contains(&block));
    assert!(matches!(end, Event::Ended { .. }));
    assert_eq!(target.state().disk[..512], [0; 512]);
}

#[test]
fn nothing_is_kept_when_unused_space_is_to_be_zeroed() {
    let image = image(4);
    let target = complete(&image);
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Zero));
    assert!(rig.compare().is_empty());
    assert!(matches!(rig.deploy(&mut Dice::new(4), |_| true), Event::Ended { kept: 0, .. }));
    assert!(target.state().disk == image.expected(&vec![0; to_usize(4 * MIB)]));
}

#[test]
fn a_discard_never_takes_what_is_kept() {
    let image = image(5);
    let target = complete(&image);
    let at = image.used().map(|(at, _)| at).find(|at| *at as u64 > HEAD_BYTES).unwrap();
    target.state().disk[at] ^= 1;
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Discard));
    let same = rig.compare();
    assert!(matches!(rig.deploy(&mut Dice::new(5), |block| !same.contains(&block)), Event::Ended { .. }));
    let (fresh, _) = deploy(&image, &target, options(Verify::Full, Free::Keep), 5);
    assert!(matches!(fresh, Event::Ended { .. }));
}
