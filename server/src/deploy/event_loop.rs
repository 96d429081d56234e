//! The loop of a deployment: sockets, feeds, signals and the clock on one side, the [`Deployment`] machine on the other.
//! It carries; the machine decides.

use super::News;
use super::answer::Answerer;
use super::checker::Checker;
use super::gate::{Admitted, Gate, GateDeed};
use super::holding::{Holding, Wait};
use super::link::{Broken, ControlLink, Standing};
use super::log_limit::{LogLimit, Said};
use super::signals::Signals;
use super::state::{Keeper, Keys};
use crate::boot::Through;
use crate::feed::{Feed, FeedContext};
use crate::nic::Nics;
use crate::progress::Progress;
use crate::shown::shown;
use crate::view::{Snapshot, Tracker};
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slidecast_proto::approval::{Boot, Caller};
use slidecast_proto::control::{Abort, Hello, LogLine, ToAgent, ToServer};
use slidecast_proto::deployment::{Deployment, DeploymentEvent, Stage};
use slidecast_proto::door::{Admission, Door, Place};
use slidecast_proto::feed::{FeedEvent, FeedOrder};
use slidecast_proto::noise::{Channel, ChannelError, Mode, SecretKey};
use slidecast_proto::plan::{CardId, Plan};
use slidecast_proto::reason::{EndState, Reason};
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Bounds on callers that have not said hello: whatever they do, they hold a few sockets for a few seconds and nothing else.
const DOOR: Door = Door { places: 64, per_address: 2, reserved: 0, newest_wins: false };
/// How many callers at a time are told that there is no place for them; then the oldest is not told any more.
const TURNED_AWAY: usize = 16;
/// How long a caller may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(3);
/// How many callers are let in before everybody else has a turn.
const CALLERS: usize = 32;
/// How often a change may be shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);
/// How often it is shown that nothing changed.
const SHOW_AT_LEAST: Duration = Duration::from_secs(1);
/// How often the state of a running deployment is kept although nothing happened: it tells when the server was alive.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// How long the end waits for agents to take their last orders.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long to leave callers waiting when the system has no room for them.
const NO_ROOM: Duration = Duration::from_millis(200);
/// Addresses whose mismatches were told of; beyond that they are left untold.
const MAX_TOLD: usize = 256;

pub(super) const LISTENER: Token = Token(0);
pub(super) const DISCOVERY: Token = Token(1);
pub(super) const SIGNALS: Token = Token(2);
pub(super) const WAKE: Token = Token(3);
const FIRST_LINK: usize = 16;

/// What the loop is given.
pub(super) struct Parts {
    pub(super) poll: Poll,
    pub(super) listener: TcpListener,
    pub(super) answerer: Answerer,
    pub(super) signals: Signals,
    pub(super) news: Receiver<News>,
    pub(super) checker: Checker,
    pub(super) nics: Nics,
    pub(super) secret: Option<SecretKey>,
    pub(super) context: Arc<FeedContext>,
    pub(super) progress: Progress,
    pub(super) deployment: Deployment,
    pub(super) id: DeploymentId,
    /// The highest number of a node.
    pub(super) last_id: u32,
    /// Who waits for approval.
    pub(super) gate: Gate,
    /// The plan, once it is fixed.
    pub(super) plan: Plan,
    /// Of the last agent that was not let in: where it is and why.
    pub(super) turned_away: Option<String>,
    /// Nodes that need not boot the agent again.
    pub(super) through: Arc<Through>,
    /// The key of each run of an agent, so that nobody else continues it.
    pub(super) keys: Keys,
    /// Keeps what another run of the server needs to go on; nothing if there is no place for it.
    pub(super) keeper: Option<Keeper>,
    /// What the run of the server before this one sent, which counts if its deployment goes on.
    pub(super) earlier_egress: u64,
}

/// What the machine wants done.
enum Deed {
    Send(NodeId, ToAgent),
    Act(DeploymentEvent),
}

