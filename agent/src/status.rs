//! The status of this node, for the console of a machine that belongs to the agent.
//!
//! What is known is taken from the words between agent and server as they pass.

use slidecast_proto::approval::Code;
use slidecast_proto::control::{Disk, ToAgent, ToServer};
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::{EndState, Phase, Reason, Then};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Devices are being found.
    #[default]
    Starting,
    /// The server is being looked for.
    Searching,
    /// There is a server, but no deployment yet.
    Waiting,
    /// The server takes only machines that somebody approves.
    Approving,
    /// Somebody has to pick a disk.
    Asking,
    /// The target is open, the others are not ready yet.
    Ready,
    /// What the disk held before is compared with the image.
    Comparing,
    /// Blocks come in and are written.
    Receiving,
    /// All blocks are here; they are being read back.
    Verifying,
    /// The head of the disk is being written.
    Finishing,
    /// The disk is done, or written where that was asked for.
    Done(EndState),
    Failed,
}

/// How far the disk is, in blocks, and what went through this node, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Blocks of the image; 0 while that is not known.
    pub(crate) blocks: u32,
    /// Blocks that have come.
    pub(crate) accepted: u32,
    /// Read back and equal.
    pub(crate) verified: u32,
    /// Received from the upstream.
    pub(crate) received_bytes: u64,
    /// Written to the disk.
    pub(crate) written_bytes: u64,
}

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) stage: Stage,
    /// Addresses by network card.
    pub(crate) links: BTreeMap<String, String>,
    pub(crate) server: Option<SocketAddr>,
    /// What the server calls this node.
    pub(crate) node: Option<u32>,
    /// The code by which this machine is approved at the server.
    pub(crate) code: Option<Code>,
    pub(crate) image: String,
    pub(crate) target: String,
    /// Position in the chain, and its length.
    pub(crate) position: Option<(u16, u16)>,
    pub(crate) figures: Figures,
    /// When the first block came.
    pub(crate) began: Option<Instant>,
    /// The last failure: reason and detail.
    pub(crate) failure: Option<(Reason, String)>,
    /// The disks among which somebody has to pick, and the one that was picked but not confirmed yet.
    pub(crate) question: Vec<String>,
    pub(crate) picked: Option<usize>,
    /// The whole screen shows the log.
    pub(crate) only_log: bool,
}

/// Where the status stands. Copies are the same board.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Status>>);

