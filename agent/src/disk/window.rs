//! The sort window of disks with heads: unpacked blocks gathered in fixed memory and written in the order of the disk.
//!
//! Writers put blocks in; one thread takes out the run that comes next in the direction the heads move, together with all that
//! touch it. A disk that keeps up writes blocks as they come; one that does not finds its window full and goes over it in one sweep.

use super::fault::Fault;
use super::runs::Run;
use crate::sys::AlignedBuf;
use slidecast_image::manifest::Part;
use slidecast_proto::schedule::Written;
use slidecast_proto::units::BlockNo;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The most runs that wait at a time; a block more may come on top.
const RUNS: usize = 1 << 16;
/// The most runs in one write.
pub(super) const BATCH: usize = 64;

/// Memory for one unpacked block, to be filled by a writer.
#[derive(Debug)]
pub(super) struct Tray(Arc<AlignedBuf>);

impl Tray {
    pub(super) fn memory(&mut self) -> &mut [u8] {
        Arc::get_mut(&mut self.0).expect("a tray that is given out is in no write")
    }
}

/// One write: runs that touch on the disk, with the memory of each.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The block that the first run is of.
    pub(super) first: BlockNo,
    /// Where on the disk.
    pub(super) target: u64,
    pub(super) runs: Vec<(Arc<AlignedBuf>, Run)>,
    trays: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Window {
    state: Mutex<State>,
    /// A tray came back, or the window closed.
    emptier: Condvar,
    /// There is something to write, or the window closed.
    fuller: Condvar,
}

#[derive(Debug)]
struct State {
    free: Vec<Arc<AlignedBuf>>,
    /// What is in the window, by tray.
    held: Vec<Option<Held>>,
    /// Runs that wait, by place on the disk and tray.
    runs: BTreeMap<(u64, usize), Run>,
    /// Where the heads are.
    position: u64,
    closed: bool,
}

#[derive(Debug)]
struct Held {
    memory: Arc<AlignedBuf>,
    written: Written<Part>,
    bytes: u64,
    /// Runs not written yet.
    left: usize,
}

