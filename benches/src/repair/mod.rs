//! Nobody waits for the broken: what the others lose when nodes die, fall silent or become slow.
//!
//! Lost is by how much a survivor ends later than the same node of the same deployment without a fault. The report says
//! when each node ended; the node that died does not count. The gap is what the server had to send again, at line rate:
//! the bars are for what is lost beyond it. Each run has a number: with `--seed NUMBER --runs 1` the same nodes die at the
//! same byte again.

mod fault;
mod rig;
mod slow;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, ValueEnum};
use slidecast_lab::{LabError, Result};

use crate::setup::{Image, Setup, fits};
use crate::table::{Bar, Table, median};
use fault::{Fault, Victims, Way};
use rig::{Rig, Trial};

/// What of it is measured.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Of repair: runs of each figure; those with several deaths take a fifth of it, slow nodes a fiftieth
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// Of repair: the number of the first run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of repair: only these faults
    #[arg(long)]
    fault: Vec<Name>,
    /// Of repair: only links of 100 or of 1000 Mbit/s
    #[arg(long)]
    mbits: Option<u32>,
    /// Of repair: keeps what the programs of runs that missed their bar said in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// A node is killed, its kernel says so
    Reset,
    /// A node vanishes without a word
    Silent,
    /// Two neighbours, and three of eight nodes, both ways mixed
    Several,
    /// A link or a disk at a tenth of its rate
    Slow,
}

/// Machines and links of some figures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    nodes: usize,
    mbits: u32,
    /// What `deploy` is told beyond the usual.
    args: &'static [&'static str],
    /// Size of the image in deployments in which nodes die: some two seconds of the wire.
    mib: u64,
    /// The same for slow nodes: enough for half a minute, of which half at a tenth of the rate.
    slow_mib: u64,
    /// How many labs work side by side without feeling each other.
    labs: usize,
}

const WIRES: [Wire; 2] = [
    Wire { nodes: 8, mbits: 100, args: &[], mib: 24, slow_mib: 112, labs: 2 },
    Wire { nodes: 4, mbits: 1000, args: &["--verify", "none"], mib: 256, slow_mib: 960, labs: 1 },
];

impl Wire {
    fn name(&self) -> String {
        let args = if self.args.is_empty() { "with read-back".to_owned() } else { self.args.join(" ") };
        format!("{} nodes at {} Mbit/s, {args}", self.nodes, self.mbits)
    }

    /// Bytes of payload per second that a link carries.
    fn rate(&self) -> f64 {
        f64::from(self.mbits) * 1e6 / 8.0 * slidecast_lab::net::GOODPUT
    }
}

/// One figure: faults of one kind.
struct Figure {
    name: &'static str,
    victims: Victims,
    way: Way,
    runs: u64,
    /// The most that may be lost, and whether by the slowest of a hundred runs or by any.
    bar: f64,
}

/// Runs the figures.
///
/// # Errors
/// When the lab cannot be made, or a deployment without a fault fails.
pub fn run(setup: &Setup, options: &Options, table: &mut Table) -> Result<()> {
    let chosen = |name| options.fault.is_empty() || options.fault.contains(&name);
    for wire in WIRES.iter().filter(|wire| options.mbits.is_none_or(|mbits| wire.mbits == mbits)) {
        let several = (options.runs / 5).max(1);
        let mut figures = Vec::new();
        let mut add = |of, name, victims, way, runs, bar| {
            if chosen(of) {
                figures.push(Figure { name, victims, way, runs, bar });
            }
        };
        add(Name::Reset, "one killed", Victims::One, Way::Reset, options.runs, 1.0);
        add(Name::Silent, "one silent", Victims::One, Way::Silent, options.runs, 3.0);
        add(Name::Several, "two neighbours", Victims::Neighbours, Way::Mixed, several, 6.0);
        if wire.nodes == 8 {
            add(Name::Several, "three of eight", Victims::Three, Way::Mixed, several, 6.0);
        }
        if !figures.is_empty() {
            deaths(setup, options, wire, &figures, table)?;
        }
        if chosen(Name::Slow) {
            slow::run(setup, wire, (options.runs / 50).max(1), options.seed, table)?;
        }
    }
    Ok(())
}

/// What became of the runs of all figures of a wire.
#[derive(Default)]
struct Outcomes {
    /// The seconds of each node, for each deployment without a fault.
    calm: Vec<Trial>,
    /// By figure.
    trials: Vec<(usize, Fault, Trial)>,
    /// What did not end as it should.
    broken: Vec<String>,
}

fn deaths(setup: &Setup, options: &Options, wire: &Wire, figures: &[Figure], table: &mut Table) -> Result<()> {
    let images = [setup.incompressible("one", wire.mib << 20, 21)?, setup.incompressible("two", wire.mib << 20, 22)?];
    table.group(
        &format!("{}, {} MiB of random bytes: seconds that survivors lose", wire.name(), wire.mib),
        "slidecast deploy random.slide --fresh | kill -9 AGENT, or its cable cut for good, at a random byte of a random node",
    );
    if !fits(images[0].disk_bytes * (wire.nodes * wire.labs) as u64) {
        table.skip("all of it", "too little memory for the disks");
        return Ok(());
    }
    // Every figure's runs, and deployments without a fault among them.
    let mut jobs: Vec<Option<(usize, u64)>> = Vec::new();
    for (number, figure) in figures.iter().enumerate() {
        jobs.extend((0..figure.runs).map(|run| Some((number, options.seed + run))));
    }
    let (every, labs) = ((jobs.len() / 12).clamp(2, 8), wire.labs);
    let jobs: Vec<_> = jobs.chunks(every).flat_map(|some| std::iter::once(None).chain(some.iter().copied())).collect();
    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(Outcomes::default()));
    let work = || -> Result<()> {
        let mut rig = Rig::new(wire, &images)?;
        while let Some(job) = jobs.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX)) {
            one(&mut rig, *job, options, figures, &outcomes)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let labs: Vec<_> = (0..labs).map(|_| scope.spawn(work)).collect();
        labs.into_iter().try_for_each(|lab| lab.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    show(outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner), wire, &images[0], figures, table);
    Ok(())
}

