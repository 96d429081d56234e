//! An agent's time with one server: it says hello, obeys, takes part in one deployment at a time, calls again when the control link
//! breaks, and leaves when the server is gone, or when all is over.
//!
//! The caller owns the control link, the disks and everything else of the run that it prepares; the run is in the machine's hands
//! ([`Task`]), because what an order does to it is decided here:
//!
//! ```text
//! the link is open -> on_open      an order     -> on_order       poll -> carry out, in order
//! it is lost       -> on_lost      the target   -> on_prepared
//! the time         -> on_time      was opened, or is not to be had
//! ```
//!
//! When and how long a link is kept is in `clock.rs`, what an agent that is not approved yet does in `approving.rs`.

mod approving;
mod clock;
#[cfg(test)]
mod tests;

pub use clock::{ControlClock, HANDSHAKE, Quiet};

use crate::approval::{Code, Share};
use crate::bug::{self, Bug};
use crate::control::{Abort, Finish, Join, NotApproved, Prepare, Ready, Refused, ToAgent, ToServer};
use crate::reason::{EndState, Reason, Then};
use crate::units::{DeploymentId, NodeId, Time};
use approving::Approving;
use core::time::Duration;
use std::collections::VecDeque;

/// The pause between two tries to reach a server that was lost in the middle of a deployment.
const RECONNECT: Duration = Duration::from_millis(250);

/// A deployment in which the node takes part, as far as the server's orders and the loss of the server go.
pub trait Task {
    /// Which deployment.
    fn deployment(&self) -> DeploymentId;
    /// Whether it has a place in a chain.
    fn is_joined(&self) -> bool;
    /// How its disk has ended, if it has.
    fn ended(&self) -> Option<EndState>;
    /// Takes the place in a chain that the server gives.
    fn on_join(&mut self, join: &Join, now: Time);
    /// The server was away and is back: it may not have heard what was said last.
    fn on_server_back(&mut self);
    /// Gives up: the disk takes no more and stays marked. The reason is among what [`Self::poll_message`] gives.
    fn fail(&mut self, reason: Reason, detail: &str);
    /// The next thing to tell the server.
    fn poll_message(&mut self) -> Option<ToServer>;
}

/// What is the same for all servers that an agent meets.
#[derive(Clone, Copy, Debug)]
pub struct VisitConfig {
    /// How long a node that has a place goes on without a server.
    pub patience: Duration,
    /// It leaves after one deployment.
    pub once: bool,
    /// The machine is the agent's own: it does at the end what the server says.
    pub owns_machine: bool,
    /// Somebody is there to pick a disk where more than one would do.
    pub attended: bool,
}

/// Something for the caller to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisitAct<T> {
    /// Connect to the server again: then [`Visit::on_open`], or [`Visit::on_lost`] if it fails.
    Connect,
    /// Say hello.
    Greet,
    /// Say this to the server. A link that can't take it is lost.
    Say(ToServer),
    /// Find and open the target: then [`Visit::on_prepared`]. `picked`: the one that somebody picked.
    Prepare {
        /// The order.
        prepare: Prepare,
        /// Somebody has picked the disk.
        picked: bool,
    },
    /// Ask which disk it is to be: then [`Visit::on_picked`].
    Ask(Refused),
    /// Nobody needs to pick a disk any more.
    StopAsking,
    /// The server does not take this agent yet. The code is to be shown, if there is one.
    AwaitApproval(Option<Code>),
    /// The server's share does not fit what it committed itself to: there is no code.
    CodeIsFalse,
    /// The server takes this agent, which had to wait.
    Approved,
    /// An order to join a deployment that was never prepared.
    NotPrepared(DeploymentId),
    /// A run that had begun was given up from this side.
    GaveUp(Reason, &'static str),
    /// Let this run go, with its connections and its disk.
    Stop(T, Stopped),
    /// Leave the server; nothing comes after this.
    Leave(Leave),
}

/// Why a run is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The server said so. At the end the machine is to do this.
    Finished(Then),
    /// The server ended the deployment.
    Aborted,
    /// It was given up from this side.
    GivenUp,
    /// Another order to prepare came, or the server was lost before it had begun.
    Dropped,
}

/// What an agent does when it leaves a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Look for a server again.
    Search,
    /// End, and have the machine do this.
    Exit(Then),
}

/// What the loss of the control link means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Another try has failed.
    Again,
    /// The run goes on without the server for so long.
    GoingOn(Duration),
    /// There is nothing to go on with.
    Idle,
}

/// How far the control link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down { call_at: Time },
    Calling,
    Greeted,
}

/// What the node does for this server. Only one thing at a time.
#[derive(Debug)]
enum Standing<T> {
    Idle,
    /// The target is being looked for and opened.
    Preparing(Prepare),
    /// Somebody is asked which disk it is.
    Asking(Prepare),
    /// It has a target.
    Running {
        task: T,
        then: Then,
    },
}

/// The time with one server.
#[derive(Debug)]
pub struct Visit<T> {
    config: VisitConfig,
    link: Link,
    /// Since when there is no control link.
    lost: Option<Time>,
    node: NodeId,
    approving: Approving,
    standing: Standing<T>,
    left: bool,
    acts: VecDeque<VisitAct<T>>,
}

