//! Kernel messages, for operators without a view of the machine's console: what it says of disks, cards, machine checks and memory
//! goes to the log and so to the server, and the last words about a disk stand beside the reason for which it failed.
//!
//! Only the agent that is the whole machine does this. As a plain program it is one of many on somebody's system, which has
//! a log of its own.
//!
//! | file | what it is |
//! | --- | --- |
//! | `record` | the bytes of one record |
//! | `journal` | which of them matter, how many are said, which explain a failure |

mod journal;
mod record;

use crate::logging::ON_CONSOLES;
use journal::{Journal, Line};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use record::Record;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longer than any record (`PRINTK_MESSAGE_MAX` is 2048, 8192 before Linux 6.6).
const RECORD: usize = 16 << 10;
/// How many records are read at once, and the pause after that: a flood costs no more than this.
const AT_ONCE: usize = 256;
const PAUSE: Duration = Duration::from_millis(100);

/// What the kernel says. Copies are the same.
#[derive(Clone, Debug)]
pub(crate) struct KernelLog(Arc<Mutex<Reader>>);

#[derive(Debug)]
struct Reader {
    file: File,
    journal: Journal,
    buffer: Vec<u8>,
    /// What is of a lower level than this the kernel itself prints on its consoles.
    printed_below: u32,
}

/// Starts the thread that follows the kernel's words, from the first that the kernel still has.
///
/// # Errors
/// The kernel shows none, or there is no room for a thread.
pub(super) fn start() -> io::Result<KernelLog> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    let waiting = file.try_clone()?;
    let printed_below = printed_below(&std::fs::read_to_string("/proc/sys/kernel/printk").unwrap_or_default());
    let reader = Reader { file, journal: Journal::default(), buffer: vec![0; RECORD], printed_below };
    let log = KernelLog(Arc::new(Mutex::new(reader)));
    let follower = log.clone();
    std::thread::Builder::new().name("slidecast-kmsg".to_owned()).spawn(move || {
        loop {
            // However it ends: what there is, is read.
            let _ = poll(&mut [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
            follower.read();
            std::thread::sleep(PAUSE);
        }
    })?;
    Ok(log)
}

impl KernelLog {
    /// Reads what the kernel has said, and passes on what matters.
    fn read(&self) {
        let (lines, printed_below) = self.with(|reader| (reader.read(), reader.printed_below));
        for Line { text, level } in lines {
            if level < printed_below {
                log::warn!(target: ON_CONSOLES, "{text}");
            } else {
                log::warn!("{text}");
            }
        }
    }

    /// The last words of the last minute about the disk at `path`, if there are any.
    pub(crate) fn explain(&self, path: &str) -> Option<String> {
        // The kernel speaks before a system call fails, and the thread may not have heard it yet.
        self.read();
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let disk = real.file_name()?.to_str()?;
        let folder = std::fs::read_link(Path::new("/sys/block").join(disk)).unwrap_or_default();
        let devices = journal::device_names(disk, &folder.to_string_lossy());
        self.with(|reader| reader.journal.explain(&devices, now()))
    }

    fn with<T>(&self, what: impl FnOnce(&mut Reader) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reader {
    /// Reads records up to the last, or to the limit; gives the lines to say.
    fn read(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for _ in 0..AT_ONCE {
            match self.file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(len) => {
                    let record = Record::parse(&self.buffer[..len]);
                    lines.extend(record.and_then(|record| self.journal.take(record, now())));
                }
                // What was next is overwritten: reading goes on with the oldest record there is.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.journal.on_overrun(),
                // A record that is longer than the room for it is passed over.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::InvalidInput) => {}
                Err(_) => break,
            }
        }
        lines
    }
}

/// Microseconds on the clock of the records, which is nearly this one.
fn now() -> u64 {
    let since = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The level from the text of `/proc/sys/kernel/printk`, whose first number it is (proc_sys_kernel(5)). 0, which is that of no record,
/// where there is none.
fn printed_below(text: &str) -> u32 {
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::printed_below;

    #[test]
    fn the_level_of_the_kernels_own_printing_is_the_first_of_four_numbers() {
        assert_eq!(printed_below("4\t4\t1\t4\n"), 4);
        assert_eq!([printed_below(""), printed_below("x 1"), printed_below("-1 4")], [0; 3]);
    }
}
