//! The end of `deploy`: the last screen, the report, and one line on what went wrong.

use super::front::Screen;
use crate::complain;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::Output;
use crate::service::Closed;
use crate::shown::shown;
use slidecast_proto::deployment::{Deployment, NodeRecord, Stage, Standing};
use slidecast_proto::reason::EndState;

/// Shows how it ended, writes the report and gives the exit code.
pub(super) fn end(screen: Screen, closed: &Closed, report: Option<Output>) -> ExitCode {
    let Screen { progress, turned_away, finished, .. } = screen;
    // The service ends when its only deployment has.
    let Some(mut finished) = finished else { return ExitCode::NodesFailed };
    finished.add_unapproved(closed);
    let code = finished.machine.exit_code().unwrap_or(ExitCode::NodesFailed as u8);
    progress.end(finished.snapshot(), code);
    if let Some(report) = report
        && let Err(error) = report.write(&finished.report().to_text())
    {
        // The nodes are what counts: the exit code stays theirs.
        complain(&Failure::from(error).to_string());
    }
    if let Some(line) = verdict(&finished.machine, turned_away.as_deref()) {
        complain(&line);
    }
    match code {
        0 => ExitCode::Done,
        1 => ExitCode::NotDone,
        _ => ExitCode::NodesFailed,
    }
}

/// What went wrong, in one line. `turned_away` tells of an agent that was not let in.
fn verdict(deployment: &Deployment, turned_away: Option<&str>) -> Option<String> {
    let Stage::Over { started, stopped } = deployment.stage() else { return None };
    let why = deployment.nodes().find_map(|node| match node.standing {
        Standing::Refused { reason, detail } if !started => Some((node, *reason, detail)),
        Standing::Ended(end) if end.state == EndState::Failed => Some((node, end.reason, &end.detail)),
        _ => None,
    });
    let why = why.map(|(node, reason, detail)| format!("{}: {reason}: {}", shown(&node.name()), shown(detail)));
    let why = why.or(turned_away.filter(|_| !started).map(str::to_owned));
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    match (started, stopped) {
        (false, true) => Some("nothing was started: stopped".to_owned()),
        (false, false) => Some(format!("nothing was started: too few nodes were ready in time{why}")),
        (true, stopped) => {
            let placed = || deployment.nodes().filter(|node| node.place.is_some());
            let bad = |node: &NodeRecord<'_>| node.outcome().is_none_or(|end| end.state == EndState::Failed);
            let (all, failed) = (placed().count(), placed().filter(bad).count());
            let stopped = if stopped { "stopped: " } else { "" };
            (failed > 0).then(|| format!("{stopped}{failed} of {all} nodes failed{why}"))
        }
    }
}
