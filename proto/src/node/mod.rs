//! The machine of one node: what an agent does with orders, frames, its ring, its disk and the time.
//!
//! The caller owns sockets, payload bytes and the disk. It reports what happened (`on_*`), carries out all that [`Node::poll`] asks for
//! before it brings the next frame, and writes what [`Node::poll_transmit`] gives for each neighbour. The machine never sees a payload:
//! it deals in headers, entry numbers and block numbers.
//!
//! A node is made of owners, and only [`Node`] sees all of them:
//!
//! | owner | what it has |
//! | --- | --- |
//! | [`Seat`] | the place in a chain, and which orders count |
//! | [`Manifest`] | the header and the parts, and what they cost of the credit |
//! | [`Blocks`] | what is accepted, durable, verified and reported |
//! | [`RelayLog`] | the entries of the ring |
//! | [`Upstream`] | the link from the neighbour above; connections that may become it are in `candidate.rs`, damage in `damage.rs` |
//! | [`Downstream`] | the link to the neighbour below; what goes out on it is in `relay.rs` |
//! | [`Disk`] | how far the disk is, and how it ended |
//! | [`Reporting`] | what the server is told |
//!
//! All spans of time are in `timers.rs`; the pass before the first block, in which disks are compared with the manifest, is in
//! `comparing.rs`.

mod blocks;
mod candidate;
mod comparing;
mod damage;
mod disk;
mod downstream;
mod manifest;
mod relay;
mod reporting;
mod seat;
mod shape;
#[cfg(test)]
mod tests;
mod timers;
mod upstream;

pub use candidate::Candidate;
pub use disk::DiskEnd;
pub use manifest::PART_CACHE;
pub use shape::{PartShape, Shape};

use crate::bug::{self, Bug};
use crate::control::{Join, Side, ToServer};
use crate::frame::Header;
use crate::link::{LinkFault, Terms};
use crate::reason::Verify;
use crate::relay_log::{EntryId, RelayLog};
use crate::units::{BlockNo, DeploymentId, Epoch, Hash, NodeId, PartNo, Time};
use blocks::Blocks;
use disk::Disk;
use downstream::Downstream;
use manifest::Manifest;
use reporting::Reporting;
use seat::Seat;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use upstream::Upstream;

/// What a node is told once, before it has a place in a chain.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its number.
    pub id: NodeId,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The manifest root.
    pub root: Hash,
    /// The size of the ring in bytes.
    pub ring: u64,
    /// How much is read back.
    pub verify: Verify,
}

/// Something for the caller to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Connect to the downstream at this address, for try number `attempt`.
    Connect {
        /// Names the try: what comes of an older one is to be dropped.
        attempt: u64,
        /// Where the downstream listens.
        address: SocketAddr,
    },
    /// Close the connection on this side, if there is one.
    Close(Side),
    /// These bytes have the manifest root: read them, then call [`Node::on_shape`].
    UseManifest(Arc<[u8]>),
    /// This part has the hash that the manifest header names: read it, then call [`Node::on_part`].
    UsePart(PartNo, Arc<[u8]>),
    /// Hand this entry to the disk.
    Write(EntryId, Header),
    /// Let go of the payload of this entry.
    Release(EntryId),
    /// All blocks are proven: finish the disk.
    FinishDisk,
    /// Send this to the server.
    Tell(ToServer),
}

/// Where the payload of a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Into a buffer of its own; then call [`Node::on_control`].
    Control,
    /// Into the ring; then call [`Node::on_block`].
    Ring,
}

/// The next thing to write to a neighbour; the payload of a block is in an entry of the ring.
pub type Transmit = crate::link::Transmit<EntryId>;

/// The machine of one node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    seat: Seat,
    manifest: Manifest,
    blocks: Blocks,
    relay_log: RelayLog,
    upstream: Upstream,
    downstream: Option<Downstream>,
    /// Calls of a downstream so far: names the next one.
    attempts: u64,
    disk: Disk,
    reporting: Reporting,
    acts: VecDeque<Act>,
}

impl Node {
    /// A node that was told what to expect and waits for its place in a chain.
    #[must_use]
    pub fn new(config: NodeConfig, now: Time) -> Self {
        Self {
            seat: Seat::Waiting,
            manifest: Manifest::new(),
            blocks: Blocks::none(0),
            relay_log: RelayLog::new(config.ring),
            upstream: Upstream::default(),
            downstream: None,
            attempts: 0,
            disk: Disk::Writing,
            reporting: Reporting::new(now),
            acts: VecDeque::new(),
            config,
        }
    }

