//! One agent: what `agent/src/agent.rs` and `agent/src/control.rs` do around a deployment, in virtual time.
//!
//! Left out: discovery (the server's address is known), the Noise handshake, log lines, signals.

use crate::core::Core;
use crate::disk::{DiskPlan, Platter};
use crate::network::{CALLER, ConnId, Frame, HostNo, SERVER};
use crate::queue::{DiskOp, Event};
use crate::run::Run;
use slidecast_proto::control::{
    Card, HOLD, Hello, Join, LinkEvent, LinkState, Prepare, Ready, Side, ToAgent, ToServer,
};
use slidecast_proto::plan::CardId;
use slidecast_proto::reason::Reason;
use slidecast_proto::units::{NodeId, Time};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The constants of `agent/src/agent.rs` and `agent/src/control.rs`.
const PATIENCE: Duration = HOLD;
const RECONNECT: Duration = Duration::from_millis(250);
const BEAT: Duration = Duration::from_millis(250);
const SILENT: Duration = Duration::from_secs(4);
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The pause between two searches.
const SEARCH: Duration = Duration::from_secs(1);
/// The most that may wait for a server that does not read, in bytes.
const BACKLOG: u64 = 1 << 20;
/// The port on which chain links are taken.
pub const LINK_PORT: u16 = 4000;
/// The time that is never.
const NEVER: Time = Time(u64::MAX);

/// The agent's end of the control link.
#[derive(Debug)]
struct Control {
    conn: ConnId,
    open: bool,
    opened: Time,
    heard: Time,
    said: Time,
}

/// What is wrong with an agent that runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    /// It never says how far it is.
    pub mute: bool,
    /// It gives no credit.
    pub stuck: bool,
    /// It says so many times more that its downstream link broke, which is not so.
    pub false_downs: u32,
    /// When it says so next.
    pub false_at: Time,
}

/// One agent and its node.
#[derive(Debug)]
pub struct Agent {
    index: usize,
    card: u32,
    mbits: u32,
    ring: u64,
    /// Counts processes and runs, so that what was meant for an older one is dropped.
    runs: u64,
    boot: [u8; 16],
    alive: bool,
    control: Option<Control>,
    greeted: bool,
    lost: Option<Time>,
    call_at: Time,
    node: NodeId,
    /// The deployment that it has part in.
    pub run: Option<Run>,
    /// Its disk.
    pub platter: Platter,
    /// What is wrong with it.
    pub quirks: Quirks,
    /// The last orders, for faults.
    joins: Vec<Join>,
    timer: Time,
}

impl Agent {
    /// A node without power.
    #[must_use]
    pub fn new(index: usize, card: u32, mbits: u32, ring: u64, blocks: u32, disk: DiskPlan) -> Self {
        Self {
            index,
            card,
            mbits,
            ring,
            runs: 0,
            boot: [0; 16],
            alive: false,
            control: None,
            greeted: false,
            lost: None,
            call_at: Time(0),
            node: NodeId(0),
            run: None,
            platter: Platter::new(blocks, disk),
            quirks: Quirks::default(),
            joins: Vec::new(),
            timer: NEVER,
        }
    }

    /// Its host.
    #[must_use]
    pub fn host(&self) -> HostNo {
        self.index + 1
    }

    /// Whether its process runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// The connection to the server.
    #[must_use]
    pub fn control_conn(&self) -> Option<ConnId> {
        self.control.as_ref().map(|control| control.conn)
    }

