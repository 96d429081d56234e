//! One deployment on this node: from the server's order to prepare until the last word.
//!
//! Decisions are made by the machine of the chain position ([`Node`]) and by the disk engine. This brings the two together
//! with the ring and the two connections: payloads go from the upstream's socket into the ring, from there to the
//! downstream's socket and to the engine, and their space is free when the machine says so.

mod compare;
mod disk;
mod links;
#[cfg(test)]
mod tests;

use crate::agent::follow_links;
use crate::cli::Exit;
use crate::conn::{Conn, LIVELY, LIVELY_OF_LATE};
use crate::disk::{Engine, Stopping};
use crate::event_loop::{DOWNSTREAM, UPSTREAM};
use crate::parts::Parts;
use crate::ring::{Ring, Span};
use crate::target::{OpenTarget, plain};
use compare::Compared;
use mio::event::Event;
use mio::{Registry, Waker};
use slidecast_proto::book::EntryId;
use slidecast_proto::control::{Disk, Join, LinkEvent, LinkState, Prepare, Ready, Refused, Side, ToServer};
use slidecast_proto::frame::Header;
use slidecast_proto::link::LinkFault;
use slidecast_proto::node::{Act, Candidate, Node, NodeConfig, Transmit};
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::{EndState, Reason};
use slidecast_proto::schedule::Comparing;
use slidecast_proto::selector::{Selector, choose};
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use slidecast_proto::visit::Task;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often what was sent may free more to send before the sockets have their turn again.
const TURNS: usize = 4;
/// How often the server is told how far the node is.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How many messages wait for a server that is not there.
const OUTBOX: usize = 256;

/// What a node brings to a deployment.
#[derive(Debug)]
pub struct Resources<'a> {
    /// What the server calls it.
    pub node: NodeId,
    /// Its disks.
    pub disks: &'a [Disk],
    /// Its own `--target`.
    pub own: &'a Selector,
    /// How large its ring may be.
    pub ring: u64,
    /// The card on which its neighbours are; none: the routes say.
    pub card: Option<&'a str>,
    /// What wakes the net thread.
    pub waker: Arc<Waker>,
}

/// One deployment.
#[derive(Debug)]
pub struct Run {
    prepare: Prepare,
    node: Node,
    ring: Ring,
    /// Payloads by entry, oldest first.
    spans: VecDeque<(EntryId, Span)>,
    disk: DiskState,
    /// What is known of the target's old content.
    comparing: Comparing,
    compared: Compared,
    parts: Option<Parts>,
    upstream: Option<Conn>,
    upstream_address: Option<IpAddr>,
    downstream: Option<Downstream>,
    outbox: VecDeque<ToServer>,
    report_at: Time,
    joined: bool,
    /// There is more to do without waiting for anything.
    more: bool,
    card: Option<String>,
    waker: Arc<Waker>,
}

/// The connection down the chain.
#[derive(Debug)]
struct Downstream {
    conn: Conn,
    /// The try that is being made, and when it is given up.
    connecting: Option<(u64, Time)>,
    /// What is on its way out; the machine is told when it is out.
    sending: Option<Transmit>,
}

/// The target, from opened to ended.
#[derive(Debug)]
enum DiskState {
    /// Nothing was written yet.
    Open(Option<OpenTarget>),
    /// The engine writes.
    Engine(Engine),
    /// It failed, and may not be closed yet.
    Gone(Option<Stopping>),
}