impl Deed {
    /// How long it waits for the state: would a server that was started again have to know of it?
    fn wait(&self) -> Wait {
        match self {
            Self::Send(_, ToAgent::Heartbeat | ToAgent::Welcome(_) | ToAgent::Prepare(_)) => Wait::Not,
            Self::Act(
                DeploymentEvent::NodeChanged(_)
                | DeploymentEvent::Note(_)
                | DeploymentEvent::CheckBlock(_)
                | DeploymentEvent::Forgotten { .. },
            ) => Wait::Not,
            Self::Send(_, ToAgent::Finish(_)) | Self::Act(DeploymentEvent::Over) => Wait::Long,
            Self::Send(..) | Self::Act(_) => Wait::Short,
        }
    }
}

/// The loop.
pub(super) struct EventLoop {
    parts: Parts,
    links: HashMap<Token, ControlLink>,
    next_link: usize,
    nodes: HashMap<NodeId, Token>,
    /// The feed of each chain, with its serial number.
    feeds: HashMap<u16, (u64, Feed)>,
    last_feed: u64,
    tracker: Tracker,
    /// Sources that may have more waiting; their edge has passed.
    unfinished: HashSet<Token>,
    told: HashSet<IpAddr>,
    log_limit: LogLimit,
    began: Time,
    /// When the state was kept last.
    kept: Time,
    /// What waits until a state is kept.
    holding: Holding<Deed>,
    shown: Time,
    changed: bool,
    accept_at: Option<Time>,
    /// Since when all is over.
    over: Option<Time>,
}

impl EventLoop {
    pub(super) fn new(parts: Parts, began: Time) -> Self {
        Self {
            parts,
            links: HashMap::new(),
            next_link: FIRST_LINK,
            nodes: HashMap::new(),
            feeds: HashMap::new(),
            last_feed: 0,
            tracker: Tracker::default(),
            unfinished: HashSet::new(),
            told: HashSet::new(),
            log_limit: LogLimit::default(),
            began,
            kept: began,
            holding: Holding::default(),
            shown: Time(0),
            changed: true,
            accept_at: None,
            over: None,
        }
    }

