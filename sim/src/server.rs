//! The server: the control links, feeds and the state folder around the fleet and one deployment, in virtual time.
//!
//! Left out: discovery, strangers, screens, the report.

use crate::core::Core;
use crate::feed::Feed;
use crate::network::{CALLED, ConnId, Frame, SERVER, address_of};
use crate::queue::Event;
use crate::scenario::Kill;
use crate::state::StateFolder;
use slidecast_proto::approval::Caller;
use slidecast_proto::control::{ToAgent, ToServer};
use slidecast_proto::deployment::{Deployment, DeploymentConfig, FeedEvent, Stage};
use slidecast_proto::fleet::Wanted;
use slidecast_proto::hosting::{Host, HostAct, Hosted, HostedAct};
use slidecast_proto::plan::CardId;
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most that may wait for an agent that does not read, in bytes.
const BACKLOG: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Server {
    host: Host,
    config: DeploymentConfig,
    folder: StateFolder,
    /// Its process does not run.
    down: bool,
    /// Who is at the other end of each control link.
    links: BTreeMap<ConnId, Option<NodeId>>,
    nodes: BTreeMap<NodeId, ConnId>,
    /// The feeds by serial number.
    feeds: BTreeMap<u64, Feed>,
    timer: Time,
    /// The chains of the plan.
    plan: Vec<Vec<NodeId>>,
    /// It is killed when it has let a node go.
    pub(crate) kill: Option<Kill>,
    /// Since when all is over.
    pub(crate) over: Option<Time>,
    /// Frames with blocks that feeds have sent.
    pub(crate) blocks_sent: u64,
    /// Bytes that feeds have sent.
    pub(crate) egress: u64,
}

/// One deployment that gets every agent.
fn host_of(config: &DeploymentConfig, now: Time) -> Host {
    let mut host = Host::new(config.version.clone(), now);
    host.open(config.prepare.deployment, Hosted::new(config.clone(), now), Wanted::Everyone, now);
    host
}

impl Server {
    /// A server that waits for its nodes.
    pub(crate) fn new(config: DeploymentConfig, seed: u64, state_write: Duration, now: Time) -> Self {
        Self {
            host: host_of(&config, now),
            config,
            folder: StateFolder::new(seed, state_write),
            down: false,
            links: BTreeMap::new(),
            nodes: BTreeMap::new(),
            feeds: BTreeMap::new(),
            timer: Time(u64::MAX),
            plan: Vec::new(),
            kill: None,
            over: None,
            blocks_sent: 0,
            egress: 0,
        }
    }

    /// Another process begins another deployment.
    pub(crate) fn begin_again(&mut self, config: DeploymentConfig, seed: u64, state_write: Duration, now: Time) {
        let Self { blocks_sent, egress, .. } = *self;
        let folder = self.folder.renew(seed, state_write);
        *self = Self { blocks_sent, egress, folder, ..Self::new(config, seed, state_write, now) };
    }

    /// The chains as they were planned.
    pub(crate) fn plan(&self) -> &[Vec<NodeId>] {
        &self.plan
    }

    /// What is known of the deployment.
    pub(crate) fn machine(&self) -> &Deployment {
        self.hosted().deployment()
    }

    fn hosted(&self) -> &Hosted {
        self.host.get(self.id()).expect("there is one deployment, until the server is another one")
    }

    fn hosted_mut(&mut self) -> &mut Hosted {
        let id = self.id();
        self.host.get_mut(id).expect("there is one deployment, until the server is another one")
    }

    fn id(&self) -> DeploymentId {
        self.config.prepare.deployment
    }

    fn feed_of(&mut self, conn: ConnId) -> Option<&mut Feed> {
        self.feeds.values_mut().find(|feed| feed.conn() == Some(conn))
    }

    /// A frame came. `card` is the card on which its sender hangs.
    pub(crate) fn on_frame(&mut self, conn: ConnId, frame: Frame, card: CardId, core: &mut Core) {
        if let Frame::Message(bytes) = &frame {
            match ToServer::parse(bytes) {
                Ok(message) => self.on_message(conn, message, card, core),
                Err(error) => core.checker.fail(format!("a message does not parse: {error}")),
            }
        } else if let Some(feed) = self.feed_of(conn) {
            feed.on_frame(frame, core);
            let serial = feed.serial();
            self.on_feed(serial, core);
        }
        self.turn(core);
    }

