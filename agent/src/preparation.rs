//! Looks for the target and opens it on a thread of its own: a disk that has to spin up first answers after ten seconds, and the net
//! thread must be heard meanwhile.

use crate::cli::Target;
use crate::disk::Stopping;
use crate::disks::{disks, own_selector};
use crate::inventory::{self, Roots, Wait};
use crate::run::{Resources, Run};
use mio::Waker;
use slidecast_net::clock::Clock;
use slidecast_proto::control::{Disk, Prepare, Ready, Refused};
use slidecast_proto::reason::Reason;
use slidecast_proto::selector::Selector;
use slidecast_proto::units::{DeploymentId, NodeId};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

/// How long the disk of a deployment that was given up may take to be closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(10);

/// What the server ordered, and what there is to obey with.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) prepare: Prepare,
    /// The one disk that somebody picked.
    pub(crate) picked: Option<Disk>,
    /// The agent's own `--target`.
    pub(crate) target: Option<Target>,
    /// How large the ring may be.
    pub(crate) ring: u64,
    /// What the server calls the node.
    pub(crate) node: NodeId,
    /// The card on which its neighbours are.
    pub(crate) card: Option<String>,
    /// The machine is the agent's own.
    pub(crate) machine: bool,
    /// A disk that may not be closed yet, perhaps the one that is to be opened.
    pub(crate) stopping: Option<Stopping>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) result: Result<(Run, Ready), Refused>,
    pub(crate) prepare: Prepare,
    /// The disks there were.
    pub(crate) disks: Vec<Disk>,
    /// The agent's own `--target`, links in its path followed.
    pub(crate) own: Selector,
}

/// The thread, until it has its answer.
#[derive(Debug)]
pub(crate) struct Preparation {
    deployment: DeploymentId,
    answer: Receiver<Prepared>,
}

impl Preparation {
    /// Starts the thread; `waker` tells when there is something to [`Preparation::poll`]. What an `earlier` one opened is closed first.
    ///
    /// # Errors
    /// There is no room for a thread.
    pub(crate) fn start(
        wanted: Wanted,
        earlier: Option<Self>,
        clock: Clock,
        waker: Arc<Waker>,
    ) -> Result<Self, Refused> {
        let deployment = wanted.prepare.deployment;
        let (sender, answer) = sync_channel(1);
        let thread = Builder::new().name("slidecast-open".to_owned()).spawn(move || {
            // Its thread has ended when this comes back, one way or the other.
            drop(earlier.map(|earlier| earlier.answer.recv()));
            let found = wanted.prepare(clock, &waker);
            // Whoever asked may have stopped asking; then the disk is closed again here.
            if sender.send(found).is_ok()
                && let Err(error) = waker.wake()
            {
                log::error!("waking the net thread: {error}");
            }
        });
        thread.map_err(|error| failed(deployment, &error))?;
        Ok(Self { deployment, answer })
    }

    /// The answer, once, and the deployment that it is for.
    pub(crate) fn poll(&self) -> Option<(DeploymentId, Result<Prepared, Refused>)> {
        let answer = match self.answer.try_recv() {
            Ok(found) => Ok(found),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(failed(self.deployment, &io::Error::other("the thread broke off"))),
        };
        Some((self.deployment, answer))
    }
}

fn failed(deployment: DeploymentId, error: &io::Error) -> Refused {
    let detail = format!("opening the target on a thread of its own: {error}");
    Refused { deployment, reason: Reason::Internal, detail }
}

impl Wanted {
    fn prepare(self, clock: Clock, waker: &Arc<Waker>) -> Prepared {
        let patient_until = Instant::now() + CLOSE_WITHIN;
        while self.stopping.as_ref().is_some_and(|stopping| !stopping.is_over()) && Instant::now() < patient_until {
            sleep(LOOK);
        }
        let available = inventory::memory(&Roots::default()).available;
        let ring = if available == 0 { self.ring } else { self.ring.min(available / 4) };
        let own = own_selector(Wait::ForAll, self.target.as_ref());
        let mut disks = disks(Wait::ForAll, &own, self.machine);
        if let Some(picked) = &self.picked {
            disks.retain(|disk| disk.path == picked.path && disk.serial == picked.serial);
        }
        let (card, waker) = (self.card.as_deref(), Arc::clone(waker));
        let resources = Resources { node: self.node, disks: &disks, own: &own, ring, card, waker };
        let result = Run::prepare(self.prepare.clone(), &resources, clock.now());
        Prepared { result, prepare: self.prepare, disks, own }
    }
}
