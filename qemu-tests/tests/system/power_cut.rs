//! The power fails while the real agent writes a real block device: what the disk may hold then.
//!
//! Under the loop device is QEMU's storage daemon, which logs every write and flush in the order in which they reached the
//! disk (`blklogwrites`, the layout of the kernel's dm-log-writes). A cut is all writes up to some flush, and of those after
//! it any subset, sector by sector. None of the product's code takes part in judging.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use slidecast_lab::disk::random::Random;
use slidecast_lab::process::Place;
use slidecast_lab::{Compared, Exit, Lab, NodeOptions, Process, compare_data, tool};

use crate::fixtures::{Fixtures, LONG, SOON};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[(
    "power_cut::a_cut_at_any_flush_leaves_the_old_disk_a_marked_one_or_the_whole_image",
    Needs::LoggedDisk,
    any_flush,
)];

const SECTOR: usize = 512;

fn any_flush() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &NodeOptions::file(SECTOR as u64)).unwrap();
    // Another system was on the disk: with a boot signature and both partition tables.
    let old = fs::read(&fixtures.disks.second).unwrap();
    let disk = LoggedDisk::new(&lab, &old);
    let mut deploy = lab.deploy(&fixtures.base, 1, &["--fresh"]).unwrap();
    let key = lab.key().unwrap().with_extension("key.pub");
    let device = disk.device.as_os_str();
    let mut agent = lab
        .agent_with(&node, ["--target".as_ref(), device, "--server-key".as_ref(), key.as_os_str(), "--once".as_ref()])
        .unwrap();
    assert_eq!(deploy.wait(LONG).unwrap().0, Exit::Code(0));
    assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(0));
    let (file, steps) = disk.close();
    let found = compare_data(&file, &fixtures.base_raw).unwrap();
    assert!(matches!(found, Compared::Equal(_)), "{found}");

    let whole = fs::read(&file).unwrap();
    let mut seen = Seen::default();
    let flushes = replay(&steps, &old, |state| seen.judge(state, &old, &whole));
    assert!(flushes >= 5, "mark, wipe, body, head, sector 0: {flushes} flushes");
    assert!(seen.untouched > 0 && seen.marked > 0 && seen.complete > 0, "{seen:?}");
}

/// How often a cut left what.
#[derive(Debug, Default)]
struct Seen {
    untouched: usize,
    marked: usize,
    complete: usize,
}

impl Seen {
    fn judge(&mut self, state: &[u8], old: &[u8], whole: &[u8]) {
        if state == old {
            self.untouched += 1;
        } else if state == whole {
            self.complete += 1;
        } else {
            assert_eq!(state[..8], *b"SLIDEMRK", "neither the old disk nor the image, and no mark");
            assert_ne!(state[510..512], [0x55, 0xaa], "a boot signature on an unfinished disk");
            let last = state.len() - SECTOR;
            let table = [SECTOR, last].iter().any(|at| state[*at..*at + 8] == *b"EFI PART");
            // All but the first MiB and the 33 sectors of the backup table.
            let body = |disk: &[u8]| -> Range<usize> { 1 << 20..disk.len() - 33 * SECTOR };
            let is = |other: &[u8]| state[body(state)] == other[body(other)];
            assert!(!table || is(old) || is(whole), "a partition table over a body that is not proven");
            self.marked += 1;
        }
    }
}

/// A step of the log.
enum Step {
    Write { at: usize, bytes: Vec<u8> },
    Flush,
}

/// Calls `cut` with what the disk may hold after cuts around each flush; gives how many flushes there were.
fn replay(steps: &[Step], old: &[u8], mut cut: impl FnMut(&[u8])) -> usize {
    let mut random = Random::new(1);
    let mut flushed = old.to_vec();
    let mut loose: Vec<(usize, &[u8])> = vec![];
    let mut flushes = 0;
    for step in steps.iter().chain([&Step::Flush]) {
        match step {
            Step::Write { at, bytes } => {
                loose.extend(bytes.chunks(SECTOR).enumerate().map(|(no, piece)| (at + no * SECTOR, piece)));
            }
            Step::Flush => {
                // None, a few, half, nearly all.
                for keep in [0, 1, 8, 15] {
                    let mut state = flushed.clone();
                    for (at, piece) in &loose {
                        if random.below(16) < keep {
                            state[*at..*at + piece.len()].copy_from_slice(piece);
                        }
                    }
                    cut(&state);
                }
                for (at, piece) in loose.drain(..) {
                    flushed[at..at + piece.len()].copy_from_slice(piece);
                }
                flushes += 1;
            }
        }
    }
    cut(&flushed);
    flushes
}

