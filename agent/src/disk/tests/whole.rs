//! Every kind of block, target and option ends with the disk that the image says.

use super::image::{Dice, TestImage, blocks_in, gpt_front, to_usize};
use super::recorder::{Recorder, Step};
use super::rig::{DEPLOYMENT, ROOT, Rig, deploy, options};
use crate::disk::{EngineOptions, Event};
use slidecast_image::fit::{HEAD_BYTES, tail_area};
use slidecast_image::signatures;
use slidecast_proto::reason::{Free, Verified, Verify};
use slidecast_proto::units::BlockNo;

const MIB: u64 = 1 << 20;

fn old(bytes: u64) -> Vec<u8> {
    Dice::new(77).bytes(to_usize(bytes))
}

/// Deploys and compares the whole target.
fn comes_out(image: &TestImage, target: &Recorder, options: EngineOptions, seed: u64) -> Vec<Event> {
    let before = target.state().disk.clone();
    let (end, events) = deploy(image, target, options, seed);
    let Event::Ended { written, kept, .. } = end else { panic!("{end:?}") };
    assert_eq!((written, kept), (image.blocks(), 0));
    let (found, expected) = (&target.state().disk, image.expected(&before));
    if *found != expected {
        let at = (0..found.len()).find(|at| found[*at] != expected[*at]).unwrap_or(found.len());
        panic!("seed {seed}: byte {at} is {} instead of {}", found[at], expected[at]);
    }
    events
}

#[test]
fn every_kind_of_block_lands_in_all_its_places() {
    for seed in 0..8 {
        let image = TestImage::random(5 * MIB, 512, seed, None);
        for rotational in [false, true] {
            let target = Recorder::new(old(5 * MIB), 512, rotational);
            let events = comes_out(&image, &target, options(Verify::Full, Free::Keep), seed);
            let all: Vec<u32> = (0..image.blocks()).collect();
            let written = |event: &Event| if let Event::Written(block) = event { vec![*block] } else { vec![] };
            let durable = |event: &Event| if let Event::Durable(blocks) = event { blocks.clone() } else { vec![] };
            let verified = |event: &Event| if let Event::Verified(blocks) = event { blocks.clone() } else { vec![] };
            assert_eq!(blocks_in(&events, written), all);
            assert_eq!(blocks_in(&events, durable), all);
            assert_eq!(blocks_in(&events, verified), all);
            assert!(matches!(events.last(), Some(Event::Ended { verified: Verified::Direct, .. })));
        }
    }
}

#[test]
fn the_last_grain_may_be_short() {
    for seed in 0..6 {
        let bytes = 3 * MIB + 4096 * 7 + 512 * (1 + seed % 7);
        let image = TestImage::random(bytes, 512, seed, None);
        comes_out(&image, &Recorder::new(old(bytes), 512, false), options(Verify::Full, Free::Keep), seed);
        comes_out(&image, &Recorder::new(old(bytes + 512), 512, true), options(Verify::Full, Free::Keep), seed);
    }
}

#[test]
fn disks_of_any_size_and_sector_come_out() {
    for (bytes, sector) in [(64 << 10, 512), (MIB, 4096), (MIB + 16384, 512), (2 * MIB, 4096), (5 * MIB, 4096)] {
        let image = TestImage::random(bytes, sector, bytes, None);
        comes_out(&image, &Recorder::new(old(bytes), sector, false), options(Verify::Full, Free::Keep), 1);
        comes_out(&image, &Recorder::new(old(bytes + 3 * MIB), sector, true), options(Verify::Full, Free::Keep), 1);
    }
}

#[test]
fn zeros_are_written_where_the_disk_has_no_call_for_them() {
    for seed in 0..4 {
        let image = TestImage::random(8 * MIB, 512, seed, None);
        let target = Recorder::new(old(8 * MIB), 512, false);
        target.state().faults.no_zero_call = true;
        comes_out(&image, &target, options(Verify::Full, Free::Keep), seed);
        assert_eq!(target.state().zero_calls, 0);
    }
}

#[test]
fn unused_space_is_kept_to_the_byte_but_for_old_signatures() {
    let image = TestImage::random(8 * MIB, 512, 5, None);
    // A file, because the probe of a disk writes elsewhere, too, and puts back what stood there.
    let target = Recorder::new(old(16 * MIB), 512, false).file();
    deploy(&image, &target, options(Verify::Full, Free::Keep), 5);
    let used: Vec<_> = image.used().map(|(at, grain)| at..at + grain.len()).collect();
    let backup = tail_area(16 * MIB, 512);
    let signatures = signatures::behind(8 * MIB, 16 * MIB);
    for step in &target.state().log {
        let Step::Write { at, bytes } = step else { continue };
        let (mut at, end) = (*at, at + bytes.len() as u64);
        while at < end {
            let allowed = at < HEAD_BYTES
                || backup.contains(&at)
                || signatures.iter().any(|range| range.contains(&at))
                || used.iter().any(|range| range.contains(&to_usize(at)));
            assert!(allowed, "a write at {at}, of which the image says nothing");
            at += 512;
        }
    }
}

