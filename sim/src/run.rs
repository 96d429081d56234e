//! One deployment on one agent: its connections and its disk around the machine that ships (`slidecast_proto::run`), in virtual
//! time.

use crate::core::Core;
use crate::disk::Platter;
use crate::engine::Engine;
use crate::image::{self, Content};
use crate::network::{CALLED, CALLER, ConnId, Frame, host_at};
use crate::queue::DiskOp;
use slidecast_proto::control::{Join, Prepare, Side, ToServer};
use slidecast_proto::feed::Source;
use slidecast_proto::frame::{HEADER_LEN, Header, Kind};
use slidecast_proto::link::{LinkFault, Sender};
use slidecast_proto::node::{Candidate, Take};
use slidecast_proto::reason::{EndState, Reason};
use slidecast_proto::run::{PartUse, Run as Machine, RunAct, RunConfig, RunTransmit};
use slidecast_proto::units::{BlockNo, DeploymentId, Epoch, LinkKey, PartNo, Time};
use slidecast_proto::visit::Task;
use std::net::{IpAddr, SocketAddr};

/// The longest frame of somebody who has proven nothing, in bytes: as in `agent/src/framing.rs`.
const STRANGER_MOST: u32 = 512;
/// Both sides of a node.
const SIDES: [Side; 2] = [Side::Upstream, Side::Downstream];

/// A connection to a neighbour.
#[derive(Clone, Copy, Debug)]
struct Line {
    conn: ConnId,
    end: usize,
    trusted: bool,
}

/// A payload in the ring: what it is, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Payload {
    content: Content,
    charge: u64,
}

#[derive(Debug)]
pub(crate) struct Run {
    agent: usize,
    number: u64,
    machine: Machine<Payload>,
    /// What the payload that is arriving holds.
    arriving: u64,
    engine: Option<Engine>,
    lines: [Option<Line>; 2],
    /// It gives no credit any more.
    pub(crate) stuck: bool,
}

impl Run {
    pub(crate) fn new(agent: usize, number: u64, prepare: Prepare, config: RunConfig, now: Time) -> Self {
        Self {
            agent,
            number,
            machine: Machine::new(prepare, config, now),
            arriving: 0,
            engine: None,
            lines: [None, None],
            stuck: false,
        }
    }

    /// What its disk events are marked with.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the target may hold something of the image.
    pub(crate) fn is_comparable(&self) -> bool {
        self.machine.is_comparable()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.machine.epoch()
    }

    /// The connection from its upstream.
    pub(crate) fn upstream_conn(&self) -> Option<ConnId> {
        self.lines[0].map(|line| line.conn)
    }

    pub(crate) fn stop(self, core: &mut Core) {
        for Line { conn, end, .. } in self.lines.into_iter().flatten() {
            core.close(conn, end);
        }
    }

    /// Whether this is one of its links.
    pub(crate) fn has(&self, conn: ConnId) -> bool {
        self.side_of(conn).is_some()
    }

    /// Where its upstream calls from, if that is a node.
    pub(crate) fn upstream_address(&self) -> Option<IpAddr> {
        self.machine.upstream_address()
    }

    fn side_of(&self, conn: ConnId) -> Option<Side> {
        SIDES.into_iter().find(|side| self.line(*side).is_some_and(|line| line.conn == conn))
    }

    fn line(&self, side: Side) -> Option<Line> {
        self.lines[usize::from(side == Side::Downstream)]
    }

    fn set_line(&mut self, side: Side, line: Option<Line>, core: &mut Core) {
        if side == Side::Upstream {
            self.arriving = 0;
        }
        let old = std::mem::replace(&mut self.lines[usize::from(side == Side::Downstream)], line);
        if let Some(Line { conn, end, .. }) = old {
            core.close(conn, end);
        }
    }

    /// The call to the downstream was answered.
    pub(crate) fn on_called(&mut self, conn: ConnId, accepted: bool, core: &mut Core) {
        if self.side_of(conn) != Some(Side::Downstream) {
            return core.close(conn, CALLER);
        }
        if accepted {
            let nonce = core.rng.bytes();
            self.machine.on_dialed(Some(nonce), core.now);
        } else {
            self.lose(Side::Downstream, "connection refused", core.now);
        }
    }