    /// Runs until all is over and every agent has taken its last order, or had time to.
    pub(super) fn run(mut self) -> io::Result<Parts> {
        let mut events = Events::with_capacity(256);
        loop {
            let now = self.now();
            if self.over.is_some_and(|over| self.links.is_empty() || now.since(over) >= LAST_WORDS) {
                return Ok(self.parts);
            }
            match self.parts.poll.poll(&mut events, Some(self.patience(now))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = self.now();
            let mut tokens = std::mem::take(&mut self.unfinished);
            tokens.extend(events.iter().map(Event::token));
            for token in tokens {
                self.serve(token, now);
            }
            self.on_time(now);
            self.carry_gate(now);
            self.carry_out(now);
            self.show(now);
        }
    }

    fn now(&self) -> Time {
        self.parts.context.clock.now()
    }

    /// How long there is nothing to do unless something happens.
    fn patience(&self, now: Time) -> Duration {
        if !self.unfinished.is_empty() {
            return Duration::ZERO;
        }
        let show = self.shown.after(if self.changed { SHOW_EVERY } else { SHOW_AT_LEAST });
        let waiting = self.links.values().filter(|link| !link.standing.may_stay());
        let deadlines = waiting.map(|link| link.since.after(HELLO_WITHIN));
        let deadlines = deadlines
            .chain(self.holding.deadline())
            .chain(self.accept_at)
            .chain(self.parts.gate.deadline().filter(|_| self.over.is_none()))
            .chain(self.over.map(|over| over.after(LAST_WORDS)));
        let first = deadlines.chain([show, self.parts.deployment.deadline()]).min().unwrap_or(now);
        self.parts.context.clock.until(first)
    }

    fn serve(&mut self, token: Token, now: Time) {
        match token {
            LISTENER => self.accept(now),
            DISCOVERY if self.over.is_none() => {
                if self.parts.answerer.turn(&self.parts.nics, now) {
                    self.unfinished.insert(DISCOVERY);
                }
            }
            SIGNALS => self.on_signal(now),
            WAKE => self.on_news(now),
            token => self.serve_link(token, now),
        }
    }

    fn on_signal(&mut self, now: Time) {
        if !self.parts.signals.came() || self.over.is_some() {
            return;
        }
        let (code, line) = match self.parts.deployment.stage() {
            Stage::Waiting => (1, "stopping; no disk was touched"),
            _ => (3, "stopping; agents are told, disks that are being written stay marked"),
        };
        if let Err(error) = Signals::end_at_once(code) {
            log::warn!("a second signal will not end the program at once: {error}");
        }
        self.parts.progress.line(line.to_owned());
        self.parts.deployment.on_stop(now);
    }

    fn on_news(&mut self, now: Time) {
        while let Ok(news) = self.parts.news.try_recv() {
            self.changed = true;
            match news {
                News::Feed(serial, event) => self.on_feed_event(serial, event, now),
                News::Kept => {}
                News::Boot(line) => self.parts.progress.line(line),
                News::Heard(heard) => {
                    let lines = self.parts.gate.on_heard(&heard, now);
                    lines.into_iter().for_each(|line| self.parts.progress.line(line));
                }
                News::Checked(block, fault) => {
                    self.parts.checker.done(block);
                    self.parts.deployment.on_block_checked(fault.as_deref(), now);
                }
            }
        }
    }

    fn on_feed_event(&mut self, serial: u64, event: FeedEvent, now: Time) {
        // A feed that was replaced may still have something to say; it is about a link that no longer counts.
        let Some(chain) = self.feeds.iter().find(|(_, (running, _))| *running == serial).map(|(chain, _)| *chain)
        else {
            return;
        };
        let event = match event {
            FeedEvent::Broken { detail, damaged } => FeedEvent::Broken { detail: shown(&detail), damaged },
            FeedEvent::Down { detail, damaged } => FeedEvent::Down { detail: shown(&detail), damaged },
            other => other,
        };
        log::debug!("chain {chain}: {event:?}");
        self.parts.deployment.on_feed(chain, event, now);
    }

    fn accept(&mut self, now: Time) {
        self.accept_at = None;
        for _ in 0..CALLERS {
            match self.parts.listener.accept() {
                Ok((socket, from)) if self.over.is_none() => {
                    if let Err(error) = self.admit(socket, from.ip().to_canonical(), now) {
                        log::debug!("call from {from}: {error}");
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A caller that is gone already says so here, and the next one waits; without room it is no use to ask.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::warn!("no room for another connection: {error}");
                    self.accept_at = Some(now.after(NO_ROOM));
                    return;
                }
            }
        }
        self.unfinished.insert(LISTENER);
    }

    fn admit(&mut self, mut socket: mio::net::TcpStream, from: IpAddr, now: Time) -> io::Result<()> {
        let local = socket.local_addr()?.ip();
        let Some(card) = self.parts.nics.with_address(local).map(|nic| nic.name.clone()) else {
            let local = local.to_canonical();
            self.turn_away(
                from,
                &format!("a caller from {from}"),
                &format!("{local} is on none of the --interface cards"),
            );
            return Ok(());
        };
        let (mut busy, mut strangers) = (Vec::new(), Vec::new());
        for (token, link) in &self.links {
            match link.standing {
                standing if standing.may_stay() => {}
                Standing::Stranger if !link.busy => strangers.push((*token, link.place())),
                _ => busy.push((link.since, *token)),
            }
        }
        let places: Vec<Place> = strangers.iter().map(|(_, place)| *place).collect();
        let secret = self.parts.secret.as_ref();
        let admission = DOOR.admit(from, None, &places);
        let channel = match admission {
            Admission::Busy => Channel::busy_server(if secret.is_some() { Mode::Pinned } else { Mode::Insecure }),
            _ => Channel::server(secret),
        };
        match admission {
            Admission::Replace(index) => self.drop_link(strangers[index].0),
            Admission::Busy if busy.len() >= TURNED_AWAY => {
                busy.iter().min().map(|(_, oldest)| *oldest).into_iter().for_each(|oldest| self.drop_link(oldest));
            }
            _ => {}
        }
        socket.set_nodelay(true)?;
        let token = Token(self.next_link);
        self.next_link += 1;
        self.parts.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut link = ControlLink::new(socket, channel, from, card, now);
        link.busy = admission == Admission::Busy;
        self.links.insert(token, link);
        Ok(())
    }

    fn drop_link(&mut self, token: Token) {
        if let Some(mut link) = self.links.remove(&token) {
            // Closing takes it out of the poll set anyway.
            let _ = self.parts.poll.registry().deregister(link.socket());
        }
    }

    fn serve_link(&mut self, token: Token, now: Time) {
        let mut messages = Vec::new();
        let Some(link) = self.links.get_mut(&token) else { return };
        let read = link.read(&mut messages);
        if let Ok(true) = read {
            self.unfinished.insert(token);
        }
        for message in messages {
            self.on_message(token, message, now);
        }
        let wrote = match self.links.get_mut(&token) {
            Some(link) if link.standing == Standing::Parting => {
                link.part(now);
                Ok(())
            }
            Some(link) => link.write(),
            None => return,
        };
        if let Err(broken) = read.and(wrote) {
            self.on_broken(token, &broken, now);
        }
    }

    fn on_broken(&mut self, token: Token, broken: &Broken, now: Time) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let (address, standing) = (link.address, link.standing);
        if let (
            Broken::Channel(_) | Broken::Malformed(_),
            Standing::Stranger | Standing::Waiting(_) | Standing::Node(_),
        ) = (broken, standing)
        {
            // What is wrong was put into words for the other end: it gets them before the link goes.
            link.part(now);
        } else {
            self.drop_link(token);
        }
        match standing {
            Standing::Node(node) => {
                self.nodes.remove(&node);
                self.changed = true;
                self.parts.deployment.on_gone(node, &shown(&broken.to_string()), now);
            }
            Standing::Waiting(id) => {
                log::debug!("agent at {address} that was not approved: {broken}");
                self.changed = true;
                self.parts.gate.on_gone(id);
            }
            Standing::Stranger => self.tell_of_stranger(address, broken),
            Standing::Parting => {}
        }
    }

    /// An agent that does not fit is worth a line; noise is not.
    fn tell_of_stranger(&mut self, address: IpAddr, broken: &Broken) {
        let worth = match broken {
            Broken::Channel(error) => !matches!(error, ChannelError::Garbage { .. } | ChannelError::Busy),
            _ => false,
        };
        if worth {
            self.turn_away(address, &format!("an agent at {address}"), &broken.to_string());
        } else {
            log::debug!("caller at {address}: {broken}");
        }
    }

    /// Tells, once for each address, who was not let in and why.
    fn turn_away(&mut self, address: IpAddr, who: &str, why: &str) {
        let line = format!("{who} was turned away: {why}");
        if self.told.len() < MAX_TOLD && self.told.insert(address) {
            self.parts.progress.line(line.clone());
            self.parts.turned_away = Some(line);
        } else {
            log::debug!("{line}");
        }
    }

    fn on_message(&mut self, token: Token, message: ToServer, now: Time) {
        let Some(link) = self.links.get(&token) else { return };
        match (link.standing, message) {
            (Standing::Stranger, ToServer::Hello(hello)) => self.on_hello(token, hello, now),
            (Standing::Node(node), ToServer::Log(line)) => self.on_log(node, &line, now),
            (Standing::Node(_) | Standing::Waiting(_), ToServer::Hello(_)) | (Standing::Stranger, _) => {
                let out_of_turn = slidecast_proto::wire::Malformed { what: "order of messages" };
                self.on_broken(token, &Broken::Malformed(out_of_turn), now);
            }
            (Standing::Node(node), message) => {
                self.changed = true;
                self.parts.deployment.on_message(node, message, now);
            }
            (Standing::Waiting(id), message) => self.parts.gate.on_message(id, &message, now),
            (Standing::Parting, _) => {}
        }
    }

    fn on_hello(&mut self, token: Token, hello: Hello, now: Time) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let (key, address, card) = (link.peer_key(), link.address, CardId(link.card.clone()));
        let Some(handshake) = link.handshake_hash() else { return };
        if self.parts.keys.get(&hello.boot).is_some_and(|first| *first != key) {
            return self.send_away(token, address, "it claims to be a run of an agent that has another key", now);
        }
        let caller = Caller { hello, key, handshake, address, card };
        let Parts { gate, deployment, .. } = &mut self.parts;
        match gate.on_hello(token, caller, &|boot| is_here(deployment, boot), now) {
            Admitted::In(caller) => self.enter(token, *caller, now),
            Admitted::Away => self.send_away(token, address, "too many agents wait for approval", now),
            Admitted::Waits(id) => {
                link.standing = Standing::Waiting(id);
                self.changed = true;
            }
        }
    }

