//! Which tests took the longest: what to look at when a tier of tests takes too long.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many are named.
const NAMED: usize = 12;

static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Runs a test and keeps how long it took, also if it panics.
pub fn timed<T>(name: &str, test: impl FnOnce() -> T) -> T {
    struct Keep<'a>(&'a str, Instant);
    impl Drop for Keep<'_> {
        fn drop(&mut self) {
            TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((self.1.elapsed(), self.0.to_owned()));
        }
    }
    let _keep = Keep(name, Instant::now());
    test()
}

/// The slowest tests and the time of all, in seconds on the clock, a line each.
#[must_use]
pub fn told() -> String {
    let mut times = std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner));
    times.sort_unstable_by(|a, b| b.cmp(a));
    let all: Duration = times.iter().map(|(time, _)| *time).sum();
    let head = format!("all tests, one after the other: {:.0} s; the slowest:", all.as_secs_f64());
    let line = |(time, name): &(Duration, String)| format!("{:6.1} s {name}", time.as_secs_f64());
    std::iter::once(head).chain(times.iter().take(NAMED).map(line)).collect::<Vec<_>>().join("\n")
}