/// A loop device whose writes are logged.
struct LoggedDisk {
    device: PathBuf,
    file: PathBuf,
    log: PathBuf,
    daemon: Process,
}

impl LoggedDisk {
    fn new(lab: &Lab, old: &[u8]) -> Self {
        let (file, log, export) = (lab.path("logged.disk"), lab.path("logged.log"), lab.path("logged.export"));
        fs::write(&file, old).unwrap();
        File::create(&log).unwrap();
        File::create(&export).unwrap();
        let (disk, journal) = (file.display(), log.display());
        let blocks = [
            format!("driver=file,node-name=file,filename={disk}"),
            "driver=raw,node-name=disk,file=file".to_owned(),
            format!("driver=file,node-name=log,filename={journal}"),
            format!("driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size={SECTOR}"),
        ];
        let shown = format!("type=fuse,id=export,node-name=logged,mountpoint={},writable=on", export.display());
        let args = blocks.into_iter().flat_map(|block| ["--blockdev".to_owned(), block]);
        let args = args.chain(["--export".to_owned(), shown]);
        let program = Path::new("qemu-storage-daemon");
        let dir = file.parent().unwrap();
        let mut daemon = Process::start("storage-daemon", dir, &Place::default(), program, args).unwrap();
        let there = |_: &Process| fs::metadata(&export).is_ok_and(|meta| meta.len() == old.len() as u64);
        daemon.wait_until("showing the disk", SOON, there).unwrap();
        // Without direct I/O the kernel hands writes on one at a time. The daemon mixes up the bytes of those that come together
        // (QEMU 7.2: its one buffer is read into again while a write waits), which the agent's read-back finds.
        let said = tool::run("losetup", [Path::new("--find"), Path::new("--show"), &export]).unwrap();
        Self { device: said.trim().into(), file, log, daemon }
    }

    /// Takes it apart; gives the file with the disk's bytes, and what was done to it.
    fn close(mut self) -> (PathBuf, Vec<Step>) {
        tool::run("losetup", [Path::new("-d"), &self.device]).unwrap();
        self.daemon.signal(nix::sys::signal::Signal::SIGTERM);
        self.daemon.wait_exit(SOON).unwrap();
        (self.file, read_log(&fs::read(&self.log).unwrap()))
    }
}

/// The log: a superblock (magic, version, number of entries, sector size), then entries of one sector (first sector, sectors,
/// flags, length of the data), each followed by its data.
fn read_log(log: &[u8]) -> Vec<Step> {
    // Bit 1 (this write is durable at once) is left out: without it a cut may take more.
    const FLUSH: u64 = 1;
    const DISCARD: u64 = 4;
    const MARK: u64 = 8;
    let number = |at: usize| u64::from_le_bytes(*log[at..].first_chunk().unwrap());
    assert_eq!((number(0), number(8)), (0x006a_7366_7773_6872, 1), "the log is one of dm-log-writes, version 1");
    let mut steps = vec![];
    let mut at = SECTOR;
    for _ in 0..number(16) {
        let [sector, count, flags] = [0, 8, 16].map(|field| number(at + field));
        at += SECTOR;
        let len = usize::try_from(count).unwrap() * SECTOR;
        let start = usize::try_from(sector).unwrap() * SECTOR;
        assert_eq!(flags & MARK, 0, "nobody sets marks here");
        if flags & FLUSH != 0 {
            steps.push(Step::Flush);
        }
        if flags & DISCARD != 0 {
            steps.push(Step::Write { at: start, bytes: vec![0; len] });
        } else if len > 0 {
            steps.push(Step::Write { at: start, bytes: log[at..at + len].to_vec() });
            at += len;
        }
    }
    steps
}