    fn send_away(&mut self, token: Token, address: IpAddr, why: &str, now: Time) {
        self.links.get_mut(&token).into_iter().for_each(|link| link.part(now));
        self.turn_away(address, &format!("an agent at {address}"), why);
    }

    /// An agent that may take part.
    fn enter(&mut self, token: Token, caller: Caller, now: Time) {
        let Caller { hello, key, address, card, .. } = caller;
        if let Err(full) = self.parts.deployment.make_room(&hello, address) {
            return self.send_away(token, address, &full.to_string(), now);
        }
        let Some(link) = self.links.get_mut(&token) else { return };
        self.parts.keys.insert(hello.boot, key);
        let node = self.parts.deployment.number_of(&hello.boot).unwrap_or_else(|| {
            self.parts.last_id += 1;
            NodeId(self.parts.last_id)
        });
        self.parts.deployment.on_agent(node, hello, card, address, now);
        link.standing = Standing::Node(node);
        self.changed = true;
        if let Some(old) = self.nodes.insert(node, token) {
            // The same run called again: the older link is dead, whether it knows or not.
            self.drop_link(old);
        }
    }

    /// Does what the approval of agents asks for.
    fn carry_gate(&mut self, now: Time) {
        while let Some(deed) = self.parts.gate.poll(now) {
            match deed {
                GateDeed::Send(token, order) => self.send_on(token, &order, now),
                GateDeed::Enter(token, caller) if self.over.is_none() => self.enter(token, *caller, now),
                GateDeed::Enter(token, _) => self.drop_link(token),
                GateDeed::Close(token, why) => {
                    log::debug!("an agent that was not approved is sent away: {why}");
                    self.links.get_mut(&token).into_iter().for_each(|link| link.part(now));
                    self.changed = true;
                }
                GateDeed::Tell(view, left_out) => {
                    if left_out > 0 {
                        self.parts.progress.line(format!("{left_out} others that wait for approval were not shown"));
                    }
                    self.parts.progress.unapproved(view);
                }
            }
        }
    }