impl Window {
    /// A window of `trays` blocks.
    pub(super) fn new(trays: usize, block: usize) -> Result<Self, Fault> {
        let free = (0..trays).map(|_| Ok(Arc::new(AlignedBuf::new(block)?))).collect::<Result<Vec<_>, Fault>>()?;
        let held = (0..trays).map(|_| None).collect();
        let state = State { free, held, runs: BTreeMap::new(), position: 0, closed: false };
        Ok(Self { state: Mutex::new(state), emptier: Condvar::new(), fuller: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for memory; `None` once the window is closed.
    pub(super) fn tray(&self) -> Option<Tray> {
        let ready = |state: &mut State| !state.closed && (state.free.is_empty() || state.runs.len() >= RUNS);
        let mut state = self.emptier.wait_while(self.lock(), ready).unwrap_or_else(PoisonError::into_inner);
        if state.closed { None } else { state.free.pop().map(Tray) }
    }

    /// Gives a tray back unused.
    pub(super) fn put_back(&self, tray: Tray) {
        self.lock().free.push(tray.0);
        self.emptier.notify_one();
    }

    /// Puts a block in. `runs` must not be empty; `bytes` is for the flush window.
    pub(super) fn put(&self, tray: Tray, written: Written<Part>, runs: &[Run], bytes: u64) {
        let mut state = self.lock();
        let slot = state.held.iter().position(Option::is_none).expect("as many places as trays");
        state.held[slot] = Some(Held { memory: tray.0, written, bytes, left: runs.len() });
        state.runs.extend(runs.iter().map(|run| ((run.target, slot), *run)));
        drop(state);
        self.fuller.notify_one();
    }

    /// Waits for the next write; `None` once the window is closed.
    pub(super) fn next(&self) -> Option<Sweep> {
        let empty = |state: &mut State| !state.closed && state.runs.is_empty();
        let mut state = self.fuller.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        if state.closed { None } else { state.sweep() }
    }

    /// A sweep is written: gives the blocks that are complete with it, with their bytes.
    pub(super) fn done(&self, sweep: Sweep) -> Vec<(Written<Part>, u64)> {
        let Sweep { runs, trays, .. } = sweep;
        drop(runs);
        let mut state = self.lock();
        let mut complete = vec![];
        for slot in trays {
            let Some(held) = &mut state.held[slot] else { continue };
            held.left -= 1;
            if held.left == 0
                && let Some(held) = state.held[slot].take()
            {
                state.free.push(held.memory);
                complete.push((held.written, held.bytes));
            }
        }
        drop(state);
        self.emptier.notify_all();
        complete
    }

    /// Lets everybody go.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.emptier.notify_all();
        self.fuller.notify_all();
    }
}

impl State {
    fn sweep(&mut self) -> Option<Sweep> {
        let ahead = self.runs.range((self.position, 0)..).next();
        let (&(target, slot), _) = ahead.or_else(|| self.runs.iter().next())?;
        let first = self.held[slot].as_ref()?.written.block;
        let mut sweep = Sweep { first, target, runs: vec![], trays: vec![] };
        self.position = target;
        // Only what begins exactly where the last run ended joins in.
        while sweep.runs.len() < BATCH {
            let next = self.runs.range((self.position, 0)..=(self.position, usize::MAX)).next();
            let Some((&(target, slot), &run)) = next else { break };
            self.runs.remove(&(target, slot));
            let Some(held) = &self.held[slot] else { continue };
            self.position += run.len as u64;
            sweep.runs.push((Arc::clone(&held.memory), run));
            sweep.trays.push(slot);
        }
        Some(sweep)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::manifest::{part, stored};
    use super::*;

    struct Rig {
        window: Window,
        part: Arc<Part>,
    }

    impl Rig {
        fn new(trays: usize) -> Self {
            let (_, part) = part(&[stored(16, 300)]);
            Self { window: Window::new(trays, 65536).unwrap(), part: Arc::new(part) }
        }

        fn put(&self, block: u32, targets: &[u64]) {
            let mut tray = self.window.tray().unwrap();
            tray.memory().fill(u8::try_from(block).unwrap());
            let run = |target: &u64| Run { target: *target, source: 0, len: 4096 };
            let runs: Vec<Run> = targets.iter().map(run).collect();
            let written = Written { block: BlockNo(block), part: Arc::clone(&self.part) };
            self.window.put(tray, written, &runs, 4096);
        }

        /// The next write: where, how many runs, and the blocks complete after it.
        fn sweep(&self) -> (u64, usize, Vec<u32>) {
            let sweep = self.window.next().unwrap();
            let (target, count) = (sweep.target, sweep.runs.len());
            (target, count, self.window.done(sweep).into_iter().map(|(written, _)| written.block.0).collect())
        }
    }

    #[test]
    fn writes_go_up_the_disk_and_start_again_at_the_bottom() {
        let rig = Rig::new(4);
        rig.put(1, &[80_000, 400_000]);
        assert_eq!(rig.sweep(), (80_000, 1, vec![]));
        rig.put(2, &[8192, 200_000]);
        assert_eq!(rig.sweep(), (200_000, 1, vec![]));
        assert_eq!(rig.sweep(), (400_000, 1, vec![1]));
        assert_eq!(rig.sweep(), (8192, 1, vec![2]));
    }

    #[test]
    fn runs_of_different_blocks_that_touch_are_one_write() {
        let rig = Rig::new(4);
        rig.put(1, &[4096, 12288]);
        rig.put(2, &[8192, 20480]);
        let sweep = rig.window.next().unwrap();
        let bytes: Vec<u8> = sweep.runs.iter().map(|(memory, run)| memory[run.source]).collect();
        assert_eq!((sweep.target, bytes), (4096, vec![1, 2, 1]));
        assert_eq!(rig.window.done(sweep).len(), 1);
        assert_eq!(rig.sweep(), (20480, 1, vec![2]));
    }

    #[test]
    fn a_full_window_waits_for_a_tray() {
        let rig = Rig::new(2);
        rig.put(1, &[4096]);
        rig.put(2, &[65536]);
        std::thread::scope(|scope| {
            let third = scope.spawn(|| rig.put(3, &[0]));
            assert_eq!(rig.sweep(), (4096, 1, vec![1]));
            third.join().unwrap();
        });
        assert_eq!(rig.sweep(), (65536, 1, vec![2]));
        assert_eq!(rig.sweep(), (0, 1, vec![3]));
    }

    #[test]
    fn closing_lets_everybody_go() {
        let rig = Rig::new(1);
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| rig.window.next().is_none());
            rig.window.close();
            assert!(taker.join().unwrap());
        });
        assert!(rig.window.tray().is_none());
    }
}
