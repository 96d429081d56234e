//! The topology: which chains there are, which node stands where, and with which orders. It knows no time-outs, no messages and
//! no reasons: [`super::Deployment`] decides what changes, and is given the orders that follow.
//!
//! Only the server changes a chain, and every change raises that chain's epoch.

mod chain;
mod close;
mod seat;
#[cfg(test)]
mod tests;

pub(super) use chain::{Chain, Phase};
pub(super) use close::{Closed, FeedChange, number};
pub(super) use seat::{Arrival, Rank, Seat, TakenIn};

use crate::bug::{self, Bug};
use crate::plan::CardId;
use crate::set::BlockSet;
use crate::units::{DeploymentId, Epoch, NodeId, Time};
use core::time::Duration;
use std::collections::BTreeMap;

/// The seat of every node that no chain ever had.
static NO_SEAT: Seat = Seat::new();

/// Chains and seats.
#[derive(Debug)]
pub(super) struct Topology {
    deployment: DeploymentId,
    /// From this all link keys are derived.
    secret: [u8; 32],
    chains: Vec<Chain>,
    seats: BTreeMap<NodeId, Seat>,
    /// The newest pass; the main pass is 1.
    pass: u32,
}

/// What a node left behind in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) chain: usize,
    /// The node that stands in its place now.
    pub(super) successor: Option<NodeId>,
    /// The epoch that the order which closes the gap will have at least.
    pub(super) epoch: Epoch,
}

/// A chain that is to be formed.
#[derive(Debug)]
pub(super) struct NewChain {
    pub(super) card: CardId,
    pub(super) nodes: Vec<NodeId>,
    pub(super) blocks: BlockSet,
    pub(super) pass: u32,
    pub(super) phase: Phase,
}

/// One number that rises with every order that a node may get: passes outweigh the changes within a chain, because nodes compare
/// epochs across chains.
fn overall(pass: u32, change: u64) -> Epoch {
    let pass = if bug::is(Bug::PassOutranked) { 1 } else { pass };
    Epoch(u64::from(pass) << 32 | change)
}

impl Topology {
    pub(super) fn new(deployment: DeploymentId, secret: [u8; 32]) -> Self {
        Self { deployment, secret, chains: Vec::new(), seats: BTreeMap::new(), pass: 0 }
    }

    /// The newest pass.
    pub(super) fn pass(&self) -> u32 {
        self.pass
    }

    /// Later passes have higher numbers than this.
    pub(super) fn raise_pass(&mut self, by: u32) {
        self.pass += by;
    }

    /// How many chains there are and were.
    pub(super) fn len(&self) -> usize {
        self.chains.len()
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter()
    }

    /// A chain by a number from outside.
    pub(super) fn get(&self, number: u16) -> Option<&Chain> {
        self.chains.get(usize::from(number))
    }

    /// A chain that there is.
    pub(super) fn chain(&self, chain: usize) -> &Chain {
        &self.chains[chain]
    }

    pub(super) fn seat(&self, id: NodeId) -> &Seat {
        self.seats.get(&id).unwrap_or(&NO_SEAT)
    }

    fn seat_mut(&mut self, id: NodeId) -> &mut Seat {
        self.seats.entry(id).or_insert_with(Seat::new)
    }