    /// All is over: whoever still waits hears that it waits in vain.
    fn dismiss(&mut self, now: Time) {
        let detail = "the deployment ended before this machine was approved".to_owned();
        let abort = ToAgent::Abort(Abort { deployment: self.parts.id, reason: Reason::NotApproved, detail });
        self.parts.gate.all().into_iter().for_each(|token| self.send_on(token, &abort, now));
    }

    fn on_log(&mut self, node: NodeId, line: &LogLine, now: Time) {
        // One that says a lot of less weight would fill the server's log too.
        let said = self.log_limit.on_line(node, now);
        let line_of = |text: String, level: u8| {
            if level <= 2 {
                self.parts.progress.line(text);
            } else {
                log::debug!("{text}");
            }
        };
        match said {
            Said::Shown { left_out } => {
                if left_out > 0 {
                    line_of(format!("node {node}: {left_out} lines before this one were left out"), line.level);
                }
                line_of(format!("node {node}: {}", shown(&line.text)), line.level);
            }
            Said::Silenced => {
                line_of(format!("node {node}: it has said so much that the rest of its lines is left out"), 2);
            }
            Said::LeftOut => {}
        }
    }

    /// Tells of lines that were left out and followed by no other line.
    fn tell_left_out(&mut self) {
        for (node, lines) in self.log_limit.untold() {
            self.parts.progress.line(format!("node {node}: {lines} lines were left out"));
        }
    }

