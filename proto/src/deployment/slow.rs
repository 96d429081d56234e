//! Slow nodes: who paces the chain although the others could do more, and why.
//!
//! A chain goes at the pace of its slowest part, and that part shows: above it rings are full, below it they are empty. A node
//! whose ring is full because of its disk has a slow disk. Where a full ring meets an empty one, the link between the two is
//! slow. What is that slow for 10 s, at less than [`SLOW_RATIO`] times what the chain could do without it, is moved behind
//! the tail, once, where it holds nobody up. One that takes nothing is moved again in a pass of those that were moved.
//!
//! A chain that compares has no pace; there the first node that gets nothing although it waits for its upstream is moved.
//!
//! What its neighbours see of a node outweighs what it says of itself: it received nothing if its upstream sent it nothing, and
//! one that reports nothing is slow whatever it does.

use super::ledger::{MIN_REPORT_SPAN, MIN_WAIT_SHARE, NOTHING, Pace, WINDOW};
use super::repairs::Entry;
use super::topology::{Phase, Rank};
use super::{Deployment, NodeRecord, RepairKind};
use crate::units::{NodeId, Time};
use core::time::Duration;

/// How long a node must pace its chain, after the window in which that was seen, before it is moved.
const MIN_SLOW_TIME: Duration = Duration::from_secs(8);
/// The least time between two moves in a chain.
const MIN_MOVE_INTERVAL: Duration = Duration::from_secs(10);
/// A node that accepts no data at all is moved after this time ...
const MIN_STUCK_TIME: Duration = Duration::from_secs(2);
/// ... and so long after the last move.
const MIN_STUCK_MOVE_INTERVAL: Duration = Duration::from_secs(5);
/// Slower than this part of what the chain could do is slow.
const SLOW_RATIO: f64 = 0.7;
/// Of a chain at most this part is moved for a low rate, and always one: if more are slow, the chain is that slow.
const MAX_MOVED_SHARE: f64 = 0.3;
/// What TCP carries of a link's speed, in bytes per second for each Mbit/s.
const TCP_BYTES_PER_MBIT: f64 = 0.95 * 125_000.0;

/// What a chain remembers of who was slow.
#[derive(Debug, Default)]
pub(super) struct Paces {
    moved: Option<Time>,
    /// The upper end of the link for which a node was moved last: if the next one is slow behind it too, it is the slow one.
    above: Option<NodeId>,
    /// In which part of the time the feed waited for the network or for credit.
    feed: f64,
    /// The operator was told that nobody is moved.
    told: bool,
    trial: Option<Trial>,
}

impl Paces {
    pub(super) fn on_feed_waited(&mut self, network: Duration, of: Duration) {
        self.feed = network.as_secs_f64() / of.as_secs_f64().max(0.001);
    }
}

/// Who is slow, and how that is said.
struct Slow {
    node: NodeId,
    what: String,
    /// What the others could write, in bytes per second.
    could: f64,
    /// The upper end of the link, if it is a link.
    above: Option<NodeId>,
    /// It accepts no data at all.
    stuck: bool,
    /// It takes nothing at all in a main or catch-up pass: that is no rate at which a chain could go. Not said of a node that is
    /// suspected only because two others took nothing from it: both may be at fault.
    halts: bool,
    /// That it could do more is only what cards claim.
    claimed: bool,
}

