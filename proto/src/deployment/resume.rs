//! A server that was killed and started again: how a deployment goes on from what was kept of it ([`Saved`]).
//!
//! Agents keep their state for [`HOLD`], call again with the same boot id, and say which deployment they are in and what they
//! hold. Until the first of them has, nothing is resumed: an operator may as well have meant a new deployment. Chains are then
//! formed anew in a pass above all that came before, so that every order outweighs those that the agents know; links get new
//! keys, and say what is lacking, as always.

use super::ledger::Account;
use super::presence::Presence;
use super::roster::Member;
use super::saved::{Saved, SavedNode};
use super::stalls::Attention;
use super::timers::{FIRST_REPORT_TIMEOUT, GATHER_TIMEOUT, MIN_PASS_INTERVAL, Timer};
use super::topology::{NewChain, Phase, Rank};
use super::{Deployment, DeploymentEvent, NodeRecord, Stage, Standing};
use crate::bug::{self, Bug};
use crate::control::{HOLD, ToServer};
use crate::plan::{CardId, Plan, PlannedChain, plan};
use crate::reason::Reason;
use crate::set::BlockSet;
use crate::units::{NodeId, Time};
use std::collections::BTreeMap;

/// How far above the pass that was kept the next one is numbered. A pass can begin before its number is kept where keeping takes
/// longer than half a second; agents would not obey another one with a number that they know. There are at most four in a second.
const MAX_UNKEPT_PASSES: u32 = 64;

/// Whether the deployment is one that another run of the server began.
#[derive(Debug)]
pub(super) enum Resumption {
    /// It is not, or a new one was begun instead.
    No,
    /// It may be: the first agent that kept its state decides.
    Offered(Saved),
    /// It is; chains are formed when all nodes that were at work are back.
    Gathering,
    /// It is, and has chains.
    Formed,
}

impl Deployment {
    /// Another run of the server began this deployment. It goes on as soon as one of its agents is heard that kept its state,
    /// or `at_once`. The time must be able to reach back to its beginning: `now` at least [`Saved::elapsed`].
    pub fn expect_back(&mut self, saved: Saved, at_once: bool, now: Time) {
        self.attention = Attention::new(now);
        self.last_id = self.last_id.max(saved.last_id);
        self.resumption = Resumption::Offered(saved);
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
        let Resumption::Offered(saved) = &self.resumption else { return None };
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
        let Some(node) = self.roster.get_mut(id).filter(|node| ours && node.presence.is_returning()) else { return };
        node.presence.end_return();
        self.ledger.restart_stall_clock(id, now);
        match self.resumption {
            Resumption::No => return self.greet(id, now),
            Resumption::Offered(_) => self.resume(now),
            Resumption::Gathering | Resumption::Formed => {}
        }
        if self.stage == Stage::Running && self.roster.get(id).is_some_and(Member::is_lost) {
            self.revive(id, now);
        }
    }

    /// Goes on where the other server was.
    fn resume(&mut self, now: Time) {
        let Resumption::Offered(saved) = core::mem::replace(&mut self.resumption, Resumption::Gathering) else {
            return;
        };
        let fixed = Time(now.0.saturating_sub(u64::try_from(saved.elapsed.as_micros()).unwrap_or(u64::MAX)));
        (self.stage, self.fixed, self.unsaved) = (Stage::Running, Some(fixed), true);
        self.topology.raise_pass(saved.pass);
        self.timers.set(Timer::Gather, now.after(GATHER_TIMEOUT));
        self.timers.set(Timer::Return, now.after(HOLD));
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
            let mut node = Member::new(known.id, hello, card, address, now);
            node.presence = Presence::Expected { since: now };
            self.admit(node, now);
        }
        self.roster.change(known.id, |node| {
            (node.standing, node.place) = (known.standing(fixed), Some(known.place));
            (node.repairs, node.late) = (known.repairs, known.late);
        });
        self.ledger.restart_stall_clock(known.id, now);
        if known.moved || known.late {
            self.topology.rank_behind(known.id, if known.moved { Rank::Slow } else { Rank::Behind });
        }
    }

    /// Forms chains of the nodes that are back, once all are or it takes too long. Returns whether to wait longer.
    pub(super) fn gather(&mut self, now: Time) -> bool {
        if !matches!(self.resumption, Resumption::Gathering) {
            return false;
        }
        // Do not wait for finished nodes, unless all are finished and must be released.
        let over = self.nodes().all(|node| node.outcome().is_some());
        let is_out = |node: NodeRecord<'_>| node.member.presence.is_returning() && (over || node.outcome().is_none());
        if self.timers.is_ahead(Timer::Gather, now) && self.nodes().any(is_out) {
            return true;
        }
        self.resumption = Resumption::Formed;
        self.form_again(now);
        false
    }

    /// Whether a node that is not back may still be. One that has ended may be gone for good, or wait to be let go: it gets as
    /// long to call as those at work get before chains are formed.
    pub(super) fn is_awaited(&self, node: &NodeRecord<'_>, now: Time) -> bool {
        match node.member.presence {
            Presence::Here(_) | Presence::Gone { .. } | Presence::Lost { .. } => false,
            Presence::Called { .. } => true,
            Presence::Expected { .. } => node.outcome().is_none() || self.timers.is_ahead(Timer::Gather, now),
        }
    }

    fn form_again(&mut self, now: Time) {
        // Slow ones follow, as before.
        let here = |node: &NodeRecord<'_>| node.is_running() && node.connected && !node.moved;
        let nodes: Vec<_> = self.nodes().filter(here).filter_map(|node| self.plan_node(node.id)).collect();
        let above = if bug::is(Bug::ResumedPassNotRaised) { 0 } else { MAX_UNKEPT_PASSES };
        self.topology.raise_pass(above);
        self.timers.set(Timer::NextPass, now.after(MIN_PASS_INTERVAL));
        let (pass, phase) = (self.topology.pass(), Phase::Flowing);
        for PlannedChain { card, nodes } in plan(&self.config.cards, &nodes, &self.config.limits).chains {
            let blocks = BlockSet::full(self.config.blocks);
            self.form(NewChain { card, nodes, blocks, pass, phase }, now);
        }
    }

    /// A node that called and does not say what it holds begins again; one that does not call in time is lost.
    pub(super) fn time_returned(&mut self, now: Time) {
        if matches!(self.stage, Stage::Over { .. }) {
            return;
        }
        let is_empty = |node: &NodeRecord<'_>| matches!(node.member.presence, Presence::Called { at, .. } if now >= at.after(FIRST_REPORT_TIMEOUT));
        let empty: Vec<NodeId> = self.nodes().filter(is_empty).map(|node| node.id).collect();
        for id in empty {
            let Some(node) = self.roster.get_mut(id) else { continue };
            node.presence.end_return();
            if node.outcome().is_none() || node.is_lost() {
                node.standing = Standing::Preparing;
                self.ledger.change(id, Account::clear);
            }
            self.ledger.restart_stall_clock(id, now);
            self.greet(id, now);
        }
        if self.timers.is_due(Timer::Return, now) {
            let is_out = |node: &NodeRecord<'_>| matches!(node.member.presence, Presence::Expected { .. });
            let lost: Vec<NodeId> = self.nodes().filter(is_out).map(|node| node.id).collect();
            for id in lost {
                let detail = format!("it did not come back within {} s after the server had", HOLD.as_secs());
                self.roster.change(id, |node| node.presence.give_up_return());
                self.end_node(id, Reason::NodeLost, detail, now);
            }
        }
    }
}
