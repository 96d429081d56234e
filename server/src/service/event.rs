//! What the service tells its front end.

use super::command::Command;
use super::state::StateFile;
use crate::approve::UnapprovedView;
use crate::feed::FeedContext;
use crate::report::Report;
use crate::view::{Facts, Snapshot, Tracker};
use slidecast_proto::approval::Unapproved;
use slidecast_proto::control::Hello;
use slidecast_proto::deployment::{Deployment, Stage};
use slidecast_proto::noise::PublicKey;
use slidecast_proto::plan::Plan;
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Something for the front end to show or to keep.
#[derive(Debug)]
pub enum Event {
    /// A line for the operator, fit to show: of a deployment, or of the port as a whole.
    Line(Option<DeploymentId>, String),
    /// Somebody was not let in; the line says why. Told once for each address.
    TurnedAway(String),
    /// An agent waits for approval.
    Unapproved(Box<UnapprovedView>),
    /// An agent is there, or has got or left a deployment.
    Machine(Box<MachineView>),
    /// The control link of this agent is gone.
    MachineGone(NodeId),
    /// These agents have said for some time that they are one machine: deployments that name their machines get none of them.
    Contested(Vec<NodeId>),
    /// This one of them is the only one again.
    Settled(NodeId),
    /// A deployment as it is now. There will be a newer one; this one may be dropped.
    Snapshot(DeploymentId, Box<Snapshot>),
    /// This deployment could not be started: the system refused.
    NotStarted(DeploymentId, io::Error),
    /// This deployment was in this stage when the command came to stop it.
    Stopping(DeploymentId, Stage),
    /// A machine with these hardware addresses has its image.
    HasImage(DeploymentId, Vec<[u8; 6]>),
    /// A deployment is over.
    Over(Box<Finished>),
}

/// A front end.
pub trait Front {
    /// Takes an event, in the thread of the service: it must not wait for anything. Gives a command that follows from it.
    fn on_event(&mut self, event: Event) -> Option<Command>;
}

/// An agent that is there.
#[derive(Clone, Debug)]
pub struct MachineView {
    /// Its number.
    pub node: NodeId,
    /// What it said when it called. Its texts are not fit to show yet.
    pub hello: Hello,
    /// The key that it has proven to have; none with `--insecure`.
    pub key: Option<PublicKey>,
    /// Where it calls from.
    pub address: IpAddr,
    /// The server's card that it came in on.
    pub card: String,
    /// The deployment that has it; if none has, it is idle.
    pub deployment: Option<DeploymentId>,
    /// Another agent that is there says that it is the same machine.
    pub contested: bool,
}

/// A deployment that is over. Dropping it waits until its state file is gone.
#[derive(Debug)]
pub struct Finished {
    /// Its id.
    pub id: DeploymentId,
    /// The machine: how each node ended.
    pub machine: Deployment,
    /// The plan as it was fixed.
    pub plan: Plan,
    /// What is shown of it.
    pub facts: Arc<Facts>,
    /// When it began.
    pub began: Time,
    pub(super) context: Arc<FeedContext>,
    pub(super) _state_file: Option<StateFile>,
}

impl Finished {
    /// Bytes that the server sent on chain links.
    #[must_use]
    pub fn egress(&self) -> u64 {
        self.context.egress.load(Ordering::Relaxed)
    }

    /// The report.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::of(&self.machine, &self.plan, &self.facts, self.egress())
    }

    /// How all nodes stand.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Tracker::default().snapshot(&self.machine, self.began, self.egress(), self.context.clock.now())
    }

    /// Agents that nobody approved stand in the report of the only deployment, too.
    pub fn add_unapproved(&mut self, closed: &Closed) {
        for (id, machine) in &closed.unapproved {
            self.machine.on_unapproved(*id, machine.clone(), self.context.clock.now());
        }
    }
}

/// What is left when a service has ended.
#[derive(Debug)]
pub struct Closed {
    /// Those that were never approved, with a number for each.
    pub unapproved: Vec<(NodeId, Unapproved)>,
}
