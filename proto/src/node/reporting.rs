//! What the server is told: how far the node is, what it waits for, and how its links do.

use super::timers::SAMPLE;
use super::{Act, Disk, Node};
use crate::bug::{self, Bug};
use crate::control::{LinkEvent, LinkState, Progress, Side, ToServer};
use crate::link::{LinkFault, SUSPECT};
use crate::reason::{Phase, Reason};
use crate::relay_log::Need;
use crate::units::{BlockNo, NodeId, Time};
use core::time::Duration;

/// What the node waited for since the last report, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    /// There was room in the ring.
    upstream: u32,
    /// There was none, and the disk was not the reason.
    downstream: u32,
    /// The disk had work. When there was no room either, it was the reason.
    disk: u32,
}

/// What was said of the link on one side.
#[derive(Debug, Default)]
struct Said {
    /// Its neighbour is quiet.
    quiet: bool,
    /// It broke and was not made anew since.
    broken: Option<LinkEvent>,
}

/// What the next report will say, and what is to be said again to a server that may not have heard it.
#[derive(Debug)]
pub(super) struct Reporting {
    waits: Waits,
    sampled: Time,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// The disk's count as of the last report.
    written_bytes: u64,
    upstream: Said,
    downstream: Said,
}

impl Reporting {
    pub(super) fn new(now: Time) -> Self {
        Self {
            waits: Waits::default(),
            sampled: now,
            received_bytes: 0,
            sent_bytes: 0,
            written_bytes: 0,
            upstream: Said::default(),
            downstream: Said::default(),
        }
    }

    pub(super) fn next_sample(&self) -> Time {
        self.sampled.after(SAMPLE)
    }

    fn said(&mut self, side: Side) -> &mut Said {
        match side {
            Side::Upstream => &mut self.upstream,
            Side::Downstream => &mut self.downstream,
        }
    }
}

impl Node {
    /// The control link is there again, perhaps to a server that was started again: it is told all that is durable, and how
    /// the disk ended.
    pub fn on_server_back(&mut self) {
        if !self.seat.is_joined() {
            return;
        }
        self.blocks.report_all_again();
        let broken =
            [&self.reporting.upstream, &self.reporting.downstream].into_iter().filter_map(|side| side.broken.clone());
        self.acts.extend(broken.map(ToServer::Link).map(Act::Tell));
        if let Disk::Ended(ended) = &self.disk
            && !bug::is(Bug::LastWordForgotten)
        {
            self.acts.push_back(Act::Tell(ToServer::Ended((**ended).clone())));
        }
        self.report();
    }

    /// Reports to the server at once: it waits for this.
    pub(super) fn report(&mut self) {
        let progress = self.progress(self.reporting.written_bytes);
        self.acts.push_back(Act::Tell(ToServer::Progress(progress)));
    }

    pub(super) fn sample(&mut self, now: Time) {
        let span = now.since(self.reporting.sampled);
        if span < SAMPLE {
            return;
        }
        self.reporting.sampled = now;
        let add = |wait: &mut u32| *wait = wait.saturating_add(u32::try_from(span.as_millis()).unwrap_or(u32::MAX));
        if self.is_comparing() && self.manifest.holds_any() {
            return add(&mut self.reporting.waits.disk);
        }
        // Nothing more comes, and there is something that the downstream has not taken: that is waiting for it, too.
        let left = self.upstream.ended().is_some() && self.need() == Need::Paced && self.relay_log.has_unsent();
        let full = left || self.free() < self.relay_log.capacity() / 4;
        if self.relay_log.is_writing() {
            add(&mut self.reporting.waits.disk);
        }
        match (full, self.relay_log.waits_for_disk()) {
            (false, _) => add(&mut self.reporting.waits.upstream),
            (true, false) => add(&mut self.reporting.waits.downstream),
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
            epoch: self.epoch(),
            peer,
            side,
            state,
            reason,
            detail: fault.map(ToString::to_string).unwrap_or_default(),
        };
        self.reporting.said(side).broken = (state == LinkState::Down).then(|| event.clone());
        self.acts.push_back(Act::Tell(ToServer::Link(event)));
    }

    /// Says that `block` came damaged from the upstream and is fetched again: the link goes on, but it is to be known what it is
    /// like.
    pub(super) fn tell_damage(&mut self, block: BlockNo, count: u32) {
        let Some(peer) = self.upstream.link().map(|link| link.terms().from) else { return };
        let event = LinkEvent {
            deployment: self.config.deployment,
            epoch: self.epoch(),
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
        if core::mem::replace(&mut self.reporting.said(side).quiet, quiet) != quiet {
            let (state, fault) =
                if quiet { (LinkState::Suspect, Some(LinkFault::Silent(silence))) } else { (LinkState::Up, None) };
            self.tell_link(side, peer, state, fault.as_ref());
        }
    }

    /// Where the node stands, and what became durable since the last report. `written_bytes` is the disk's own count.
    pub fn progress(&mut self, written_bytes: u64) -> Progress {
        self.reporting.written_bytes = written_bytes;
        let durable_new = self.blocks.take_unreported();
        let waits = core::mem::take(&mut self.reporting.waits);
        let [accepted, durable, verified] = self.blocks.counts();
        let phase = match self.disk {
            Disk::Ended(_) => Phase::Ended,
            Disk::Finishing => Phase::Finishing,
            Disk::Writing if self.is_comparing() && !self.has_compared() => Phase::Preparing,
            Disk::Writing if self.is_comparing() => Phase::Waiting,
            Disk::Writing if self.is_complete() => Phase::Verifying,
            Disk::Writing if self.seat.is_joined() => Phase::Receiving,
            Disk::Writing => Phase::Waiting,
        };
        Progress {
            deployment: self.config.deployment,
            epoch: self.epoch(),
            phase,
            accepted,
            durable,
            verified,
            received_bytes: self.reporting.received_bytes,
            sent_bytes: self.reporting.sent_bytes,
            written_bytes,
            wait_upstream_ms: waits.upstream,
            wait_downstream_ms: waits.downstream,
            wait_disk_ms: waits.disk,
            pass_ended: self.upstream.ended().unwrap_or(0),
            durable_new,
        }
    }
}
