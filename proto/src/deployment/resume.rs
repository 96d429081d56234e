//! A server that was killed and started again: what must be kept for it ([`Saved`]), and how a deployment goes on from there.
//!
//! Agents keep their state for [`HOLD`], call again with the same boot id, and say which deployment they are in and what they
//! hold. Until the first of them has, nothing is resumed: an operator may as well have meant a new deployment. Chains are then
//! formed anew in a pass above all that came before, so that every order outweighs those that the agents know; links get new
//! keys, and say what is lacking, as always.

use super::roster::Member;
use super::stalls::Attention;
use super::topology::{NewChain, Phase, Rank};
use super::{Deployment, DeploymentEvent, NodeRecord, Outcome, Place, Stage, Standing};
use crate::bug::{self, Bug};
use crate::control::{HOLD, Hello, Ready, ToServer};
use crate::plan::{CardId, Plan, PlannedChain, plan};
use crate::reason::{EndState, LookedAt, Reason, Verified};
use crate::set::BlockSet;
use crate::units::{NodeId, Time};
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How long to wait for all that were at work before chains are formed.
const GATHER: Duration = Duration::from_secs(5);
/// How far above the pass that was kept the next one is numbered. A pass can begin before its number is kept where keeping takes
/// longer than half a second; agents would not obey another one with a number that they know. There are at most four in a second.
const UNKEPT: u32 = 64;
/// How long an agent that calls again may take to say what it holds.
const SAY: Duration = Duration::from_secs(3);

/// What is kept of a deployment, for a server that is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The highest pass.
    pub pass: u32,
    /// The highest number of a node.
    pub last_id: u32,
    /// Since the plan was fixed.
    pub elapsed: Duration,
    /// All nodes with a place.
    pub nodes: Vec<SavedNode>,
}

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedNode {
    /// Its number.
    pub id: NodeId,
    /// The run of its agent.
    pub boot: [u8; 16],
    /// Its host name.
    pub hostname: String,
    /// The server's card that it hangs on.
    pub card: CardId,
    /// Its address.
    pub address: IpAddr,
    /// Its place in the plan.
    pub place: Place,
    /// Its target.
    pub ready: Ready,
    /// How it ended, if it has.
    pub end: Option<SavedEnd>,
    /// How often the chain was repaired around it.
    pub repairs: u32,
    /// Whether it was moved behind the tail.
    pub moved: bool,
    /// Whether it came after the start.
    pub late: bool,
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedEnd {
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
    /// After the plan was fixed.
    pub after: Duration,
}

/// Where a node of a deployment that is resumed stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Away {
    /// Here.
    #[default]
    No,
    /// It has not called yet.
    Gone,
    /// It has called, and not said yet what it holds.
    Called(Time),
}

/// A deployment that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    /// Chains are formed at the latest.
    gather: Time,
    gathered: bool,
    /// Whoever is not back by then is lost.
    until: Time,
}

impl Resumed {
    /// The server stood still for so long: whoever is awaited gets that time on top.
    pub(super) fn forgive(&mut self, pause: Duration) {
        (self.gather, self.until) = (self.gather.after(pause), self.until.after(pause));
    }
}

impl SavedNode {
    fn of(node: &NodeRecord<'_>, fixed: Time) -> Option<Self> {
        let (ready, end) = match node.standing {
            Standing::Running(ready) => (ready, None),
            Standing::Ended(outcome) => (&outcome.ready, Some(SavedEnd::of(outcome, fixed))),
            Standing::Preparing | Standing::Ready(_) | Standing::Refused { .. } => return None,
        };
        Some(Self {
            id: node.id,
            boot: node.hello.boot,
            hostname: node.hello.hostname.clone(),
            card: node.card.clone(),
            address: node.address,
            place: node.place?,
            ready: ready.clone(),
            end,
            repairs: node.repairs,
            moved: node.moved,
            late: node.late,
        })
    }

