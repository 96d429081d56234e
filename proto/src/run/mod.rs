//! Taking part in a deployment, from the target that is open to the last word: the machine of the chain position ([`Node`]), the
//! payloads in the ring, the two connections and the disk, brought together.
//!
//! The caller owns sockets and the disk, and makes the same turn again and again:
//!
//! ```text
//! poll -> carry out, in order              what the disk says  -> on_disk
//! a dialed connection  -> on_dialed        what arrives        -> on_announced, on_bytes, on_block, on_control
//! a connection is gone -> on_lost          the time            -> on_time
//! loop { poll -> carry out; poll_transmit -> write -> on_transmitted } while goes_on
//! report
//! ```
//!
//! `P` is the handle of a payload in the ring; the space is free when the last copy of the handle is gone. The connections are in
//! `links.rs`, the disk in `disk.rs`, what the server is told in `words.rs`.

mod disk;
mod links;
#[cfg(test)]
mod tests;
mod words;

pub use links::{RunTransmit, TURN};

use crate::control::{Join, LinkEvent, LinkState, Prepare, Side, ToServer};
use crate::frame::Header;
use crate::link::{LinkFault, Terms};
use crate::node::{Act, Candidate, Node, NodeConfig};
use crate::reason::{EndState, Reason};
use crate::relay_log::EntryId;
use crate::schedule::{Comparing, Front};
use crate::units::{BlockNo, DeploymentId, Epoch, NodeId, PartNo, Time};
use crate::visit::Task;
use core::time::Duration;
use disk::Disk;
use links::{Downstream, Turn};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a run is told once, when its target is open.
#[derive(Clone, Copy, Debug)]
pub struct RunConfig {
    /// What the server calls the node.
    pub node: NodeId,
    /// The size of the ring in bytes.
    pub ring: u64,
    /// What stands at the front of the target.
    pub front: Front,
    /// How many bytes are written to a neighbour before everything else has its turn.
    pub turn: u64,
}

/// Something for the caller to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAct<P> {
    /// Connect to the downstream: then [`Run::on_dialed`], or [`Run::on_lost`] if it fails.
    Dial(SocketAddr),
    /// Close the connection on this side, if there is one: for this reason, or because another takes its place.
    Hangup(Side, Option<LinkFault>),
    /// The neighbour on this side has proven itself: its frames may be long.
    Trust(Side),
    /// These bytes have come as the manifest header: check and read them, then [`Run::on_manifest`].
    UseManifest(Arc<[u8]>),
    /// Start the disk: then [`Run::on_disk_started`]. Nothing is written yet.
    StartDisk,
    /// This part has the hash that the manifest header names: read it, then [`Run::on_part`].
    UsePart(PartNo, Arc<[u8]>, PartUse),
    /// Let the disk compare itself with this part, with a sample of it first.
    Compare {
        /// Which part.
        no: PartNo,
        /// The encoded part.
        bytes: Arc<[u8]>,
        /// A sample of its blocks comes first.
        sampled: bool,
    },
    /// The disk is written from now on.
    BeginDisk,
    /// Hand this payload to the disk.
    Write(Header, P),
    /// All blocks are proven: finish the disk.
    FinishDisk,
    /// The disk takes no more.
    StopDisk,
    /// These blocks need not come again: nothing holds their parts in memory.
    Settled(Vec<BlockNo>),
}

/// What is done with a part of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartUse {
    /// The disk is compared with it; it comes again with the blocks.
    Compare,
    /// It is kept for its blocks, and handed to the disk if that has not had it.
    Keep {
        /// Hand it to the disk.
        to_disk: bool,
    },
}

/// One deployment on one node.
#[derive(Debug)]
pub struct Run<P> {
    prepare: Prepare,
    node: Node,
    /// Payloads by entry, oldest first.
    payloads: VecDeque<(EntryId, P)>,
    disk: Disk,
    /// What is known of the target's old content.
    comparing: Comparing,
    downstream: Option<Downstream>,
    upstream_address: Option<IpAddr>,
    turn: Turn,
    outbox: VecDeque<ToServer>,
    report_at: Time,
    joined: bool,
    acts: VecDeque<RunAct<P>>,
}

impl<P: Clone> Run<P> {
    /// The target is open, and nothing of it was written.
    #[must_use]
    pub fn new(prepare: Prepare, config: RunConfig, now: Time) -> Self {
        let RunConfig { node, ring, front, turn } = config;
        let Prepare { deployment, root, verify, fresh, free, .. } = prepare;
        Self {
            prepare,
            node: Node::new(NodeConfig { id: node, deployment, root, ring, verify }, now),
            payloads: VecDeque::new(),
            disk: Disk::Open,
            comparing: Comparing::new(front, fresh, free),
            downstream: None,
            upstream_address: None,
            turn: Turn::new(turn),
            outbox: VecDeque::new(),
            report_at: now,
            joined: false,
            acts: VecDeque::new(),
        }
    }

    /// The order that it obeys.
    #[must_use]
    pub fn order(&self) -> &Prepare {
        &self.prepare
    }

