//! An agent that is not approved yet: what it hears of that, and the code that it shows.

use crate::control::Control;
use crate::run::fresh;
use crate::status::Board;
use slidecast_proto::approval::{Applicant, Share};
use slidecast_proto::control::{NotApproved, ToServer};

/// How far the approval on one control link is.
#[derive(Debug, Default)]
pub(crate) struct Approving {
    /// The server has said that this agent has to wait.
    waits: bool,
    applicant: Option<Applicant>,
}

impl Approving {
    /// The server has said that this agent has to wait. Gives what to answer.
    pub(crate) fn on_not_approved(&mut self, said: NotApproved, control: &Control) -> Option<ToServer> {
        if std::mem::replace(&mut self.waits, true) {
            // One code on one link: a server that may ask for others could look for one that fits.
            return None;
        }
        let Some(commitment) = said.commitment else {
            log::warn!("waiting for approval at the server");
            return None;
        };
        let (handshake, share) = (control.handshake_hash()?, Share(fresh()?));
        self.applicant = Some(Applicant::new(handshake, commitment, share));
        Some(ToServer::ApprovalShare(share))
    }

    /// The server has said its share: the code is shown.
    pub(crate) fn on_share(&mut self, share: Share, board: Option<&Board>) {
        let Some(applicant) = self.applicant.take() else { return };
        match applicant.on_share(share) {
            Ok(code) => {
                log::warn!("waiting for approval at the server, code {code}");
                board.into_iter().for_each(|board| board.show_code(code));
            }
            Err(_) => log::error!(
                "the server does not keep to its part of the code: none is shown; do not approve this machine"
            ),
        }
    }

    /// The server takes this agent now; gives whether it had to wait.
    pub(crate) fn on_welcome(&mut self) -> bool {
        let waited = std::mem::take(self).waits;
        if waited {
            log::info!("approved at the server");
        }
        waited
    }
}
