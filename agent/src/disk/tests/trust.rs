//! Disks that put writes in the wrong place: wrong bytes are put right or the disk is refused, never `done`.

use super::image::{Dice, TestImage, gpt_front, to_usize};
use super::recorder::{Faults, Recorder, Step};
use super::rig::{Rig, deploy, options};
use crate::disk::{EngineOptions, Event, Mark};
use slidecast_proto::reason::{Free, LookedAt, Reason, Verify};
use slidecast_proto::schedule::DiskFailure;
use slidecast_proto::units::BlockNo;

const MIB: u64 = 1 << 20;
const BYTES: u64 = 7 * MIB;

fn image(seed: u64) -> TestImage {
    TestImage::random(BYTES, 512, seed, Some(&gpt_front(BYTES, 512)))
}

fn target(rotational: bool, faults: Faults) -> Recorder {
    let target = Recorder::new(Dice::new(5).bytes(to_usize(BYTES)), 512, rotational);
    target.state().faults = faults;
    target
}

/// Blocks come in the order of the disk, so that what is destroyed was verified long before.
fn in_order(image: &TestImage, target: &Recorder, options: EngineOptions) -> (Event, Vec<Event>) {
    let mut rig = Rig::new(image, target, options);
    let end = rig.deploy_in_order();
    (end, rig.events)
}

fn last_look(end: &Event) -> (LookedAt, u32) {
    let Event::Ended { last_look, .. } = end else { panic!("{end:?}") };
    *last_look
}

#[test]
fn a_write_that_lands_on_verified_blocks_is_found_and_both_are_put_right() {
    for seed in 0..6 {
        let image = image(seed);
        for rotational in [false, true] {
            let faults = Faults {
                misdirect: Some((6 * MIB..BYTES - 262_144, 3 * MIB)),
                no_zero_call: true,
                ..Faults::default()
            };
            let target = target(rotational, faults);
            let before = target.state().disk.clone();
            let (end, events) = in_order(&image, &target, options(Verify::Full, Free::Keep));
            assert_eq!(last_look(&end), (LookedAt::All, image.blocks()), "seed {seed}");
            assert!(target.state().faults.misdirect.is_none(), "a write was misdirected");
            assert!(events.contains(&Event::Unverified));
            // Unused space that was hit is nobody's.
            for (at, grain) in image.used().filter(|(at, _)| *at as u64 >= MIB) {
                assert!(target.state().disk[at..at + grain.len()] == *grain, "seed {seed}: wrong at {at}");
            }
            assert!(Mark::parse(&target.state().disk).is_none() && before.len() == target.state().disk.len());
        }
    }
}

#[test]
fn a_disk_whose_addresses_wrap_is_refused_before_a_block_is_written() {
    for wraps_at in [4 * MIB, 32 * MIB] {
        let bytes = 2 * wraps_at;
        let image = TestImage::random(bytes, 512, 3, None);
        let target = Recorder::new(Dice::new(5).bytes(to_usize(bytes)), 512, false);
        target.state().faults.wraps_at = Some(wraps_at);
        let (end, events) = deploy(&image, &target, options(Verify::Full, Free::Keep), 1);
        let Event::Failed(DiskFailure { reason, detail }) = end else { panic!("{end:?}") };
        assert!(!events.iter().any(|event| matches!(event, Event::Ended { .. })));
        assert_eq!(reason, Reason::DiskWraps);
        let words = format!("/dev/test says that it has {bytes} bytes, but what was written at ");
        assert!(detail.starts_with(&words), "{detail}");
        assert!(!events.contains(&Event::Began), "no block was written");
        assert!(Mark::parse(&target.state().disk).is_some(), "it is still marked");
    }
}

/// No place of the probe is another one there, so that the blocks themselves have to show it.
#[test]
fn a_full_disk_that_wraps_at_any_size_is_never_done() {
    let mut reasons = [0; 2];
    for seed in 0..40 {
        let image = image(seed);
        let target = target(false, Faults::default());
        let wraps_at = 2 * MIB + 512 * Dice::new(seed + 100).roll(5 * MIB / 512 - 40);
        target.state().faults.wraps_at = Some(wraps_at);
        let (end, _) = in_order(&image, &target, options(Verify::Full, Free::Keep));
        let Event::Failed(DiskFailure { reason, detail }) = end else { panic!("wraps at {wraps_at}: {end:?}") };
        match reason {
            Reason::DiskWraps => reasons[0] += 1,
            Reason::DiskMismatch => reasons[1] += 1,
            other => panic!("wraps at {wraps_at}: {other}: {detail}"),
        }
    }
    assert!(reasons[1] > 30, "{reasons:?}");
}

