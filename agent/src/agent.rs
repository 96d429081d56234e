//! The life of an agent: find the server, say who and what it is, obey, and begin again.

use crate::approval::Approving;
use crate::boot::KernelLog;
use crate::callers::{Callers, Calling};
use crate::cards;
use crate::cli::{Arguments, Exit, Target, Trust};
use crate::control::{Control, Lost};
use crate::dial::Server;
use crate::discover::{Search, TRIES, TRY_FOR};
use crate::disk::Stopping;
use crate::error::AgentError;
use crate::event_loop::{CONTROL, DISCOVERY, EventLoop, TRIALS, callers};
use crate::inventory::{self, Roots};
use crate::logging::Line;
use crate::machine::Machine;
use crate::preparation::{Preparation, Prepared, Wanted};
use crate::run::{Run, fresh};
use crate::status::Board;
use mio::Token;
use mio::event::Event;
use slidecast_proto::control::{Disk, Ended, Hello, Prepare, Refused, ToAgent, ToServer};
use slidecast_proto::noise::{PublicKey, SecretKey};
use slidecast_proto::reason::{EndState, Reason, Then};
use slidecast_proto::selector::{Selector, choose};
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The pause between two tries to reach a server that was lost in the middle of a deployment.
const RECONNECT: Duration = Duration::from_millis(250);
/// How long the last words to the server may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many callers are let in before everything else has its turn.
const CALLERS: usize = 32;
/// The pause between two lines about callers that are none of ours.
const STRANGERS: Duration = Duration::from_secs(1);

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// What became of the disk.
    pub(crate) exit: Exit,
    /// What the machine is to do.
    pub(crate) then: Then,
}

/// Runs the agent until it is stopped, or with `--once` for one deployment. A machine that is the agent's own is also
/// left when it is to be switched off.
///
/// # Errors
/// [`AgentError`]: it can't run at all.
pub(crate) fn run(
    arguments: &Arguments,
    trust: &Trust,
    lines: Receiver<Line>,
    machine: Option<Machine>,
) -> Result<Ending, AgentError> {
    let mut agent = Agent::new(arguments, trust, lines, machine)?;
    loop {
        let server = agent.find()?;
        let next = server.map_or(Ok(Next::Exit), |server| agent.serve(server))?;
        if next == Next::Exit {
            return Ok(Ending { exit: agent.exit, then: agent.then });
        }
    }
}

/// What to do when a server was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Look for a server again.
    Search,
    /// End.
    Exit,
}

/// Everything that outlives one server.
#[derive(Debug)]
struct Agent<'a> {
    arguments: &'a Arguments,
    trust: &'a Trust,
    lines: Receiver<Line>,
    events: EventLoop,
    callers: Callers,
    strangers: Strangers,
    /// A disk that may not be closed yet.
    stopping: Option<Stopping>,
    /// The target is being opened, perhaps for a server that was left since.
    preparation: Option<Preparation>,
    secret: SecretKey,
    boot: [u8; 16],
    /// What the exit code would be.
    exit: Exit,
    /// The machine, if it is there for nothing but this agent.
    machine: Option<Machine>,
    /// What the machine is to do when the agent has ended.
    then: Then,
}

impl<'a> Agent<'a> {
    fn new(
        arguments: &'a Arguments,
        trust: &'a Trust,
        lines: Receiver<Line>,
        machine: Option<Machine>,
    ) -> Result<Self, AgentError> {
        let secret = match &arguments.own_key {
            Some(secret) => secret.clone(),
            None => SecretKey::generate().map_err(|_| AgentError::NoRandomness)?,
        };
        let boot = fresh().ok_or(AgentError::NoRandomness)?;
        let events = EventLoop::new()?;
        if let Some(machine) = &machine {
            machine.wake_with(events.waker());
        }
        let (callers, strangers, exit, then) = (callers(), Strangers::default(), Exit::NotStarted, Then::Hold);
        Ok(Self {
            arguments,
            trust,
            lines,
            events,
            callers,
            strangers,
            stopping: None,
            preparation: None,
            secret,
            boot,
            exit,
            machine,
            then,
        })
    }

