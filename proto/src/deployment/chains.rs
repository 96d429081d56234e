//! Chains: the plan made real, closed around the lost, and formed anew for whoever still lacks something.
//!
//! Only the server changes a chain, and every change raises that chain's epoch. The orders of a change go out from the tail
//! to the head, so that a downstream knows who will call before it is called. A link whose two ends stay neighbours keeps
//! its key and lives on.

use super::comparing::Comparing;
use super::slow::Paces;
use super::{Deployment, DeploymentEvent, Place, Stage, Standing};
use crate::bug::{self, Bug};
use crate::control::{Join, LinkSpec, ToAgent};
use crate::link::Terms;
use crate::plan::{CardId, Plan, PlanNode, plan};
use crate::reason::LinkClass;
use crate::set::BlockSet;
use crate::units::{Epoch, LinkKey, NodeId, Time};
use core::time::Duration;
use std::net::SocketAddr;

/// A chain as it stands.
#[derive(Debug)]
pub(super) struct ChainState {
    card: CardId,
    pub(super) pass: u32,
    epoch: Epoch,
    pub(super) nodes: Vec<NodeId>,
    /// How many of them, from the head on, pace the chain. The others follow: they take what they can.
    core: usize,
    /// The terms of the feed that was asked for last; nothing when no feed is needed.
    pub(super) feed: Option<Terms>,
    /// What the feed has to send.
    blocks: BlockSet,
    /// In pass 0: how long it may take, and whether it is a chain of the plan, which then goes on to the main pass.
    pub(super) comparing: Option<Comparing>,
    /// Since when nothing more comes to the core.
    settled: Option<Time>,
    /// Nothing more comes down the chain.
    through: bool,
    /// Who was slow.
    pub(super) paces: Paces,
}

impl ChainState {
    pub(super) fn card(&self) -> &CardId {
        &self.card
    }

    pub(super) fn pass(&self) -> u32 {
        self.pass
    }

    /// The epoch as nodes know it.
    pub(super) fn epoch(&self) -> Epoch {
        overall(self.pass, self.epoch)
    }

    pub(super) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    pub(super) fn core(&self) -> &[NodeId] {
        &self.nodes[..self.core]
    }

    pub(super) fn followers(&self) -> &[NodeId] {
        &self.nodes[self.core..]
    }

    pub(super) fn has_feed(&self) -> bool {
        self.feed.is_some()
    }

    /// From now on there is no feed; gives the head that it was for.
    pub(super) fn drop_feed(&mut self) -> Option<NodeId> {
        self.feed.take().map(|terms| terms.to)
    }

    pub(super) fn is_through(&self) -> bool {
        self.through
    }

    pub(super) fn set_through(&mut self, through: bool) {
        self.through = through;
    }

    pub(super) fn set_settled(&mut self, settled: bool, now: Time) {
        self.settled = settled.then(|| self.settled.unwrap_or(now));
    }

    pub(super) fn settled_for(&self, span: Duration, now: Time) -> bool {
        self.settled.is_some_and(|since| now.since(since) >= span)
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
            let chain = self.new_chain(planned.card, planned.nodes, blocks, pass, now);
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
        let (card, address, rotational) = (node.card.clone(), node.address, ready.rotational);
        Some(PlanNode { node: id, card, address, mbits: node.mbits(), rotational })
    }

    /// Forms a chain in `pass` and orders it.
    pub(super) fn new_chain(
        &mut self,
        card: CardId,
        nodes: Vec<NodeId>,
        blocks: BlockSet,
        pass: u32,
        now: Time,
    ) -> usize {
        let chain = self.chains.len();
        for id in &nodes {
            if let Some(node) = self.nodes.get_mut(id) {
                (node.chain, node.reported) = (Some(chain), now);
                if let Standing::Ready(ready) = &node.standing {
                    node.standing = Standing::Running(ready.clone());
                }
            }
        }
        self.chains.push(ChainState {
            card,
            pass,
            epoch: Epoch(0),
            core: nodes.len(),
            nodes,
            feed: None,
            blocks,
            settled: None,
            through: false,
            comparing: None,
            paces: Paces::default(),
        });
        self.order(chain);
        chain
    }

    /// Raises the epoch and tells every node whose neighbours are new.
    pub(super) fn order(&mut self, chain: usize) {
        // A node that comes from another chain of the same pass must see its epoch rise, too.
        let joins = self.chains[chain].nodes.iter().filter_map(|id| self.nodes.get(id)?.last_join.as_ref());
        let (here, pass) = (chain, self.chains[chain].pass);
        let others = joins.filter(|join| usize::from(join.chain) != here && join.pass == pass);
        let highest = others.map(|join| join.epoch.0 & u64::from(u32::MAX)).max().unwrap_or(0);
        let state = &mut self.chains[chain];
        state.epoch = Epoch(state.epoch.0.max(highest) + 1);
        self.unsaved = true;
        let (epoch, pass) = (state.epoch, state.pass);
        // Whoever was told to finish is gone, or will be when it hears it: nobody is linked to it any more.
        let there = |id: &NodeId| self.nodes.get(id).is_some_and(|node| !node.finished);
        let state = &self.chains[chain];
        let core = state.nodes.iter().take(state.core).filter(|id| there(id)).count();
        let ids: Vec<NodeId> = state.nodes.iter().copied().filter(there).collect();
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
                let class = if at == 0 || at < core { LinkClass::Paced } else { LinkClass::Follower };
                Some(LinkSpec { node: *id, address, key, class })
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
                // Where a node calls from; the server's own address is known to the node.
                upstream: LinkSpec {
                    node: upstream,
                    address: at.checked_sub(1).map_or(spec.address, |before| specs[before].address),
                    ..spec.clone()
                },
                downstream: specs.get(at + 1).cloned(),
            };
            let Some(node) = self.nodes.get_mut(&spec.node) else { continue };
            let same = node.last_join.as_ref().is_some_and(|old| {
                old.chain == join.chain && old.upstream == join.upstream && old.downstream == join.downstream
            });
            node.on_served_by(upstream);
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

