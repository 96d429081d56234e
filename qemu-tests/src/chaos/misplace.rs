//! A disk that says that all went well and puts things in the wrong place: one write lands lower than it should, or addresses
//! wrap because the disk is smaller than it says.
//!
//! It is a loop device over a file of ours ([`super::fuse`]) that keeps its bytes in another file. A process of its own serves it,
//! so that the kernel never waits for one of our threads that waits for the kernel.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;
use signal_hook::consts::SIGUSR1;

use super::fuse::{Content, Mounted};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::process::{Place, Process};
use crate::{programs, tool};

/// What it says when the disk can be used.
const READY: &str = "ready";
/// What it says when a write was put in the wrong place.
const STRUCK: &str = "struck";
const SOON: Duration = Duration::from_secs(10);

/// What is wrong with the disk.
#[derive(Debug, Clone, Args)]
pub struct Misplacing {
    /// The file with the bytes
    pub file: PathBuf,
    /// The file on which the disk is mounted
    pub point: PathBuf,
    /// Addresses from here on begin at 0 again
    #[arg(long, conflicts_with = "at")]
    pub wrap: Option<u64>,
    /// The first write at this byte or behind it lands lower ...
    #[arg(long, requires = "lower")]
    pub at: Option<u64>,
    /// ... by so many bytes
    #[arg(long)]
    pub lower: Option<u64>,
    /// Only one that begins before this byte
    #[arg(long, default_value_t = u64::MAX)]
    pub until: u64,
    /// Only one of at least so many bytes
    #[arg(long, default_value_t = 1)]
    pub least: usize,
    /// Nothing happens before SIGUSR1
    #[arg(long)]
    pub told: bool,
}

/// Serves the disk until it is unmounted; `say` is told when it is there and when something happened.
///
/// # Errors
/// When it cannot be mounted.
pub fn run(what: &Misplacing, say: &mut dyn FnMut(&str)) -> Result<()> {
    let file = File::options().read(true).write(true).open(&what.file).map_err(LabError::io("opening", &what.file))?;
    let bytes = file.metadata().map_err(LabError::io("looking at", &what.file))?.len();
    let armed = Arc::new(AtomicBool::new(!what.told));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&armed))
        .map_err(LabError::io("waiting for SIGUSR1 at", &what.file))?;
    let mounted = Mounted::on(&what.point).map_err(LabError::io("mounting on", &what.point))?;
    say(READY);
    let once = what.at.zip(what.lower).map(|(at, lower)| Once { within: at..what.until, least: what.least, lower });
    let mut disk = Disk { file, bytes, wrap: what.wrap.unwrap_or(bytes), once, armed, say };
    mounted.serve(&mut disk).map_err(LabError::io("serving", &what.point))
}

struct Disk<'a> {
    file: File,
    bytes: u64,
    /// Its true size.
    wrap: u64,
    once: Option<Once>,
    armed: Arc<AtomicBool>,
    say: &'a mut dyn FnMut(&str),
}

/// Which write lands elsewhere.
struct Once {
    within: Range<u64>,
    least: usize,
    lower: u64,
}

/// The pieces of a range on a disk of `wrap` bytes that says it has more: where each is, and which bytes of the range it has.
fn pieces(at: u64, len: usize, wrap: u64) -> Vec<(u64, Range<usize>)> {
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < len {
        let place = (at + done as u64) % wrap;
        let room = usize::try_from(wrap - place).unwrap_or(usize::MAX);
        let end = len.min(done.saturating_add(room));
        pieces.push((place, done..end));
        done = end;
    }
    pieces
}

impl Once {
    fn is(&self, at: u64, len: usize) -> bool {
        self.within.contains(&at) && at >= self.lower && len >= self.least
    }
}