    /// Where those stand who watch the machine.
    fn board(&self) -> Option<&Board> {
        self.machine.as_ref().map(Machine::board)
    }

    /// Why nothing may be written on this machine, if that is so.
    fn held(&self) -> Option<&str> {
        self.machine.as_ref().and_then(Machine::held)
    }

    fn key(&self) -> Option<PublicKey> {
        match self.trust {
            Trust::Pinned(key) => Some(*key),
            Trust::Insecure => None,
        }
    }

    /// Starts to connect to a server.
    fn call(&self, server: Server, token: Token) -> Result<Control, Lost> {
        Control::connect(server, &self.secret, self.key(), self.events.registry(), token, self.events.now())
    }

    /// Looks for a server until one has proven itself; `None` when the agent was stopped.
    fn find(&mut self) -> Result<Option<Control>, AgentError> {
        self.board().inspect(|board| board.on_search());
        let now = self.events.now();
        let mut search = match self.arguments.server_name() {
            Ok(Some((host, port))) => Search::of_name(host, port, self.trust, self.events.waker(), now),
            _ => {
                let nonce = fresh().ok_or(AgentError::NoRandomness)?;
                let only = self.arguments.interface.clone();
                // On somebody else's machine its own routes decide, which may be elaborate.
                let keep = self.machine.is_some();
                let own = SecretKey::generate().map_err(|_| AgentError::NoRandomness)?;
                Search::on_cards(only, self.arguments.port, keep, self.trust, (nonce, &own), DISCOVERY, now)
            }
        };
        let mut tries = Tries::default();
        loop {
            let now = self.events.now();
            search.advance(self.events.registry(), now)?;
            if let Some(mut control) = tries.advance(&mut search, now) {
                match control.reregister(self.events.registry(), CONTROL) {
                    Ok(()) => return Ok(Some(control)),
                    Err(lost) => search.on_failure(control.server(), lost.reason(), &lost.to_string(), now),
                }
            }
            while let Some(token) = tries.free()
                && let Some(server) = search.poll(now)
            {
                match self.call(server.clone(), token) {
                    Ok(control) => tries.controls.push((token, control)),
                    Err(lost) => search.on_failure(&server, lost.reason(), &lost.to_string(), now),
                }
            }
            let next = if tries.free().is_some() { search.deadline() } else { search.ask_at() };
            let deadline = tries.deadline(&search, now).min(next).min(self.receive_callers(None, None, now));
            self.events.wait(deadline, |event| {
                self.callers.on_event(event);
                search.on_event(event);
                tries.on_event(event);
            })?;
            if self.events.is_stopped() {
                log::info!("stopped by a signal");
                return Ok(None);
            }
        }
    }