impl Run {
    /// Finds the target that the order describes, opens it, and takes the memory that all will need.
    ///
    /// # Errors
    /// [`Refused`], for the server and for people.
    pub fn prepare(prepare: Prepare, resources: &Resources<'_>, now: Time) -> Result<(Self, Ready), Refused> {
        let deployment = prepare.deployment;
        let refused = |reason, detail| Refused { deployment, reason, detail };
        let selector = Selector::parse(&prepare.selector)
            .map(|selector| selector.map_path(follow_links))
            .map_err(|error| refused(Reason::ProtocolError, format!("the server's selector: {error}")))?;
        let chosen = choose(resources.disks, &selector, resources.own, prepare.disk_bytes, prepare.sector)
            .map_err(|refusal| refused(refusal.reason, refusal.detail))?;
        let disk = &resources.disks[chosen].by_path(resources.own.path().or_else(|| selector.path()));
        // Two blocks are the least that can be received and written at the same time.
        let least = 2 * u64::from(prepare.block).next_multiple_of(4096);
        if resources.ring < least {
            let detail = format!("the ring has {}, this image needs {}", Bytes(resources.ring), Bytes(least));
            return Err(refused(Reason::MemoryShort, detail));
        }
        let ring = Ring::for_slots(usize::try_from(resources.ring).unwrap_or(usize::MAX), prepare.block)
            .map_err(|error| refused(Reason::MemoryShort, error.to_string()))?;
        let target = OpenTarget::open(disk, prepare.disk_bytes, prepare.sector)
            .map_err(|error| refused(error.fault.reason(), error.to_string()))?;
        let comparing = Comparing::new(compare::front(&target, prepare.root), prepare.fresh, prepare.free);
        let facts = target.facts();
        let describe = describe(disk);
        let (size, target_path) = (Bytes(prepare.disk_bytes), &facts.path);
        log::info!("deployment {deployment}: {} ({size}) to {target_path} ({describe})", prepare.image);
        let ready = Ready {
            deployment,
            target: facts.path.clone(),
            describe,
            bytes: facts.bytes,
            rotational: facts.rotational,
            direct: facts.direct,
            comparable: comparing.is_worth_it(),
            ring: ring.capacity() as u64,
        };
        let config = NodeConfig {
            id: resources.node,
            deployment,
            root: prepare.root,
            ring: ring.capacity() as u64,
            verify: prepare.verify,
        };
        let run = Self {
            prepare,
            node: Node::new(config, now),
            ring,
            spans: VecDeque::new(),
            disk: DiskState::Open(Some(target)),
            comparing,
            compared: Compared::default(),
            parts: None,
            upstream: None,
            upstream_address: None,
            downstream: None,
            outbox: VecDeque::new(),
            report_at: now,
            joined: false,
            more: false,
            card: resources.card.map(str::to_owned),
            waker: Arc::clone(&resources.waker),
        };
        Ok((run, ready))
    }

    /// How many blocks the image has, once the manifest is here.
    #[must_use]
    pub fn blocks(&self) -> Option<u32> {
        self.parts.as_ref().map(|parts| parts.header().blocks)
    }

