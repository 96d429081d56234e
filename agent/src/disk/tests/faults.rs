//! Errors and lies of the disk: each ends in a failure with its reason, or is put right; never in a wrong disk that counts as done.

use super::image::{Dice, TestImage, gpt_front, to_usize};
use super::recorder::{Faults, Recorder};
use super::rig::{DEPLOYMENT, ROOT, Rig, deploy, options};
use crate::disk::{Engine, EngineOptions, Event};
use slidecast_image::fit::tail_area;
use slidecast_image::manifest::{Content, Place};
use slidecast_proto::reason::{Free, Reason, Verify};
use slidecast_proto::schedule::DiskFailure;
use slidecast_proto::units::BlockNo;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn image(seed: u64) -> TestImage {
    TestImage::random(4 * MIB, 512, seed, Some(&gpt_front(4 * MIB, 512)))
}

fn target(rotational: bool, faults: Faults) -> Recorder {
    let target = Recorder::new(Dice::new(5).bytes(to_usize(4 * MIB)), 512, rotational);
    target.state().faults = faults;
    target
}

/// The failure of a deployment to a target with these faults, the same for both kinds of disk.
fn failure(image: &TestImage, faults: &Faults, verify: Verify) -> DiskFailure {
    let mut failures = [false, true].map(|rotational| {
        let target = target(rotational, faults.clone());
        let (end, events) = deploy(image, &target, options(verify, Free::Keep), 1);
        assert!(!events.iter().any(|event| matches!(event, Event::Ended { .. })));
        let Event::Failed(failure) = end else { panic!("{end:?}") };
        assert!(target.state().disk[510..512] != [0x55, 0xaa], "a failed disk does not boot");
        failure
    });
    assert_eq!(failures[0].reason, failures[1].reason);
    core::mem::replace(&mut failures[0], DiskFailure { reason: Reason::None, detail: String::new() })
}

/// The first byte of a place of a block of that kind in the body.
fn byte_of(image: &TestImage, fill: bool) -> u64 {
    let blocks = (0..image.blocks()).map(BlockNo);
    let mut found = blocks.filter_map(|block| {
        let part = image.part_of(block);
        let info = part.block(block).unwrap();
        let body = 2 * MIB + 1..tail_area(4 * MIB, 512).start;
        let inside = |place: &&Place| {
            let at = place.target * 4096;
            body.contains(&at) && at + u64::from(place.grains) * 4096 <= body.end && place.grains > 1
        };
        let place = info.places.iter().find(inside)?;
        (matches!(info.content, Content::Fill { .. }) == fill).then_some(place.target * 4096)
    });
    found.next_back().unwrap()
}

#[test]
fn an_error_on_a_write_names_block_and_position() {
    let image = image(1);
    for fill in [false, true] {
        let at = byte_of(&image, fill);
        let failure =
            failure(&image, &Faults { write_at: Some(at), no_zero_call: true, ..Faults::default() }, Verify::Full);
        assert_eq!(failure.reason, Reason::DiskWrite);
        assert!(failure.detail.starts_with("writing block "), "{}", failure.detail);
        assert!(failure.detail.ends_with(" on /dev/test: Input/output error"), "{}", failure.detail);
    }
}

#[test]
fn errors_at_both_ends_of_the_disk_are_named() {
    let image = image(2);
    let backup = tail_area(4 * MIB, 512).start;
    let cases =
        [(0, "writing the mark at 0"), (4096, "writing the head at 512"), (backup, "writing the backup GPT at ")];
    for (at, words) in cases {
        let failure = failure(&image, &Faults { write_at: Some(at), ..Faults::default() }, Verify::Full);
        assert_eq!(failure.reason, Reason::DiskWrite);
        assert!(failure.detail.starts_with(words), "{}", failure.detail);
    }
}

#[test]
fn an_error_on_any_flush_is_final_though_the_next_would_go_well() {
    let image = image(3);
    let healthy = target(false, Faults::default());
    deploy(&image, &healthy, options(Verify::Full, Free::Keep), 1);
    let flushes = healthy.state().log.iter().filter(|step| **step == super::recorder::Step::Flush).count();
    assert!(flushes >= 5);
    for no in 0..4 {
        let failure = failure(&image, &Faults { flush_no: Some(no), ..Faults::default() }, Verify::Full);
        assert_eq!(failure.reason, Reason::DiskFlush);
        assert_eq!(failure.detail, "flushing /dev/test: Input/output error");
    }
}

