//! One deployment on this node: from the server's order to prepare until the last word.
//!
//! Decisions are made by the machine of the chain position ([`Node`]) and by the disk engine. This brings the two together
//! with the ring and the two connections: payloads go from the upstream's socket into the ring, from there to the
//! downstream's socket and to the engine, and their space is free when the machine says so.

use crate::agent::follow_links;
use crate::cli::Exit;
use crate::conn::Conn;
use crate::disk::{BlockJob, DiskFailure, Engine, EngineOptions, Event as DiskEvent, Stopping};
use crate::event_loop::{DOWNSTREAM, UPSTREAM};
use crate::framing::{Arrival, Outgoing, ReadError};
use crate::parts::Parts;
use crate::ring::{Ring, Span};
use crate::target::OpenTarget;
use mio::event::Event;
use mio::{Registry, Waker};
use slidecast_image::codec::Codec;
use slidecast_image::manifest::{Content, ManifestHeader, Part};
use slidecast_proto::book::EntryId;
use slidecast_proto::control::{Disk, Join, LinkEvent, LinkState, Prepare, Ready, Refused, Side, ToServer};
use slidecast_proto::frame::Header;
use slidecast_proto::link::{LinkFault, refusal};
use slidecast_proto::node::{Act, Node, NodeConfig, Shape, Take, Transmit};
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::{EndState, Reason, Verify};
use slidecast_proto::selector::{Selector, choose};
use slidecast_proto::units::{BlockNo, DeploymentId, NodeId, PartNo, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How much is read from the upstream before anything else has its turn, in bytes.
const TURN: usize = 2 << 20;
/// How often what was sent may free more to send before the sockets have their turn again.
const TURNS: usize = 4;
/// How often the server is told how far the node is.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long the downstream may take to accept a connection.
const CONNECT_MOST: Duration = Duration::from_secs(2);
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
    /// What wakes the net thread.
    pub waker: Arc<Waker>,
}

