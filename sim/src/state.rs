//! The state folder of the server: a disk that takes its time, on which the newest state that waits is written next. A server that is
//! killed loses what was not written.

use crate::rng::Rng;
use slidecast_proto::deployment::Saved;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct StateFolder {
    rng: Rng,
    /// How long a write takes at most.
    slowest: Duration,
    kept: Option<Box<Saved>>,
    /// What is being written, and what comes after it. The numbers are those of the machine.
    writing: Option<(u64, Box<Saved>)>,
    next: Option<(u64, Box<Saved>)>,
}

impl StateFolder {
    /// An empty one.
    pub(crate) fn new(seed: u64, slowest: Duration) -> Self {
        Self { rng: Rng::new(seed, 8), slowest, kept: None, writing: None, next: None }
    }

    /// Has a state written; gives when that is done, unless another one is being written.
    pub(crate) fn keep(&mut self, number: u64, saved: Box<Saved>) -> Option<Duration> {
        self.next = Some((number, saved));
        if self.writing.is_none() { self.begin() } else { None }
    }

    fn begin(&mut self) -> Option<Duration> {
        self.writing = self.next.take();
        let most = u64::try_from(self.slowest.as_micros()).unwrap_or(0);
        self.writing.is_some().then(|| Duration::from_micros(self.rng.between(0, most)))
    }

    /// A write is done: the number of the state, and when the next one is written.
    pub(crate) fn on_written(&mut self) -> Option<(u64, Option<Duration>)> {
        let (number, saved) = self.writing.take()?;
        self.kept = Some(saved);
        Some((number, self.begin()))
    }

    /// The server was killed.
    pub(crate) fn on_killed(&mut self) {
        (self.writing, self.next) = (None, None);
    }

    /// What is there for a server that was started again.
    pub(crate) fn take(&mut self) -> Option<Box<Saved>> {
        self.kept.take()
    }
}