    fn on_message(&mut self, conn: ConnId, message: ToServer, card: CardId, core: &mut Core) {
        let now = core.now;
        match (self.links.get(&conn).copied().flatten(), message) {
            (None, ToServer::Hello(hello)) => {
                if self.over.is_some() {
                    return core.close(conn, CALLED);
                }
                let index = u32::from_le_bytes(*hello.boot.first_chunk().unwrap_or(&[0; 4])) as usize;
                let address = address_of(index + 1);
                let caller = Caller { hello, key: None, handshake: [0; 32], address, card };
                let node = match self.host.on_agent(caller, now) {
                    Ok(node) => node,
                    Err(refused) => return core.checker.fail(format!("agent {index} is refused: {refused}")),
                };
                core.note(format_args!("server: agent {index} is node {node}"));
                core.checker.on_node(node, index);
                self.links.insert(conn, Some(node));
                if let Some(old) = self.nodes.insert(node, conn).filter(|old| *old != conn) {
                    self.links.remove(&old);
                    core.close(old, CALLED);
                }
            }
            (Some(node), message) if self.over.is_none() => {
                if let ToServer::Ended(ended) = &message {
                    core.note(format_args!("server: node {node} has ended: {} {}", ended.state, ended.reason));
                }
                self.host.on_message(node, message, now);
            }
            _ => {}
        }
    }

    /// A call of its own was answered.
    pub(crate) fn on_called(&mut self, conn: ConnId, accepted: bool, core: &mut Core) {
        match self.feed_of(conn) {
            Some(feed) => {
                feed.on_called(accepted, core);
                let serial = feed.serial();
                self.on_feed(serial, core);
            }
            None => core.close(conn, 0),
        }
        self.turn(core);
    }

    pub(crate) fn on_closed(&mut self, conn: ConnId, why: &str, core: &mut Core) {
        if let Some(standing) = self.links.remove(&conn) {
            core.close(conn, CALLED);
            self.gone(standing, why, core);
        } else if let Some(feed) = self.feed_of(conn) {
            feed.on_closed(why, core);
            let serial = feed.serial();
            self.on_feed(serial, core);
        } else {
            core.close(conn, usize::from(core.network.conn(conn).hosts[0] != SERVER));
        }
        self.turn(core);
    }

    fn gone(&mut self, node: Option<NodeId>, why: &str, core: &mut Core) {
        if let Some(node) = node {
            core.note(format_args!("server: the control link of node {node} is gone: {why}"));
            self.nodes.remove(&node);
            self.host.on_gone(node, why, core.now);
        }
    }

    /// Hangs up on an agent that takes part in nothing any more.
    fn part(&mut self, node: NodeId, core: &mut Core) {
        if let Some(conn) = self.nodes.remove(&node) {
            self.links.remove(&conn);
            core.network.shut(conn, CALLED, core.now, &mut core.queue, &mut core.rng);
        }
    }

    /// A frame that waited is out.
    pub(crate) fn on_out(&mut self, conn: ConnId, core: &mut Core) {
        if let Some(feed) = self.feed_of(conn) {
            feed.on_out(core);
            let serial = feed.serial();
            self.on_feed_timer(serial, core);
        }
    }

    /// A feed wanted to be woken.
    pub(crate) fn on_feed_timer(&mut self, serial: u64, core: &mut Core) {
        let Some(feed) = self.feeds.get_mut(&serial) else { return };
        feed.turn(core);
        self.on_feed(serial, core);
        self.turn(core);
    }

    /// Tells the deployment what happened on a feed.
    fn on_feed(&mut self, serial: u64, core: &mut Core) {
        loop {
            let Some(feed) = self.feeds.get_mut(&serial) else { return };
            let (blocks, bytes) = feed.take_sent();
            self.blocks_sent += blocks;
            self.egress += bytes;
            let Some(event) = feed.poll_event() else { return };
            if let FeedEvent::Down { detail: why, .. } = &event {
                core.note(format_args!("server: feed {serial} is down: {why}"));
            }
            self.hosted_mut().on_feed(serial, event, core.now);
        }
    }

    /// It wanted to be woken.
    pub(crate) fn on_timer(&mut self, core: &mut Core) {
        if !self.down && self.timer <= core.now {
            self.timer = Time(u64::MAX);
            self.turn(core);
        }
    }

    /// Its process is killed; it is started again after `span`.
    pub(crate) fn crash(&mut self, span: Duration, told: bool, core: &mut Core) {
        if self.down || !self.has_begun() || self.over.is_some() {
            return;
        }
        core.note(format_args!("server: is killed"));
        self.down = true;
        core.network.hosts[SERVER].listening = false;
        for (conn, end) in core.network.of_host(SERVER) {
            core.close(conn, end);
        }
        self.links.clear();
        self.nodes.clear();
        self.feeds.clear();
        self.folder.on_killed();
        core.queue.push(core.now.after(span), Event::Restart(told));
    }

