//! Connections between hosts: two directions each, with latency, rate, buffers of bounded size, and all the ways to end.
//!
//! A frame is the unit. What a TCP connection does to it: it goes out in order, waits while the window is full, comes late
//! when the path was cut for a while, never comes when the path stays cut, and is lost with everything behind it when the
//! connection is torn down.

use crate::damage::{Corruption, Damage, harm};
use crate::image::Content;
use crate::queue::{Event, Queue};
use crate::rng::Rng;
use slidecast_proto::frame::HEADER_LEN;
use slidecast_proto::units::Time;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// The number of a connection; never used twice.
pub(crate) type ConnId = usize;
/// The number of a host: 0 is the server, agent `n` is `n + 1`.
pub(crate) type HostNo = usize;
/// The end of a connection that called.
pub(crate) const CALLER: usize = 0;
/// The end of a connection that was called.
pub(crate) const CALLED: usize = 1;
/// What is no longer than this does not wait for what others send through the same card, in bytes.
const FEW_PACKETS: u64 = 4096;
pub(crate) const SERVER: HostNo = 0;

/// The address of a host.
pub(crate) fn address_of(host: HostNo) -> IpAddr {
    let [_, b, c, d] = u32::try_from(host).unwrap_or(0).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, b, c, d))
}

/// The host that has this address.
pub(crate) fn host_at(address: IpAddr) -> Option<HostNo> {
    let IpAddr::V4(address) = address else { return None };
    let [_, b, c, d] = address.octets();
    usize::try_from(u32::from_be_bytes([0, b, c, d])).ok()
}

#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// A frame of a chain link in one piece.
    Whole(Vec<u8>),
    /// A header and a shared payload.
    Shared([u8; HEADER_LEN], Arc<[u8]>),
    /// A block: its header, the length of its payload in bytes, and what the payload is.
    Block([u8; HEADER_LEN], u32, Content),
    /// A message of a control link.
    Message(Vec<u8>),
    /// The other end has closed.
    Fin,
}

impl Frame {
    pub(crate) fn wire_bytes(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Shared(_, bytes) => (HEADER_LEN + bytes.len()) as u64,
            Self::Block(_, len, _) => HEADER_LEN as u64 + u64::from(*len),
            Self::Message(bytes) => bytes.len() as u64 + 18,
            Self::Fin => 0,
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Flow {
    /// Taken by the sender's kernel, not yet on the wire.
    queue: VecDeque<Frame>,
    queued: u64,
    /// Not yet taken by the sender's kernel as a whole.
    pending: Option<Frame>,
    busy: bool,
    /// On the wire, or arrived and not read. The flag says that the header was told of already.
    flight: VecDeque<(Frame, bool)>,
    /// How many of those have arrived and wait for a host that stands still.
    unread: usize,
    used: u64,
    last: Time,
    /// Nothing arrives any more, and neither end is told.
    lost: bool,
    /// Arrives damaged: the next block or the next control frame.
    damage: Option<Damage>,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) hosts: [HostNo; 2],
    open: [bool; 2],
    established: bool,
    flows: [Flow; 2],
    latency: Duration,
    rate: u64,
}

/// A host as the network sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostState {
    /// It has power and a cable.
    pub(crate) powered: bool,
    /// Its process runs and listens.
    pub(crate) listening: bool,
    /// The process stands still until then.
    pub(crate) still: Time,
    /// Half of the latency of its paths.
    pub(crate) latency: Duration,
    /// Bytes per second.
    pub(crate) rate: u64,
    /// The card of the server that it hangs on.
    pub(crate) card: usize,
    /// What it sends on chain links is damaged.
    pub(crate) corrupts: Option<Corruption>,
}

/// What is the same for all connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkPlan {
    /// Bytes on the way or unread at most.
    pub(crate) window: u64,
    /// Bytes that the kernel takes and does not send yet.
    pub(crate) unsent: u64,
    /// The most by which a frame comes later than the latency says.
    pub(crate) jitter: Duration,
    /// Payloads are told of while they arrive.
    pub(crate) pieces: bool,
}

#[derive(Debug)]
pub(crate) struct Network {
    plan: NetworkPlan,
    conns: Vec<Conn>,
    /// The connections of each host.
    of_host: Vec<Vec<ConnId>>,
    pub(crate) hosts: Vec<HostState>,
    /// The server's cards: bytes per second, and when each has sent all that it was given.
    cards: Vec<(u64, Time)>,
    /// Paths that are cut, and until when.
    cut: BTreeMap<(HostNo, HostNo), Time>,
}

/// What a frame that arrives comes to.
#[derive(Debug)]
pub(crate) enum Arrival {
    Nothing,
    /// It is for this end of the connection. The flag says that its header was told of already.
    Frame(usize, Frame, bool),
}

