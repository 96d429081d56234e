//! The words in which people are told of nodes, chains and the end.

pub(super) use crate::shown::count;
use crate::view::{NodeView, Snapshot, State};
use slidecast_proto::deployment::Stage;
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::{EndState, Reason};
use std::io::{self, Write};
use std::time::Duration;

/// `0:31`, `12:05`, `1:02:33`.
pub(super) fn clock(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `11.2 MB/s`, counted by 1,000 as links are.
pub(super) fn rate(bytes_per_second: f64) -> String {
    format!("{:.1} MB/s", bytes_per_second / 1e6)
}

/// Where a node stands and what belongs to that.
pub(super) fn standing(node: &NodeView) -> String {
    let mut text = node.state.as_str().to_owned();
    match node.state {
        State::Preparing => {}
        State::Ready => text = format!("ready, {}", target(node)),
        State::Refused | State::Ended(EndState::Failed) => {
            text = format!("{text}: {}", node.reason);
            if !node.detail.is_empty() {
                text = format!("{text}: {}", node.detail);
            }
        }
        State::Running(_) => {
            text = format!("{text} {:.0} %, {}", node.percent, rate(node.rate));
            if let Some(left) = node.left {
                text = format!("{text}, {} left", clock(left));
            }
        }
        State::Ended(_) => {
            if let Some(end) = node.end {
                let (written, kept) = end.blocks;
                let seconds = end.after.as_secs_f64();
                text = format!("{text} after {seconds:.1} s, {written} blocks written, {kept} kept");
                text = format!("{text}, read back: {}", end.verified);
            }
        }
    }
    if !node.connected && matches!(node.state, State::Running(_)) {
        text.push_str(" (its control link is gone)");
    }
    text
}

/// The target with what is known of it.
pub(super) fn target(node: &NodeView) -> String {
    match node.describe.as_str() {
        "" => node.target.clone(),
        // A file has no other name.
        describe if describe.starts_with(&node.target) => describe.to_owned(),
        describe => format!("{} ({describe})", node.target),
    }
}

/// The plan, a line for each chain.
pub(super) fn plan(snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    for (number, chain) in (1..).zip(&snapshot.chains) {
        let label = |id: &u32| {
            let node = snapshot.nodes.iter().find(|node| node.id == *id)?;
            Some(format!("{} {}", node.label(), node.target))
        };
        let nodes: Vec<_> = chain.nodes.iter().filter_map(label).collect();
        writeln!(out, "chain {number} on {}: server > {}", chain.interface, nodes.join(" > "))?;
    }
    Ok(())
}

/// How the deployment ended: of each node that is not done the line that was not said yet, and the sum.
pub(super) fn end(snapshot: &Snapshot, said: impl Fn(&NodeView) -> bool, out: &mut dyn Write) -> io::Result<()> {
    let placed = || snapshot.nodes.iter().filter(|node| node.place.is_some());
    let failed = |node: &&NodeView| !matches!(node.state, State::Ended(EndState::Done | EndState::Written));
    if let Stage::Over { started: false, .. } = snapshot.stage {
        for node in snapshot.nodes.iter().filter(|node| !said(node)) {
            writeln!(out, "{}: {}", node.label(), standing(node))?;
        }
        return writeln!(out, "nothing was started");
    }
    for node in placed().filter(failed).filter(|node| !said(node)) {
        writeln!(out, "{}: {}", node.label(), standing(node))?;
    }
    let (all, bad) = (placed().count(), placed().filter(failed).count());
    let seconds = snapshot.ran.unwrap_or_default().as_secs_f64();
    let word = if placed().any(|node| node.state == State::Ended(EndState::Written)) { "written" } else { "done" };
    let sent = Bytes(snapshot.egress_bytes);
    write!(out, "{} of {all} nodes {word} in {seconds:.1} s, {sent} sent", all - bad)?;
    let strangers = snapshot.nodes.iter().filter(|node| node.reason == Reason::NotApproved).count();
    let were = if strangers == 1 { "was" } else { "were" };
    let failed = if bad > 0 { format!(", {bad} failed") } else { String::new() };
    let strangers =
        if strangers > 0 { format!(", {} {were} not approved", count(strangers, "machine")) } else { String::new() };
    writeln!(out, "{failed}{strangers}")
}
