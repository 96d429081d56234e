//! The loop of a service: sockets, threads and the clock on one side, the machines (fleet, approval, deployments) on the other. It
//! carries; the machines decide.

use super::answer::Answerer;
use super::command::{Command, Handle, News, Start, Teller};
use super::event::{Closed, Event, Front};
use super::gate::Gate;
use super::port::{DISCOVERY, LISTENER, Port, WAKE};
use super::running::{Known, Running};
use super::sockets::{ServiceError, Sockets};
use super::turns::Turns;
use crate::clock::Clock;
use crate::nic::Nics;
use crate::view::Snapshot;
use mio::{Events, Poll, Token, Waker};
use slidecast_proto::approval::{Approval, Boot};
use slidecast_proto::control::{Abort, ToAgent};
use slidecast_proto::discovery::{Offer, Responder};
use slidecast_proto::fleet::Fleet;
use slidecast_proto::hosting::{Host, HostAct, Hosted, HostedAct};
use slidecast_proto::noise::{PublicKey, SecretKey};
use slidecast_proto::queue::Queue;
use slidecast_proto::reason::Reason;
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long the end waits for agents to take their last orders.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the loop waits at most.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// What a service is given.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Its sockets.
    pub sockets: Sockets,
    /// What offers name. A front end with one deployment gives the id of that one.
    pub id: DeploymentId,
    /// The server's key; none with `--insecure`.
    pub secret: Option<SecretKey>,
    /// The network cards in use.
    pub nics: Nics,
    /// The clock. Where a deployment goes on, its time reaches back to the beginning of that.
    pub clock: Clock,
    /// Decides which agents are let in.
    pub approval: Approval,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    pub(super) id: DeploymentId,
    pub(super) clock: Clock,
    pub(super) port: Port,
    /// The fleet and the machines of all deployments.
    pub(super) host: Host,
    /// Who waits for approval.
    pub(super) gate: Gate,
    pub(super) running: BTreeMap<DeploymentId, Running>,
    pub(super) turns: Turns,
    /// The control link of each agent that is in.
    pub(super) nodes: HashMap<NodeId, Token>,
    /// Addresses of callers that were told of as not let in.
    pub(super) told: HashSet<IpAddr>,
    pub(super) events: VecDeque<Event>,
    news: Receiver<News>,
    teller: Teller,
    /// Since when all is over.
    pub(super) closing: Option<Time>,
}

/// What the service knows of runs of agents.
struct Runs<'a> {
    fleet: &'a Fleet,
    gate: &'a Gate,
}

impl Known for Runs<'_> {
    fn key(&self, boot: &Boot) -> Option<PublicKey> {
        self.fleet.by_boot(boot)?.key
    }

    fn was_typed(&self, boot: &Boot) -> bool {
        self.gate.was_typed(boot)
    }
}

impl Service {
    /// A service without deployments.
    ///
    /// # Errors
    /// The system refuses what the event loop needs.
    pub fn new(config: ServiceConfig) -> Result<Self, ServiceError> {
        let ServiceConfig { sockets, id, secret, nics, clock, approval } = config;
        let offer = Offer { server: secret.as_ref().map(SecretKey::public), port: sockets.port, deployment: id };
        let answerer = Answerer::new(sockets.seeks, Responder::new(offer, secret.clone()));
        let answerer = answerer.map_err(ServiceError::system("opening a socket for offers"))?;
        let starting = || ServiceError::system("starting the event loop");
        let poll = Poll::new().map_err(starting())?;
        let (teller, news) = Teller::new(Waker::new(poll.registry(), WAKE).map_err(starting())?);
        let turns = Turns::new(Queue::new(&nics.plan_cards()));
        let port = Port::new(poll, sockets.listener, answerer, nics, secret).map_err(starting())?;
        let began = clock.now();
        Ok(Self {
            id,
            clock,
            port,
            host: Host::new(env!("CARGO_PKG_VERSION").to_owned(), began),
            gate: Gate::new(approval, began),
            running: BTreeMap::new(),
            turns,
            nodes: HashMap::new(),
            told: HashSet::new(),
            events: VecDeque::new(),
            news,
            teller,
            closing: None,
        })
    }

