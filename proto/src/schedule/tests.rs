//! The schedule without threads: every step in the hands of the test.

use super::*;
use crate::reason::{Free, Verify};
use core::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

const SAMPLE_OF_NOTHING: (LookedAt, u32) = (LookedAt::Sample, 0);

/// A part that begins with block 0 and has these blocks: fills, or stored ones.
#[derive(Debug)]
pub(super) struct TestPart(Vec<bool>);

impl ManifestPart for TestPart {
    fn first(&self) -> BlockNo {
        BlockNo(0)
    }

    fn blocks(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap()
    }

    fn is_fill(&self, block: BlockNo) -> bool {
        self.0.get(block.0 as usize).is_some_and(|fill| *fill)
    }

    fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn part(fills: &[bool]) -> Arc<TestPart> {
    Arc::new(TestPart(fills.to_vec()))
}

/// A received block and what it holds of the ring.
type Job = (BlockNo, Arc<()>);

fn schedule(blocks: u32, verify: Verify, rotational: bool, bytes: u64) -> Schedule<Job, TestPart> {
    let window = FlushWindow { bytes, after: 2 * SECOND };
    let head = HeadConfig { verify, free: Free::Keep, behind: false };
    Schedule::new(ScheduleConfig { blocks, head, rotational, window, readers: 8, ledger_bytes: 1 << 20 })
}

struct Rig {
    schedule: Schedule<Job, TestPart>,
    part: Arc<TestPart>,
    now: Time,
    ring: Arc<()>,
}

impl Rig {
    /// Blocks 0 and 1 are stored, block 2 is a fill.
    fn new(verify: Verify, rotational: bool) -> Self {
        let mut schedule = schedule(3, verify, rotational, 1 << 20);
        let now = Time(5);
        schedule.on_begin();
        while let Control::Head(step) = schedule.poll_control(now) {
            schedule.on_head(step, true).unwrap();
        }
        Self { schedule, part: part(&[false, false, true]), now, ring: Arc::new(()) }
    }

    fn job(&mut self, block: u32) {
        self.schedule.on_block((BlockNo(block), Arc::clone(&self.ring)));
    }

    fn part_comes(&mut self) {
        self.schedule.on_part(Arc::clone(&self.part), Some([7; 20].into()));
    }

    /// Lets a writer do all there is.
    fn write(&mut self, bytes: u64) -> Vec<u32> {
        let mut blocks = vec![];
        while let Some(write) = self.schedule.poll_write() {
            let block = match write {
                Write::Block((block, _)) => block,
                Write::Fill(work) => work.block,
            };
            self.schedule.on_written(Written { block, part: Arc::clone(&self.part) }, bytes, self.now);
            blocks.push(block.0);
        }
        blocks
    }

    fn flush(&mut self) -> Vec<u32> {
        let Control::Flush(batch) = self.schedule.poll_control(self.now) else { return vec![] };
        let blocks = batch.iter().map(|written| written.block.0).collect();
        self.schedule.on_flushed(batch);
        blocks
    }

    fn read(&mut self) -> Vec<u32> {
        let mut blocks = vec![];
        while let Read::Back(written) = self.schedule.poll_read() {
            self.schedule.on_equal(&written, vec![]);
            blocks.push(written.block.0);
        }
        blocks
    }

