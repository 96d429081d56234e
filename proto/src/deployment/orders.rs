//! Changes of chains: what the deployment decides, the topology makes real, and nodes and feeds are told.

use super::repairs::Entry;
use super::resume::Resumption;
use super::roster::Member;
use super::timers::{MIN_PASS_INTERVAL, Timer};
use super::topology::{Closed, FeedChange, Gap, NewChain, Phase, Rank, TakenIn, number};
use super::{Deployment, DeploymentEvent, Place, RepairKind, Stage, Standing};
use crate::bug::{self, Bug};
use crate::control::ToAgent;
use crate::plan::{CardId, Plan, PlanNode, plan};
use crate::set::BlockSet;
use crate::units::{Epoch, NodeId, Time};

impl Deployment {
    /// The chains that there would be if it started now, with all who are ready.
    #[must_use]
    pub fn plan_now(&self) -> Plan {
        let nodes: Vec<PlanNode> = self.roster.ids().filter_map(|id| self.plan_node(id)).collect();
        plan(&self.config.cards, &nodes, &self.config.limits)
    }

    /// Fixes the plan and sends the orders.
    pub(super) fn arm(&mut self, now: Time) {
        let plan = self.plan_now();
        self.stage = Stage::Running;
        self.resumption = Resumption::No;
        self.fixed = Some(now);
        self.topology.raise_pass(1);
        self.events.push_back(DeploymentEvent::PlanFixed(plan.clone()));
        for planned in plan.chains {
            let compares = planned.nodes.iter().any(|id| self.compares(*id));
            let (pass, phase) = if compares {
                (0, Phase::Comparing { until: self.compares_until(now), of_plan: true })
            } else {
                (self.topology.pass(), Phase::Flowing)
            };
            let (card, nodes) = (planned.card, planned.nodes);
            let blocks = BlockSet::full(self.config.blocks);
            for id in &nodes {
                self.ledger.restart_stall_clock(*id, now);
            }
            self.form(NewChain { card, nodes, blocks, pass, phase }, now);
        }
    }

    pub(super) fn plan_node(&self, id: NodeId) -> Option<PlanNode> {
        let node = self.node(id)?;
        let (Standing::Ready(ready) | Standing::Running(ready)) = node.standing else { return None };
        let (card, address, rotational) = (node.card.clone(), node.address, ready.rotational);
        Some(PlanNode { node: id, card, address, mbits: node.mbits(), rotational })
    }

    /// Forms a chain and sends its orders.
    pub(super) fn form(&mut self, new: NewChain, now: Time) -> usize {
        let chain = number(self.topology.len());
        for (position, id) in (1u16..).zip(&new.nodes) {
            if let Some(node) = self.roster.get_mut(*id) {
                node.place.get_or_insert(Place { chain, position });
                if let Standing::Ready(ready) = &node.standing {
                    node.standing = Standing::Running(ready.clone());
                }
            }
            self.ledger.change(*id, |account| account.reported = now);
        }
        let (chain, taken_in) = self.topology.form(new);
        self.order(chain);
        for taken in taken_in {
            self.on_taken_in(taken, chain, now);
        }
        chain
    }

    /// A chain took a node in, and was ordered: if the node had just come, that is kept for the report.
    fn on_taken_in(&mut self, taken: TakenIn, chain: usize, now: Time) {
        let TakenIn { node, arrival, waited } = taken;
        if waited {
            // Nothing could move on it while it waited.
            self.ledger.restart_stall_clock(node, now);
        }
        if let Some(arrival) = arrival {
            let awaited = self.link_of(chain, Some(node));
            let entry = Entry { kind: arrival.kind, node, detail: "", began: arrival.since, awaited };
            self.repairs.add(entry, now);
        }
    }

