//! What goes to the neighbour down the chain.

use super::{Act, CONNECT_PATIENCE, CONNECT_PAUSE, Downstream, DownstreamState, KEEP, Node, Transmit};
use crate::bug::{self, Bug};
use crate::control::{LinkState, Side};
use crate::frame::{HEADER_LEN, Header, Kind};
use crate::link::{DamagedAnswers, LinkFault, Sender, SenderEvent, Terms};
use crate::reason::LinkClass;
use crate::set::BlockSet;
use crate::units::{BlockNo, PartNo, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// How many segments the largest set has.
const EARLY_MOST: usize = 32;

/// What a node knows of the needs below it.
#[derive(Debug)]
pub(super) enum Below<'a> {
    /// There is nobody.
    Nothing,
    /// They have not said yet.
    Unknown,
    /// They lack these blocks.
    Lacks(&'a BlockSet),
}

impl Downstream {
    fn new(terms: Terms, address: SocketAddr, cursor: u64, now: Time) -> Self {
        Self {
            terms,
            address,
            state: DownstreamState::Idle { connect_at: now },
            give_up: now.after(CONNECT_PATIENCE),
            answers: DamagedAnswers::default(),
            parts_sent: BlockSet::empty(0),
            parts: VecDeque::new(),
            manifest_due: false,
            early: Vec::new(),
            cursor,
            sent: VecDeque::new(),
            sent_base: 0,
            near: 0,
            end_sent: None,
        }
    }

    fn sender(&mut self) -> Option<&mut Sender> {
        match &mut self.state {
            DownstreamState::Up(sender) => Some(sender),
            _ => None,
        }
    }
}

impl Node {
    /// From now on this is the downstream. A link to the same neighbour under the same key lives on.
    pub(super) fn set_downstream(&mut self, wanted: Option<(Terms, SocketAddr)>, now: Time) {
        if let (Some(down), Some((terms, _))) = (&mut self.downstream, &wanted) {
            let kept = down.terms.to == terms.to && down.terms.key == terms.key;
            if kept && !matches!(down.state, DownstreamState::Gone { .. }) {
                down.terms.class = terms.class;
                if terms.class == LinkClass::Follower {
                    self.clear_parts();
                }
                return;
            }
        }
        if self.downstream.take().is_some() {
            self.acts.push_back(Act::Close(Side::Downstream));
        }
        self.clear_parts();
        // A frame that was on its way out went with the link: nothing may wait for it.
        self.book.forget_downstream();
        let first = self.book.first_id() + u64::from(bug::is(Bug::ReplayOffByOne));
        self.downstream = wanted.map(|(terms, address)| Downstream::new(terms, address, first, now));
    }

    /// Nothing waits to be passed on any more.
    fn clear_parts(&mut self) {
        self.parts_charge = self.parts.values().map(|part| part.compare).sum();
        self.parts.values_mut().for_each(|part| part.charge = 0);
    }

    /// The connection of `attempt` stands; `nonce` must be fresh random bytes. Gives whether it is wanted.
    pub fn on_connected(&mut self, attempt: u64, nonce: [u8; 16], now: Time) -> bool {
        let blocks = self.shape.as_ref().map(|shape| shape.blocks);
        let Some(down) = &mut self.downstream else { return false };
        if !matches!(down.state, DownstreamState::Connecting { attempt: wanted } if wanted == attempt) {
            return false;
        }
        let mut sender = Sender::new(down.terms.clone(), nonce, now);
        if let Some(blocks) = blocks {
            sender.set_universe(blocks);
        }
        down.state = DownstreamState::Up(Box::new(sender));
        true
    }

    pub(super) fn downstream_alive(&mut self, now: Time) {
        if let Some(sender) = self.downstream.as_mut().and_then(Downstream::sender) {
            sender.on_alive(now);
        }
    }

    /// What the nodes below lack, so far as that is fetched for them. What a follower misses stays lacking until a catch-up
    /// pass: nobody above waits while it comes down the chain again.
    pub(super) fn downstream_lacks(&self) -> Below<'_> {
        if self.is_followed() {
            return Below::Nothing;
        }
        match self.downstream.as_ref().map(|down| &down.state) {
            None | Some(DownstreamState::Gone { .. }) => Below::Nothing,
            Some(DownstreamState::Up(sender)) if sender.is_open() => Below::Lacks(sender.lacking()),
            Some(_) => Below::Unknown,
        }
    }

    pub(super) fn lose_downstream(&mut self, fault: &LinkFault, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        let (peer, proven) = match &down.state {
            DownstreamState::Gone { .. } | DownstreamState::Idle { .. } => return,
            DownstreamState::Connecting { .. } => (down.terms.to, None),
            DownstreamState::Up(sender) => (down.terms.to, Some(sender.is_proven())),
        };
        // A downstream that has not heard of us yet hangs up; its order is on the way. One that says nothing is dead.
        let retry = proven.is_none_or(|proven| !proven && !matches!(fault, LinkFault::Proof | LinkFault::Handshake));
        let damages = proven == Some(false) && down.answers.on_fault(fault);
        if retry && !damages && now < down.give_up {
            down.state = DownstreamState::Idle { connect_at: now.after(CONNECT_PAUSE) };
            return;
        }
        down.state = DownstreamState::Gone { kept: Some(now.after(KEEP)) };
        down.parts.clear();
        let sending: Vec<u64> = down.sent.drain(..).collect();
        sending.into_iter().for_each(|id| self.book.on_sent(id, false));
        self.clear_parts();
        let fault = fault.as_seen(damages || proven == Some(true));
        self.tell_link(Side::Downstream, peer, LinkState::Down, Some(&fault));
        self.open_upstream();
    }

    pub(super) fn time_downstream(&mut self, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        match &mut down.state {
            DownstreamState::Idle { connect_at } if *connect_at <= now => {
                self.attempts += 1;
                let attempt = self.attempts;
                down.state = DownstreamState::Connecting { attempt };
                self.acts.push_back(Act::Connect { attempt, address: down.address });
            }
            DownstreamState::Connecting { .. } if down.give_up <= now => {
                self.lose_downstream(&LinkFault::Handshake, now);
                self.acts.push_back(Act::Close(Side::Downstream));
                self.reclaim();
            }
            DownstreamState::Gone { kept } if kept.is_some_and(|until| until <= now) => {
                // No order came: nobody above waits any longer.
                *kept = None;
                self.reclaim();
            }
            DownstreamState::Up(sender) => {
                let (peer, silence, proven) = (down.terms.to, sender.silence(now), sender.is_proven());
                match sender.on_time(now) {
                    Ok(()) if proven => self.suspect(Side::Downstream, peer, silence),
                    Ok(()) => {}
                    Err(fault) => {
                        self.lose_downstream(&fault, now);
                        self.acts.push_back(Act::Close(Side::Downstream));
                        self.reclaim();
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_downstream_control(
        &mut self,
        header: &Header,
        payload: &[u8],
        now: Time,
    ) -> Result<(), LinkFault> {
        let Some(down) = &mut self.downstream else { return Ok(()) };
        let DownstreamState::Up(sender) = &mut down.state else { return Ok(()) };
        if self.shape.is_none() && header.kind == Kind::Lacks && sender.is_proven() {
            // It knows the image from before, and this node is new: its set is read once the manifest has come.
            if down.early.len() >= EARLY_MOST {
                return Err(LinkFault::Malformed("Lacks"));
            }
            sender.on_alive(now);
            down.early.push((*header, payload.to_vec(), now));
            return Ok(());
        }
        match sender.on_frame(header, payload, now)? {
            SenderEvent::Nothing => {}
            SenderEvent::Proven { has_header } => {
                down.manifest_due = !has_header;
                let peer = down.terms.to;
                self.tell_link(Side::Downstream, peer, LinkState::Up, None);
                self.offer_manifest();
            }
            SenderEvent::Open => self.open_downstream(),
            SenderEvent::Acked => {
                let (received, far) = sender.received();
                while down.near < received {
                    let at = usize::try_from(down.near - down.sent_base).unwrap_or(usize::MAX);
                    if let Some(id) = down.sent.get(at) {
                        self.book.on_received(*id, false);
                    }
                    down.near += 1;
                }
                while down.sent_base < far {
                    if let Some(id) = down.sent.pop_front() {
                        self.book.on_received(id, true);
                    }
                    down.sent_base += 1;
                }
                self.reclaim();
            }
            SenderEvent::Again(block) => match self.book.find(block) {
                Some(_) => sender.resend(block),
                // It left the ring: whoever still holds it is further up. It comes down the same way.
                None => self.ask_again(block),
            },
        }
        Ok(())
    }

    /// Tells the sender how many blocks there are, which the set of what is lacking is read against.
    pub(super) fn offer_manifest(&mut self) {
        let Some(shape) = &self.shape else { return };
        if let Some(sender) = self.downstream.as_mut().and_then(Downstream::sender) {
            sender.set_universe(shape.blocks);
        }
        let early = self.downstream.as_mut().map(|down| core::mem::take(&mut down.early)).unwrap_or_default();
        for (header, payload, at) in early {
            if let Err(fault) = self.on_downstream_control(&header, &payload, at) {
                self.lose_downstream(&fault, at);
                self.acts.push_back(Act::Close(Side::Downstream));
            }
        }
    }

    /// What the downstream lacks is known: queues the parts at hand for it.
    fn open_downstream(&mut self) {
        let Some(shape) = self.shape.clone() else { return };
        if let Some(down) = &mut self.downstream {
            down.parts_sent = BlockSet::empty(u32::try_from(shape.parts.len()).unwrap_or(0));
        }
        let known: Vec<u32> =
            self.parts.keys().copied().filter(|part| self.known_parts.contains(BlockNo(*part))).collect();
        known.into_iter().for_each(|part| self.queue_part(PartNo(part)));
        self.open_upstream();
    }

    /// Queues a part for the downstream, if that is connected and lacks anything of it.
    pub(super) fn queue_part(&mut self, part: PartNo) {
        let followed = self.is_followed();
        let (Some(shape), Some(down)) = (&self.shape, &mut self.downstream) else { return self.trim_parts() };
        let range = shape.blocks_of(part);
        let sent = down.parts_sent.contains(BlockNo(part.0)) || down.parts.contains(&part);
        let lacking = down.sender().is_some_and(|sender| sender.is_open() && sender.lacking().any_in(range));
        if let (true, false, Some(cached)) = (lacking, sent, self.parts.get_mut(&part.0)) {
            // A follower holds nothing: if the cache has let go of a part when its turn comes, it lacks those blocks.
            if !followed {
                cached.charge = (cached.bytes.len() as u64).next_multiple_of(4096);
                self.parts_charge += cached.charge;
            }
            down.parts.push_back(part);
        }
        self.trim_parts();
    }

    pub(super) fn transmit_downstream(&mut self) -> Option<Transmit> {
        let down = self.downstream.as_mut()?;
        let DownstreamState::Up(sender) = &mut down.state else { return None };
        if let Some(bytes) = sender.poll_control() {
            return Some(Transmit::Bytes(bytes));
        }
        if let (true, true, Some(bytes), Some(_)) = (sender.is_proven(), down.manifest_due, &self.manifest, &self.shape)
        {
            down.manifest_due = false;
            let header = Header::with_payload(Kind::Manifest, self.config.deployment, 0, bytes);
            return Some(Transmit::Shared(header, bytes.clone()));
        }
        if !sender.is_open() {
            return None;
        }
        if let Some(part) = down.parts.front().copied() {
            let Some(cached) = self.parts.get(&part.0) else {
                down.parts.pop_front();
                return self.transmit_downstream();
            };
            let header = Header::with_payload(Kind::Part, self.config.deployment, part.0, &cached.bytes);
            if !sender.may_send(header.charge()) {
                return None;
            }
            sender.sent_part(&header);
            down.parts.pop_front();
            down.parts_sent.insert(BlockNo(part.0));
            let bytes = cached.bytes.clone();
            return Some(Transmit::Shared(header, bytes));
        }
        self.next_entry()
    }

    /// The next block that the downstream wants again. Gives nothing as well while credit does not cover it.
    fn next_again(&mut self) -> Option<Transmit> {
        loop {
            let sender = self.downstream.as_mut().and_then(Downstream::sender)?;
            let block = sender.next_again()?;
            let found = self.book.find(block).and_then(|id| self.book.get(id).map(|entry| (id, entry.header)));
            match found {
                Some((_, header)) if !sender.may_send(header.charge()) => return None,
                Some((id, header)) => {
                    sender.settle_again();
                    return Some(self.send_entry(id, &header));
                }
                None => {
                    sender.settle_again();
                    self.ask_again(block);
                }
            }
        }
    }

    /// The next entry of the ring that the downstream lacks, if credit covers it.
    fn next_entry(&mut self) -> Option<Transmit> {
        let shape = self.shape.clone()?;
        let down = self.downstream.as_mut()?;
        let DownstreamState::Up(sender) = &mut down.state else { return None };
        down.cursor = down.cursor.max(self.book.first_id());
        let mut skipped = false;
        let found = loop {
            let Some(entry) = self.book.get(down.cursor) else { break None };
            let (id, header) = (down.cursor, entry.header);
            let part = shape.part_of(entry.block());
            let wanted = header.payload_len != 0 && sender.lacks(entry.block());
            if wanted && down.parts_sent.contains(BlockNo(part.0)) {
                break sender.may_send(header.charge()).then_some((id, header));
            }
            self.book.on_not_needed(id);
            down.cursor += 1;
            skipped = true;
        };
        if let Some((id, header)) = found {
            down.cursor += 1;
            return Some(self.send_entry(id, &header));
        }
        let drained = self.book.get(down.cursor).is_none();
        // What is wanted again comes after everything new.
        if drained && let Some(again) = self.next_again() {
            return Some(again);
        }
        let down = self.downstream.as_mut()?;
        let drained = (drained && down.sender()?.has_no_again()) || bug::is(Bug::EndTooEarly);
        let ended = self.upstream.ended.filter(|pass| drained && down.end_sent != Some(*pass));
        if skipped {
            self.reclaim();
        }
        let pass = ended?;
        let down = self.downstream.as_mut()?;
        down.end_sent = Some(pass);
        Some(Transmit::Bytes(Header::bare(Kind::End, self.config.deployment, pass).encode().to_vec()))
    }

    fn send_entry(&mut self, id: u64, header: &Header) -> Transmit {
        if !self.is_followed() {
            self.book.on_sending(id);
        }
        if let Some(down) = &mut self.downstream {
            down.sent.push_back(id);
            if let Some(sender) = down.sender() {
                sender.sent_block(header);
            }
        }
        Transmit::Entry(*header, id)
    }

    pub(super) fn transmitted_downstream(&mut self, transmit: &Transmit, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        if let Some(sender) = down.sender() {
            sender.on_said(now);
        }
        match transmit {
            Transmit::Bytes(bytes) => self.sent_bytes += bytes.len() as u64,
            Transmit::Shared(header, bytes) => {
                self.sent_bytes += (HEADER_LEN + bytes.len()) as u64;
                if header.kind == Kind::Part {
                    self.part_left(header.number);
                }
            }
            Transmit::Entry(header, id) => {
                self.sent_bytes += HEADER_LEN as u64 + u64::from(header.payload_len);
                self.book.on_sent(*id, true);
                self.reclaim();
            }
        }
    }

    /// A part went out whole: it costs no credit any more, and its fill blocks need nothing else.
    fn part_left(&mut self, number: u32) {
        if let Some(cached) = self.parts.get_mut(&number) {
            self.parts_charge = self.parts_charge.saturating_sub(cached.charge);
            cached.charge = 0;
        }
        self.trim_parts();
    }
}