/// A head that was moved because its card claims more than came: perhaps nobody gets more from the server.
#[derive(Clone, Copy, Debug)]
struct Trial {
    node: NodeId,
    /// What it received, in bytes per second.
    rate: f64,
    since: Time,
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn mib(rate: f64) -> f64 {
    rate / f64::from(1 << 20)
}

impl Deployment {
    /// Looks at every chain for a node that paces it without need, and moves one that has done so for long enough.
    pub(super) fn find_slow(&mut self, now: Time) {
        for chain in 0..self.topology.len() {
            self.end_trial(chain, now);
            self.move_mute(chain, now);
            let slow = match self.topology.chain(chain).phase() {
                Phase::Through { .. } => None,
                Phase::Comparing { .. } => self.starved(chain),
                Phase::Flowing | Phase::Settled { .. } => self.slowest(chain),
            };
            let culprit = slow.as_ref().map(|slow| slow.node);
            for id in self.topology.chain(chain).core() {
                self.ledger.change(*id, |account| {
                    account.meter.slow = (Some(*id) == culprit).then(|| account.meter.slow.unwrap_or(now));
                });
            }
            let Some(slow) = slow else { continue };
            let since = self.ledger.account(slow.node).and_then(|account| account.meter.slow);
            let (patience, rest) =
                if slow.stuck { (MIN_STUCK_TIME, MIN_STUCK_MOVE_INTERVAL) } else { (MIN_SLOW_TIME, MIN_MOVE_INTERVAL) };
            let ripe = since.is_some_and(|since| now.since(since) >= patience);
            let rested = self.ledger.paces_mut(chain).moved.is_none_or(|moved| now.since(moved) >= rest);
            if ripe && rested {
                self.move_behind(chain, &slow, since.unwrap_or(now), now);
            }
        }
    }

    /// A node of the core that reports nothing may hold anybody up, and a pass does not end without its word: from now on it
    /// follows. If most report nothing, it is not their fault.
    fn move_mute(&mut self, chain: usize, now: Time) {
        let state = self.topology.chain(chain);
        if state.is_through() || state.is_comparing() {
            return;
        }
        let expected = self.records(state.nodes()).filter(NodeRecord::is_to_report).count();
        let mute: Vec<NodeId> =
            self.records(state.core()).filter(|node| node.is_mute(now)).map(|node| node.id).collect();
        if mute.is_empty() || mute.len() * 2 > expected {
            return;
        }
        for id in mute {
            let Some(node) = self.roster.get(id) else { continue };
            let began = self.ledger.account(id).map_or(now, |account| account.reported);
            let label = node.label();
            let detail = "it is heard and reports nothing";
            self.note(format!("{label} is slow: {detail}: moved behind the tail"));
            self.ledger.paces_mut(chain).moved = Some(now);
            let successor = self.put_behind(chain, id, now);
            let awaited = self.link_of(chain, successor);
            self.repairs.add(Entry { kind: RepairKind::Slow, node: id, detail, began, awaited }, now);
        }
    }

    /// In a chain that compares, the first node that gets no part of the manifest: those below it get none either.
    fn starved(&self, chain: usize) -> Option<Slow> {
        let state = self.topology.chain(chain);
        if state.nodes().len() < 2 {
            return None;
        }
        let node = self.records(state.core()).find(|node| !node.has_compared())?;
        if node.moved || !node.account.meter.is_starved() {
            return None;
        }
        let what = "nothing of the manifest reaches it".to_owned();
        Some(Slow { node: node.id, what, could: 0.0, above: None, stuck: true, halts: false, claimed: false })
    }

    /// Who paces the chain at less than the others could do. Nobody is held up if nobody else receives.
    fn slowest(&self, chain: usize) -> Option<Slow> {
        let slow = self.pacing(chain)?;
        let mut nodes = self.records(self.topology.chain(chain).nodes());
        nodes.any(|node| node.is_receiving() && node.id != slow.node).then_some(slow)
    }