impl<T: Task> Visit<T> {
    /// The control link stands, or is about to: [`Self::on_open`] comes next.
    #[must_use]
    pub fn new(config: VisitConfig) -> Self {
        Self {
            config,
            link: Link::Calling,
            lost: None,
            node: NodeId(0),
            approving: Approving::default(),
            standing: Standing::Idle,
            left: false,
            acts: VecDeque::new(),
        }
    }

    /// What the server calls the node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The run, once it has a target.
    #[must_use]
    pub fn task(&self) -> Option<&T> {
        if let Standing::Running { task, .. } = &self.standing { Some(task) } else { None }
    }

    /// The same, to be driven.
    pub fn task_mut(&mut self) -> Option<&mut T> {
        if let Standing::Running { task, .. } = &mut self.standing { Some(task) } else { None }
    }

    /// Whether the control link is open and [`Self::on_open`] was not called for it.
    #[must_use]
    pub fn awaits_link(&self) -> bool {
        self.link == Link::Calling
    }

    /// The server has proven itself on a new control link, the handshake of which has this hash; `share` is drawn for it.
    pub fn on_open(&mut self, handshake: Option<[u8; 32]>, share: Option<Share>) {
        self.link = Link::Greeted;
        self.lost = None;
        self.approving = Approving::on(handshake.zip(share));
        self.acts.push_back(VisitAct::Greet);
        self.recap();
    }

    /// The server may not have heard what the run has said.
    fn recap(&mut self) {
        if !bug::is(Bug::RecapForgotten)
            && let Some(task) = self.task_mut()
        {
            task.on_server_back();
        }
    }

    /// The control link is lost, or could not be made. Orders that came before are obeyed first.
    pub fn on_lost(&mut self, now: Time) -> Loss {
        let pause = if bug::is(Bug::ReconnectForgotten) { RECONNECT * 10_000 } else { RECONNECT };
        self.link = Link::Down { call_at: now.after(pause) };
        self.approving = Approving::default();
        if self.lost.is_some() {
            return Loss::Again;
        }
        self.lost = Some(now);
        match self.task() {
            Some(task) if task.is_joined() && task.ended().is_none() => Loss::GoingOn(self.config.patience),
            _ => Loss::Idle,
        }
    }

    /// Obeys an order.
    pub fn on_order(&mut self, order: ToAgent, now: Time) {
        if self.left {
            return;
        }
        match order {
            ToAgent::Welcome(welcome) => {
                self.node = welcome.node;
                if self.approving.on_welcome() {
                    self.acts.push_back(VisitAct::Approved);
                    // What was said meanwhile was not heard.
                    self.recap();
                }
            }
            ToAgent::NotApproved(NotApproved { commitment }) => self.acts.extend(self.approving.on_wait(commitment)),
            ToAgent::ApprovalShare(share) => self.acts.extend(self.approving.on_share(share)),
            ToAgent::Prepare(prepare) => self.on_prepare(prepare),
            ToAgent::Join(join) => match self.task_mut() {
                Some(task) if task.deployment() == join.deployment => task.on_join(&join, now),
                _ => self.acts.push_back(VisitAct::NotPrepared(join.deployment)),
            },
            ToAgent::Finish(finish) => self.on_finish(finish),
            ToAgent::Abort(abort) => self.on_abort(&abort),
            ToAgent::Notice(_) | ToAgent::Heartbeat => {}
        }
    }

    /// The newest order to prepare is the only one that counts.
    fn on_prepare(&mut self, prepare: Prepare) {
        self.let_go(Stopped::Dropped);
        self.standing = Standing::Preparing(prepare.clone());
        self.acts.push_back(VisitAct::Prepare { prepare, picked: false });
    }

    /// Somebody has picked a disk.
    pub fn on_picked(&mut self) {
        if let Standing::Asking(prepare) = &self.standing {
            let prepare = prepare.clone();
            self.standing = Standing::Preparing(prepare.clone());
            self.acts.push_back(VisitAct::Prepare { prepare, picked: true });
        }
    }

    /// The target is open, or is not to be had. An answer for an order that was taken back since, or is from before this server,
    /// is let go.
    pub fn on_prepared(&mut self, deployment: DeploymentId, answer: Result<(T, Ready), Refused>) {
        let wanted = matches!(&self.standing, Standing::Preparing(prepare) if prepare.deployment == deployment);
        match (answer, std::mem::replace(&mut self.standing, Standing::Idle)) {
            (Ok((task, ready)), Standing::Preparing(Prepare { then, .. })) if wanted => {
                self.standing = Standing::Running { task, then };
                self.acts.push_back(VisitAct::Say(ToServer::Ready(ready)));
            }
            (Err(refused), Standing::Preparing(prepare)) if wanted => self.on_refused(refused, prepare),
            (answer, standing) => {
                self.standing = standing;
                if let Ok((task, _)) = answer {
                    self.acts.push_back(VisitAct::Stop(task, Stopped::Dropped));
                }
            }
        }
    }

