//! Plays one case from the start to the verdict.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use slidecast_proto::frame::HEADER_LEN;

use super::case::{Case, End, Kind, Needs};
use super::disk::FaultyDisk;
use super::judge::{Ended, judge, survivors_took};
use super::misplace::MisplacingDisk;
use super::proxy;
use super::rig::{Rig, Setting, Usual};
use super::strike::{Strike, strike};
use crate::disk::random::Random;
use crate::error::Result;
use crate::net::GOODPUT;
use crate::process::Exit;
use crate::tool;

/// How often a case is tried whose deployment was over before the fault.
const TRIES: u64 = 3;

/// How a case ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// All is as it must be.
    Passed(Measured),
    /// What is not, and what the programs said last.
    Failed {
        /// One line each.
        wrong: Vec<String>,
        /// The ends of the outputs.
        said: String,
    },
    /// It could not be played, and why.
    Skipped(&'static str),
}

/// What a case took.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// How much later the last survivor ended than in a deployment without a fault, less the time that what the server sent
    /// again takes on the line; in seconds.
    pub lost: f64,
    /// What the server sent beyond one image, in bytes.
    pub again: u64,
    /// Whether all struck nodes ended as done.
    pub all_done: bool,
}

/// What this machine can do.
#[derive(Debug, Clone, Copy)]
pub struct Able {
    firewall: bool,
    faulty_disk: bool,
    misplacing_disk: bool,
}

impl Able {
    /// Looks.
    pub fn look() -> Self {
        let rules = proxy::redirect();
        let try_rules = || tool::feed("unshare", ["--net", "nft", "-f", "-"], &rules).is_ok();
        Self {
            firewall: tool::have("nft") && try_rules(),
            faulty_disk: FaultyDisk::can_be(),
            misplacing_disk: MisplacingDisk::can_be(),
        }
    }

    /// Why a kind cannot be played here, if so.
    pub fn lacks(&self, kind: Kind) -> Option<&'static str> {
        match kind.needs() {
            Needs::Firewall if !self.firewall => Some("nftables is not to be had here"),
            Needs::FaultyDisk if !self.faulty_disk => {
                Some("a faulty disk is not to be had here (loop devices, FUSE, QEMU)")
            }
            Needs::MisplacingDisk if !self.misplacing_disk => {
                Some("a disk that misplaces writes is not to be had here (loop devices, FUSE)")
            }
            _ => None,
        }
    }
}

/// Plays `case` with what `seed` draws for it.
///
/// # Errors
/// When the lab itself fails, or the deployment hangs.
pub fn play(case: &Case, seed: u64, able: &Able) -> Result<Outcome> {
    if let Some(why) = able.lacks(case.kind) {
        return Ok(Outcome::Skipped(why));
    }
    let mut random = case.random(seed);
    for number in 0..TRIES {
        let usual = if number == 0 { without_fault } else { without_fault_again };
        if let Some(outcome) = attempt(case, usual, &mut random)? {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Skipped("the deployment was over before the fault, each time"))
}

/// One try; gives nothing if the fault came too late.
fn attempt(case: &Case, usual: fn(Setting) -> Result<Usual>, random: &mut Random) -> Result<Option<Outcome>> {
    let setting = Setting::of(case, random);
    let usual = usual(setting)?;
    let mut rig = Rig::start(setting, Some((case, &usual)), random)?;
    let Strike::Struck(undone) = strike(&mut rig, case, random)? else { return Ok(None) };
    let ended = match finish(&mut rig, case.kind.limit()) {
        Ok(ended) => ended,
        Err(error) => return Ok(Some(Outcome::Failed { wrong: vec![error.to_string()], said: rig.tails() })),
    };
    if case.kind == Kind::Misdirect && !rig.misplacing.as_ref().is_some_and(MisplacingDisk::has_struck) {
        return Ok(None);
    }
    let wrong = judge(&mut rig, case, &ended, undone, &usual)?;
    if !wrong.is_empty() {
        let repairs: Vec<String> = ended.report.repair_log.iter().map(|repair| format!("{repair:?}\n")).collect();
        return Ok(Some(Outcome::Failed { wrong, said: rig.tails() + "--- repairs\n" + &repairs.concat() }));
    }
    let again = ended.report.egress_bytes.saturating_sub(usual.egress);
    let later = match case.kind {
        // The report of the second run begins with that run.
        Kind::Server | Kind::ServerAndNode => ended.wall.as_secs_f64() - usual.wall,
        _ => survivors_took(&rig, &ended) - usual.seconds,
    };
    // What is sent again to one that came back is sent when the others have ended.
    let gap = if matches!(case.kind.end(), End::Failed(_)) { seconds_on_the_line(again, setting.mbits) } else { 0.0 };
    let all_done = ended.exit == Exit::Code(0);
    Ok(Some(Outcome::Passed(Measured { lost: later - gap, again, all_done })))
}

pub(super) fn finish(rig: &mut Rig, limit: Duration) -> Result<Ended> {
    let (exit, report) = rig.deploy.wait(limit)?;
    Ok(Ended { exit, report, wall: rig.planned.elapsed() })
}

#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn seconds_on_the_line(bytes: u64, mbits: u32) -> f64 {
    bytes as f64 * 8.0 / (f64::from(mbits) * 1e6 * GOODPUT)
}

/// What deployments to which nothing happened came to.
static KNOWN: Mutex<BTreeMap<Setting, Usual>> = Mutex::new(BTreeMap::new());

/// What a deployment comes to when nothing happens to it: the quicker of two, measured once in this process. Its bytes are the fewest
/// seen: links that have nothing to say for a while say so, and how often depends on the load of this machine.
pub(super) fn without_fault(setting: Setting) -> Result<Usual> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(usual) = known.get(&setting) {
        return Ok(*usual);
    }
    let (first, second) = (play_without_fault(setting)?, play_without_fault(setting)?);
    let quicker = if first.seconds <= second.seconds { first } else { second };
    let usual = Usual { egress: first.egress.min(second.egress), ..quicker };
    known.insert(setting, usual);
    Ok(usual)
}

/// Measures once more, after a fault that was to strike at the end came too late. A link between two nodes may have said less often
/// than all links of the server that were measured that it has nothing to say, so the end is looked for some frames earlier, too.
fn without_fault_again(setting: Setting) -> Result<Usual> {
    const EARLIER: u64 = 8 * HEADER_LEN as u64;
    let mut usual = without_fault(setting)?;
    usual.egress = usual.egress.min(play_without_fault(setting)?.egress) - EARLIER;
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(setting, usual);
    Ok(usual)
}

fn play_without_fault(setting: Setting) -> Result<Usual> {
    let mut rig = Rig::start(setting, None, &mut Random::new(0))?;
    let ended = finish(&mut rig, Kind::Kill.limit())?;
    let (seconds, wall) = (survivors_took(&rig, &ended), ended.wall.as_secs_f64());
    Ok(Usual { seconds, wall, egress: ended.report.egress_bytes })
}