impl Network {
    /// A network of these hosts, the server first; `cards` are the speeds of the server's cards in bytes per second.
    pub(crate) fn new(plan: NetworkPlan, hosts: Vec<HostState>, cards: &[u64]) -> Self {
        let of_host = vec![Vec::new(); hosts.len()];
        let cards = cards.iter().map(|rate| ((*rate).max(1), Time(0))).collect();
        Self { plan, conns: Vec::new(), of_host, hosts, cards, cut: BTreeMap::new() }
    }

    pub(crate) fn conn(&self, conn: ConnId) -> &Conn {
        &self.conns[conn]
    }

    /// When the path between two hosts carries something again.
    fn open_at(&self, a: HostNo, b: HostNo) -> Time {
        self.cut.get(&(a.min(b), a.max(b))).copied().unwrap_or_default()
    }

    /// Cuts the path between two hosts.
    pub(crate) fn cut(&mut self, a: HostNo, b: HostNo, until: Time) {
        self.cut.insert((a.min(b), a.max(b)), until);
    }

    pub(crate) fn connect(&mut self, from: HostNo, to: HostNo, now: Time, queue: &mut Queue) -> ConnId {
        let id = self.conns.len();
        let latency = self.hosts[from].latency + self.hosts[to].latency;
        let rate = self.hosts[from].rate.min(self.hosts[to].rate).max(1);
        let flows = [Flow::default(), Flow::default()];
        self.conns.push(Conn { hosts: [from, to], open: [true, false], established: false, flows, latency, rate });
        self.of_host[from].push(id);
        let at = now.after(latency);
        if self.open_at(from, to) <= at {
            queue.push(at, Event::Syn(id));
        } else {
            // Sent again about once a second.
            queue.push(self.open_at(from, to).after(Duration::from_millis(400)), Event::Syn(id));
        }
        id
    }

    /// A call has reached its host.
    pub(crate) fn on_syn(&mut self, conn: ConnId, now: Time, queue: &mut Queue) {
        let Conn { hosts: [from, to], latency, open, .. } = &mut self.conns[conn];
        let host = self.hosts[*to];
        if !host.powered || !self.hosts[*from].powered {
            return;
        }
        open[CALLED] = host.listening;
        let (to, at) = (*to, now.after(*latency));
        queue.push(at, Event::Called { conn, accepted: host.listening });
        if host.listening {
            self.of_host[to].push(conn);
        }
    }

    /// The answer to a call is back; gives whether the caller still wants it.
    pub(crate) fn on_called(&mut self, conn: ConnId, accepted: bool) -> bool {
        let conn = &mut self.conns[conn];
        conn.established = accepted;
        conn.open[CALLER]
    }

    /// Whether this end has not closed.
    pub(crate) fn is_open(&self, conn: ConnId, end: usize) -> bool {
        self.conns[conn].open[end]
    }

    /// Whether the next frame may be given to the kernel.
    pub(crate) fn can_start(&self, conn: ConnId, end: usize) -> bool {
        let conn = &self.conns[conn];
        (conn.established || end == CALLED) && conn.open[end] && conn.flows[end].pending.is_none()
    }

    /// The bytes that one end wants to send and could not.
    pub(crate) fn backlog(&self, conn: ConnId, end: usize) -> u64 {
        self.conns[conn].flows[end].queued
    }

    /// Gives a frame to the kernel; says whether it took the whole of it. If not, it will by the next time that
    /// [`Self::can_start`] is true.
    pub(crate) fn start(
        &mut self,
        conn: ConnId,
        end: usize,
        frame: Frame,
        now: Time,
        queue: &mut Queue,
        rng: &mut Rng,
    ) -> bool {
        let flow = &mut self.conns[conn].flows[end];
        // Messages wait in the channel of the control link, which has a bound of its own.
        let taken = flow.queued <= self.plan.unsent || matches!(frame, Frame::Message(_));
        if taken {
            flow.queued += frame.wire_bytes();
            flow.queue.push_back(frame);
        } else {
            flow.pending = Some(frame);
        }
        self.pump(conn, end, now, queue, rng);
        taken
    }