impl Content for Disk<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let pieces = pieces(at, into.len(), self.wrap);
        pieces.into_iter().try_for_each(|(place, range)| self.file.read_exact_at(&mut into[range], place))
    }

    fn write(&mut self, mut at: u64, data: &[u8]) -> io::Result<()> {
        if self.armed.load(Ordering::Relaxed)
            && let Some(once) = self.once.take_if(|once| once.is(at, data.len()))
        {
            (self.say)(&format!("{STRUCK} {at} {} {}", data.len(), once.lower));
            at -= once.lower;
        }
        let pieces = pieces(at, data.len(), self.wrap);
        pieces.into_iter().try_for_each(|(place, range)| self.file.write_all_at(&data[range], place))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The disk of a node.
#[derive(Debug)]
pub(super) struct MisplacingDisk {
    /// The loop device.
    pub device: PathBuf,
    point: PathBuf,
    server: Process,
}

impl MisplacingDisk {
    /// Whether this machine can have one.
    pub(super) fn can_be() -> bool {
        crate::target::loops_work() && Path::new("/dev/fuse").exists()
    }

    /// Makes one over `file`, with these arguments of `slidecast-lab misplace`.
    ///
    /// # Errors
    /// When there is no FUSE or no loop device.
    pub(super) fn new(lab: &Lab, name: &str, file: &Path, args: Vec<String>) -> Result<Self> {
        let point = lab.path(&format!("{name}.misplaced"));
        File::create(&point).map_err(LabError::io("creating", &point))?;
        let own = ["misplace".to_owned(), file.display().to_string(), point.display().to_string()];
        let program = programs::lab()?;
        let name = format!("{name}-disk");
        let mut server =
            Process::start(&name, &lab.path(""), &Place::default(), &program, own.into_iter().chain(args))?;
        server.wait_for(READY, SOON)?;
        let said = tool::run("losetup", [Path::new("--find"), Path::new("--show"), &point])?;
        let device = PathBuf::from(said.trim());
        tool::run("blockdev", [Path::new("--setrw"), &device])?;
        Ok(Self { device, point, server })
    }

    /// From now on it may happen.
    pub(super) fn arm(&self) {
        self.server.signal(Signal::SIGUSR1);
    }

    /// Whether a write was put in the wrong place.
    pub(super) fn has_struck(&self) -> bool {
        self.server.out().contains(STRUCK)
    }

    /// The process that serves it.
    pub(super) fn server(&self) -> &Process {
        &self.server
    }
}

impl Drop for MisplacingDisk {
    fn drop(&mut self) {
        // First whoever may wait for it is let go.
        self.server.kill();
        let _ = tool::run("losetup", [Path::new("-d"), &self.device]);
        let _ = tool::run("umount", [Path::new("-l"), &self.point]);
        let _ = fs::remove_file(&self.point);
    }
}

/// Writes a line to standard output at once.
#[expect(clippy::print_stdout, reason = "whoever started this process waits for the line")]
pub fn say(line: &str) {
    println!("{line}");
    let _ = io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_over_the_true_end_goes_on_at_the_beginning() {
        assert_eq!(pieces(10, 5, 100), [(10, 0..5)]);
        assert_eq!(pieces(98, 5, 100), [(98, 0..2), (0, 2..5)]);
        assert_eq!(pieces(250, 5, 100), [(50, 0..5)]);
        assert_eq!(pieces(95, 210, 100), [(95, 0..5), (0, 5..105), (0, 105..205), (0, 205..210)]);
    }

    #[test]
    fn one_write_lands_lower_and_only_when_it_may() {
        let file = std::env::temp_dir().join(format!("slidecast-misplace-{}", std::process::id()));
        fs::write(&file, [0; 64]).unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        let opened = File::options().read(true).write(true).open(&file).unwrap();
        let once = Some(Once { within: 32..60, least: 4, lower: 16 });
        let mut disk = Disk { file: opened, bytes: 64, wrap: 64, once, armed: Arc::clone(&armed), say: &mut say };
        disk.write(40, &[1; 4]).unwrap();
        armed.store(true, Ordering::Relaxed);
        disk.write(60, &[9; 4]).unwrap();
        disk.write(36, &[9; 2]).unwrap();
        for (at, byte) in [(8, 2), (50, 3), (56, 4)] {
            disk.write(at, &[byte; 4]).unwrap();
        }
        let mut found = [0; 64];
        disk.read(0, &mut found).unwrap();
        assert_eq!([8, 34, 40, 50, 56].map(|at: usize| found[at]), [2, 3, 1, 0, 4]);
        drop(disk);
        assert_eq!(said, ["struck 50 4 16"]);
        fs::remove_file(&file).unwrap();
    }
}
