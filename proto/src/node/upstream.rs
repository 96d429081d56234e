//! What comes from the neighbour up the chain.

use super::damage::Verdict;
use super::downstream::Below;
use super::{Act, CachedPart, Node, Take};
use crate::bug::{self, Bug};
use crate::control::{LinkState, Side};
use crate::frame::{HEADER_LEN, Header, Kind};
use crate::link::{LinkFault, ReceiverEvent, Terms};
use crate::set::BlockSet;
use crate::units::{BlockNo, Hash, PartNo, Time};
use std::sync::Arc;

impl Node {
    /// From now on only the neighbour of `terms` may call. A link to the same neighbour under the same key lives on.
    pub(super) fn expect_upstream(&mut self, mut terms: Terms) {
        if let Some(old) = &self.upstream.terms
            && (old.from, &old.key) == (terms.from, &terms.key)
        {
            // The neighbour's order may be the older one.
            terms.epoch = old.epoch;
        }
        if let Some(link) = &self.upstream.link {
            let old = link.terms();
            if (old.from, &old.key) != (terms.from, &terms.key) && !bug::is(Bug::OldUpstreamStays) {
                self.drop_upstream();
                self.acts.push_back(Act::Close(Side::Upstream));
            }
        }
        self.upstream.terms = Some(terms);
    }

    pub(super) fn drop_upstream(&mut self) {
        self.upstream.link = None;
        self.upstream.arriving = 0;
    }

    /// A frame header came: says where its payload goes.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link and reports it with [`Node::on_link_lost`].
    pub fn on_header(&mut self, side: Side, header: &Header, now: Time) -> Result<Take, LinkFault> {
        self.received_bytes += HEADER_LEN as u64;
        if header.kind != Kind::Block {
            return Ok(Take::Control);
        }
        let (Side::Upstream, Some(link), Some(shape)) = (side, &mut self.upstream.link, &self.shape) else {
            return Err(LinkFault::Unexpected(header.kind));
        };
        if header.number >= shape.blocks {
            return Err(LinkFault::Malformed("block number"));
        }
        let part = shape.part_of(BlockNo(header.number));
        if !self.known_parts.contains(BlockNo(part.0)) {
            return Err(LinkFault::Manifest("a block that came before its part"));
        }
        link.on_block(header, now)?;
        self.upstream.arriving = header.charge();
        Ok(Take::Ring)
    }

    /// Bytes of a payload came, which proves that the neighbour lives.
    pub fn on_bytes(&mut self, side: Side, bytes: usize, now: Time) {
        self.received_bytes += bytes as u64;
        match (side, &mut self.upstream.link) {
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
        self.upstream.arriving = 0;
        let block = BlockNo(header.number);
        let Some(link) = &mut self.upstream.link else { return Ok(None) };
        link.on_block_complete(block);
        if crc != header.payload_crc && !bug::is(Bug::CrcUnchecked) {
            let Verdict::Again(tell) = self.upstream.damage.on_damaged(block) else {
                return Err(LinkFault::BlockCrc(block));
            };
            link.say_again(block);
            self.book.push_spoilt(*header);
            if let Some(count) = tell {
                self.tell_damage(block, count);
            }
            return Ok(None);
        }
        self.upstream.damage.on_whole(block);
        let new = self.accepted.insert(block) && self.ended().is_none();
        let id = self.book.push(*header, new);
        if let Some(cached) = self.part_of(block.0).and_then(|part| self.parts.get_mut(&part.0)) {
            cached.pins += 1;
        }
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
        let Some(link) = &mut self.upstream.link else { return Ok(()) };
        match link.on_frame(header, &payload, now)? {
            // A link of the node was proven before it became one.
            ReceiverEvent::Nothing | ReceiverEvent::Proven => {}
            ReceiverEvent::Manifest => self.take_manifest(payload)?,
            ReceiverEvent::Part(number) => self.take_part(number, payload)?,
            ReceiverEvent::End(pass) => {
                self.upstream.ended = Some(pass);
                self.pass_ended = self.pass_ended.max(pass);
                self.report();
            }
        }
        Ok(())
    }

    /// Keeps the manifest header, if it has the root that the server named: what is kept is passed on.
    fn take_manifest(&mut self, payload: Vec<u8>) -> Result<(), LinkFault> {
        if self.manifest.is_some() {
            return Ok(());
        }
        if Hash::of(&payload) != self.config.root {
            return Err(LinkFault::ManifestHash);
        }
        let bytes: Arc<[u8]> = payload.into();
        self.manifest = Some(bytes.clone());
        self.acts.push_back(Act::UseManifest(bytes));
        Ok(())
    }

    /// Keeps a part, if it has the hash that the manifest header names: what is kept is passed on.
    fn take_part(&mut self, number: u32, payload: Vec<u8>) -> Result<(), LinkFault> {
        let Some(part) = self.shape.as_ref().and_then(|shape| shape.parts.get(number as usize)) else {
            return Err(LinkFault::Malformed("part number"));
        };
        if Hash::of(&payload) != part.hash && !bug::is(Bug::PartUnchecked) {
            return Err(LinkFault::PartHash(PartNo(number)));
        }
        let bytes: Arc<[u8]> = payload.into();
        if !self.parts.contains_key(&number) {
            self.parts_bytes += bytes.len();
            self.parts.insert(number, CachedPart { bytes: bytes.clone(), pins: 0, charge: 0, compare: 0 });
        }
        self.acts.push_back(Act::UsePart(PartNo(number), bytes));
        Ok(())
    }

    /// Says what is lacking once both are known: who the upstream is, and how many blocks there are. What the nodes below
    /// lack is lacking here too, so a node that does not lack everything itself waits until its downstream has said it.
    pub(super) fn open_upstream(&mut self) {
        let Some(link) = self.upstream.link.as_ref() else { return };
        if self.shape.is_none() || !link.is_proven() || link.is_open() {
            return;
        }
        let mut lacks = self.accepted.complement();
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
        if let Some(link) = &mut self.upstream.link {
            link.say_lacks(&lacks);
        }
    }

    /// Fetches `block` once more from the upstream.
    pub(super) fn ask_again(&mut self, block: BlockNo) {
        if let Some(link) = &mut self.upstream.link {
            link.say_again(block);
        }
    }

    pub(super) fn lose_upstream(&mut self, fault: &LinkFault) {
        let Some(link) = &self.upstream.link else { return };
        let (peer, fault) = (link.terms().from, fault.as_seen(link.is_proven()));
        self.drop_upstream();
        self.tell_link(Side::Upstream, peer, LinkState::Down, Some(&fault));
    }

    pub(super) fn time_upstream(&mut self, now: Time) {
        let free = self.free();
        let capacity = self.book.capacity();
        let next = self.passed_on();
        let Some(link) = &mut self.upstream.link else { return };
        let (peer, silence) = (link.terms().from, link.silence(now));
        match link.on_time(next, free, capacity, now) {
            Ok(()) => self.suspect(Side::Upstream, peer, silence),
            Err(fault) => {
                self.lose_upstream(&fault);
                self.acts.push_back(Act::Close(Side::Upstream));
            }
        }
    }

    /// How many leading frames of the upstream link the next node has, too.
    fn passed_on(&mut self) -> u64 {
        let Some(link) = &self.upstream.link else { return 0 };
        if self.downstream.is_none() || self.is_followed() {
            return link.received();
        }
        let next = self.book.next_id();
        while self.upstream.passed_on < next && self.book.is_near(self.upstream.passed_on) {
            self.upstream.passed_on += 1;
        }
        self.upstream.passed_on - self.upstream.base
    }
}
