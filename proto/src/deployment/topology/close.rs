//! Closing a chain: the orders and the feed that make its links what its row of nodes says.
//!
//! The orders of a change go out from the tail to the head, so that a downstream knows who will call before it is called. A link
//! whose two ends stay neighbours keeps its key and lives on.

use super::{Seat, Topology};
use crate::control::{Join, LinkSpec};
use crate::link::Terms;
use crate::reason::LinkClass;
use crate::set::BlockSet;
use crate::units::{Epoch, LinkKey, NodeId};
use std::net::SocketAddr;

/// What follows from a change of a chain.
#[derive(Debug)]
pub(in crate::deployment) struct Closed {
    /// The orders that are new, the tail's first.
    pub(in crate::deployment) joins: Vec<(NodeId, Join)>,
    pub(in crate::deployment) feed: FeedChange,
}

/// What becomes of the feed of a chain.
#[derive(Debug)]
pub(in crate::deployment) enum FeedChange {
    /// It stays as it is.
    Keep,
    /// There is no head any more.
    Stop,
    /// The head is another one, or its link is.
    Start { terms: Terms, address: SocketAddr, blocks: BlockSet },
}

impl Topology {
    /// Raises the epoch of a chain and gives the orders for every node whose neighbours are new. `address` says where a node
    /// listens; none: it was told to finish, and nobody is linked to it any more.
    pub(in crate::deployment) fn close(
        &mut self,
        chain: usize,
        address: impl Fn(NodeId) -> Option<SocketAddr>,
    ) -> Closed {
        self.raise_epoch(chain);
        let there: Vec<(NodeId, SocketAddr)> =
            self.chains[chain].nodes.iter().filter_map(|id| Some((*id, address(*id)?))).collect();
        let core = self.chains[chain].core().iter().filter(|id| address(**id).is_some()).count();
        let specs = self.link_specs(chain, &there, core);
        let joins = self.new_joins(chain, &specs);
        let feed = self.change_feed(chain, specs.into_iter().next());
        Closed { joins, feed }
    }

    /// A node that comes from another chain of the same pass must see its epoch rise, too.
    fn raise_epoch(&mut self, chain: usize) {
        let state = &self.chains[chain];
        let joins = state.nodes.iter().filter_map(|id| self.seat(*id).join());
        let others = joins.filter(|join| usize::from(join.chain) != chain && join.pass == state.pass);
        let highest = others.map(|join| join.epoch.0 & u64::from(u32::MAX)).max().unwrap_or(0);
        let state = &mut self.chains[chain];
        state.change = state.change.max(highest) + 1;
    }

    /// The upstream link of every node, with a new key where its upstream is another one.
    fn link_specs(&mut self, chain: usize, there: &[(NodeId, SocketAddr)], core: usize) -> Vec<LinkSpec> {
        let change = Epoch(self.chains[chain].change);
        let mut upstream = NodeId::SERVER;
        let mut specs = Vec::with_capacity(there.len());
        for (at, (id, address)) in there.iter().enumerate() {
            let seat = self.seats.entry(*id).or_insert_with(Seat::new);
            let kept = seat.link.filter(|_| {
                seat.join
                    .as_ref()
                    .is_some_and(|join| usize::from(join.chain) == chain && join.upstream.node == upstream)
            });
            let epoch = kept.unwrap_or(change);
            seat.link = Some(epoch);
            let class = if at == 0 || at < core { LinkClass::Paced } else { LinkClass::Follower };
            let key = self.link_key(chain, epoch, upstream, *id);
            specs.push(LinkSpec { node: *id, address: *address, key, class });
            upstream = *id;
        }
        specs
    }

    /// The orders that are not the same as those that the nodes have.
    fn new_joins(&mut self, chain: usize, specs: &[LinkSpec]) -> Vec<(NodeId, Join)> {
        let (pass, epoch) = (self.chains[chain].pass, self.chains[chain].epoch());
        let mut joins = Vec::new();
        for (at, spec) in specs.iter().enumerate().rev() {
            let upstream = at.checked_sub(1).map(|above| &specs[above]);
            let join = Join {
                deployment: self.deployment,
                epoch,
                pass,
                chain: number(chain),
                position: u16::try_from(at + 1).unwrap_or(u16::MAX),
                chain_len: u16::try_from(specs.len()).unwrap_or(u16::MAX),
                upstream: LinkSpec {
                    node: upstream.map_or(NodeId::SERVER, |above| above.node),
                    // The server's own address is known to the node.
                    address: upstream.map_or(spec.address, |above| above.address),
                    ..spec.clone()
                },
                downstream: specs.get(at + 1).cloned(),
            };
            let seat = self.seats.entry(spec.node).or_insert_with(Seat::new);
            seat.serve_by(join.upstream.node);
            let same = seat.join.as_ref().is_some_and(|old| {
                old.chain == join.chain && old.upstream == join.upstream && old.downstream == join.downstream
            });
            if !same {
                seat.join = Some(join.clone());
                joins.push((spec.node, join));
            }
        }
        joins
    }

    fn change_feed(&mut self, chain: usize, head: Option<LinkSpec>) -> FeedChange {
        let epoch = self.chains[chain].epoch();
        let state = &mut self.chains[chain];
        let Some(head) = head else {
            return if state.feed.take().is_some() { FeedChange::Stop } else { FeedChange::Keep };
        };
        if state.feed.as_ref().is_some_and(|terms| terms.to == head.node && terms.key == head.key) {
            return FeedChange::Keep;
        }
        let terms = Terms {
            deployment: self.deployment,
            epoch,
            pass: state.pass,
            from: NodeId::SERVER,
            to: head.node,
            key: head.key,
            class: head.class,
        };
        state.feed = Some(terms.clone());
        FeedChange::Start { terms, address: head.address, blocks: state.blocks.clone() }
    }

    /// The key of one link: nobody who was not given it can derive it.
    fn link_key(&self, chain: usize, epoch: Epoch, from: NodeId, to: NodeId) -> LinkKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(b"slidecast link key 1").update(&(chain as u64).to_le_bytes());
        hasher.update(&epoch.0.to_le_bytes()).update(&from.0.to_le_bytes()).update(&to.0.to_le_bytes());
        LinkKey(*hasher.finalize().as_bytes())
    }
}

/// The number of a chain on the wire.
pub(in crate::deployment) fn number(chain: usize) -> u16 {
    u16::try_from(chain).unwrap_or(u16::MAX)
}