/// One deployment: with a fault, or without one.
fn one(
    rig: &mut Rig<'_>,
    job: Option<(usize, u64)>,
    options: &Options,
    figures: &[Figure],
    outcomes: &Mutex<Outcomes>,
) -> Result<()> {
    let fault = job.map(|(number, seed)| {
        let figure = &figures[number];
        (number, Fault::draw(seed, figure.victims, figure.way, rig.nodes(), rig.bytes()))
    });
    let trial = rig.deploy(fault.as_ref().map(|(_, fault)| fault));
    let mut all = outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match (fault, trial) {
        (None, trial) => all.calm.push(trial?),
        (Some((number, fault)), Ok(trial)) => {
            // The first deployments of all give an idea of what is usual.
            let usual = median(all.calm.iter().map(Trial::last).collect());
            if trial.last() - usual > figures[number].bar || std::env::var_os("SLIDECAST_BENCH_ALL").is_some() {
                rig.keep(
                    options.keep.as_deref(),
                    &format!("{}-{}", figures[number].name.replace(' ', "-"), fault.seed),
                )?;
                eprintln!("{fault}: the last ended at {:.2} s, usual {usual:.2} s", trial.last());
                trial.repairs.iter().for_each(|repair| eprintln!("    {repair}"));
            }
            all.trials.push((number, fault, trial));
        }
        (Some((number, fault)), Err(error)) => {
            rig.keep(options.keep.as_deref(), &format!("{}-{}", figures[number].name.replace(' ', "-"), fault.seed))?;
            eprintln!("{fault}: {error}");
            all.broken.push(format!("{fault}"));
        }
    }
    Ok(())
}

/// The value that 99 of 100 do not exceed; of fewer the highest.
fn p99(sorted: &[f64]) -> f64 {
    let at = (sorted.len() * 99).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn show(outcomes: Outcomes, wire: &Wire, image: &Image, figures: &[Figure], table: &mut Table) {
    let Outcomes { calm, trials, broken } = outcomes;
    let base: Vec<f64> =
        (0..wire.nodes).map(|node| median(calm.iter().filter_map(|trial| trial.seconds[node]).collect())).collect();
    let egress = median(calm.iter().map(|trial| trial.egress as f64).collect());
    let blocks = calm.iter().map(|trial| trial.blocks).max().unwrap_or(1).max(1) as f64;
    let mut lasts: Vec<f64> = calm.iter().map(Trial::last).collect();
    lasts.sort_by(f64::total_cmp);
    let from = format!(
        "{} runs, {:.2} to {:.2} s; the wire alone {:.2} s",
        lasts.len(),
        lasts.first().copied().unwrap_or(f64::NAN),
        lasts.last().copied().unwrap_or(f64::NAN),
        image.disk_bytes as f64 / wire.rate()
    );
    table.row("without a fault: the last node's end", median(lasts.clone()), Bar::Report, &from);
    for (number, figure) in figures.iter().enumerate() {
        let of: Vec<(&Fault, &Trial)> =
            trials.iter().filter(|(of, _, _)| *of == number).map(|(_, fault, trial)| (fault, trial)).collect();
        let gap = |trial: &Trial| (trial.egress as f64 - egress).max(0.0) / wire.rate();
        let mut lost: Vec<(f64, f64, &Fault)> =
            of.iter().map(|(fault, trial)| (trial.later_than(&base) - gap(trial), gap(trial), *fault)).collect();
        lost.sort_by(|a, b| a.0.total_cmp(&b.0));
        let sorted: Vec<f64> = lost.iter().map(|(lost, _, _)| *lost).collect();
        let gaps: Vec<f64> = lost.iter().map(|(_, gap, _)| *gap).collect();
        let worst = lost.last().map_or(String::new(), |(_, _, fault)| format!("; worst: {fault}"));
        let from = format!(
            "{} runs: p50 {:.2}, max {:.2}; gap p50 {:.2}, max {:.2} s more{worst}",
            sorted.len(),
            median(sorted.clone()),
            sorted.last().copied().unwrap_or(f64::NAN),
            median(gaps.clone()),
            gaps.iter().copied().fold(0.0, f64::max)
        );
        table.row(&format!("{}: p99", figure.name), p99(&sorted), Bar::AtMost(figure.bar), &from);
        let written = of.iter().map(|(_, trial)| trial.blocks).max().unwrap_or(0) as f64 / blocks;
        let most = of.iter().map(|(_, trial)| trial.egress).max().unwrap_or(0) as f64 / egress;
        let from = format!("the server sent at most {most:.3} images");
        table.row(&format!("{}: blocks that a survivor wrote / blocks", figure.name), written, Bar::AtMost(1.0), &from);
    }
    let from = broken.join("; ");
    table.row("runs that did not end as they should", broken.len() as f64, Bar::AtMost(0.0), &from);
}

/// A run whose deployment did not end as it should.
fn wrong(what: String) -> LabError {
    LabError::Ended { what, tail: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p99_of_a_hundred_leaves_one_out_and_of_fewer_none() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert!((p99(&values[..100]) - 99.0).abs() < f64::EPSILON);
        assert!((p99(&values) - 198.0).abs() < f64::EPSILON);
        assert!((p99(&values[..20]) - 20.0).abs() < f64::EPSILON);
    }
}