    /// Stays with a server until it is gone or, with `--once`, all is over.
    fn serve(&mut self, control: Control) -> Result<Next, AgentError> {
        self.preparation.iter_mut().for_each(Preparation::abandon);
        let mut visit = Visit::new(control, self.arguments.patience, self.machine.as_ref());
        // Its neighbours are where the server is.
        if self.machine.is_some()
            && let Err(error) = self.events.keep_to(visit.server.card.as_deref())
        {
            log::warn!("listening on {}: {error}", visit.server.card.as_deref().unwrap_or("every card"));
        }
        match self.board() {
            Some(board) => board.on_server(visit.server.address),
            None => log::info!("server at {}", visit.server),
        }
        loop {
            let now = self.events.now();
            let (orders, lost) = visit.listen(now);
            for order in orders {
                if self.obey(&mut visit, order, now)? == Some(Next::Exit) {
                    visit.close();
                    return Ok(Next::Exit);
                }
            }
            if let Some(lost) = lost {
                visit.on_lost(&lost, now);
            }
            if let Some(answer) = self.machine.as_ref().and_then(Machine::poll_answer)
                && let Some((prepare, disks)) = visit.question.take()
                && let Some(picked) = disks.get(answer).cloned()
            {
                self.prepare(&mut visit, prepare, Some(picked));
            }
            if let Some(answer) = self.preparation.as_ref().and_then(Preparation::poll)
                && self.preparation.take().is_some_and(|preparation| preparation.is_wanted())
                && self.on_prepared(&mut visit, answer) == Some(Next::Exit)
            {
                visit.close();
                return Ok(Next::Exit);
            }
            if visit.may_greet() {
                let hello = self.hello()?;
                visit.greet(&hello);
                visit.run.iter_mut().for_each(Run::on_server_back);
            }
            while let Ok(line) = self.lines.try_recv() {
                visit.control.iter_mut().for_each(|control| control.send_line(&line));
            }
            if let Some(since) = visit.lost {
                if visit.run.as_ref().is_none_or(|run| !run.is_joined()) {
                    return Ok(Next::Search);
                }
                if now.since(since) >= self.arguments.patience {
                    self.give_up(&mut visit, Reason::ServerLost, "the server is gone");
                    // Whose disk is done needs nobody any more: the machine does what it was told to do at the end.
                    let then = visit.run.as_ref().filter(|_| self.exit == Exit::Done).map_or(Then::Hold, Run::then);
                    if self.machine.is_some() && then != Then::Hold {
                        self.then = then;
                        return Ok(Next::Exit);
                    }
                    return Ok(if self.arguments.once { Next::Exit } else { Next::Search });
                }
                if visit.control.is_none() && visit.call_at <= now {
                    visit.call_at = now.after(RECONNECT);
                    visit.control = self.call(visit.server.clone(), CONTROL).ok();
                }
            }
            if self.events.is_stopped() {
                log::info!("stopped by a signal");
                self.give_up(&mut visit, Reason::Aborted, "the agent was stopped by a signal");
                visit.report();
                visit.close();
                return Ok(Next::Exit);
            }
            let expected = visit.run.as_ref().and_then(Run::upstream_address).unwrap_or(visit.server.address.ip());
            let mut deadline = self.receive_callers(visit.run.as_mut(), Some(expected), now);
            if let Some(run) = &mut visit.run {
                run.advance(self.events.registry(), now);
                deadline = deadline.min(run.deadline());
            }
            visit.report();
            visit.flush(now);
            let deadline = deadline.min(visit.deadline());
            self.events.wait(deadline, |event| {
                self.callers.on_event(event);
                visit.on_event(event);
            })?;
        }
    }

