//! One deployment on this node: the ring, the two connections and the disk around the machine that decides
//! (`slidecast_proto::run`).
//!
//! Payloads go from the upstream's socket into the ring, from there to the downstream's socket and to the engine, and their space is
//! free when the machine lets go of them.

mod compare;
mod disk;
mod links;
#[cfg(test)]
mod tests;

use crate::cli::Exit;
use crate::conn::Conn;
use crate::disk::{Engine, Stopping};
use crate::disks::follow_links;
use crate::event_loop::{DOWNSTREAM, UPSTREAM};
use crate::parts::Parts;
use crate::ring::{Ring, Span};
use crate::target::OpenTarget;
use compare::Compared;
use mio::event::Event;
use mio::{Registry, Waker};
use slidecast_net::text::os_error_text;
use slidecast_proto::control::{Disk, Join, Prepare, Ready, Refused, Side, ToServer};
use slidecast_proto::frame::Header;
use slidecast_proto::link::LinkFault;
use slidecast_proto::node::Candidate;
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::{EndState, Reason};
use slidecast_proto::run::{Run as Machine, RunAct, RunConfig, TURN};
use slidecast_proto::selector::{Selector, choose};
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use slidecast_proto::visit::Task;
use std::net::IpAddr;
use std::sync::Arc;

/// What a node brings to a deployment.
#[derive(Debug)]
pub(crate) struct Resources<'a> {
    /// What the server calls it.
    pub(crate) node: NodeId,
    pub(crate) disks: &'a [Disk],
    /// Its own `--target`.
    pub(crate) own: &'a Selector,
    /// How large its ring may be.
    pub(crate) ring: u64,
    /// The card on which its neighbours are; none: the routes say.
    pub(crate) card: Option<&'a str>,
    /// What wakes the net thread.
    pub(crate) waker: Arc<Waker>,
}

#[derive(Debug)]
pub(crate) struct Run {
    machine: Machine<Span>,
    ring: Ring,
    /// The target, until the engine has it.
    target: Option<OpenTarget>,
    engine: Option<Engine>,
    /// The disk has failed, and may not be closed yet.
    stopping: Option<Stopping>,
    /// How the comparison with the target's old content went.
    compared: Compared,
    parts: Option<Parts>,
    upstream: Option<Conn>,
    downstream: Option<Conn>,
    card: Option<String>,
    waker: Arc<Waker>,
}

impl Run {
    /// Finds the target that the order describes, opens it, and takes the memory that all will need.
    ///
    /// # Errors
    /// [`Refused`], for the server and for people.
    pub(crate) fn prepare(prepare: Prepare, resources: &Resources<'_>, now: Time) -> Result<(Self, Ready), Refused> {
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
        let facts = target.facts();
        let describe = describe(disk);
        let (size, target_path) = (Bytes(prepare.disk_bytes), &facts.path);
        log::info!("deployment {deployment}: {} ({size}) to {target_path} ({describe})", prepare.image);
        let config = RunConfig {
            node: resources.node,
            ring: ring.capacity() as u64,
            front: compare::front(&target, prepare.root),
            turn: TURN,
        };
        let machine = Machine::new(prepare, config, now);
        let ready = Ready {
            deployment,
            target: facts.path.clone(),
            describe,
            bytes: facts.bytes,
            rotational: facts.rotational,
            direct: facts.direct,
            comparable: machine.is_comparable(),
            ring: ring.capacity() as u64,
        };
        let run = Self {
            machine,
            ring,
            target: Some(target),
            engine: None,
            stopping: None,
            compared: Compared::default(),
            parts: None,
            upstream: None,
            downstream: None,
            card: resources.card.map(str::to_owned),
            waker: Arc::clone(&resources.waker),
        };
        Ok((run, ready))
    }

    /// How many blocks the image has, once the manifest is here.
    #[must_use]
    pub(crate) fn blocks(&self) -> Option<u32> {
        self.parts.as_ref().map(|parts| parts.header().blocks)
    }