    /// How it would end if it ended now.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match (self.node.ended(), &self.disk) {
            (Some(EndState::Done | EndState::Written), _) => Exit::Done,
            (_, DiskState::Open(_)) => Exit::NotStarted,
            _ => Exit::Failed,
        }
    }

    /// Lets go of everything. What is not complete stays marked.
    #[must_use]
    pub fn stop(self) -> Option<Stopping> {
        match self.disk {
            DiskState::Engine(engine) => Some(engine.stop()),
            DiskState::Gone(stopping) => stopping,
            DiskState::Open(_) => None,
        }
    }

    /// Where the upstream calls from, if it is another node.
    #[must_use]
    pub fn upstream_address(&self) -> Option<IpAddr> {
        self.upstream_address
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

    /// A caller has proven that it is the upstream: its connection takes the place of the present one.
    pub fn on_proven(&mut self, mut conn: Conn, candidate: Candidate, registry: &Registry, now: Time) {
        if let Err(fault) = self.node.adopt(candidate) {
            log::debug!("upstream link: {fault}");
            return;
        }
        conn.reader().trust();
        match conn.reregister(registry, UPSTREAM) {
            Ok(()) => self.upstream = Some(conn),
            Err(error) => self.lose(Side::Upstream, &LinkFault::Broken(plain(&error)), now),
        }
    }

    /// Takes note of what the kernel says of one of the two connections.
    pub fn on_event(&mut self, event: &Event) {
        match event.token() {
            UPSTREAM => self.upstream.iter_mut().for_each(|conn| conn.on_event(event)),
            DOWNSTREAM => self.downstream.iter_mut().for_each(|down| down.conn.on_event(event)),
            _ => {}
        }
    }

    /// Moves everything as far as it goes now.
    pub fn advance(&mut self, registry: &Registry, now: Time) {
        self.hear_disk();
        self.connected(now);
        self.conn(Side::Upstream).into_iter().for_each(|conn| conn.look_again(now));
        self.receive(Side::Upstream, registry, now);
        self.receive(Side::Downstream, registry, now);
        self.node.on_time(now);
        self.more = true;
        for _ in 0..TURNS {
            self.carry_out(registry, now);
            if !(self.transmit_upstream(now) | self.transmit_downstream(now)) {
                self.more = false;
                break;
            }
        }
        if self.joined && self.report_at <= now {
            self.report_at = now.after(REPORT_EVERY);
            let written = self.written_bytes();
            let progress = self.node.progress(written);
            self.tell(ToServer::Progress(progress));
        }
    }

    /// When [`Run::advance`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let connections = self.upstream.iter().chain(self.downstream.iter().map(|down| &down.conn));
        if self.more || connections.into_iter().any(Conn::can_receive) {
            return Time::default();
        }
        let mut deadline = self.node.deadline();
        if self.joined {
            deadline = deadline.min(self.report_at);
        }
        if let Some(Downstream { connecting: Some((_, until)), .. }) = &self.downstream {
            deadline = deadline.min(*until);
        }
        deadline
    }

    fn tell(&mut self, message: ToServer) {
        if let ToServer::Ended(ended) = &message {
            match ended.state {
                EndState::Failed => log::error!("{}: {}", ended.reason, ended.detail),
                state => log::info!(
                    "{state}: {} blocks written, {} kept, read-back {}",
                    ended.blocks_written,
                    ended.blocks_kept,
                    ended.verified
                ),
            }
        }
        // A report that is late is of no use, but every other word is.
        if self.outbox.len() >= OUTBOX {
            self.outbox.retain(|waiting| !matches!(waiting, ToServer::Progress(_)));
        }
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back(message);
        }
    }

    /// A neighbour that is silent may be dead, cut off or stopped: its kernel knows.
    fn explain_silence(&mut self, message: &mut ToServer) {
        let ToServer::Link(LinkEvent { side, state, reason, detail, .. }) = message else { return };
        let silent = match *state {
            LinkState::Suspect => *reason != Reason::LinkCorrupt,
            state => (state, *reason) == (LinkState::Down, Reason::TimedOut),
        };
        if !silent {
            return;
        }
        let within = if *state == LinkState::Suspect { LIVELY_OF_LATE } else { LIVELY };
        let acknowledged = self.conn(*side).and_then(|conn| conn.is_acknowledged(within));
        detail.push_str(silence(acknowledged));
        if acknowledged == Some(false) {
            *reason = Reason::TimedOut;
        }
    }

    /// Does what the machine asks for.
    fn carry_out(&mut self, registry: &Registry, now: Time) {
        while let Some(act) = self.node.poll() {
            let result = match act {
                Act::Connect { attempt, address } => {
                    self.connect(attempt, address, registry, now);
                    Ok(())
                }
                Act::Close(side) => {
                    self.drop_conn(side);
                    Ok(())
                }
                Act::UseManifest(bytes) => self.use_manifest(&bytes),
                Act::UsePart(no, bytes) => self.use_part(no, &bytes),
                Act::Write(id, header) => {
                    self.write(id, &header);
                    Ok(())
                }
                Act::Release(id) => {
                    while self.spans.front().is_some_and(|(oldest, _)| *oldest <= id) {
                        self.spans.pop_front();
                    }
                    Ok(())
                }
                Act::FinishDisk => {
                    self.comparing.end();
                    self.compared.end();
                    if let DiskState::Engine(engine) = &self.disk {
                        engine.finish();
                    }
                    Ok(())
                }
                Act::Tell(mut message) => {
                    self.explain_silence(&mut message);
                    if let ToServer::Link(LinkEvent { side, state: LinkState::Up, .. }) = &message {
                        self.conn(*side).into_iter().for_each(|conn| conn.reader().trust());
                    }
                    self.tell(message);
                    Ok(())
                }
            };
            if let Err(fault) = result {
                self.lose(Side::Upstream, &fault, now);
            }
        }
    }
}

impl Task for Run {
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
        let downstream = join.downstream.as_ref().map_or("nobody".to_owned(), |spec| format!("node {}", spec.node));
        let upstream = match join.upstream.node {
            NodeId::SERVER => "the server".to_owned(),
            node => format!("node {node}"),
        };
        let Join { position, chain_len, chain, epoch, pass, .. } = join;
        log::debug!("chain {chain}, epoch {epoch}, pass {pass}");
        log::info!("position {position} of {chain_len}: from {upstream}, on to {downstream}");
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

    fn poll_message(&mut self) -> Option<ToServer> {
        self.outbox.pop_front()
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
}

/// What can be told of the machine behind a link that fell silent.
fn silence(acknowledged: Option<bool>) -> &'static str {
    match acknowledged {
        Some(true) => ", though its kernel answers: the agent there is stopped or stuck",
        Some(false) => ", and its kernel answers nothing: no power, no link, or what is sent gets lost",
        None => "",
    }
}

/// A disk in one line, for people; its path is told beside it.
fn describe(disk: &Disk) -> String {
    let what = [disk.model.trim(), disk.serial.trim(), disk.transport.as_str()];
    let size = Bytes(disk.bytes).to_string();
    let others = disk.other_paths.join(" and ");
    let also = if others.is_empty() { String::new() } else { format!("(also {others})") };
    let words = what.into_iter().chain([size.as_str(), also.as_str()]).filter(|word| !word.is_empty());
    words.collect::<Vec<&str>>().join(" ")
}

/// Random bytes that were never used before; `None` if the system has none, which ends the link.
pub(crate) fn fresh<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Some(bytes),
        Err(error) => {
            log::error!("random bytes: {error}");
            None
        }
    }
}
