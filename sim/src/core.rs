//! What every driver in the world uses: the time, the events to come, the network, chance, and the checker.

use crate::checker::Checker;
use crate::image::Image;
use crate::network::{ConnId, Frame, HostNo, Network};
use crate::queue::{Event, Queue};
use crate::rng::Rng;
use slidecast_proto::units::Time;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) now: Time,
    pub(crate) queue: Queue,
    pub(crate) network: Network,
    pub(crate) rng: Rng,
    pub(crate) image: Arc<Image>,
    pub(crate) checker: Checker,
    /// Whether what happens is shown.
    pub(crate) shown: bool,
    /// Calls of strangers: what they say when they are answered, and what they do after it.
    pub(crate) strangers: BTreeMap<ConnId, (Vec<u8>, Mood)>,
}

/// What a stranger does after a Hello with the right numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Silent,
    Closes,
    /// It says the same again, which is out of turn.
    Garbage,
}

impl Core {
    /// Shows what happens, if that was asked for.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        if self.shown {
            let seconds = self.now.0.saturating_sub(1_000_000) as f64 / 1e6;
            let _ = writeln!(std::io::stdout().lock(), "{seconds:11.6}  {what}");
        }
    }

    pub(crate) fn connect(&mut self, from: HostNo, to: HostNo) -> ConnId {
        self.network.connect(from, to, self.now, &mut self.queue)
    }

    /// Gives a frame to a connection; says whether it is out as a whole.
    pub(crate) fn start(&mut self, conn: ConnId, end: usize, frame: Frame) -> bool {
        self.network.start(conn, end, frame, self.now, &mut self.queue, &mut self.rng)
    }

    /// Closes one end of a connection. What the other end sent and nobody read may tear it down.
    pub(crate) fn close(&mut self, conn: ConnId, end: usize) {
        let torn = self.rng.chance(30);
        self.network.close(conn, end, torn, self.now, &mut self.queue, &mut self.rng);
    }

    /// Lets `event` happen at `at`, or at once if that has passed.
    pub(crate) fn wake(&mut self, at: Time, event: Event) {
        self.queue.push(at.max(self.now), event);
    }
}
