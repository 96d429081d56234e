//! The command line.

use crate::growth::{self, GrowthPlan};
use crate::seeds::{run_seed, run_seeds};
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
Runs the machines of SlideCast in virtual time.

  slidecast-sim seeds [--seeds N | --seeds A..B] [--failures M]   many runs (2000), each its own seed; stops after M (10) failures
  slidecast-sim replay SEED                                        one run, told event by event
  slidecast-sim growth [--blocks N] [--card MBITS] [--dying PERCENT] [--silent PERCENT] [--nodes N] [--seed S]
                                                                   how the time grows with the number of nodes, as a table
  slidecast-sim bugs [--seeds N]                                   catches bugs on purpose (a build with --cfg slidecast_bugs)
";

/// How many failures are enough.
const FAILURES: usize = 10;

/// Does what the arguments say.
pub(crate) fn run(args: impl Iterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut out = io::stdout().lock();
    let done = match words.split_first() {
        Some((&"seeds", options)) => parse_seeds(options).map(|(range, most)| {
            drop(out);
            seeds(range, most)
        }),
        Some((&"replay", [seed])) => seed.parse().map_err(|_| format!("no seed: {seed}")).map(|seed| {
            drop(out);
            replay(seed)
        }),
        Some((&"growth", options)) => parse_growth(options).and_then(|(plan, sizes, seed)| {
            growth::table(plan, &sizes, seed, &mut out).map_err(|error| error.to_string())
        }),
        #[cfg(slidecast_bugs)]
        Some((&"bugs", options)) => parse_seeds(options)
            .and_then(|(range, _)| crate::bugs::check(range.end, &mut out).map_err(|error| error.to_string())),
        Some((&("-h" | "--help"), _)) => {
            let _ = out.write_all(USAGE.as_bytes());
            return ExitCode::SUCCESS;
        }
        _ => Err("what is to be done? See --help".to_owned()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let _ = writeln!(io::stderr(), "error: {why}");
            ExitCode::from(2)
        }
    }
}

fn parse_growth(options: &[&str]) -> Result<(GrowthPlan, Vec<usize>, u64), String> {
    let mut plan = GrowthPlan { blocks: 2048, card: 1000, dying: 1, silent: 50 };
    let (mut sizes, mut seed) = (growth::SIZES.to_vec(), 1);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let value = options.next().ok_or(format!("{option} needs a value"))?;
        let number: u32 = value.parse().map_err(|_| format!("no number: {value}"))?;
        match *option {
            "--blocks" => plan.blocks = number.max(1),
            "--card" => plan.card = number.max(1000),
            "--dying" => plan.dying = number.min(50) as usize,
            "--silent" => plan.silent = number.min(100).into(),
            "--seed" => seed = number.into(),
            "--nodes" => sizes = vec![number.max(1) as usize],
            other => return Err(format!("no option is called {other}")),
        }
    }
    Ok((plan, sizes, seed))
}

fn parse_seeds(options: &[&str]) -> Result<(Range<u64>, usize), String> {
    let (mut range, mut most) = (0..2000, FAILURES);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let value = options.next().ok_or(format!("{option} needs a value"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("no number: {text}"));
        match *option {
            "--seeds" => {
                range = match value.split_once("..") {
                    Some((from, to)) => number(from)?..number(to)?,
                    None => 0..number(value)?,
                };
            }
            "--failures" => most = usize::try_from(number(value)?).unwrap_or(usize::MAX),
            other => return Err(format!("no option is called {other}")),
        }
    }
    Ok((range, most))
}

fn seeds(range: Range<u64>, most: usize) -> bool {
    let began = Instant::now();
    let summary = run_seeds(range, most);
    let mut out = io::stdout().lock();
    for (seed, violation) in &summary.failures {
        let _ = writeln!(
            out,
            "seed {seed}: {violation}\n  again: cargo run --profile sim -p slidecast-sim -- replay {seed}"
        );
    }
    let (good, bad) = summary.nodes;
    let _ = writeln!(
        out,
        "{} seeds, {} failures; {good} nodes done, {bad} failed as they had to; {} events in {:.1} s",
        summary.runs,
        summary.failures.len(),
        summary.events,
        began.elapsed().as_secs_f64()
    );
    summary.failures.is_empty()
}

fn replay(seed: u64) -> bool {
    let outcome = run_seed(seed, true);
    let mut out = io::stdout().lock();
    let _ = match &outcome.violation {
        Some(violation) => writeln!(out, "seed {seed}: {violation}"),
        None => writeln!(
            out,
            "seed {seed}: all holds; {:?} nodes done and failed, it took {:?}; done are agents {:?}, the last of them after {:?}; \
             found to damage what they send: {:?}",
            outcome.nodes, outcome.took, outcome.done, outcome.last_done, outcome.corrupting
        ),
    };
    outcome.violation.is_none()
}
