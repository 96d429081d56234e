//! What is written and not flushed, and when a flush is due: after enough bytes, or long enough after the first of them.

use super::Written;
use crate::units::Time;
use core::time::Duration;

/// When to flush.
#[derive(Clone, Copy, Debug)]
pub struct FlushWindow {
    /// After so many bytes ...
    pub bytes: u64,
    /// ... or so long after the first unflushed write.
    pub after: Duration,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Unflushed<P> {
    window: FlushWindow,
    fresh: Vec<Written<P>>,
    bytes: u64,
    since: Option<Time>,
    /// A flush is under way. What is written meanwhile waits for the next one.
    flushing: bool,
    /// When the control thread will look by itself.
    timer: Option<Time>,
}

impl<P> Unflushed<P> {
    pub(super) fn new(window: FlushWindow) -> Self {
        Self { window, fresh: Vec::new(), bytes: 0, since: None, flushing: false, timer: None }
    }

    pub(super) fn on_written(&mut self, written: Written<P>, bytes: u64, now: Time) {
        self.fresh.push(written);
        self.bytes += bytes;
        self.since.get_or_insert(now);
    }

    /// Whether a flush is due; with `hurry`, as soon as there is anything to flush.
    pub(super) fn is_due(&self, hurry: bool, now: Time) -> bool {
        let Some(since) = self.since else { return false };
        hurry || self.bytes >= self.window.bytes || now >= since.after(self.window.after)
    }

    /// Whether the control thread must be woken to flush, or to wait for the time of a flush.
    pub(super) fn wants_control(&self, hurry: bool, now: Time) -> bool {
        self.since.is_some() && (self.timer.is_none() || self.is_due(hurry, now))
    }

    /// The control thread waits until this time; without one, until something happens.
    pub(super) fn wait(&mut self) -> Option<Time> {
        self.timer = self.since.map(|since| since.after(self.window.after));
        self.timer
    }

    /// A flush begins: what it covers.
    pub(super) fn begin(&mut self) -> Vec<Written<P>> {
        self.timer = None;
        self.flushing = true;
        self.bytes = 0;
        self.since = None;
        core::mem::take(&mut self.fresh)
    }

    pub(super) fn on_flushed(&mut self) {
        self.flushing = false;
    }

    /// Whether every write is covered by a flush that was begun.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty()
    }

    /// Whether every write is flushed.
    pub(super) fn is_still(&self) -> bool {
        self.fresh.is_empty() && !self.flushing
    }

    pub(super) fn clear(&mut self) {
        self.fresh = Vec::new();
    }
}
