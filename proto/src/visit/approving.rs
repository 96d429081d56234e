//! What an agent does that is not approved yet: it draws its part of one code for each control link, and no more. A server that
//! could ask for others could look for one that fits.

use super::VisitAct;
use crate::approval::{Applicant, Commitment, Share};
use crate::control::ToServer;

/// How far the approval on one control link is.
#[derive(Debug, Default)]
pub(super) struct Approving {
    /// The hash of the handshake and this end's share; used once.
    drawn: Option<([u8; 32], Share)>,
    /// The server has said that this agent has to wait.
    waits: bool,
    applicant: Option<Applicant>,
}

impl Approving {
    /// On a new control link.
    pub(super) fn on(drawn: Option<([u8; 32], Share)>) -> Self {
        Self { drawn, waits: false, applicant: None }
    }

    /// The server has said that this agent has to wait.
    pub(super) fn on_wait<T>(&mut self, commitment: Option<Commitment>) -> Option<VisitAct<T>> {
        if std::mem::replace(&mut self.waits, true) {
            return None;
        }
        let Some(commitment) = commitment else { return Some(VisitAct::AwaitApproval(None)) };
        let (handshake, share) = self.drawn.take()?;
        self.applicant = Some(Applicant::new(handshake, commitment, share));
        Some(VisitAct::Say(ToServer::ApprovalShare(share)))
    }

    /// The server has said its share.
    pub(super) fn on_share<T>(&mut self, share: Share) -> Option<VisitAct<T>> {
        let code = self.applicant.take()?.on_share(share);
        Some(code.map_or(VisitAct::CodeIsFalse, |code| VisitAct::AwaitApproval(Some(code))))
    }

    /// The server takes this agent; gives whether it had to wait.
    pub(super) fn on_welcome(&mut self) -> bool {
        std::mem::take(self).waits
    }
}
