//! What must hold after a case, whatever happened: looked at from outside, in the report, the exit codes and the disks.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use super::case::{Case, End, Kind, Phase};
use super::rig::{AGED, RING, Rig, SOON, Usual};
use crate::compare::{Compared, compare};
use crate::error::{LabError, Result};
use crate::process::Exit;
use crate::report::{Node as Entry, Report};

/// How long before the others end a node must be able to be heard again, so that it must have come back.
const TO_COME_BACK: f64 = 2.0;
/// What the server may send on top of all that it must: manifests, headers, what was on its way when a link broke.
const SLACK: u64 = 4 << 20;

/// What a deployment came to.
#[derive(Debug)]
pub(super) struct Ended {
    /// How `deploy` ended.
    pub exit: Exit,
    /// Its report.
    pub report: Report,
    /// From the plan to the end of the command, as seen from outside.
    pub wall: Duration,
}

/// Gives everything that is not as it must be, in words. `undone` is when the fault was over, if it was.
///
/// # Errors
/// When something cannot be looked at.
pub(super) fn judge(
    rig: &mut Rig,
    case: &Case,
    ended: &Ended,
    undone: Option<Duration>,
    usual: &Usual,
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let report = &ended.report;
    // Whoever says hello is a node to the server, and stands in its report; what becomes of a stranger is all the same.
    let is_ours = |node: &&Entry| rig.stranger.as_ref().is_none_or(|stranger| stranger.address != node.address);
    let code = if report.nodes.iter().filter(is_ours).all(|node| node.state == "done") { 0 } else { 3 };
    let counts_strangers = ended.exit == Exit::Code(3) && report.nodes.iter().any(|node| !is_ours(&node));
    if ended.exit != Exit::Code(code) && !counts_strangers {
        wrong.push(format!("deploy ended with {:?} instead of code {code}", ended.exit));
    }
    // An agent that is started again as the last of the others ends comes to a deployment that is over, as one more node.
    let struck: Vec<&str> = rig.nodes[rig.struck.clone()].iter().map(|node| node.address.as_str()).collect();
    let is_too_late = |node: &&Entry| {
        case.phase == Phase::Finishing && node.reason == "joined-too-late" && struck.contains(&node.address.as_str())
    };
    let ours = report.nodes.iter().filter(|node| is_ours(node) && !is_too_late(node)).count();
    if ours != rig.nodes.len() {
        wrong.push(format!("{ours} nodes are in the report instead of {}", rig.nodes.len()));
    }
    // Else head, middle and tail would be other nodes than those that were struck.
    let planned: Vec<&str> =
        report.chains.iter().flat_map(|chain| &chain.nodes).filter(is_ours).map(|node| node.address.as_str()).collect();
    if planned != rig.nodes.iter().map(|node| node.address.as_str()).collect::<Vec<_>>() {
        wrong.push(format!("the chain is {planned:?}"));
    }
    let must_be_back = undone.is_some_and(|at| at.as_secs_f64() + TO_COME_BACK < survivors_took(rig, ended));
    // What lacks may come in the moment between two strikes.
    let may_be_done = match case.phase {
        Phase::Finishing => true,
        Phase::Late => case.kind == Kind::OneAfterAnother,
        _ => false,
    };
    for at in 0..rig.nodes.len() {
        let name = rig.nodes[at].name.clone();
        let Some(entry) = report.node(&rig.nodes[at].address) else {
            wrong.push(format!("{name} is not in the report"));
            continue;
        };
        let wraps = matches!(case.kind, Kind::Wrap | Kind::WrapOdd) && rig.struck.contains(&at);
        wrong.extend(entry_and_disk(rig, wraps, at, entry)?.into_iter().map(|text| format!("{name} {text}")));
        let struck = rig.struck.contains(&at);
        let end = if struck { case.kind.end() } else { End::Done };
        if !is_right(end, may_be_done, entry, must_be_back) {
            let who = if struck { "struck" } else { "a survivor" };
            let (state, reason, detail) = (&entry.state, &entry.reason, &entry.detail);
            wrong.push(format!("{name}, {who}, ended as {state}, {reason}: {detail}"));
        }
        if !struck {
            let exit = rig.agents[at].wait_exit(SOON)?;
            if exit != Exit::Code(0) {
                wrong.push(format!("{name}'s agent ended with {exit:?}"));
            }
        }
    }
    wrong.extend(too_late(case, survivors_took(rig, ended) - usual.seconds));
    wrong.extend(culprits(rig, case, report));
    let most = most_egress(case, report);
    if report.egress_bytes > most {
        wrong.push(format!("the server sent {} bytes, more than {most}", report.egress_bytes));
    }
    Ok(wrong)
}

fn too_late(case: &Case, later: f64) -> Option<String> {
    let most = case.kind.patience()?;
    (later > most).then(|| format!("the survivors ended {later:.1} s later than usual, more than {most} s"))
}

/// Whoever damages all it sends is named in the report, if it had the time for it, and nobody else ever is.
fn culprits(rig: &Rig, case: &Case, report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    let named = |entry: &Entry| is_named(report, entry);
    for (at, node) in rig.nodes.iter().enumerate() {
        let Some(entry) = report.node(&node.address) else { continue };
        let sends_damage = case.kind.is_corrupting() && rig.struck.contains(&at);
        let had_time = !matches!(case.phase, Phase::Late | Phase::Finishing);
        if sends_damage && had_time && !named(entry) {
            wrong
                .push(format!("{} damages all it sends, and the report does not name it: {}", node.name, entry.detail));
        }
        // A node whose cable damages what comes can't be told from an upstream that damages what it sends.
        if !sends_damage && case.kind != Kind::Garble && named(entry) {
            wrong.push(format!("{} is named for what it did not do: {}", node.name, entry.detail));
        }
    }
    wrong
}