    /// The node's record is no more.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.seats.remove(&id);
    }

    /// The chain that a node stands in.
    pub(super) fn chain_of(&self, id: NodeId) -> Option<&Chain> {
        self.seat(id).chain().map(|chain| &self.chains[chain])
    }

    pub(super) fn are_neighbours(&self, upstream: NodeId, downstream: NodeId) -> bool {
        let Some(chain) = self.chain_of(downstream) else { return false };
        let at = chain.position(downstream);
        at.is_some_and(|at| at.checked_sub(1).map_or(NodeId::SERVER, |above| chain.nodes[above]) == upstream)
    }

    /// The nodes next to this one in its chain.
    pub(super) fn around(&self, id: NodeId) -> Vec<NodeId> {
        let Some(chain) = self.chain_of(id) else { return Vec::new() };
        let Some(at) = chain.position(id) else { return Vec::new() };
        let around = [at.checked_sub(1), at.checked_add(1)];
        around.into_iter().flatten().filter_map(|at| chain.nodes.get(at).copied()).collect()
    }

    /// Forms a chain; the caller closes it. Gives its number, and what ended for its nodes.
    pub(super) fn form(&mut self, new: NewChain) -> (usize, Vec<TakenIn>) {
        let chain = self.chains.len();
        let NewChain { card, nodes, blocks, pass, phase } = new;
        let mut taken_in = Vec::with_capacity(nodes.len());
        for id in &nodes {
            if let Phase::Comparing { of_plan: false, .. } = phase {
                self.seat_mut(*id).compare_in(chain);
            } else {
                taken_in.push(self.take_in(*id, chain));
            }
        }
        self.chains.push(Chain { card, pass, change: 0, core: nodes.len(), nodes, feed: None, blocks, phase });
        (chain, taken_in)
    }

    fn take_in(&mut self, node: NodeId, chain: usize) -> TakenIn {
        let (arrival, waited) = self.seat_mut(node).take_in(chain);
        TakenIn { node, arrival, waited }
    }

    /// Takes a node out of its chain, which the caller closes.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<Gap> {
        let chain = self.seats.get_mut(&id)?.leave()?;
        let state = &mut self.chains[chain];
        let at = state.position(id)?;
        state.nodes.remove(at);
        state.core -= usize::from(at < state.core);
        let (successor, epoch) = (state.nodes.get(at).copied(), overall(state.pass, state.change + 1));
        Some(Gap { chain, successor, epoch })
    }

    /// Where a node that comes to a running chain is to stand: behind the core, slow ones behind all others, and behind everybody
    /// those that `corrupt` what they send. Gives how many stand before it.
    pub(super) fn place_behind(&self, chain: usize, node: NodeId, corrupts: impl Fn(NodeId) -> bool) -> usize {
        let state = &self.chains[chain];
        let order = |id: NodeId| (corrupts(id), self.seat(id).rank == Rank::Slow);
        let before = |id: &&NodeId| order(**id) <= order(node);
        state.core + state.followers().iter().take_while(before).count()
    }

    /// Puts a node that stands in no chain behind the core of one; the caller closes it. Gives how many stand before it, and what
    /// ended for it.
    pub(super) fn append(&mut self, chain: usize, id: NodeId, corrupts: impl Fn(NodeId) -> bool) -> (usize, TakenIn) {
        let at = self.place_behind(chain, id, corrupts);
        self.chains[chain].nodes.insert(at, id);
        (at, self.take_in(id, chain))
    }

    /// Makes the tail a follower. Its neighbours stay: only what its link may ask for is less. Gives whether it was the tail.
    pub(super) fn demote_tail(&mut self, chain: usize, id: NodeId) -> bool {
        let state = &mut self.chains[chain];
        let (tail, core) = (state.nodes.last() == Some(&id), state.core().contains(&id));
        state.core -= usize::from(tail && core);
        tail
    }

    /// Makes a follower one of those that pace the chain, the last of them. Gives whether it was a follower.
    pub(super) fn join_core(&mut self, chain: usize, id: NodeId) -> bool {
        let state = &mut self.chains[chain];
        let Some(at) = state.position(id).filter(|at| *at >= state.core) else { return false };
        state.nodes.remove(at);
        state.nodes.insert(state.core, id);
        state.core += 1;
        true
    }

    /// Lets two neighbours of one rank change places, with new links; gives the chain if that could be. Followers stay followers.
    pub(super) fn swap(&mut self, upper: NodeId, lower: NodeId) -> Option<usize> {
        let chain = self.seat(lower).chain()?;
        let alike = (self.seat(upper).rank == Rank::Slow) == (self.seat(lower).rank == Rank::Slow);
        let state = &mut self.chains[chain];
        let at = state.position(lower).filter(|at| *at != 0 && *at != state.core && alike)?;
        state.nodes.swap(at - 1, at);
        self.renew_link(upper);
        self.renew_link(lower);
        Some(chain)
    }

    /// The next order makes the link from its upstream to this node anew.
    pub(super) fn renew_link(&mut self, id: NodeId) {
        self.seat_mut(id).link = None;
    }

    /// From now on the chain has no feed; gives the head that it was for.
    pub(super) fn drop_feed(&mut self, chain: usize) -> Option<NodeId> {
        self.chains.get_mut(chain)?.feed.take().map(|terms| terms.to)
    }

    /// See [`Chain::settle`].
    pub(super) fn settle(&mut self, chain: usize, core_settled: bool, linger: Duration, now: Time) {
        self.chains[chain].settle(core_settled, linger, now);
    }

    /// The nodes of a chain have compared; their next links are new. A chain of the plan goes on with the main pass. Gives whether
    /// it is one.
    pub(super) fn end_comparing(&mut self, chain: usize) -> bool {
        let state = &mut self.chains[chain];
        let of_plan = matches!(state.phase, Phase::Comparing { of_plan: true, .. });
        state.phase = Phase::Flowing;
        if of_plan {
            (state.pass, state.feed) = (1, None);
        }
        for id in state.nodes.clone() {
            self.renew_link(id);
        }
        of_plan
    }

    /// From now on a node is served after those of a lower rank. A rank is never lowered by this.
    pub(super) fn rank_behind(&mut self, id: NodeId, rank: Rank) {
        let seat = self.seat_mut(id);
        seat.rank = seat.rank.max(rank);
    }

    /// A node is served with the first again.
    pub(super) fn rank_first(&mut self, id: NodeId) {
        self.seat_mut(id).rank = Rank::First;
    }

    /// Another upstream than this one is to serve the node.
    pub(super) fn avoid(&mut self, id: NodeId, upstream: NodeId) {
        self.seat_mut(id).avoid = Some(upstream);
    }

    /// A node came late or is back.
    pub(super) fn arrive(&mut self, id: NodeId, arrival: Arrival) {
        self.seat_mut(id).arrive(arrival);
    }

    /// A node that stands in no chain waits for a pass of its own.
    pub(super) fn wait(&mut self, id: NodeId) {
        self.seat_mut(id).wait();
    }
}
