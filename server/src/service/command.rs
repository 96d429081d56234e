//! What a front end, and the threads of the service itself, tell the event loop.

use super::state::{StateFile, Unfinished};
use crate::approve::Heard;
use crate::view::Facts;
use mio::Waker;
use slidecast_image::Resolved;
use slidecast_proto::deployment::DeploymentConfig;
use slidecast_proto::feed::FeedEvent;
use slidecast_proto::fleet::Wanted;
use slidecast_proto::units::{BlockNo, DeploymentId};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Messages that may wait for the event loop before their senders do.
const MAX_WAITING: usize = 256;

/// A command of a front end.
#[derive(Debug)]
pub enum Command {
    /// Start a deployment. [`super::Event::NotStarted`] tells if that fails.
    Start(Box<Start>),
    /// A deployment begins with the machines that are ready, however many it was to wait for.
    Begin(DeploymentId),
    /// Stop a deployment: its agents are told, and disks that are being written stay marked.
    Stop(DeploymentId),
    /// The operator typed something: the code of a machine that waits for approval.
    Heard(Heard),
    /// End: nobody is let in any longer, and all control links are closed.
    Close,
}

/// A deployment to start.
pub struct Start {
    /// The image.
    pub image: Arc<Resolved>,
    /// What is shown of it.
    pub facts: Arc<Facts>,
    /// What its machine is told. The id in `prepare` is that of the deployment; the service fills in its own network cards.
    pub config: DeploymentConfig,
    /// The agents that it wants.
    pub wanted: Wanted,
    /// Keeps its state; nothing if there is no place for it.
    pub state_file: Option<StateFile>,
    /// An earlier run of the server had begun it.
    pub resume: Option<Resume>,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").field("facts", &self.facts).field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// What an earlier run of the server left of a deployment.
#[derive(Debug)]
pub struct Resume {
    /// Its state.
    pub unfinished: Box<Unfinished>,
    /// Go on even if no agent has kept its state.
    pub at_once: bool,
}

/// What threads tell the event loop.
#[derive(Debug)]
pub(super) enum News {
    /// Of a front end.
    Command(Command),
    /// Of the feed with this serial number.
    Feed(DeploymentId, u64, FeedEvent),
    /// A block was checked in the image file; what is wrong with it, if anything is.
    Checked(DeploymentId, BlockNo, Option<String>),
    /// The state of a deployment was kept, or could not be.
    Kept,
}

/// Brings news to the event loop and wakes it.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    sender: SyncSender<News>,
    waker: Arc<Waker>,
}

impl Teller {
    pub(super) fn new(waker: Waker) -> (Self, Receiver<News>) {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        (Self { sender, waker: Arc::new(waker) }, receiver)
    }

    pub(super) fn tell(&self, news: News) {
        // At the very end nobody listens any more.
        if self.sender.send(news).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// Gives commands to a service from other threads. A command that comes after the end is dropped.
#[derive(Clone, Debug)]
pub struct Handle(pub(super) Teller);

impl Handle {
    /// Gives a command; waits while very many others wait. The thread of the service itself must not call this: it answers events instead.
    pub fn tell(&self, command: Command) {
        self.0.tell(News::Command(command));
    }
}