    /// Raises the epoch of a chain and tells every node whose neighbours are new.
    pub(super) fn order(&mut self, chain: usize) {
        self.unsaved = true;
        let roster = &self.roster;
        // Whoever was told to finish is gone, or will be when it hears it: nobody is linked to it any more.
        let there = |id| roster.get(id).filter(|node| !node.is_released()).map(Member::listens_at);
        let Closed { joins, feed } = self.topology.close(chain, there);
        for (id, join) in joins {
            if self.roster.get(id).is_some_and(Member::is_connected) {
                self.orders.push_back((id, ToAgent::Join(join)));
            }
        }
        let chain = number(chain);
        match feed {
            FeedChange::Keep => {}
            FeedChange::Stop => self.events.push_back(DeploymentEvent::StopFeed { chain }),
            FeedChange::Start { terms, address, blocks } => {
                self.events.push_back(DeploymentEvent::StartFeed { chain, terms, address, blocks });
            }
        }
    }

    /// The link whose coming up ends a repair of `chain`: that from its upstream to `node`.
    pub(super) fn link_of(&self, chain: usize, node: Option<NodeId>) -> Option<(NodeId, Epoch)> {
        node.map(|node| (node, self.topology.chain(chain).epoch()))
    }

    /// Keeps for the report that `chain` was changed around `node` just now. `awaited` is the node whose upstream link must stand
    /// before blocks flow again.
    pub(super) fn log_repair(
        &mut self,
        kind: RepairKind,
        node: NodeId,
        detail: &str,
        (chain, awaited): (usize, Option<NodeId>),
        now: Time,
    ) {
        let awaited = self.link_of(chain, awaited);
        self.repairs.add(Entry { kind, node, detail, began: now, awaited }, now);
    }

    /// Takes a node out of its chain. The caller orders the chain anew.
    pub(super) fn take_out(&mut self, id: NodeId, now: Time) -> Option<Gap> {
        let gap = self.topology.remove(id)?;
        self.repairs.hand_on(id, gap, now);
        Some(gap)
    }

    /// Takes a node out of its chain and joins its neighbours.
    pub(super) fn splice_out(&mut self, id: NodeId, now: Time) -> Option<Gap> {
        let gap = self.take_out(id, now)?;
        if let Some(node) = gap.successor.and_then(|id| self.roster.get_mut(id)) {
            node.repairs += 1;
        }
        if !bug::is(Bug::SpliceForgotten) {
            self.order(gap.chain);
        }
        Some(gap)
    }

    /// Takes a node out of its chain because it goes on in another.
    pub(super) fn leave(&mut self, id: NodeId, now: Time) {
        if let Some(gap) = self.take_out(id, now) {
            self.order(gap.chain);
        }
    }

    /// Puts a node that stands in no chain behind the core of one, and sends the orders.
    pub(super) fn append(&mut self, chain: usize, id: NodeId, now: Time) {
        let (at, taken) = self.topology.append(chain, id, |id| self.blame.is_guilty(id));
        let position = u16::try_from(at + 1).unwrap_or(u16::MAX);
        if let Some(node) = self.roster.get_mut(id) {
            node.place.get_or_insert(Place { chain: number(chain), position });
        }
        self.order(chain);
        self.on_taken_in(taken, chain, now);
    }

    /// Moves a node behind the tail. Gives the node that stands in its place now.
    pub(super) fn put_behind(&mut self, chain: usize, id: NodeId, now: Time) -> Option<NodeId> {
        self.topology.rank_behind(id, Rank::Slow);
        self.ledger.restart_stall_clock_once(id, now);
        if self.topology.demote_tail(chain, id) {
            self.order(chain);
            return None;
        }
        let gap = self.take_out(id, now)?;
        if let Some(node) = gap.successor.and_then(|id| self.roster.get_mut(id)) {
            node.repairs += 1;
        }
        self.append(chain, id, now);
        gap.successor
    }

    /// Forms a chain of the next pass, for nodes that lack `blocks`.
    pub(super) fn next_pass(&mut self, card: CardId, nodes: Vec<NodeId>, blocks: BlockSet, now: Time) -> usize {
        self.topology.raise_pass(1);
        self.timers.set(Timer::NextPass, now.after(MIN_PASS_INTERVAL));
        let pass = self.topology.pass();
        self.form(NewChain { card, nodes, blocks, pass, phase: Phase::Flowing }, now)
    }
}
