//! What goes out to the neighbour down the chain, and in which order: words, the manifest header, parts, blocks as they stand in the
//! ring, blocks that are wanted again, and the end of the pass.

use super::downstream::{Downstream, State};
use super::{Node, Transmit};
use crate::book::{Book, EntryId};
use crate::bug::{self, Bug};
use crate::frame::{HEADER_LEN, Header, Kind};
use crate::link::Sender;
use crate::set::BlockSet;
use crate::units::{BlockNo, PartNo, Time};
use std::collections::VecDeque;

/// What goes out on one link.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) sender: Sender,
    pub(super) manifest_due: bool,
    /// Segments of what the downstream lacks that came before the number of blocks was known here, and when.
    pub(super) early: Vec<(Header, Vec<u8>, Time)>,
    /// Parts that wait to be sent.
    parts: VecDeque<PartNo>,
    parts_sent: BlockSet,
    /// The next entry to look at.
    cursor: EntryId,
    /// Entries sent that the downstream has not both received and passed on; the first is frame `sent_base`.
    sent: VecDeque<EntryId>,
    sent_base: u64,
    /// Frames that the downstream has received.
    near: u64,
    end_sent: Option<u32>,
}

impl Flow {
    /// Nothing went out yet; `first` is the oldest entry of the ring.
    pub(super) fn new(sender: Sender, first: EntryId) -> Self {
        Self {
            sender,
            manifest_due: false,
            early: Vec::new(),
            parts: VecDeque::new(),
            parts_sent: BlockSet::empty(0),
            cursor: first + u64::from(bug::is(Bug::ReplayOffByOne)),
            sent: VecDeque::new(),
            sent_base: 0,
            near: 0,
            end_sent: None,
        }
    }

    /// Entries sent of which the downstream has not said that they have reached the node below it.
    pub(super) fn unacknowledged(self) -> impl Iterator<Item = EntryId> {
        self.sent.into_iter()
    }

    /// The downstream said how far it is.
    pub(super) fn on_acked(&mut self, book: &mut Book) {
        let (received, far) = self.sender.received();
        while self.near < received {
            let at = usize::try_from(self.near - self.sent_base).unwrap_or(usize::MAX);
            if let Some(id) = self.sent.get(at) {
                book.on_received(*id, false);
            }
            self.near += 1;
        }
        while self.sent_base < far {
            if let Some(id) = self.sent.pop_front() {
                book.on_received(id, true);
            }
            self.sent_base += 1;
        }
    }

    fn has_part(&self, part: PartNo) -> bool {
        self.parts_sent.contains(BlockNo(part.0))
    }
}

impl Node {
    /// What the downstream lacks is known: queues the parts at hand for it.
    pub(super) fn open_downstream(&mut self) {
        let Some(shape) = self.manifest.shape() else { return };
        if let Some(flow) = self.downstream.as_mut().and_then(Downstream::flow) {
            flow.parts_sent = BlockSet::empty(u32::try_from(shape.parts.len()).unwrap_or(0));
        }
        self.manifest.at_hand().into_iter().for_each(|part| self.queue_part(part));
        self.open_upstream();
    }

    /// Queues a part for the downstream, if that is connected and lacks anything of it.
    pub(super) fn queue_part(&mut self, part: PartNo) {
        let followed = self.is_followed();
        if let (Some(shape), Some(flow)) = (self.manifest.shape(), self.downstream.as_mut().and_then(Downstream::flow))
        {
            let lacking = flow.sender.is_open() && flow.sender.lacking().any_in(shape.blocks_of(part));
            let sent = flow.has_part(part) || flow.parts.contains(&part);
            if lacking && !sent && self.manifest.part(part).is_some() {
                // A follower holds nothing: if the cache has let go of a part when its turn comes, it lacks those blocks.
                self.manifest.queue(part, followed);
                flow.parts.push_back(part);
            }
        }
        self.manifest.trim();
    }