    /// Gives commands from other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.teller.clone())
    }

    /// Starts a deployment. One whose id is in use already is refused.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(&mut self, mut start: Start) -> io::Result<()> {
        let id = start.config.prepare.deployment;
        if self.running.contains_key(&id) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "this deployment runs already"));
        }
        start.config.cards = self.port.nics().plan_cards();
        let wanted = start.wanted.clone();
        let back = start.resume.as_ref().map(|resume| {
            let unfinished = &resume.unfinished;
            let key = |boot: &Boot| unfinished.keys.get(boot).copied().flatten();
            let nodes: Vec<_> =
                unfinished.saved.nodes.iter().map(|node| (node.id, node.boot, key(&node.boot))).collect();
            let approved: Vec<_> = unfinished.approved.iter().map(|boot| (*boot, key(boot))).collect();
            (unfinished.saved.last_id, nodes, approved)
        });
        let (running, hosted) = Running::start(start, self.clock, &self.teller)?;
        if let Some((last_id, nodes, approved)) = back {
            self.host.expect_back(id, last_id, nodes);
            approved.into_iter().for_each(|(boot, key)| self.gate.expect_back(boot, key));
        }
        self.running.insert(id, running);
        self.turns.on_start(id);
        self.host.open(id, hosted, wanted, self.clock.now());
        Ok(())
    }

    /// Runs until a command ends it, and every agent has taken its last order or had time to.
    ///
    /// # Errors
    /// The system does not wait for events.
    pub fn run(mut self, front: &mut dyn Front) -> io::Result<Closed> {
        let mut events = Events::with_capacity(256);
        loop {
            let now = self.clock.now();
            if self.closing.is_some_and(|closing| !self.port.has_links() || now.since(closing) >= LAST_WORDS) {
                return Ok(self.closed());
            }
            let patience = self.patience(now);
            let tokens = self.port.wait(&mut events, patience)?;
            let now = self.clock.now();
            for token in tokens {
                self.serve(token, now);
            }
            self.on_time(now);
            self.settle(front, now);
            self.show(now);
            self.flush(front, now);
        }
    }

    fn closed(mut self) -> Closed {
        let unapproved = self.gate.unapproved();
        Closed { unapproved: unapproved.into_iter().map(|machine| (self.host.new_id(), machine)).collect() }
    }

    /// How long there is nothing to do unless something happens.
    fn patience(&self, now: Time) -> Duration {
        let waiting = self.gate.deadline().filter(|_| self.closing.is_none());
        let ports = [self.port.deadline(), self.host.deadline(), waiting];
        let end = self.closing.map(|closing| closing.after(LAST_WORDS));
        let deadlines = ports.into_iter().flatten().chain(end).chain(self.running.values().map(Running::deadline));
        self.clock.until(deadlines.fold(now.after(MAX_WAIT), Time::min))
    }

    fn serve(&mut self, token: Token, now: Time) {
        match token {
            LISTENER => self.accept(now),
            DISCOVERY if self.closing.is_none() => self.port.answer(now),
            DISCOVERY => {}
            WAKE => self.on_news(now),
            token => self.serve_link(token, now),
        }
    }

    fn on_news(&mut self, now: Time) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Command(command) => self.on_command(command, now),
                News::Feed(id, serial, event) => {
                    if let Some((running, hosted)) = self.deployment(id) {
                        running.on_feed(serial, event, hosted, now);
                    }
                }
                News::Checked(id, block, fault) => {
                    if let Some((running, hosted)) = self.deployment(id) {
                        running.changed = true;
                        hosted.on_checked(block, fault.as_deref(), now);
                    }
                }
                News::Kept => {}
            }
        }
    }

    fn on_command(&mut self, command: Command, now: Time) {
        match command {
            Command::Start(start) => {
                let id = start.config.prepare.deployment;
                if let Err(error) = self.start(*start) {
                    self.events.push_back(Event::NotStarted(id, error));
                }
            }
            Command::Begin(id) => {
                let Some((running, hosted)) = self.deployment(id) else { return };
                hosted.deployment_mut().do_not_wait(now);
                running.unqueued = true;
            }
            Command::Stop(id) => {
                let Some(hosted) = self.host.get_mut(id) else { return };
                self.events.push_back(Event::Stopping(id, hosted.deployment().stage()));
                hosted.deployment_mut().on_stop(now);
            }
            Command::Heard(heard) => {
                let lines = self.gate.on_heard(&heard, now);
                self.events.extend(lines.into_iter().map(|line| Event::Line(None, line)));
                self.on_changed();
            }
            Command::Close => self.close(now),
        }
    }

    /// All is over: whoever still waits hears that it waits in vain.
    fn close(&mut self, now: Time) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(now);
        let detail = "the deployment ended before this machine was approved".to_owned();
        let abort = ToAgent::Abort(Abort { deployment: self.id, reason: Reason::NotApproved, detail });
        self.gate.all().into_iter().for_each(|token| self.send_on(token, &abort, now));
        self.nodes.clear();
        self.running.clear();
        self.host.clear();
        self.port.part_all(now);
    }

    /// Something that all deployments show is new.
    pub(super) fn on_changed(&mut self) {
        self.running.values_mut().for_each(|running| running.changed = true);
    }

    fn on_time(&mut self, now: Time) {
        if self.port.on_time(now) {
            self.accept(now);
        }
        self.host.on_time(now);
        if self.closing.is_none() {
            let Self { gate, host, .. } = self;
            gate.on_time(&|boot| host.is_here(boot), now);
        }
    }

    /// Does what the machines ask for, until they ask for nothing more.
    fn settle(&mut self, front: &mut dyn Front, now: Time) {
        loop {
            self.carry_gate(now);
            self.carry_turns(now);
            let ended = self.carry_out(now);
            self.flush(front, now);
            let unqueued = self.running.values().any(|running| running.unqueued);
            if self.closing.is_some() || (ended.is_empty() && !unqueued) {
                return;
            }
            // Only now: where all ends with a deployment, its agents are not told that they are idle.
            for id in ended {
                self.host.close(id, now);
                self.turns.on_over(id);
                // What waited for its cards is looked at again.
                self.running.values_mut().for_each(|running| running.unqueued = true);
            }
        }
    }

    fn flush(&mut self, front: &mut dyn Front, now: Time) {
        while let Some(event) = self.events.pop_front() {
            if let Some(command) = front.on_event(event) {
                self.on_command(command, now);
            }
        }
    }

    /// A deployment that runs, and its machine.
    fn deployment(&mut self, id: DeploymentId) -> Option<(&mut Running, &mut Hosted)> {
        self.running.get_mut(&id).zip(self.host.get_mut(id))
    }

    /// Does what the fleet and the deployments want; gives the deployments that are over.
    fn carry_out(&mut self, now: Time) -> Vec<DeploymentId> {
        for (id, running) in &self.running {
            self.host.get_mut(*id).into_iter().for_each(|hosted| hosted.on_kept(running.kept()));
        }
        let mut ended = Vec::new();
        while let Some(act) = self.host.poll(now) {
            match act {
                HostAct::Send(node, order) => self.send(node, &order, now),
                HostAct::Machine(node) => self.tell_of_machine(node),
                HostAct::Part(node) => {
                    // It may have been ready for one of them.
                    self.running.values_mut().for_each(|running| running.unqueued = true);
                    let token = self.nodes.remove(&node);
                    token.into_iter().for_each(|token| self.port.part(token, now));
                }
                HostAct::Silent(node) => {
                    let token = self.nodes.remove(&node);
                    token.into_iter().for_each(|token| self.port.drop_link(token));
                    self.events.push_back(Event::MachineGone(node));
                }
                HostAct::Contested(nodes) => self.events.push_back(Event::Contested(nodes)),
                HostAct::Settled(node) => self.events.push_back(Event::Settled(node)),
                HostAct::NotTaken(id, node, full) => log::warn!("deployment {id} does not take agent {node}: {full}"),
                HostAct::Of(id, HostedAct::Over) => {
                    let finished = self.running.remove(&id).zip(self.host.take(id));
                    let finished = finished.map(|(running, hosted)| running.finish(hosted));
                    self.events.extend(finished.map(|finished| Event::Over(Box::new(finished))));
                    ended.push(id);
                }
                HostAct::Of(id, act) => self.carry_out_of(id, act, now),
            }
        }
        ended
    }

    fn carry_out_of(&mut self, id: DeploymentId, act: HostedAct, now: Time) {
        let Self { running, host, gate, events, .. } = self;
        let Some(running) = running.get_mut(&id) else { return };
        if let HostedAct::Keep { number, saved, sync } = act {
            return running.keep(number, &saved, sync, &Runs { fleet: host.fleet(), gate });
        }
        if let Some(hosted) = host.get_mut(id) {
            running.carry_out(act, hosted, events, now);
        }
    }

    fn show(&mut self, now: Time) {
        let unapproved = self.gate.count();
        for (id, running) in &mut self.running {
            let machine = self.host.get(*id).map(Hosted::deployment);
            if let Some(snapshot) = machine.and_then(|machine| running.show(machine, now)) {
                self.events.push_back(Event::Snapshot(*id, Box::new(Snapshot { unapproved, ..snapshot })));
            }
        }
    }
}