    fn on_refused(&mut self, refused: Refused, prepare: Prepare) {
        if self.config.attended && refused.reason == Reason::TargetAmbiguous {
            self.standing = Standing::Asking(prepare);
            self.acts.push_back(VisitAct::Ask(refused));
            return;
        }
        self.acts.push_back(VisitAct::Say(ToServer::Refused(refused)));
        if self.config.once {
            self.leave(Leave::Exit(Then::Hold));
        }
    }

    /// Nobody needs the node any more.
    fn on_finish(&mut self, finish: Finish) {
        let began = self.task().is_some();
        if !self.is_about(finish.deployment) {
            return;
        }
        self.let_go(Stopped::Finished(finish.then));
        if !began {
            return;
        }
        if self.config.owns_machine && finish.then != Then::Hold {
            self.leave(Leave::Exit(finish.then));
        } else if self.config.once {
            self.leave(Leave::Exit(Then::Hold));
        }
    }

    /// The server ended a deployment.
    fn on_abort(&mut self, abort: &Abort) {
        let idle = matches!(self.standing, Standing::Idle);
        let ours = self.is_about(abort.deployment);
        if ours {
            self.let_go(Stopped::Aborted);
        }
        if self.config.once && (ours || idle) {
            self.leave(Leave::Exit(Then::Hold));
        }
    }

    /// Whether what the node does is for this deployment. An order that ends another one came late, and is none of its business.
    fn is_about(&self, deployment: DeploymentId) -> bool {
        let of = match &self.standing {
            Standing::Idle => return false,
            Standing::Preparing(prepare) | Standing::Asking(prepare) => prepare.deployment,
            Standing::Running { task, .. } => task.deployment(),
        };
        of == deployment || bug::is(Bug::EndOfAnother)
    }

    /// Lets go of whatever the node does. What a run has to say is said first.
    fn let_go(&mut self, why: Stopped) {
        self.report();
        match std::mem::replace(&mut self.standing, Standing::Idle) {
            Standing::Idle | Standing::Preparing(_) => {}
            Standing::Asking(_) => self.acts.push_back(VisitAct::StopAsking),
            Standing::Running { task, .. } => self.acts.push_back(VisitAct::Stop(task, why)),
        }
    }

    /// Ends the deployment from this side, if it has begun and not ended.
    fn give_up(&mut self, reason: Reason, detail: &'static str) {
        if let Standing::Running { task, .. } = &mut self.standing
            && task.is_joined()
            && task.ended().is_none()
        {
            task.fail(reason, detail);
            self.acts.push_back(VisitAct::GaveUp(reason, detail));
        }
        self.let_go(Stopped::GivenUp);
    }

    fn leave(&mut self, leave: Leave) {
        self.left = true;
        self.acts.push_back(VisitAct::Leave(leave));
    }

    /// Calls the server again, or leaves it when it was away for too long.
    pub fn on_time(&mut self, now: Time) {
        let (Some(since), false) = (self.lost, self.left) else { return };
        let joined = self.task().is_some_and(Task::is_joined);
        if !joined {
            self.let_go(Stopped::Dropped);
            return self.leave(Leave::Search);
        }
        if now.since(since) >= self.patience() {
            return self.lose_patience();
        }
        if let Link::Down { call_at } = self.link
            && call_at <= now
        {
            self.link = Link::Calling;
            self.acts.push_back(VisitAct::Connect);
        }
    }

    fn patience(&self) -> Duration {
        if bug::is(Bug::ImpatientNode) { Duration::from_millis(500) } else { self.config.patience }
    }

    /// A node that is done needs nobody any more: its machine does what it was told to do at the end.
    fn lose_patience(&mut self) {
        let (done, then) = match &self.standing {
            Standing::Running { task, then } => (task.ended().is_some_and(|end| end != EndState::Failed), *then),
            _ => (false, Then::Hold),
        };
        self.give_up(Reason::ServerLost, "the server is gone");
        self.leave(match (done && self.config.owns_machine && then != Then::Hold, self.config.once) {
            (true, _) => Leave::Exit(then),
            (false, true) => Leave::Exit(Then::Hold),
            (false, false) => Leave::Search,
        });
    }

    /// The agent is to end.
    pub fn on_stopped(&mut self) {
        if !self.left {
            self.give_up(Reason::Aborted, "the agent was stopped by a signal");
            self.leave(Leave::Exit(Then::Hold));
        }
    }

    /// When to call [`Self::on_time`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let Some(since) = self.lost else { return Time(u64::MAX) };
        let patience = since.after(self.patience());
        if let Link::Down { call_at } = self.link { call_at.min(patience) } else { patience }
    }

    /// What the run has to say waits until the server has heard the hello.
    fn report(&mut self) {
        while self.link == Link::Greeted
            && let Some(message) = self.task_mut().and_then(Task::poll_message)
        {
            self.acts.push_back(VisitAct::Say(message));
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<VisitAct<T>> {
        if self.acts.is_empty() {
            self.report();
        }
        self.acts.pop_front()
    }
}