    fn pacing(&self, chain: usize) -> Option<Slow> {
        let state = self.topology.chain(chain);
        let core: Vec<NodeRecord<'_>> = self.records(state.core()).collect();
        let seen = core.iter().map(|node| node.account.meter.best).fold(0.0, f64::max);
        let declared =
            core.iter().map(|node| f64::from(node.mbits()) * TCP_BYTES_PER_MBIT).filter(|rate| *rate > 0.0).collect();
        let declared = median(declared);
        let could = declared.map_or(seen, |declared| seen.min(declared));
        let mut above: Option<Pace> = None;
        for (at, node) in core.iter().enumerate() {
            // Of a node that ended and reports no more nothing is known, nor of the link below it.
            let Some(said) = node.account.meter.pace() else {
                above = None;
                continue;
            };
            // It has nothing if its upstream sent it nothing, whatever it says.
            let nothing = above.is_some_and(|upper| upper.sent <= NOTHING);
            let pace = if nothing { Pace { received: 0.0, ..said } } else { said };
            let upper = above.replace(pace);
            // One that was moved is slow and is left alone, unless it takes nothing at all among others that were moved: a pass is
            // made for those alone, and there it paces the chain again.
            if node.moved && pace.received > NOTHING {
                continue;
            }
            if !node.moved && node.is_receiving() && pace.disk >= MIN_WAIT_SHARE && pace.received < SLOW_RATIO * could {
                return self.slow_disk(node, pace, &core, could);
            }
            let held_up = match at {
                0 => self.ledger.paces(chain).is_some_and(|paces| paces.feed >= MIN_WAIT_SHARE),
                _ => upper.is_some_and(|upper| upper.downstream >= MIN_WAIT_SHARE),
            };
            // The head may never have been faster; then what its card says counts, with more doubt.
            let claim = if at == 0 { SLOW_RATIO * declared.unwrap_or(0.0) } else { 0.0 };
            let claimed = claim > could && pace.received >= SLOW_RATIO * could && pace.received > NOTHING;
            let could = could.max(claim);
            // A tail has nobody to wait for.
            let tail = state.nodes().last() == Some(&node.id);
            let waits = pace.upstream + if tail { pace.downstream } else { 0.0 };
            // Nothing is too little whatever was seen before, also for a node that only relays.
            let slow = (node.is_receiving() && pace.received < SLOW_RATIO * could) || pace.received <= NOTHING;
            if held_up && waits >= MIN_WAIT_SHARE && slow {
                let upper = at.checked_sub(1).map_or(NodeId::SERVER, |at| core[at].id);
                let slow = self.slow_link(node, upper, pace, &core, chain, could);
                return slow.map(|slow| Slow { claimed: claimed && slow.above.is_some(), ..slow });
            }
        }
        None
    }

    fn slow_disk(&self, node: &NodeRecord<'_>, pace: Pace, core: &[NodeRecord<'_>], could: f64) -> Option<Slow> {
        let others = core.iter().filter(|other| other.id != node.id);
        let others = median(others.filter_map(|other| other.account.meter.disk_rate()).collect());
        if others.is_some_and(|others| pace.written >= SLOW_RATIO * others) && pace.received > NOTHING {
            return None;
        }
        let by_link = if pace.received > 0.0 { pace.written * could / pace.received } else { f64::MAX };
        let could = others.map_or(by_link, |others| others.min(by_link));
        let what = if pace.written <= 0.0 {
            "its disk has taken nothing for some seconds".to_owned()
        } else {
            format!("its disk writes {:.1} MiB/s while the chain could do {:.0}", mib(pace.written), mib(could))
        };
        let halts = pace.received <= NOTHING;
        Some(Slow { node: node.id, what, could, above: None, stuck: false, halts, claimed: false })
    }

