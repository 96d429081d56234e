//! What comes from the neighbour up the chain.

use super::damage::{Damage, Verdict};
use super::downstream::Below;
use super::{Act, Node, Take};
use crate::bug::{self, Bug};
use crate::control::{LinkState, Side};
use crate::frame::{HEADER_LEN, Header, Kind};
use crate::link::{LinkFault, Receiver, ReceiverEvent, Terms};
use crate::relay_log::{EntryId, RelayLog};
use crate::set::BlockSet;
use crate::units::{BlockNo, NodeId, PartNo, Time};

/// The neighbour that sends.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// What its call must say, once the server has ordered one.
    terms: Option<Terms>,
    line: Option<Line>,
    /// The last pass that ended on the newest link.
    ended: Option<u32>,
}

/// A link that has proven itself.
#[derive(Debug)]
struct Line {
    link: Receiver,
    /// Bytes of a payload that is arriving.
    arriving: u64,
    /// The entry number of the first frame of this link.
    base: EntryId,
    /// Entries below this one are known to have reached the next node.
    passed_on: EntryId,
    damage: Damage,
}

impl Upstream {
    pub(super) fn terms(&self) -> Option<&Terms> {
        self.terms.as_ref()
    }

    pub(super) fn link(&self) -> Option<&Receiver> {
        self.line.as_ref().map(|line| &line.link)
    }

    pub(super) fn link_mut(&mut self) -> Option<&mut Receiver> {
        self.line.as_mut().map(|line| &mut line.link)
    }

    /// The last pass that ended on the newest link.
    pub(super) fn ended(&self) -> Option<u32> {
        self.ended
    }

    /// Bytes of the ring that a payload takes which is arriving.
    pub(super) fn arriving(&self) -> u64 {
        self.line.as_ref().map_or(0, |line| line.arriving)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.link().map(Receiver::deadline)
    }

    /// The node that blocks come from now.
    pub(super) fn from(&self) -> NodeId {
        self.terms.as_ref().map_or(NodeId::SERVER, |terms| terms.from)
    }

    /// A link that has proven itself takes the place of an older one. What came damaged on that one was not asked for on this one.
    pub(super) fn adopt(&mut self, link: Receiver, next: EntryId) {
        self.line = Some(Line { link, arriving: 0, base: next, passed_on: next, damage: Damage::default() });
        self.ended = None;
    }

    pub(super) fn drop_link(&mut self) {
        self.line = None;
    }
}

impl Line {
    /// How many leading frames of this link the next node has, too.
    fn passed_on(&mut self, relay_log: &RelayLog) -> u64 {
        while self.passed_on < relay_log.next_id() && relay_log.is_acked(self.passed_on) {
            self.passed_on += 1;
        }
        self.passed_on - self.base
    }
}

impl Node {
    /// From now on only the neighbour of `terms` may call. A link to the same neighbour under the same key lives on.
    pub(super) fn expect_upstream(&mut self, mut terms: Terms) {
        if let Some(old) = &self.upstream.terms
            && (old.from, &old.key) == (terms.from, &terms.key)
        {
            // The neighbour's order may be the older one.
            terms.epoch = old.epoch;
        }
        if let Some(link) = self.upstream.link() {
            let old = link.terms();
            if (old.from, &old.key) != (terms.from, &terms.key) && !bug::is(Bug::OldUpstreamStays) {
                self.upstream.drop_link();
                self.acts.push_back(Act::Close(Side::Upstream));
            }
        }
        self.upstream.terms = Some(terms);
    }

    /// A frame header came: says where its payload goes.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link and reports it with [`Node::on_link_lost`].
    pub fn on_header(&mut self, side: Side, header: &Header, now: Time) -> Result<Take, LinkFault> {
        self.reporting.received_bytes += HEADER_LEN as u64;
        if header.kind != Kind::Block {
            return Ok(Take::Control);
        }
        let (Side::Upstream, Some(line), Some(shape)) = (side, &mut self.upstream.line, self.manifest.shape()) else {
            return Err(LinkFault::Unexpected(header.kind));
        };
        if header.number >= shape.blocks {
            return Err(LinkFault::Malformed("block number"));
        }
        if !self.manifest.knows(shape.part_of(BlockNo(header.number))) {
            return Err(LinkFault::Manifest("a block that came before its part"));
        }
        line.link.on_block(header, now)?;
        line.arriving = header.charge();
        Ok(Take::Ring)
    }

    /// Bytes of a payload came, which proves that the neighbour lives.
    pub fn on_bytes(&mut self, side: Side, bytes: usize, now: Time) {
        self.reporting.received_bytes += bytes as u64;
        match (side, self.upstream.link_mut()) {
            (Side::Upstream, Some(link)) => link.on_alive(now),
            (Side::Downstream, _) => self.downstream_alive(now),
            _ => {}
        }
    }

