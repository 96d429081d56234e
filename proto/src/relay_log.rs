//! The bookkeeping of an agent's ring: which blocks it holds, why each is still needed, and what may go.
//!
//! Entries come and go in order, like the bytes of the ring. An entry may go when it is written, passed on, and received
//! by the next two nodes; for that last reason alone at most half the ring is held, and a quarter when the rest is full of what
//! is still to be passed on. So a node whose downstream takes nothing any more still has what that one never passed on.

use crate::bug::{self, Bug};
use crate::frame::Header;
use crate::units::BlockNo;
use std::collections::{HashMap, VecDeque};

/// The number of an entry: rises by one with each block frame that arrives, never used twice.
pub(crate) type EntryId = u64;

/// What the next node down the chain means for the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// There is none: what is written may go.
    Nobody,
    /// It paces the ring: nothing goes before it was passed on.
    Paced,
    /// It takes what it can; the ring is kept half full for it, no more.
    Loose,
}

/// One block frame in the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its header as it came.
    pub(crate) header: Header,
    written: bool,
    passed: bool,
    acked: bool,
    acked_below: bool,
    sending: bool,
}

impl Entry {
    /// The block it carries.
    #[must_use]
    pub(crate) fn block(&self) -> BlockNo {
        BlockNo(self.header.number)
    }

    /// What it holds of the ring only because the next two nodes have not said that they have it.
    fn replay_bytes(&self) -> u64 {
        if self.passed && !self.acked_below { self.header.charge() } else { 0 }
    }
}

/// The entries of the ring, oldest first.
#[derive(Debug)]
pub(crate) struct RelayLog {
    capacity: u64,
    held: u64,
    /// The bytes of what was passed on and may be needed again.
    replay_bytes: u64,
    /// How many entries the disk still needs.
    unwritten: usize,
    first: EntryId,
    entries: VecDeque<Entry>,
    newest: HashMap<BlockNo, EntryId>,
}

