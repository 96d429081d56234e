//! What is done about a link that broke between two living nodes, as [`super::blame`] says.

use super::blame::{Break, Cause, Remedy};
use super::{Deployment, NodeRecord, RepairKind};
use crate::control::{LinkEvent, Notice, Side, ToAgent};
use crate::reason::Reason;
use crate::units::{Epoch, NodeId, Time};

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
        if !self.are_neighbours(upper, lower) {
            return;
        }
        if let Some(peer) = self.nodes.get_mut(&event.peer) {
            peer.blamed = Some((now, said));
        }
        let broke = Break { at: now, upper, lower, teller: id, cause: Cause::of(event.reason) };
        self.mend(broke, event.reason, &event.detail, now);
    }

    /// A node says that a link broke which its newest order has replaced: perhaps the other end was just faster.
    pub(super) fn on_old_link_down(&mut self, id: NodeId, event: &LinkEvent, now: Time) {
        self.blame.agree(id, event.peer, now);
        let serves =
            |upper, lower| self.nodes.get(&lower).is_some_and(|node: &NodeRecord| node.served_by.contains(&upper));
        let known = match event.side {
            Side::Upstream => serves(event.peer, id),
            Side::Downstream => serves(id, event.peer),
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
        let served = self.nodes.get(&id).is_some_and(|node| node.served_by.contains(&event.peer));
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
        let Some(state) = self.chains.get_mut(usize::from(chain)) else { return };
        let Some(head) = state.drop_feed() else { return };
        if state.nodes().first() != Some(&head) {
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
        if let Some(head) = self.chains.get(usize::from(chain)).and_then(|state| state.nodes().first().copied()) {
            self.blame.on_head_heard(head);
        }
    }

    /// The feed of `chain` broke and is being made again: a complaint about the head, no more. `damaged`: what the head sent was.
    pub(super) fn on_feed_broken(&mut self, chain: u16, detail: &str, damaged: bool, now: Time) {
        let Some(head) = self.chains.get(usize::from(chain)).and_then(|state| state.nodes().first().copied()) else {
            return;
        };
        let Some(node) = self.nodes.get(&head) else { return };
        let said = format!("its feed says: {detail}");
        if self.is_cut_off(node, now) {
            return self.lose(head, &format!("its control link is gone, and {said}"), now);
        }
        self.nodes.entry(head).and_modify(|node| node.blamed = Some((now, said)));
        if damaged {
            self.on_damage(head, NodeId::SERVER, now);
        }
    }

    /// A node reports how much it received: that may show who damaged what it got before.
    pub(super) fn on_received(&mut self, id: NodeId, now: Time) {
        let Some(node) = self.nodes.get(&id) else { return };
        let (Some(progress), Some(join)) = (&node.progress, &node.last_join) else { return };
        if progress.epoch < join.epoch {
            return;
        }
        let (bytes, has_all) = (progress.received_bytes, node.has_all(self.config.blocks));
        if let Some(guilty) = self.blame.on_received(id, bytes, has_all) {
            self.convict(guilty, now);
        }
    }

    /// Does what there is to be done about a link that broke.
    fn mend(&mut self, broke: Break, reason: Reason, detail: &str, now: Time) {
        let Break { upper, lower, teller, .. } = broke;
        let Some(node) = self.nodes.get_mut(&lower) else { return };
        // Who was told to finish hangs up: that is no loss.
        let Some(chain) = node.chain.filter(|_| !node.finished) else { return };
        node.repairs += 1;
        let alone = self.chains[chain].nodes().len() < 2;
        let card = node.card.clone();
        let hears = |node: &NodeRecord| node.id != lower && node.card == card && self.blame.is_heard_well(node.id);
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
                if self.are_neighbours(upper, lower) {
                    self.relink(lower, detail, now);
                }
            }
            Remedy::MoveTeller => {
                self.move_teller(teller, detail, now);
                if self.are_neighbours(upper, lower) {
                    self.relink(lower, detail, now);
                }
            }
            Remedy::Alone => self.serve_alone(lower, detail, now),
            Remedy::GiveUp => self.fail(lower, reason, format!("the link to it breaks again and again: {detail}"), now),
        }
    }

    fn probe(&mut self, sender: NodeId, witness: NodeId) {
        let lacks = self.nodes.get(&witness).is_some_and(|node| !node.has_all(self.config.blocks));
        self.blame.probe(sender, witness, lacks);
    }

    /// Makes the link from its upstream to `id` anew.
    fn relink(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(chain) = node.chain else { return };
        // Epoch 0 never stands: the next order gives the link a new one.
        node.link_epoch = Epoch(0);
        if self.chains[chain].nodes().first() == Some(&id) {
            self.chains[chain].drop_feed();
        }
        self.order(chain);
        self.log_repair(RepairKind::Relinked, id, chain, Some(id), detail, (now, now));
    }

    /// Lets two neighbours change places; gives whether that could be.
    fn swap(&mut self, upper: NodeId, lower: NodeId, detail: &str, now: Time) -> bool {
        let Some(chain) = self.nodes.get(&lower).and_then(|node| node.chain) else { return false };
        let state = &self.chains[chain];
        let Some(at) = state.nodes().iter().position(|node| *node == lower) else { return false };
        let core = state.core().len();
        let alike = |a: &NodeRecord, b: &NodeRecord| a.moved == b.moved && !a.finished && !b.finished;
        let both = self.nodes.get(&upper).zip(self.nodes.get(&lower));
        // Followers stay followers.
        if at == 0 || at == core || !both.is_some_and(|(upper, lower)| alike(upper, lower)) {
            return false;
        }
        self.chains[chain].nodes.swap(at - 1, at);
        for id in [upper, lower] {
            self.nodes.entry(id).and_modify(|node| node.link_epoch = Epoch(0));
        }
        self.order(chain);
        self.log_repair(RepairKind::Swapped, lower, chain, Some(upper), detail, (now, now));
        let name = |id| self.nodes.get(&id).map(NodeRecord::label).unwrap_or_default();
        let text =
            format!("the link from {} to {} broke twice ({detail}): they change places", name(upper), name(lower));
        self.note(text);
        true
    }

    /// What `upstream` sends does not reach `id`, although both live: another neighbour is to serve it.
    fn reroute(&mut self, id: NodeId, upstream: NodeId, detail: &str, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        (node.avoid, node.behind) = (Some(upstream), true);
        let from = if upstream == NodeId::SERVER { "the server".to_owned() } else { format!("node {upstream}") };
        let text = format!("{} can't be reached from {from} ({detail}): another node is to serve it", node.label());
        let Some((chain, successor)) = self.splice_out(id, now) else { return };
        self.log_repair(RepairKind::Unreachable, id, chain, successor, detail, (now, now));
        self.note(text);
    }

    /// A node whose links break whatever serves it: the server serves it in a pass of its own.
    fn serve_alone(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        (node.moved, node.behind) = (true, true);
        let text =
            format!("the links to {} break again and again ({detail}): the server serves it at the end", node.label());
        let Some((chain, successor)) = self.splice_out(id, now) else { return };
        self.log_repair(RepairKind::Unreachable, id, chain, successor, detail, (now, now));
        self.note(text);
    }

    /// A node damages what it sends: it goes behind everybody, and is told so.
    fn convict(&mut self, id: NodeId, now: Time) {
        let charge = self.blame.charge(id).unwrap_or_default().to_owned();
        if id == NodeId::SERVER {
            return self.note(format!("the server is at fault and no node: {charge}"));
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (label, chain) = (node.label(), node.chain);
        node.accuse(&charge);
        let notice = Notice { deployment: self.config.prepare.deployment, detail: charge.clone() };
        self.orders.push_back((id, ToAgent::Notice(notice)));
        let Some(chain) = chain else {
            self.note(format!("{label} corrupts: {charge}"));
            return self.log_repair(RepairKind::Corrupting, id, usize::MAX, None, &charge, (now, now));
        };
        self.note(format!("{label} corrupts: {charge}; nobody is served by it any more"));
        let others = self.chains[chain].nodes().iter().any(|other| *other != id && self.blame.is_guilty(*other));
        let successor = if others {
            // Two of them in a row are one too many.
            self.blame.leave_alone(id);
            self.nodes.entry(id).and_modify(|node| (node.moved, node.behind) = (true, true));
            self.splice_out(id, now).and_then(|(_, successor)| successor)
        } else {
            self.put_behind(chain, id, now)
        };
        self.log_repair(RepairKind::Corrupting, id, chain, successor, &charge, (now, now));
    }

    /// A node complains of several neighbours that live: it goes behind the tail.
    fn move_teller(&mut self, id: NodeId, detail: &str, now: Time) {
        let Some(node) = self.nodes.get(&id) else { return };
        let Some(chain) = node.chain else { return };
        let text = format!(
            "{} complains of several neighbours that live (now: {detail}): moved behind the tail",
            node.label()
        );
        self.note(text);
        let successor = self.put_behind(chain, id, now);
        self.log_repair(RepairKind::Complaining, id, chain, successor, detail, (now, now));
    }
}
