//! Blame: whose fault it is that a link breaks or that frames arrive damaged, and what is done about it.
//!
//! A damaged frame says something about a link and about the end that sent it, nothing about the node that found the damage.
//! So damage is counted per sender and witness. A sender with two witnesses is guilty, and so is one whose only witness
//! receives well from another neighbour; the server does if the proof of another head came whole. A node that complains of several
//! living neighbours is the one that is moved. Links that break are counted by rate: what broke longer ago than [`BREAK_WINDOW`] is
//! forgotten. Nothing here fails a node that lives on the word of one neighbour: what keeps breaking gets a pass of its own, in
//! which the server is the neighbour.

use crate::bug::{self, Bug};
use crate::units::{NodeId, Time};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Two breaks of one link within this time belong together, and so do complaints of one node.
const SAME_CAUSE_WINDOW: Duration = Duration::from_secs(60);
/// Breaks of a node's upstream link are counted over this time ...
const BREAK_WINDOW: Duration = Duration::from_secs(30);
/// ... and so many may be mended with other nodes' help.
const MAX_RELINKS: usize = 5;
/// Damage that a witness saw is remembered for so long.
const DAMAGE_MEMORY: Duration = Duration::from_secs(600);
/// So many words of a witness on damaged blocks weigh as much as a link that broke of damage.
const MIN_COMPLAINTS: u32 = 3;
/// The other end's word on a break may come so much later.
const CONFIRM_WINDOW: Duration = Duration::from_secs(2);
/// A witness that took so many bytes from another neighbour without damage receives well.
const MIN_UNDAMAGED_BYTES: u64 = 1 << 20;
/// The most breaks that are remembered.
const MAX_BREAKS: usize = 1024;

/// What broke a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A frame that the other end sent was damaged.
    Damaged,
    /// The other end was silent or did not answer.
    Silent,
    /// Anything else: a reset, a closed connection, a broken rule.
    Broken,
}

/// A link between two living nodes that broke.
#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    pub(super) at: Time,
    pub(super) upper: NodeId,
    pub(super) lower: NodeId,
    /// The end that says so.
    pub(super) teller: NodeId,
    pub(super) cause: Cause,
}

impl Break {
    fn peer(&self) -> NodeId {
        if self.teller == self.upper { self.lower } else { self.upper }
    }

    fn is_between(&self, a: NodeId, b: NodeId) -> bool {
        (self.upper, self.lower) == (a, b) || (self.upper, self.lower) == (b, a)
    }
}

/// What is to be done about a link that broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The link is made anew.
    Relink,
    /// The two ends change places: the lower one is served by the upper one's upstream.
    Swap,
    /// The lower end goes behind the tail, where another neighbour serves it.
    Behind,
    /// This node damages what it sends: it goes behind everybody.
    Convict(NodeId),
    /// This node complains of several living neighbours: it goes behind the tail.
    MoveTeller,
    /// The lower end is served by the server alone, in a pass of its own.
    Alone,
    /// The lower end is given up.
    GiveUp,
}

/// What a witness saw of a sender.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Time,
    /// Links that broke of damage.
    broke: u32,
    /// Words on damaged blocks.
    words: u32,
}

impl Seen {
    fn is_sure(&self) -> bool {
        self.broke > 0 || self.words >= MIN_COMPLAINTS
    }
}

/// A witness that gets its blocks from somebody else now: does it receive well?
#[derive(Debug)]
struct Probe {
    sender: NodeId,
    witness: NodeId,
    /// What the witness had received when the new link was there.
    before: Option<u64>,
    /// It lacked blocks then.
    lacks: bool,
}

/// Who is to blame.
#[derive(Debug, Default)]
pub(super) struct Blame {
    breaks: VecDeque<(Break, bool)>,
    /// By sender and witness.
    seen: BTreeMap<(NodeId, NodeId), Seen>,
    guilty: BTreeMap<NodeId, String>,
    /// Those that complained of several neighbours.
    complainers: BTreeSet<NodeId>,
    /// Those that only the server serves.
    alone: BTreeSet<NodeId>,
    /// Heads whose answer to the server's call came whole.
    heads_heard: BTreeSet<NodeId>,
    probes: Vec<Probe>,
}

impl Blame {
    /// Whether this node was found to damage what it sends; the server counts as one here.
    pub(super) fn is_guilty(&self, node: NodeId) -> bool {
        self.guilty.contains_key(&node)
    }

    /// What is known against a guilty node, in words.
    pub(super) fn charge(&self, node: NodeId) -> Option<&str> {
        self.guilty.get(&node).map(String::as_str)
    }

