//! How many agents may have a record. A record is for good once its node had a place in a chain; every other one makes room when it
//! must, so that agents that were refused, or only said hello, never keep out one that can take part.

use super::roster::Member;
use super::{Deployment, DeploymentEvent, NodeRecord, Standing};
use crate::approval::{Caller, Unapproved};
use crate::control::Hello;
use crate::reason::Reason;
use crate::units::{NodeId, Time};
use std::net::IpAddr;

/// Records of agents without a place, beyond twice the number that is waited for: to be refused, but by name.
const MAX_SPARE_RECORDS: usize = 256;
/// Of these, records of agents that are gone, which are kept for the report.
const MAX_GONE_RECORDS: usize = 64;
/// Agents that are there and have not found a target, from one address.
const MAX_PER_ADDRESS: usize = 32;

/// Why an agent gets no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// So many agents call from its address that have found no target.
    Address,
    /// All that are there can take part.
    Full,
}

impl core::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Address => write!(f, "{MAX_PER_ADDRESS} agents without a target call from its address already"),
            Self::Full => f.write_str("too many nodes have come already"),
        }
    }
}

impl NodeRecord<'_> {
    /// Whether it has taken no part, and nothing of it is awaited.
    fn is_idle(&self) -> bool {
        let presence = &self.member.presence;
        let awaited = presence.is_returning() || presence.heard_again_until().is_some();
        self.place.is_none() && self.chain().is_none() && !awaited
    }

    /// Whether it takes no part and is gone.
    fn is_left_over(&self) -> bool {
        self.is_idle() && !self.connected
    }

    /// Whether it is there and could not take part now.
    fn is_unready(&self) -> bool {
        self.is_idle() && self.connected && matches!(self.standing, Standing::Preparing | Standing::Refused { .. })
    }

    fn macs(&self) -> Vec<[u8; 6]> {
        macs(self.hello)
    }
}

fn macs(hello: &Hello) -> Vec<[u8; 6]> {
    let mut macs: Vec<_> = hello.cards.iter().map(|card| card.mac).filter(|mac| *mac != [0; 6]).collect();
    macs.sort_unstable();
    macs
}

impl Deployment {
    /// Makes room for an agent that says this hello, from this address, before [`Deployment::on_agent`]. A machine that comes again takes
    /// the place of what was left of it.
    ///
    /// # Errors
    /// [`NoRoom`]: it is to be turned away; it may come again.
    pub fn make_room(&mut self, hello: &Hello, address: IpAddr) -> Result<(), NoRoom> {
        if self.nodes().any(|node| node.hello.boot == hello.boot) || self.expected(&hello.boot).is_some() {
            return Ok(());
        }
        let machine = macs(hello);
        let same = |node: &NodeRecord<'_>| node.is_left_over() && !machine.is_empty() && node.macs() == machine;
        let earlier: Vec<NodeId> = self.nodes().filter(same).map(|node| node.id).collect();
        earlier.into_iter().for_each(|id| self.forget(id));
        let unready = |from: IpAddr| self.nodes().filter(|node| node.is_unready() && node.address == from).count();
        if !address.is_loopback() && unready(address) >= MAX_PER_ADDRESS {
            return Err(NoRoom::Address);
        }
        let idle = self.nodes().filter(|node| node.is_idle()).count();
        if idle < self.config.wait_for as usize * 2 + MAX_SPARE_RECORDS {
            return Ok(());
        }
        let gone = self.nodes().filter(|node| node.is_left_over()).min_by_key(|node| node.member.presence.gone());
        // Of those that are there, the address that has most of them gives one up.
        let crowd = || self.nodes().filter(|node| node.is_unready());
        let longest = || crowd().max_by_key(|node| (unready(node.address), core::cmp::Reverse(node.account.moved_on)));
        let id = gone.or_else(longest).map(|node| node.id).ok_or(NoRoom::Full)?;
        self.forget(id);
        Ok(())
    }

    /// An agent that nobody approved stands in the report, too, under a number that no other one has. It took no part; this comes when
    /// all is over.
    pub fn on_unapproved(&mut self, id: NodeId, unapproved: Unapproved, now: Time) {
        let Unapproved { caller: Caller { hello, card, address, .. }, why } = unapproved;
        let mut node = Member::new(id, hello, card, address, now);
        node.standing = Standing::Refused { reason: Reason::NotApproved, detail: why };
        node.presence.on_gone(now);
        self.admit(node, now);
        self.events.push_back(DeploymentEvent::NodeChanged(id));
    }

    /// Lets go of records of agents that are gone and took no part, but for some of them.
    pub(super) fn forget_left_over(&mut self) {
        let mut left: Vec<_> = self
            .nodes()
            .filter(|node| node.is_left_over())
            .map(|node| (node.member.presence.gone(), node.id))
            .collect();
        left.sort_unstable();
        let surplus = left.len().saturating_sub(MAX_GONE_RECORDS);
        left.into_iter().take(surplus).for_each(|(_, id)| self.forget(id));
    }

    fn forget(&mut self, id: NodeId) {
        if let Some(node) = self.roster.remove(id) {
            self.topology.forget(id);
            self.ledger.forget(id);
            self.orders.retain(|(to, _)| *to != id);
            self.events.push_back(DeploymentEvent::Forgotten { node: id, boot: node.hello.boot });
        }
    }
}
