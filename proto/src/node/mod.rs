//! The machine of one node: what an agent does with orders, frames, its ring, its disk and the time.
//!
//! The caller owns sockets, payload bytes and the disk. It reports what happened (`on_*`), carries out all that
//! [`Node::poll`] asks for before it brings the next frame, and writes what [`Node::poll_transmit`] gives for each neighbour. The machine never sees a payload: it deals in
//! headers, entry numbers and block numbers.
//!
//! Everything about the upstream neighbour is in `upstream.rs`, connections that may become its link are in `candidate.rs`, what comes
//! damaged over it is in `damage.rs`, everything about the downstream one in `downstream.rs`, and the pass before the first block, in
//! which disks are compared with the manifest, in `comparing.rs`. What the disk has done is in `disk.rs`, what
//! the server is told in `word.rs`.

mod candidate;
mod comparing;
mod damage;
mod disk;
mod downstream;
mod shape;
#[cfg(test)]
mod tests;
mod upstream;
mod word;

pub use candidate::Candidate;
pub use disk::DiskEnd;
pub use shape::{PartShape, Shape};

use crate::book::{Book, EntryId, Need};
use crate::bug::{self, Bug};
use crate::control::{Ended, Join, LinkEvent, Side, ToServer};
use crate::frame::Header;
use crate::link::{DamagedAnswers, LinkFault, Receiver, Sender, Terms};
use crate::reason::{EndState, LinkClass, Verify};
use crate::set::BlockSet;
use crate::units::{BlockNo, DeploymentId, Epoch, Hash, NodeId, PartNo, Time};
use core::time::Duration;
use damage::Damage;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// How many bytes of manifest parts a node keeps for its downstream beyond those that the ring needs.
pub const PART_CACHE: usize = 16 << 20;
/// How often what the node waits for is sampled.
const SAMPLE: Duration = Duration::from_millis(100);
/// How long a node tries to reach a downstream that does not answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// The pause between two tries.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long the ring is kept for another downstream when one is lost: the server's order is on its way by then.
const KEEP: Duration = Duration::from_secs(1);
/// How often a block whose content was wrong is fetched before the node gives up.
const CONTENT_TRIES: u8 = 2;

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

/// The next thing to write to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A header and a payload that is shared.
    Shared(Header, Arc<[u8]>),
    /// A header and the payload of an entry of the ring.
    Entry(Header, EntryId),
}

/// A part of the manifest that is kept for the downstream.
#[derive(Debug)]
struct CachedPart {
    bytes: Arc<[u8]>,
    /// How many entries of the ring belong to it.
    pins: u32,
    /// What it costs of the credit while it waits to be passed on.
    charge: u64,
    /// What it costs while it waits to be compared with the disk.
    compare: u64,
}

impl CachedPart {
    fn is_idle(&self) -> bool {
        (self.pins, self.charge, self.compare) == (0, 0, 0)
    }
}

/// The link to the next node down the chain.
#[derive(Debug)]
struct Downstream {
    terms: Terms,
    address: SocketAddr,
    state: DownstreamState,
    give_up: Time,
    answers: DamagedAnswers,
    /// Parts sent on this link.
    parts_sent: BlockSet,
    /// Parts that wait to be sent.
    parts: VecDeque<PartNo>,
    manifest_due: bool,
    /// Segments of what it lacks that came before the number of blocks was known here, and when.
    early: Vec<(Header, Vec<u8>, Time)>,
    /// The next entry to look at.
    cursor: EntryId,
    /// Entries sent on this link that the downstream has not both received and passed on; the first is frame `sent_base`.
    sent: VecDeque<EntryId>,
    sent_base: u64,
    near: u64,
    end_sent: Option<u32>,
}

#[derive(Debug)]
enum DownstreamState {
    Idle {
        connect_at: Time,
    },
    Connecting {
        attempt: u64,
    },
    Up(Box<Sender>),
    /// Lost. Until then the ring is kept for whoever comes in its place.
    Gone {
        kept: Option<Time>,
    },
}