    /// Who and what this node is.
    fn hello(&self) -> Result<Hello, AgentError> {
        let cards = cards::interfaces(&self.arguments.interface)?;
        Ok(Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default(),
            boot: self.boot,
            ram_bytes: inventory::memory(&Roots::default()).total,
            cards: cards::inventory(&cards, self.arguments.link_speed),
            disks: self.disks(),
            link_port: self.events.port()?,
            target: self.arguments.target.as_ref().map(|target| target.text.clone()).unwrap_or_default(),
        })
    }

    /// The disks there are now.
    fn disks(&self) -> Vec<Disk> {
        if self.held().is_some() {
            return Vec::new();
        }
        disks(&own_selector(self.arguments.target.as_ref()), self.machine.is_some())
    }

    /// Obeys an order; gives what is next if the server is to be left.
    fn obey(&mut self, visit: &mut Visit, order: ToAgent, now: Time) -> Result<Option<Next>, AgentError> {
        self.board().inspect(|board| board.on_order(&order));
        match order {
            ToAgent::Welcome(welcome) => {
                log::info!("the server (version {}) calls this node {}", welcome.server_version, welcome.node);
                visit.node = welcome.node;
                if visit.approving.on_welcome() {
                    // What was said meanwhile was not heard.
                    visit.run.iter_mut().for_each(Run::on_server_back);
                }
            }
            ToAgent::NotApproved(said) => {
                let answer = visit.control.as_ref().map(|control| visit.approving.on_not_approved(said, control));
                answer.flatten().into_iter().for_each(|answer| visit.say(&answer));
            }
            ToAgent::ApprovalShare(share) => visit.approving.on_share(share, visit.board.as_ref()),
            ToAgent::Prepare(prepare) => self.prepare(visit, prepare, None),
            ToAgent::Join(join) => match &mut visit.run {
                Some(run) if run.deployment() == join.deployment => run.on_join(&join, now),
                _ => log::warn!("order to join deployment {}, which was never prepared", join.deployment),
            },
            ToAgent::Finish(finish) => {
                self.preparation.iter_mut().for_each(|preparation| preparation.abandon_for(finish.deployment));
                let Some(run) = visit.take_run(finish.deployment) else { return Ok(None) };
                self.exit = run.exit();
                log::info!("deployment {} is over for this node", finish.deployment);
                self.stopping = run.stop();
                if !self.arguments.once {
                    visit.flush(now);
                }
                if self.machine.is_some() && finish.then != Then::Hold {
                    self.then = finish.then;
                    return Ok(Some(Next::Exit));
                }
                if finish.then != Then::Hold {
                    log::info!("asked to {}; as a plain program the agent does not touch the machine", finish.then);
                }
                return Ok(self.arguments.once.then_some(Next::Exit));
            }
            ToAgent::Abort(abort) => {
                log::error!("{}: the server ended the deployment: {}", abort.reason, abort.detail);
                visit.question = None;
                self.preparation.iter_mut().for_each(|preparation| preparation.abandon_for(abort.deployment));
                if let Some(run) = visit.take_run(abort.deployment) {
                    self.exit = run.exit();
                    self.stopping = run.stop();
                }
                return Ok(self.arguments.once.then_some(Next::Exit));
            }
            ToAgent::Notice(notice) => log::error!("the server says of this machine: {}", notice.detail),
            ToAgent::Heartbeat => {}
        }
        Ok(None)
    }

    /// Has the target opened for a deployment: the one disk that was `picked`, if somebody did.
    fn prepare(&mut self, visit: &mut Visit, prepare: Prepare, picked: Option<Disk>) {
        visit.question = None;
        let deployment = prepare.deployment;
        if let Some(why) = self.held() {
            let (reason, detail) = (Reason::TargetRefused, why.to_owned());
            log::error!("{reason}: {detail}");
            visit.say(&ToServer::Refused(Refused { deployment, reason, detail }));
            // The order has cleared what the screen shows.
            self.board().inspect(|board| board.hold(why));
            return;
        }
        if let Some(old) = visit.run.take() {
            self.stopping = old.stop();
        }
        let wanted = Wanted {
            prepare,
            picked,
            target: self.arguments.target.clone(),
            ring: self.arguments.ring,
            node: visit.node,
            card: visit.server.card.clone(),
            machine: self.machine.is_some(),
            stopping: self.stopping.take(),
        };
        match Preparation::start(wanted, self.preparation.take(), self.events.clock(), self.events.waker()) {
            Ok(preparation) => self.preparation = Some(preparation),
            Err(refused) => {
                log::error!("{}: {}", refused.reason, refused.detail);
                visit.say(&ToServer::Refused(refused));
            }
        }
    }

    /// The target is open, or is not to be had.
    fn on_prepared(&mut self, visit: &mut Visit, answer: Result<Prepared, Refused>) -> Option<Next> {
        let refused = match answer {
            Ok(Prepared { result: Ok((run, ready)), .. }) => {
                visit.run = Some(run);
                (visit.target, visit.explanation) = (ready.target.clone(), None);
                visit.say(&ToServer::Ready(ready));
                return None;
            }
            Ok(Prepared { result: Err(refused), prepare, mut disks, own }) => {
                let attended = self.machine.as_ref().filter(|machine| machine.is_attended());
                if let (Reason::TargetAmbiguous, Some(machine)) = (refused.reason, attended) {
                    log::warn!("{}: {}", refused.reason, refused.detail);
                    disks.retain(|disk| could_be_target(disk, &prepare, &own));
                    machine.board().ask(&disks);
                    visit.question = Some((prepare, disks));
                    return None;
                }
                refused
            }
            Err(refused) => refused,
        };
        log::error!("{}: {}", refused.reason, refused.detail);
        self.exit = Exit::NotStarted;
        visit.say(&ToServer::Refused(refused));
        self.arguments.once.then_some(Next::Exit)
    }

    /// Ends a deployment from this side.
    fn give_up(&mut self, visit: &mut Visit, reason: Reason, detail: &str) {
        if let Some(run) = &mut visit.run {
            if !run.has_ended() && run.is_joined() {
                run.fail(reason, detail);
                // The server may not be there to be told.
                if let Some(board) = &visit.board {
                    board.fail(reason, detail);
                }
            }
            self.exit = run.exit();
        }
    }

    /// Lets callers in and out; the upstream is `expected` to call from this address. Gives when this must be done again at the
    /// latest.
    fn receive_callers(&mut self, mut run: Option<&mut Run>, expected: Option<IpAddr>, now: Time) -> Time {
        for _ in 0..CALLERS {
            let Some((stream, peer)) = self.events.accept() else { break };
            match self.callers.enter(stream, peer, expected, self.events.registry(), now) {
                Ok(None) => {}
                Ok(Some(calling)) => self.strangers.take(calling, now),
                Err(error) => log::debug!("call from {peer}: {error}"),
            }
        }
        while let Some(calling) = self.callers.poll(now) {
            match (calling, &mut run, fresh()) {
                (Calling::Spoke { caller, peer, header, payload }, Some(run), Some(nonce)) => {
                    match run.on_hello(&header, &payload, nonce, now) {
                        Ok(candidate) => self.callers.answer(caller, candidate),
                        Err(fault) => {
                            log::debug!("call from {peer}: {fault}");
                            self.callers.refuse(caller, header.deployment, &fault.to_string());
                        }
                    }
                }
                (Calling::Spoke { caller, header, .. }, _, _) => {
                    self.callers.refuse(caller, header.deployment, "no deployment here");
                }
                (Calling::Proven { conn, candidate }, Some(run), _) => {
                    run.on_proven(*conn, *candidate, self.events.registry(), now);
                }
                (Calling::Proven { .. }, None, _) => {}
                (stranger, _, _) => self.strangers.take(stranger, now),
            }
        }
        let deadline = self.callers.deadline().unwrap_or(Time(u64::MAX));
        self.events.accept_at().map_or(deadline, |at| at.min(deadline))
    }
}

