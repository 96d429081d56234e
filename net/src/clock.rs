//! The one clock of a program, so that every thread means the same by a [`Time`].

use slidecast_proto::units::Time;
use std::time::{Duration, Instant};

/// Counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// What had passed before.
    before: Duration,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self::start_after(Duration::ZERO)
    }

    /// A clock that starts now and counts from so long ago.
    #[must_use]
    pub fn start_after(before: Duration) -> Self {
        Self { origin: Instant::now(), before }
    }

    /// The time now. Never zero, so that a machine's zero lies before everything.
    #[must_use]
    pub fn now(&self) -> Time {
        Time(1).after(self.before).after(self.origin.elapsed())
    }

    /// How long to wait until `deadline`, rounded up to a millisecond, the unit of epoll(7): rounded down, the last one would be spent
    /// spinning.
    #[must_use]
    pub fn until(&self, deadline: Time) -> Duration {
        let left = deadline.since(self.now());
        if left.is_zero() { left } else { left + Duration::from_micros(999) }
    }
}