    /// Whether only the server is to serve this node.
    pub(super) fn is_alone(&self, node: NodeId) -> bool {
        self.alone.contains(&node)
    }

    /// The answer of `head` to the server's call came whole.
    pub(super) fn on_head_heard(&mut self, head: NodeId) {
        self.heads_heard.insert(head);
    }

    /// Whether what `head` sends to the server arrives whole.
    pub(super) fn is_heard_well(&self, head: NodeId) -> bool {
        self.heads_heard.contains(&head) && !self.seen.contains_key(&(head, NodeId::SERVER))
    }

    /// A link between two living nodes broke; `alone` says that no other node could serve the lower end, `server_hears` that the
    /// server hears another head well over the same card.
    pub(super) fn on_break(&mut self, broke: Break, alone: bool, server_hears: bool) -> Remedy {
        let Break { at: now, upper, lower, teller, cause } = broke;
        if !bug::is(Bug::RelinksNeverForgotten) {
            self.breaks.retain(|(old, _)| now.since(old.at) < SAME_CAUSE_WINDOW);
        }
        if self.breaks.len() >= MAX_BREAKS {
            self.breaks.pop_front();
        }
        self.breaks.push_back((broke, false));
        if cause == Cause::Damaged {
            let sender = if bug::is(Bug::BlameTheLowerEnd) { lower } else { broke.peer() };
            self.see(sender, teller, now).broke += 1;
            let for_server = |blame: &mut Self| if server_hears { blame.convict_for_server(sender) } else { None };
            if let Some(guilty) = self.convict(sender, now).or_else(|| for_server(self)) {
                return Remedy::Convict(guilty);
            }
        }
        let recent = |old: &Break| now.since(old.at) < BREAK_WINDOW || bug::is(Bug::RelinksNeverForgotten);
        let tries = self.breaks.iter().filter(|(old, _)| old.lower == lower && recent(old)).count();
        if tries > MAX_RELINKS {
            let known = self.is_guilty(lower) || self.complainers.contains(&lower);
            if known || alone || upper == NodeId::SERVER || self.is_alone(lower) {
                return Remedy::GiveUp;
            }
            self.forget_breaks(lower);
            self.alone.insert(lower);
            return Remedy::Alone;
        }
        // Nobody is moved for what the server does to everybody.
        if alone || (upper == NodeId::SERVER && self.is_guilty(upper)) {
            return Remedy::Relink;
        }
        if self.complains(teller) && self.complainers.insert(teller) {
            return Remedy::MoveTeller;
        }
        let of_pair = self.breaks.iter().filter(|(old, _)| old.is_between(upper, lower)).count();
        match (of_pair, cause) {
            (_, Cause::Silent) => Remedy::Behind,
            (0 | 1, _) => Remedy::Relink,
            (2, _) if upper != NodeId::SERVER => Remedy::Swap,
            _ => Remedy::Behind,
        }
    }

    /// From now on `witness`, which found what `sender` sent damaged, is served by somebody else. `lacks`: it lacks blocks.
    pub(super) fn probe(&mut self, sender: NodeId, witness: NodeId, lacks: bool) {
        self.probes.retain(|probe| probe.witness != witness);
        if !self.is_guilty(sender) && sender != NodeId::SERVER {
            self.probes.push(Probe { sender, witness, before: None, lacks });
        }
    }

    /// Only the server is to serve `node`.
    pub(super) fn leave_alone(&mut self, node: NodeId) {
        self.alone.insert(node);
    }

    /// The other end of a link that broke a moment ago says so, too.
    pub(super) fn agree(&mut self, teller: NodeId, peer: NodeId, now: Time) {
        let of_both =
            |old: &Break| old.is_between(teller, peer) && old.teller == peer && now.since(old.at) < CONFIRM_WINDOW;
        if let Some((_, agreed)) = self.breaks.iter_mut().rev().find(|(old, _)| of_both(old)) {
            *agreed = true;
        }
    }

    /// A block came damaged and was asked for again: `sender` sent it, `witness` says so. Gives who is guilty, if that is known now.
    pub(super) fn on_damage(&mut self, sender: NodeId, witness: NodeId, now: Time) -> Option<NodeId> {
        self.see(sender, witness, now).words += 1;
        self.convict(sender, now)
    }

    /// A link broke of damage, and that was not the first word on it.
    pub(super) fn on_late_damage(&mut self, sender: NodeId, witness: NodeId, now: Time) -> Option<NodeId> {
        self.see(sender, witness, now).broke += 1;
        self.convict(sender, now)
    }