/// The link to the neighbour that sends.
#[derive(Debug, Default)]
struct Upstream {
    terms: Option<Terms>,
    link: Option<Receiver>,
    /// Bytes of a payload that is arriving.
    arriving: u64,
    /// The entry number of the first frame of this link.
    base: EntryId,
    /// Entries below this one are known to have reached the next node.
    passed_on: EntryId,
    damage: Damage,
    ended: Option<u32>,
}

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

/// Why a block was rejected; each reason is counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// What was read back from the disk.
    ReadBack,
    /// What the server sent.
    FromServer,
    /// What a neighbour sent.
    FromNode,
}

/// How far the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Writing,
    Finishing,
    Ended(EndState),
}

/// The machine of one node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    epoch: Epoch,
    joined: bool,
    /// The pass of the newest order.
    pass: u32,
    shape: Option<Arc<Shape>>,
    manifest: Option<Arc<[u8]>>,
    parts: BTreeMap<u32, CachedPart>,
    parts_bytes: usize,
    parts_charge: u64,
    known_parts: BlockSet,
    book: Book,
    accepted: BlockSet,
    durable: BlockSet,
    verified: BlockSet,
    unreported: BlockSet,
    /// How often a block was wrong in which way.
    content_tries: BTreeMap<(BlockNo, Wrong), u8>,
    upstream: Upstream,
    downstream: Option<Downstream>,
    suspected: [bool; 2],
    attempts: u64,
    disk: Disk,
    waits: Waits,
    sampled: Time,
    received_bytes: u64,
    sent_bytes: u64,
    /// The disk's count as of the last report.
    written_bytes: u64,
    pass_ended: u32,
    /// The last word, to be said again to a server that may not have heard it.
    last_word: Option<Ended>,
    /// What broke on either side and was not made anew since.
    broken: [Option<LinkEvent>; 2],
    acts: VecDeque<Act>,
}