    fn standing(&self, fixed: Time) -> Standing {
        match &self.end {
            None => Standing::Running(self.ready.clone()),
            Some(SavedEnd { state, reason, detail, verified, blocks, last_look, after }) => Standing::Ended(Outcome {
                state: *state,
                reason: *reason,
                detail: detail.clone(),
                verified: *verified,
                blocks: *blocks,
                last_look: *last_look,
                ready: self.ready.clone(),
                at: fixed.after(*after),
            }),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            agent_version: String::new(),
            hostname: self.hostname.clone(),
            boot: self.boot,
            ram_bytes: 0,
            cards: Vec::new(),
            disks: Vec::new(),
            link_port: 0,
            target: String::new(),
        }
    }
}

impl SavedEnd {
    fn of(outcome: &Outcome, fixed: Time) -> Self {
        let Outcome { state, reason, detail, verified, blocks, last_look, at, .. } = outcome.clone();
        Self { state, reason, detail, verified, blocks, last_look, after: at.since(fixed) }
    }
}

impl Deployment {
    /// Another run of the server began this deployment. It goes on as soon as one of its agents is heard that kept its state,
    /// or `at_once`. The time must be able to reach back to its beginning: `now` at least [`Saved::elapsed`].
    pub fn expect_back(&mut self, saved: Saved, at_once: bool, now: Time) {
        self.attention = Attention::new(now);
        self.last_id = self.last_id.max(saved.last_id);
        self.saved = Some(saved);
        if at_once {
            self.resume(now);
        }
    }

    /// What must be kept so that another run of the server can go on; nothing before the plan is fixed.
    #[must_use]
    pub fn saved(&self, now: Time) -> Option<Saved> {
        let fixed = self.fixed?;
        let nodes = self.nodes().filter_map(|node| SavedNode::of(&node, fixed)).collect();
        Some(Saved { pass: self.topology.pass(), last_id: self.last_id, elapsed: now.since(fixed), nodes })
    }

    /// Whether something of [`Self::saved`] but the time is new since this was asked for last. It must be kept before an order
    /// goes out.
    pub fn take_unsaved(&mut self) -> bool {
        core::mem::take(&mut self.unsaved)
    }

    /// A run of an agent that the other server knew has called: the number that it has in its deployment.
    pub(super) fn expected(&self, boot: &[u8; 16]) -> Option<NodeId> {
        let saved = self.saved.as_ref()?;
        saved.nodes.iter().find(|node| node.boot == *boot).map(|node| node.id)
    }

    /// A node of a deployment that is resumed has said something: does it show that it kept its state?
    pub(super) fn hear_returned(&mut self, id: NodeId, message: &ToServer, now: Time) {
        let deployment = self.config.prepare.deployment;
        let ours = match message {
            ToServer::Progress(progress) => progress.deployment == deployment,
            ToServer::Ended(ended) => ended.deployment == deployment,
            _ => false,
        };
        let Some(node) = self.roster.get_mut(id).filter(|node| ours && node.away != Away::No) else { return };
        (node.away, node.moved_on, node.gone) = (Away::No, now, None);
        if self.saved.is_some() {
            self.resume(now);
        } else if self.resumed.is_none() {
            // A new deployment has begun instead.
            return self.greet(id, now);
        }
        if self.stage == Stage::Running && self.roster.get(id).is_some_and(Member::is_lost) {
            self.revive(id, now);
        }
    }

    /// Goes on where the other server was.
    fn resume(&mut self, now: Time) {
        let Some(saved) = self.saved.take() else { return };
        let fixed = Time(now.0.saturating_sub(u64::try_from(saved.elapsed.as_micros()).unwrap_or(u64::MAX)));
        (self.stage, self.fixed, self.unsaved) = (Stage::Running, Some(fixed), true);
        self.topology.raise_pass(saved.pass);
        self.resumed = Some(Resumed { gather: now.after(GATHER), gathered: false, until: now.after(HOLD) });
        let mut chains: BTreeMap<u16, (CardId, BTreeMap<u16, NodeId>)> = BTreeMap::new();
        for known in saved.nodes {
            let place = known.place;
            let (_, members) = chains.entry(place.chain).or_insert_with(|| (known.card.clone(), BTreeMap::new()));
            members.insert(place.position, known.id);
            self.take_back(&known, fixed, now);
        }
        let chains =
            chains.into_values().map(|(card, nodes)| PlannedChain { card, nodes: nodes.into_values().collect() });
        self.events.push_back(DeploymentEvent::PlanFixed(Plan { chains: chains.collect() }));
        self.events.push_back(DeploymentEvent::Resumed);
        // An agent that was started again, too, may have been ready before this.
        self.ready().into_iter().for_each(|id| self.replace_lost(id, now));
    }

