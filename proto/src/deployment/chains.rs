//! Chains: the plan made real, closed around the lost, and formed anew for whoever still lacks something.
//!
//! Only the server changes a chain, and every change raises that chain's epoch. The orders of a change go out from the tail
//! to the head, so that a downstream knows who will call before it is called. A link whose two ends stay neighbours keeps
//! its key and lives on.

use super::comparing::Comparing;
use super::{Deployment, DeploymentEvent, NodeRecord, Place, Stage, Standing};
use crate::control::{Finish, Join, LinkSpec, ToAgent};
use crate::link::Terms;
use crate::plan::{CardId, Plan, PlanNode, plan};
use crate::reason::{LinkClass, Reason};
use crate::set::BlockSet;
use crate::units::{Epoch, LinkKey, NodeId, Time};
use core::time::Duration;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// How often a link between two living nodes is made anew before the lower one is given up.
const RELINKS: u32 = 5;

/// Nothing heard for so long makes a neighbour's complaint about a node believable.
const SUSPECT: Duration = Duration::from_secs(1);
/// The least time from one catch-up pass to the next, so that one that brings nothing costs little.
const PASS_PAUSE: Duration = Duration::from_millis(250);

/// A chain as it stands.
#[derive(Debug)]
pub(super) struct ChainState {
    card: CardId,
    pub(super) pass: u32,
    epoch: Epoch,
    pub(super) nodes: Vec<NodeId>,
    /// The terms of the feed that was asked for last; nothing when no feed is needed.
    pub(super) feed: Option<Terms>,
    /// What the feed has to send.
    blocks: BlockSet,
    /// In pass 0: how long it may take, and whether it is a chain of the plan, which then goes on to the main pass.
    pub(super) comparing: Option<Comparing>,
}

impl ChainState {
    pub(super) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }
}

impl Deployment {
    /// The chains that there would be if it started now, with all who are ready.
    #[must_use]
    pub fn plan_now(&self) -> Plan {
        let nodes: Vec<PlanNode> = self.nodes.keys().filter_map(|id| self.plan_node(*id)).collect();
        plan(&self.config.cards, &nodes, &self.config.limits)
    }

