//! The engine's handle: it starts the threads, takes jobs, and gives events.

use super::fault::Fault;
use super::job::{BlockJob, EngineOptions};
use super::layout::Layout;
use super::look::{self, MIN_PACKED, Sample};
use super::order::Controller;
use super::readback::Reader;
use super::shadow::Shadow;
use super::shared::Shared;
use super::used::Used;
use super::window::Window;
use super::writer::Writer;
use super::{behind, writer};
use crate::target::{OpenTarget, TargetIo};
use core::fmt;
use slidecast_image::manifest::{ManifestHeader, Part};
use slidecast_net::clock::Clock;
use slidecast_proto::reason::{Free, Verify};
use slidecast_proto::schedule::{Comparison, DiskFailure, Event, FlushWindow, HeadConfig, Schedule, ScheduleConfig};
use slidecast_proto::units::{BlockNo, Hash};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;

/// Unpacked blocks that a disk with heads gathers, in bytes.
const SORT_WINDOW: u64 = 32 << 20;

/// How many blocks the sort window holds.
fn trays(header: &ManifestHeader) -> usize {
    usize::try_from(SORT_WINDOW / u64::from(header.block.max(1))).map_or(2, |trays| trays.max(2))
}

/// The disk engine of one deployment on one target. No call blocks; [`Self::poll`] has what came of it.
///
/// Dropping it stops it as [`Self::stop`] does.
pub(crate) struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts the threads. Nothing is written before [`Self::begin`].
    ///
    /// `wake` is called from any thread when [`Self::poll`] has something after it had nothing; so poll until it gives `None`.
    ///
    /// # Errors
    /// The target is too small, or the node has not got the memory for buffers and threads.
    pub(crate) fn start(
        target: OpenTarget,
        header: Arc<ManifestHeader>,
        root: Hash,
        options: EngineOptions,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, DiskFailure> {
        Self::start_on(Box::new(target), header, root, options, Box::new(wake))
    }

    pub(super) fn start_on(
        io: Box<dyn TargetIo>,
        header: Arc<ManifestHeader>,
        root: Hash,
        options: EngineOptions,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, DiskFailure> {
        let path = io.facts().path.clone();
        Self::try_start(io, header, root, options, wake).map_err(|fault| fault.report(&path))
    }

    fn try_start(
        io: Box<dyn TargetIo>,
        header: Arc<ManifestHeader>,
        root: Hash,
        options: EngineOptions,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, Fault> {
        let facts = io.facts();
        if facts.bytes < header.disk_bytes {
            return Err(Fault::Small { has: facts.bytes, needs: header.disk_bytes });
        }
        let least = u64::from(header.blocks) * MIN_PACKED;
        if options.verify == Verify::Twice && least > options.ledger_bytes as u64 {
            return Err(Fault::Ledger { needs: least, has: options.ledger_bytes as u64 });
        }
        let layout = Layout::new(&header, facts.bytes);
        let rotational = facts.rotational;
        let flush = FlushWindow { bytes: options.flush_bytes, after: options.flush_after };
        let window = rotational.then(|| Window::new(trays(&header), header.block as usize)).transpose()?;
        let used = (options.free == Free::Zero).then(|| Used::new(facts.bytes, header.grain));
        let head = HeadConfig { verify: options.verify, free: options.free, behind: behind::has_places(&layout) };
        let (writers, readers, hashers) = options.threads(&header, rotational);
        let shared = Arc::new(Shared {
            schedule: Mutex::new(Schedule::new(ScheduleConfig {
                blocks: header.blocks,
                head,
                rotational,
                window: flush,
                readers,
                ledger_bytes: options.ledger_bytes,
            })),
            clock: Clock::start(),
            shadow: Mutex::new(Shadow::new(&layout)?),
            used: Mutex::new(used),
            sample: Sample::new(if options.verify.reads_back() { header.blocks } else { 0 }, options.seed),
            window,
            to_write: Condvar::new(),
            to_control: Condvar::new(),
            to_read: Condvar::new(),
            wake,
            written_bytes: AtomicU64::new(0),
            no_zero_call: AtomicBool::new(false),
            io,
            header,
            root,
            options,
            layout,
        });
        // From here on dropping the handle ends the threads that run already.
        let engine = Self { shared };
        engine.spawn_threads(writers, readers.max(hashers))?;
        Ok(engine)
    }

    fn spawn_threads(&self, writers: usize, readers: usize) -> Result<(), Fault> {
        let shared = &self.shared;
        for no in 0..writers {
            let writer = Writer::new(shared)?;
            spawn(format!("slidecast-w{no}"), shared, move |shared| writer.run(shared))?;
        }
        if shared.window.is_some() {
            spawn("slidecast-sort".into(), shared, writer::write_window)?;
        }
        for no in 0..readers {
            let reader = Reader::new(shared)?;
            spawn(format!("slidecast-r{no}"), shared, move |shared| reader.run(shared))?;
        }
        let controller = Controller::new()?;
        spawn("slidecast-flush".into(), shared, move |shared| controller.run(shared))
    }

    /// Compares a part with what stands on the disk, before anything is written: answered by [`Event::Compared`], part by part in
    /// their order, unless [`Self::begin`] comes before. Each part is held until then, so hand over a few at a time.
    ///
    /// With `sampled` a part of which a spread sample is not there counts as lacking: a disk with something else on it costs
    /// little. With `--free zero` nothing counts as held: unused space must be written.
    pub(crate) fn compare(&self, part: Arc<Part>, sampled: bool) {
        let zero = self.shared.options.free == Free::Zero;
        let packed = self.packed(&part);
        let comparison = if zero { Comparison::of_nothing(part) } else { Comparison::new(part, sampled) };
        self.shared.with(|schedule| schedule.on_compare(comparison, packed));
    }

    /// Wipes the head and the backup table, writes the mark, flushes: answered by [`Event::Began`]. What was not compared by then
    /// counts as lacking.
    pub(crate) fn begin(&self) {
        self.shared.with(Schedule::on_begin);
    }

    /// A part of the manifest, ahead of its blocks. Its fills are written by the engine itself. With `--free zero` every part
    /// must be given before [`Self::finish`].
    pub(crate) fn part(&self, part: Arc<Part>) {
        if let Some(used) = &mut *self.shared.used() {
            used.note(&part);
        }
        let packed = self.packed(&part);
        self.shared.with(|schedule| schedule.on_part(part, packed));
    }

    /// The part as it came, for the last look.
    fn packed(&self, part: &Part) -> Option<Arc<[u8]>> {
        self.shared.options.verify.reads_back().then(|| look::pack(part))
    }

    /// The part of a block, if it is kept: for a block that must come again after its part was let go elsewhere.
    #[must_use]
    pub(crate) fn part_of(&self, block: BlockNo) -> Option<Arc<Part>> {
        let header = &self.shared.header;
        let packed = self.shared.schedule().packed_part(block)?;
        Part::parse(header, header.part_of(block), &packed).ok().map(Arc::new)
    }

    /// A block to be written. After a failure it is dropped.
    pub(crate) fn block(&self, job: BlockJob) {
        self.shared.with(|schedule| schedule.on_block(job));
    }

    /// Every block has been handed over. Once all are written and read back, the disk gets its head: answered by
    /// [`Event::Ended`]. Without [`Self::begin`], when every block stood on the disk already, nothing is written.
    pub(crate) fn finish(&self) {
        self.shared.with(Schedule::on_finish);
    }

    /// Abandons the target; if anything was written, it stays marked. Calls that run are still finished, which the answer tells.
    #[must_use = "until it is over, the target is still open"]
    pub(crate) fn stop(self) -> Stopping {
        Stopping(Arc::downgrade(&self.shared))
    }

    pub(crate) fn poll(&self) -> Option<Event> {
        self.shared.schedule().poll_event()
    }

    #[must_use]
    pub(crate) fn path(&self) -> &str {
        self.shared.path()
    }

    /// The bytes written to the target so far.
    #[must_use]
    pub(crate) fn written_bytes(&self) -> u64 {
        self.shared.written_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.with(Schedule::on_over);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.shared.path())
    }
}

/// An engine that was stopped and may still be in a system call.
#[derive(Debug)]
pub(crate) struct Stopping(Weak<Shared>);

impl Stopping {
    /// Whether the target is closed.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

fn spawn(name: String, shared: &Arc<Shared>, run: impl FnOnce(&Shared) + Send + 'static) -> Result<(), Fault> {
    let shared = Arc::clone(shared);
    let thread = thread::Builder::new().name(name).spawn(move || run(&shared));
    thread.map(drop).map_err(|source| Fault::Thread { source })
}
