//! What is done about a link that broke between two living nodes, as [`super::blame`] says.

use super::blame::{Break, Cause, Remedy};
use super::repairs::Entry;
use super::topology::{Chain, Rank};
use super::{Deployment, NodeRecord, RepairKind};
use crate::control::{LinkEvent, Notice, Side, ToAgent};
use crate::reason::Reason;
use crate::units::{NodeId, Time};

impl Cause {
    fn of(reason: Reason) -> Self {
        match reason {
            Reason::LinkCorrupt | Reason::ManifestMismatch => Self::Damaged,
            Reason::TimedOut => Self::Silent,
            _ => Self::Broken,
        }
    }
}

impl Deployment {
    /// Is the neighbour dead, or only the link?
    pub(super) fn on_link_down(&mut self, id: NodeId, event: &LinkEvent, now: Time) {
        let (upper, lower) = match event.side {
            Side::Upstream => (event.peer, id),
            Side::Downstream => (id, event.peer),
        };
        let said = format!("node {id} says: {}", event.detail);
        if event.peer != NodeId::SERVER && self.is_quiet(event.peer, now) {
            return self.lose(event.peer, &format!("no contact with it, and {said}"), now);
        }
        if !self.topology.are_neighbours(upper, lower) {
            return;
        }
        self.roster.change(event.peer, |peer| peer.presence.blame(said, now));
        let broke = Break { at: now, upper, lower, teller: id, cause: Cause::of(event.reason) };
        self.mend(broke, event.reason, &event.detail, now);
    }

    /// A node says that a link broke which its newest order has replaced: perhaps the other end was just faster.
    pub(super) fn on_old_link_down(&mut self, id: NodeId, event: &LinkEvent, now: Time) {
        self.blame.agree(id, event.peer, now);
        let known = match event.side {
            Side::Upstream => self.topology.seat(id).was_served_by(event.peer),
            Side::Downstream => self.topology.seat(event.peer).was_served_by(id),
        };
        if known
            && Cause::of(event.reason) == Cause::Damaged
            && let Some(guilty) = self.blame.on_late_damage(event.peer, id, now)
        {
            self.convict(guilty, now);
        }
    }

    /// A node says that blocks of its upstream arrive damaged.
    pub(super) fn on_damage_told(&mut self, id: NodeId, event: &LinkEvent, now: Time) {
        let served = self.topology.seat(id).was_served_by(event.peer);
        if served && event.side == Side::Upstream {
            self.on_damage(event.peer, id, now);
        }
    }

    /// A block that `sender` sent arrived damaged at `witness`, which fetches it again.
    pub(super) fn on_damage(&mut self, sender: NodeId, witness: NodeId, now: Time) {
        if let Some(guilty) = self.blame.on_damage(sender, witness, now) {
            self.convict(guilty, now);
        }
    }

    /// The server can't reach or keep the head of `chain`. `damaged`: whatever the head answers is.
    pub(super) fn on_feed_down(&mut self, chain: u16, detail: &str, damaged: bool, now: Time) {
        let Some(head) = self.topology.drop_feed(usize::from(chain)) else { return };
        if self.topology.get(chain).and_then(Chain::head) != Some(head) {
            return;
        }
        if self.is_quiet(head, now) {
            return self.lose(head, &format!("no contact with it, and its feed says: {detail}"), now);
        }
        let (upper, teller) = (NodeId::SERVER, NodeId::SERVER);
        let (cause, reason) =
            if damaged { (Cause::Damaged, Reason::LinkCorrupt) } else { (Cause::Broken, Reason::UpstreamLost) };
        self.mend(Break { at: now, upper, lower: head, teller, cause }, reason, detail, now);
    }

    /// The head of `chain` has proven its key to the server: its answer came whole.
    pub(super) fn on_feed_up(&mut self, chain: u16) {
        if let Some(head) = self.topology.get(chain).and_then(Chain::head) {
            self.blame.on_head_heard(head);
        }
    }

    /// The feed of `chain` broke and is being made again: a complaint about the head, no more. `damaged`: what the head sent was.
    pub(super) fn on_feed_broken(&mut self, chain: u16, detail: &str, damaged: bool, now: Time) {
        let Some(head) = self.topology.get(chain).and_then(Chain::head) else { return };
        let Some(node) = self.node(head) else { return };
        let said = format!("its feed says: {detail}");
        if self.is_cut_off(&node, now) {
            return self.lose(head, &format!("its control link is gone, and {said}"), now);
        }
        self.roster.change(head, |node| node.presence.blame(said, now));
        if damaged {
            self.on_damage(head, NodeId::SERVER, now);
        }
    }

    /// A node reports how much it received: that may show who damaged what it got before.
    pub(super) fn on_received(&mut self, id: NodeId, now: Time) {
        let Some(node) = self.node(id).filter(|node| node.seat.join().is_some()) else { return };
        let Some(progress) = node.newest_report() else { return };
        let (bytes, has_all) = (progress.received_bytes, node.has_all(self.config.blocks));
        if let Some(guilty) = self.blame.on_received(id, bytes, has_all) {
            self.convict(guilty, now);
        }
    }