impl RelayLog {
    /// The log of an empty ring of `capacity` bytes.
    #[must_use]
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            held: 0,
            replay_bytes: 0,
            unwritten: 0,
            first: 0,
            entries: VecDeque::new(),
            newest: HashMap::new(),
        }
    }

    /// The size of the ring in bytes.
    #[must_use]
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The bytes that entries hold.
    #[must_use]
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// The number that the next entry will get.
    #[must_use]
    pub(crate) fn next_id(&self) -> EntryId {
        self.first + self.entries.len() as u64
    }

    /// The number of the oldest entry, or of the next one if there is none.
    #[must_use]
    pub(crate) fn first_id(&self) -> EntryId {
        self.first
    }

    /// Takes in a block; `to_write` says whether the disk still needs it.
    pub(crate) fn push(&mut self, header: Header, to_write: bool) -> EntryId {
        let id = self.next_id();
        self.held += header.charge();
        self.unwritten += usize::from(to_write);
        self.newest.insert(BlockNo(header.number), id);
        self.entries.push_back(Entry {
            header,
            written: !to_write,
            passed: false,
            acked: false,
            acked_below: false,
            sending: false,
        });
        id
    }

    /// Takes in a frame that was of no use, so that the numbering stays that of the link. It holds nothing.
    pub(crate) fn push_spoilt(&mut self, header: Header) {
        let header = Header { payload_len: 0, ..header };
        self.entries.push_back(Entry {
            header,
            written: true,
            passed: true,
            acked: true,
            acked_below: true,
            sending: false,
        });
    }

    /// The entry with this number, if it is still there.
    #[must_use]
    pub(crate) fn get(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    fn entry(&mut self, id: EntryId) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    /// Changes what is known of the downstream and an entry.
    fn change(&mut self, id: EntryId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entry(id) {
            let before = entry.replay_bytes();
            change(entry);
            let after = entry.replay_bytes();
            self.replay_bytes = self.replay_bytes - before + after;
        }
    }

    /// The newest entry that carries `block`.
    #[must_use]
    pub(crate) fn find(&self, block: BlockNo) -> Option<EntryId> {
        self.newest.get(&block).copied()
    }

    /// The disk is through with `block`, whether it took it or not.
    pub(crate) fn on_written(&mut self, block: BlockNo) {
        let unwritten = |entry: &Entry| entry.block() == block && !entry.written;
        let newest = self.find(block).filter(|id| self.get(*id).is_some_and(unwritten));
        // It may have come again for the nodes below, while an earlier entry waited for the disk: that one is meant.
        let earlier = || (self.first..).zip(&self.entries).find(|(_, entry)| unwritten(entry)).map(|(id, _)| id);
        if let Some(entry) = newest.or_else(earlier).and_then(|id| self.entry(id)) {
            entry.written = true;
            self.unwritten -= 1;
        }
    }

    /// The newest entry of `block` is of no use to anybody: it is not found any more.
    pub(crate) fn forget(&mut self, block: BlockNo) {
        self.newest.remove(&block);
    }

    /// The disk will take nothing more.
    pub(crate) fn on_disk_gone(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.written = true);
        self.unwritten = 0;
    }

    /// A frame is being written to the downstream socket: it must stay.
    pub(crate) fn on_sending(&mut self, id: EntryId) {
        if let Some(entry) = self.entry(id) {
            entry.sending = true;
        }
    }

    /// The frame went out whole, or the link it was going out on is gone.
    pub(crate) fn on_sent(&mut self, id: EntryId, whole: bool) {
        self.change(id, |entry| {
            entry.sending = false;
            entry.passed |= whole;
        });
    }

    /// The downstream does not need the entry.
    pub(crate) fn on_not_needed(&mut self, id: EntryId) {
        self.change(id, |entry| (entry.passed, entry.acked, entry.acked_below) = (true, true, true));
    }

    /// The next node has it; with `acked_below`, the one after it too.
    pub(crate) fn on_received(&mut self, id: EntryId, acked_below: bool) {
        self.change(id, |entry| {
            entry.acked = true;
            entry.acked_below |= acked_below;
        });
    }

    /// Whether the next node has the entry. One that is gone counts as had.
    #[must_use]
    pub(crate) fn is_acked(&self, id: EntryId) -> bool {
        self.get(id).is_none_or(|entry| entry.acked)
    }

    /// A new link down the chain: what the last one took says nothing of it.
    pub(crate) fn forget_downstream(&mut self) {
        for entry in &mut self.entries {
            let spoilt = entry.header.payload_len == 0;
            (entry.passed, entry.acked, entry.acked_below, entry.sending) = (spoilt, spoilt, spoilt, false);
        }
        self.replay_bytes = 0;
    }

    /// Whether the newest entry was not passed on.
    #[must_use]
    pub(crate) fn has_unsent(&self) -> bool {
        self.entries.back().is_some_and(|entry| !entry.passed)
    }

    /// Whether the oldest entry waits for the disk.
    #[must_use]
    pub(crate) fn waits_for_disk(&self) -> bool {
        self.entries.front().is_some_and(|entry| !entry.written)
    }

    /// Whether the disk has work.
    #[must_use]
    pub(crate) fn is_writing(&self) -> bool {
        self.unwritten > 0
    }

    /// Drops the oldest entry if nobody needs it, and gives its number and header.
    pub(crate) fn release(&mut self, need: Need) -> Option<(EntryId, Header)> {
        let entry = self.entries.front()?;
        let above_half = self.held > self.capacity / 2;
        let free = match need {
            Need::Nobody => true,
            Need::Paced if !bug::is(Bug::ReleaseUnsent) => {
                entry.passed && (entry.acked_below || (above_half && self.replay_bytes > self.capacity / 4))
            }
            Need::Paced | Need::Loose => entry.acked_below || above_half,
        };
        if (!entry.written && !bug::is(Bug::ReleaseUnwritten)) || entry.sending || !free {
            return None;
        }
        let entry = self.entries.pop_front()?;
        let id = self.first;
        self.first += 1;
        self.held -= entry.header.charge();
        self.replay_bytes -= entry.replay_bytes();
        if self.newest.get(&entry.block()) == Some(&id) {
            self.newest.remove(&entry.block());
        }
        Some((id, entry.header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::units::DeploymentId;

    fn header(number: u32) -> Header {
        Header { payload_len: 4096, raw_len: 4096, ..Header::bare(Kind::Block, DeploymentId([0; 16]), number) }
    }

    fn log_of(blocks: u32) -> RelayLog {
        let mut log = RelayLog::new(8 * 4096);
        for block in 0..blocks {
            log.push(header(block), true);
        }
        log
    }

    #[test]
    fn a_tail_lets_go_what_is_written_in_order() {
        let mut log = log_of(3);
        log.on_written(BlockNo(1));
        assert!(log.release(Need::Nobody).is_none());
        log.on_written(BlockNo(0));
        assert_eq!(log.release(Need::Nobody).map(|(id, _)| id), Some(0));
        assert_eq!(log.release(Need::Nobody).map(|(id, _)| id), Some(1));
        assert!(log.release(Need::Nobody).is_none());
        assert_eq!(log.held(), 4096);
    }

    #[test]
    fn a_paced_link_holds_what_was_not_passed_on() {
        let mut log = log_of(8);
        (0..8).for_each(|block| log.on_written(BlockNo(block)));
        assert!(log.release(Need::Paced).is_none());
        assert!(log.release(Need::Loose).is_some());
    }

    #[test]
    fn at_most_half_the_ring_is_held_for_the_next_two_nodes() {
        let mut log = log_of(8);
        for id in 0..8 {
            log.on_written(BlockNo(u32::try_from(id).unwrap()));
            log.on_sending(id);
            log.on_sent(id, true);
        }
        let released = std::iter::from_fn(|| log.release(Need::Paced)).count();
        assert_eq!((released, log.held()), (4, 4 * 4096));
        log.on_received(4, false);
        assert!(log.release(Need::Paced).is_none());
        log.on_received(4, true);
        assert!(log.release(Need::Paced).is_some());
    }

    #[test]
    fn what_the_downstream_may_not_have_passed_on_stays_while_the_ring_fills_behind_it() {
        let mut log = log_of(8);
        for id in 0..8 {
            log.on_written(BlockNo(u32::try_from(id).unwrap()));
        }
        let send = |log: &mut RelayLog, id| {
            log.on_sending(id);
            log.on_sent(id, true);
        };
        (0..2).for_each(|id| send(&mut log, id));
        assert!(log.release(Need::Paced).is_none(), "all that was sent is a quarter of the ring");
        send(&mut log, 2);
        assert_eq!(log.release(Need::Paced).map(|(id, _)| id), Some(0));
        assert!(log.release(Need::Paced).is_none());
        log.forget_downstream();
        (1..8).for_each(|id| log.on_received(id, true));
        assert!(log.release(Need::Paced).is_none(), "nothing was passed on to the next one");
    }

    #[test]
    fn a_frame_that_is_being_sent_stays() {
        let mut log = log_of(1);
        log.on_written(BlockNo(0));
        log.on_sending(0);
        assert!(log.release(Need::Nobody).is_none());
        log.on_sent(0, false);
        assert!(log.release(Need::Nobody).is_some());
    }

    #[test]
    fn a_block_that_came_again_before_it_was_written_does_not_hold_the_ring() {
        let mut log = log_of(1);
        log.push(header(0), false);
        log.on_written(BlockNo(0));
        assert_eq!(std::iter::from_fn(|| log.release(Need::Nobody)).count(), 2);
    }

    #[test]
    fn a_block_that_came_twice_is_found_at_its_newest_entry() {
        let mut log = log_of(2);
        let again = log.push(header(0), false);
        assert_eq!(log.find(BlockNo(0)), Some(again));
        log.on_disk_gone();
        assert!(log.release(Need::Nobody).is_some());
        assert_eq!(log.find(BlockNo(0)), Some(again));
    }
}
