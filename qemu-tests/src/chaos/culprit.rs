//! The figure of one broken machine: a chain of six nodes, of which one damages all that it sends; what that costs the other five, at
//! each position of the chain.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::judge::{self, Ended, survivors_took};
use super::play::{Able, finish, without_fault};
use super::rig::{Rig, SOON, Setting, Usual, damage_all};
use super::{Kind, proxy};
use crate::error::{LabError, Result};
use crate::process::Exit;

/// Long enough for a second not to count much: 14 s without a fault.
const SETTING: Setting = Setting { nodes: 6, mbits: 40, old: false, bytes: 64 << 20 };
/// How many thousandths of its disk the node has written when it begins, unless it does with its first byte.
const BEGINS: u64 = 200;
/// The most images that the server may send.
const MOST_IMAGES: f64 = 3.0;
/// The most that it may take, as a multiple of what it takes without a fault.
const MOST_TIME: f64 = 1.5;

/// One deployment: which node, and what of that which it sends is damaged.
#[derive(Debug, Clone, Copy)]
struct Trial {
    culprit: usize,
    up: bool,
    at_once: bool,
}

/// What came of it.
#[derive(Debug)]
struct Came {
    trial: Trial,
    wrong: Vec<String>,
    culprit_ended: String,
    images: f64,
    times: f64,
}

/// Plays every position, `jobs` at once, and gives `say` a line for each and then a table. Gives whether all is as it must be.
///
/// # Errors
/// When this machine lacks what it takes, or the lab fails.
pub fn culprit(jobs: usize, say: &(dyn Fn(&str) + Sync)) -> Result<bool> {
    if let Some(why) = Able::look().lacks(Kind::GarbleOut) {
        return Err(LabError::Unable { why: why.to_owned() });
    }
    let usual = without_fault(SETTING)?;
    say(&format!("without a fault: {:.1} s, {} bytes sent", usual.seconds, usual.egress));
    let of = |culprit| {
        [(false, false), (false, true), (true, false), (true, true)].map(|(up, at_once)| (culprit, up, at_once))
    };
    // A tail sends nothing down.
    let all = (0..SETTING.nodes).flat_map(of).filter(|(culprit, up, _)| *up || culprit + 1 < SETTING.nodes);
    let todo = Mutex::new(all.map(|(culprit, up, at_once)| Trial { culprit, up, at_once }));
    let done: Mutex<Vec<Result<Came>>> = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(trial) = next else { return };
            let came = play(trial, &usual);
            say(&came.as_ref().map_or_else(ToString::to_string, Came::line));
            done.lock().unwrap_or_else(PoisonError::into_inner).push(came);
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let came: Vec<Came> = done.into_iter().collect::<Result<_>>()?;
    say(&table(&came));
    Ok(came.iter().all(|came| came.wrong.is_empty()))
}

fn play(trial: Trial, usual: &Usual) -> Result<Came> {
    let Trial { culprit, up, at_once } = trial;
    let mut rig = Rig::start_with(SETTING, culprit..culprit + 1, |lab, node| damage_all(lab, node, up, at_once))?;
    if !at_once {
        rig.wait_until_written(BEGINS)?;
        rig.tell_proxy();
    }
    let ended = finish(&mut rig, Kind::GarbleOut.limit())?;
    let mut wrong = judge(&mut rig, &ended, culprit)?;
    let entry = ended.report.node(&rig.nodes[culprit].address);
    let culprit_ended = entry.map_or("missing".to_owned(), |entry| match entry.state.as_str() {
        "done" => "done".to_owned(),
        state => format!("{state}: {}", entry.reason),
    });
    let images = ratio(ended.report.egress_bytes, ended.report.stored_bytes);
    let times = survivors_took(&rig, &ended) / usual.seconds;
    if images > MOST_IMAGES {
        wrong.push(format!("the server sent {images:.2} images, more than {MOST_IMAGES}"));
    }
    if times > MOST_TIME {
        wrong.push(format!("the others took {times:.2} times as long as without a fault, more than {MOST_TIME}"));
    }
    if !rig.proxy_said(proxy::STRUCK) {
        wrong.push("nothing was damaged".to_owned());
    }
    if !wrong.is_empty() {
        let repairs = ended.report.repair_log.iter().map(|repair| format!("{repair:?}"));
        wrong.extend(repairs.chain([rig.tails()]));
    }
    Ok(Came { trial, wrong, culprit_ended, images, times })
}

/// What is not as it must be: the others are done with the right disks, the culprit is named and nobody else.
fn judge(rig: &mut Rig, ended: &Ended, culprit: usize) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for at in 0..rig.nodes.len() {
        let name = rig.nodes[at].name.clone();
        let Some(entry) = ended.report.node(&rig.nodes[at].address) else {
            wrong.push(format!("{name} is not in the report"));
            continue;
        };
        wrong.extend(judge::entry_and_disk(rig, false, at, entry)?.into_iter().map(|text| format!("{name} {text}")));
        if judge::is_named(&ended.report, entry) != (at == culprit) {
            wrong.push(format!(
                "{name} is {} as the one that corrupts",
                if at == culprit { "not named" } else { "named" }
            ));
        }
        if at != culprit {
            if entry.state != "done" {
                wrong.push(format!("{name} ended as {}, {}: {}", entry.state, entry.reason, entry.detail));
            }
            let exit = rig.agents[at].wait_exit(SOON)?;
            if exit != Exit::Code(0) {
                wrong.push(format!("{name}'s agent ended with {exit:?}"));
            }
        }
    }
    Ok(wrong)
}

#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

impl Trial {
    fn what(self) -> &'static str {
        match (self.up, self.at_once) {
            (false, false) => "down, from a fifth on",
            (false, true) => "down, from the first byte on",
            (true, false) => "down and up, from a fifth on",
            (true, true) => "down and up, from the first byte on",
        }
    }
}

impl Came {
    fn line(&self) -> String {
        let Self { trial, wrong, culprit_ended, images, times } = self;
        let place = trial.culprit + 1;
        let verdict = if wrong.is_empty() { "ok" } else { "FAILED" };
        let what = trial.what();
        let wrong: String = wrong.iter().map(|text| format!("\n    {text}")).collect();
        format!("node {place}, {what:<36} {verdict:<6} {times:.2} times, {images:.2} images, {culprit_ended}{wrong}")
    }
}

/// Positions by what is damaged: the time as a multiple, the images sent, what became of the node.
fn table(came: &[Came]) -> String {
    let mut text =
        "\n| what it sends damaged | position | the other five | named | time | images sent | itself |\n".to_owned();
    text.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    let mut rows: Vec<&Came> = came.iter().collect();
    rows.sort_by_key(|came| (came.trial.up, came.trial.at_once, came.trial.culprit));
    for came in rows {
        let Came { trial, wrong, culprit_ended, images, times } = came;
        let (what, place) = (trial.what(), trial.culprit + 1);
        let (others, named) = if wrong.is_empty() { ("done", "it alone") } else { ("see above", "see above") };
        let _ =
            writeln!(text, "| {what} | {place} | {others} | {named} | {times:.2} | {images:.2} | {culprit_ended} |");
    }
    text
}