    /// Puts the next frame on the wire if that is free.
    fn pump(&mut self, conn: ConnId, end: usize, now: Time, queue: &mut Queue, rng: &mut Rng) {
        let Self { plan, conns, cut, hosts, cards, .. } = self;
        let Conn { hosts: [a, b], latency, rate, flows, .. } = &mut conns[conn];
        let corrupts = hosts[if end == CALLER { *a } else { *b }].corrupts;
        let flow = &mut flows[end];
        if flow.busy || flow.lost || (flow.used > 0 && flow.used >= plan.window) {
            return;
        }
        let Some(mut frame) = flow.queue.pop_front() else { return };
        let bytes = frame.wire_bytes();
        flow.queued -= bytes;
        flow.used += bytes;
        if let Some(damage) = flow.damage
            && harm(&mut frame, damage)
        {
            flow.damage = None;
        }
        if let Some(Corruption { permille, all }) = corrupts
            && rng.below(1000) < permille
        {
            let damage = if all { rng.pick(&[Damage::Block, Damage::Control, Damage::Head]) } else { Damage::Block };
            let _ =
                harm(&mut frame, damage) || harm(&mut frame, Damage::Part) || (all && harm(&mut frame, Damage::Head));
        }
        let span = |rate: u64| Duration::from_micros(bytes * 1_000_000 / rate);
        let (from, to) = if end == CALLER { (*a, *b) } else { (*b, *a) };
        // All that the server sends through one card shares it, frame by frame.
        let card = cards.get_mut(hosts[to].card).filter(|_| from == SERVER);
        let (begin, on_card) = card.map_or((now, now), |(rate, free)| {
            let begin = now.max(*free);
            *free = begin.after(span(*rate));
            // Blocks wait for each other; what fits in a few packets goes between those of a block.
            if bytes > FEW_PACKETS { (begin, *free) } else { (now, now) }
        });
        let sent = begin.after(span(*rate)).max(on_card);
        flow.busy = true;
        queue.push(sent, Event::Wire(conn, end));
        let jitter = u64::try_from(plan.jitter.as_micros()).unwrap_or(0);
        let late = Duration::from_micros(rng.below(jitter + 1));
        let opens = cut.get(&((*a).min(*b), (*a).max(*b))).copied().unwrap_or_default();
        let arrive = |at: Time| if opens > at { opens.after(Duration::from_millis(200)) } else { at };
        if plan.pieces && matches!(frame, Frame::Block(..)) {
            let head = arrive(begin.after(*latency)).max(flow.last);
            queue.push(head, Event::Head(conn, end));
            let end_at = arrive(sent.after(*latency + late)).max(flow.last);
            let mut piece = head.after(Duration::from_millis(100));
            while piece < end_at {
                queue.push(piece, Event::Trickle(conn, end));
                piece = piece.after(Duration::from_millis(100));
            }
        }
        flow.last = arrive(sent.after(*latency + late)).max(flow.last);
        queue.push(flow.last, Event::Arrive(conn, end));
        flow.flight.push_back((frame, false));
    }

    /// The wire is free again. Gives whether a frame that was pending is out now.
    pub(crate) fn on_wire(&mut self, conn: ConnId, end: usize, now: Time, queue: &mut Queue, rng: &mut Rng) -> bool {
        self.conns[conn].flows[end].busy = false;
        self.pump(conn, end, now, queue, rng);
        self.take_pending(conn, end, now, queue, rng)
    }

    /// Gives the kernel the frame that it had no room for. Its process does that: one that stands still does not, and this is
    /// to be tried again when it goes on. Gives whether the frame is out now.
    pub(crate) fn take_pending(
        &mut self,
        conn: ConnId,
        end: usize,
        now: Time,
        queue: &mut Queue,
        rng: &mut Rng,
    ) -> bool {
        let still = self.hosts[self.conns[conn].hosts[end]].still > now;
        let flow = &mut self.conns[conn].flows[end];
        if still || flow.queued > self.plan.unsent {
            return false;
        }
        let Some(frame) = flow.pending.take() else { return false };
        flow.queued += frame.wire_bytes();
        flow.queue.push_back(frame);
        self.pump(conn, end, now, queue, rng);
        true
    }

    /// The header of the frame that is arriving, for whoever reads it.
    pub(crate) fn on_head(&mut self, conn: ConnId, dir: usize, now: Time) -> Option<(usize, [u8; HEADER_LEN])> {
        let reader = self.reader(conn, dir, now)?;
        let flow = &mut self.conns[conn].flows[dir];
        match flow.flight.front_mut() {
            Some((Frame::Block(head, ..), told)) if flow.unread == 0 && !*told => {
                *told = true;
                Some((reader, *head))
            }
            _ => None,
        }
    }

    /// Who reads some bytes of the payload that is arriving, if its header was told of.
    pub(crate) fn on_trickle(&self, conn: ConnId, dir: usize, now: Time) -> Option<usize> {
        let told = self.conns[conn].flows[dir].flight.front().is_some_and(|(_, told)| *told);
        self.reader(conn, dir, now).filter(|_| told)
    }

    /// The end that reads this direction, if it is there and moves.
    fn reader(&self, conn: ConnId, dir: usize, now: Time) -> Option<usize> {
        let (end, host) = (1 - dir, self.hosts[self.conns[conn].hosts[1 - dir]]);
        let reads =
            host.powered && host.still <= now && self.conns[conn].open[end] && !self.conns[conn].flows[dir].lost;
        reads.then_some(end)
    }

