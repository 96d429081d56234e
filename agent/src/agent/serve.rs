//! The time with one server: the loop around [`Visit`], which decides.

use super::Agent;
use crate::boot::KernelLog;
use crate::cli::Exit;
use crate::control::{Control, Lost};
use crate::dial::Server;
use crate::disks::could_be_target;
use crate::error::AgentError;
use crate::event_loop::CONTROL;
use crate::machine::Machine;
use crate::preparation::{Preparation, Prepared, Wanted};
use crate::random::random_bytes;
use crate::run::Run;
use crate::status::Board;
use mio::event::Event;
use slidecast_proto::approval::{Code, Share};
use slidecast_proto::control::{Disk, Ended, Hello, Prepare, Refused, ToAgent, ToServer};
use slidecast_proto::reason::{EndState, Reason, Then};
use slidecast_proto::units::Time;
use slidecast_proto::visit::{Leave, Loss, Stopped, Task, Visit, VisitAct, VisitConfig};
use std::time::Duration;

/// How long the last words to the server may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Agent<'_> {
    /// Stays with a server until it is gone or, with `--once`, all is over.
    pub(super) fn serve(&mut self, control: Control) -> Result<Leave, AgentError> {
        let mut stay = Stay::new(control, self.visit_config(), self.machine.as_ref());
        // Its neighbours are where the server is.
        if self.machine.is_some()
            && let Err(error) = self.events.keep_to(stay.server.card.as_deref())
        {
            log::warn!("listening on {}: {error}", stay.server.card.as_deref().unwrap_or("every card"));
        }
        match self.board() {
            Some(board) => board.on_server(stay.server.address),
            None => log::info!("server at {}", stay.server),
        }
        loop {
            let now = self.events.now();
            self.listen(&mut stay, now);
            self.hear_threads(&mut stay);
            stay.visit.on_time(now);
            if self.events.is_stopped() {
                log::info!("stopped by a signal");
                stay.visit.on_stopped();
            }
            if let Some(leave) = self.carry_out(&mut stay, now)? {
                return Ok(stay.leave(leave));
            }
            while let Ok(line) = self.lines.try_recv() {
                stay.control.iter_mut().for_each(|control| control.send_line(&line));
            }
            let mut deadline = self.drive(&mut stay, now);
            if let Some(leave) = self.carry_out(&mut stay, now)? {
                return Ok(stay.leave(leave));
            }
            stay.flush(now);
            deadline = deadline.min(stay.deadline());
            self.events.wait(deadline, |event| {
                self.callers.on_event(event);
                stay.on_event(event);
            })?;
        }
    }

    fn visit_config(&self) -> VisitConfig {
        VisitConfig {
            patience: self.arguments.patience,
            once: self.arguments.once,
            owns_machine: self.machine.is_some(),
            attended: self.machine.as_ref().is_some_and(Machine::is_attended),
        }
    }

    /// Hands over what the server says. What it said before it was lost is still to be obeyed.
    fn listen(&self, stay: &mut Stay, now: Time) {
        let (orders, lost) = stay.listen(now);
        for order in orders {
            self.board().inspect(|board| board.on_order(&order));
            log_order(&order);
            stay.visit.on_order(order, now);
        }
        if let Some(lost) = lost {
            stay.on_lost(&lost, now);
        }
        if let Some(control) = stay.control.as_ref().filter(|control| control.is_open())
            && stay.visit.awaits_link()
        {
            stay.visit.on_open(control.handshake_hash(), random_bytes().map(Share));
        }
    }

    /// Hands over what the console and the thread that opens the target say.
    fn hear_threads(&mut self, stay: &mut Stay) {
        if let Some(answer) = self.machine.as_ref().and_then(Machine::poll_answer)
            && let Some(picked) = stay.asked.get(answer)
        {
            stay.picked = Some(picked.clone());
            stay.asked.clear();
            stay.visit.on_picked();
        }
        let Some((deployment, answer)) = self.preparation.as_ref().and_then(Preparation::poll) else { return };
        self.preparation = None;
        let result = answer.and_then(|Prepared { result, prepare, mut disks, own }| {
            match &result {
                Ok((_, ready)) => (stay.target, stay.explanation) = (ready.target.clone(), None),
                Err(_) => {
                    disks.retain(|disk| could_be_target(disk, &prepare, &own));
                    stay.asked = disks;
                }
            }
            result
        });
        stay.visit.on_prepared(deployment, result);
    }

    /// Lets callers in and moves the run as far as it goes. Gives when this must be done again at the latest.
    fn drive(&mut self, stay: &mut Stay, now: Time) -> Time {
        let server = stay.server.address.ip();
        let mut run = stay.visit.task_mut();
        run.iter_mut().for_each(|run| run.carry_out(self.events.registry(), now));
        let expected = run.as_ref().and_then(|run| run.upstream_address()).unwrap_or(server);
        let mut deadline = self.receive_callers(run, Some(expected), now);
        if let Some(run) = stay.visit.task_mut() {
            run.advance(self.events.registry(), now);
            deadline = deadline.min(run.deadline());
        }
        deadline
    }

    /// Does what the machine asks for; gives how to leave the server, if it is to be left.
    fn carry_out(&mut self, stay: &mut Stay, now: Time) -> Result<Option<Leave>, AgentError> {
        while let Some(act) = stay.visit.poll() {
            match act {
                VisitAct::Connect => match self.call(stay.server.clone(), CONTROL) {
                    Ok(control) => stay.control = Some(control),
                    Err(lost) => stay.on_lost(&lost, now),
                },
                VisitAct::Greet => {
                    let hello = self.hello()?;
                    stay.greet(hello, now);
                }
                VisitAct::Say(message) => {
                    if let ToServer::Refused(refused) = &message {
                        log::error!("{}: {}", refused.reason, refused.detail);
                        self.exit = Exit::NotStarted;
                    }
                    stay.say(message, now);
                }
                VisitAct::Prepare { prepare, picked } => self.prepare(stay, prepare, picked),
                VisitAct::Ask(refused) => {
                    log::warn!("{}: {}", refused.reason, refused.detail);
                    self.board().inspect(|board| board.ask(&stay.asked));
                }
                VisitAct::StopAsking => stay.asked.clear(),
                VisitAct::AwaitApproval(code) => self.await_approval(code),
                VisitAct::CodeIsFalse => log::error!(
                    "the server does not keep to its part of the code: none is shown; do not approve this machine"
                ),
                VisitAct::Approved => log::info!("approved at the server"),
                VisitAct::NotPrepared(deployment) => {
                    log::warn!("order to join deployment {deployment}, which was never prepared");
                }
                VisitAct::GaveUp(reason, detail) => {
                    log::error!("{reason}: {detail}");
                    // The server may not be there to be told.
                    self.board().inspect(|board| board.fail(reason, detail));
                }
                VisitAct::Stop(run, why) => self.stop(run, why),
                VisitAct::Leave(leave) => return Ok(Some(leave)),
            }
        }
        Ok(None)
    }

    fn await_approval(&self, code: Option<Code>) {
        match code {
            None => log::warn!("waiting for approval at the server"),
            Some(code) => {
                log::warn!("waiting for approval at the server, code {code}");
                self.board().inspect(|board| board.show_code(code));
            }
        }
    }

    /// Has the target opened for a deployment.
    fn prepare(&mut self, stay: &mut Stay, prepare: Prepare, picked: bool) {
        let deployment = prepare.deployment;
        if let Some(why) = self.held() {
            let refused = Refused { deployment, reason: Reason::TargetRefused, detail: why.to_owned() };
            return stay.visit.on_prepared(deployment, Err(refused));
        }
        let wanted = Wanted {
            prepare,
            picked: stay.picked.take().filter(|_| picked),
            target: self.arguments.target.clone(),
            ring: self.arguments.ring,
            node: stay.visit.node(),
            card: stay.server.card.clone(),
            machine: self.machine.is_some(),
            stopping: self.stopping.take(),
        };
        match Preparation::start(wanted, self.preparation.take(), self.events.clock(), self.events.waker()) {
            Ok(preparation) => self.preparation = Some(preparation),
            Err(refused) => stay.visit.on_prepared(deployment, Err(refused)),
        }
    }

    /// Lets a run go. One that was dropped says nothing of how this agent ends.
    fn stop(&mut self, run: Run, why: Stopped) {
        if why != Stopped::Dropped {
            self.exit = run.exit();
        }
        if let Stopped::Finished(then) = why {
            log::info!("deployment {} is over for this node", run.deployment());
            if self.machine.is_none() && then != Then::Hold {
                log::info!("asked to {then}; as a plain program the agent does not touch the machine");
            }
        }
        self.stopping = run.stop();
    }
}