    pub(crate) fn restart(&mut self, told: bool, core: &mut Core) {
        core.note(format_args!("server: starts again"));
        core.checker.on_restart();
        self.down = false;
        self.timer = Time(u64::MAX);
        core.network.hosts[SERVER].listening = true;
        self.config.secret = core.rng.bytes();
        let id = self.id();
        let mut hosted = Hosted::new(self.config.clone(), core.now);
        self.host = Host::new(self.config.version.clone(), core.now);
        if let Some(saved) = self.folder.kept() {
            self.host.expect_back(id, saved.last_id, saved.nodes.iter().map(|node| (node.id, node.boot, None)));
            hosted.deployment_mut().expect_back(*saved, told, core.now);
        }
        self.host.open(id, hosted, Wanted::Everyone, core.now);
        self.turn(core);
    }

    pub(crate) fn stop(&mut self, core: &mut Core) {
        if self.down {
            return;
        }
        self.hosted_mut().deployment_mut().on_stop(core.now);
        self.turn(core);
    }

    /// The state folder has written something.
    pub(crate) fn on_written(&mut self, serial: u64, core: &mut Core) {
        if let Some((number, next)) = self.folder.on_written(serial) {
            next.into_iter().for_each(|(serial, after)| core.wake(core.now.after(after), Event::Written(serial)));
            self.hosted_mut().on_kept(number);
            self.turn(core);
        }
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self, core: &mut Core) {
        if self.down {
            return;
        }
        if self.over.is_none() {
            self.host.on_time(core.now);
        }
        while let Some(act) = self.host.poll(core.now) {
            match act {
                HostAct::Send(node, order) => self.send(node, &order, core),
                HostAct::Of(_, act) => self.carry_out(act, core),
                HostAct::Part(node) | HostAct::Silent(node) => self.part(node, core),
                HostAct::NotTaken(_, node, full) => core.checker.fail(format!("node {node} is not taken: {full}")),
                HostAct::Machine(_) | HostAct::Contested(_) | HostAct::Settled(_) => {}
            }
        }
        let deadline = self.host.deadline().unwrap_or(Time(u64::MAX));
        if self.over.is_none() && deadline < self.timer {
            self.timer = deadline;
            core.wake(deadline, Event::Server);
        }
    }

    fn send(&mut self, node: NodeId, order: &ToAgent, core: &mut Core) {
        core.checker.on_order(node, order, self.machine());
        let Some(conn) = self.nodes.get(&node).copied() else { return };
        if core.network.backlog(conn, CALLED) > BACKLOG {
            self.links.remove(&conn);
            core.close(conn, CALLED);
            return self.gone(Some(node), "send backlog full: the agent is not reading", core);
        }
        core.start(conn, CALLED, Frame::Message(order.encode()));
        if matches!(order, ToAgent::Finish(_))
            && let Some(Kill { after, back: (span, told) }) = self.kill.take()
        {
            core.wake(core.now.after(after), Event::Kill(span, told));
        }
    }

    fn carry_out(&mut self, act: HostedAct, core: &mut Core) {
        match act {
            HostedAct::Keep { number, saved, .. } => {
                let written = self.folder.keep(number, saved);
                written
                    .into_iter()
                    .for_each(|(serial, after)| core.wake(core.now.after(after), Event::Written(serial)));
            }
            HostedAct::StartFeed { serial, chain, order } => {
                let (head, blocks) = (order.terms.to, order.blocks.count());
                core.note(format_args!("server: feed {serial} of chain {chain}: node {head}, {blocks} blocks"));
                self.feeds.insert(serial, Feed::start(serial, *order, core));
            }
            HostedAct::StopFeed(serial) => self.feeds.remove(&serial).into_iter().for_each(|feed| feed.stop(core)),
            HostedAct::CheckBlock(block) => {
                let bad = core.image.rotten == Some(block.0);
                self.hosted_mut().on_checked(block, bad.then_some("a rotten block"), core.now);
            }
            HostedAct::Note(text) => core.note(format_args!("server: {text}")),
            HostedAct::Resumed => core.note(format_args!("server: goes on")),
            HostedAct::PlanFixed(plan) => {
                core.note(format_args!("server: the plan is fixed: {:?}", plan.chains));
                self.plan = plan.chains.into_iter().map(|chain| chain.nodes).collect();
            }
            HostedAct::RemoveState => self.folder.remove(),
            HostedAct::NodeChanged(_) | HostedAct::Replaced { .. } => {}
            HostedAct::Send(..) | HostedAct::Forgotten(_) => {}
            HostedAct::Over => {
                core.note(format_args!("server: all is over: {:?}", self.machine().stage()));
                self.over = Some(core.now);
                self.nodes.clear();
                for conn in std::mem::take(&mut self.links).into_keys() {
                    core.network.shut(conn, CALLED, core.now, &mut core.queue, &mut core.rng);
                }
                core.network.hosts[SERVER].listening = false;
            }
        }
    }

    /// Whether its plan was fixed: before that there is nothing to go on with.
    fn has_begun(&self) -> bool {
        matches!(self.machine().stage(), Stage::Running | Stage::Over { started: true, .. })
    }
}
