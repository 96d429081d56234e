//! What goes out to the neighbour down the chain: the manifest header, parts that are kept, blocks as they stand in the ring. In which
//! order, and how much of it, is decided by [`Outlet`].

use super::downstream::{Downstream, State};
use super::manifest::Manifest;
use super::{Node, Transmit};
use crate::bug::{self, Bug};
use crate::frame::{HEADER_LEN, Header, Kind};
use crate::link::{Next, Outlet, Sender, Supply};
use crate::relay_log::{EntryId, RelayLog};
use crate::set::BlockSet;
use crate::units::{BlockNo, PartNo, Time};
use std::collections::VecDeque;
use std::sync::Arc;

/// What goes out on one link.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) outlet: Outlet,
    /// Segments of what the downstream lacks that came before the number of blocks was known here, and when.
    pub(super) early: Vec<(Header, Vec<u8>, Time)>,
    /// Parts that wait to be sent.
    parts: VecDeque<PartNo>,
    /// The next entry to look at.
    cursor: EntryId,
    /// Entries sent that the downstream has not both received and passed on; the first is frame `sent_base`.
    sent: VecDeque<EntryId>,
    sent_base: u64,
    /// Frames that the downstream has received.
    near: u64,
}

impl Flow {
    /// Nothing went out yet; `first` is the oldest entry of the ring.
    pub(super) fn new(outlet: Outlet, first: EntryId) -> Self {
        Self {
            outlet,
            early: Vec::new(),
            parts: VecDeque::new(),
            cursor: first + u64::from(bug::is(Bug::ReplayOffByOne)),
            sent: VecDeque::new(),
            sent_base: 0,
            near: 0,
        }
    }

    /// Entries sent of which the downstream has not said that they have reached the node below it.
    pub(super) fn unacknowledged(self) -> impl Iterator<Item = EntryId> {
        self.sent.into_iter()
    }

    /// The downstream said how far it is.
    pub(super) fn on_acked(&mut self, relay_log: &mut RelayLog) {
        let (received, far) = self.outlet.sender.received();
        while self.near < received {
            let at = usize::try_from(self.near - self.sent_base).unwrap_or(usize::MAX);
            if let Some(id) = self.sent.get(at) {
                relay_log.on_received(*id, false);
            }
            self.near += 1;
        }
        while self.sent_base < far {
            if let Some(id) = self.sent.pop_front() {
                relay_log.on_received(id, true);
            }
            self.sent_base += 1;
        }
    }
}

impl Node {
    /// What the downstream lacks is known: queues the parts at hand for it.
    pub(super) fn open_downstream(&mut self) {
        self.manifest.at_hand().into_iter().for_each(|part| self.queue_part(part));
        self.open_upstream();
    }

    /// Queues a part for the downstream, if that is connected and lacks anything of it.
    pub(super) fn queue_part(&mut self, part: PartNo) {
        let followed = self.is_followed();
        if let (Some(shape), Some(flow)) = (self.manifest.shape(), self.downstream.as_mut().and_then(Downstream::flow))
        {
            let lacking = flow.outlet.sender.is_open() && flow.outlet.sender.lacking().any_in(shape.blocks_of(part));
            let sent = flow.outlet.has_sent(part) || flow.parts.contains(&part);
            if lacking && !sent && self.manifest.part(part).is_some() {
                // A follower holds nothing: if the cache has let go of a part when its turn comes, it lacks those blocks.
                self.manifest.queue(part, followed);
                flow.parts.push_back(part);
            }
        }
        self.manifest.trim();
    }

    pub(super) fn transmit_downstream(&mut self) -> Option<Transmit> {
        let followed = self.is_followed();
        let Flow { outlet, parts, cursor, sent, .. } = self.downstream.as_mut()?.flow()?;
        let (manifest, ended) = (&self.manifest, self.upstream.ended());
        let (skipped, missing) = (false, Vec::new());
        let relay_log = &mut self.relay_log;
        let mut ring = FromRing { manifest, relay_log, parts, cursor, sent, ended, followed, skipped, missing };
        let transmit = outlet.poll(&mut ring);
        let FromRing { skipped, missing, .. } = ring;
        missing.into_iter().for_each(|block| self.ask_again(block));
        if skipped && !matches!(transmit, Some(Transmit::Block(..))) {
            self.reclaim();
        }
        transmit
    }

    pub(super) fn transmitted_downstream(&mut self, transmit: &Transmit, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        if let State::Up(flow) = &mut down.state {
            flow.outlet.sender.on_said(now);
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
            Transmit::Block(header, id) => {
                *sent += HEADER_LEN as u64 + u64::from(header.payload_len);
                self.relay_log.on_sent(*id, true);
                self.reclaim();
            }
        }
    }
}

/// What a node has for its downstream: the parts that it keeps, and the blocks in its ring.
struct FromRing<'a> {
    manifest: &'a Manifest,
    relay_log: &'a mut RelayLog,
    parts: &'a mut VecDeque<PartNo>,
    cursor: &'a mut EntryId,
    sent: &'a mut VecDeque<EntryId>,
    ended: Option<u32>,
    followed: bool,
    /// Entries were passed over that the downstream does not need.
    skipped: bool,
    /// Blocks that are wanted again and have left the ring.
    missing: Vec<BlockNo>,
}

impl Supply for FromRing<'_> {
    type Payload = EntryId;

    fn manifest(&self) -> Option<Arc<[u8]>> {
        self.manifest.header().cloned()
    }

    fn next(&mut self, sender: &Sender, parts_sent: &BlockSet) -> Option<Next<EntryId>> {
        while let Some(part) = self.parts.front() {
            match self.manifest.part(*part) {
                Some(bytes) => return Some(Next::Part(*part, bytes.clone())),
                None => drop(self.parts.pop_front()),
            }
        }
        let shape = self.manifest.shape()?;
        *self.cursor = (*self.cursor).max(self.relay_log.first_id());
        loop {
            let (id, entry) = (*self.cursor, self.relay_log.get(*self.cursor)?);
            let part = shape.part_of(entry.block());
            let wanted = entry.header.payload_len != 0 && sender.lacks(entry.block());
            if wanted && parts_sent.contains(BlockNo(part.0)) {
                return Some(Next::Block(entry.header, id));
            }
            self.relay_log.on_not_needed(id);
            *self.cursor += 1;
            self.skipped = true;
        }
    }

    fn again(&mut self, block: BlockNo) -> Option<(Header, EntryId)> {
        let found = self.relay_log.find(block).and_then(|id| self.relay_log.get(id).map(|entry| (entry.header, id)));
        if found.is_none() {
            self.missing.push(block);
        }
        found
    }

    fn on_part_sent(&mut self) {
        self.parts.pop_front();
    }

    fn on_block_sent(&mut self, id: &EntryId, again: bool) {
        *self.cursor += u64::from(!again);
        if !self.followed {
            self.relay_log.on_sending(*id);
        }
        self.sent.push_back(*id);
    }

    fn ended(&self) -> Option<u32> {
        self.ended
    }
}