/// Whether the report names a node as one that damages what it sends.
pub(super) fn is_named(report: &Report, entry: &Entry) -> bool {
    report.repair_log.iter().any(|repair| repair.kind == "corrupting" && repair.node == entry.id)
}

/// When the last node that was not struck ended, in seconds after the plan was fixed.
pub(super) fn survivors_took(rig: &Rig, ended: &Ended) -> f64 {
    let survivors = rig.nodes.iter().enumerate().filter(|(at, _)| !rig.struck.contains(at));
    let entries = survivors.filter_map(|(_, node)| ended.report.node(&node.address));
    entries.map(|entry| entry.seconds).fold(0.0, f64::max)
}

/// Whether a node's entry agrees with itself and with its disk.
pub(super) fn entry_and_disk(rig: &Rig, wraps: bool, at: usize, entry: &Entry) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let file = &rig.nodes[at].target.file;
    let compared = compare(file, &rig.image.raw)?;
    let whole = compared == Compared::Equal(rig.setting.bytes);
    match entry.state.as_str() {
        "done" => {
            if !whole {
                wrong.push(format!("is done, and its disk {compared}"));
            }
            if entry.reason != "none" {
                wrong.push(format!("is done with the reason {}", entry.reason));
            }
        }
        "failed" => {
            if entry.reason == "none" || entry.detail.is_empty() {
                wrong.push(format!("failed without a reason: {entry:?}"));
            }
            let before = if rig.setting.old { [AGED; 8] } else { [0; 8] };
            let mut head = [0; 8];
            let mut disk = File::open(file).map_err(LabError::io("opening", file))?;
            disk.read_exact(&mut head).map_err(LabError::io("reading", file))?;
            // On a disk that wraps anything may land at the front; what stands there then is not for us to say.
            if !wraps && head != *b"SLIDEMRK" && head != before && !whole {
                wrong.push(format!("failed, and its disk is neither untouched nor marked nor whole: {head:02x?}"));
            }
        }
        other => wrong.push(format!("ended as {other}")),
    }
    Ok(wrong)
}

/// Whether a node ended as it should have.
fn is_right(end: End, may_be_done: bool, entry: &Entry, must_be_back: bool) -> bool {
    let failed = |reasons: &[&str]| entry.state == "failed" && reasons.contains(&entry.reason.as_str());
    let done = entry.state == "done";
    match end {
        End::Done => done,
        End::Back => done || (!must_be_back && failed(&["node-lost"])),
        // It may have ended before it was struck; but not with blocks that lacked.
        End::Failed(reasons) => failed(reasons) || (done && may_be_done),
        End::Either(reasons) => done || failed(reasons),
    }
}

/// The most that the server may have sent: an image; what a struck node lacks that came back, once for all of them; and for
/// each node that was lost what was in the rings around it.
fn most_egress(case: &Case, report: &Report) -> u64 {
    let image = report.stored_bytes;
    let struck = case.kind.nodes().1 as u64;
    let again = match case.kind {
        // Both runs count, and what the first one sent in its last second may come again.
        Kind::Server | Kind::ServerAndNode => 2 * image,
        // Every block is read back wrong once, and comes again.
        Kind::WrapOdd => image + RING,
        // What those behind it lack while nobody knows yet whose fault it is comes once more, and once more behind somebody else.
        Kind::GarbleOut | Kind::GarbleOwn | Kind::StuckTail | Kind::Mute | Kind::FalseBreak => 2 * image,
        _ => match case.kind.end() {
            End::Failed(_) => struck * RING,
            _ => image,
        },
    };
    image + again + SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: &str, reason: &str) -> Entry {
        let entry = serde_json::json!({
            "id": 1, "address": "10.77.0.10", "target": "/dev/x", "state": state, "reason": reason, "detail": "", "seconds": 1.0,
            "verified": "no", "blocks_written": 0, "blocks_kept": 0, "repairs": 0, "moved": false, "late": false, "returned": 0,
        });
        serde_json::from_value(entry).unwrap()
    }

    #[test]
    fn who_could_have_come_back_must_have_and_who_could_not_may_be_lost() {
        let back = |entry: &Entry, must| is_right(End::Back, false, entry, must);
        assert!(back(&entry("failed", "node-lost"), false));
        assert!(!back(&entry("failed", "node-lost"), true));
        assert!(!back(&entry("failed", "internal"), false));
        assert!(back(&entry("done", "none"), true));
    }

    #[test]
    fn a_failure_for_another_reason_is_wrong() {
        let failed = End::Failed(&["disk-flush"]);
        assert!(is_right(failed, false, &entry("failed", "disk-flush"), false));
        assert!(!is_right(failed, false, &entry("failed", "timed-out"), false));
        assert!(!is_right(End::Done, false, &entry("failed", "node-lost"), false));
        assert!(!is_right(End::Done, false, &entry("written", "none"), false));
    }

    #[test]
    fn a_node_that_was_struck_before_it_had_everything_cannot_be_done() {
        let lost = End::Failed(&["node-lost"]);
        assert!(is_right(lost, true, &entry("done", "none"), false));
        assert!(!is_right(lost, false, &entry("done", "none"), false));
    }
}
