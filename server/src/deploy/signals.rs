//! The operator's wish to stop: the first one is carried out in order, the second one at once.

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// The signals that we were not started to ignore, as nohup(1) does.
fn heeded() -> impl Iterator<Item = i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored(&status);
    SIGNALS.into_iter().filter(move |signal| ignored & 1 << (signal - 1) == 0)
}

/// The mask of ignored signals in the text of proc_pid_status(5).
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Tells of signals through a socket that can be polled.
#[derive(Debug)]
pub(crate) struct Signals {
    receiver: UnixStream,
}

impl Signals {
    /// Takes the signals over.
    pub(crate) fn take() -> io::Result<Self> {
        let (receiver, sender) = std::os::unix::net::UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        for signal in heeded() {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { receiver: UnixStream::from_std(receiver) })
    }

    pub(crate) fn receiver(&mut self) -> &mut UnixStream {
        &mut self.receiver
    }

    /// Whether a signal came since the last call.
    pub(crate) fn came(&mut self) -> bool {
        let mut bytes = [0; 16];
        let mut came = false;
        while matches!(self.receiver.read(&mut bytes), Ok(len) if len > 0) {
            came = true;
        }
        came
    }

    /// From now on a signal ends the program at once, with `code`.
    pub(crate) fn end_at_once(code: u8) -> io::Result<()> {
        for signal in heeded() {
            let now = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(code), now)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert_eq!(ignored("Name:\tx\nSigBlk:\tffff\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored("0000000000001001") & 1, 0);
        assert_eq!(ignored("SigIgn:\t1") & 1 << (SIGHUP - 1), 1);
    }
}
