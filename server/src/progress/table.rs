//! Progress on a terminal: a table that is drawn over itself.

use super::words;
use crate::view::{Facts, NodeView, Snapshot, State};
use slidecast_proto::deployment::Stage;
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::EndState;
use std::io::{self, Write};

/// To the first column, and clear from there to the end of the screen.
const CLEAR: &str = "\r\x1b[J";

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Lines drawn, all of them above the cursor.
    lines: usize,
}

const HEADINGS: [&str; 8] = ["node", "address", "name", "on", "chain", "target", "state", "left"];

impl Table {
    /// Takes the table away.
    fn erase(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.lines > 0 {
            write!(out, "\x1b[{}A", self.lines)?;
        }
        self.lines = 0;
        write!(out, "{CLEAR}")
    }

    /// A line that stays, above the table. The table comes back with the next [`Self::show`].
    pub(super) fn line(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        self.erase(out)?;
        writeln!(out, "{text}")
    }

    pub(super) fn show(
        &mut self,
        facts: &Facts,
        snapshot: &Snapshot,
        (columns, rows): (usize, usize),
        out: &mut dyn Write,
    ) -> io::Result<()> {
        self.erase(out)?;
        for line in lines(facts, snapshot, rows) {
            let cut: String = line.chars().take(columns.saturating_sub(1)).collect();
            writeln!(out, "{}", cut.trim_end())?;
            self.lines += 1;
        }
        Ok(())
    }
}

fn lines(facts: &Facts, snapshot: &Snapshot, rows: usize) -> Vec<String> {
    let mut lines = vec![
        format!("{}  {} disk, {} to send", facts.image, Bytes(facts.disk_bytes), Bytes(facts.stored_bytes)),
        headline(facts, snapshot),
    ];
    let mut nodes: Vec<_> = snapshot.nodes.iter().collect();
    let room = rows.saturating_sub(lines.len() + 3).max(1);
    let hidden = nodes.len().saturating_sub(room);
    if hidden > 0 {
        // What needs looking at first: what failed, then what is furthest behind.
        nodes.sort_by(|a, b| urgency(a).total_cmp(&urgency(b)));
        nodes.truncate(room);
    }
    nodes.sort_by_key(|node| (node.place.is_none(), node.place, node.expected.is_none(), node.expected, node.id));
    let mut cells = vec![HEADINGS.map(str::to_owned)];
    cells.extend(nodes.into_iter().map(row));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; HEADINGS.len()] = std::array::from_fn(width);
    for row in &cells {
        let padded: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        lines.push(padded.join("  "));
    }
    if hidden > 0 {
        lines.push(format!("and {hidden} more"));
    }
    lines
}

fn headline(facts: &Facts, snapshot: &Snapshot) -> String {
    let unapproved =
        if snapshot.unapproved > 0 { format!(", {} not approved", snapshot.unapproved) } else { String::new() };
    format!("{}{unapproved}", how_far(facts, snapshot))
}

fn how_far(facts: &Facts, snapshot: &Snapshot) -> String {
    let count = |wanted: fn(&State) -> bool| snapshot.nodes.iter().filter(|node| wanted(&node.state)).count();
    match (snapshot.stage, snapshot.ran) {
        (Stage::Waiting, _) => {
            let ready = count(|state| *state == State::Ready);
            let left = facts.timeout.map(|timeout| words::clock(timeout.saturating_sub(snapshot.waited)));
            let left = left.map_or(String::new(), |left| format!(", {left} left"));
            format!("waiting on port {}: {ready} of {} nodes ready{left}", facts.port, facts.wait_for)
        }
        (_, Some(ran)) => {
            let good = count(|state| matches!(state, State::Ended(EndState::Done | EndState::Written)));
            let bad = count(|state| *state == State::Ended(EndState::Failed));
            let all = snapshot.nodes.iter().filter(|node| node.place.is_some()).count();
            let failed = if bad > 0 { format!(", {bad} failed") } else { String::new() };
            let (chains, sent) = (words::count(snapshot.chains.len(), "chain"), Bytes(snapshot.egress_bytes));
            format!("{}  {chains}, {sent} sent, {good} of {all} nodes finished{failed}", words::clock(ran))
        }
        (_, None) => "nothing was started".to_owned(),
    }
}