    fn lose(&mut self, side: Side, why: &str, now: Time) {
        self.machine.on_lost(side, &LinkFault::Broken(why.to_owned()), now);
    }

    pub(crate) fn on_closed(&mut self, conn: ConnId, why: &str, core: &mut Core) {
        if let Some(side) = self.side_of(conn) {
            self.lose(side, why, core.now);
        }
    }

    /// A Hello with the numbers of its upstream from somebody who does not know the link key.
    pub(crate) fn false_hello(&self, nonce: [u8; 16], now: Time) -> Option<Vec<u8>> {
        let mut terms = self.machine.upstream_terms()?.clone();
        terms.key = LinkKey([0xEE; 32]);
        Sender::new(terms, nonce, now).poll_control()
    }

    /// The header of a block came, its payload follows.
    pub(crate) fn on_head(&mut self, conn: ConnId, head: &[u8; HEADER_LEN], core: &mut Core) {
        if let Some(side) = self.side_of(conn) {
            self.announce(side, head, core);
        }
    }

    fn announce(&mut self, side: Side, head: &[u8; HEADER_LEN], core: &mut Core) -> Option<Header> {
        let header = self.parse(side, head, core.now)?;
        if !self.line(side)?.trusted {
            self.lose(side, "a block from somebody who has proven nothing", core.now);
            return None;
        }
        if self.machine.on_announced(side, &header, core.now)? == Take::Ring {
            self.arriving = header.charge();
            self.check_memory(core);
        }
        Some(header)
    }

    fn parse(&mut self, side: Side, head: &[u8; HEADER_LEN], now: Time) -> Option<Header> {
        Header::parse(head).map_err(|error| self.machine.on_lost(side, &error.into(), now)).ok()
    }

    /// Everything that lies in the ring must fit in it.
    fn check_memory(&self, core: &mut Core) {
        let held: u64 = self.machine.payloads().map(|payload| payload.charge).sum();
        let engine = self.engine.as_ref().map_or(0, Engine::holds);
        let waiting = self.machine.waiting_messages();
        core.checker.on_memory(self.agent, held + self.arriving, engine, held, waiting);
    }

    /// Some bytes of a payload came.
    pub(crate) fn on_trickle(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(side) = self.side_of(conn) {
            self.machine.on_bytes(side, 1, core.now);
        }
    }

    /// A frame came complete. `told`: its header was brought before.
    pub(crate) fn on_frame(&mut self, conn: ConnId, frame: Frame, told: bool, core: &mut Core) {
        let Some(side) = self.side_of(conn) else { return };
        if side == Side::Upstream {
            core.checker.on_upstream_frame(self.agent, core.network.conn(conn).hosts[CALLER]);
        }
        match frame {
            Frame::Block(head, len, content) => {
                let header = if told { Header::parse(&head).ok() } else { self.announce(side, &head, core) };
                let Some(header) = header else { return };
                self.machine.on_bytes(side, len as usize, core.now);
                self.arriving = 0;
                let payload = Payload { content, charge: header.charge() };
                self.machine.on_block(side, &header, image::crc(content), payload, core.now);
                self.check_memory(core);
            }
            Frame::Whole(bytes) => match bytes.split_first_chunk::<HEADER_LEN>() {
                Some((head, payload)) => self.take_control(side, head, payload, core.now),
                None => self.machine.on_lost(side, &LinkFault::Malformed("frame"), core.now),
            },
            Frame::Shared(head, payload) => self.take_control(side, &head, &payload, core.now),
            Frame::Message(_) | Frame::Fin => {}
        }
    }

    fn take_control(&mut self, side: Side, head: &[u8; HEADER_LEN], payload: &[u8], now: Time) {
        let Some(header) = self.parse(side, head, now) else { return };
        if !self.line(side).is_some_and(|line| line.trusted) && header.payload_len > STRANGER_MOST {
            return self.lose(side, "a long frame from somebody who has proven nothing", now);
        }
        self.machine.on_bytes(side, payload.len(), now);
        self.machine.on_control(side, &header, payload.to_vec(), now);
    }