    /// The deployment this node belongs to.
    #[must_use]
    pub fn deployment(&self) -> DeploymentId {
        self.config.deployment
    }

    /// The highest epoch seen.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.seat.epoch()
    }

    /// Takes a place in a chain. An order below the highest epoch seen is dropped. A link whose two ends stay neighbours
    /// lives on.
    pub fn on_join(&mut self, join: &Join, now: Time) {
        if join.deployment != self.config.deployment || !self.seat.obeys(join.epoch) {
            return;
        }
        if self.is_comparing() && join.pass != 0 {
            self.end_comparing();
        }
        self.seat = Seat::Joined { epoch: join.epoch, pass: join.pass };
        let terms = |from, to, spec: &crate::control::LinkSpec| Terms {
            deployment: join.deployment,
            epoch: join.epoch,
            pass: join.pass,
            from,
            to,
            key: spec.key.clone(),
            class: spec.class,
        };
        self.expect_upstream(terms(join.upstream.node, self.config.id, &join.upstream));
        let downstream = join.downstream.as_ref().map(|spec| (terms(self.config.id, spec.node, spec), spec.address));
        self.set_downstream(downstream, now);
        self.open_upstream();
        self.reclaim();
    }

    /// The manifest header was read.
    pub fn on_shape(&mut self, shape: Shape) {
        let blocks = shape.blocks;
        if !self.manifest.on_shape(shape) {
            return;
        }
        self.blocks = Blocks::none(blocks);
        self.open_upstream();
        self.offer_manifest();
    }

    /// Part `part` was read; `fills` are its blocks that need no payload.
    pub fn on_part(&mut self, part: PartNo, fills: impl IntoIterator<Item = BlockNo>) {
        self.manifest.learn(part);
        for block in fills {
            self.blocks.accept(block);
        }
        if bug::is(Bug::FillsDurableAtOnce) {
            self.on_durable(&self.blocks.accepted().iter().collect::<Vec<_>>());
        }
        self.queue_part(part);
        self.check_complete();
    }

    /// Whether part `part` was taken before: its fills need not be written again.
    #[must_use]
    pub fn knows_part(&self, part: PartNo) -> bool {
        self.manifest.knows(part)
    }

    /// The connection on `side` is gone. A machine that closed it itself has forgotten it already.
    pub fn on_link_lost(&mut self, side: Side, fault: &LinkFault, now: Time) {
        match side {
            Side::Upstream => self.lose_upstream(fault),
            Side::Downstream => self.lose_downstream(fault, now),
        }
        self.reclaim();
    }

    /// Lets time pass: beats, credit, silence, reconnects.
    pub fn on_time(&mut self, now: Time) {
        self.sample(now);
        self.time_upstream(now);
        self.time_downstream(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// The next thing to write to the neighbour on `side`. The caller writes it whole and then calls
    /// [`Self::on_transmitted`] before it asks again.
    pub fn poll_transmit(&mut self, side: Side) -> Option<Transmit> {
        match side {
            Side::Upstream => self.upstream.link_mut()?.poll_control().map(Transmit::Bytes),
            Side::Downstream => self.transmit_downstream(),
        }
    }

    /// `transmit` went out whole.
    pub fn on_transmitted(&mut self, side: Side, transmit: &Transmit, now: Time) {
        match side {
            Side::Upstream => {
                if let Some(link) = self.upstream.link_mut() {
                    link.on_said(now);
                }
            }
            Side::Downstream => self.transmitted_downstream(transmit, now),
        }
    }

    /// The bytes of the ring that nothing holds.
    fn free(&self) -> u64 {
        let held = if bug::is(Bug::CreditForHeldSpace) { 0 } else { self.relay_log.held() };
        self.relay_log.capacity().saturating_sub(held + self.manifest.charge() + self.upstream.arriving())
    }

    /// Lets go of all entries that nobody needs.
    fn reclaim(&mut self) {
        let need = self.need();
        while let Some((id, header)) = self.relay_log.release(need) {
            if header.payload_len == 0 {
                continue;
            }
            self.manifest.unpin(BlockNo(header.number));
            self.acts.push_back(Act::Release(id));
        }
    }

    pub(crate) fn part_of(&self, block: u32) -> Option<PartNo> {
        self.manifest.part_of(BlockNo(block))
    }
}