    /// A node reports over a link that its newest order made: so many bytes received, and whether it has every block. Gives who
    /// is guilty, if that is known now.
    pub(super) fn on_received(&mut self, witness: NodeId, bytes: u64, has_all: bool) -> Option<NodeId> {
        let probe = self.probes.iter_mut().find(|probe| probe.witness == witness)?;
        let before = *probe.before.get_or_insert(bytes);
        if !(has_all && probe.lacks) && bytes.saturating_sub(before) < MIN_UNDAMAGED_BYTES {
            return None;
        }
        let sender = probe.sender;
        self.probes.retain(|probe| probe.witness != witness);
        // Once may have been chance.
        if self.seen.get(&(sender, witness)).is_none_or(|seen| seen.broke < 2) {
            return None;
        }
        let charge = format!(
            "what it sends arrives damaged at node {witness}, which receives well from another neighbour: check its memory, \
             network card and cable"
        );
        self.pronounce(sender, charge)
    }

    fn see(&mut self, sender: NodeId, witness: NodeId, now: Time) -> &mut Seen {
        self.seen.retain(|_, seen| now.since(seen.at) < DAMAGE_MEMORY);
        // It does not receive well from whoever serves it now.
        self.probes.retain(|probe| probe.witness != witness || probe.sender == sender);
        let seen = self.seen.entry((sender, witness)).or_insert(Seen { at: now, broke: 0, words: 0 });
        seen.at = now;
        seen
    }

    /// Whether two neighbours found what `sender` sends damaged. One that complains of everybody is no witness.
    fn convict(&mut self, sender: NodeId, now: Time) -> Option<NodeId> {
        let fresh = |seen: &Seen| now.since(seen.at) < DAMAGE_MEMORY;
        let credible = |witness: &NodeId| !self.complainers.contains(witness) && !self.is_guilty(*witness);
        let seen = self.seen.iter().filter(|((of, witness), seen)| *of == sender && fresh(seen) && credible(witness));
        let seen: Vec<(NodeId, Seen)> = seen.map(|((_, witness), seen)| (*witness, *seen)).collect();
        if seen.len() < 2 || !seen.iter().any(|(_, seen)| seen.is_sure()) {
            return None;
        }
        let name =
            |node: &NodeId| if *node == NodeId::SERVER { "the server".to_owned() } else { format!("node {node}") };
        let names: Vec<String> = seen.iter().map(|(witness, _)| name(witness)).collect();
        let whose = if sender == NodeId::SERVER { "the server's" } else { "its" };
        let charge = format!(
            "what it sends arrives damaged at {}: check {whose} memory, network card and cable",
            names.join(" and at ")
        );
        self.pronounce(sender, charge)
    }

    /// Whether two links of the server broke because what `sender` sent was damaged. Only for a server that hears another head well.
    fn convict_for_server(&mut self, sender: NodeId) -> Option<NodeId> {
        // Once may have been chance.
        self.seen.get(&(sender, NodeId::SERVER)).filter(|seen| seen.broke >= 2)?;
        let charge = "what it sends arrives damaged at the server, which hears another head well: check its memory, network \
                      card and cable";
        self.pronounce(sender, charge.to_owned())
    }

    fn pronounce(&mut self, node: NodeId, charge: String) -> Option<NodeId> {
        self.probes.retain(|probe| probe.witness != node && probe.sender != node);
        (self.guilty.insert(node, charge).is_none()).then_some(node)
    }

    /// Whether a node complains of two neighbours or more that do not say the same. Complaints about the guilty are right.
    fn complains(&self, teller: NodeId) -> bool {
        let unagreed = |(old, agreed): &&(Break, bool)| old.teller == teller && !agreed && !self.is_guilty(old.peer());
        let peers: BTreeSet<NodeId> = self.breaks.iter().filter(unagreed).map(|(old, _)| old.peer()).collect();
        peers.len() > 1
    }

    fn forget_breaks(&mut self, node: NodeId) {
        self.breaks.retain(|(old, _)| old.lower != node);
    }

    /// A node that was lost is back: its links begin anew.
    pub(super) fn on_back(&mut self, node: NodeId) {
        self.forget_breaks(node);
        self.probes.retain(|probe| probe.witness != node);
    }

    /// The node `new` is the machine that was `old`.
    pub(super) fn rename(&mut self, old: NodeId, new: NodeId) {
        if let Some(charge) = self.guilty.remove(&old) {
            self.guilty.insert(new, charge);
        }
        for set in [&mut self.complainers, &mut self.alone, &mut self.heads_heard] {
            if set.remove(&old) {
                set.insert(new);
            }
        }
    }
}