/// Servers that are being tried, a few at a time: one that does not answer must not keep out the next.
#[derive(Debug, Default)]
struct Tries {
    controls: Vec<(Token, Control)>,
}

impl Tries {
    /// A token for one more, if there may be one more.
    fn free(&self) -> Option<Token> {
        let taken = |token: &Token| self.controls.iter().any(|(other, _)| other == token);
        (TRIALS..TRIALS + TRIES).map(Token).find(|token| !taken(token))
    }

    /// Goes on with all of them; gives the first that has proven itself. What failed is told to the search.
    fn advance(&mut self, search: &mut Search, now: Time) -> Option<Control> {
        if self.free().is_none() {
            self.make_room(search, now);
        }
        let crowded = self.free().is_none() && search.has_untried(now);
        let mut at = 0;
        while let Some((_, control)) = self.controls.get_mut(at) {
            match control.advance(now) {
                Ok(()) if control.is_open() => return Some(self.controls.swap_remove(at).1),
                Ok(()) if crowded && now.since(control.opened()) >= TRY_FOR => {
                    let why = format!("no answer within {} s", TRY_FOR.as_secs());
                    search.on_failure(control.server(), Reason::ServerLost, &why, now);
                    self.controls.swap_remove(at);
                }
                Ok(()) => at += 1,
                Err(lost) => {
                    search.on_failure(control.server(), lost.reason(), &lost.to_string(), now);
                    self.controls.swap_remove(at);
                }
            }
        }
        None
    }

