//! The roster: which nodes there are, how far each is, and whether it is heard.

use super::presence::Presence;
use super::{Outcome, Place, Standing};
use crate::control::Hello;
use crate::plan::CardId;
use crate::reason::Reason;
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

    /// Nothing that was due while the server stood still counts against a node.
    pub(super) fn forgive(&mut self, pause: Duration, now: Time) {
        self.members.values_mut().for_each(|member| member.presence.forgive(pause, now));
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
    pub(super) presence: Presence,
    pub(super) standing: Standing,
    /// It was told to begin, and has not said yet that it is ready to: whatever else it says is of the run that it drops for that.
    pub(super) begins: bool,
    pub(super) place: Option<Place>,
    /// How often its chain was repaired around it.
    pub(super) repairs: u32,
    pub(super) late: bool,
    /// How often it came back.
    pub(super) returned: u32,
}

impl Member {
    /// A node that has just called.
    pub(super) fn new(id: NodeId, hello: Hello, card: CardId, address: IpAddr, now: Time) -> Self {
        Self {
            id,
            hello,
            card,
            address,
            presence: Presence::new(now),
            standing: Standing::Preparing,
            begins: false,
            place: None,
            repairs: 0,
            late: false,
            returned: 0,
        }
    }

    /// Where it listens for its upstream.
    pub(super) fn listens_at(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.hello.link_port)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.presence.is_connected()
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        match &self.standing {
            Standing::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.standing, Standing::Running(_)) && !self.presence.is_returning()
    }

    /// Whether it was given up because nothing was heard of it.
    pub(super) fn is_lost(&self) -> bool {
        self.outcome().is_some_and(|end| end.reason == Reason::NodeLost)
    }

    /// Whether it was told that it may go.
    pub(super) fn is_released(&self) -> bool {
        self.outcome().is_some_and(|end| end.released)
    }

    /// From now on a node that has ended may go, or is needed again. Gives whether it might go before.
    pub(super) fn set_released(&mut self, released: bool) -> bool {
        let Standing::Ended(outcome) = &mut self.standing else { return false };
        core::mem::replace(&mut outcome.released, released)
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
}