impl Node {
    /// A node that was told what to expect and waits for its place in a chain.
    #[must_use]
    pub fn new(config: NodeConfig, now: Time) -> Self {
        let book = Book::new(config.ring);
        Self {
            config,
            epoch: Epoch(0),
            joined: false,
            pass: 0,
            shape: None,
            manifest: None,
            parts: BTreeMap::new(),
            parts_bytes: 0,
            parts_charge: 0,
            known_parts: BlockSet::empty(0),
            book,
            accepted: BlockSet::empty(0),
            durable: BlockSet::empty(0),
            verified: BlockSet::empty(0),
            unreported: BlockSet::empty(0),
            content_tries: BTreeMap::new(),
            upstream: Upstream::default(),
            downstream: None,
            suspected: [false; 2],
            attempts: 0,
            disk: Disk::Writing,
            waits: Waits::default(),
            sampled: now,
            received_bytes: 0,
            sent_bytes: 0,
            written_bytes: 0,
            pass_ended: 0,
            last_word: None,
            broken: [None, None],
            acts: VecDeque::new(),
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
        self.epoch
    }

    /// Takes a place in a chain. An order below the highest epoch seen is dropped. A link whose two ends stay neighbours
    /// lives on.
    pub fn on_join(&mut self, join: &Join, now: Time) {
        if join.deployment != self.config.deployment
            || (self.joined && join.epoch < self.epoch && !bug::is(Bug::EpochUnchecked))
        {
            return;
        }
        if self.is_comparing() && join.pass != 0 {
            self.end_comparing();
        }
        (self.epoch, self.joined, self.pass) = (join.epoch, true, join.pass);
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
        if self.shape.is_some() {
            return;
        }
        let blocks = shape.blocks;
        for set in [&mut self.accepted, &mut self.durable, &mut self.verified, &mut self.unreported] {
            *set = BlockSet::empty(blocks);
        }
        self.known_parts = BlockSet::empty(u32::try_from(shape.parts.len()).unwrap_or(0));
        self.shape = Some(Arc::new(shape));
        self.open_upstream();
        self.offer_manifest();
    }

    /// Part `part` was read; `fills` are its blocks that need no payload.
    pub fn on_part(&mut self, part: PartNo, fills: impl IntoIterator<Item = BlockNo>) {
        self.known_parts.insert(BlockNo(part.0));
        for block in fills {
            self.accepted.insert(block);
        }
        if bug::is(Bug::FillsDurableAtOnce) {
            self.on_durable(&self.accepted.iter().collect::<Vec<_>>());
        }
        self.queue_part(part);
        self.check_complete();
    }

    /// Whether part `part` was taken before: its fills need not be written again.
    #[must_use]
    pub fn knows_part(&self, part: PartNo) -> bool {
        self.known_parts.contains(BlockNo(part.0))
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

    /// When [`Self::on_time`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let mut deadline = self.sampled.after(SAMPLE);
        if let Some(link) = &self.upstream.link {
            deadline = deadline.min(link.deadline());
        }
        match self.downstream.as_ref().map(|down| &down.state) {
            Some(DownstreamState::Up(sender)) => deadline.min(sender.deadline()),
            Some(DownstreamState::Idle { connect_at }) => deadline.min(*connect_at),
            // A connection that never stands is given up in one of the samples.
            _ => deadline,
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// The next thing to write to the neighbour on `side`. The caller writes it whole and then calls
    /// [`Self::on_transmitted`] before it asks again.
    pub fn poll_transmit(&mut self, side: Side) -> Option<Transmit> {
        match side {
            Side::Upstream => self.upstream.link.as_mut()?.poll_control().map(Transmit::Bytes),
            Side::Downstream => self.transmit_downstream(),
        }
    }

    /// `transmit` went out whole.
    pub fn on_transmitted(&mut self, side: Side, transmit: &Transmit, now: Time) {
        match side {
            Side::Upstream => {
                if let Some(link) = &mut self.upstream.link {
                    link.on_said(now);
                }
            }
            Side::Downstream => self.transmitted_downstream(transmit, now),
        }
    }

    /// The bytes of the ring that nothing holds.
    fn free(&self) -> u64 {
        let held = if bug::is(Bug::CreditForHeldSpace) { 0 } else { self.book.held() };
        self.book.capacity().saturating_sub(held + self.parts_charge + self.upstream.arriving)
    }

    /// Whether the downstream takes what it can and never holds the ring: what goes out to it must not stay in the ring
    /// until it is out, so the caller sends a copy.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.downstream.as_ref().is_some_and(|down| down.terms.class == LinkClass::Follower)
    }

    fn need(&self) -> Need {
        match &self.downstream {
            None => Need::Nobody,
            Some(Downstream { state: DownstreamState::Gone { kept: None }, .. }) => Need::Loose,
            Some(_) if self.is_followed() => Need::Loose,
            Some(_) => Need::Paced,
        }
    }

    /// Lets go of all entries that nobody needs.
    fn reclaim(&mut self) {
        let need = self.need();
        while let Some((id, header)) = self.book.release(need) {
            if header.payload_len == 0 {
                continue;
            }
            if let Some(part) = self.part_of(header.number) {
                self.unpin(part);
            }
            self.acts.push_back(Act::Release(id));
        }
    }

    pub(crate) fn part_of(&self, block: u32) -> Option<PartNo> {
        self.shape.as_ref().map(|shape| shape.part_of(BlockNo(block)))
    }

    fn unpin(&mut self, part: PartNo) {
        if let Some(cached) = self.parts.get_mut(&part.0) {
            cached.pins = cached.pins.saturating_sub(1);
        }
        self.trim_parts();
    }

    /// Drops the oldest parts that nothing needs while the cache is over its size.
    fn trim_parts(&mut self) {
        while self.parts_bytes > PART_CACHE {
            let idle = self.parts.iter().find(|(_, part)| part.is_idle()).map(|(no, _)| *no);
            let Some(part) = idle.and_then(|no| self.parts.remove(&no)) else { return };
            self.parts_bytes -= part.bytes.len();
        }
    }
}
