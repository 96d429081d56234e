//! What a power cut at any point leaves on the disk: what was there, a marked disk that does not boot, or the whole image.
//!
//! A cut is replayed from the log: all writes up to some flush, and of the writes after it any subset, sector by sector.

use super::image::{Dice, TestImage, gpt_front, to_usize};
use super::recorder::{Recorder, Step};
use super::rig::{DEPLOYMENT, Rig, deploy, options};
use crate::disk::{Event, Mark};
use core::ops::Range;
use slidecast_image::fit::{HEAD_BYTES, tail_area};
use slidecast_proto::reason::{Free, Verify};
use std::collections::BTreeSet;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// A disk that boots: with a boot signature and both partition tables.
fn bootable(bytes: u64, sector: usize) -> Vec<u8> {
    let mut disk = Dice::new(99).bytes(to_usize(bytes));
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let last = disk.len() - sector;
    disk[sector..sector + 8].copy_from_slice(b"EFI PART");
    disk[last..last + 8].copy_from_slice(b"EFI PART");
    disk
}

fn body(disk: &[u8], sector: u32) -> &[u8] {
    &disk[to_usize(HEAD_BYTES)..to_usize(tail_area(disk.len() as u64, sector).start)]
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Untouched,
    Marked,
    Complete,
}

/// What a disk is after a cut. Panics when it is none of the three.
fn classify(disk: &[u8], old: &[u8], whole: &[u8], sector: u32) -> Left {
    if disk == old {
        return Left::Untouched;
    }
    if disk == whole {
        return Left::Complete;
    }
    let mark = Mark::parse(disk).expect("a disk that is neither old nor whole is marked");
    assert_eq!(mark.deployment, DEPLOYMENT);
    assert_ne!(disk[510..512], [0x55, 0xaa]);
    let last = disk.len() - sector as usize;
    let table = [sector as usize, last].iter().any(|at| disk[*at..*at + 8] == *b"EFI PART");
    let (body, old, whole) = (body(disk, sector), body(old, sector), body(whole, sector));
    assert!(!table || body == old || body == whole, "a partition table stands over a body that is not proven");
    Left::Marked
}

/// Calls `cut` with what the disk may hold after cuts before and after each flush of the log.
fn replay(log: &[Step], old: &[u8], sector: usize, dice: &mut Dice, mut cut: impl FnMut(&[u8])) {
    let mut flushed = old.to_vec();
    let mut loose: Vec<(usize, &[u8])> = vec![];
    for step in log.iter().chain([&Step::Flush]) {
        match step {
            Step::Write { at, bytes } => {
                let sectors = bytes.chunks(sector).enumerate();
                loose.extend(sectors.map(|(no, piece)| (to_usize(*at) + no * sector, piece)));
            }
            Step::Flush => {
                // None, one in eight, half, all but one in eight.
                for keep in [0, 1, 4, 7] {
                    let mut disk = flushed.clone();
                    for (at, piece) in &loose {
                        if dice.roll(8) < keep {
                            disk[*at..*at + piece.len()].copy_from_slice(piece);
                        }
                    }
                    cut(&disk);
                }
                for (at, piece) in loose.drain(..) {
                    flushed[at..at + piece.len()].copy_from_slice(piece);
                }
            }
            Step::Read(_) => {}
        }
    }
    cut(&flushed);
}

fn image(seed: u64, sector: u32) -> TestImage {
    TestImage::random(4 * MIB, sector, seed, Some(&gpt_front(4 * MIB, sector)))
}

#[test]
fn a_cut_leaves_the_old_disk_a_marked_one_or_the_whole_image() {
    for seed in 0..8u64 {
        let sector = if seed.is_multiple_of(2) { 512 } else { 4096 };
        let image = image(seed, sector);
        let bytes = 4 * MIB + (seed / 4) * MIB;
        let old = bootable(bytes, sector as usize);
        let target = Recorder::new(old.clone(), sector, seed % 3 == 0);
        let verify = [Verify::Full, Verify::Full, Verify::None][to_usize(seed % 3)];
        let (end, _) = deploy(&image, &target, options(verify, Free::Keep), seed);
        assert!(matches!(end, Event::Ended { .. }));
        let whole = target.state().disk.clone();
        let log = core::mem::take(&mut target.state().log);
        let mut seen = BTreeSet::new();
        replay(&log, &old, sector as usize, &mut Dice::new(seed), |disk| {
            seen.insert(classify(disk, &old, &whole, sector));
        });
        assert!(seen.into_iter().eq([Left::Untouched, Left::Marked, Left::Complete]));
    }
}