/// A call to the listener: the first frame of a connection.
#[derive(Debug)]
pub struct Call<'a> {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The header of the frame.
    pub header: &'a Header,
    /// Its payload.
    pub payload: &'a [u8],
    /// Fresh random bytes for the answer.
    pub nonce: [u8; 16],
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
    parts: Option<Parts>,
    upstream: Option<Conn>,
    downstream: Option<Downstream>,
    outbox: VecDeque<ToServer>,
    report_at: Time,
    joined: bool,
    /// There is more to do without waiting for anything.
    more: bool,
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
        let disk = &resources.disks[chosen];
        // Two blocks are the least that can be received and written at the same time.
        let least = 2 * u64::from(prepare.block).next_multiple_of(4096);
        if resources.ring < least {
            let detail = format!("the ring has {}, this image needs {}", Bytes(resources.ring), Bytes(least));
            return Err(refused(Reason::MemoryShort, detail));
        }
        let ring = Ring::new(usize::try_from(resources.ring).unwrap_or(usize::MAX))
            .map_err(|error| refused(Reason::MemoryShort, error.to_string()))?;
        let target = OpenTarget::open(disk, prepare.disk_bytes, prepare.sector)
            .map_err(|error| refused(error.fault.reason(), error.to_string()))?;
        let facts = target.facts();
        let describe = describe(disk);
        log::info!("deployment {deployment}: {} ({}) to {describe}", prepare.image, Bytes(prepare.disk_bytes));
        let ready = Ready {
            deployment,
            target: facts.path.clone(),
            describe,
            bytes: facts.bytes,
            rotational: facts.rotational,
            direct: facts.direct,
            marked: false,
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
            parts: None,
            upstream: None,
            downstream: None,
            outbox: VecDeque::new(),
            report_at: now,
            joined: false,
            more: false,
            waker: Arc::clone(&resources.waker),
        };
        Ok((run, ready))
    }

    /// The deployment.
    #[must_use]
    pub fn deployment(&self) -> DeploymentId {
        self.prepare.deployment
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

    /// Whether the disk has come to its end, the one way or the other.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.node.ended().is_some()
    }

    /// Whether it has a place in a chain.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.joined
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

    /// Takes the place in a chain that the server gives.
    pub fn on_join(&mut self, join: &Join, now: Time) {
        let downstream = join.downstream.as_ref().map_or("nobody".to_owned(), |spec| format!("node {}", spec.node));
        log::info!(
            "position {} of {} in chain {}, epoch {}: from {}, on to {downstream}",
            join.position,
            join.chain_len,
            join.chain,
            join.epoch,
            if join.upstream.node == NodeId::SERVER {
                "the server".to_owned()
            } else {
                format!("node {}", join.upstream.node)
            },
        );
        self.joined = true;
        self.report_at = now;
        self.node.on_join(join, now);
    }

    /// Takes a caller whose first frame is this one, if it is the upstream that was announced.
    pub fn on_call(&mut self, mut conn: Conn, call: Call<'_>, registry: &Registry, now: Time) {
        match self.node.on_hello(call.header, call.payload, call.nonce, now) {
            Ok(()) => match conn.reregister(registry, UPSTREAM) {
                Ok(()) => self.upstream = Some(conn),
                Err(error) => self.lose(Side::Upstream, &LinkFault::Broken(error.to_string()), now),
            },
            Err(fault) => {
                log::debug!("call from {}: {fault}", call.peer);
                conn.say_last(refusal(call.header.deployment, &fault.to_string()));
            }
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

    /// The next message for the server.
    pub fn poll_message(&mut self) -> Option<ToServer> {
        self.outbox.pop_front()
    }

    /// Gives up: the disk takes no more and stays marked. The server is told why.
    pub fn fail(&mut self, reason: Reason, detail: &str) {
        self.node.on_disk_failed(reason, detail);
        while let Some(act) = self.node.poll() {
            if let Act::Tell(message) = act {
                self.tell(message);
            }
        }
        self.stop_disk();
    }

    fn stop_disk(&mut self) {
        self.disk = match std::mem::replace(&mut self.disk, DiskState::Gone(None)) {
            DiskState::Engine(engine) => DiskState::Gone(Some(engine.stop())),
            // Nothing was written: it is as it was.
            other => other,
        };
    }

    fn written_bytes(&self) -> u64 {
        match &self.disk {
            DiskState::Engine(engine) => engine.written_bytes(),
            _ => 0,
        }
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

    /// Takes what the engine has to say.
    fn hear_disk(&mut self) {
        while let DiskState::Engine(engine) = &self.disk {
            let Some(event) = engine.poll() else { return };
            match event {
                DiskEvent::Compared { .. } => {}
                DiskEvent::Began => log::debug!("the disk is marked, its head is wiped"),
                DiskEvent::BadContent(block) => self.node.on_bad_content(block, false),
                DiskEvent::Mismatch(block) => self.node.on_bad_content(block, true),
                DiskEvent::Written(block) => self.node.on_written(block),
                DiskEvent::Durable(blocks) => {
                    self.node.on_durable(&blocks);
                    if self.prepare.verify != Verify::Full {
                        self.settle(&blocks);
                    }
                }
                DiskEvent::Verified(blocks) => {
                    self.node.on_verified(&blocks);
                    self.settle(&blocks);
                }
                DiskEvent::Failed(DiskFailure { reason, detail }) => {
                    self.node.on_disk_failed(reason, &detail);
                    self.stop_disk();
                }
                DiskEvent::Ended { verified, written, kept } => self.node.on_disk_ended(verified, written, kept),
            }
        }
    }

    fn settle(&mut self, blocks: &[BlockNo]) {
        if let Some(parts) = &mut self.parts {
            parts.settle(blocks);
        }
    }

    fn conn(&mut self, side: Side) -> Option<&mut Conn> {
        match side {
            Side::Upstream => self.upstream.as_mut(),
            Side::Downstream => self.downstream.as_mut().map(|down| &mut down.conn),
        }
    }

    fn drop_conn(&mut self, side: Side) {
        match side {
            Side::Upstream => self.upstream = None,
            Side::Downstream => self.downstream = None,
        }
    }

    /// The connection on `side` is of no more use.
    fn lose(&mut self, side: Side, fault: &LinkFault, now: Time) {
        log::debug!("{side} link: {fault}");
        self.drop_conn(side);
        self.node.on_link_lost(side, fault, now);
    }

    /// Whether the connection down the chain that was being made is there.
    fn connected(&mut self, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        let Some((attempt, until)) = down.connecting else { return };
        let fault = match down.conn.is_established() {
            Ok(true) => {
                down.connecting = None;
                down.conn.tune();
                let wanted = fresh().is_some_and(|nonce| self.node.on_connected(attempt, nonce, now));
                if !wanted {
                    self.downstream = None;
                }
                return;
            }
            Ok(false) if now < until => return,
            Ok(false) => format!("no answer within {} s", CONNECT_MOST.as_secs()),
            Err(error) => error.to_string(),
        };
        self.lose(Side::Downstream, &LinkFault::Broken(fault), now);
    }

    /// Takes what comes on one side.
    fn receive(&mut self, side: Side, registry: &Registry, now: Time) {
        let mut budget = TURN;
        while self.make_room(side) {
            let Some(conn) = self.conn(side) else { return };
            let arrival = conn.receive(&mut budget);
            match conn.reader().take_payload_bytes() {
                0 => {}
                bytes => self.node.on_bytes(side, bytes, now),
            }
            let result = match arrival {
                Ok(None) => return,
                Ok(Some(arrival)) => self.take(side, arrival, now),
                Err(ReadError::Header(error)) => Err(LinkFault::Header(error)),
                Err(error) => Err(LinkFault::Broken(error.to_string())),
            };
            if let Err(fault) = result {
                self.lose(side, &fault, now);
            }
            self.carry_out(registry, now);
        }
    }

    /// Gives a block that was announced its place in the ring; `false` if it must wait for one.
    fn make_room(&mut self, side: Side) -> bool {
        let announced = self.conn(side).and_then(|conn| conn.reader().announced().copied());
        let Some(header) = announced else { return true };
        let Some(slot) = self.ring.reserve(header.payload_len) else { return false };
        if let Some(conn) = self.conn(side) {
            conn.reader().receive_into(slot);
        }
        true
    }

    fn take(&mut self, side: Side, arrival: Arrival, now: Time) -> Result<(), LinkFault> {
        match arrival {
            Arrival::Announced(header) => {
                if self.node.on_header(side, &header, now)? == Take::Control {
                    self.conn(side).into_iter().for_each(|conn| conn.reader().skip());
                }
            }
            Arrival::Block { header, payload, crc } => {
                if let Some(id) = self.node.on_block(&header, crc)? {
                    self.spans.push_back((id, payload.freeze()));
                }
            }
            Arrival::Skipped(_) => {}
            Arrival::Control(header, payload) => {
                self.node.on_header(side, &header, now)?;
                self.node.on_control(side, &header, payload, now)?;
            }
        }
        Ok(())
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
                    if let DiskState::Engine(engine) = &self.disk {
                        engine.finish();
                    }
                    Ok(())
                }
                Act::Tell(message) => {
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

    fn connect(&mut self, attempt: u64, address: SocketAddr, registry: &Registry, now: Time) {
        let connected = Conn::connect(address).and_then(|mut conn| {
            conn.register(registry, DOWNSTREAM)?;
            Ok(conn)
        });
        match connected {
            Ok(conn) => {
                let connecting = Some((attempt, now.after(CONNECT_MOST)));
                self.downstream = Some(Downstream { conn, connecting, sending: None });
            }
            Err(error) => self.lose(Side::Downstream, &LinkFault::Broken(error.to_string()), now),
        }
    }

    /// Checks the manifest header against the root, and lets the disk begin.
    fn use_manifest(&mut self, bytes: &[u8]) -> Result<(), LinkFault> {
        if ManifestHeader::root(bytes) != self.prepare.root {
            return Err(LinkFault::Manifest("it does not have the root that the server announced"));
        }
        let header = ManifestHeader::parse(bytes).map_err(|error| {
            log::error!("manifest header: {error}");
            LinkFault::Manifest("its header breaks a rule")
        })?;
        let announced = &self.prepare;
        let facts = (header.disk_bytes, header.sector, header.block, header.grain);
        if facts != (announced.disk_bytes, announced.sector, announced.block, announced.grain) {
            return Err(LinkFault::Manifest("its sizes are not those that the server announced"));
        }
        let header = Arc::new(header);
        self.parts = Some(Parts::new(Arc::clone(&header)));
        if let DiskState::Open(target) = &mut self.disk
            && let Some(target) = target.take()
        {
            log::info!(
                "writing to {}; until it is done the disk carries a mark and does not boot",
                target.facts().path
            );
            let waker = Arc::clone(&self.waker);
            let wake = move || {
                if let Err(error) = waker.wake() {
                    log::error!("waking the net thread: {error}");
                }
            };
            let options = EngineOptions::new(announced.deployment, announced.verify, announced.free);
            match Engine::start(target, Arc::clone(&header), announced.root, options, wake) {
                Ok(engine) => {
                    engine.begin();
                    self.disk = DiskState::Engine(engine);
                }
                Err(failure) => {
                    self.disk = DiskState::Gone(None);
                    self.node.on_disk_failed(failure.reason, &failure.detail);
                }
            }
        }
        let parts = header.parts.iter().map(|part| part.first.0).collect();
        self.node.on_shape(Shape { blocks: header.blocks, parts });
        Ok(())
    }

    /// Checks a part against the manifest header, and hands it to the disk.
    fn use_part(&mut self, no: PartNo, bytes: &[u8]) -> Result<(), LinkFault> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let part = Part::parse(parts.header(), no, bytes).map_err(|error| {
            log::error!("part {no} of the manifest: {error}");
            LinkFault::Manifest("a part is not the one that its header names")
        })?;
        let part = Arc::new(part);
        parts.insert(no, Arc::clone(&part));
        if let DiskState::Engine(engine) = &self.disk
            && !self.node.knows_part(no)
        {
            engine.part(Arc::clone(&part));
        }
        let blocks = (part.first().0..part.first().0.saturating_add(part.len())).map(BlockNo);
        let is_fill =
            |block: &BlockNo| part.block(*block).is_some_and(|info| matches!(info.content, Content::Fill { .. }));
        self.node.on_part(no, blocks.filter(is_fill));
        Ok(())
    }

    /// Hands an entry of the ring to the disk.
    fn write(&mut self, id: EntryId, header: &Header) {
        let DiskState::Engine(engine) = &self.disk else { return };
        let block = BlockNo(header.number);
        let part = self.parts.as_ref().and_then(|parts| parts.of(block)).map(Arc::clone);
        let payload = self.span(id);
        match (part, payload, Codec::from_byte(header.codec)) {
            (Some(part), Some(payload), Some(codec)) => {
                engine.block(BlockJob { block, codec, raw_len: header.raw_len, payload, part });
            }
            (_, _, None) => self.node.on_bad_content(block, false),
            _ => self.node.on_disk_failed(Reason::Internal, &format!("block {block} came without its part")),
        }
    }

    fn span(&self, id: EntryId) -> Option<Span> {
        let at = self.spans.partition_point(|(other, _)| *other < id);
        self.spans.get(at).filter(|(found, _)| *found == id).map(|(_, span)| span.clone())
    }

    /// Sends what the machine has for the upstream; gives whether anything went out.
    fn transmit_upstream(&mut self, now: Time) -> bool {
        let mut moved = false;
        while let Some(conn) = &mut self.upstream {
            if conn.can_start() {
                let Some(Transmit::Bytes(bytes)) = self.node.poll_transmit(Side::Upstream) else { return moved };
                conn.start(Outgoing::Bytes(bytes));
            }
            match conn.flush() {
                Ok(true) => {
                    moved = true;
                    self.node.on_transmitted(Side::Upstream, &Transmit::Bytes(Vec::new()), now);
                }
                Ok(false) => return moved,
                Err(error) => self.lose(Side::Upstream, &LinkFault::Broken(error.to_string()), now),
            }
        }
        moved
    }

    /// Sends what the machine has for the downstream; gives whether anything went out.
    fn transmit_downstream(&mut self, now: Time) -> bool {
        let mut budget = TURN;
        let mut moved = false;
        while budget > 0 {
            let Some(Downstream { connecting: None, conn, sending }) = &mut self.downstream else { return moved };
            if sending.is_none() {
                if !conn.can_start() {
                    return moved;
                }
                let Some(transmit) = self.node.poll_transmit(Side::Downstream) else { return moved };
                let frame = match &transmit {
                    Transmit::Bytes(bytes) => Outgoing::Bytes(bytes.clone()),
                    Transmit::Shared(header, payload) => Outgoing::Shared(*header, Arc::clone(payload)),
                    Transmit::Entry(header, id) => {
                        let at = self.spans.partition_point(|(other, _)| other < id);
                        let (_, span) = &self.spans[at];
                        Outgoing::Block(*header, span.clone())
                    }
                };
                budget = budget.saturating_sub(frame.len());
                conn.start(frame);
                *sending = Some(transmit);
            }
            match conn.flush() {
                Ok(true) => {
                    if let Some(transmit) = sending.take() {
                        moved = true;
                        self.node.on_transmitted(Side::Downstream, &transmit, now);
                    }
                }
                Ok(false) => return moved,
                Err(error) => self.lose(Side::Downstream, &LinkFault::Broken(error.to_string()), now),
            }
        }
        moved
    }
}

/// A disk in one line, for people.
fn describe(disk: &Disk) -> String {
    let names = [disk.model.trim(), disk.serial.trim(), disk.path.as_str()];
    let mut words: Vec<&str> = names.into_iter().filter(|word| !word.is_empty()).collect();
    let size = Bytes(disk.bytes).to_string();
    words.push(&size);
    words.join(", ")
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

#[cfg(test)]
mod tests;