impl Board {
    /// Changes what stands there.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Status) -> T) {
        change(&mut self.lock());
    }

    /// What stands there.
    pub(crate) fn read(&self) -> Status {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server is being looked for (again).
    pub(crate) fn on_search(&self) {
        log::info!("waiting for server");
        self.update(|status| {
            (status.server, status.code) = (None, None);
            status.question.clear();
            // What came of the last deployment stays in sight.
            if !matches!(status.stage, Stage::Done(_) | Stage::Failed) {
                status.stage = Stage::Searching;
            }
        });
    }

    /// A server has proven itself.
    pub(crate) fn on_server(&self, server: SocketAddr) {
        log::info!("server {server}");
        self.update(|status| {
            status.server = Some(server);
            if status.stage == Stage::Searching {
                status.stage = Stage::Waiting;
            }
        });
    }

    /// Hears an order of the server.
    pub(crate) fn on_order(&self, order: &ToAgent) {
        match order {
            ToAgent::Welcome(welcome) => self.update(|status| {
                (status.node, status.code) = (Some(welcome.node.0), None);
                if status.stage == Stage::Approving {
                    status.stage = Stage::Waiting;
                }
            }),
            // Also where another deployment was done or failed: somebody has to see it now.
            ToAgent::NotApproved(_) => self.update(|status| (status.stage, status.code) = (Stage::Approving, None)),
            ToAgent::Prepare(prepare) => self.update(|status| {
                status.image = format!("{} ({})", prepare.image, Bytes(prepare.disk_bytes));
                (status.position, status.figures, status.began, status.failure) =
                    (None, Figures::default(), None, None);
            }),
            ToAgent::Join(join) => self.update(|status| status.position = Some((join.position, join.chain_len))),
            ToAgent::Finish(finish) if finish.then == Then::Hold => log::info!("holding"),
            // What others failed of does not undo a disk that is done.
            ToAgent::Abort(abort) if !self.has_ended() => self.fail(abort.reason, &abort.detail),
            _ => {}
        }
    }

    /// Hears what the node tells the server, of an image of so many blocks.
    pub(crate) fn on_said(&self, message: &ToServer, blocks: Option<u32>) {
        match message {
            ToServer::Ready(ready) => self.update(|status| {
                status.stage = Stage::Ready;
                status.target = format!("{} ({})", ready.target, ready.describe);
                status.question.clear();
            }),
            ToServer::Refused(refused) => self.fail(refused.reason, &refused.detail),
            ToServer::Progress(progress) => self.update(|status| {
                status.figures = Figures {
                    blocks: blocks.unwrap_or(0),
                    accepted: progress.accepted,
                    verified: progress.verified,
                    received_bytes: progress.received_bytes,
                    written_bytes: progress.written_bytes,
                };
                match progress.phase {
                    Phase::Preparing => status.stage = Stage::Comparing,
                    Phase::Receiving => status.stage = Stage::Receiving,
                    Phase::Verifying => status.stage = Stage::Verifying,
                    Phase::Finishing => status.stage = Stage::Finishing,
                    _ => {}
                }
                if progress.received_bytes > 0 && status.began.is_none() {
                    status.began = Some(Instant::now());
                }
            }),
            ToServer::Ended(ended) if ended.state == EndState::Failed => self.fail(ended.reason, &ended.detail),
            ToServer::Ended(ended) => {
                log::info!("{}", ended.state);
                self.update(|status| status.stage = Stage::Done(ended.state));
            }
            _ => {}
        }
    }

    /// The code by which this machine is approved at the server.
    pub(crate) fn show_code(&self, code: Code) {
        self.update(|status| status.code = Some(code));
    }

    fn has_ended(&self) -> bool {
        matches!(self.lock().stage, Stage::Done(_) | Stage::Failed)
    }

    /// The disk will not be done. Of several reasons the first one counts.
    pub(crate) fn fail(&self, reason: Reason, detail: &str) {
        if self.has_ended() {
            return;
        }
        log::error!("failed {reason} {detail}");
        self.update(|status| {
            status.stage = Stage::Failed;
            status.failure = Some((reason, detail.to_owned()));
            status.question.clear();
        });
    }

    /// Nothing may be written on this machine, whatever is asked of it.
    pub(crate) fn hold(&self, why: &str) {
        self.update(|status| {
            status.stage = Stage::Failed;
            status.failure = Some((Reason::TargetRefused, why.to_owned()));
        });
    }

    /// Somebody has to pick one of these disks.
    pub(crate) fn ask(&self, disks: &[Disk]) {
        self.update(|status| {
            status.stage = Stage::Asking;
            status.question = disks.iter().map(ToString::to_string).collect();
            status.picked = None;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slidecast_proto::control::{Abort, Ended, NotApproved, Refused, Welcome};
    use slidecast_proto::reason::{LookedAt, Verified};
    use slidecast_proto::units::{DeploymentId, Hash, NodeId};

    const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);

    fn ended(state: EndState) -> ToServer {
        ToServer::Ended(Ended {
            deployment: DEPLOYMENT,
            root: Hash([0; 32]),
            state,
            reason: if state == EndState::Failed { Reason::DiskWrite } else { Reason::None },
            detail: "detail".to_owned(),
            verified: Verified::No,
            blocks_written: 0,
            blocks_kept: 0,
            last_look: LookedAt::No,
            last_look_blocks: 0,
        })
    }

    fn abort() -> ToAgent {
        ToAgent::Abort(Abort { deployment: DEPLOYMENT, reason: Reason::Aborted, detail: String::new() })
    }

    #[test]
    fn a_disk_that_is_done_stays_done_whatever_becomes_of_the_others() {
        let board = Board::default();
        board.on_said(&ended(EndState::Done), Some(5));
        board.on_order(&abort());
        board.on_search();
        assert_eq!(board.read().stage, Stage::Done(EndState::Done));
    }

    #[test]
    fn a_machine_that_is_not_approved_shows_its_code_until_it_is() {
        let board = Board::default();
        board.on_said(&ended(EndState::Done), Some(5));
        board.on_order(&ToAgent::NotApproved(NotApproved { commitment: None }));
        let code: Code = "ABC234".parse().unwrap();
        board.show_code(code);
        assert_eq!((board.read().stage, board.read().code), (Stage::Approving, Some(code)));
        let (node, server_version) = (NodeId(1), String::new());
        board.on_order(&ToAgent::Welcome(Welcome { node, server_version }));
        assert_eq!((board.read().stage, board.read().code), (Stage::Waiting, None));
        // A link that is made anew has another code.
        board.on_order(&ToAgent::NotApproved(NotApproved { commitment: None }));
        board.show_code(code);
        board.on_search();
        assert_eq!((board.read().stage, board.read().code), (Stage::Searching, None));
    }

    #[test]
    fn of_several_failures_the_first_one_is_shown() {
        let board = Board::default();
        board.on_said(&ended(EndState::Failed), Some(5));
        board.on_order(&abort());
        board.on_search();
        assert_eq!(board.read().failure, Some((Reason::DiskWrite, "detail".to_owned())));
    }

    #[test]
    fn an_aborted_deployment_and_a_refused_disk_are_failures() {
        let board = Board::default();
        board.on_order(&abort());
        assert_eq!(
            (board.read().stage, board.read().failure.map(|(reason, _)| reason)),
            (Stage::Failed, Some(Reason::Aborted))
        );
        let (reason, detail) = (Reason::TargetAmbiguous, String::new());
        let board = Board::default();
        board.ask(&[]);
        board.on_said(&ToServer::Refused(Refused { deployment: DEPLOYMENT, reason, detail }), None);
        assert_eq!(board.read().failure.map(|(reason, _)| reason), Some(Reason::TargetAmbiguous));
    }
}
