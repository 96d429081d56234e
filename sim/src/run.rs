//! One deployment on one agent: what `agent/src/run.rs` and `agent/src/run/` do, in virtual time.

use crate::core::Core;
use crate::disk::Platter;
use crate::engine::Engine;
use crate::image::{self, Content};
use crate::network::{CALLED, CALLER, ConnId, Frame};
use crate::queue::DiskOp;
use slidecast_proto::control::{Join, LinkEvent, LinkState, Prepare, Side, ToServer};
use slidecast_proto::feed::Source;
use slidecast_proto::frame::{HEADER_LEN, Header, Kind};
use slidecast_proto::link::{HANDSHAKE, LinkFault, Sender, Terms, refusal};
use slidecast_proto::node::{Act, Candidate, DiskEnd, Node, NodeConfig, Take, Transmit};
use slidecast_proto::reason::{EndState, Reason};
use slidecast_proto::schedule::{Comparing, DiskFailure, Event as DiskEvent, Front};
use slidecast_proto::units::{BlockNo, DeploymentId, Epoch, LinkKey, NodeId, PartNo, Time};
use slidecast_proto::visit::Task;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// The constants of `agent/src/run.rs`, `agent/src/run/links.rs` and `agent/src/framing.rs`.
const TURNS: usize = 4;
const REPORT_EVERY: Duration = Duration::from_secs(1);
const OUTBOX: usize = 256;
const CONNECT_MOST: Duration = Duration::from_secs(2);
const STRANGER_MOST: u32 = 512;
const CANDIDATES: usize = 32;

/// The connection down the chain.
#[derive(Debug)]
struct Downstream {
    conn: ConnId,
    connecting: Option<(u64, Time)>,
    sending: Option<Transmit>,
    trusted: bool,
}

#[derive(Debug)]
enum DiskState {
    Open,
    Engine(Box<Engine>),
    Gone,
}

/// One deployment.
#[derive(Debug)]
pub struct Run {
    agent: usize,
    number: u64,
    prepare: Prepare,
    id: NodeId,
    node: Node,
    /// Payloads by entry: what they are and what they hold of the ring, oldest first.
    spans: VecDeque<(u64, Content, u64)>,
    /// What the payload that is arriving holds.
    arriving: u64,
    disk: DiskState,
    comparing: Comparing,
    upstream: Option<(ConnId, bool)>,
    /// Callers whose proof is still to come, and since when.
    candidates: Vec<(ConnId, Candidate, Time)>,
    downstream: Option<Downstream>,
    outbox: VecDeque<ToServer>,
    report_at: Time,
    joined: bool,
    more: bool,
    /// It gives no credit any more.
    pub stuck: bool,
}

impl Run {
    /// Nothing is written yet.
    #[must_use]
    pub fn new(agent: usize, number: u64, id: NodeId, prepare: Prepare, front: Front, ring: u64, now: Time) -> Self {
        let Prepare { deployment, root, verify, .. } = prepare;
        let config = NodeConfig { id, deployment, root, ring, verify };
        Self {
            agent,
            number,
            comparing: Comparing::new(front, prepare.fresh, prepare.free),
            prepare,
            id,
            node: Node::new(config, now),
            spans: VecDeque::new(),
            arriving: 0,
            disk: DiskState::Open,
            upstream: None,
            candidates: Vec::new(),
            downstream: None,
            outbox: VecDeque::new(),
            report_at: now,
            joined: false,
            more: false,
            stuck: false,
        }
    }

    /// What its disk events are marked with.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The connection from its upstream.
    #[must_use]
    pub fn upstream_conn(&self) -> Option<ConnId> {
        self.upstream.map(|(conn, _)| conn)
    }

    /// Lets go of everything.
    pub fn stop(self, core: &mut Core) {
        for (conn, end) in self.conns() {
            core.close(conn, end);
        }
    }

