//! Progress as lines: one for everything that changes, and every few seconds one for each node at work.

use super::words;
use crate::view::{Facts, NodeView, Snapshot, State};
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::Reason;
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

/// How often a node at work gets a line.
const EVERY: Duration = Duration::from_secs(5);

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Plain {
    states: HashMap<u32, (State, Reason)>,
    planned: bool,
    told: Duration,
}

impl Plain {
    pub(super) fn start(&mut self, facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
        let Facts { image, deployment, wait_for, port, .. } = facts;
        let (disk, raw, stored) = (Bytes(facts.disk_bytes), Bytes(facts.raw_bytes), Bytes(facts.stored_bytes));
        writeln!(out, "{image}: a disk of {disk}, {raw} of it used, {stored} to send; deployment {deployment}")?;
        let at_most = facts.timeout.map_or(String::new(), |span| format!(", for at most {}", words::clock(span)));
        let nodes = words::count(*wait_for as usize, "node");
        writeln!(out, "waiting for {nodes} on port {port}{at_most}")
    }

    pub(super) fn show(&mut self, facts: &Facts, snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
        for node in &snapshot.nodes {
            let waiting = matches!(node.state, State::Preparing | State::Ready | State::Refused);
            if waiting && self.is_new(node) {
                writeln!(out, "{} on {}: {}", node.label(), node.interface, words::standing(node))?;
            }
        }
        let Some(ran) = snapshot.ran else { return Ok(()) };
        // A deployment that goes on has no chains before its nodes are back.
        if !self.planned && !snapshot.chains.is_empty() {
            self.planned = true;
            let (nodes, chains) = (
                snapshot.nodes.iter().filter(|node| node.place.is_some()),
                words::count(snapshot.chains.len(), "chain"),
            );
            writeln!(out, "{} of {} nodes ready; plan, {chains}:", nodes.count(), facts.wait_for)?;
            words::plan(snapshot, out)?;
        }
        let due = ran >= self.told + EVERY;
        if due {
            self.told = ran;
        }
        for node in snapshot.nodes.iter().filter(|node| node.place.is_some()) {
            let new = self.is_new(node);
            if new || (due && matches!(node.state, State::Running(_))) {
                writeln!(out, "{}: {}", node.label(), words::standing(node))?;
            }
        }
        Ok(())
    }

    /// Whether there was a line on how this node stands.
    pub(super) fn said(&self, node: &NodeView) -> bool {
        self.states.get(&node.id) == Some(&(node.state, node.reason))
    }

    fn is_new(&mut self, node: &NodeView) -> bool {
        let now = (node.state, node.reason);
        self.states.insert(node.id, now) != Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{facts, node, snapshot};
    use slidecast_proto::reason::{EndState, Phase};

    fn shown(plain: &mut Plain, snapshot: &Snapshot) -> String {
        let mut out = Vec::new();
        plain.show(&facts(), snapshot, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn everything_that_changes_gets_one_line() {
        let mut plain = Plain::default();
        let waiting = snapshot(None, vec![node(1, State::Preparing)]);
        assert_eq!(shown(&mut plain, &waiting), "node 1 pc1 (10.0.0.1) on eth1: preparing\n");
        assert_eq!(shown(&mut plain, &waiting), "");
        let ready = snapshot(None, vec![node(1, State::Ready)]);
        assert_eq!(shown(&mut plain, &ready), "node 1 pc1 (10.0.0.1) on eth1: ready, /dev/sda (DISK 1 TiB)\n");
    }

    #[test]
    fn the_plan_is_shown_once_and_nodes_at_work_every_few_seconds() {
        let mut plain = Plain::default();
        let at =
            |seconds| snapshot(Some(Duration::from_secs(seconds)), vec![node(1, State::Running(Phase::Receiving))]);
        let text = shown(&mut plain, &at(0));
        assert!(text.contains("chain 1 on eth1: server > node 1 pc1 (10.0.0.1) /dev/sda\n"), "{text}");
        assert!(text.ends_with("node 1 pc1 (10.0.0.1): receiving 50 %, 11.2 MB/s, 0:31 left\n"), "{text}");
        assert_eq!(shown(&mut plain, &at(2)), "");
        assert_eq!(shown(&mut plain, &at(5)).lines().count(), 1);
    }

    #[test]
    fn the_plan_of_a_deployment_that_goes_on_is_shown_when_its_nodes_are_back() {
        let mut plain = Plain::default();
        let mut running = snapshot(Some(Duration::from_secs(1)), vec![node(1, State::Running(Phase::Receiving))]);
        let chains = std::mem::take(&mut running.chains);
        assert!(!shown(&mut plain, &running).contains("plan"));
        running.chains = chains;
        assert!(shown(&mut plain, &running).contains("plan, 1 chain:"));
    }

    #[test]
    fn a_failure_says_which_where_and_why() {
        let mut plain = Plain::default();
        let mut failed = node(1, State::Ended(EndState::Failed));
        (failed.reason, failed.detail) = (Reason::DiskWrite, "writing block 8 on /dev/sda: I/O error".to_owned());
        let text = shown(&mut plain, &snapshot(Some(Duration::from_secs(9)), vec![failed]));
        let line = "node 1 pc1 (10.0.0.1): failed: disk-write: writing block 8 on /dev/sda: I/O error\n";
        assert!(text.ends_with(line), "{text}");
    }
}
