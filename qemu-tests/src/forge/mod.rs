//! Forged peers over real sockets: bytes, checksums, keys and proofs are right, what they mean is wrong.
//!
//! Three quarters of the conversations are with a real agent that is pinned to the forger's key ([`before_agent`]), the others are of
//! forged agents with a real server in a deployment that runs ([`in_deployment`]). A seed draws everything; timing is the machine's.

mod before_agent;
mod frames;
mod in_deployment;
mod sample;
mod talk;
mod words;

pub use in_deployment::agents;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::disk::random::{self, Random};
use crate::error::{LabError, Result};
use crate::run::Run;
use crate::{programs, tool};
use sample::Sample;

/// Bytes of the image that an agent before a forged server hears of.
const SMALL: u64 = 2 << 20;
/// Bytes of the image that is deployed while forgers take part.
const LARGE: u64 = 24 << 20;
/// So many failures are told of with everything that was said.
const TOLD: u64 = 10;

/// What is to be played.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many conversations.
    pub runs: u64,
    /// What is drawn.
    pub seed: u64,
    /// How many at once.
    pub jobs: usize,
    /// Nothing more is played after a failure.
    pub until_failure: bool,
}

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    with_agents: AtomicU64,
    with_servers: AtomicU64,
    placed: AtomicU64,
    sessions: AtomicU64,
    failed: AtomicU64,
    stood: Mutex<Duration>,
}

/// Plays them and gives `say` a line for each failure and the total. Gives whether none failed.
///
/// # Errors
/// When the lab cannot do it.
pub fn run(options: Options, say: &(dyn Fn(&str) + Sync)) -> Result<bool> {
    let run = Run::start()?;
    let (small, _) = image(run.dir(), "small", SMALL)?;
    let (large, raw) = image(run.dir(), "large", LARGE)?;
    let sample = Sample::read(&small)?;
    let (counts, begun) = (Counts::default(), Instant::now());
    let next = AtomicU64::new(0);
    let few = options.runs / 4;
    let enough = || options.until_failure && counts.failed.load(Ordering::Relaxed) > 0;
    // Every second worker plays deployments, which wait for links most of the time; the others talk with agents.
    let talk = |worker: usize| -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.runs - few || enough() {
                return Ok(());
            }
            let mut random = Random::new(options.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let wrong = before_agent::play(run.dir(), worker, &sample, &mut random)?;
            counts.with_agents.fetch_add(1, Ordering::Relaxed);
            if let Some(wrong) = wrong {
                tell(&counts, &format!("conversation {number} with an agent: {wrong}"), say);
            }
        }
    };
    let session_seeds = AtomicU64::new(options.seed << 32);
    let deploy = || -> Result<()> {
        while counts.with_servers.load(Ordering::Relaxed) < few && !enough() {
            let left = few.saturating_sub(counts.with_servers.load(Ordering::Relaxed));
            let seed = session_seeds.fetch_add(1, Ordering::Relaxed);
            let session = in_deployment::play(&large, &raw, LARGE, left, seed)?;
            counts.with_servers.fetch_add(session.runs, Ordering::Relaxed);
            counts.placed.fetch_add(session.placed, Ordering::Relaxed);
            counts.sessions.fetch_add(1, Ordering::Relaxed);
            let mut stood = counts.stood.lock().unwrap_or_else(PoisonError::into_inner);
            *stood = stood.max(session.stood);
            drop(stood);
            if !session.wrong.is_empty() {
                tell(&counts, &format!("deployment {seed} ({} runs): {}", session.runs, session.wrong.join("; ")), say);
            }
            if session.runs == 0 {
                return Err(LabError::Unable { why: "the forgers did not come to talk".to_owned() });
            }
        }
        Ok(())
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let (talk, deploy) = (&talk, &deploy);
        let workers: Vec<_> = (0..options.jobs.max(2))
            .map(|worker| scope.spawn(move || if worker % 2 == 0 { talk(worker) } else { deploy() }))
            .collect();
        let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|result| result.unwrap_or_else(|_| Err(LabError::Unable { why: "a worker panicked".to_owned() })))
            .collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let stood = *counts.stood.lock().unwrap_or_else(PoisonError::into_inner);
    say(&format!(
        "{} conversations with agents, {} with servers in {} deployments ({} had a place in the chain), seed {}, {:.0} s; longest stall of an innocent {:.1} s; {} failed",
        of(&counts.with_agents),
        of(&counts.with_servers),
        of(&counts.sessions),
        of(&counts.placed),
        options.seed,
        begun.elapsed().as_secs_f64(),
        stood.as_secs_f64(),
        of(&counts.failed),
    ));
    Ok(of(&counts.failed) == 0)
}

fn tell(counts: &Counts, text: &str, say: &(dyn Fn(&str) + Sync)) {
    if counts.failed.fetch_add(1, Ordering::Relaxed) < TOLD {
        say(text);
    } else {
        say(text.lines().next().unwrap_or_default());
    }
}

/// An image of random bytes whose last eighth is empty, in blocks of 64 KiB or a MiB; the layer and the disk.
fn image(dir: &Path, name: &str, bytes: u64) -> Result<(PathBuf, PathBuf)> {
    let (raw, slide) = (dir.join(format!("{name}.raw")), dir.join(format!("{name}.slide")));
    random::write_file(&raw, bytes - bytes / 8, 11)?;
    let file = fs::File::options().write(true).open(&raw).map_err(LabError::io("opening", &raw))?;
    file.set_len(bytes).map_err(LabError::io("sizing", &raw))?;
    let block = if bytes == SMALL { "64KiB" } else { "1MiB" };
    let args = ["image".as_ref(), "create".as_ref(), raw.as_os_str(), "-o".as_ref(), slide.as_os_str()];
    tool::run(
        &programs::server()?.display().to_string(),
        args.into_iter().chain(["--block-size".as_ref(), block.as_ref()]),
    )?;
    Ok((slide, raw))
}
