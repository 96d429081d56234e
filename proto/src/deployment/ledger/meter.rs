//! How fast a node is, and what it waits for, from its reports.

use crate::control::Progress;
use crate::units::Time;
use core::time::Duration;
use std::collections::VecDeque;

/// Over how long a rate is measured: short pauses of a disk are no slowness.
pub(in crate::deployment) const WINDOW: Duration = Duration::from_secs(3);
/// Beats and words, but no blocks, in bytes per second.
pub(in crate::deployment) const NOTHING: f64 = 8192.0;
/// Waiting for one thing for this part of the time is waiting for that thing.
pub(in crate::deployment) const MIN_WAIT_SHARE: f64 = 0.8;
/// The shortest span between two reports that makes a rate.
pub(in crate::deployment) const MIN_REPORT_SPAN: Duration = Duration::from_millis(900);
/// How much the disk's past counts, from one report to the next.
const DISK_RATE_DECAY: f64 = 0.9;

/// One report.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Time,
    received: u64,
    sent: u64,
    written: u64,
    upstream: u32,
    downstream: u32,
    disk: u32,
}

/// How fast a node is, and what it waits for.
#[derive(Debug, Default)]
pub(in crate::deployment) struct Meter {
    samples: VecDeque<Sample>,
    /// The best rate at which it ever received, in bytes per second.
    pub(in crate::deployment) best: f64,
    /// Bytes that its disk wrote, and the seconds in which it had work; the past counts less and less.
    disk: (f64, f64),
    /// Since when it paces the chain although the others could do more.
    pub(in crate::deployment) slow: Option<Time>,
}

/// What a node did in the last seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::deployment) struct Pace {
    /// Bytes received, sent and written per second.
    pub(in crate::deployment) received: f64,
    pub(in crate::deployment) sent: f64,
    pub(in crate::deployment) written: f64,
    /// In which part of the time it waited for what.
    pub(in crate::deployment) upstream: f64,
    pub(in crate::deployment) downstream: f64,
    pub(in crate::deployment) disk: f64,
}

#[expect(clippy::cast_precision_loss, reason = "rates need no more than 52 bits")]
fn float(number: u64) -> f64 {
    number as f64
}

impl Meter {
    pub(in crate::deployment) fn take(&mut self, progress: &Progress, now: Time) {
        let sample = Sample {
            at: now,
            received: progress.received_bytes,
            sent: progress.sent_bytes,
            written: progress.written_bytes,
            upstream: progress.wait_upstream_ms,
            downstream: progress.wait_downstream_ms,
            disk: progress.wait_disk_ms,
        };
        if let Some(last) = self.samples.back() {
            let span = now.since(last.at);
            if span >= MIN_REPORT_SPAN {
                self.best = self.best.max(float(sample.received.saturating_sub(last.received)) / span.as_secs_f64());
            }
            let written = float(sample.written.saturating_sub(last.written));
            if written > 0.0 {
                let busy = f64::from(sample.disk.max(1)) / 1000.0;
                self.disk = (self.disk.0 * DISK_RATE_DECAY + written, self.disk.1 * DISK_RATE_DECAY + busy);
            }
        }
        self.samples.push_back(sample);
        while self.samples.len() > 2 && now.since(self.samples[1].at) >= WINDOW {
            self.samples.pop_front();
        }
    }

    /// What is measured from now on says nothing of before.
    pub(in crate::deployment) fn forget(&mut self) {
        self.samples.clear();
        self.slow = None;
    }

    /// Bytes per second that it received of late.
    pub(in crate::deployment) fn rate(&self) -> f64 {
        self.pace().map_or(0.0, |pace| pace.received)
    }

    pub(in crate::deployment) fn pace(&self) -> Option<Pace> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span = last.at.since(first.at);
        if span + MIN_REPORT_SPAN < WINDOW {
            return None;
        }
        let seconds = span.as_secs_f64();
        let share = |ms: fn(&Sample) -> u32| -> f64 {
            let sum: f64 = self.samples.iter().skip(1).map(|sample| f64::from(ms(sample))).sum();
            (sum / 1000.0 / seconds).min(1.0)
        };
        let (upstream, downstream) = (share(|sample| sample.upstream), share(|sample| sample.downstream));
        Some(Pace {
            received: float(last.received.saturating_sub(first.received)) / seconds,
            sent: float(last.sent.saturating_sub(first.sent)) / seconds,
            written: float(last.written.saturating_sub(first.written)) / seconds,
            upstream,
            downstream,
            disk: (1.0 - upstream - downstream).max(0.0),
        })
    }

    /// Whether nothing came of late although the node waited for its upstream.
    pub(in crate::deployment) fn is_starved(&self) -> bool {
        self.pace().is_some_and(|pace| pace.received <= NOTHING && pace.upstream >= MIN_WAIT_SHARE)
    }

    /// What the disk could write, in bytes per second, if it was ever seen to write.
    pub(in crate::deployment) fn disk_rate(&self) -> Option<f64> {
        (self.disk.0 > 0.0).then(|| self.disk.0 / self.disk.1.max(0.001))
    }
}