fn urgency(node: &NodeView) -> f64 {
    match node.state {
        State::Ended(EndState::Failed) | State::Refused => -1.0,
        State::Ended(_) => 200.0,
        _ => node.percent,
    }
}

fn row(node: &NodeView) -> [String; HEADINGS.len()] {
    let state = match node.state {
        State::Running(_) => format!("{} {:3.0} %  {}", node.state.as_str(), node.percent, words::rate(node.rate)),
        State::Refused | State::Ended(EndState::Failed) => {
            format!("{}: {}: {}", node.state.as_str(), node.reason, node.detail)
        }
        _ => node.state.as_str().to_owned(),
    };
    let target = if node.place.is_some() { node.target.clone() } else { words::target(node) };
    [
        node.id.to_string(),
        node.address.to_string(),
        node.name.clone(),
        node.interface.clone(),
        node.place.or(node.expected).map_or(String::new(), |(chain, position)| format!("{chain}.{position}")),
        target,
        state,
        node.left.map_or(String::new(), words::clock),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{facts, node, snapshot};
    use slidecast_proto::reason::Phase;
    use std::time::Duration;

    fn drawn(table: &mut Table, snapshot: &Snapshot, size: (usize, usize)) -> String {
        let mut out = Vec::new();
        table.show(&facts(), snapshot, size, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_waiting_screen_says_who_is_there_with_which_disk() {
        let text = drawn(&mut Table::default(), &snapshot(None, vec![node(1, State::Ready)]), (120, 40));
        assert!(text.contains("waiting on port 7531: 1 of 2 nodes ready, 4:50 left"), "{text}");
        assert!(text.contains("10.0.0.1  pc1   eth1  1.1 "), "{text}");
        assert!(text.contains("/dev/sda (DISK 1 TiB)"), "{text}");
        let strangers = Snapshot { unapproved: 3, ..snapshot(None, vec![node(1, State::Ready)]) };
        let text = drawn(&mut Table::default(), &strangers, (120, 40));
        assert!(text.contains("1 of 2 nodes ready, 4:50 left, 3 not approved"), "{text}");
    }

    #[test]
    fn a_node_at_work_has_its_place_rate_percent_and_time_left() {
        let running = snapshot(Some(Duration::from_secs(75)), vec![node(1, State::Running(Phase::Receiving))]);
        let text = drawn(&mut Table::default(), &running, (120, 40));
        assert!(text.contains("1:15  1 chain,"), "{text}");
        assert!(text.contains("1.1    /dev/sda  receiving  50 %  11.2 MB/s  0:31"), "{text}");
    }

    #[test]
    fn a_redraw_goes_back_over_all_its_lines_and_no_line_is_too_long() {
        let mut table = Table::default();
        let one = snapshot(None, vec![node(1, State::Ready)]);
        let first = drawn(&mut table, &one, (30, 40));
        assert!(first.lines().all(|line| line.trim_start_matches(CLEAR).chars().count() < 30), "{first}");
        assert!(drawn(&mut table, &one, (30, 40)).starts_with("\x1b[4A\r\x1b[J"));
    }

    #[test]
    fn more_nodes_than_rows_show_those_that_need_looking_at() {
        let mut nodes: Vec<_> = (1..=50).map(|id| node(id, State::Running(Phase::Receiving))).collect();
        nodes[30].state = State::Ended(EndState::Failed);
        let mut table = Table::default();
        let text = drawn(&mut table, &snapshot(Some(Duration::ZERO), nodes), (120, 12));
        assert!(table.lines <= 11, "{text}");
        assert!(text.contains("\n31 ") && text.contains("and 43 more"), "{text}");
    }
}
