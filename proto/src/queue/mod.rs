//! Which of the deployments that could begin do: those whose chains fit the server's cards beside what runs there, in the order in which
//! they were asked for.
//!
//! There are no slots. Only a deployment whose nodes are ready is in the queue, so one whose machines never come holds up nobody. A
//! deployment that does not fit keeps its cards from all that were asked for later: many small ones never keep a large one waiting for ever.
//!
//! The caller says what is ready ([`Queue::on_ready`]), begins what [`Queue::poll`] gives, and says what is over.

#[cfg(test)]
mod tests;

use crate::plan::{CardId, Plan, PlanCard, PlanNode};
use crate::units::DeploymentId;
use core::fmt;
use std::collections::BTreeMap;

/// What a deployment takes of each card.
pub type Load = BTreeMap<CardId, Share>;

/// What a deployment takes of one card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// So many Mbit/s, at most.
    Mbits(u32),
    /// All of it, or a part that nobody knows: no other deployment fits beside it.
    Whole,
}

/// Why a deployment that is ready does not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The card on which it does not fit.
    pub card: CardId,
    /// Another deployment that uses this card, or that was asked for earlier and waits for it.
    pub other: DeploymentId,
    /// The other one runs.
    pub runs: bool,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { card, other, runs } = self;
        let what = if *runs { "uses it" } else { "was asked for earlier and waits for it" };
        write!(f, "waits for {card}: deployment {other} {what}")
    }
}

#[derive(Debug)]
struct Entry {
    id: DeploymentId,
    load: Load,
    runs: bool,
}

/// The deployments that are ready or run.
#[derive(Debug, Default)]
pub struct Queue {
    /// The speed of each card in Mbit/s, where it is known.
    cards: BTreeMap<CardId, u32>,
    /// By the order in which they were asked for.
    entries: BTreeMap<u64, Entry>,
}

impl Queue {
    /// An empty queue in front of these cards.
    #[must_use]
    pub fn new(cards: &[PlanCard]) -> Self {
        let known = cards.iter().filter(|card| card.mbits != 0);
        Self { cards: known.map(|card| (card.card.clone(), card.mbits)).collect(), entries: BTreeMap::new() }
    }

    /// What a deployment with this plan takes. A chain takes of its card what the slowest link of its nodes takes; where that is not
    /// known, or as fast as the card, it takes the whole card.
    #[must_use]
    pub fn load(&self, plan: &Plan, nodes: &[PlanNode]) -> Load {
        let mut load = Load::new();
        for chain in &plan.chains {
            let links =
                chain.nodes.iter().map(|id| nodes.iter().find(|node| node.node == *id).map_or(0, |node| node.mbits));
            let slowest = links.min().unwrap_or(0);
            let before = load.get(&chain.card).copied().unwrap_or(Share::Mbits(0));
            let share = match (before, self.cards.get(&chain.card)) {
                (Share::Mbits(before), Some(card)) if slowest != 0 && before.saturating_add(slowest) < *card => {
                    Share::Mbits(before + slowest)
                }
                _ => Share::Whole,
            };
            load.insert(chain.card.clone(), share);
        }
        load
    }

    /// The nodes of a deployment are ready, and it would take this of the cards. `order` is its place among all: what was asked for
    /// earlier has a lower one. One that is known already has other nodes now.
    pub fn on_ready(&mut self, order: u64, id: DeploymentId, load: Load) {
        match self.entries.get_mut(&order) {
            Some(entry) if entry.runs => {}
            Some(entry) => entry.load = load,
            None => drop(self.entries.insert(order, Entry { id, load, runs: false })),
        }
    }

    /// A deployment runs without having been asked: an earlier run of the server began it.
    pub fn on_running(&mut self, order: u64, id: DeploymentId, load: Load) {
        self.entries.insert(order, Entry { id, load, runs: true });
    }

    /// The nodes of a deployment are not ready any longer, or it is over.
    pub fn on_gone(&mut self, order: u64) {
        self.entries.remove(&order);
    }

    /// The next deployment that begins now; it runs from here on.
    pub fn poll(&mut self) -> Option<DeploymentId> {
        let begins = self.entries.iter().find(|(order, entry)| !entry.runs && self.hindrance(**order, entry).is_none());
        let order = *begins?.0;
        let entry = self.entries.get_mut(&order)?;
        entry.runs = true;
        Some(entry.id)
    }

    /// Whether the deployment with this place runs.
    #[must_use]
    pub fn runs(&self, order: u64) -> bool {
        self.entries.get(&order).is_some_and(|entry| entry.runs)
    }

    /// Why this deployment does not begin; nothing if it is not in the queue, runs, or begins now.
    #[must_use]
    pub fn waits(&self, order: u64) -> Option<Waits> {
        let entry = self.entries.get(&order).filter(|entry| !entry.runs)?;
        self.hindrance(order, entry)
    }

    /// The first card on which a deployment does not fit beside those that run and those that were asked for earlier.
    fn hindrance(&self, order: u64, entry: &Entry) -> Option<Waits> {
        entry.load.iter().find_map(|(card, share)| {
            let beside = |other: &&Entry| other.load.contains_key(card);
            let running = || self.entries.values().filter(|other| other.runs).filter(beside);
            let mut earlier = self.entries.range(..order).map(|(_, other)| other).filter(|other| !other.runs);
            let waits = |other: &Entry, runs| Waits { card: card.clone(), other: other.id, runs };
            if let Some(other) = earlier.find(beside) {
                return Some(waits(other, false));
            }
            let taken = running().try_fold(0_u32, |sum, other| match other.load.get(card) {
                Some(Share::Mbits(mbits)) => sum.checked_add(*mbits),
                Some(Share::Whole) | None => None,
            });
            let fits = match (share, taken, self.cards.get(card)) {
                (_, Some(0), _) => true,
                (Share::Mbits(mbits), Some(taken), Some(speed)) => taken.saturating_add(*mbits) <= *speed,
                _ => false,
            };
            if fits { None } else { running().next().map(|other| waits(other, true)) }
        })
    }
}
