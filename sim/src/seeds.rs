//! Many seeds at once, and one seed again.

use crate::scenario::Scenario;
use crate::world::{Outcome, World};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs one seed. A panic of a machine is a violation like any other.
pub(crate) fn run_seed(seed: u64, shown: bool) -> Outcome {
    let run = || World::new(Scenario::of_seed(seed), shown).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        Outcome { violation: Some(format!("panic: {text}")), ..Outcome::default() }
    })
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) runs: u64,
    /// Events in all of them.
    pub(crate) events: u64,
    /// Nodes that were done, and nodes that failed.
    pub(crate) nodes: (usize, usize),
    /// Seeds in which something did not hold, and what.
    pub(crate) failures: Vec<(u64, String)>,
}

/// Runs the seeds on all cores; stops after `most` failures.
pub(crate) fn run_seeds(seeds: Range<u64>, most: usize) -> Summary {
    run_seeds_with(seeds, most, || ())
}

/// [`run_seeds`]; each thread does `first` before it begins.
pub(crate) fn run_seeds_with(seeds: Range<u64>, most: usize, first: impl Fn() + Sync) -> Summary {
    let summary = Mutex::new(Summary::default());
    let (next, full) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let work = || {
        first();
        while !full.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run_seed(seed, false);
            let Ok(mut summary) = summary.lock() else { return };
            summary.runs += 1;
            summary.events += outcome.events;
            summary.nodes.0 += outcome.nodes.0;
            summary.nodes.1 += outcome.nodes.1;
            if let Some(violation) = outcome.violation {
                summary.failures.push((seed, violation));
                full.store(summary.failures.len() >= most, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.failures.sort();
    summary
}
