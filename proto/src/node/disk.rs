//! What the disk has done, and when it is complete.

use super::{Act, CONTENT_TRIES, Disk, Node, Wrong};
use crate::bug::{self, Bug};
use crate::control::{BadBlock, Ended, ToServer};
use crate::reason::{EndState, Reason, Verified, Verify};
use crate::units::{BlockNo, NodeId};

impl Node {
    /// The disk has all places of `block`.
    pub fn on_written(&mut self, block: BlockNo) {
        self.book.on_written(block);
        if bug::is(Bug::HaveSetBeforeFlush) {
            self.on_durable(&[block]);
        }
        self.reclaim();
    }

    /// A flush covered these blocks.
    pub fn on_durable(&mut self, blocks: &[BlockNo]) {
        for block in blocks {
            if self.accepted.contains(*block) && self.durable.insert(*block) {
                self.unreported.insert(*block);
            }
        }
        self.check_complete();
    }

    /// These blocks were read back and are equal.
    pub fn on_verified(&mut self, blocks: &[BlockNo]) {
        for block in blocks {
            self.verified.insert(*block);
        }
        self.check_complete();
    }

    /// The content of `block` does not have its hash (nothing of it was written), or what was read back differs: it is
    /// fetched again, [`CONTENT_TRIES`] times at the most. Only what comes straight from the server proves that the image is
    /// rotten; a neighbour may have got it damaged itself and not know yet, so the block then waits for a catch-up pass.
    pub fn on_bad_content(&mut self, block: BlockNo, read_back: bool) {
        self.book.on_written(block);
        if !read_back {
            self.book.forget(block);
        }
        for set in [&mut self.durable, &mut self.verified, &mut self.unreported] {
            set.remove(block);
        }
        if !bug::is(Bug::MismatchStaysAccepted) {
            self.accepted.remove(block);
        }
        let from = self.upstream.terms.as_ref().map_or(NodeId::SERVER, |terms| terms.from);
        let wrong = match (read_back, from) {
            (true, _) => Wrong::ReadBack,
            (false, NodeId::SERVER) => Wrong::FromServer,
            (false, _) => Wrong::FromNode,
        };
        let tries = self.content_tries.entry((block, wrong)).or_insert(0);
        *tries = tries.saturating_add(1);
        let last = *tries >= CONTENT_TRIES;
        let proof = match wrong {
            Wrong::ReadBack => Some((Reason::DiskMismatch, "read back wrong twice")),
            Wrong::FromServer => Some((Reason::ImageCorrupt, "arrived with wrong content twice")),
            Wrong::FromNode => None,
        };
        if let (true, Some((reason, what))) = (last, proof) {
            self.on_disk_failed(reason, &format!("block {block} {what}"));
        } else if !last {
            let detail = if read_back { "read back wrong" } else { "wrong content" };
            if !read_back {
                let bad = BadBlock { deployment: self.config.deployment, block, from, detail: detail.to_owned() };
                self.acts.push_back(Act::Tell(ToServer::BadBlock(bad)));
            }
            self.ask_again(block);
        }
        self.reclaim();
    }

    /// The target takes no more. The node goes on relaying.
    pub fn on_disk_failed(&mut self, reason: Reason, detail: &str) {
        if matches!(self.disk, Disk::Ended(_)) || (bug::is(Bug::FlushErrorIgnored) && reason == Reason::DiskFlush) {
            return;
        }
        self.end(EndState::Failed, reason, detail, Verified::No, 0, 0);
        self.book.on_disk_gone();
        self.reclaim();
    }

    /// The disk is complete. `written` and `kept` count blocks.
    pub fn on_disk_ended(&mut self, verified: Verified, written: u32, kept: u32) {
        let proven = self.config.verify == Verify::Full && verified != Verified::No;
        let state = if proven { EndState::Done } else { EndState::Written };
        self.end(state, Reason::None, "", verified, written, kept);
    }

    pub(super) fn end(
        &mut self,
        state: EndState,
        reason: Reason,
        detail: &str,
        verified: Verified,
        written: u32,
        kept: u32,
    ) {
        self.disk = Disk::Ended(state);
        let ended = Ended {
            deployment: self.config.deployment,
            root: self.config.root,
            state,
            reason,
            detail: detail.to_owned(),
            verified,
            blocks_written: written,
            blocks_kept: kept,
        };
        self.last_word = Some(ended.clone());
        self.acts.push_back(Act::Tell(ToServer::Ended(ended)));
    }

    /// How the disk ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<EndState> {
        match self.disk {
            Disk::Ended(state) => Some(state),
            _ => None,
        }
    }

    pub(super) fn check_complete(&mut self) {
        if self.disk != Disk::Writing || self.shape.is_none() || !self.accepted.is_full() {
            return;
        }
        let read_back = self.config.verify == Verify::Full && !bug::is(Bug::FinishUnverified);
        let proven = if read_back { &self.verified } else { &self.durable };
        if proven.is_full() {
            self.disk = Disk::Finishing;
            self.acts.push_back(Act::FinishDisk);
        }
    }
}
