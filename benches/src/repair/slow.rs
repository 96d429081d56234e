//! A node whose link or disk falls to a tenth of the rate: how long the others feel it.

use std::time::{Duration, Instant};

use slidecast_lab::cgroup::Brake;
use slidecast_lab::disk::random::Random;
use slidecast_lab::{Compared, Exit, Lab, LabError, Node, NodeOptions, Process, Result, TargetKind, compare, target};

use super::{Wire, wrong};
use crate::setup::{Image, Setup, fits};
use crate::table::{Bar, Table};

/// No deployment takes longer: the slow node gets what it lacks at its own rate.
const LIMIT: Duration = Duration::from_secs(240);
/// How long all is well.
const CALM: Duration = Duration::from_millis(2500);
/// How often the others are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Over how long their rate is taken.
const WINDOW: Duration = Duration::from_millis(1000);
/// Slower than this part of the healthy rate is felt.
const HEALTHY: f64 = 0.9;
/// Of the nodes' rings in MiB, so that a chain feels a slow disk before it has the whole image.
const RING: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Link,
    Disk,
}

/// What the others felt.
struct Felt {
    /// Seconds from the first to the last moment at which they ran slower; nothing if they never did.
    seconds: Option<f64>,
    /// The healthy rate, the least while it was felt, and the rate after it, in bytes per second.
    rates: [f64; 3],
    /// When the slow one was done.
    slow_done: f64,
}

/// Runs the figures.
pub(super) fn run(setup: &Setup, wire: &Wire, runs: u64, seed: u64, table: &mut Table) -> Result<()> {
    table.group(
        &format!(
            "{}, {} MiB of random bytes and {RING} for each node above, rings of {RING} MiB: one node at a tenth",
            wire.name(),
            wire.slow_mib
        ),
        "slidecast deploy random.slide | tc ... rate R/10 on a node's cable, or blkio.throttle / io.max of its disk",
    );
    for part in [Part::Link, Part::Disk] {
        for run in 0..runs {
            let at = usize::try_from(Random::new(seed + run).below(wire.nodes as u64)).unwrap_or(0);
            // The rings above take that much before anybody there feels it, and nobody may have the whole image by then.
            let image = setup.incompressible("slow", (wire.slow_mib + RING * at as u64) << 20, 23)?;
            let what = if part == Part::Link { "link" } else { "disk" };
            let name = format!("{what} of position {} at a tenth: s until others run at 90 %", at + 1);
            if !fits(image.disk_bytes * wire.nodes as u64) {
                table.skip(&name, "too little memory for the disks");
                continue;
            }
            let Some(felt) = deploy(wire, &image, part, at)? else {
                table.skip(&name, "this machine does not let us slow a disk down");
                continue;
            };
            let mb = felt.rates.map(|rate| rate / 1e6);
            let from = format!(
                "{:.1} MB/s before, {:.1} at the least, {:.1} after; the slow one done at {:.0} s",
                mb[0], mb[1], mb[2], felt.slow_done
            );
            table.row(&name, felt.seconds.unwrap_or(0.0), Bar::AtMost(15.0), &from);
        }
    }
    Ok(())
}

fn deploy(wire: &Wire, image: &Image, part: Part, slow: usize) -> Result<Option<Felt>> {
    let lab = Lab::with_card_rate(1, wire.mbits)?;
    let options = NodeOptions { mbits: Some(wire.mbits), kind: TargetKind::FilledRam, bytes: image.disk_bytes };
    let mut nodes = lab.nodes(wire.nodes, &options)?;
    if part == Part::Disk {
        // A file has no rate that could be bounded.
        let file = nodes[slow].target.file.clone();
        let Ok(device) = target::attach(&file, 512) else { return Ok(None) };
        nodes[slow].target.path = device;
    }
    let key = lab.key()?.with_extension("key.pub").display().to_string();
    let ring = format!("{RING}MiB");
    let start = |node: &Node| {
        let target = node.target.path.display().to_string();
        lab.agent_with(node, ["--target", &target, "--server-key", &key, "--ring", &ring, "--once"])
    };
    let mut agents: Vec<Process> = nodes.iter().map(start).collect::<Result<_>>()?;
    let mut brake = None;
    if part == Part::Disk {
        brake = Brake::new(&format!("{}-brake", lab.name()), agents[slow].pid(), &nodes[slow].target.path);
        if brake.is_none() {
            return Ok(None);
        }
    }
    let args = [&["--progress", "none"], wire.args].concat();
    let mut deploy = lab.deploy(&image.file, wire.nodes, &args)?;
    for agent in &mut agents {
        agent.wait_for("position ", LIMIT)?;
    }
    let mut watch = Watch::new(&agents, slow, image.disk_bytes);
    while watch.least() < image.disk_bytes / 50 {
        watch.look(&agents, LIMIT)?;
    }
    let from = Instant::now();
    while from.elapsed() < CALM {
        watch.look(&agents, LIMIT)?;
    }
    let hit = Instant::now();
    match &brake {
        None => lab.shape(&nodes[slow], wire.mbits / 10)?,
        Some(brake) => {
            if !brake.set(wire.mbits as u64 * 1_000_000 / 80) {
                return Ok(None);
            }
        }
    }
    while !watch.is_over() {
        watch.look(&agents, LIMIT)?;
    }
    let (exit, report) = deploy.process.wait_exit(LIMIT).and_then(|_| deploy.wait(LIMIT))?;
    if exit != Exit::Code(0) {
        return Err(wrong(format!("deploying with a slow node: {exit:?}: {report:?}")));
    }
    for agent in &mut agents {
        agent.wait_exit(LIMIT)?;
    }
    for node in &nodes {
        let compared = compare(&node.target.path, &image.source)?;
        if !matches!(compared, Compared::Equal(_)) {
            let (disk, with) = (node.target.path.clone(), image.source.display().to_string());
            return Err(LabError::Differs { disk, with, how: compared.to_string() });
        }
    }
    drop(brake);
    let slow_done = report.node(&nodes[slow].address).map_or(f64::NAN, |node| node.seconds);
    let (seconds, rates) = watch.judge(hit);
    Ok(Some(Felt { seconds, rates, slow_done }))
}