    /// The payload of a block frame is complete in the ring; `crc` is the CRC-32 of what arrived. Gives the number of the
    /// entry that now owns it, or nothing if the payload is of no use.
    ///
    /// # Errors
    /// [`LinkFault::BlockCrc`] when too much comes damaged: relinking is the next thing to try.
    pub fn on_block(&mut self, header: &Header, crc: u32) -> Result<Option<u64>, LinkFault> {
        let block = BlockNo(header.number);
        let Some(line) = &mut self.upstream.line else { return Ok(None) };
        line.arriving = 0;
        line.link.on_block_complete(block);
        if crc != header.payload_crc && !bug::is(Bug::CrcUnchecked) {
            let Verdict::Again(tell) = line.damage.on_damaged(block) else {
                return Err(LinkFault::BlockCrc(block));
            };
            line.link.say_again(block);
            self.relay_log.push_spoilt(*header);
            if let Some(count) = tell {
                self.tell_damage(block, count);
            }
            return Ok(None);
        }
        line.damage.on_whole(block);
        let new = self.blocks.accept(block) && self.ended().is_none();
        let id = self.relay_log.push(*header, new);
        self.manifest.pin(block);
        if new {
            self.acts.push_back(Act::Write(id, *header));
        } else {
            self.reclaim();
        }
        self.check_complete();
        Ok(Some(id))
    }

    /// A control frame came complete.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link and reports it with [`Node::on_link_lost`].
    pub fn on_control(&mut self, side: Side, header: &Header, payload: Vec<u8>, now: Time) -> Result<(), LinkFault> {
        if side == Side::Downstream {
            return self.on_downstream_control(header, &payload, now);
        }
        let Some(link) = self.upstream.link_mut() else { return Ok(()) };
        match link.on_frame(header, &payload, now)? {
            // A link of the node was proven before it became one.
            ReceiverEvent::Nothing | ReceiverEvent::Proven => {}
            ReceiverEvent::Manifest => {
                let bytes = self.manifest.take_header(payload, self.config.root)?;
                self.acts.extend(bytes.map(Act::UseManifest));
            }
            ReceiverEvent::Part(number) => {
                let bytes = self.manifest.take_part(number, payload)?;
                self.acts.push_back(Act::UsePart(PartNo(number), bytes));
            }
            ReceiverEvent::End(pass) => {
                self.upstream.ended = self.upstream.ended.max(Some(pass));
                self.report();
            }
        }
        Ok(())
    }

    /// Says what is lacking once both are known: who the upstream is, and how many blocks there are. What the nodes below
    /// lack is lacking here too, so a node that does not lack everything itself waits until its downstream has said it.
    pub(super) fn open_upstream(&mut self) {
        let Some(link) = self.upstream.link() else { return };
        if self.manifest.shape().is_none() || !link.is_proven() || link.is_open() {
            return;
        }
        let mut lacks = self.blocks.accepted().complement();
        if self.ended().is_some() {
            lacks = BlockSet::empty(lacks.universe());
        }
        if self.is_comparing() {
            // Parts come for blocks that are lacking: whoever compares wants them all.
            lacks = BlockSet::full(lacks.universe());
        }
        if !lacks.is_full() {
            match self.downstream_lacks() {
                Below::Unknown => return,
                Below::Lacks(below) => lacks.union(below),
                Below::Nothing => {}
            }
        }
        if let Some(link) = self.upstream.link_mut() {
            link.say_lacks(&lacks);
        }
    }

    /// Fetches `block` once more from the upstream.
    pub(super) fn ask_again(&mut self, block: BlockNo) {
        if let Some(link) = self.upstream.link_mut() {
            link.say_again(block);
        }
    }

    pub(super) fn lose_upstream(&mut self, fault: &LinkFault) {
        let Some(link) = self.upstream.link() else { return };
        let (peer, fault) = (link.terms().from, fault.as_seen(link.is_proven()));
        self.upstream.drop_link();
        self.tell_link(Side::Upstream, peer, LinkState::Down, Some(&fault));
    }

    pub(super) fn time_upstream(&mut self, now: Time) {
        let free = self.free();
        let capacity = self.relay_log.capacity();
        let alone = self.downstream.is_none() || self.is_followed();
        let Some(line) = &mut self.upstream.line else { return };
        let next = if alone { line.link.received() } else { line.passed_on(&self.relay_log) };
        let (peer, silence) = (line.link.terms().from, line.link.silence(now));
        match line.link.on_time(next, free, capacity, now) {
            Ok(()) => self.suspect(Side::Upstream, peer, silence),
            Err(fault) => {
                self.lose_upstream(&fault);
                self.acts.push_back(Act::Close(Side::Upstream));
            }
        }
    }
}
