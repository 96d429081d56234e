//! How the time of a deployment grows with the number of nodes, with and without failures.

use crate::disk::{DiskPlan, Old};
use crate::image::ImagePlan;
use crate::network::NetworkPlan;
use crate::rng::Rng;
use crate::scenario::{Fault, NodePlan, Scenario, at_ms};
use crate::world::{Outcome, World};
use slidecast_proto::reason::{Then, Verify};
use slidecast_proto::units::Time;
use std::io::Write;
use std::time::{Duration, Instant};

/// The sizes of the table.
pub(crate) const SIZES: [usize; 7] = [1, 2, 8, 32, 100, 1000, 10_000];

/// 1 Gbit/s in bytes per second.
const WIRE: u64 = 125_000_000;

/// A block of the image, in bytes.
const BLOCK: u32 = 1 << 20;

/// What a table is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrowthPlan {
    /// Blocks of 1 MiB in the image, none smaller when packed.
    pub(crate) blocks: u32,
    /// The speed of the server's only card in Mbit/s; nodes have 1000.
    pub(crate) card: u32,
    /// Nodes per hundred that die.
    pub(crate) dying: usize,
    /// Of those that die, so many in a hundred lose their power; the others reset their connections.
    pub(crate) silent: u64,
}

/// Which nodes die, and when: at random moments while blocks flow.
fn deaths(nodes: usize, plan: GrowthPlan, seed: u64) -> Vec<(Time, Fault)> {
    let mut rng = Rng::new(seed, 3);
    let chains = u64::from(plan.card / 1000).clamp(1, 8);
    let span_ms = u64::from(plan.blocks) * u64::from(BLOCK) / (WIRE / 1000) + nodes as u64 * 9 / chains;
    let mut order: Vec<usize> = (0..nodes).collect();
    let mut deaths = Vec::new();
    for _ in 0..nodes * plan.dying / 100 {
        let victim = order.swap_remove(usize::try_from(rng.below(order.len() as u64)).unwrap_or(0));
        let fault = if rng.chance(plan.silent) { Fault::PowerOff(victim, None) } else { Fault::Kill(victim, None) };
        deaths.push((at_ms(100 + rng.below(span_ms)), fault));
    }
    deaths.sort_by_key(|(at, _)| *at);
    deaths
}

/// A deployment of `nodes` equal nodes.
pub(crate) fn scenario(nodes: usize, plan: GrowthPlan, seed: u64) -> Scenario {
    let image = ImagePlan {
        blocks: plan.blocks,
        block: BLOCK,
        per_part: 1024,
        fill_every: 0,
        stored: BLOCK..BLOCK + 1,
        part_bytes: 64 << 10,
        rotten: None,
    };
    let disk = DiskPlan {
        open: Duration::ZERO,
        write_rate: 500_000_000,
        read_rate: 2_000_000_000,
        flush: Duration::from_millis(5),
        rotational: false,
        old: Old::Blank,
        faults: Vec::new(),
    };
    let node = NodePlan {
        card: 0,
        mbits: 1000,
        rate: WIRE,
        latency: Duration::from_micros(50),
        ring: 64 << 20,
        turn: slidecast_proto::run::TURN,
        disk,
        boot: at_ms(0),
    };
    Scenario {
        seed,
        image,
        nodes: vec![node; nodes],
        cards: vec![plan.card],
        server_rate: u64::from(plan.card) * 125_000,
        card_rates: vec![u64::from(plan.card) * 125_000],
        // A hard disk's flush. Each order of a repair waits for one.
        state_write: Duration::from_millis(20),
        wait_for: u32::try_from(nodes).unwrap_or(u32::MAX),
        verify: Verify::Full,
        then: Then::Hold,
        kill: None,
        network: NetworkPlan { window: 1 << 20, unsent: 512 << 10, jitter: Duration::ZERO, pieces: false },
        faults: deaths(nodes, plan, seed),
        limit: at_ms(10_000_000),
        again: false,
        fresh: true,
        slow: None,
        culprit: None,
    }
}

/// With one node in a hundred dying, a deployment may take so many times as long.
const BAR: f64 = 1.10;

/// Runs one cell of the table.
pub(crate) fn measure(nodes: usize, plan: GrowthPlan, seed: u64) -> Outcome {
    World::new(scenario(nodes, plan, seed), false).run()
}

/// Prints the table; gives whether everything held: the invariants, and the bar if no more than one in a hundred died.
pub(crate) fn table(plan: GrowthPlan, sizes: &[usize], seed: u64, out: &mut impl Write) -> std::io::Result<bool> {
    let bytes = f64::from(plan.blocks) / 1024.0;
    writeln!(
        out,
        "{bytes:.1} GiB sent, 1 Gbit/s nodes, server card {} Mbit/s, {} % of the nodes die",
        plan.card, plan.dying
    )?;
    writeln!(
        out,
        "| nodes | chains | T(N), s | T(N)/T(1) | images sent | with deaths: T, s | of the fault-free | dead | images sent |"
    )?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    let image = u64::from(plan.blocks) << 20;
    let (mut first, mut good) = (None, true);
    for nodes in sizes {
        let began = Instant::now();
        let calm = measure(*nodes, GrowthPlan { dying: 0, ..plan }, seed);
        let seconds = |outcome: &Outcome| outcome.took.map_or(f64::NAN, |took| took.as_secs_f64());
        let images = |outcome: &Outcome| outcome.egress as f64 / image as f64 / calm.chains.max(1) as f64;
        let alone = *first.get_or_insert(seconds(&calm));
        write!(
            out,
            "| {nodes} | {} | {:.1} | {:.3} | {:.3} ",
            calm.chains,
            seconds(&calm),
            seconds(&calm) / alone,
            images(&calm)
        )?;
        let mut said = calm.violation.clone();
        if nodes * plan.dying >= 100 {
            let dying = measure(*nodes, plan, seed);
            let ratio = seconds(&dying) / seconds(&calm);
            writeln!(out, "| {:.1} | {ratio:.3} | {} | {:.3} |", seconds(&dying), dying.nodes.1, images(&dying))?;
            said = said.or(dying.violation);
            if plan.dying == 1 && ratio > BAR {
                said = said.or(Some(format!("{ratio:.3} times the fault-free time, which is more than {BAR:.2}")));
            }
        } else {
            writeln!(out, "| | | | |")?;
        }
        if let Some(violation) = said {
            writeln!(out, "{nodes} nodes: {violation}")?;
            good = false;
        }
        out.flush()?;
        let spent = began.elapsed().as_secs_f64();
        if spent > 30.0 {
            writeln!(std::io::stderr(), "({nodes} nodes took {spent:.0} s of real time)")?;
        }
    }
    Ok(good)
}