    fn on_time(&mut self, now: Time) {
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept(now);
        }
        if now.since(self.kept) >= KEEP_EVERY {
            self.keep(false, now);
        }
        if now >= self.parts.deployment.deadline() {
            self.parts.deployment.on_time(now);
        }
        if self.over.is_none() {
            let Parts { gate, deployment, .. } = &mut self.parts;
            gate.on_time(&|boot| is_here(deployment, boot), now);
        }
        let slow: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| !link.standing.may_stay() && now.since(link.since) >= HELLO_WITHIN)
            .map(|(token, _)| *token)
            .collect();
        for token in slow {
            self.drop_link(token);
        }
    }

    /// Sends the orders and does what the machine asks for, each when the state that it follows from is kept.
    fn carry_out(&mut self, now: Time) {
        loop {
            if self.parts.deployment.take_unsaved() {
                let number = self.keep(true, now);
                self.holding.on_keep(number, now);
            }
            let keeper = self.parts.keeper.as_ref();
            let is_kept = |number| keeper.is_none_or(|keeper| keeper.is_kept(number));
            if let Some(deed) = self.holding.poll(is_kept, now) {
                self.perform(deed, now);
                continue;
            }
            let order = self.parts.deployment.poll_order().map(|(node, order)| Deed::Send(node, order));
            let Some(deed) = order.or_else(|| self.parts.deployment.poll_event().map(Deed::Act)) else { return };
            let wait = deed.wait();
            if let Some(deed) = self.holding.enter(deed, wait, is_kept, now) {
                self.perform(deed, now);
            }
        }
    }

    fn perform(&mut self, deed: Deed, now: Time) {
        match deed {
            Deed::Send(node, order) => self.send(node, &order, now),
            Deed::Act(event) => self.on_event(event, now),
        }
    }

    fn keep(&mut self, sync: bool, now: Time) -> Option<u64> {
        self.kept = now;
        if self.over.is_some() {
            return None;
        }
        let (keeper, saved) = (self.parts.keeper.as_mut()?, self.parts.deployment.saved(now)?);
        let egress = self.parts.context.egress.load(Ordering::Relaxed);
        keeper.keep(&saved, &self.parts.keys, |boot| self.parts.gate.was_typed(boot), egress, sync)
    }

    fn send(&mut self, node: NodeId, order: &ToAgent, now: Time) {
        self.nodes.get(&node).copied().into_iter().for_each(|token| self.send_on(token, order, now));
    }

    fn send_on(&mut self, token: Token, order: &ToAgent, now: Time) {
        let Some(link) = self.links.get_mut(&token) else { return };
        if let Err(broken) = link.send(order).and_then(|()| link.write()) {
            self.on_broken(token, &broken, now);
        }
    }

    fn on_event(&mut self, event: DeploymentEvent, now: Time) {
        self.changed = true;
        match event {
            DeploymentEvent::NodeChanged(node) => self.on_changed(node),
            DeploymentEvent::Note(text) => self.parts.progress.line(shown(&text)),
            DeploymentEvent::PlanFixed(plan) => self.parts.plan = plan,
            DeploymentEvent::Resumed => {
                self.parts.context.egress.fetch_add(self.parts.earlier_egress, Ordering::Relaxed);
                self.parts.progress.line("going on with the deployment that an earlier server left".to_owned());
                let all: Vec<_> = self.parts.deployment.nodes().map(|node| node.id).collect();
                all.into_iter().for_each(|node| self.on_changed(node));
            }
            DeploymentEvent::Forgotten { node, boot } => {
                self.parts.keys.remove(&boot);
                if let Some(link) = self.nodes.remove(&node).and_then(|token| self.links.get_mut(&token)) {
                    link.part(now);
                }
            }
            DeploymentEvent::Replaced { old, new } => {
                let nodes = self.parts.plan.chains.iter_mut().flat_map(|chain| &mut chain.nodes);
                nodes.filter(|node| **node == old).for_each(|node| *node = new);
            }
            DeploymentEvent::StartFeed { chain, terms, address, blocks } => {
                self.start_feed(chain, FeedOrder { terms, address, blocks }, now);
            }
            DeploymentEvent::StopFeed { chain } => drop(self.feeds.remove(&chain)),
            DeploymentEvent::CheckBlock(block) => self.parts.checker.ask(block),
            DeploymentEvent::Over => {
                self.feeds.clear();
                self.over = Some(now);
                self.tell_left_out();
                self.parts.keeper.iter_mut().for_each(Keeper::remove);
                // Orders that are still waiting go out first; parting comes last.
                let waiting: Vec<Deed> = self.holding.drain().collect();
                for deed in waiting {
                    if let Deed::Send(node, order) = deed {
                        self.send(node, &order, now);
                    }
                }
                while let Some((node, order)) = self.parts.deployment.poll_order() {
                    self.send(node, &order, now);
                }
                self.dismiss(now);
                self.nodes.clear();
                self.links.values_mut().for_each(|link| link.part(now));
            }
        }
    }

    /// A node that has its image boots from it from now on.
    fn on_changed(&mut self, node: NodeId) {
        let Some(node) = self.parts.deployment.node(node) else { return };
        let outcome = node.outcome();
        if outcome.is_some_and(|end| matches!(end.state, EndState::Done | EndState::Written)) {
            self.parts.through.add(node.hello.cards.iter().map(|card| card.mac));
        }
    }

    fn start_feed(&mut self, chain: u16, order: FeedOrder, now: Time) {
        self.last_feed += 1;
        let serial = self.last_feed;
        // A feed that the chain has already ends where this one begins.
        self.feeds.remove(&chain);
        match Feed::start(serial, chain, order, self.parts.context.clone()) {
            Ok(feed) => drop(self.feeds.insert(chain, (serial, feed))),
            Err(error) => {
                let detail = format!("starting a feed: {error}");
                self.parts.deployment.on_feed(chain, FeedEvent::Down { detail, damaged: false }, now);
            }
        }
    }

    fn show(&mut self, now: Time) {
        let due = self.shown.after(if self.changed { SHOW_EVERY } else { SHOW_AT_LEAST });
        if self.shown != Time(0) && now < due {
            return;
        }
        (self.shown, self.changed) = (now, false);
        let egress = self.parts.context.egress.load(Ordering::Relaxed);
        let snapshot = self.tracker.snapshot(&self.parts.deployment, self.began, egress, now);
        self.parts.progress.show(Snapshot { unapproved: self.parts.gate.count(), ..snapshot });
    }
}

/// Whether this run of an agent takes part and is connected.
fn is_here(deployment: &Deployment, boot: &Boot) -> bool {
    deployment.nodes().any(|node| node.connected && node.hello.boot == *boot)
}