    /// Fixes the plan and sends the orders.
    pub(super) fn arm(&mut self, now: Time) {
        let plan = self.plan_now();
        self.stage = Stage::Running;
        self.saved = None;
        self.fixed = Some(now);
        self.pass = 1;
        self.events.push_back(DeploymentEvent::PlanFixed(plan.clone()));
        for planned in plan.chains {
            let blocks = BlockSet::full(self.config.blocks);
            let compares = planned.nodes.iter().any(|id| self.compares(*id));
            let pass = if compares { 0 } else { self.pass };
            let chain = self.new_chain(planned.card, planned.nodes, blocks, pass);
            if compares {
                self.begin_comparing(chain, true, now);
            }
            for (position, id) in (1u16..).zip(self.chains[chain].nodes.clone()) {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.moved_on = now;
                    node.place = Some(Place { chain: u16::try_from(chain).unwrap_or(u16::MAX), position });
                }
            }
        }
    }

    pub(super) fn plan_node(&self, id: NodeId) -> Option<PlanNode> {
        let node = self.nodes.get(&id)?;
        let (Standing::Ready(ready) | Standing::Running(ready)) = &node.standing else { return None };
        let card = node.hello.cards.iter().find(|card| card.addresses.contains(&node.address));
        let mbits = card.map_or(0, |card| card.mbits);
        let (card, address, rotational) = (node.card.clone(), node.address, ready.rotational);
        Some(PlanNode { node: id, card, address, mbits, rotational })
    }

    /// Forms a chain in `pass` and orders it.
    pub(super) fn new_chain(&mut self, card: CardId, nodes: Vec<NodeId>, blocks: BlockSet, pass: u32) -> usize {
        let chain = self.chains.len();
        for id in &nodes {
            if let Some(node) = self.nodes.get_mut(id) {
                node.chain = Some(chain);
                if let Standing::Ready(ready) = &node.standing {
                    node.standing = Standing::Running(ready.clone());
                }
            }
        }
        self.chains.push(ChainState { card, pass, epoch: Epoch(0), nodes, feed: None, blocks, comparing: None });
        self.order(chain);
        chain
    }

    /// Raises the epoch and tells every node whose neighbours are new.
    pub(super) fn order(&mut self, chain: usize) {
        let state = &mut self.chains[chain];
        state.epoch = Epoch(state.epoch.0 + 1);
        self.unsaved = true;
        let (epoch, pass, ids) = (state.epoch, state.pass, state.nodes.clone());
        for (at, id) in ids.iter().enumerate() {
            let upstream = at.checked_sub(1).map_or(NodeId::SERVER, |before| ids[before]);
            if let Some(node) = self.nodes.get_mut(id) {
                let same = node.last_join.as_ref().is_some_and(|join| {
                    usize::from(join.chain) == chain && join.upstream.node == upstream && node.link_epoch != Epoch(0)
                });
                if !same {
                    node.link_epoch = epoch;
                }
            }
        }
        let specs: Vec<LinkSpec> = ids
            .iter()
            .enumerate()
            .filter_map(|(at, id)| {
                let node = self.nodes.get(id)?;
                let upstream = at.checked_sub(1).map_or(NodeId::SERVER, |before| ids[before]);
                let address = SocketAddr::new(node.address, node.hello.link_port);
                let key = self.link_key(chain, node.link_epoch, upstream, *id);
                Some(LinkSpec { node: *id, address, key, class: LinkClass::Paced })
            })
            .collect();
        let chain_number = u16::try_from(chain).unwrap_or(u16::MAX);
        for (at, spec) in specs.iter().enumerate().rev() {
            let upstream = at.checked_sub(1).map_or(NodeId::SERVER, |before| ids[before]);
            let join = Join {
                deployment: self.config.prepare.deployment,
                // Nodes compare epochs across chains: the pass weighs more than the changes within one.
                epoch: overall(pass, epoch),
                pass,
                chain: chain_number,
                position: u16::try_from(at + 1).unwrap_or(u16::MAX),
                chain_len: u16::try_from(ids.len()).unwrap_or(u16::MAX),
                upstream: LinkSpec { node: upstream, ..spec.clone() },
                downstream: specs.get(at + 1).cloned(),
            };
            let Some(node) = self.nodes.get_mut(&spec.node) else { continue };
            let same = node.last_join.as_ref().is_some_and(|old| {
                old.chain == join.chain && old.upstream == join.upstream && old.downstream == join.downstream
            });
            if !same {
                node.last_join = Some(join.clone());
                if node.connected {
                    self.orders.push_back((spec.node, ToAgent::Join(join)));
                }
            }
        }
        self.order_feed(chain, specs.into_iter().next(), overall(pass, epoch));
    }

    fn order_feed(&mut self, chain: usize, head: Option<LinkSpec>, epoch: Epoch) {
        let number = u16::try_from(chain).unwrap_or(u16::MAX);
        let pass = self.chains[chain].pass;
        let Some(head) = head else {
            if self.chains[chain].feed.take().is_some() {
                self.events.push_back(DeploymentEvent::StopFeed { chain: number });
            }
            return;
        };
        if self.chains[chain].feed.as_ref().is_some_and(|terms| terms.to == head.node && terms.key == head.key) {
            return;
        }
        let terms = Terms {
            deployment: self.config.prepare.deployment,
            epoch,
            pass,
            from: NodeId::SERVER,
            to: head.node,
            key: head.key,
            class: head.class,
        };
        self.chains[chain].feed = Some(terms.clone());
        let blocks = self.chains[chain].blocks.clone();
        self.events.push_back(DeploymentEvent::StartFeed { chain: number, terms, address: head.address, blocks });
    }

    /// The key of one link: nobody who was not given it can derive it.
    fn link_key(&self, chain: usize, epoch: Epoch, from: NodeId, to: NodeId) -> LinkKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.config.secret);
        hasher.update(b"slidecast link key 1").update(&(chain as u64).to_le_bytes());
        hasher.update(&epoch.0.to_le_bytes()).update(&from.0.to_le_bytes()).update(&to.0.to_le_bytes());
        LinkKey(*hasher.finalize().as_bytes())
    }

    /// Whether nothing is heard of a node over its own control link.
    pub(super) fn is_quiet(&self, id: NodeId, now: Time) -> bool {
        self.nodes.get(&id).is_none_or(|node| !node.connected || now.since(node.heard) >= SUSPECT)
    }

    pub(super) fn are_neighbours(&self, upstream: NodeId, downstream: NodeId) -> bool {
        let chain = self.nodes.get(&downstream).and_then(|node| node.chain);
        chain.is_some_and(|chain| {
            self.chains[chain].nodes.windows(2).any(|pair| pair[0] == upstream && pair[1] == downstream)
        })
    }

    /// Takes a node out of its chain and joins its neighbours.
    pub(super) fn splice_out(&mut self, id: NodeId) {
        let Some(chain) = self.nodes.get_mut(&id).and_then(|node| node.chain.take()) else { return };
        let nodes = &mut self.chains[chain].nodes;
        let Some(at) = nodes.iter().position(|node| *node == id) else { return };
        nodes.remove(at);
        if let Some(successor) = nodes.get(at).copied()
            && let Some(node) = self.nodes.get_mut(&successor)
        {
            node.repairs += 1;
        }
        self.order(chain);
    }

    /// Makes the link from its upstream to `id` anew. What keeps breaking is given up.
    pub(super) fn relink(&mut self, id: NodeId, reason: Reason, detail: &str, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(chain) = node.chain else { return };
        node.relinked += 1;
        node.repairs += 1;
        if node.relinked > RELINKS {
            let detail = format!("the link to it broke {RELINKS} times: {detail}");
            return self.fail(id, reason, detail, now);
        }
        // Epoch 0 never stands: the next order gives the link a new one.
        node.link_epoch = Epoch(0);
        if self.chains[chain].nodes.first() == Some(&id) {
            self.chains[chain].feed = None;
        }
        self.order(chain);
    }

    /// The server can't reach or keep the head of `chain`.
    pub(super) fn on_feed_down(&mut self, chain: u16, detail: &str, now: Time) {
        let Some(state) = self.chains.get_mut(usize::from(chain)) else { return };
        let Some(terms) = state.feed.take() else { return };
        let head = terms.to;
        if state.nodes.first() != Some(&head) {
            return;
        }
        if self.is_quiet(head, now) {
            self.lose(head, format!("nothing is heard of it, and its feed says: {detail}"), now);
        } else {
            self.relink(head, Reason::UpstreamLost, detail, now);
        }
    }

    /// Whoever was given up and is heard again goes on where it was.
    pub(super) fn revive(&mut self, id: NodeId, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if let Standing::Ended(outcome) = &node.standing {
            node.standing = Standing::Running(outcome.ready.clone());
            (node.gone, node.moved_on, node.late, node.finished) = (None, now, true, false);
            node.relinked = 0;
        }
    }

    /// Nodes that became ready after the start.
    pub(super) fn admit_late(&mut self, now: Time) {
        for id in self.ready() {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let Standing::Ready(ready) = &node.standing else { continue };
            node.standing = Standing::Running(ready.clone());
            (node.late, node.moved_on) = (true, now);
            if self.compares(id) {
                self.compare_late(id, now);
            }
        }
        // Those without a chain take the live stream from the tail of a main pass that still runs.
        let waiting: Vec<NodeId> = self
            .nodes()
            .filter(|node| node.is_running() && node.connected && node.chain.is_none())
            .map(|node| node.id)
            .collect();
        for id in waiting {
            let Some(card) = self.nodes.get(&id).map(|node| node.card.clone()) else { continue };
            let open = (0..self.chains.len()).filter(|chain| {
                let state = &self.chains[*chain];
                state.card == card && state.comparing.is_none() && state.feed.is_some() && !self.is_through(*chain)
            });
            let Some(chain) = open.min_by_key(|chain| self.chains[*chain].nodes.len()) else { continue };
            self.chains[chain].nodes.push(id);
            let position = u16::try_from(self.chains[chain].nodes.len()).unwrap_or(u16::MAX);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.chain = Some(chain);
                let number = u16::try_from(chain).unwrap_or(u16::MAX);
                node.place.get_or_insert(Place { chain: number, position });
            }
            self.order(chain);
        }
    }

    /// Whether nothing more comes down a chain: every node of it has all blocks or the end of the pass.
    fn is_through(&self, chain: usize) -> bool {
        let state = &self.chains[chain];
        state.nodes.iter().filter_map(|id| self.nodes.get(id)).all(|node| self.is_settled(node, state.pass))
    }

    fn is_settled(&self, node: &NodeRecord, pass: u32) -> bool {
        !node.is_running() || node.has_all(self.config.blocks) || node.pass_ended(pass)
    }

    /// Once nothing more comes down the chains of a card, whoever still lacks something forms a new chain, and the server
    /// sends the union of what they lack.
    pub(super) fn catch_up(&mut self, now: Time) {
        if now.since(self.passed) < PASS_PAUSE {
            return;
        }
        let cards: BTreeSet<CardId> = self.nodes().map(|node| node.card.clone()).collect();
        for card in cards {
            let busy = (0..self.chains.len()).any(|chain| {
                let state = &self.chains[chain];
                state.card == card && state.comparing.is_none() && !self.is_through(chain)
            });
            if busy {
                continue;
            }
            let mut lacking: Vec<&NodeRecord> = self
                .nodes()
                .filter(|node| node.card == card && node.is_running() && node.connected)
                .filter(|node| !node.has_all(self.config.blocks) && !self.is_comparing(node))
                .collect();
            if lacking.is_empty() {
                continue;
            }
            // Survivors first, then the late ones; those that lack least first among each.
            lacking.sort_by_key(|node| (node.moved, node.late, self.config.blocks - node.durable.count(), node.id));
            let mut blocks = BlockSet::empty(self.config.blocks);
            lacking.iter().for_each(|node| blocks.union(&node.durable.complement()));
            let ids: Vec<NodeId> = lacking.iter().map(|node| node.id).collect();
            for id in &ids {
                self.leave(*id);
            }
            self.pass += 1;
            self.passed = now;
            let chain = self.new_chain(card, ids, blocks, self.pass);
            for (position, id) in (1u16..).zip(self.chains[chain].nodes.clone()) {
                let number = u16::try_from(chain).unwrap_or(u16::MAX);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.place.get_or_insert(Place { chain: number, position });
                }
            }
        }
    }

    /// Takes a node out of its chain because it goes on in another.
    pub(super) fn leave(&mut self, id: NodeId) {
        let Some(chain) = self.nodes.get_mut(&id).and_then(|node| node.chain.take()) else { return };
        self.chains[chain].nodes.retain(|node| *node != id);
        self.order(chain);
    }

    /// Sends `finish` to every ended node that nobody below it needs any more, and stops feeds that nobody needs.
    pub(super) fn release_done(&mut self) {
        let deployment = self.config.prepare.deployment;
        let then = self.config.prepare.then;
        let mut finish = Vec::new();
        for chain in 0..self.chains.len() {
            let mut below_runs = false;
            for id in self.chains[chain].nodes.iter().rev() {
                let Some(node) = self.nodes.get(id) else { continue };
                // A running node may still fetch a block that was read back wrong: it needs its upstream to the end.
                below_runs |= node.is_running();
                if node.outcome().is_some() && !below_runs && !node.finished {
                    finish.push(*id);
                }
            }
            if !below_runs && self.chains[chain].feed.take().is_some() {
                let chain = u16::try_from(chain).unwrap_or(u16::MAX);
                self.events.push_back(DeploymentEvent::StopFeed { chain });
            }
        }
        let alone = self.nodes().filter(|node| node.chain.is_none() && !node.finished && node.outcome().is_some());
        finish.extend(alone.map(|node| node.id));
        for id in finish {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            node.finished = true;
            let failed = node.outcome().is_some_and(|outcome| outcome.reason == Reason::NodeLost);
            if node.connected && !failed {
                self.orders.push_back((id, ToAgent::Finish(Finish { deployment, then })));
            }
        }
    }
}

/// One number that rises with every order a node may get: passes outweigh the changes within a chain.
fn overall(pass: u32, epoch: Epoch) -> Epoch {
    Epoch(u64::from(pass) << 32 | epoch.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_pass_outweighs_any_number_of_changes() {
        assert!(overall(2, Epoch(1)) > overall(1, Epoch(u64::from(u32::MAX))));
    }
}