    pub(super) fn are_neighbours(&self, upstream: NodeId, downstream: NodeId) -> bool {
        let Some(chain) = self.nodes.get(&downstream).and_then(|node| node.chain) else { return false };
        let nodes = &self.chains[chain].nodes;
        let at = nodes.iter().position(|node| *node == downstream);
        at.is_some_and(|at| at.checked_sub(1).map_or(NodeId::SERVER, |above| nodes[above]) == upstream)
    }

    /// Takes a node out of its chain. The caller orders the chain anew. Gives the chain, and who stands in its place now.
    pub(super) fn take_out(&mut self, id: NodeId, now: Time) -> Option<(usize, Option<NodeId>)> {
        let node = self.nodes.get_mut(&id)?;
        // If it comes back to the same upstream, that is another link.
        node.link_epoch = Epoch(0);
        let chain = node.chain.take()?;
        let state = &mut self.chains[chain];
        let at = state.nodes.iter().position(|node| *node == id)?;
        state.nodes.remove(at);
        state.core -= usize::from(at < state.core);
        let successor = state.nodes.get(at).copied();
        let next = overall(state.pass, Epoch(state.epoch.0 + 1));
        self.hand_on_repairs(id, successor, next, now);
        Some((chain, successor))
    }

    /// Takes a node out of its chain and joins its neighbours. Gives the chain, and who stands in its place now.
    pub(super) fn splice_out(&mut self, id: NodeId, now: Time) -> Option<(usize, Option<NodeId>)> {
        let (chain, successor) = self.take_out(id, now)?;
        if let Some(node) = successor.and_then(|id| self.nodes.get_mut(&id)) {
            node.repairs += 1;
        }
        if bug::is(Bug::SpliceForgotten) {
            return Some((chain, successor));
        }
        self.order(chain);
        Some((chain, successor))
    }

    /// Where a node that comes to a running chain is to stand: behind the core, slow ones behind all others, and behind everybody
    /// those that damage what they send.
    pub(super) fn place_behind(&self, chain: usize, node: NodeId) -> usize {
        let state = &self.chains[chain];
        let rank = |id: NodeId| (self.blame.is_guilty(id), self.nodes.get(&id).is_some_and(|node| node.moved));
        let before = |id: &&NodeId| rank(**id) <= rank(node);
        state.core + state.followers().iter().take_while(before).count()
    }

    /// Puts a node behind the core of a chain; the caller orders the chain anew. Gives how many stand before it.
    pub(super) fn insert_behind(&mut self, chain: usize, id: NodeId) -> usize {
        let at = self.place_behind(chain, id);
        self.chains[chain].nodes.insert(at, id);
        self.nodes.entry(id).and_modify(|node| node.chain = Some(chain));
        at
    }

    /// Makes a follower one of those that pace the chain, the last of them.
    pub(super) fn join_core(&mut self, chain: usize, id: NodeId) {
        let state = &mut self.chains[chain];
        let Some(at) = state.nodes.iter().position(|node| *node == id).filter(|at| *at >= state.core) else { return };
        state.nodes.remove(at);
        state.nodes.insert(state.core, id);
        state.core += 1;
        self.order(chain);
    }

    /// Moves a node behind the tail. Gives who stands in its place now.
    pub(super) fn put_behind(&mut self, chain: usize, id: NodeId, now: Time) -> Option<NodeId> {
        let state = &self.chains[chain];
        let (tail, core) = (state.nodes.last() == Some(&id), state.core().contains(&id));
        let node = self.nodes.get_mut(&id)?;
        (node.moved, node.behind, node.moved_on) = (true, true, now);
        let successor = if tail {
            // Its neighbours stay: only what its link may ask for is less.
            self.chains[chain].core -= usize::from(core);
            None
        } else {
            let (_, successor) = self.take_out(id, now)?;
            if let Some(node) = successor.and_then(|id| self.nodes.get_mut(&id)) {
                node.repairs += 1;
            }
            self.insert_behind(chain, id);
            successor
        };
        self.order(chain);
        successor
    }
}

/// One number that rises with every order a node may get: passes outweigh the changes within a chain.
fn overall(pass: u32, epoch: Epoch) -> Epoch {
    let pass = if bug::is(Bug::PassOutranked) { 1 } else { pass };
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
