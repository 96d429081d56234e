//! What the server knows of one node.

use super::RepairKind;
use super::resume::Away;
use super::slow::Meter;
use crate::control::{Ended, Hello, Join, Progress, Ready};
use crate::plan::CardId;
use crate::reason::{EndState, LookedAt, Phase, Reason, Verified};
use crate::set::BlockSet;
use crate::units::{Epoch, NodeId, Time};
use core::time::Duration;
use std::collections::VecDeque;
use std::net::IpAddr;

/// So many of the neighbours that served a node are remembered: a word of it on one may come when another one serves it.
const MOST_SERVED_BY: usize = 4;
/// A node that reports nothing for so long is mute ...
const MUTE: Duration = Duration::from_secs(3);
/// ... if it was heard within this time: one that is starved or stopped says nothing at all.
const HEARD: Duration = Duration::from_secs(1);

/// Where a node stands, in the order in which it gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was told of the image and looks for its target.
    Preparing,
    /// Its target is found and open.
    Ready(Ready),
    /// It has no target for this image; it takes no part.
    Refused {
        /// Why.
        reason: Reason,
        /// The facts behind the reason.
        detail: String,
    },
    /// It has a place in a chain.
    Running(Ready),
    /// It is through, or was given up.
    Ended(Outcome),
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Done, written or failed.
    pub state: EndState,
    /// Why it failed.
    pub reason: Reason,
    /// The facts behind the reason.
    pub detail: String,
    /// How the disk was read back.
    pub verified: Verified,
    /// Blocks written and blocks that were there already.
    pub blocks: (u32, u32),
    /// How much was read once more before the head was written, and how many blocks that were.
    pub last_look: (LookedAt, u32),
    /// The target it was about.
    pub ready: Ready,
    /// When.
    pub at: Time,
}

impl Outcome {
    pub(super) fn failed(reason: Reason, detail: String, ready: Ready, at: Time) -> Self {
        Self {
            state: EndState::Failed,
            reason,
            detail,
            verified: Verified::No,
            blocks: (0, 0),
            last_look: (LookedAt::No, 0),
            ready,
            at,
        }
    }

    pub(super) fn of(ended: Ended, ready: Ready, at: Time) -> Self {
        let Ended { state, reason, detail, verified, blocks_written, blocks_kept, last_look, last_look_blocks, .. } =
            ended;
        let (blocks, last_look) = ((blocks_written, blocks_kept), (last_look, last_look_blocks));
        Self { state, reason, detail, verified, blocks, last_look, ready, at }
    }
}

/// A node's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chain, from 0.
    pub chain: u16,
    /// The position in it; 1 is the head.
    pub position: u16,
}

/// What the server knows of one node.
#[derive(Debug)]
pub struct NodeRecord {
    /// Its number.
    pub id: NodeId,
    /// Its inventory.
    pub hello: Hello,
    /// The card of the server that it hangs on.
    pub card: CardId,
    /// The address it called from.
    pub address: IpAddr,
    /// Where it stands.
    pub standing: Standing,
    /// Its place, once there is a plan.
    pub place: Option<Place>,
    /// Its last report.
    pub progress: Option<Progress>,
    /// The blocks that it says are durable.
    pub durable: BlockSet,
    /// How often the chain was repaired around it.
    pub repairs: u32,
    /// Whether it was moved behind the tail.
    pub moved: bool,
    /// Whether it came after the start.
    pub late: bool,
    /// How often it was given up or started again, and came back.
    pub returned: u32,
    /// Whether its control link stands.
    pub connected: bool,
    /// Whether it has still to be heard of after the server was started again.
    pub(super) away: Away,
    pub(super) heard: Time,
    pub(super) gone: Option<Time>,
    pub(super) moved_on: Time,
    /// Its last report, or when it was first expected to report.
    pub(super) reported: Time,
    pub(super) finished: bool,
    /// It waited in no chain for a pass of its own: the time in which nothing moved there does not count.
    pub(super) waited: bool,
    /// It was told to begin, and has not said yet that it is ready to.
    pub(super) begins: bool,
    /// The chain it stands in now.
    pub(super) chain: Option<usize>,
    /// The epoch in which the link from its upstream was made.
    pub(super) link_epoch: Epoch,
    /// When a neighbour last said that its link with it is gone, and what it said.
    pub(super) blamed: Option<(Time, String)>,
    /// A neighbour hears nothing of it, nor does its kernel answer; what the neighbour said, and how long nothing must be
    /// heard here for it to be believed.
    pub(super) suspected: Option<(Duration, String)>,
    /// It was lost because it fell silent: until then it may be heard again.
    pub(super) awaited: Option<Time>,
    /// The upstream that it can't be reached from, although both live.
    pub(super) avoid: Option<NodeId>,
    /// Who served it of late, the newest last.
    pub(super) served_by: VecDeque<NodeId>,
    /// It has stood behind the tail: survivors of the main pass have their catch-up pass before it.
    pub(super) behind: bool,
    /// It has come late or is back, since when, and stands in no chain yet.
    pub(super) joins: Option<(RepairKind, Time)>,
    /// How fast it is, and what it waits for.
    pub(super) meter: Meter,
    pub(super) last_join: Option<Join>,
}