#[test]
fn unused_space_is_zeroed_or_discarded_when_asked() {
    let image = TestImage::random(8 * MIB, 512, 6, None);
    for free in [Free::Zero, Free::Discard] {
        let target = Recorder::new(old(12 * MIB), 512, false);
        let (end, _) = deploy(&image, &target, options(Verify::Full, free), 6);
        assert!(matches!(end, Event::Ended { .. }));
        let mut blank = vec![if free == Free::Zero { 0 } else { 0xdd }; to_usize(12 * MIB)];
        blank = image.expected(&blank);
        assert!(target.state().disk == blank, "{free}");
    }
}

#[test]
fn without_read_back_nothing_is_called_verified() {
    for verify in [Verify::Head, Verify::None] {
        let image = TestImage::random(4 * MIB, 512, 7, None);
        let target = Recorder::new(old(4 * MIB), 512, false).file();
        let events = comes_out(&image, &target, options(verify, Free::Keep), 7);
        assert!(!events.iter().any(|event| matches!(event, Event::Verified(_))));
        assert!(matches!(events.last(), Some(Event::Ended { verified: Verified::No, .. })));
        let reads = target.state().log.iter().filter(|step| matches!(step, Step::Read(_))).count();
        assert_eq!(reads > 0, verify == Verify::Head);
    }
}

#[test]
fn a_target_without_direct_io_is_reported_as_cached() {
    let image = TestImage::random(4 * MIB, 512, 8, None);
    let target = Recorder::new(old(4 * MIB), 512, false).cached();
    let events = comes_out(&image, &target, options(Verify::Full, Free::Keep), 8);
    assert!(matches!(events.last(), Some(Event::Ended { verified: Verified::Cached, .. })));
}

#[test]
fn a_block_that_is_not_what_the_manifest_says_is_never_written() {
    let image = TestImage::random(4 * MIB, 512, 9, None);
    let target = Recorder::new(old(4 * MIB), 512, false);
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    rig.engine.begin();
    rig.wait(|event| *event == Event::Began);
    let before = target.state().disk.clone();
    let blocks: Vec<BlockNo> = image.packed.keys().copied().take(2).collect();
    for block in &blocks {
        let mut job = rig.job(*block);
        let mut slot =
            crate::ring::Ring::new(1 << 20).unwrap().reserve(u32::try_from(job.payload.len()).unwrap()).unwrap();
        slot.copy_from_slice(&job.payload);
        let last = slot.len() - 1;
        slot[last] ^= 1;
        job.payload = slot.freeze();
        rig.engine.block(job);
        assert_eq!(rig.wait(|event| matches!(event, Event::BadContent(_))), Event::BadContent(*block));
    }
    let mut job = rig.job(blocks[0]);
    job.raw_len += 4096;
    rig.engine.block(job);
    assert_eq!(rig.wait(|event| matches!(event, Event::BadContent(_))), Event::BadContent(blocks[0]));
    assert!(target.state().disk == before);
}

#[test]
fn a_wrong_hash_over_live_grains_is_bad_content_and_not_the_fault_of_the_disk() {
    for rotational in [false, true] {
        let image = |seed| TestImage::random(4 * MIB, 512, seed, None).with_wrong_live_hash();
        let (image, block) = (0..50).find_map(image).unwrap();
        let target = Recorder::new(old(4 * MIB), 512, rotational);
        let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
        rig.engine.begin();
        rig.wait(|event| *event == Event::Began);
        let before = target.state().disk.clone();
        let job = rig.job(block);
        rig.engine.block(job);
        assert_eq!(rig.wait(|event| matches!(event, Event::BadContent(_))), Event::BadContent(block));
        assert!(target.state().disk == before);
    }
}

#[test]
fn an_abandoned_disk_keeps_its_mark_and_is_closed() {
    let image = TestImage::random(4 * MIB, 512, 10, None);
    let target = Recorder::new(old(4 * MIB), 512, true);
    let mut rig = Rig::new(&image, &target, options(Verify::Full, Free::Keep));
    rig.engine.begin();
    rig.wait(|event| *event == Event::Began);
    let job = rig.job(*image.packed.keys().next().unwrap());
    rig.engine.block(job);
    let Rig { engine, .. } = rig;
    let stopping = engine.stop();
    let deadline = std::time::Instant::now() + core::time::Duration::from_secs(30);
    while !stopping.is_over() {
        assert!(std::time::Instant::now() < deadline, "the threads end");
        std::thread::yield_now();
    }
    let mark = crate::disk::Mark::parse(&target.state().disk).unwrap();
    assert_eq!((mark.deployment, mark.root), (DEPLOYMENT, ROOT));
}

#[test]
fn the_partition_table_is_fitted_to_a_larger_target() {
    for (sector, rotational) in [(512, false), (4096, true)] {
        let image = TestImage::random(6 * MIB, sector, 11, Some(&gpt_front(6 * MIB, sector)));
        for bytes in [6 * MIB, 6 * MIB + 4096, 13 * MIB] {
            let target = Recorder::new(old(bytes), sector, rotational);
            comes_out(&image, &target, options(Verify::Full, Free::Keep), 11);
            let disk = &target.state().disk;
            assert_eq!(&disk[disk.len() - sector as usize..][..8], b"EFI PART");
            if sector == 512 {
                sgdisk_finds_no_problem(disk);
            }
        }
    }
}

/// A second opinion, where the tool is installed.
fn sgdisk_finds_no_problem(disk: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), disk).unwrap();
    match std::process::Command::new("sgdisk").arg("-v").arg(file.path()).output() {
        Err(_) => eprintln!("skipped: sgdisk is not installed"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("No problems found"), "{text}");
        }
    }
}