    /// Gives up the oldest try of a server that only claims to be ours, if one waits that has proven it.
    fn make_room(&mut self, search: &mut Search, now: Time) {
        self.controls.sort_by_key(|(_, control)| control.opened());
        if let Some(at) = search.makes_room(self.controls.iter().map(|(_, control)| control.server()), now) {
            let (_, control) = self.controls.remove(at);
            search.on_failure(control.server(), Reason::ServerLost, "a proven offer comes first", now);
        }
    }

    fn deadline(&self, search: &Search, now: Time) -> Time {
        let crowded = self.free().is_none() && search.has_untried(now);
        let of = |(_, control): &(Token, Control)| {
            let late = if crowded { control.opened().after(TRY_FOR) } else { Time(u64::MAX) };
            control.deadline().min(late)
        };
        self.controls.iter().map(of).min().unwrap_or(Time(u64::MAX))
    }

    fn on_event(&mut self, event: &Event) {
        let of = self.controls.iter_mut().filter(|(token, _)| *token == event.token());
        of.for_each(|(_, control)| control.on_event(event));
    }
}

/// The time with one server.
#[derive(Debug)]
struct Visit {
    server: Server,
    control: Option<Control>,
    /// The hello is said on the present control link.
    greeted: bool,
    /// Since when there is no control link.
    lost: Option<Time>,
    /// How long a deployment that writes goes on without one.
    patience: Duration,
    call_at: Time,
    node: NodeId,
    /// Whether somebody has to approve this agent first.
    approving: Approving,
    run: Option<Run>,
    /// The order that waits for somebody to pick one of these disks.
    question: Option<(Prepare, Vec<Disk>)>,
    board: Option<Board>,
    /// What the kernel says, where it can be read.
    kernel: Option<KernelLog>,
    /// The path of the run's disk, and what the kernel said of it when it failed.
    target: String,
    explanation: Option<Option<String>>,
}

impl Visit {
    fn new(control: Control, patience: Duration, machine: Option<&Machine>) -> Self {
        let (server, call_at, node) = (control.server().clone(), Time::default(), NodeId(0));
        Self {
            server,
            control: Some(control),
            greeted: false,
            lost: None,
            patience,
            call_at,
            node,
            approving: Approving::default(),
            run: None,
            question: None,
            board: machine.map(|machine| machine.board().clone()),
            kernel: machine.and_then(Machine::kernel).cloned(),
            target: String::new(),
            explanation: None,
        }
    }

    /// Whether the server has proven itself and not heard the hello yet.
    fn may_greet(&self) -> bool {
        !self.greeted && self.control.as_ref().is_some_and(Control::is_open)
    }

    fn greet(&mut self, hello: &Hello) {
        (self.greeted, self.lost) = (true, None);
        self.say(&ToServer::Hello(hello.clone()));
    }

    fn say(&mut self, message: &ToServer) {
        if let Some(board) = &self.board {
            board.on_said(message, self.run.as_ref().and_then(Run::blocks));
        }
        let result = self.control.as_mut().map_or(Ok(()), |control| control.send(message));
        if let Err(lost) = result {
            log::debug!("message to the server: {lost}");
        }
    }

    /// Reads what the server says. What it said before it was lost is still to be obeyed.
    fn listen(&mut self, now: Time) -> (Vec<ToAgent>, Option<Lost>) {
        let mut orders = Vec::new();
        let Some(control) = &mut self.control else { return (orders, None) };
        let mut lost = control.advance(now).err();
        loop {
            match control.poll_message() {
                Ok(Some(order)) => orders.push(order),
                Ok(None) => return (orders, lost),
                Err(malformed) => {
                    lost = Some(malformed);
                    return (orders, lost);
                }
            }
        }
    }

    fn on_lost(&mut self, lost: &Lost, now: Time) {
        let reconnecting = self.lost.is_some();
        (self.control, self.greeted, self.approving) = (None, false, Approving::default());
        self.call_at = now.after(RECONNECT);
        if reconnecting {
            log::debug!("server at {}: {lost}", self.server);
            return;
        }
        self.lost = Some(now);
        if self.run.as_ref().is_some_and(|run| run.is_joined() && !run.has_ended()) {
            let patience = self.patience.as_secs();
            log::error!("{}: server at {}: {lost}; going on without it for {patience} s", lost.reason(), self.server);
        } else {
            log::info!("server at {}: {lost}", self.server);
        }
    }

