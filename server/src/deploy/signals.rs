//! The operator's wish to stop: the first one is carried out in order, the second one at once.

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Tells of signals through a socket that can be polled.
#[derive(Debug)]
pub(super) struct Signals {
    receiver: UnixStream,
}

impl Signals {
    /// Takes the signals over.
    pub(super) fn take() -> io::Result<Self> {
        let (receiver, sender) = std::os::unix::net::UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        for signal in SIGNALS {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { receiver: UnixStream::from_std(receiver) })
    }

    pub(super) fn receiver(&mut self) -> &mut UnixStream {
        &mut self.receiver
    }

    /// Whether a signal came since the last call.
    pub(super) fn came(&mut self) -> bool {
        let mut bytes = [0; 16];
        let mut came = false;
        while matches!(self.receiver.read(&mut bytes), Ok(len) if len > 0) {
            came = true;
        }
        came
    }

    /// From now on a signal ends the program at once, with `code`.
    pub(super) fn end_at_once(code: u8) -> io::Result<()> {
        for signal in SIGNALS {
            let now = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(code), now)?;
        }
        Ok(())
    }
}