    /// The highest epoch seen.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.node.epoch()
    }

    /// Where the upstream calls from, if it is another node.
    #[must_use]
    pub fn upstream_address(&self) -> Option<IpAddr> {
        self.upstream_address
    }

    /// What the call of the upstream must say, once the server has ordered one.
    #[must_use]
    pub fn upstream_terms(&self) -> Option<&Terms> {
        self.node.upstream_terms()
    }

    /// A caller said this first: whether it may be the upstream that was announced. `nonce` must be fresh random bytes.
    ///
    /// # Errors
    /// [`LinkFault`]: it is to be told so and hung up on.
    pub fn on_hello(
        &mut self,
        header: &Header,
        payload: &[u8],
        nonce: [u8; 16],
        now: Time,
    ) -> Result<Candidate, LinkFault> {
        self.node.on_hello(header, payload, nonce, now)
    }

    /// A caller has proven the link key: its connection takes the place of the present one.
    ///
    /// # Errors
    /// [`LinkFault`]: a newer order names another upstream; the connection is to be closed.
    pub fn on_proven(&mut self, candidate: Candidate) -> Result<(), LinkFault> {
        self.node.adopt(candidate)
    }

    /// The next thing to do. `acknowledged` tells of the connection on a side whether the kernel at its other end has acknowledged
    /// something within a time, where that is known.
    pub fn poll(&mut self, acknowledged: impl Fn(Side, Duration) -> Option<bool>, now: Time) -> Option<RunAct<P>> {
        loop {
            if let Some(act) = self.acts.pop_front() {
                return Some(act);
            }
            match self.node.poll()? {
                Act::Connect { attempt, address } => {
                    self.downstream = Some(Downstream::dialing(attempt, now));
                    return Some(RunAct::Dial(address));
                }
                Act::Close(side) => {
                    self.forget(side);
                    return Some(RunAct::Hangup(side, None));
                }
                Act::UseManifest(bytes) => return Some(RunAct::UseManifest(bytes)),
                Act::UsePart(no, bytes) => return Some(RunAct::UsePart(no, bytes, self.use_of(no))),
                Act::Write(id, header) => self.write(id, header),
                Act::Release(id) => self.release(id),
                Act::FinishDisk => self.finish_disk(),
                Act::Tell(mut message) => {
                    words::explain_silence(&mut message, &acknowledged);
                    if let ToServer::Link(LinkEvent { side, state: LinkState::Up, .. }) = &message {
                        self.acts.push_back(RunAct::Trust(*side));
                    }
                    self.tell(message);
                }
            }
        }
    }

    /// Lets time pass, and begins a turn.
    pub fn on_time(&mut self, now: Time) {
        self.time_dialing(now);
        self.node.on_time(now);
        self.turn.begin();
    }

    /// The turn made everything go as far as it does now: `moved` says whether anything was written. Gives whether the caller is to
    /// go on in the same turn: what was sent may have freed more to send.
    pub fn goes_on(&mut self, moved: bool) -> bool {
        self.turn.goes_on(moved)
    }

    /// When to make a turn at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        if self.turn.has_more() || !self.acts.is_empty() {
            return Time::default();
        }
        let mut deadline = self.node.deadline();
        if self.joined {
            deadline = deadline.min(self.report_at);
        }
        if let Some(until) = self.downstream.as_ref().and_then(Downstream::dialing_until) {
            deadline = deadline.min(until);
        }
        deadline
    }

    /// The payloads that are held.
    pub fn payloads(&self) -> impl Iterator<Item = &P> {
        self.payloads.iter().map(|(_, payload)| payload)
    }

    fn payload(&self, id: EntryId) -> Option<&P> {
        let at = self.payloads.partition_point(|(other, _)| *other < id);
        self.payloads.get(at).filter(|(found, _)| *found == id).map(|(_, payload)| payload)
    }

    fn release(&mut self, id: EntryId) {
        while self.payloads.front().is_some_and(|(oldest, _)| *oldest <= id) {
            self.payloads.pop_front();
        }
    }
}

impl<P: Clone> Task for Run<P> {
    fn deployment(&self) -> DeploymentId {
        self.prepare.deployment
    }

    fn is_joined(&self) -> bool {
        self.joined
    }

    fn ended(&self) -> Option<EndState> {
        self.node.ended()
    }

    fn on_join(&mut self, join: &Join, now: Time) {
        let from_node = join.upstream.node != NodeId::SERVER;
        self.upstream_address = from_node.then(|| join.upstream.address.ip().to_canonical());
        self.joined = true;
        self.report_at = now;
        self.node.on_join(join, now);
        self.begin_if_due();
    }

    fn on_server_back(&mut self) {
        self.node.on_server_back();
    }

    fn fail(&mut self, reason: Reason, detail: &str) {
        self.node.on_disk_failed(reason, detail);
        while let Some(act) = self.node.poll() {
            if let Act::Tell(message) = act {
                self.tell(message);
            }
        }
        self.stop_disk();
    }

    fn poll_message(&mut self) -> Option<ToServer> {
        self.outbox.pop_front()
    }
}