    fn finishes(&mut self) -> bool {
        // Nothing of the sample was noted.
        while let Control::Head(step) = self.schedule.poll_control(self.now) {
            self.schedule.on_head(step, true).unwrap();
        }
        matches!(self.schedule.poll_control(self.now), Control::End)
    }
}

#[test]
fn nothing_is_read_back_before_a_flush_covers_it() {
    let mut rig = Rig::new(Verify::Full, false);
    rig.job(1);
    assert_eq!(rig.write(10), [1]);
    assert_eq!(rig.read(), []);
    assert_eq!(rig.flush(), [], "too early");
    rig.now = rig.now.after(2 * SECOND);
    let Control::Flush(batch) = rig.schedule.poll_control(rig.now) else { panic!("no flush") };
    // What is written while the flush runs waits for the next one.
    rig.job(0);
    assert_eq!(rig.write(10), [0]);
    assert_eq!(rig.read(), []);
    rig.schedule.on_flushed(batch);
    assert_eq!(rig.read(), [1]);
}

#[test]
fn a_flush_comes_after_enough_bytes_or_enough_time() {
    let mut rig = Rig::new(Verify::Full, false);
    rig.job(0);
    rig.write(1 << 20);
    assert_eq!(rig.flush(), [0]);
    rig.job(1);
    rig.write(1);
    let Control::Wait(Some(due)) = rig.schedule.poll_control(rig.now) else { panic!("not waiting") };
    assert_eq!(due.since(rig.now), 2 * SECOND);
    rig.now = due;
    assert_eq!(rig.flush(), [1]);
    assert!(matches!(rig.schedule.poll_control(rig.now), Control::Wait(None)));
}

#[test]
fn the_end_comes_when_all_is_read_back() {
    let mut rig = Rig::new(Verify::Full, false);
    rig.part_comes();
    rig.job(0);
    rig.job(1);
    rig.write(10);
    assert_eq!(rig.flush(), [0, 1, 2]);
    rig.schedule.on_finish();
    assert!(!rig.finishes());
    assert_eq!(rig.read(), [0, 1, 2]);
    assert!(rig.finishes());
    rig.schedule.on_ended(Verified::Direct, String::new());
    let last = core::iter::from_fn(|| rig.schedule.poll_event()).last();
    let (verified, last_look) = (Verified::Direct, SAMPLE_OF_NOTHING);
    assert_eq!(last, Some(Event::Ended { verified, written: 3, kept: 0, last_look, note: String::new() }));
}

#[test]
fn without_read_back_the_end_comes_when_all_is_flushed() {
    for verify in [Verify::Head, Verify::None] {
        let mut rig = Rig::new(verify, true);
        rig.part_comes();
        rig.job(0);
        rig.job(1);
        rig.schedule.on_finish();
        rig.write(10);
        assert_eq!(rig.flush(), [0, 1, 2]);
        assert_eq!(rig.read(), []);
        assert!(rig.finishes());
    }
}

#[test]
fn a_disk_with_heads_is_read_in_one_pass_in_block_order() {
    let mut rig = Rig::new(Verify::Full, true);
    rig.job(1);
    rig.write(1 << 20);
    assert_eq!(rig.flush(), [1]);
    assert_eq!(rig.read(), []);
    rig.part_comes();
    rig.job(0);
    rig.write(1 << 20);
    rig.flush();
    assert_eq!(rig.read(), [0, 1, 2]);
}

#[test]
fn a_block_that_differs_is_asked_for_once() {
    let mut rig = Rig::new(Verify::Full, false);
    for lost in [false, true] {
        rig.job(0);
        rig.write(1 << 20);
        rig.flush();
        let Read::Back(written) = rig.schedule.poll_read() else { panic!("nothing to read") };
        assert_eq!(rig.schedule.on_different(written), lost);
        let last = core::iter::from_fn(|| rig.schedule.poll_event()).last();
        assert_eq!(last == Some(Event::Mismatch(BlockNo(0))), !lost);
    }
}

#[test]
fn a_fill_that_differs_is_written_again_without_being_asked_for() {
    let mut rig = Rig::new(Verify::Full, false);
    rig.part_comes();
    rig.write(1 << 20);
    rig.flush();
    let Read::Back(written) = rig.schedule.poll_read() else { panic!("nothing to read") };
    assert!(!rig.schedule.on_different(written));
    let Some(Write::Fill(work)) = rig.schedule.poll_write() else { panic!("nothing to write") };
    assert!(work.plain && work.block == BlockNo(2));
}

#[test]
fn a_fill_is_written_once_however_often_its_part_comes() {
    let mut rig = Rig::new(Verify::Full, false);
    rig.part_comes();
    rig.part_comes();
    assert_eq!(rig.write(10), [2]);
    rig.part_comes();
    assert_eq!(rig.write(10), []);
}

#[test]
fn writing_waits_when_too_much_is_not_read_back() {
    let limit = isize::try_from(RETAINED_LIMIT).unwrap();
    for rotational in [false, true] {
        let mut rig = Rig::new(Verify::Full, rotational);
        rig.job(0);
        rig.write(10);
        rig.schedule.press(limit);
        rig.job(1);
        assert_eq!(rig.write(10), []);
        assert_eq!(rig.flush(), [0], "at once");
        let Read::Back(written) = rig.schedule.poll_read() else { panic!("no reading") };
        assert_eq!(rig.write(10), []);
        rig.schedule.on_equal(&written, vec![]);
        rig.schedule.press(-limit);
        assert_eq!(rig.write(10), [1]);
    }
}

#[test]
fn after_a_failure_nothing_holds_the_ring() {
    let mut rig = Rig::new(Verify::Full, false);
    rig.job(0);
    assert_eq!(Arc::strong_count(&rig.ring), 2);
    for detail in ["first", "second"] {
        rig.schedule.on_failure(DiskFailure { reason: Reason::DiskWrite, detail: detail.into() });
    }
    rig.job(1);
    assert_eq!(Arc::strong_count(&rig.ring), 1);
    assert!(matches!(rig.schedule.poll_control(rig.now), Control::Exit));
    assert!(matches!(rig.schedule.poll_read(), Read::Exit));
    let events: Vec<Event> = core::iter::from_fn(|| rig.schedule.poll_event()).collect();
    let first = DiskFailure { reason: Reason::DiskWrite, detail: "first".into() };
    assert_eq!(events, [Event::Began, Event::Failed(first)]);
}

#[test]
fn what_the_disk_held_before_is_not_written() {
    let part = part(&[false, true]);
    let mut schedule = schedule(2, Verify::Full, false, 1);
    schedule.on_compare(Comparison::new(Arc::clone(&part), false), None);
    assert_eq!(head_steps(&mut schedule, |_| true), [HeadStep::Flush]);
    for block in [BlockNo(0), BlockNo(1)] {
        assert!(matches!(schedule.poll_read(), Read::Compare(_, found) if found == block));
    }
    assert!(matches!(schedule.poll_read(), Read::Wait));
    // Readers may be through in another order.
    schedule.on_compared(BlockNo(0), BlockNo(1), true, vec![]);
    assert_eq!(schedule.poll_event(), None);
    schedule.on_compared(BlockNo(0), BlockNo(0), true, vec![]);
    let same = vec![BlockNo(0), BlockNo(1)];
    assert_eq!(schedule.poll_event(), Some(Event::Compared { first: BlockNo(0), same }));
    schedule.on_part(part, None);
    schedule.on_finish();
    assert_eq!(head_steps(&mut schedule, |_| true), [HeadStep::Fit, HeadStep::Stands]);
    assert!(matches!(schedule.poll_control(Time(0)), Control::End));
    schedule.on_ended(Verified::Direct, String::new());
    let last = core::iter::from_fn(|| schedule.poll_event()).last();
    let (verified, last_look) = (Verified::Direct, (LookedAt::No, 0));
    assert_eq!(last, Some(Event::Ended { verified, written: 0, kept: 2, last_look, note: String::new() }));
}

/// How many blocks of a part of 100 are looked at when the disk holds those that `held` says.
fn looked_at(held: impl Fn(u32) -> bool) -> (usize, Vec<BlockNo>) {
    let fills: Vec<bool> = (0..100).map(|no| no % 10 == 9).collect();
    let mut schedule = schedule(100, Verify::Full, false, 1);
    schedule.on_compare(Comparison::new(part(&fills), true), None);
    assert_eq!(head_steps(&mut schedule, |_| true), [HeadStep::Flush]);
    let mut looks = 0;
    while let Read::Compare(_, block) = schedule.poll_read() {
        looks += 1;
        schedule.on_compared(BlockNo(0), block, held(block.0), vec![]);
    }
    let Some(Event::Compared { same, .. }) = schedule.poll_event() else { panic!("it was compared") };
    (looks, same)
}

#[test]
fn a_disk_with_something_else_on_it_is_told_by_a_sample() {
    // Zeros are everywhere: a fill that stands there says nothing.
    assert_eq!(looked_at(|no| no % 10 == 9), (16, vec![]));
    let (looks, same) = looked_at(|no| no > 80);
    assert_eq!((looks, same.len()), (100, 19));
}

#[test]
fn what_was_not_compared_before_the_first_write_counts_as_lacking() {
    let mut schedule = schedule(2, Verify::Full, false, 1);
    schedule.on_compare(Comparison::new(part(&[false, false]), false), None);
    assert_eq!(head_steps(&mut schedule, |_| true), [HeadStep::Flush]);
    assert!(matches!(schedule.poll_read(), Read::Compare(..)));
    schedule.on_begin();
    assert!(matches!(schedule.poll_control(Time(0)), Control::Wait(_)), "a reader is still at it");
    schedule.on_compared(BlockNo(0), BlockNo(0), true, vec![]);
    assert!(matches!(schedule.poll_control(Time(0)), Control::Head(HeadStep::Mark)));
    assert_eq!(schedule.poll_event(), None);
}

/// All steps that come now, answered by `yes`.
fn head_steps(schedule: &mut Schedule<Job, TestPart>, yes: impl Fn(HeadStep) -> bool) -> Vec<HeadStep> {
    let mut steps = Vec::new();
    while let Control::Head(step) = schedule.poll_control(Time(0)) {
        steps.push(step);
        if schedule.on_head(step, yes(step)).is_err() {
            break;
        }
    }
    steps
}

/// A disk that holds the one block of its image, in a schedule with these wishes.
fn held(free: Free, behind: bool) -> Schedule<Job, TestPart> {
    let window = FlushWindow { bytes: 1, after: SECOND };
    let head = HeadConfig { verify: Verify::Full, free, behind };
    let config = ScheduleConfig { blocks: 1, head, rotational: false, window, readers: 1, ledger_bytes: 100 };
    let mut schedule = Schedule::new(config);
    schedule.on_compare(Comparison::new(part(&[false]), false), Some([7; 20].into()));
    assert_eq!(head_steps(&mut schedule, |_| true), [HeadStep::Flush]);
    let Read::Compare(part, block) = schedule.poll_read() else { panic!("nothing to compare") };
    schedule.on_compared(part.first(), block, true, vec![]);
    schedule
}

const WIPE: [HeadStep; 4] = [HeadStep::Mark, HeadStep::Flush, HeadStep::Wipe, HeadStep::Flush];

#[test]
fn sector_zero_comes_last_and_after_a_flush_of_all_else() {
    let mut schedule = held(Free::Zero, true);
    schedule.on_finish();
    let steps = head_steps(&mut schedule, |step| step != HeadStep::Stands);
    let mut right = vec![HeadStep::Fit, HeadStep::Stands, HeadStep::Forget, HeadStep::Fit];
    right.extend(WIPE);
    right.extend([HeadStep::ClearUnused, HeadStep::Flush]);
    right.extend([HeadStep::Write(Area::Behind), HeadStep::Flush, HeadStep::Prove(Area::Behind)]);
    right.extend([HeadStep::Write(Area::Backup), HeadStep::Write(Area::Head), HeadStep::Flush]);
    right.extend([HeadStep::Prove(Area::Backup), HeadStep::Prove(Area::Head)]);
    right.extend([HeadStep::Write(Area::SectorZero), HeadStep::Flush, HeadStep::Prove(Area::SectorZero)]);
    assert_eq!(steps, right);
    assert!(matches!(schedule.poll_control(Time(0)), Control::End));
}

#[test]
fn a_head_that_was_wiped_wrong_twice_is_the_end() {
    let mut schedule = schedule(1, Verify::Full, false, 1);
    schedule.on_begin();
    let steps = head_steps(&mut schedule, |step| step != HeadStep::IsWiped);
    let wipe = WIPE.into_iter().chain([HeadStep::IsWiped]);
    assert_eq!(steps, wipe.clone().chain(wipe).collect::<Vec<_>>());
    assert_eq!(schedule.poll_event(), None);
}

#[test]
fn a_discard_comes_before_the_first_block_and_only_where_nothing_is_kept() {
    for keeps in [false, true] {
        let head = HeadConfig { verify: Verify::Full, free: Free::Discard, behind: false };
        let mut order = head::HeadOrder::new(head);
        order.begin(keeps);
        let mut steps = Vec::new();
        while let Some(step) = order.next() {
            assert_eq!(order.on_done(step, true), Ok(true));
            steps.push(step);
        }
        assert_eq!(steps.contains(&HeadStep::Discard), !keeps);
        assert_eq!(steps[..4], WIPE);
    }
}

#[test]
fn a_head_that_is_not_as_it_was_left_is_wiped_again_and_all_is_read_again() {
    let mut schedule = held(Free::Keep, false);
    schedule.on_begin();
    head_steps(&mut schedule, |_| true);
    schedule.on_finish();
    let steps = head_steps(&mut schedule, |step| step != HeadStep::IsUntouched);
    assert_eq!(steps[..2], [HeadStep::Flush, HeadStep::IsUntouched]);
    assert_eq!(steps[2..], WIPE);
    assert!(matches!(schedule.poll_read(), Read::Again(BlockNo(0), _)));
}

#[test]
fn nothing_is_compared_before_what_an_older_process_wrote_is_flushed() {
    let mut schedule = schedule(1, Verify::Full, false, 1);
    assert!(matches!(schedule.poll_control(Time(0)), Control::Wait(None)), "an untouched disk is left alone");
    schedule.on_compare(Comparison::new(part(&[false]), false), None);
    assert!(schedule.wants(Time(0)).control && !schedule.wants(Time(0)).read);
    assert!(matches!(schedule.poll_read(), Read::Wait));
    assert!(matches!(schedule.poll_control(Time(0)), Control::Head(HeadStep::Flush)));
    assert!(matches!(schedule.poll_read(), Read::Wait));
    schedule.on_head(HeadStep::Flush, true).unwrap();
    assert!(schedule.wants(Time(0)).read);
    assert!(matches!(schedule.poll_read(), Read::Compare(..)));
}