    fn slow_link(
        &self,
        node: &NodeRecord<'_>,
        upper: NodeId,
        pace: Pace,
        core: &[NodeRecord<'_>],
        chain: usize,
        could: f64,
    ) -> Option<Slow> {
        let rates = format!("{:.1} MiB/s while the chain could do {:.0}", mib(pace.received), mib(could));
        let unpacked = if pace.received > 0.0 { pace.written / pace.received } else { 1.0 };
        let could = could * unpacked;
        let stuck = pace.received <= NOTHING;
        let by_itself = || {
            let what = format!("its link brings {rates}");
            Some(Slow { node: node.id, what, could, above: Some(upper), stuck, halts: stuck, claimed: false })
        };
        if self.ledger.paces(chain).and_then(|paces| paces.above) != Some(upper) {
            return by_itself();
        }
        // Another node was slow behind the same upper end: the fault is there.
        let candidate = core.iter().find(|other| other.id == upper && !other.moved && other.is_running());
        let what = format!("its link takes on {rates}");
        let shared = candidate.map(|candidate| Slow {
            node: candidate.id,
            what,
            could,
            above: None,
            stuck,
            halts: false,
            claimed: false,
        });
        // Unless that one can't be moved. Two nodes that take nothing, one after the other, halt the chain as one does.
        if stuck && shared.as_ref().is_none_or(|shared| self.are_many(chain, shared)) { by_itself() } else { shared }
    }

    /// Whether so many nodes are slow that the chain is that slow.
    fn are_many(&self, chain: usize, slow: &Slow) -> bool {
        let (count, all) = self.count_slow(chain, slow);
        let few = f64::from(u32::try_from(all).unwrap_or(u32::MAX)) * MAX_MOVED_SHARE;
        count > 1 && f64::from(u32::try_from(count).unwrap_or(u32::MAX)) > few
    }

    /// Moves a node behind the tail, unless too many are slow: then the chain goes at their rate. A node that halts
    /// the chain is moved however many are slow, because a chain that stands still never ends.
    fn move_behind(&mut self, chain: usize, slow: &Slow, since: Time, now: Time) {
        let Some(node) = self.node(slow.node) else { return };
        let (label, rate) = (node.member.label(), node.account.meter.rate());
        let what = &slow.what;
        if !slow.halts && self.are_many(chain, slow) {
            let (count, all) = self.count_slow(chain, slow);
            if !core::mem::replace(&mut self.ledger.paces_mut(chain).told, true) {
                self.note(format!(
                    "{label} is slow: {what}; so are {count} of {all} nodes: the chain goes at their rate"
                ));
            }
            return;
        }
        if slow.claimed {
            self.note(format!("{label} may be slow: {what}, as cards claim: another one is tried in its place"));
        } else {
            self.note(format!("{label} is slow: {what}: moved behind the tail"));
        }
        let paces = self.ledger.paces_mut(chain);
        paces.trial = slow.claimed.then_some(Trial { node: slow.node, rate, since: now });
        (paces.moved, paces.above) = (Some(now), slow.above.or(paces.above));
        for id in self.topology.chain(chain).nodes() {
            self.ledger.change(*id, |account| account.meter.forget());
        }
        let successor = self.put_behind(chain, slow.node, now);
        let awaited = self.link_of(chain, successor);
        let entry = Entry { kind: RepairKind::Slow, node: slow.node, detail: what, began: since, awaited };
        self.repairs.add(entry, now);
    }

    /// If the node that was tried in the place of a head gets no more than that one did, that one is not slow: it paces the chain
    /// again.
    fn end_trial(&mut self, chain: usize, now: Time) {
        let Some(Trial { node: id, rate, since }) = self.ledger.paces_mut(chain).trial else { return };
        if now.since(since) < WINDOW + MIN_REPORT_SPAN {
            return;
        }
        let state = self.topology.chain(chain);
        let Some(pace) = state.head().and_then(|head| self.ledger.account(head)?.meter.pace()) else { return };
        let follows = state.followers().contains(&id);
        self.ledger.paces_mut(chain).trial = None;
        if pace.received * SLOW_RATIO > rate || !follows {
            return;
        }
        let Some(node) = self.roster.get(id) else { return };
        let text = format!("{} is not slow: the server's path gives no more than {:.1} MiB/s", node.label(), mib(rate));
        self.note(text);
        self.topology.rank_first(id);
        if self.topology.join_core(chain, id) {
            self.order(chain);
        }
    }

    /// How many nodes of a chain are slow, this one among them, and how many there are.
    fn count_slow(&self, chain: usize, slow: &Slow) -> (usize, usize) {
        let nodes: Vec<NodeRecord<'_>> = self.records(self.topology.chain(chain).nodes()).collect();
        let is_slow = |node: &&NodeRecord<'_>| {
            let disk = node.account.meter.disk_rate().is_some_and(|disk| disk < SLOW_RATIO * slow.could);
            node.id == slow.node || (node.moved && !self.blame.is_guilty(node.id)) || disk
        };
        (nodes.iter().filter(is_slow).count(), nodes.iter().filter(|node| node.seat.rank() != Rank::Behind).count())
    }
}