    fn conns(&self) -> impl Iterator<Item = (ConnId, usize)> + use<'_> {
        let up = self.upstream.map(|(conn, _)| (conn, CALLED)).into_iter();
        let up = up.chain(self.candidates.iter().map(|(conn, ..)| (*conn, CALLED)));
        up.chain(self.downstream.as_ref().map(|down| (down.conn, CALLER)))
    }

    fn side_of(&self, conn: ConnId) -> Option<Side> {
        if self.upstream_conn() == Some(conn) {
            return Some(Side::Upstream);
        }
        self.downstream.as_ref().filter(|down| down.conn == conn).map(|_| Side::Downstream)
    }

    /// The call to the downstream was answered.
    pub fn on_called(&mut self, conn: ConnId, accepted: bool, core: &mut Core) {
        let Some(down) = self.downstream.as_mut().filter(|down| down.conn == conn) else {
            return core.close(conn, CALLER);
        };
        let Some((attempt, _)) = down.connecting else { return };
        if !accepted {
            return self.lose(Side::Downstream, &LinkFault::Broken("connection refused".to_owned()), core);
        }
        down.connecting = None;
        let nonce = core.rng.bytes();
        if !self.node.on_connected(attempt, nonce, core.now) {
            self.drop_conn(Side::Downstream, core);
        }
    }

    /// A connection is gone.
    pub fn on_closed(&mut self, conn: ConnId, why: &str, core: &mut Core) {
        self.candidates.retain(|(candidate, ..)| *candidate != conn);
        if let Some(side) = self.side_of(conn) {
            self.lose(side, &LinkFault::Broken(why.to_owned()), core);
        }
    }

    /// A Hello with the numbers of its upstream from somebody who does not know the link key.
    #[must_use]
    pub fn false_hello(&self, nonce: [u8; 16], now: Time) -> Option<Vec<u8>> {
        let terms = Terms { key: LinkKey([0xEE; 32]), ..self.node.upstream_terms()?.clone() };
        Sender::new(terms, nonce, now).poll_control()
    }

    fn drop_conn(&mut self, side: Side, core: &mut Core) {
        match side {
            Side::Upstream => {
                self.arriving = 0;
                if let Some((conn, _)) = self.upstream.take() {
                    core.close(conn, CALLED);
                }
            }
            Side::Downstream => {
                if let Some(down) = self.downstream.take() {
                    core.close(down.conn, CALLER);
                }
            }
        }
    }

    fn lose(&mut self, side: Side, fault: &LinkFault, core: &mut Core) {
        core.note(format_args!("agent {}: {side} link: {fault}", self.agent));
        self.drop_conn(side, core);
        self.node.on_link_lost(side, fault, core.now);
    }

    /// The header of a block came, its payload follows.
    pub fn on_head(&mut self, conn: ConnId, head: &[u8; HEADER_LEN], core: &mut Core) {
        let Some(side) = self.side_of(conn) else { return };
        let result = self.announce(side, head, core);
        if let Err(fault) = result {
            self.lose(side, &fault, core);
        }
    }

    fn announce(&mut self, side: Side, head: &[u8; HEADER_LEN], core: &mut Core) -> Result<Header, LinkFault> {
        let header = Header::parse(head)?;
        if !self.is_trusted(side) {
            return Err(LinkFault::Broken("a block from somebody who has proven nothing".to_owned()));
        }
        if self.node.on_header(side, &header, core.now)? == Take::Ring {
            self.arriving = header.charge();
            self.check_memory(core);
        }
        Ok(header)
    }

    fn is_trusted(&self, side: Side) -> bool {
        match side {
            Side::Upstream => self.upstream.is_some_and(|(_, trusted)| trusted),
            Side::Downstream => self.downstream.as_ref().is_some_and(|down| down.trusted),
        }
    }

    /// Everything that lies in the ring must fit in it.
    fn check_memory(&self, core: &mut Core) {
        let spans: u64 = self.spans.iter().map(|(_, _, charge)| charge).sum();
        let held = spans + self.arriving;
        let engine = if let DiskState::Engine(engine) = &self.disk { engine.holds() } else { 0 };
        core.checker.on_memory(self.agent, held, engine, spans, self.outbox.len());
    }

    /// Some bytes of a payload came.
    pub fn on_trickle(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(side) = self.side_of(conn) {
            self.node.on_bytes(side, 1, core.now);
        }
    }

    /// A frame came complete. `told`: its header was brought before.
    pub fn on_frame(&mut self, conn: ConnId, frame: Frame, told: bool, core: &mut Core) {
        let Some(side) = self.side_of(conn) else { return self.on_stranger(conn, frame, core) };
        if side == Side::Upstream {
            core.checker.on_upstream_frame(self.agent, core.network.conn(conn).hosts[CALLER]);
        }
        let result = match frame {
            Frame::Block(head, len, content) => self.take_block(side, &head, told, len, content, core),
            Frame::Whole(bytes) => match bytes.split_first_chunk::<HEADER_LEN>() {
                Some((head, payload)) => self.take_control(side, head, payload.to_vec(), core),
                None => Err(LinkFault::Malformed("frame")),
            },
            Frame::Shared(head, payload) => self.take_control(side, &head, payload.to_vec(), core),
            Frame::Message(_) | Frame::Fin => Ok(()),
        };
        if let Err(fault) = result {
            self.lose(side, &fault, core);
        }
    }

    fn take_block(
        &mut self,
        side: Side,
        head: &[u8; HEADER_LEN],
        told: bool,
        len: u32,
        content: Content,
        core: &mut Core,
    ) -> Result<(), LinkFault> {
        let header = if told { Header::parse(head)? } else { self.announce(side, head, core)? };
        self.node.on_bytes(side, len as usize, core.now);
        self.arriving = 0;
        if let Some(id) = self.node.on_block(&header, image::crc(content))? {
            self.spans.push_back((id, content, header.charge()));
            self.check_memory(core);
        }
        Ok(())
    }

    fn take_control(
        &mut self,
        side: Side,
        head: &[u8; HEADER_LEN],
        payload: Vec<u8>,
        core: &mut Core,
    ) -> Result<(), LinkFault> {
        let header = Header::parse(head)?;
        if !self.is_trusted(side) && header.payload_len > STRANGER_MOST {
            return Err(LinkFault::Broken("a long frame from somebody who has proven nothing".to_owned()));
        }
        self.node.on_bytes(side, payload.len(), core.now);
        self.node.on_header(side, &header, core.now)?;
        self.node.on_control(side, &header, payload, core.now)
    }

    /// A frame of a caller that is not the upstream.
    fn on_stranger(&mut self, conn: ConnId, frame: Frame, core: &mut Core) {
        let Frame::Whole(bytes) = frame else { return core.close(conn, CALLED) };
        let head = bytes.split_first_chunk::<HEADER_LEN>();
        let Some((header, payload)) = head.and_then(|(head, payload)| Some((Header::parse(head).ok()?, payload)))
        else {
            return core.close(conn, CALLED);
        };
        if let Some(at) = self.candidates.iter().position(|(candidate, ..)| *candidate == conn) {
            let (_, mut candidate, since) = self.candidates.remove(at);
            match candidate.on_frame(&header, payload, core.now) {
                Ok(false) => self.candidates.push((conn, candidate, since)),
                Ok(true) if self.node.adopt(candidate).is_ok() => {
                    if let Some((old, _)) = self.upstream.replace((conn, true)) {
                        core.close(old, CALLED);
                    }
                    self.arriving = 0;
                }
                _ => core.close(conn, CALLED),
            }
            return;
        }
        let nonce = core.rng.bytes();
        match self.node.on_hello(&header, payload, nonce, core.now) {
            Ok(mut candidate) => {
                while let Some(bytes) = candidate.poll_control() {
                    core.start(conn, CALLED, Frame::Whole(bytes));
                }
                if self.candidates.len() >= CANDIDATES {
                    let (oldest, ..) = self.candidates.remove(0);
                    core.close(oldest, CALLED);
                }
                self.candidates.push((conn, candidate, core.now));
            }
            Err(fault) => {
                core.note(format_args!("agent {}: refuses a call: {fault}", self.agent));
                core.start(conn, CALLED, Frame::Whole(refusal(header.deployment, &fault.to_string())));
                core.close(conn, CALLED);
            }
        }
    }

    /// A frame that waited for the kernel is out.
    pub fn on_out(&mut self, conn: ConnId, core: &mut Core) {
        match self.side_of(conn) {
            Some(Side::Upstream) => {
                self.node.on_transmitted(Side::Upstream, &Transmit::Bytes(Vec::new()), core.now);
            }
            Some(Side::Downstream) => {
                let sent = self.downstream.as_mut().and_then(|down| down.sending.take());
                if let Some(transmit) = sent {
                    self.node.on_transmitted(Side::Downstream, &transmit, core.now);
                }
            }
            None => {}
        }
    }

    /// The disk has done something.
    pub fn on_disk(&mut self, op: DiskOp, platter: &mut Platter, core: &mut Core) {
        if let DiskState::Engine(engine) = &mut self.disk {
            engine.on_disk(op, platter, core.now, &mut core.queue);
        }
    }

    fn hear_disk(&mut self, platter: &mut Platter, core: &mut Core) {
        while let DiskState::Engine(engine) = &mut self.disk {
            let Some(event) = engine.poll() else { return };
            match event {
                DiskEvent::BadContent(block) => self.node.on_bad_content(block, false),
                DiskEvent::Mismatch(block) => self.node.on_bad_content(block, true),
                DiskEvent::Written(block) => self.node.on_written(block),
                DiskEvent::Durable(blocks) => self.node.on_durable(&blocks),
                DiskEvent::Verified(blocks) => {
                    core.checker.on_verified(self.agent, self.number, &blocks);
                    self.node.on_verified(&blocks);
                }
                DiskEvent::Failed(DiskFailure { reason, detail }) => {
                    self.node.on_disk_failed(reason, &detail);
                    self.disk = DiskState::Gone;
                    self.comparing.on_disk_gone().for_each(|no| self.node.on_compared(no, &[]));
                }
                DiskEvent::Unverified => self.node.on_unverified(),
                DiskEvent::Began => {}
                DiskEvent::Compared { first, same } => self.on_compared(first, &same, platter, core),
                DiskEvent::Ended { verified, written, kept, last_look, note } => {
                    self.node.on_disk_ended(DiskEnd { verified, written, kept, last_look }, &note);
                }
            }
        }
    }

    /// Moves everything as far as it goes now.
    pub fn advance(&mut self, platter: &mut Platter, core: &mut Core) {
        let now = core.now;
        self.hear_disk(platter, core);
        self.begin_if_due(platter, core);
        if let Some(Downstream { connecting: Some((_, until)), .. }) = &self.downstream
            && *until <= now
        {
            self.lose(Side::Downstream, &LinkFault::Broken("no answer".to_owned()), core);
        }
        let late = |(_, _, since): &mut (ConnId, Candidate, Time)| now.since(*since) >= HANDSHAKE;
        for (conn, ..) in self.candidates.extract_if(.., late) {
            core.close(conn, CALLED);
        }
        self.node.on_time(now);
        self.more = true;
        for _ in 0..TURNS {
            self.carry_out(platter, core);
            if !(self.transmit_upstream(core) | self.transmit_downstream(core)) {
                self.more = false;
                break;
            }
        }
        if self.joined && self.report_at <= now {
            self.report_at = now.after(REPORT_EVERY);
            let written = if let DiskState::Engine(engine) = &self.disk { engine.written_bytes() } else { 0 };
            let progress = self.node.progress(written);
            self.tell(ToServer::Progress(progress));
        }
    }

    /// When [`Self::advance`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        if self.more {
            return Time(0);
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
        if self.outbox.len() >= OUTBOX {
            self.outbox.retain(|waiting| !matches!(waiting, ToServer::Progress(_)));
        }
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back(message);
        }
    }

    fn carry_out(&mut self, platter: &mut Platter, core: &mut Core) {
        while let Some(act) = self.node.poll() {
            let result = match act {
                Act::Connect { attempt, address } => {
                    self.connect(attempt, address, core);
                    Ok(())
                }
                Act::Close(side) => {
                    self.drop_conn(side, core);
                    Ok(())
                }
                Act::UseManifest(bytes) => self.use_manifest(&bytes, platter, core),
                Act::UsePart(no, bytes) => self.use_part(no, &bytes, platter, core),
                Act::Write(id, header) => {
                    self.write(id, &header, platter, core);
                    Ok(())
                }
                Act::Release(id) => {
                    let sending = self.downstream.as_ref().and_then(|down| down.sending.as_ref());
                    // What goes to a follower is a copy.
                    let followed = self.node.is_followed();
                    if matches!(sending, Some(Transmit::Entry(_, sent)) if *sent == id && !followed) {
                        core.checker.fail(format!("agent {}: entry {id} is let go while it is sent", self.agent));
                    }
                    while self.spans.front().is_some_and(|(oldest, ..)| *oldest <= id) {
                        self.spans.pop_front();
                    }
                    Ok(())
                }
                Act::FinishDisk => {
                    self.comparing.end();
                    core.checker.on_finish(self.agent, self.number, self.prepare.verify);
                    if let DiskState::Engine(engine) = &mut self.disk {
                        engine.finish(platter, core.now, &mut core.queue);
                    }
                    Ok(())
                }
                Act::Tell(mut message) => {
                    if let ToServer::Link(LinkEvent { side, state: LinkState::Suspect, reason, .. }) = &mut message
                        && *reason != Reason::LinkCorrupt
                    {
                        let conn = match side {
                            Side::Upstream => self.upstream.map(|(conn, _)| (conn, CALLED)),
                            Side::Downstream => self.downstream.as_ref().map(|down| (down.conn, CALLER)),
                        };
                        if conn.is_some_and(|(conn, end)| !core.network.answers(conn, end, core.now)) {
                            *reason = Reason::TimedOut;
                        }
                    }
                    if let ToServer::Link(LinkEvent { side, state: LinkState::Up, .. }) = &message {
                        match side {
                            Side::Upstream => self.upstream.iter_mut().for_each(|(_, trusted)| *trusted = true),
                            Side::Downstream => self.downstream.iter_mut().for_each(|down| down.trusted = true),
                        }
                    }
                    self.tell(message);
                    Ok(())
                }
            };
            if let Err(fault) = result {
                self.lose(Side::Upstream, &fault, core);
            }
        }
    }

    fn connect(&mut self, attempt: u64, address: SocketAddr, core: &mut Core) {
        let Some(other) = crate::agent::Agent::at(address.ip()) else { return };
        self.drop_conn(Side::Downstream, core);
        let conn = core.connect(self.agent + 1, other + 1);
        let connecting = Some((attempt, core.now.after(CONNECT_MOST)));
        self.downstream = Some(Downstream { conn, connecting, sending: None, trusted: false });
    }

    fn use_manifest(&mut self, bytes: &[u8], platter: &mut Platter, core: &mut Core) -> Result<(), LinkFault> {
        if *bytes != *core.image.manifest() {
            return Err(LinkFault::Manifest("it does not have the root that the server announced"));
        }
        if matches!(self.disk, DiskState::Open) {
            let (image, verify) = (core.image.clone(), self.prepare.verify);
            let engine = Engine::new(self.agent, self.number, image, verify, platter);
            self.disk = DiskState::Engine(Box::new(engine));
        }
        self.node.on_shape((*core.image.shape).clone());
        self.begin_if_due(platter, core);
        Ok(())
    }

    fn use_part(&mut self, no: PartNo, bytes: &[u8], platter: &mut Platter, core: &mut Core) -> Result<(), LinkFault> {
        let image = core.image.clone();
        if *bytes != *image.part(no) {
            return Err(LinkFault::Manifest("a part is not the one that its header names"));
        }
        if self.node.is_comparing() {
            let compares = self.comparing.on_part(no, matches!(self.disk, DiskState::Engine(_)));
            self.node.on_part_to_compare(no, compares);
            self.compare_more(platter, core);
            return Ok(());
        }
        if let DiskState::Engine(engine) = &mut self.disk
            && !self.node.knows_part(no)
        {
            engine.part(no, platter, core.now, &mut core.queue);
        }
        self.node.on_part(no, image.fills(no));
        Ok(())
    }

    /// Lets the disk be written, unless it is being compared first or lacks nothing.
    fn begin_if_due(&mut self, platter: &mut Platter, core: &mut Core) {
        if let DiskState::Engine(engine) = &mut self.disk
            && self.comparing.begins(self.joined, &self.node)
        {
            engine.begin(platter, core.now, &mut core.queue);
        }
    }

    fn compare_more(&mut self, platter: &mut Platter, core: &mut Core) {
        while let DiskState::Engine(engine) = &mut self.disk
            && let Some(no) = self.comparing.poll()
        {
            if self.node.part_bytes(no).is_none() {
                core.checker.fail(format!("agent {}: part {no} was lost before it was compared", self.agent));
            }
            engine.compare(no, self.comparing.is_sampled(), platter, core.now, &mut core.queue);
        }
    }

    fn on_compared(&mut self, first: BlockNo, same: &[BlockNo], platter: &mut Platter, core: &mut Core) {
        let no = core.image.shape.part_of(first);
        if self.comparing.on_compared(no) {
            core.checker.on_verified(self.agent, self.number, same);
            self.node.on_compared(no, same);
            self.compare_more(platter, core);
        }
    }

    fn write(&mut self, id: u64, header: &Header, platter: &mut Platter, core: &mut Core) {
        let DiskState::Engine(engine) = &mut self.disk else { return };
        let at = self.spans.partition_point(|(other, ..)| *other < id);
        match self.spans.get(at) {
            Some((found, content, charge)) if *found == id => {
                engine.block(BlockNo(header.number), *content, *charge, platter, core.now, &mut core.queue);
            }
            _ => core.checker.fail(format!("agent {}: entry {id} is to be written and is gone", self.agent)),
        }
    }

    fn transmit_upstream(&mut self, core: &mut Core) -> bool {
        let mut moved = false;
        while let Some((conn, _)) = self.upstream {
            if !core.network.can_start(conn, CALLED) {
                return moved;
            }
            let Some(Transmit::Bytes(mut bytes)) = self.node.poll_transmit(Side::Upstream) else { return moved };
            let header = bytes.first_chunk::<HEADER_LEN>().and_then(|head| Header::parse(head).ok());
            if let Some(Header { kind: Kind::Ack, deployment, .. }) = header.filter(|_| self.stuck) {
                bytes = Header::bare(Kind::Beat, deployment, 0).encode().to_vec();
            }
            if core.start(conn, CALLED, Frame::Whole(bytes)) {
                moved = true;
                self.node.on_transmitted(Side::Upstream, &Transmit::Bytes(Vec::new()), core.now);
            }
        }
        moved
    }

    fn transmit_downstream(&mut self, core: &mut Core) -> bool {
        let mut moved = false;
        while let Some(down) = self.downstream.as_mut().filter(|down| down.connecting.is_none()) {
            let conn = down.conn;
            if !core.network.can_start(conn, CALLER) {
                return moved;
            }
            let Some(transmit) = self.node.poll_transmit(Side::Downstream) else { return moved };
            let frame = match &transmit {
                Transmit::Bytes(bytes) => Frame::Whole(bytes.clone()),
                Transmit::Shared(header, payload) => {
                    let header = header.encode();
                    core.checker.on_relay_shared(self.agent, &header, payload, &core.image);
                    Frame::Shared(header, payload.clone())
                }
                Transmit::Entry(head, id) => {
                    let at = self.spans.partition_point(|(other, ..)| other < id);
                    let Some((_, content, _)) = self.spans.get(at).filter(|(found, ..)| found == id) else {
                        core.checker.fail(format!("agent {}: entry {id} is to be sent and is gone", self.agent));
                        return false;
                    };
                    let (head, len) = (head.encode(), head.payload_len);
                    core.checker.on_relay(self.agent, &head, *content);
                    Frame::Block(head, len, *content)
                }
            };
            if core.start(conn, CALLER, frame) {
                moved = true;
                self.node.on_transmitted(Side::Downstream, &transmit, core.now);
            } else {
                down.sending = Some(transmit);
            }
        }
        moved
    }

    /// Its number, for the checker.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its highest epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.node.epoch()
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
        self.joined = true;
        self.report_at = now;
        self.node.on_join(join, now);
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
        self.disk = DiskState::Gone;
    }

    fn poll_message(&mut self) -> Option<ToServer> {
        self.outbox.pop_front()
    }
}