#[test]
fn the_probe_leaves_unused_space_and_kept_blocks_as_they_were() {
    let image = image(7);
    let before = Dice::new(5).bytes(to_usize(BYTES));
    let target = target(false, Faults::default());
    let (end, _) = deploy(&image, &target, options(Verify::Full, Free::Keep), 1);
    assert!(matches!(end, Event::Ended { .. }));
    assert!(target.state().disk == image.expected(&before));
    // All is kept but one block that changed.
    let (at, _) = image.used().filter(|(at, _)| *at as u64 > 5 * MIB).nth(3).unwrap();
    target.state().disk[at] ^= 1;
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    let same = rig.compare();
    let end = rig.deploy(&mut Dice::new(7), |block| !same.contains(&block));
    assert!(matches!(end, Event::Ended { written: 1, .. }), "{end:?}");
    assert!(target.state().disk == image.expected(&before));
}

#[test]
fn a_probe_that_is_misdirected_itself_makes_all_be_read_again() {
    let image = image(8);
    let target = target(false, Faults::default());
    let (end, _) = deploy(&image, &target, options(Verify::Full, Free::Keep), 1);
    assert_eq!(last_look(&end).0, LookedAt::Sample);
    let (at, _) = image.used().filter(|(at, _)| *at as u64 > 5 * MIB).nth(3).unwrap();
    target.state().disk[at] ^= 1;
    // The first write behind 4 MiB is one of the probe's: it is lost.
    target.state().faults.lost_at = Some((4 * MIB + 4096, 1));
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    let same = rig.compare();
    let end = rig.deploy(&mut Dice::new(7), |block| !same.contains(&block));
    assert_eq!(last_look(&end), (LookedAt::All, image.blocks()));
}

#[test]
fn the_last_look_takes_a_sample_or_all_or_nothing_as_asked_for() {
    let image = image(9);
    let look = |verify| {
        let target = target(false, Faults::default());
        let (end, _) = deploy(&image, &target, options(verify, Free::Keep), 2);
        last_look(&end)
    };
    let (how, blocks) = look(Verify::Full);
    assert_eq!(how, LookedAt::Sample);
    // One with all places in the head or the backup table has none to look at.
    assert!((32..=64).contains(&blocks), "{blocks}");
    assert_eq!(look(Verify::Twice), (LookedAt::All, image.blocks()));
    assert_eq!(look(Verify::Head), (LookedAt::No, 0));
    assert_eq!(look(Verify::None), (LookedAt::No, 0));
}

#[test]
fn the_last_look_comes_after_the_last_flush_and_before_the_head() {
    let image = image(10);
    let target = target(true, Faults::default());
    let (end, _) = deploy(&image, &target, options(Verify::Twice, Free::Zero), 2);
    assert_eq!(last_look(&end).0, LookedAt::All);
    let state = target.state();
    let end_of_body = BYTES - 257 * 512;
    let body = |at: u64| (MIB..end_of_body).contains(&at);
    let last = |is: &dyn Fn(&Step) -> bool| state.log.iter().rposition(is).unwrap();
    let written = last(&|step| matches!(step, Step::Write { at, .. } if body(*at)));
    let first_read = written + state.log[written..].iter().position(|step| matches!(step, Step::Read(_))).unwrap();
    assert!(state.log[written..first_read].contains(&Step::Flush));
    let head = last(&|step| matches!(step, Step::Write { at: 512, .. }));
    let read: u64 = state.log[first_read..head]
        .iter()
        .map(|step| if let Step::Read(bytes) = step { bytes.end - bytes.start } else { 0 })
        .sum();
    // A grain over the end of the body is read only as far as that.
    let in_body =
        |(at, grain): (usize, &[u8])| grain.len() as u64 - (at as u64 + 4096).saturating_sub(end_of_body).min(4096);
    let used: u64 = image.used().filter(|(at, _)| body(*at as u64)).map(in_body).sum();
    assert!(read >= used, "{read} of {used} bytes");
}

#[test]
fn a_disk_that_can_not_be_read_again_is_not_done() {
    let image = image(11);
    let faults =
        Faults { misdirect: Some((6 * MIB..BYTES - 262_144, 3 * MIB)), no_zero_call: true, ..Faults::default() };
    let target = target(false, faults);
    let options = EngineOptions { ledger_bytes: 2000, ..options(Verify::Full, Free::Keep) };
    let (end, _) = in_order(&image, &target, options);
    let Event::Failed(DiskFailure { reason, detail }) = end else { panic!("{end:?}") };
    assert_eq!(reason, Reason::DiskMismatch);
    assert!(detail.contains("has no memory for the manifest"), "{detail}");
}

#[test]
fn a_disk_that_rots_after_it_was_verified_is_found_by_a_look_at_everything() {
    let image = image(12);
    let target = target(false, Faults::default());
    let mut rig = Rig::new(&image, &target, options(Verify::Twice, Free::Keep));
    let (at, _) = image.used().filter(|(at, _)| *at as u64 > 5 * MIB).nth(3).unwrap();
    target.state().faults.rots_once_read = Some(at as u64);
    let end = rig.deploy(&mut Dice::new(3), |_: BlockNo| true);
    assert_eq!(last_look(&end), (LookedAt::All, image.blocks()));
    assert!(target.state().disk == image.expected(&Dice::new(5).bytes(to_usize(BYTES))));
}