/// What the nodes that are not slow have received, looked at again and again.
struct Watch {
    slow: usize,
    /// What each has received before.
    before: Vec<u64>,
    began: Instant,
    bytes: u64,
    looks: Vec<(Instant, Vec<u64>)>,
}

impl Watch {
    fn new(agents: &[Process], slow: usize, bytes: u64) -> Self {
        let before = agents.iter().map(received).collect();
        Self { slow, before, began: Instant::now(), bytes, looks: Vec::new() }
    }

    fn look(&mut self, agents: &[Process], limit: Duration) -> Result<()> {
        if self.began.elapsed() > limit {
            return Err(wrong("the nodes that are not slow did not receive the image".to_owned()));
        }
        let others = agents.iter().zip(&self.before).enumerate().filter(|(at, _)| *at != self.slow);
        let now = others.map(|(_, (agent, before))| received(agent).saturating_sub(*before)).collect();
        self.looks.push((Instant::now(), now));
        std::thread::sleep(LOOK);
        Ok(())
    }

    fn least(&self) -> u64 {
        self.looks.last().and_then(|(_, received)| received.iter().min().copied()).unwrap_or(0)
    }

    /// Whether one of them has everything.
    fn is_over(&self) -> bool {
        self.looks.last().is_some_and(|(_, received)| received.iter().any(|bytes| *bytes >= self.bytes))
    }

    /// The rate of the slowest of them in each window, with the window's end.
    fn rates(&self) -> Vec<(Instant, f64)> {
        let mut rates = Vec::new();
        let mut first = 0;
        for (at, received) in &self.looks {
            while at.duration_since(self.looks[first].0) > WINDOW {
                first += 1;
            }
            let (from, before) = &self.looks[first.saturating_sub(1)];
            let span = at.duration_since(*from);
            if span >= WINDOW {
                let least = received.iter().zip(before).map(|(now, before)| now - before).min().unwrap_or(0);
                rates.push((*at, least as f64 / span.as_secs_f64()));
            }
        }
        rates
    }

    /// How long the others felt what began at `hit`, and their rates before, at the worst and after it.
    fn judge(&self, hit: Instant) -> (Option<f64>, [f64; 3]) {
        let rates = self.rates();
        let healthy = rates.iter().filter(|(at, _)| *at < hit).map(|(_, rate)| *rate).fold(0.0, f64::max);
        let after: Vec<(Instant, f64)> = rates.into_iter().filter(|(at, _)| *at >= hit).collect();
        let mut slow = after.iter().filter(|(_, rate)| *rate < HEALTHY * healthy);
        let least = after.iter().map(|(_, rate)| *rate).fold(f64::INFINITY, f64::min);
        let Some((first, _)) = slow.next() else { return (None, [healthy, least, healthy]) };
        let last = slow.next_back().map_or(*first, |(at, _)| *at);
        let then: Vec<f64> = after.iter().filter(|(at, _)| *at > last).map(|(_, rate)| *rate).collect();
        // If they never recovered for a while, that is no recovery.
        let recovered = after.last().is_some_and(|(end, _)| end.duration_since(last) >= WINDOW);
        let seconds = if recovered { last.duration_since(*first).as_secs_f64() } else { f64::INFINITY };
        (Some(seconds), [healthy, least, crate::table::median(then)])
    }
}

fn received(agent: &Process) -> u64 {
    agent.traffic("eth0").map_or(0, |(received, _)| received)
}