impl NodeRecord {
    pub(super) fn new(id: NodeId, hello: Hello, card: CardId, address: IpAddr, blocks: u32, now: Time) -> Self {
        Self {
            id,
            hello,
            card,
            address,
            standing: Standing::Preparing,
            place: None,
            progress: None,
            durable: BlockSet::empty(blocks),
            repairs: 0,
            moved: false,
            late: false,
            returned: 0,
            connected: true,
            away: Away::No,
            heard: now,
            gone: None,
            moved_on: now,
            reported: now,
            finished: false,
            waited: false,
            begins: false,
            chain: None,
            link_epoch: Epoch(0),
            blamed: None,
            suspected: None,
            awaited: None,
            avoid: None,
            served_by: VecDeque::new(),
            behind: false,
            joins: None,
            meter: Meter::default(),
            last_join: None,
        }
    }

    /// It is told that `upstream` serves it.
    pub(super) fn on_served_by(&mut self, upstream: NodeId) {
        if self.served_by.back() != Some(&upstream) {
            self.served_by.push_back(upstream);
        }
        if self.served_by.len() > MOST_SERVED_BY {
            self.served_by.pop_front();
        }
    }

    /// The speed of its card in Mbit/s; 0 if it is not known.
    pub(super) fn mbits(&self) -> u32 {
        let card = self.hello.cards.iter().find(|card| card.addresses.contains(&self.address));
        card.map_or(0, |card| card.mbits)
    }

    /// The target, where one is known.
    #[must_use]
    pub fn target(&self) -> &str {
        match &self.standing {
            Standing::Ready(ready) | Standing::Running(ready) => &ready.target,
            Standing::Ended(outcome) => &outcome.ready.target,
            Standing::Preparing | Standing::Refused { .. } => "",
        }
    }

    /// What it did to others stands in the detail of its end, unless it failed for a reason of its own.
    pub(super) fn accuse(&mut self, charge: &str) {
        if let Standing::Ended(outcome) = &mut self.standing
            && outcome.detail.is_empty()
        {
            outcome.detail = charge.to_owned();
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.standing {
            Standing::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Whether it is writing.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.standing, Standing::Running(_)) && self.away == Away::No
    }

    /// Whether it has all blocks, so that it needs no upstream any more.
    #[must_use]
    pub fn has_all(&self, blocks: u32) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.accepted >= blocks)
    }

    /// Whether it is to have a place, or had one, and never said anything from there.
    pub(super) fn was_unheard(&self) -> bool {
        self.progress.is_none() && (self.is_running() || self.is_lost())
    }

    /// Whether it was given up because nothing was heard of it.
    pub(super) fn is_lost(&self) -> bool {
        self.outcome().is_some_and(|end| end.reason == Reason::NodeLost)
    }

    /// The last pass that it was given a place in; 0 for none.
    #[must_use]
    pub fn last_pass(&self) -> u32 {
        self.last_join.as_ref().map_or(0, |join| join.pass)
    }

    /// Whether nothing more comes to it in `pass`.
    pub(super) fn pass_ended(&self, pass: u32) -> bool {
        let epoch = self.last_join.as_ref().map(|join| join.epoch);
        self.progress.as_ref().is_some_and(|progress| progress.pass_ended >= pass && Some(progress.epoch) >= epoch)
    }

    /// Whether it has compared its target with the whole manifest, or need not.
    pub(super) fn has_compared(&self) -> bool {
        let epoch = self.last_join.as_ref().map(|join| join.epoch);
        let told = self.progress.as_ref().filter(|progress| Some(progress.epoch) >= epoch);
        !self.is_running() || told.is_some_and(|progress| progress.phase != Phase::Preparing)
    }

    /// It is heard, and has not said for a while how far it is, though it should every second.
    pub(super) fn is_mute(&self, now: Time) -> bool {
        self.is_running() && self.connected && now.since(self.heard) < HEARD && now.since(self.reported) >= MUTE
    }

    /// Its ring is full because of its disk.
    pub(super) fn waits_for_disk(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| {
            let (upstream, downstream) = (progress.wait_upstream_ms, progress.wait_downstream_ms);
            progress.wait_disk_ms > upstream.saturating_add(downstream)
        })
    }

    /// What it waits for, in words.
    pub(super) fn waits_for(&self) -> &'static str {
        match &self.progress {
            None => "it never reported",
            Some(_) if self.waits_for_disk() => "its disk does not accept writes",
            Some(progress) if progress.wait_downstream_ms > progress.wait_upstream_ms => "it waits for its downstream",
            Some(_) => "it waits for its upstream",
        }
    }

    /// How to name it to a person: host name and address.
    #[must_use]
    pub fn name(&self) -> String {
        let host: String = self.hello.hostname.chars().filter(|c| !c.is_control()).collect();
        if host.is_empty() { self.address.to_string() } else { format!("{host} ({})", self.address) }
    }

    /// How to name it in a line of its own: number, host name and address.
    pub(super) fn label(&self) -> String {
        format!("node {} {}", self.id, self.name())
    }

    /// Takes in a report; gives whether it shows that anything moved.
    pub(super) fn take(&mut self, progress: Progress, now: Time) -> bool {
        // Bytes sent are no sign: beats are among them.
        let mark = |p: &Progress| (p.accepted, p.durable, p.verified, p.written_bytes, p.phase);
        let moved = self.progress.as_ref().is_none_or(|old| mark(old) != mark(&progress));
        if moved || progress.phase == Phase::Ended {
            self.moved_on = now;
        }
        for (start, end) in &progress.durable_new {
            for block in *start..(*end).min(self.durable.universe()) {
                self.durable.insert(crate::units::BlockNo(block));
            }
        }
        if progress.durable < self.durable.count() {
            // A block was read back wrong after it was told of. Which one it was the node says to its upstream.
            self.durable = BlockSet::empty(self.durable.universe());
        }
        self.reported = now;
        self.meter.take(&progress, now);
        self.progress = Some(progress);
        moved
    }
}