    /// A caller said this first.
    pub(crate) fn on_hello(
        &mut self,
        header: &Header,
        payload: &[u8],
        core: &mut Core,
    ) -> Result<Candidate, LinkFault> {
        let nonce = core.rng.bytes();
        self.machine.on_hello(header, payload, nonce, core.now)
    }

    /// A caller has proven that it is the upstream.
    pub(crate) fn on_proven(&mut self, conn: ConnId, candidate: Candidate, core: &mut Core) {
        if self.machine.on_proven(candidate).is_ok() {
            self.set_line(Side::Upstream, Some(Line { conn, end: CALLED, trusted: true }), core);
        } else {
            core.close(conn, CALLED);
        }
    }

    /// A frame that waited for the kernel is out.
    pub(crate) fn on_out(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(side) = self.side_of(conn) {
            self.machine.on_transmitted(side, core.now);
        }
    }

    /// The disk has done something.
    pub(crate) fn on_disk(&mut self, op: DiskOp, platter: &mut Platter, core: &mut Core) {
        if let Some(engine) = &mut self.engine {
            engine.on_disk(op, platter, core.now, &mut core.queue);
        }
    }

    /// Moves everything as far as it goes now.
    pub(crate) fn advance(&mut self, platter: &mut Platter, core: &mut Core) {
        let now = core.now;
        self.carry_out(platter, core);
        while let Some(event) = self.engine.as_mut().and_then(Engine::poll) {
            self.machine.on_disk(event);
            self.carry_out(platter, core);
        }
        self.machine.on_time(now);
        loop {
            self.carry_out(platter, core);
            let moved = SIDES.map(|side| self.transmit(side, core)).contains(&true);
            if !self.machine.goes_on(moved) {
                break;
            }
        }
        let written = self.engine.as_ref().map_or(0, Engine::written_bytes);
        self.machine.report(written, now);
    }

    /// When [`Self::advance`] must be called at the latest.
    pub(crate) fn deadline(&self) -> Time {
        self.machine.deadline()
    }

    fn carry_out(&mut self, platter: &mut Platter, core: &mut Core) {
        loop {
            let lines = self.lines;
            let network = &core.network;
            let acknowledged = |side: Side, _| {
                let Line { conn, end, .. } = lines[usize::from(side == Side::Downstream)]?;
                Some(network.answers(conn, end, core.now))
            };
            let Some(act) = self.machine.poll(acknowledged, core.now) else { return };
            if self.machine.sends_what_it_let_go() {
                core.checker.fail(format!("agent {}: an entry is let go while it is sent", self.agent));
            }
            match act {
                RunAct::Dial(address) => self.dial(address, core),
                RunAct::Hangup(side, fault) => {
                    if let Some(fault) = fault {
                        core.note(format_args!("agent {}: {side} link: {fault}", self.agent));
                    }
                    self.set_line(side, None, core);
                }
                RunAct::Trust(side) => {
                    let line = &mut self.lines[usize::from(side == Side::Downstream)];
                    line.iter_mut().for_each(|line| line.trusted = true);
                }
                RunAct::UseManifest(bytes) => {
                    let fault = LinkFault::Manifest("it does not have the root that the server announced");
                    let right = *bytes == *core.image.manifest();
                    let shape = if right { Ok((*core.image.shape).clone()) } else { Err(fault) };
                    self.machine.on_manifest(shape, core.now);
                }
                RunAct::UsePart(no, bytes, of) => self.use_part(no, &bytes, of, platter, core),
                RunAct::Settled(blocks) => core.checker.on_verified(self.agent, self.number, &blocks),
                disk => self.drive_disk(disk, platter, core),
            }
        }
    }

