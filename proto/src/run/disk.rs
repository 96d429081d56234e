//! The disk of a run: the manifest that it is written by, when it is compared and when it begins, what is handed to it, and what it
//! says came of that.

use super::{PartUse, Run, RunAct};
use crate::bug::{self, Bug};
use crate::control::Side;
use crate::frame::Header;
use crate::link::LinkFault;
use crate::node::{DiskEnd, Shape};
use crate::reason::Reason;
use crate::relay_log::EntryId;
use crate::schedule::{DiskFailure, Event};
use crate::units::{BlockNo, PartNo, Time};

/// How far the target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// Nothing was written, and nothing takes blocks yet.
    Open,
    /// It takes blocks.
    Running,
    /// It failed.
    Gone,
}

impl<P: Clone> Run<P> {
    /// Whether nothing of the target was, or may have been, written.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.disk == Disk::Open
    }

    /// Whether the target may hold something of the image.
    #[must_use]
    pub fn is_comparable(&self) -> bool {
        self.comparing.is_worth_it()
    }

    /// The manifest header was checked and read, or is not the one that the server announced.
    pub fn on_manifest(&mut self, result: Result<Shape, LinkFault>, now: Time) {
        match result {
            Err(fault) => self.on_lost(Side::Upstream, &fault, now),
            Ok(shape) => {
                self.node.on_shape(shape);
                if self.disk == Disk::Open && !bug::is(Bug::DiskNotStarted) {
                    self.acts.push_back(RunAct::StartDisk);
                } else {
                    self.begin_if_due();
                }
            }
        }
    }

    /// The disk takes blocks now, or can't be started.
    pub fn on_disk_started(&mut self, result: Result<(), DiskFailure>) {
        match result {
            Ok(()) => self.disk = Disk::Running,
            Err(DiskFailure { reason, detail }) => {
                self.disk = Disk::Gone;
                self.node.on_disk_failed(reason, &detail);
            }
        }
        self.begin_if_due();
    }

    /// Lets the disk be written, unless it is being compared first or lacks nothing.
    pub(super) fn begin_if_due(&mut self) {
        if self.disk == Disk::Running && self.comparing.begins(self.joined, &self.node) {
            self.acts.push_back(RunAct::BeginDisk);
        }
    }

    pub(super) fn use_of(&self, no: PartNo) -> PartUse {
        if self.node.is_comparing() {
            PartUse::Compare
        } else {
            PartUse::Keep { to_disk: self.disk == Disk::Running && !self.node.knows_part(no) }
        }
    }

    /// Part `no` was read, of which `fills` need no payload; or it is not the one that the manifest header names.
    pub fn on_part(
        &mut self,
        no: PartNo,
        of: PartUse,
        fills: Result<impl IntoIterator<Item = BlockNo>, LinkFault>,
        now: Time,
    ) {
        match (fills, of) {
            (Err(fault), _) => self.on_lost(Side::Upstream, &fault, now),
            (Ok(fills), PartUse::Keep { .. }) => self.node.on_part(no, fills),
            (Ok(_), PartUse::Compare) => {
                let compares = self.comparing.on_part(no, self.disk == Disk::Running);
                self.node.on_part_to_compare(no, compares);
                self.compare_more();
            }
        }
    }

    fn compare_more(&mut self) {
        while let Some(no) = self.comparing.poll() {
            let Some(bytes) = self.node.part_bytes(no) else {
                return self.on_disk_lost(Reason::Internal, &format!("part {no} was lost before it was compared"));
            };
            self.acts.push_back(RunAct::Compare { no, bytes, sampled: self.comparing.is_sampled() });
        }
    }

    fn on_compared(&mut self, first: BlockNo, same: Vec<BlockNo>) {
        let Some(no) = self.node.part_of(first.0) else { return };
        if self.comparing.on_compared(no) {
            self.node.on_compared(no, &same);
            self.acts.push_back(RunAct::Settled(same));
            self.compare_more();
        }
    }

    /// Takes what the disk has to say.
    pub fn on_disk(&mut self, event: Event) {
        match event {
            Event::Began => {}
            Event::Compared { first, same } => self.on_compared(first, same),
            Event::BadContent(block) => self.node.on_bad_content(block, false),
            Event::Mismatch(block) => self.node.on_bad_content(block, true),
            Event::Unverified => self.node.on_unverified(),
            Event::Written(block) => self.node.on_written(block),
            Event::Durable(blocks) => {
                self.node.on_durable(&blocks);
                if !self.prepare.verify.reads_back() {
                    self.acts.push_back(RunAct::Settled(blocks));
                }
            }
            Event::Verified(blocks) => {
                self.node.on_verified(&blocks);
                self.acts.push_back(RunAct::Settled(blocks));
            }
            Event::Failed(DiskFailure { reason, detail }) => self.on_disk_lost(reason, &detail),
            Event::Ended { verified, written, kept, last_look, note } => {
                self.node.on_disk_ended(DiskEnd { verified, written, kept, last_look }, &note);
            }
        }
    }

    /// The content of a block is not what the manifest says, as far as can be told before it is handed to the disk.
    pub fn on_bad_content(&mut self, block: BlockNo) {
        self.node.on_bad_content(block, false);
    }

    /// The disk is of no more use: it takes no more, and what waits to be compared is let go, so that it holds up nobody.
    pub fn on_disk_lost(&mut self, reason: Reason, detail: &str) {
        self.node.on_disk_failed(reason, detail);
        self.stop_disk();
        let waiting: Vec<PartNo> = self.comparing.on_disk_gone().collect();
        waiting.into_iter().for_each(|no| self.node.on_compared(no, &[]));
    }

    /// A target on which nothing was written is as it was.
    pub(super) fn stop_disk(&mut self) {
        if self.disk == Disk::Running {
            self.disk = Disk::Gone;
            self.acts.push_back(RunAct::StopDisk);
        }
    }

    pub(super) fn finish_disk(&mut self) {
        self.comparing.end();
        if self.disk == Disk::Running {
            self.acts.push_back(RunAct::FinishDisk);
        }
    }

    /// Hands an entry of the ring to the disk.
    pub(super) fn write(&mut self, id: EntryId, header: Header) {
        if self.disk != Disk::Running {
            return;
        }
        match self.payload(id).cloned() {
            Some(payload) => self.acts.push_back(RunAct::Write(header, payload)),
            None => {
                let detail = format!("block {} was let go before it was written", header.number);
                self.on_disk_lost(Reason::Internal, &detail);
            }
        }
    }
}
