//! The operator's wish to stop: the first one is carried out in order, the second one at once.

use mio::net::UnixStream;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// The signals that are the operator's wish. SIGHUP is none where we were started to ignore it, as nohup(1) does; SIGINT
/// always is: a shell has its background jobs ignore it, but whoever sends it to one of them means it.
fn heeded() -> impl Iterator<Item = i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    heeded_with(ignored(&status))
}

fn heeded_with(ignored: u64) -> impl Iterator<Item = i32> {
    SIGNALS.into_iter().filter(move |signal| *signal != SIGHUP || ignored & 1 << (SIGHUP - 1) == 0)
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

    /// Calls `tell` on a thread of its own whenever a signal came.
    pub(crate) fn watch(mut self, tell: impl Fn() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("slidecast-signal".to_owned());
        thread.spawn(move || {
            loop {
                let waited = poll(&mut [PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
                if self.came() {
                    tell();
                } else if waited.is_err_and(|errno| errno != Errno::EINTR) {
                    return;
                }
            }
        })?;
        Ok(())
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

    #[test]
    fn under_nohup_a_hangup_means_nothing_and_a_background_job_is_stopped_by_sigint() {
        let signals = |ignored| heeded_with(ignored).collect::<Vec<_>>();
        assert_eq!(signals(0), SIGNALS);
        assert_eq!(signals(0x1), [SIGINT, SIGTERM]);
        assert_eq!(signals(0x6), SIGNALS);
    }
}