    /// Whether the kernel at the other end answers what this end sends.
    pub(crate) fn answers(&self, conn: ConnId, end: usize, now: Time) -> bool {
        let Conn { hosts, flows, .. } = &self.conns[conn];
        let there = self.hosts[hosts[1 - end]].powered && self.open_at(hosts[0], hosts[1]) <= now;
        there && !flows.iter().any(|flow| flow.lost)
    }

    /// A frame is complete at the other end. Gives also whether a frame that was pending at this end is out now.
    pub(crate) fn on_arrive(
        &mut self,
        conn: ConnId,
        dir: usize,
        now: Time,
        queue: &mut Queue,
        rng: &mut Rng,
    ) -> (Arrival, bool) {
        let host = self.hosts[self.conns[conn].hosts[1 - dir]];
        let flow = &mut self.conns[conn].flows[dir];
        if flow.lost || !host.powered {
            return (Arrival::Nothing, false);
        }
        flow.unread += 1;
        if host.still > now { (Arrival::Nothing, false) } else { self.read(conn, dir, now, queue, rng) }
    }

    /// Reads a frame that has arrived.
    pub(crate) fn read(
        &mut self,
        conn: ConnId,
        dir: usize,
        now: Time,
        queue: &mut Queue,
        rng: &mut Rng,
    ) -> (Arrival, bool) {
        let Conn { flows, open, latency, .. } = &mut self.conns[conn];
        let flow = &mut flows[dir];
        if flow.unread == 0 {
            return (Arrival::Nothing, false);
        }
        let Some((frame, told)) = flow.flight.pop_front() else { return (Arrival::Nothing, false) };
        flow.unread -= 1;
        flow.used -= frame.wire_bytes();
        let arrival = if open[1 - dir] {
            Arrival::Frame(1 - dir, frame, told)
        } else {
            if open[dir] && !matches!(frame, Frame::Fin) {
                queue.push(now.after(*latency), Event::Reset(conn, dir));
            }
            Arrival::Nothing
        };
        self.pump(conn, dir, now, queue, rng);
        (arrival, self.take_pending(conn, dir, now, queue, rng))
    }

    /// Closes one end. `torn`: what the kernel has not sent yet is lost.
    pub(crate) fn close(&mut self, conn: ConnId, end: usize, torn: bool, now: Time, queue: &mut Queue, rng: &mut Rng) {
        if !core::mem::take(&mut self.conns[conn].open[end]) {
            return;
        }
        let established = self.conns[conn].established || end == CALLED;
        let flow = &mut self.conns[conn].flows[end];
        flow.pending = None;
        if torn {
            flow.queue.clear();
            flow.queued = 0;
        }
        if established {
            flow.queue.push_back(Frame::Fin);
            self.pump(conn, end, now, queue, rng);
        }
    }

    /// Closes the write side only: what waits goes out, then the end. What comes is still read.
    pub(crate) fn shut(&mut self, conn: ConnId, end: usize, now: Time, queue: &mut Queue, rng: &mut Rng) {
        let flow = &mut self.conns[conn].flows[end];
        flow.queue.push_back(Frame::Fin);
        self.pump(conn, end, now, queue, rng);
    }

    /// Nothing arrives any more in one direction of a connection; neither end is told.
    pub(crate) fn lose(&mut self, conn: ConnId, dir: usize) {
        self.conns[conn].flows[dir].lost = true;
    }

    /// Damages something that this end will send.
    pub(crate) fn damage(&mut self, conn: ConnId, end: usize, damage: Damage) {
        self.conns[conn].flows[end].damage = Some(damage);
    }

    /// The connections of a host, with the end that is its own.
    pub(crate) fn of_host(&mut self, host: HostNo) -> Vec<(ConnId, usize)> {
        let Self { conns, of_host, .. } = self;
        let end = |conn: &ConnId| usize::from(conns[*conn].hosts[CALLER] != host);
        of_host[host].retain(|conn| conns[*conn].open[end(conn)]);
        of_host[host].iter().map(|conn| (*conn, end(conn))).collect()
    }

    /// How many frames wait to be read at one end.
    pub(crate) fn unread(&self, conn: ConnId, end: usize) -> usize {
        self.conns[conn].flows[1 - end].unread
    }

    /// A host is without power: what it had on its way in its own buffers is gone, and nobody is told.
    pub(crate) fn power_off(&mut self, host: HostNo) {
        for (conn, end) in self.of_host(host) {
            let conn = &mut self.conns[conn];
            conn.open[end] = false;
            conn.flows[end].queue.clear();
            conn.flows[end].lost = true;
            conn.flows[1 - end].lost = true;
        }
        self.hosts[host].powered = false;
        self.hosts[host].listening = false;
    }
}