    pub(super) fn transmit_downstream(&mut self) -> Option<Transmit> {
        let flow = self.downstream.as_mut()?.flow()?;
        if let Some(bytes) = flow.sender.poll_control() {
            return Some(Transmit::Bytes(bytes));
        }
        if let (true, true, Some(bytes)) = (flow.sender.is_proven(), flow.manifest_due, self.manifest.header()) {
            flow.manifest_due = false;
            let header = Header::with_payload(Kind::Manifest, self.config.deployment, 0, bytes);
            return Some(Transmit::Shared(header, bytes.clone()));
        }
        if !flow.sender.is_open() {
            return None;
        }
        while let Some(part) = flow.parts.front().copied() {
            let Some(bytes) = self.manifest.part(part) else {
                flow.parts.pop_front();
                continue;
            };
            let header = Header::with_payload(Kind::Part, self.config.deployment, part.0, bytes);
            if !flow.sender.may_send(header.charge()) {
                return None;
            }
            flow.sender.sent_part(&header);
            flow.parts.pop_front();
            flow.parts_sent.insert(BlockNo(part.0));
            return Some(Transmit::Shared(header, bytes.clone()));
        }
        self.next_entry()
    }

    /// The next block that the downstream wants again. Gives nothing as well while credit does not cover it.
    fn next_again(&mut self) -> Option<Transmit> {
        loop {
            let sender = &mut self.downstream.as_mut()?.flow()?.sender;
            let block = sender.next_again()?;
            let found = self.book.find(block).and_then(|id| self.book.get(id).map(|entry| (id, entry.header)));
            match found {
                Some((_, header)) if !sender.may_send(header.charge()) => return None,
                Some((id, header)) => {
                    sender.settle_again();
                    return self.send_entry(id, &header);
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
        let shape = self.manifest.shape()?;
        let flow = self.downstream.as_mut()?.flow()?;
        flow.cursor = flow.cursor.max(self.book.first_id());
        let mut skipped = false;
        let found = loop {
            let Some(entry) = self.book.get(flow.cursor) else { break None };
            let (id, header) = (flow.cursor, entry.header);
            let wanted = header.payload_len != 0 && flow.sender.lacks(entry.block());
            if wanted && flow.has_part(shape.part_of(entry.block())) {
                break flow.sender.may_send(header.charge()).then_some((id, header));
            }
            self.book.on_not_needed(id);
            flow.cursor += 1;
            skipped = true;
        };
        if let Some((id, header)) = found {
            flow.cursor += 1;
            return self.send_entry(id, &header);
        }
        let drained = self.book.get(flow.cursor).is_none();
        // What is wanted again comes after everything new.
        if drained && let Some(again) = self.next_again() {
            return Some(again);
        }
        let flow = self.downstream.as_mut()?.flow()?;
        let drained = (drained && flow.sender.has_no_again()) || bug::is(Bug::EndTooEarly);
        let ended = self.upstream.ended().filter(|pass| drained && flow.end_sent != Some(*pass));
        if skipped {
            self.reclaim();
        }
        let pass = ended?;
        self.downstream.as_mut()?.flow()?.end_sent = Some(pass);
        Some(Transmit::Bytes(Header::bare(Kind::End, self.config.deployment, pass).encode().to_vec()))
    }

    fn send_entry(&mut self, id: EntryId, header: &Header) -> Option<Transmit> {
        if !self.is_followed() {
            self.book.on_sending(id);
        }
        let flow = self.downstream.as_mut()?.flow()?;
        flow.sent.push_back(id);
        flow.sender.sent_block(header);
        Some(Transmit::Entry(*header, id))
    }

    pub(super) fn transmitted_downstream(&mut self, transmit: &Transmit, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        if let State::Up(flow) = &mut down.state {
            flow.sender.on_said(now);
        }
        let sent = &mut self.reporting.sent_bytes;
        match transmit {
            Transmit::Bytes(bytes) => *sent += bytes.len() as u64,
            Transmit::Shared(header, bytes) => {
                *sent += (HEADER_LEN + bytes.len()) as u64;
                if header.kind == Kind::Part {
                    self.manifest.on_sent(PartNo(header.number));
                }
            }
            Transmit::Entry(header, id) => {
                *sent += HEADER_LEN as u64 + u64::from(header.payload_len);
                self.book.on_sent(*id, true);
                self.reclaim();
            }
        }
    }
}