    /// Tells the server what the deployment has to say.
    fn report(&mut self) {
        if !self.greeted {
            return;
        }
        while let Some(mut message) = self.run.as_mut().and_then(Run::poll_message) {
            if let ToServer::Ended(ended) = &mut message {
                self.explain(ended);
            }
            self.say(&message);
        }
    }

    /// Puts beside the reason for which a disk failed what the kernel said of it. The same words each time.
    fn explain(&mut self, ended: &mut Ended) {
        let is_disk = matches!(
            ended.reason,
            Reason::DiskOpen | Reason::DiskWrite | Reason::DiskFlush | Reason::DiskRead | Reason::DiskMismatch
        );
        if ended.state != EndState::Failed || !is_disk {
            return;
        }
        let words = self.explanation.get_or_insert_with(|| self.kernel.as_ref()?.explain(&self.target));
        if let Some(words) = words {
            ended.detail = format!("{}; {words}", ended.detail);
        }
    }

    fn flush(&mut self, now: Time) {
        let result = self.control.as_mut().map_or(Ok(()), |control| control.advance(now));
        if let Err(lost) = result {
            self.on_lost(&lost, now);
        }
    }

    fn deadline(&self) -> Time {
        self.control.as_ref().map_or(self.call_at, Control::deadline)
    }

    fn on_event(&mut self, event: &Event) {
        if event.token() == CONTROL {
            self.control.iter_mut().for_each(|control| control.on_event(event));
        } else {
            self.run.iter_mut().for_each(|run| run.on_event(event));
        }
    }

    fn take_run(&mut self, deployment: DeploymentId) -> Option<Run> {
        self.report();
        self.run.take_if(|run| run.deployment() == deployment)
    }

    fn close(self) {
        if let Some(control) = self.control {
            control.close(LAST_WORDS);
        }
    }
}

/// Callers that are none of ours: one line each, but never more than one in a second.
#[derive(Debug, Default)]
struct Strangers {
    said: Option<Time>,
    unsaid: u64,
}

impl Strangers {
    fn take(&mut self, calling: Calling, now: Time) {
        let Calling::Stranger { peer, why } = calling else { return };
        if self.said.is_some_and(|said| now.since(said) < STRANGERS) {
            self.unsaid += 1;
            return;
        }
        self.said = Some(now);
        match std::mem::take(&mut self.unsaid) {
            0 => log::warn!("call from {peer}: {why}; hung up"),
            more => log::warn!("call from {peer}: {why}; hung up (and on {more} others before)"),
        }
    }
}

/// The disks there are now; on a machine that is the agent's own, the one that it was booted from is held.
pub(crate) fn disks(own: &Selector, machine: bool) -> Vec<Disk> {
    let mut disks = inventory::disks(&Roots::default(), own.path().map(Path::new));
    if machine {
        crate::boot::hold_boot_medium(&mut disks);
    }
    disks
}

/// The agent's own `--target`, links in its path followed.
pub(crate) fn own_selector(target: Option<&Target>) -> Selector {
    target.map(|target| target.selector.clone()).unwrap_or_default().map_path(follow_links)
}

/// Whether this disk would be the target if there were no other.
fn could_be_target(disk: &Disk, prepare: &Prepare, own: &Selector) -> bool {
    let server = Selector::parse(&prepare.selector).map(|selector| selector.map_path(follow_links));
    let only = std::slice::from_ref(disk);
    server.is_ok_and(|server| choose(only, &server, own, prepare.disk_bytes, prepare.sector).is_ok())
}

/// Every name of a disk as the kernel's own.
pub(crate) fn follow_links(path: &str) -> String {
    inventory::true_path(&Roots::default(), path)
}
