//! The roster: which nodes there are, how far each is, and whether it is heard.

use super::resume::Away;
use super::slow::Meter;
use super::{Outcome, Place, Standing};
use crate::control::{Hello, Progress};
use crate::plan::CardId;
use crate::reason::Reason;
use crate::set::BlockSet;
use crate::units::{NodeId, Time};
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// All nodes.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: BTreeMap<NodeId, Member>,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.members.keys().copied()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    /// Changes what is known of a node, if there is such a node.
    pub(super) fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(&id) {
            change(member);
        }
    }

    pub(super) fn insert(&mut self, member: Member) {
        self.members.insert(member.id, member);
    }

    pub(super) fn remove(&mut self, id: NodeId) -> Option<Member> {
        self.members.remove(&id)
    }

    /// The node of a run of an agent.
    pub(super) fn of_boot(&self, boot: &[u8; 16]) -> Option<NodeId> {
        self.members().find(|member| member.hello.boot == *boot).map(|member| member.id)
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: NodeId,
    pub(super) hello: Hello,
    pub(super) card: CardId,
    pub(super) address: IpAddr,
    pub(super) standing: Standing,
    pub(super) place: Option<Place>,
    pub(super) progress: Option<Progress>,
    pub(super) durable: BlockSet,
    pub(super) repairs: u32,
    pub(super) late: bool,
    pub(super) returned: u32,
    pub(super) connected: bool,
    /// Whether it has still to be heard of after the server was started again.
    pub(super) away: Away,
    pub(super) heard: Time,
    pub(super) gone: Option<Time>,
    pub(super) moved_on: Time,
    /// Its last report, or when it was first expected to report.
    pub(super) reported: Time,
    pub(super) finished: bool,
    /// It was told to begin, and has not said yet that it is ready to.
    pub(super) begins: bool,
    /// When a neighbour last said that its link with it is gone, and what it said.
    pub(super) blamed: Option<(Time, String)>,
    /// A neighbour hears nothing of it, nor does its kernel answer; what the neighbour said, and how long nothing must be
    /// heard here for it to be believed.
    pub(super) suspected: Option<(Duration, String)>,
    /// It was lost because it fell silent: until then it may be heard again.
    pub(super) awaited: Option<Time>,
    /// How fast it is, and what it waits for.
    pub(super) meter: Meter,
}

impl Member {
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
            late: false,
            returned: 0,
            connected: true,
            away: Away::No,
            heard: now,
            gone: None,
            moved_on: now,
            reported: now,
            finished: false,
            begins: false,
            blamed: None,
            suspected: None,
            awaited: None,
            meter: Meter::default(),
        }
    }

    /// Where it listens for its upstream.
    pub(super) fn listens_at(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.hello.link_port)
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        match &self.standing {
            Standing::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.standing, Standing::Running(_)) && self.away == Away::No
    }

    /// Whether it was given up because nothing was heard of it.
    pub(super) fn is_lost(&self) -> bool {
        self.outcome().is_some_and(|end| end.reason == Reason::NodeLost)
    }

    /// Whether it is to have a place, or had one, and never said anything from there.
    pub(super) fn was_unheard(&self) -> bool {
        self.progress.is_none() && (self.is_running() || self.is_lost())
    }

    /// What it did to others stands in the detail of its end, unless it failed for a reason of its own.
    pub(super) fn accuse(&mut self, charge: &str) {
        if let Standing::Ended(outcome) = &mut self.standing
            && outcome.detail.is_empty()
        {
            outcome.detail = charge.to_owned();
        }
    }

    /// How to name it to a person: host name and address.
    pub(super) fn name(&self) -> String {
        let host: String = self.hello.hostname.chars().filter(|c| !c.is_control()).collect();
        if host.is_empty() { self.address.to_string() } else { format!("{host} ({})", self.address) }
    }

    /// How to name it in a line of its own: number, host name and address.
    pub(super) fn label(&self) -> String {
        format!("node {} {}", self.id, self.name())
    }

    /// Takes in a report.
    pub(super) fn take(&mut self, progress: Progress, now: Time) {
        // Bytes sent are no sign: beats are among them.
        let mark = |p: &Progress| (p.accepted, p.durable, p.verified, p.written_bytes, p.phase);
        let moved = self.progress.as_ref().is_none_or(|old| mark(old) != mark(&progress));
        if moved || progress.phase == crate::reason::Phase::Ended {
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
    }
}
