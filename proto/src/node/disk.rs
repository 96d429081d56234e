//! What the disk has done, and when it is complete.

use super::blocks::Wrong;
use super::{Act, Node};
use crate::bug::{self, Bug};
use crate::control::{BadBlock, Ended, ToServer};
use crate::reason::{EndState, LookedAt, Reason, Verified};
use crate::units::{BlockNo, NodeId};

/// How far the disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Writing,
    Finishing,
    /// It ended. This was said to the server, and is to be said again to one that may not have heard it.
    Ended(Box<Ended>),
}

/// What was done to a disk that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskEnd {
    /// How it was read back; `No` unless all of it was.
    pub verified: Verified,
    /// Blocks written.
    pub written: u32,
    /// Blocks that stood there already.
    pub kept: u32,
    /// How much was read once more before the head was written, and how many blocks that were.
    pub last_look: (LookedAt, u32),
}

impl Default for DiskEnd {
    /// Nothing.
    fn default() -> Self {
        Self { verified: Verified::No, written: 0, kept: 0, last_look: (LookedAt::No, 0) }
    }
}

impl Node {
    /// The disk has all places of `block`.
    pub fn on_written(&mut self, block: BlockNo) {
        self.relay_log.on_written(block);
        if bug::is(Bug::HaveSetBeforeFlush) {
            self.on_durable(&[block]);
        }
        self.reclaim();
    }

    /// A flush covered these blocks.
    pub fn on_durable(&mut self, blocks: &[BlockNo]) {
        for block in blocks {
            self.blocks.on_durable(*block);
        }
        self.check_complete();
    }

    /// What was verified so far does not count any more: the disk is read once more, from its beginning.
    pub fn on_unverified(&mut self) {
        self.blocks.unverify();
        self.doubt_disk();
    }

    /// The disk lacks something though it was said to be complete.
    fn doubt_disk(&mut self) {
        if self.disk == Disk::Finishing {
            self.disk = Disk::Writing;
        }
    }

    /// These blocks were read back and are equal.
    pub fn on_verified(&mut self, blocks: &[BlockNo]) {
        for block in blocks {
            self.blocks.on_verified(*block);
        }
        self.check_complete();
    }

    /// The content of `block` does not have its hash (nothing of it was written), or what was read back differs: it is
    /// fetched again, a few times at the most. Only what comes straight from the server proves that the image is
    /// rotten; a neighbour may have got it damaged itself and not know yet, so the block then waits for a catch-up pass.
    pub fn on_bad_content(&mut self, block: BlockNo, read_back: bool) {
        self.relay_log.on_written(block);
        if !read_back {
            self.relay_log.forget(block);
        }
        self.doubt_disk();
        let from = self.upstream.from();
        let wrong = match (read_back, from) {
            (true, _) => Wrong::ReadBack,
            (false, NodeId::SERVER) => Wrong::FromServer,
            (false, _) => Wrong::FromNode,
        };
        let last = self.blocks.reject(block, wrong);
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
        self.end(EndState::Failed, reason, detail, DiskEnd::default());
        self.relay_log.on_disk_gone();
        self.reclaim();
    }

    /// The disk is complete. `note` is what the operator should know of it all the same.
    pub fn on_disk_ended(&mut self, end: DiskEnd, note: &str) {
        let proven = self.config.verify.reads_back() && end.verified != Verified::No;
        let state = if proven { EndState::Done } else { EndState::Written };
        self.end(state, Reason::None, note, end);
    }

    pub(super) fn end(&mut self, state: EndState, reason: Reason, detail: &str, disk: DiskEnd) {
        let ended = Ended {
            deployment: self.config.deployment,
            root: self.config.root,
            state,
            reason,
            detail: detail.to_owned(),
            verified: disk.verified,
            blocks_written: disk.written,
            blocks_kept: disk.kept,
            last_look: disk.last_look.0,
            last_look_blocks: disk.last_look.1,
        };
        self.disk = Disk::Ended(Box::new(ended.clone()));
        self.acts.push_back(Act::Tell(ToServer::Ended(ended)));
    }

    /// How the disk ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<EndState> {
        match &self.disk {
            Disk::Ended(ended) => Some(ended.state),
            _ => None,
        }
    }

    pub(super) fn check_complete(&mut self) {
        let known = self.manifest.shape().is_some();
        if self.disk == Disk::Writing && known && self.blocks.are_proven(self.config.verify) {
            self.disk = Disk::Finishing;
            self.acts.push_back(Act::FinishDisk);
        }
    }
}