fn log_order(order: &ToAgent) {
    match order {
        ToAgent::Welcome(welcome) => {
            log::info!("the server (version {}) calls this node {}", welcome.server_version, welcome.node);
        }
        ToAgent::Abort(abort) => log::error!("{}: the server ended the deployment: {}", abort.reason, abort.detail),
        ToAgent::Notice(notice) => log::error!("the server says of this machine: {}", notice.detail),
        _ => {}
    }
}

/// The sockets and words of the time with one server.
#[derive(Debug)]
struct Stay {
    server: Server,
    control: Option<Control>,
    visit: Visit<Run>,
    /// The disks that would do, and the one of them that somebody picked.
    asked: Vec<Disk>,
    picked: Option<Disk>,
    board: Option<Board>,
    /// What the kernel says, where it can be read.
    kernel: Option<KernelLog>,
    /// The path of the run's disk, and what the kernel said of it when it failed.
    target: String,
    explanation: Option<Option<String>>,
}

impl Stay {
    fn new(control: Control, config: VisitConfig, machine: Option<&Machine>) -> Self {
        Self {
            server: control.server().clone(),
            control: Some(control),
            visit: Visit::new(config),
            asked: Vec::new(),
            picked: None,
            board: machine.map(|machine| machine.board().clone()),
            kernel: machine.and_then(Machine::kernel).cloned(),
            target: String::new(),
            explanation: None,
        }
    }