    /// Does what there is to be done about a link that broke.
    fn mend(&mut self, broke: Break, reason: Reason, detail: &str, now: Time) {
        let Break { upper, lower, teller, .. } = broke;
        let Some(chain) = self.topology.chain_of(lower) else { return };
        let alone = chain.nodes().len() < 2;
        // A node that was told to finish hangs up: that is no loss.
        let Some(node) = self.roster.get_mut(lower).filter(|node| !node.is_released()) else { return };
        node.repairs += 1;
        let card = &node.card.clone();
        let hears = |node: NodeRecord<'_>| node.id != lower && node.card == card && self.blame.is_heard_well(node.id);
        let server_hears = self.nodes().any(hears);
        match self.blame.on_break(broke, alone, server_hears) {
            Remedy::Relink => self.relink(lower, detail, now),
            Remedy::Swap if self.swap(upper, lower, detail, now) => self.probe(upper, lower),
            Remedy::Swap | Remedy::Behind => {
                self.reroute(lower, upper, detail, now);
                if broke.cause == Cause::Damaged && teller == lower {
                    self.probe(upper, lower);
                }
            }
            Remedy::Convict(guilty) => {
                self.convict(guilty, now);
                if self.topology.are_neighbours(upper, lower) {
                    self.relink(lower, detail, now);
                }
            }
            Remedy::MoveTeller => {
                self.move_teller(teller, detail, now);
                if self.topology.are_neighbours(upper, lower) {
                    self.relink(lower, detail, now);
                }
            }
            Remedy::Alone => self.serve_alone(lower, detail, now),
            Remedy::GiveUp => self.fail(lower, reason, format!("the link to it breaks again and again: {detail}"), now),
        }
    }

    fn probe(&mut self, sender: NodeId, witness: NodeId) {
        let lacks = self.node(witness).is_some_and(|node| !node.has_all(self.config.blocks));
        self.blame.probe(sender, witness, lacks);
    }

    /// Makes the link from its upstream to `id` anew.
    fn relink(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(chain) = self.topology.seat(id).chain() else { return };
        self.topology.renew_link(id);
        if self.topology.chain(chain).head() == Some(id) {
            self.topology.drop_feed(chain);
        }
        self.order(chain);
        self.log_repair(RepairKind::Relinked, id, detail, (chain, Some(id)), now);
    }

    /// Lets two neighbours change places; gives whether that could be.
    fn swap(&mut self, upper: NodeId, lower: NodeId, detail: &str, now: Time) -> bool {
        let (Some(above), Some(below)) = (self.roster.get(upper), self.roster.get(lower)) else { return false };
        let text =
            format!("the link from {} to {} broke twice ({detail}): they change places", above.label(), below.label());
        if above.is_released() || below.is_released() {
            return false;
        }
        let Some(chain) = self.topology.swap(upper, lower) else { return false };
        self.order(chain);
        self.log_repair(RepairKind::Swapped, lower, detail, (chain, Some(upper)), now);
        self.note(text);
        true
    }

    /// What `upstream` sends does not reach `id`, although both live: another neighbour is to serve it.
    fn reroute(&mut self, id: NodeId, upstream: NodeId, detail: &str, now: Time) {
        let Some(node) = self.roster.get(id) else { return };
        let from = if upstream == NodeId::SERVER { "the server".to_owned() } else { format!("node {upstream}") };
        let text = format!("{} can't be reached from {from} ({detail}): another node is to serve it", node.label());
        self.topology.rank_behind(id, Rank::Behind);
        self.topology.avoid(id, upstream);
        self.move_unreachable(id, detail, text, now);
    }

    /// A node whose links break whatever serves it: the server serves it in a pass of its own.
    fn serve_alone(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(node) = self.roster.get(id) else { return };
        let text =
            format!("the links to {} break again and again ({detail}): the server serves it at the end", node.label());
        self.topology.rank_behind(id, Rank::Slow);
        self.move_unreachable(id, detail, text, now);
    }

    fn move_unreachable(&mut self, id: NodeId, detail: &str, text: String, now: Time) {
        let Some(gap) = self.splice_out(id, now) else { return };
        self.log_repair(RepairKind::Unreachable, id, detail, (gap.chain, gap.successor), now);
        self.note(text);
    }

    /// A node damages what it sends: it goes behind everybody, and is told so.
    fn convict(&mut self, id: NodeId, now: Time) {
        let charge = self.blame.charge(id).unwrap_or_default().to_owned();
        if id == NodeId::SERVER {
            return self.note(format!("the server is at fault and no node: {charge}"));
        }
        let Some(node) = self.roster.get_mut(id) else { return };
        let label = node.label();
        node.accuse(&charge);
        let notice = Notice { deployment: self.config.prepare.deployment, detail: charge.clone() };
        self.orders.push_back((id, ToAgent::Notice(notice)));
        let Some(chain) = self.topology.seat(id).chain() else {
            self.note(format!("{label} corrupts: {charge}"));
            let entry = Entry { kind: RepairKind::Corrupting, node: id, detail: &charge, began: now, awaited: None };
            return self.repairs.add(entry, now);
        };
        self.note(format!("{label} corrupts: {charge}; nobody is served by it any more"));
        let nodes = self.topology.chain(chain).nodes();
        let successor = if nodes.iter().any(|other| *other != id && self.blame.is_guilty(*other)) {
            // Two of them in a row are one too many.
            self.blame.leave_alone(id);
            self.topology.rank_behind(id, Rank::Slow);
            self.splice_out(id, now).and_then(|gap| gap.successor)
        } else {
            self.put_behind(chain, id, now)
        };
        self.log_repair(RepairKind::Corrupting, id, &charge, (chain, successor), now);
    }

    /// A node complains of several neighbours that live: it goes behind the tail.
    fn move_teller(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(node) = self.roster.get(id) else { return };
        let Some(chain) = self.topology.seat(id).chain() else { return };
        let text = format!(
            "{} complains of several neighbours that live (now: {detail}): moved behind the tail",
            node.label()
        );
        self.note(text);
        let successor = self.put_behind(chain, id, now);
        self.log_repair(RepairKind::Complaining, id, detail, (chain, successor), now);
    }
}
