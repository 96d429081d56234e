//! Whether the simulator bites: every bug on purpose must be caught within the seeds that the unchanged code passes.

use crate::seeds::{run_seed, run_seeds_with};
use slidecast_proto::bug::{self, Bug};
use std::io::Write;

/// A word that is in every program that has the bugs in it, and so can be looked for in those that must not.
pub(crate) const MARK: &str = "slidecast-seeded-bugs";

/// Runs each bug until it is caught.
pub(crate) fn check(seeds: u64, out: &mut impl Write) -> std::io::Result<bool> {
    let mut good = true;
    writeln!(out, "{MARK}: {} of them, each within {seeds} seeds", Bug::ALL.len())?;
    for chosen in Bug::ALL {
        let summary = run_seeds_with(0..seeds, 1, || bug::choose(Some(*chosen)));
        bug::choose(None);
        let Some((seed, violation)) = summary.failures.first() else {
            good = false;
            writeln!(out, "{:24} NOT CAUGHT in {} seeds", format!("{chosen:?}"), summary.runs)?;
            continue;
        };
        let clean = run_seed(*seed, false).violation;
        let short: String = violation.chars().take(110).collect();
        writeln!(out, "{:24} caught after {:4} runs, seed {seed}: {short}", format!("{chosen:?}"), summary.runs)?;
        if let Some(violation) = clean {
            good = false;
            writeln!(out, "  but the unchanged code fails there, too: {violation}")?;
        }
    }
    Ok(good)
}