    /// The address of an agent.
    #[must_use]
    pub fn address(index: usize) -> IpAddr {
        let bytes = u32::try_from(index + 1).unwrap_or(0).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, bytes[1], bytes[2], bytes[3]))
    }

    /// The agent that has this address.
    #[must_use]
    pub fn at(address: IpAddr) -> Option<usize> {
        let IpAddr::V4(address) = address else { return None };
        let [_, a, b, c] = address.octets();
        usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?.checked_sub(1)
    }

    /// The name of the server's card that it hangs on.
    #[must_use]
    pub fn card(&self) -> CardId {
        CardId(format!("eth{}", self.card))
    }

    /// Its process begins.
    pub fn boot(&mut self, core: &mut Core) {
        if self.alive {
            return;
        }
        core.note(format_args!("agent {}: starts", self.index));
        let host = &mut core.network.hosts[self.index + 1];
        (host.powered, host.listening) = (true, true);
        self.runs += 1;
        self.alive = true;
        self.boot = core.rng.bytes();
        self.boot[..4].copy_from_slice(&u32::try_from(self.index).unwrap_or(u32::MAX).to_le_bytes());
        self.call(core);
        self.advance(core);
    }

    /// Its process is no more. With `power`, its kernel neither.
    pub fn die(&mut self, core: &mut Core, power: bool) {
        if !self.alive {
            return;
        }
        core.note(format_args!("agent {}: {}", self.index, if power { "loses its power" } else { "is killed" }));
        let host = self.host();
        if power {
            core.network.power_off(host);
            self.platter.power_cut();
        } else {
            core.network.hosts[host].listening = false;
            for (conn, end) in core.network.of_host(host) {
                core.close(conn, end);
            }
        }
        core.network.hosts[host].still = Time(0);
        self.alive = false;
        self.runs += 1;
        (self.control, self.run, self.greeted, self.lost) = (None, None, false, None);
        self.joins.clear();
        self.timer = NEVER;
    }

    fn call(&mut self, core: &mut Core) {
        let conn = core.connect(self.host(), SERVER);
        let now = core.now;
        self.control = Some(Control { conn, open: false, opened: now, heard: now, said: now });
    }

    /// A call of its own was answered.
    pub fn on_called(&mut self, conn: ConnId, accepted: bool, core: &mut Core) {
        if let Some(control) = self.control.as_mut().filter(|control| control.conn == conn) {
            (control.open, control.heard) = (accepted, core.now);
            if !accepted {
                self.on_lost("no connection", core);
            }
        } else if let Some(run) = &mut self.run {
            run.on_called(conn, accepted, core);
        }
        self.advance(core);
    }

    /// A connection is gone.
    pub fn on_closed(&mut self, conn: ConnId, why: &str, core: &mut Core) {
        if self.control_conn() == Some(conn) {
            self.on_lost(why, core);
        } else if let Some(run) = &mut self.run {
            run.on_closed(conn, why, core);
        }
        self.advance(core);
    }

    /// A frame came.
    pub fn on_frame(&mut self, conn: ConnId, frame: Frame, told: bool, core: &mut Core) {
        if let Frame::Message(bytes) = &frame {
            if let Some(control) = self.control.as_mut().filter(|control| control.conn == conn) {
                control.heard = core.now;
                match ToAgent::parse(bytes) {
                    Ok(order) => self.obey(order, core),
                    Err(error) => core.checker.fail(format!("agent {}: an order does not parse: {error}", self.index)),
                }
            }
        } else if let Some(run) = &mut self.run {
            run.on_frame(conn, frame, told, core);
        } else {
            let end = usize::from(core.network.conn(conn).hosts[CALLER] != self.host());
            core.start(conn, end, Frame::Whole(refuse("no deployment here")));
            core.close(conn, end);
        }
        self.advance(core);
    }

    /// The header of a block came.
    pub fn on_head(&mut self, conn: ConnId, head: &[u8; 48], core: &mut Core) {
        if let Some(run) = &mut self.run {
            run.on_head(conn, head, core);
        }
        self.advance(core);
    }

    /// Some bytes came.
    pub fn on_trickle(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(run) = &mut self.run {
            run.on_trickle(conn, core);
        }
        self.advance(core);
    }

    /// A frame that waited is out.
    pub fn on_out(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(run) = &mut self.run {
            run.on_out(conn, core);
        }
        self.advance(core);
    }

    /// The disk has done something.
    pub fn on_disk(&mut self, number: u64, op: DiskOp, core: &mut Core) {
        if let Some(run) = self.run.as_mut().filter(|run| run.number() == number) {
            run.on_disk(op, &mut self.platter, core);
            self.advance(core);
        }
    }

    /// It wanted to be woken.
    pub fn on_timer(&mut self, core: &mut Core) {
        if self.timer <= core.now {
            self.timer = NEVER;
            self.advance(core);
        }
    }

    /// An order that was given before comes once more.
    pub fn stale_order(&mut self, core: &mut Core) {
        if let Some(join) = self.joins.first().cloned() {
            core.note(format_args!("agent {}: an old order comes again", self.index));
            self.obey(ToAgent::Join(join), core);
            self.advance(core);
        }
    }

    fn obey(&mut self, order: ToAgent, core: &mut Core) {
        if !matches!(order, ToAgent::Heartbeat) {
            core.note(format_args!("agent {}: obeys {}", self.index, short(&order)));
        }
        match order {
            ToAgent::Welcome(welcome) => self.node = welcome.node,
            ToAgent::Prepare(prepare) => self.prepare(prepare, core),
            ToAgent::Join(join) => {
                if let Some(run) = self.run.as_mut().filter(|run| run.deployment() == join.deployment) {
                    if self.joins.last() != Some(&join) {
                        self.joins.push(join.clone());
                    }
                    run.on_join(&join, core);
                }
            }
            ToAgent::Heartbeat | ToAgent::Notice(_) | ToAgent::NotApproved(_) | ToAgent::ApprovalShare(_) => {}
            ToAgent::Finish(_) | ToAgent::Abort(_) => {
                self.report(core);
                self.drop_run(core);
            }
        }
    }

    fn drop_run(&mut self, core: &mut Core) {
        if let Some(run) = self.run.take() {
            run.stop(core);
        }
        self.joins.clear();
    }

    fn prepare(&mut self, prepare: Prepare, core: &mut Core) {
        self.drop_run(core);
        self.runs += 1;
        let ready = Ready {
            deployment: prepare.deployment,
            target: "/dev/sda".to_owned(),
            describe: String::new(),
            bytes: prepare.disk_bytes,
            rotational: false,
            direct: true,
            comparable: false,
            ring: self.ring,
        };
        self.run = Some(Run::new(self.index, self.runs, self.node, prepare, self.ring, core.now));
        self.say(&ToServer::Ready(ready), core);
    }

    fn say(&mut self, message: &ToServer, core: &mut Core) {
        let Some(control) = &mut self.control else { return };
        if core.network.backlog(control.conn, CALLER) > BACKLOG {
            return self.on_lost("send backlog full: the server is not reading", core);
        }
        if control.open {
            control.said = core.now;
            core.start(control.conn, CALLER, Frame::Message(message.encode()));
        }
    }

    fn on_lost(&mut self, why: &str, core: &mut Core) {
        let Some(control) = self.control.take() else { return };
        core.note(format_args!("agent {}: loses the server: {why}", self.index));
        core.close(control.conn, CALLER);
        self.greeted = false;
        self.call_at = core.now.after(RECONNECT);
        self.lost.get_or_insert(core.now);
    }

    fn hello(&self) -> ToServer {
        let card = Card {
            name: "eth0".to_owned(),
            mac: [2; 6],
            addresses: vec![Self::address(self.index)],
            mbits: self.mbits,
            up: true,
        };
        ToServer::Hello(Hello {
            agent_version: "0".to_owned(),
            hostname: String::new(),
            boot: self.boot,
            ram_bytes: 1 << 30,
            cards: vec![card],
            disks: Vec::new(),
            link_port: LINK_PORT,
            target: String::new(),
        })
    }

    fn report(&mut self, core: &mut Core) {
        while self.greeted
            && let Some(message) = self.run.as_mut().and_then(Run::poll_message)
        {
            if self.quirks.mute && matches!(message, ToServer::Progress(_)) {
                continue;
            }
            core.checker.on_message(self.index, &message, &self.platter, &core.image);
            if !matches!(message, ToServer::Progress(_)) {
                core.note(format_args!("agent {}: says {message:?}", self.index));
            }
            self.say(&message, core);
        }
    }

    /// Says that the downstream link broke, if it is one that says so though it is not so.
    fn complain(&mut self, core: &mut Core) {
        let Some(join) = self.joins.last().filter(|_| self.greeted && self.quirks.false_downs > 0) else { return };
        let (Some(down), true) = (&join.downstream, self.quirks.false_at <= core.now) else { return };
        let event = LinkEvent {
            deployment: join.deployment,
            epoch: join.epoch,
            peer: down.node,
            side: Side::Downstream,
            state: LinkState::Down,
            reason: Reason::DownstreamLost,
            detail: "connection reset (it was not)".to_owned(),
        };
        self.quirks.false_downs -= 1;
        self.quirks.false_at = core.now.after(Duration::from_millis(100));
        core.note(format_args!("agent {}: says falsely {event:?}", self.index));
        self.say(&ToServer::Link(event), core);
    }

    /// One turn of the loop.
    pub fn advance(&mut self, core: &mut Core) {
        if !self.alive {
            return;
        }
        let now = core.now;
        if let Some(control) = &self.control {
            let late =
                if control.open { now.since(control.heard) >= SILENT } else { now.since(control.opened) >= HANDSHAKE };
            if late {
                self.on_lost("silent", core);
            }
        }
        if !self.greeted && self.control.as_ref().is_some_and(|control| control.open) {
            let back = self.lost.take().is_some();
            self.greeted = true;
            let hello = self.hello();
            self.say(&hello, core);
            if back && let Some(run) = &mut self.run {
                run.on_server_back();
            }
        }
        if let Some(since) = self.lost {
            let joined = self.run.as_ref().is_some_and(Run::is_joined);
            let given_up = joined && now.since(since) >= PATIENCE;
            if given_up && let Some(run) = &mut self.run {
                core.note(format_args!("agent {}: gives up", self.index));
                run.fail(Reason::ServerLost, "the server is gone", core);
            }
            if given_up || !joined {
                self.drop_run(core);
                self.lost = None;
                self.call_at = now.after(SEARCH);
            }
        }
        if self.control.is_none() && self.call_at <= now {
            self.call_at = now.after(RECONNECT);
            self.call(core);
        }
        if let Some(run) = &mut self.run {
            run.stuck = self.quirks.stuck;
            run.advance(&mut self.platter, core);
        }
        self.complain(core);
        self.report(core);
        if let Some(control) = &self.control
            && control.open
            && now.since(control.said) >= BEAT
        {
            self.say(&ToServer::Heartbeat, core);
        }
        self.sleep(core);
    }

    fn sleep(&mut self, core: &mut Core) {
        let mut deadline = match &self.control {
            None => self.call_at,
            Some(control) if control.open => control.said.after(BEAT).min(control.heard.after(SILENT)),
            Some(control) => control.opened.after(HANDSHAKE),
        };
        if let Some(since) = self.lost {
            deadline = deadline.min(since.after(PATIENCE));
        }
        if let Some(run) = &self.run {
            deadline = deadline.min(run.deadline());
        }
        // A turn takes its time, too: a loop that always has something to do must not stop the clock.
        let deadline = deadline.max(core.now.after(Duration::from_micros(50)));
        if deadline < self.timer {
            self.timer = deadline;
            core.wake(deadline, Event::Agent(self.index));
        }
    }
}

/// A Refuse frame of a node that has no deployment.
fn refuse(why: &str) -> Vec<u8> {
    slidecast_proto::link::refusal(crate::world::DEPLOYMENT, why)
}

fn short(order: &ToAgent) -> String {
    match order {
        ToAgent::Join(join) => {
            let down = join.downstream.as_ref().map(|spec| spec.node.0);
            let Join { epoch, pass, chain, position, chain_len, upstream, .. } = join;
            format!(
                "join {:#x} pass {pass} chain {chain} {position}/{chain_len} from {} to {down:?}",
                epoch.0, upstream.node
            )
        }
        ToAgent::Prepare(_) => "prepare".to_owned(),
        other => format!("{other:?}"),
    }
}
