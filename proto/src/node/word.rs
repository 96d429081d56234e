//! What the server is told: how far the node is, what it waits for, and how its links do.

use super::{Act, Disk, Node, SAMPLE};
use crate::book::Need;
use crate::bug::{self, Bug};
use crate::control::{LinkEvent, LinkState, Progress, Side, ToServer};
use crate::link::{LinkFault, SUSPECT};
use crate::reason::{Phase, Reason};
use crate::units::{BlockNo, NodeId, Time};
use core::time::Duration;

impl Node {
    /// The control link is there again, perhaps to a server that was started again: it is told all that is durable, and how
    /// the disk ended.
    pub fn on_server_back(&mut self) {
        if !self.joined {
            return;
        }
        self.unreported = self.durable.clone();
        self.acts.extend(self.broken.iter().flatten().cloned().map(ToServer::Link).map(Act::Tell));
        if let Some(ended) = self.last_word.clone().filter(|_| !bug::is(Bug::LastWordForgotten)) {
            self.acts.push_back(Act::Tell(ToServer::Ended(ended)));
        }
        self.report();
    }

    /// Reports to the server at once: it waits for this.
    pub(super) fn report(&mut self) {
        let progress = self.progress(self.written_bytes);
        self.acts.push_back(Act::Tell(ToServer::Progress(progress)));
    }

    pub(super) fn sample(&mut self, now: Time) {
        let span = now.since(self.sampled);
        if span < SAMPLE {
            return;
        }
        self.sampled = now;
        let ms = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        if self.is_comparing() && self.holds_part_to_compare() {
            self.waits.disk = self.waits.disk.saturating_add(ms);
            return;
        }
        // Nothing more comes, and there is something that the downstream has not taken: that is waiting for it, too.
        let left = self.upstream.ended.is_some() && self.need() == Need::Paced && self.book.has_unsent();
        let full = left || self.free() < self.book.capacity() / 4;
        if self.book.is_writing() {
            self.waits.disk = self.waits.disk.saturating_add(ms);
        }
        match (full, self.book.waits_for_disk()) {
            (false, _) => self.waits.upstream = self.waits.upstream.saturating_add(ms),
            (true, false) => self.waits.downstream = self.waits.downstream.saturating_add(ms),
            (true, true) => {}
        }
    }

    pub(super) fn tell_link(&mut self, side: Side, peer: NodeId, state: LinkState, fault: Option<&LinkFault>) {
        let reason = match (fault, side) {
            // Whoever owns the connection knows whether the kernel at the other end is silent, too.
            _ if state == LinkState::Suspect => Reason::None,
            (None, _) => Reason::None,
            (Some(LinkFault::ManifestHash | LinkFault::Manifest(_)), _) => Reason::ManifestMismatch,
            (Some(fault), _) if fault.is_damage() => Reason::LinkCorrupt,
            (Some(LinkFault::Header(crate::frame::HeaderError::Version(_))), _) => Reason::VersionMismatch,
            (Some(LinkFault::Proof), _) => Reason::KeyMismatch,
            // The server does not try such a link again: what vanishes without a word will go on vanishing.
            (Some(LinkFault::Silent(_) | LinkFault::Handshake), _) => Reason::TimedOut,
            (Some(LinkFault::Broken(_)), Side::Upstream) => Reason::UpstreamLost,
            (Some(LinkFault::Broken(_)), Side::Downstream) => Reason::DownstreamLost,
            (Some(_), _) => Reason::ProtocolError,
        };
        let event = LinkEvent {
            deployment: self.config.deployment,
            epoch: self.epoch,
            peer,
            side,
            state,
            reason,
            detail: fault.map(ToString::to_string).unwrap_or_default(),
        };
        let broken = &mut self.broken[usize::from(side == Side::Downstream)];
        *broken = (state == LinkState::Down).then(|| event.clone());
        self.acts.push_back(Act::Tell(ToServer::Link(event)));
    }

    /// Says that `block` came damaged from the upstream and is fetched again: the link goes on, but it is to be known what it is
    /// like.
    pub(super) fn tell_damage(&mut self, block: BlockNo, count: u32) {
        let Some(peer) = self.upstream.link.as_ref().map(|link| link.terms().from) else { return };
        let event = LinkEvent {
            deployment: self.config.deployment,
            epoch: self.epoch,
            peer,
            side: Side::Upstream,
            state: LinkState::Suspect,
            reason: Reason::LinkCorrupt,
            detail: format!("block {block} came damaged (its CRC differs), {count} so far on this link"),
        };
        self.acts.push_back(Act::Tell(ToServer::Link(event)));
    }

    /// Says once that the neighbour on `side` is quiet, and takes it back when it is heard again. The caller adds
    /// [`Reason::TimedOut`] if not even the kernel there answers: then the neighbour is believed to be dead.
    pub(super) fn suspect(&mut self, side: Side, peer: NodeId, silence: Duration) {
        let quiet = silence >= SUSPECT;
        let seen = &mut self.suspected[usize::from(side == Side::Downstream)];
        if *seen != quiet {
            *seen = quiet;
            let (state, fault) =
                if quiet { (LinkState::Suspect, Some(LinkFault::Silent(silence))) } else { (LinkState::Up, None) };
            self.tell_link(side, peer, state, fault.as_ref());
        }
    }

    /// Where the node stands, and what became durable since the last report. `written_bytes` is the disk's own count.
    pub fn progress(&mut self, written_bytes: u64) -> Progress {
        self.written_bytes = written_bytes;
        let durable_new: Vec<(u32, u32)> =
            self.unreported.ranges().take(4096).map(|range| (range.start, range.end)).collect();
        for (start, end) in &durable_new {
            for block in *start..*end {
                self.unreported.remove(BlockNo(block));
            }
        }
        let waits = core::mem::take(&mut self.waits);
        let phase = match self.disk {
            Disk::Ended(_) => Phase::Ended,
            Disk::Finishing => Phase::Finishing,
            Disk::Writing if self.is_comparing() && !self.has_compared() => Phase::Preparing,
            Disk::Writing if self.is_comparing() => Phase::Waiting,
            Disk::Writing if self.shape.is_some() && self.accepted.is_full() => Phase::Verifying,
            Disk::Writing if self.joined => Phase::Receiving,
            Disk::Writing => Phase::Waiting,
        };
        Progress {
            deployment: self.config.deployment,
            epoch: self.epoch,
            phase,
            accepted: self.accepted.count(),
            durable: self.durable.count(),
            verified: self.verified.count(),
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            written_bytes,
            wait_upstream_ms: waits.upstream,
            wait_downstream_ms: waits.downstream,
            wait_disk_ms: waits.disk,
            pass_ended: self.pass_ended,
            durable_new,
        }
    }
}
