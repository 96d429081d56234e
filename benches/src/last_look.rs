//! What the last look costs: the time between the last read-back and the head, as a share of the deployment. The agent measures
//! it, so that both come from the same run.

use slidecast_lab::{LabError, Process, Result, TargetKind};

use crate::setup::{Bench, Setup, fits};
use crate::table::{Bar, Table, mib};

const MBITS: u32 = 1000;
/// The share that is allowed.
const MOST: f64 = 0.03;
/// What the agent says of it.
const SAID: &str = "the last look at ";

/// Runs the figures.
///
/// # Errors
/// When a deployment fails, or an agent does not say how long it looked.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let image = setup.random_image()?;
    table.group(
        "Random bytes on links of 1 Gbit/s, read back; the last look as a share of the time from the plan to the end",
        "slidecast deploy random.slide --wait-for N [--verify twice] | slidecast-agent --target DISK --once",
    );
    let loops = TargetKind::Loop { sector: 512 };
    let ram = TargetKind::FilledRam;
    let cases: [(&str, usize, TargetKind, &[&str], Bar); 4] = [
        ("a loop device", 1, loops, &[], Bar::AtMost(MOST)),
        ("a file in memory", 1, ram, &[], Bar::AtMost(MOST)),
        ("a file in memory", 4, ram, &[], Bar::AtMost(MOST)),
        ("a loop device, --verify twice", 1, loops, &["--verify", "twice"], Bar::Report),
    ];
    for (disk, count, kind, args, bar) in cases {
        let name = format!("N={count}, {disk}");
        if kind == ram && !fits(image.disk_bytes * count as u64) {
            table.skip(&name, "too little memory for the disks");
            continue;
        }
        let bench = Bench::with_disks(count, Some(MBITS), image.disk_bytes, kind)?;
        let (report, agents) = bench.deploy_and_hear(&image, args)?;
        let looks = agents.iter().map(seconds).collect::<Result<Vec<f64>>>()?;
        let longest = looks.into_iter().fold(0.0, f64::max);
        let blocks = report.nodes.iter().map(|node| node.last_look_blocks).max().unwrap_or(0);
        let of = mib(report.raw_bytes);
        let from = format!("{longest:.3} s of {:.2} s for {of:.0} MiB; {blocks} blocks looked at", report.seconds);
        table.row(&name, longest / report.seconds, bar, &from);
    }
    Ok(())
}

/// How long an agent looked.
fn seconds(agent: &Process) -> Result<f64> {
    let said = agent.said();
    let line = said.lines().find(|line| line.contains(SAID) && line.ends_with(" s"));
    let words: Option<Vec<&str>> = line.map(|line| line.split_whitespace().rev().take(2).collect());
    let found = words.and_then(|words| words.get(1)?.parse().ok());
    found.ok_or_else(|| LabError::Ended {
        what: "an agent that does not say how long it looked".into(),
        tail: agent.tail(),
    })
}