#[test]
fn an_error_on_reading_back_is_a_failure() {
    let image = image(4);
    for at in [byte_of(&image, false), byte_of(&image, true), 8192] {
        let failure = failure(&image, &Faults { read_at: Some(at), ..Faults::default() }, Verify::Full);
        assert_eq!(failure.reason, Reason::DiskRead);
        assert!(failure.detail.starts_with("reading "), "{}", failure.detail);
    }
    let failure = failure(&image, &Faults { read_at: Some(8192), ..Faults::default() }, Verify::Head);
    assert!(failure.detail.starts_with("reading the head at "), "{}", failure.detail);
}

#[test]
fn a_write_that_went_nowhere_is_made_again_once() {
    let image = image(5);
    for fill in [false, true] {
        for rotational in [false, true] {
            let lost_at = Some((byte_of(&image, fill), 1));
            let target = target(rotational, Faults { lost_at, no_zero_call: true, ..Faults::default() });
            let before = target.state().disk.clone();
            let (end, events) = deploy(&image, &target, options(Verify::Full, Free::Keep), 1);
            assert!(matches!(end, Event::Ended { written, .. } if written == image.blocks()), "{end:?}");
            let asked = events.iter().any(|event| matches!(event, Event::Mismatch(_)));
            assert_eq!(asked, !fill, "fills are put right without asking");
            assert!(target.state().disk == image.expected(&before));
        }
    }
}

#[test]
fn a_disk_that_keeps_losing_writes_is_lost_itself() {
    let image = image(6);
    let cases = [(byte_of(&image, false), "block "), (byte_of(&image, true), "block "), (8192, "the head ")];
    for (at, words) in cases {
        let faults = Faults { lost_at: Some((at, usize::MAX)), no_zero_call: true, ..Faults::default() };
        let failure = failure(&image, &faults, Verify::Full);
        assert_eq!(failure.reason, Reason::DiskMismatch);
        assert!(failure.detail.starts_with(&format!("reading back {words}")), "{}", failure.detail);
    }
}

#[test]
fn a_disk_that_lies_about_zeros_gets_them_written() {
    // Long runs of zeros, for which the disk is asked.
    let image = (0..).map(|seed| TestImage::random(6 * MIB, 512, seed, None)).find(long_zeros).unwrap();
    let target = Recorder::new(Dice::new(5).bytes(to_usize(6 * MIB)), 512, false);
    target.state().faults.zero_lies = true;
    let before = target.state().disk.clone();
    let (end, _) = deploy(&image, &target, options(Verify::Full, Free::Keep), 1);
    assert!(matches!(end, Event::Ended { .. }));
    assert!(target.state().zero_calls > 0);
    assert!(target.state().disk == image.expected(&before));
}

fn long_zeros(image: &TestImage) -> bool {
    (0..image.blocks()).map(BlockNo).any(|block| {
        let part = image.part_of(block);
        let info = part.block(block).unwrap();
        let long = info.places.iter().any(|place| place.target * 4096 > 2 * MIB && place.grains >= 40);
        matches!(info.content, Content::Fill { pattern: 0 }) && long
    })
}

#[test]
fn a_target_that_is_too_small_is_refused_before_anything_is_written() {
    let image = image(7);
    let small = Recorder::new(vec![1; to_usize(4 * MIB - 512)], 512, false);
    let header = Arc::clone(&image.header);
    let options = EngineOptions::new(DEPLOYMENT, Verify::Full, Free::Keep);
    let refused = Engine::start_on(Box::new(small.clone()), header, ROOT, options, Box::new(|| ()));
    let failure = refused.unwrap_err();
    assert_eq!(failure.reason, Reason::TargetTooSmall);
    assert_eq!(failure.detail, "/dev/test has 4193792 bytes, the image needs 4194304");
    assert!(small.state().log.is_empty());
}

#[test]
fn a_target_that_shrinks_is_not_written() {
    let image = image(8);
    let target = target(false, Faults { bytes_now: Some(3 * MIB), ..Faults::default() });
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    rig.engine.begin();
    let end = rig.wait(|_| false);
    assert!(matches!(end, Event::Failed(DiskFailure { reason: Reason::DiskOpen, .. })), "{end:?}");
    assert!(target.state().log.is_empty());
}
