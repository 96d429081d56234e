//! A machine that is there for nothing but this agent: somebody may watch it, and be asked.

use crate::boot::KernelLog;
use crate::status::Board;
use mio::Waker;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

/// The agent's side.
#[derive(Debug)]
pub(crate) struct Machine {
    board: Board,
    /// Somebody is there to answer.
    attended: bool,
    /// Why nothing may be written here.
    held: Option<String>,
    /// What the kernel says, where it can be read.
    kernel: Option<KernelLog>,
    answers: Receiver<usize>,
    waker: Arc<OnceLock<Arc<Waker>>>,
}

/// The console side: screen and keyboard.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    answers: SyncSender<usize>,
    waker: Arc<OnceLock<Arc<Waker>>>,
}

/// A machine that shows its status on `board`, and its console.
pub(crate) fn pair(board: Board, attended: bool) -> (Machine, Operator) {
    let (sender, answers) = sync_channel(1);
    let waker = Arc::new(OnceLock::new());
    (
        Machine { board, attended, held: None, kernel: None, answers, waker: Arc::clone(&waker) },
        Operator { answers: sender, waker },
    )
}

impl Machine {
    /// Where it is shown how things stand.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// Whether there is somebody to ask.
    pub(crate) fn is_attended(&self) -> bool {
        self.attended
    }

    /// The same machine, on which nothing may be written, and why.
    pub(crate) fn hold(self, why: &str) -> Self {
        self.board.hold(why);
        Self { held: Some(why.to_owned()), ..self }
    }

    /// The same machine, with what its kernel says.
    pub(crate) fn with_kernel(self, kernel: Option<KernelLog>) -> Self {
        Self { kernel, ..self }
    }

    /// What the kernel says, where it can be read.
    pub(crate) fn kernel(&self) -> Option<&KernelLog> {
        self.kernel.as_ref()
    }

    /// Why nothing may be written here, if that is so.
    pub(crate) fn held(&self) -> Option<&str> {
        self.held.as_deref()
    }

    /// What makes [`Self::poll_answer`] be called.
    pub(crate) fn wake_with(&self, waker: Arc<Waker>) {
        let _ = self.waker.set(waker);
    }

    /// Which of the disks that were asked about was picked.
    pub(crate) fn poll_answer(&self) -> Option<usize> {
        self.answers.try_recv().ok()
    }
}

impl Operator {
    pub(crate) fn answer(&self, disk: usize) {
        let _ = self.answers.try_send(disk);
        if let Some(Err(error)) = self.waker.get().map(|waker| waker.wake()) {
            log::error!("waking the net thread: {error}");
        }
    }
}