    /// A node goes on where the other server had it.
    fn take_back(&mut self, known: &SavedNode, fixed: Time, now: Time) {
        if self.roster.get(known.id).is_none() {
            let (hello, card, address) = (known.hello(), known.card.clone(), known.address);
            let mut node = Member::new(known.id, hello, card, address, self.config.blocks, now);
            (node.connected, node.gone, node.away) = (false, Some(now), Away::Gone);
            self.roster.insert(node);
        }
        self.roster.change(known.id, |node| {
            (node.standing, node.place, node.moved_on) = (known.standing(fixed), Some(known.place), now);
            (node.repairs, node.late) = (known.repairs, known.late);
        });
        if known.moved || known.late {
            self.topology.rank_behind(known.id, if known.moved { Rank::Slow } else { Rank::Behind });
        }
    }

    /// Forms chains of the nodes that are back, once all are or it takes too long. Returns whether to wait longer.
    pub(super) fn gather(&mut self, now: Time) -> bool {
        let Some(resumed) = self.resumed else { return false };
        if !resumed.gathered {
            // Do not wait for finished nodes, unless all are finished and must be released.
            let over = self.nodes().all(|node| node.outcome().is_some());
            let waits = self.nodes().any(|node| node.member.away != Away::No && (over || node.outcome().is_none()));
            if waits && now < resumed.gather {
                return true;
            }
            self.resumed = Some(Resumed { gathered: true, ..resumed });
            self.form_again(now);
        }
        false
    }

    /// Whether a node that is not back may still be. One that has ended may be gone for good, or wait to be let go: it gets as
    /// long to call as those at work get before chains are formed.
    pub(super) fn is_awaited(&self, node: &NodeRecord<'_>, now: Time) -> bool {
        let gathers = || self.resumed.is_some_and(|resumed| now < resumed.gather);
        match node.member.away {
            Away::No => false,
            Away::Called(_) => true,
            Away::Gone => node.outcome().is_none() || gathers(),
        }
    }

    fn form_again(&mut self, now: Time) {
        // Slow ones follow, as before.
        let here = |node: &NodeRecord<'_>| node.is_running() && node.connected && !node.moved;
        let nodes: Vec<_> = self.nodes().filter(here).filter_map(|node| self.plan_node(node.id)).collect();
        let above = if bug::is(Bug::ResumedPassNotRaised) { 0 } else { UNKEPT };
        self.topology.raise_pass(above);
        self.passed = now;
        let (pass, phase) = (self.topology.pass(), Phase::Flowing);
        for PlannedChain { card, nodes } in plan(&self.config.cards, &nodes, &self.config.limits).chains {
            let blocks = BlockSet::full(self.config.blocks);
            self.form(NewChain { card, nodes, blocks, pass, phase }, now);
        }
    }

    /// Whoever does not come back is lost; whoever comes back without its state begins again.
    pub(super) fn time_returned(&mut self, now: Time) {
        if matches!(self.stage, Stage::Over { .. }) {
            return;
        }
        let late = |at: Time, span| now >= at.after(span);
        let empty: Vec<NodeId> = self
            .nodes()
            .filter(|node| matches!(node.member.away, Away::Called(at) if late(at, SAY)))
            .map(|node| node.id)
            .collect();
        for id in empty {
            let Some(node) = self.roster.get_mut(id) else { continue };
            if node.outcome().is_none() || node.is_lost() {
                (node.standing, node.durable) = (Standing::Preparing, BlockSet::empty(self.config.blocks));
            }
            (node.away, node.moved_on) = (Away::No, now);
            self.greet(id, now);
        }
        if self.resumed.is_some_and(|resumed| now >= resumed.until) {
            let lost: Vec<NodeId> =
                self.nodes().filter(|node| node.member.away == Away::Gone).map(|node| node.id).collect();
            for id in lost {
                let detail = format!("it did not come back within {} s after the server had", HOLD.as_secs());
                self.roster.change(id, |node| node.away = Away::No);
                self.end_node(id, Reason::NodeLost, detail, now);
            }
        }
    }
}