    /// Does what is asked of the disk.
    fn drive_disk(&mut self, act: RunAct<Payload>, platter: &mut Platter, core: &mut Core) {
        let (now, verify) = (core.now, self.machine.order().verify);
        if let RunAct::StartDisk = act {
            self.engine = Some(Engine::new(self.agent, self.number, core.image.clone(), verify, platter));
            return self.machine.on_disk_started(Ok(()));
        }
        let Some(engine) = &mut self.engine else {
            return core.checker.fail(format!("agent {}: {act:?} of a disk that is not there", self.agent));
        };
        match act {
            RunAct::BeginDisk => engine.begin(platter, now, &mut core.queue),
            RunAct::Compare { no, sampled, .. } => engine.compare(no, sampled, platter, now, &mut core.queue),
            RunAct::Write(header, Payload { content, charge }) => {
                engine.block(BlockNo(header.number), content, charge, platter, now, &mut core.queue);
            }
            RunAct::FinishDisk => {
                core.checker.on_finish(self.agent, self.number, verify);
                engine.finish(platter, now, &mut core.queue);
            }
            RunAct::StopDisk => self.engine = None,
            _ => {}
        }
    }

    fn dial(&mut self, address: SocketAddr, core: &mut Core) {
        let Some(host) = host_at(address.ip()) else { return };
        let conn = core.connect(self.agent + 1, host);
        self.set_line(Side::Downstream, Some(Line { conn, end: CALLER, trusted: false }), core);
    }

    fn use_part(&mut self, no: PartNo, bytes: &[u8], of: PartUse, platter: &mut Platter, core: &mut Core) {
        let image = core.image.clone();
        let right = *bytes == *image.part(no);
        if right
            && of == (PartUse::Keep { to_disk: true })
            && let Some(engine) = &mut self.engine
        {
            engine.part(no, platter, core.now, &mut core.queue);
        }
        let fault = LinkFault::Manifest("a part is not the one that its header names");
        self.machine.on_part(no, of, if right { Ok(image.fills(no)) } else { Err(fault) }, core.now);
    }

    /// Sends what the machine has for a neighbour; gives whether anything went out.
    fn transmit(&mut self, side: Side, core: &mut Core) -> bool {
        let mut moved = false;
        while let Some(Line { conn, end, .. }) = self.line(side)
            && core.network.can_start(conn, end)
            && let Some(transmit) = self.machine.poll_transmit(side, core.now)
        {
            let frame = match transmit {
                RunTransmit::Bytes(bytes) => Frame::Whole(self.silence_credit(side, bytes)),
                RunTransmit::Shared(header, payload) => {
                    core.checker.on_relay_shared(self.agent, &header, &payload, &core.image);
                    Frame::Shared(header, payload)
                }
                RunTransmit::Block(head, payload) | RunTransmit::Copy(head, payload) => {
                    core.checker.on_relay(self.agent, &head, payload.content);
                    let len = Header::parse(&head).map_or(0, |header| header.payload_len);
                    Frame::Block(head, len, payload.content)
                }
            };
            if core.start(conn, end, frame) {
                moved = true;
                self.machine.on_transmitted(side, core.now);
            }
        }
        moved
    }

    /// A node that is stuck says that it lives, and gives no credit.
    fn silence_credit(&self, side: Side, bytes: Vec<u8>) -> Vec<u8> {
        let header = bytes.first_chunk::<HEADER_LEN>().and_then(|head| Header::parse(head).ok());
        match header {
            Some(Header { kind: Kind::Ack, deployment, .. }) if self.stuck && side == Side::Upstream => {
                Header::bare(Kind::Beat, deployment, 0).encode().to_vec()
            }
            _ => bytes,
        }
    }
}

impl Task for Run {
    fn deployment(&self) -> DeploymentId {
        self.machine.deployment()
    }

    fn is_joined(&self) -> bool {
        self.machine.is_joined()
    }

    fn ended(&self) -> Option<EndState> {
        self.machine.ended()
    }

    fn on_join(&mut self, join: &Join, now: Time) {
        self.machine.on_join(join, now);
    }

    fn on_server_back(&mut self) {
        self.machine.on_server_back();
    }

    fn fail(&mut self, reason: Reason, detail: &str) {
        self.machine.fail(reason, detail);
    }

    fn poll_message(&mut self) -> Option<ToServer> {
        self.machine.poll_message()
    }
}