    /// How it would end if it ended now.
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self.machine.ended() {
            Some(EndState::Done | EndState::Written) => Exit::Done,
            _ if self.machine.is_untouched() => Exit::NotStarted,
            _ => Exit::Failed,
        }
    }

    /// Lets go of everything. What is not complete stays marked.
    #[must_use]
    pub(crate) fn stop(self) -> Option<Stopping> {
        self.engine.map(Engine::stop).or(self.stopping)
    }

    /// Where the upstream calls from, if it is another node.
    #[must_use]
    pub(crate) fn upstream_address(&self) -> Option<IpAddr> {
        self.machine.upstream_address()
    }

    /// A caller said this first: whether it may be the upstream that was announced. `nonce` must be fresh random bytes.
    ///
    /// # Errors
    /// [`LinkFault`]: it is to be told so and hung up on.
    pub(crate) fn on_hello(
        &mut self,
        header: &Header,
        payload: &[u8],
        nonce: [u8; 16],
        now: Time,
    ) -> Result<Candidate, LinkFault> {
        self.machine.on_hello(header, payload, nonce, now)
    }

    /// A caller has proven that it is the upstream: its connection takes the place of the present one.
    pub(crate) fn on_proven(&mut self, mut conn: Conn, candidate: Candidate, registry: &Registry, now: Time) {
        if let Err(fault) = self.machine.on_proven(candidate) {
            log::debug!("upstream link: {fault}");
            return;
        }
        conn.reader().trust();
        match conn.reregister(registry, UPSTREAM) {
            Ok(()) => self.upstream = Some(conn),
            Err(error) => self.machine.on_lost(Side::Upstream, &LinkFault::Broken(os_error_text(&error)), now),
        }
    }

    /// Takes note of what the kernel says of one of the two connections.
    pub(crate) fn on_event(&mut self, event: &Event) {
        match event.token() {
            UPSTREAM => self.upstream.iter_mut().for_each(|conn| conn.on_event(event)),
            DOWNSTREAM => self.downstream.iter_mut().for_each(|conn| conn.on_event(event)),
            _ => {}
        }
    }

    /// Moves everything as far as it goes now.
    pub(crate) fn advance(&mut self, registry: &Registry, now: Time) {
        self.carry_out(registry, now);
        self.hear_disk();
        self.hear_dialed(now);
        self.upstream.iter_mut().for_each(|conn| conn.look_again(now));
        self.receive(Side::Upstream, registry, now);
        self.receive(Side::Downstream, registry, now);
        self.machine.on_time(now);
        loop {
            self.carry_out(registry, now);
            let moved = self.transmit(Side::Upstream, now) | self.transmit(Side::Downstream, now);
            if !self.machine.goes_on(moved) {
                break;
            }
        }
        let written = self.engine.as_ref().map_or(0, Engine::written_bytes);
        self.machine.report(written, now);
    }

    /// When [`Run::advance`] must be called at the latest.
    #[must_use]
    pub(crate) fn deadline(&self) -> Time {
        let mut connections = self.upstream.iter().chain(&self.downstream);
        if connections.any(Conn::can_receive) { Time::default() } else { self.machine.deadline() }
    }

    /// Does what the machine asks for: after an order, before anything else is brought to it.
    pub(crate) fn carry_out(&mut self, registry: &Registry, now: Time) {
        loop {
            let (upstream, downstream) = (&self.upstream, &self.downstream);
            let acknowledged = |side: Side, within| {
                let conn = if side == Side::Upstream { upstream } else { downstream };
                conn.as_ref().and_then(|conn| conn.is_acknowledged(within))
            };
            let Some(act) = self.machine.poll(acknowledged, now) else { return };
            match act {
                RunAct::Dial(address) => self.dial(address, registry, now),
                RunAct::Hangup(side, fault) => {
                    if let Some(fault) = fault {
                        log::debug!("{side} link: {fault}");
                    }
                    *self.conn(side) = None;
                }
                RunAct::Trust(side) => self.conn(side).iter_mut().for_each(|conn| conn.reader().trust()),
                RunAct::UseManifest(bytes) => self.use_manifest(&bytes, now),
                RunAct::StartDisk => self.start_disk(),
                RunAct::UsePart(no, bytes, of) => self.use_part(no, &bytes, of, now),
                RunAct::Compare { no, bytes, sampled } => self.compare(no, &bytes, sampled),
                RunAct::BeginDisk => self.begin_disk(),
                RunAct::Write(header, payload) => self.write(&header, payload),
                RunAct::FinishDisk => {
                    self.compared.end();
                    self.engine.iter().for_each(Engine::finish);
                }
                RunAct::StopDisk => self.stopping = self.engine.take().map(Engine::stop),
                RunAct::Settled(blocks) => self.parts.iter_mut().for_each(|parts| parts.settle(&blocks)),
            }
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
        let downstream = join.downstream.as_ref().map_or("nobody".to_owned(), |spec| format!("node {}", spec.node));
        let upstream = match join.upstream.node {
            NodeId::SERVER => "the server".to_owned(),
            node => format!("node {node}"),
        };
        let Join { position, chain_len, chain, epoch, pass, .. } = join;
        log::debug!("chain {chain}, epoch {epoch}, pass {pass}");
        log::info!("position {position} of {chain_len}: from {upstream}, on to {downstream}");
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

/// A disk in one line, for people; its path is told beside it.
fn describe(disk: &Disk) -> String {
    let what = [disk.model.trim(), disk.serial.trim(), disk.transport.as_str()];
    let size = Bytes(disk.bytes).to_string();
    let others = disk.other_paths.join(" and ");
    let also = if others.is_empty() { String::new() } else { format!("(also {others})") };
    let words = what.into_iter().chain([size.as_str(), also.as_str()]).filter(|word| !word.is_empty());
    words.collect::<Vec<&str>>().join(" ")
}