    fn greet(&mut self, hello: Hello, now: Time) {
        if let Err(lost) = self.control.as_mut().map_or(Ok(()), |control| control.greet(hello, now)) {
            self.on_lost(&lost, now);
        }
    }

    /// Sends a message. A link that can't take it is lost: the server is told all again on the next one.
    fn say(&mut self, mut message: ToServer, now: Time) {
        if let ToServer::Ended(ended) = &mut message {
            self.explain(ended);
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
        if let Some(board) = &self.board {
            board.on_said(&message, self.visit.task().and_then(Run::blocks));
        }
        let result = self.control.as_mut().map_or(Ok(()), |control| control.send(&message));
        if let Err(lost) = result {
            self.on_lost(&lost, now);
        }
    }

    /// Reads what the server says.
    fn listen(&mut self, now: Time) -> (Vec<ToAgent>, Option<Lost>) {
        let mut orders = Vec::new();
        let Some(control) = &mut self.control else { return (orders, None) };
        let lost = control.advance(now).err();
        loop {
            match control.poll_message() {
                Ok(Some(order)) => orders.push(order),
                Ok(None) => return (orders, lost),
                Err(malformed) => return (orders, Some(malformed)),
            }
        }
    }

    fn on_lost(&mut self, lost: &Lost, now: Time) {
        self.control = None;
        match self.visit.on_lost(now) {
            Loss::Again => log::debug!("server at {}: {lost}", self.server),
            Loss::Idle => log::info!("server at {}: {lost}", self.server),
            Loss::GoingOn(patience) => {
                let (reason, patience) = (lost.reason(), patience.as_secs());
                log::error!("{reason}: server at {}: {lost}; going on without it for {patience} s", self.server);
            }
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
        let control = self.control.as_ref().map_or(Time(u64::MAX), Control::deadline);
        control.min(self.visit.deadline())
    }

    fn on_event(&mut self, event: &Event) {
        if event.token() == CONTROL {
            self.control.iter_mut().for_each(|control| control.on_event(event));
        } else if let Some(run) = self.visit.task_mut() {
            run.on_event(event);
        }
    }

    /// An agent that ends lets its last words reach the server.
    fn leave(self, leave: Leave) -> Leave {
        if let (Leave::Exit(_), Some(control)) = (leave, self.control) {
            control.close(LAST_WORDS);
        }
        leave
    }
}
