//! The ledger: what each node has, how fast it is, and what it waits for, as its reports say; and what was seen of the pace of each
//! chain.

mod meter;

pub(super) use meter::{MIN_REPORT_SPAN, MIN_WAIT_SHARE, Meter, NOTHING, Pace, WINDOW};

use super::slow::Paces;
use crate::control::Progress;
use crate::reason::Phase;
use crate::set::BlockSet;
use crate::units::{BlockNo, NodeId, Time};
use core::time::Duration;
use std::collections::BTreeMap;

/// All accounts.
#[derive(Debug)]
pub(super) struct Ledger {
    blocks: u32,
    accounts: BTreeMap<NodeId, Account>,
    paces: BTreeMap<usize, Paces>,
}

/// What is known of one node from its reports.
#[derive(Debug)]
pub(super) struct Account {
    /// The last report.
    pub(super) progress: Option<Progress>,
    /// The blocks that it says are durable.
    pub(super) durable: BlockSet,
    /// When something last moved on it, or was not to be expected to.
    pub(super) moved_on: Time,
    /// It was given more time since something last moved on it.
    had_more_time: bool,
    /// Its last report, or when it was first expected to report.
    pub(super) reported: Time,
    pub(super) meter: Meter,
}

impl Ledger {
    pub(super) fn new(blocks: u32) -> Self {
        Self { blocks, accounts: BTreeMap::new(), paces: BTreeMap::new() }
    }

    /// A node is new.
    pub(super) fn open(&mut self, id: NodeId, now: Time) {
        let durable = BlockSet::empty(self.blocks);
        let meter = Meter::default();
        let account = Account { progress: None, durable, moved_on: now, had_more_time: false, reported: now, meter };
        self.accounts.insert(id, account);
    }

    /// The node's record is no more.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.accounts.remove(&id);
    }

    pub(super) fn account(&self, id: NodeId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// Changes what is known of a node, if there is such a node.
    pub(super) fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(&id) {
            change(account);
        }
    }

    /// The time that a node has for its next step begins now.
    pub(super) fn restart_stall_clock(&mut self, id: NodeId, now: Time) {
        self.change(id, |account| account.moved_on = now);
    }

    /// The node was moved: the time for its next step begins now, unless nothing has moved on it since that was done before. With more
    /// time at each move, nodes that take nothing would go from place to place and never be given up.
    pub(super) fn restart_stall_clock_once(&mut self, id: NodeId, now: Time) {
        self.change(id, |account| {
            if !core::mem::replace(&mut account.had_more_time, true) {
                account.moved_on = now;
            }
        });
    }

    /// What is remembered of the pace of a chain.
    pub(super) fn paces(&self, chain: usize) -> Option<&Paces> {
        self.paces.get(&chain)
    }

    pub(super) fn paces_mut(&mut self, chain: usize) -> &mut Paces {
        self.paces.entry(chain).or_default()
    }

    /// Nothing that was due while the server stood still counts against a node.
    pub(super) fn forgive(&mut self, pause: Duration, now: Time) {
        for account in self.accounts.values_mut() {
            account.reported = now;
            account.moved_on = account.moved_on.after(pause);
        }
    }
}

impl Account {
    /// Takes in a report.
    pub(super) fn on_report(&mut self, progress: Progress, now: Time) {
        // Bytes sent are no sign: heartbeats are among them.
        let mark = |p: &Progress| (p.accepted, p.durable, p.verified, p.written_bytes, p.phase);
        let moved = self.progress.as_ref().is_none_or(|old| mark(old) != mark(&progress));
        if moved || progress.phase == Phase::Ended {
            self.moved_on = now;
            self.had_more_time = false;
        }
        for (start, end) in &progress.durable_new {
            for block in *start..(*end).min(self.durable.universe()) {
                self.durable.insert(BlockNo(block));
            }
        }
        if progress.durable < self.durable.count() {
            // A block was read back wrong after it was told of. Which one it was the node says to its upstream.
            self.durable = BlockSet::empty(self.durable.universe());
        }
        self.reported = now;
        self.meter.take(&progress, now);
        self.progress = Some(progress);
    }

    /// The node lost its state: it has nothing.
    pub(super) fn clear(&mut self) {
        self.durable = BlockSet::empty(self.durable.universe());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{DeploymentId, Epoch};

    fn report(durable: u32, durable_new: Vec<(u32, u32)>) -> Progress {
        Progress {
            deployment: DeploymentId([5; 16]),
            epoch: Epoch(1),
            phase: Phase::Receiving,
            accepted: durable,
            durable,
            verified: 0,
            received_bytes: 0,
            sent_bytes: 0,
            written_bytes: 0,
            wait_upstream_ms: 0,
            wait_downstream_ms: 0,
            wait_disk_ms: 0,
            pass_ended: 0,
            durable_new,
        }
    }

    #[test]
    fn a_report_that_takes_blocks_back_leaves_none_of_which_it_is_known_that_they_are_durable() {
        let mut ledger = Ledger::new(8);
        ledger.open(NodeId(1), Time(0));
        ledger.change(NodeId(1), |account| account.on_report(report(4, vec![(0, 4)]), Time(1)));
        assert_eq!(ledger.account(NodeId(1)).unwrap().durable.count(), 4);
        ledger.change(NodeId(1), |account| account.on_report(report(3, Vec::new()), Time(2)));
        let account = ledger.account(NodeId(1)).unwrap();
        assert_eq!((account.durable.count(), account.moved_on), (0, Time(2)));
    }

    #[test]
    fn a_report_in_which_nothing_moved_does_not_restart_the_stall_clock() {
        let mut ledger = Ledger::new(8);
        ledger.open(NodeId(1), Time(0));
        for at in [1, 2] {
            ledger.change(NodeId(1), |account| account.on_report(report(0, Vec::new()), Time(at)));
        }
        let account = ledger.account(NodeId(1)).unwrap();
        assert_eq!((account.moved_on, account.reported), (Time(1), Time(2)));
    }
}