#[test]
fn a_disk_that_was_cut_off_is_completed_with_what_it_lacks() {
    for seed in 0..4u64 {
        let image = image(seed, 512);
        let old = bootable(4 * MIB, 512);
        let target = Recorder::new(old.clone(), 512, seed.is_multiple_of(2));
        deploy(&image, &target, options(Verify::Full, Free::Keep), seed);
        let log = core::mem::take(&mut target.state().log);
        let mut cuts = vec![];
        replay(&log, &old, 512, &mut Dice::new(seed), |disk| cuts.push(disk.to_vec()));
        let mut dice = Dice::new(seed);
        for _ in 0..6 {
            let disk = cuts.swap_remove(to_usize(dice.roll(cuts.len() as u64)));
            let target = target.restarted(disk.clone());
            let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
            let same = rig.compare();
            let end = rig.deploy(&mut dice, |block| !same.contains(&block));
            let Event::Ended { written, kept, .. } = end else { panic!("{end:?}") };
            assert_eq!((written + kept, kept), (image.blocks(), u32::try_from(same.len()).unwrap()));
            assert!(target.state().disk == image.expected(&disk));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sector {
    Clean,
    Written,
    Flushed,
    Read,
}

#[test]
fn the_head_is_written_when_every_byte_of_the_body_was_flushed_and_read_back() {
    for (seed, rotational) in [(20, false), (21, true), (22, false), (23, true)] {
        let image = image(seed, 512);
        // A file, because the probe of a disk writes to the body, too.
        let target = Recorder::new(bootable(4 * MIB, 512), 512, rotational).file();
        // One block is lost by the disk and comes again.
        let lost = image.used().map(|(at, _)| at as u64).find(|at| *at > 2 * MIB).unwrap();
        target.state().faults.lost_at = Some((lost, 1));
        let (end, _) = deploy(&image, &target, options(Verify::Full, Free::Keep), seed);
        assert!(matches!(end, Event::Ended { .. }));
        let mut sectors = vec![Sector::Clean; to_usize(4 * MIB / 512)];
        let first_body = to_usize(HEAD_BYTES / 512);
        let backup = to_usize(tail_area(4 * MIB, 512).start / 512);
        let body = first_body..backup;
        let range = |bytes: &Range<u64>| to_usize(bytes.start / 512)..to_usize(bytes.end / 512);
        let mut heads = 0;
        for step in &target.state().log {
            match step {
                Step::Write { at, bytes } => {
                    let range = range(&(*at..*at + bytes.len() as u64));
                    let begun = sectors[body.clone()].iter().any(|sector| *sector != Sector::Clean);
                    if begun && !(body.contains(&range.start)) {
                        let open = |sector: &Sector| matches!(sector, Sector::Written | Sector::Flushed);
                        assert!(!sectors[body.clone()].iter().any(open), "the head came too early");
                        heads += 1;
                    }
                    sectors[range].fill(Sector::Written);
                }
                Step::Flush => {
                    sectors.iter_mut().filter(|sector| **sector == Sector::Written).for_each(|s| *s = Sector::Flushed);
                }
                Step::Read(bytes) => {
                    for sector in &mut sectors[range(bytes)] {
                        assert_ne!(*sector, Sector::Written, "read back before a flush");
                        *sector = Sector::Read;
                    }
                }
            }
        }
        assert_eq!(heads, 3, "backup table, head, sector 0");
    }
}

#[test]
fn nothing_but_the_mark_is_written_before_the_first_flush() {
    let image = image(30, 512);
    let target = Recorder::new(bootable(4 * MIB, 512), 512, false);
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    // Blocks may be handed over before the wipe is done.
    image.parts.iter().for_each(|part| rig.engine.part(Arc::clone(part)));
    let job = rig.job(*image.packed.keys().last().unwrap());
    rig.engine.block(job);
    rig.engine.begin();
    rig.wait(|event| matches!(event, Event::Written(_)));
    let log = target.state().log.clone();
    assert!(matches!(&log[..2], [Step::Write { at: 0, bytes }, Step::Flush] if Mark::parse(bytes).is_some()));
    let wiped = log.iter().skip(2).take_while(|step| **step != Step::Flush);
    let outside = |at: u64| at >= HEAD_BYTES && at < tail_area(4 * MIB, 512).start;
    assert_eq!(wiped.filter(|step| matches!(step, Step::Write { at, .. } if outside(*at))).count(), 0);
}
