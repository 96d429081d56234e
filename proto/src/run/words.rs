//! What a run tells the server: how far it is, once a second, and everything that the node has to say. While the server is away the
//! words wait, in bounds.

use super::Run;
use crate::bug::{self, Bug};
use crate::control::{LinkEvent, LinkState, Side, ToServer};
use crate::reason::Reason;
use crate::units::Time;
use core::time::Duration;

/// How often the server is told how far the node is.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How many messages wait for a server that is not there.
pub(super) const OUTBOX: usize = 256;
/// An acknowledgement that came within this time shows that the kernel at the other end lives.
const LIVELY: Duration = Duration::from_secs(1);
/// The same when it is the first second of silence that is to be explained: what is lost is sent again, and a full window is looked
/// at again, after 200, 600 and 1400 ms (RFC 6298 with Linux's least time-out).
const LIVELY_OF_LATE: Duration = Duration::from_millis(650);

impl<P: Clone> Run<P> {
    /// Ends a turn: tells the server how far the node is, if that is due. `written_bytes` is the disk's own count.
    pub fn report(&mut self, written_bytes: u64, now: Time) {
        if self.joined && self.report_at <= now && !bug::is(Bug::ReportForgotten) {
            self.report_at = now.after(REPORT_EVERY);
            let progress = self.node.progress(written_bytes);
            self.tell(ToServer::Progress(progress));
        }
    }

    /// How many messages wait for the server.
    #[must_use]
    pub fn waiting_messages(&self) -> usize {
        self.outbox.len()
    }

    /// A report that is late is of no use, but every other word is.
    pub(super) fn tell(&mut self, message: ToServer) {
        if self.outbox.len() >= OUTBOX {
            self.outbox.retain(|waiting| !matches!(waiting, ToServer::Progress(_)));
        }
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back(message);
        }
    }
}

/// A neighbour that is silent may be dead, cut off or stopped: its kernel knows.
pub(super) fn explain_silence(message: &mut ToServer, acknowledged: impl Fn(Side, Duration) -> Option<bool>) {
    let ToServer::Link(LinkEvent { side, state, reason, detail, .. }) = message else { return };
    let silent = match *state {
        LinkState::Suspect => *reason != Reason::LinkCorrupt,
        state => (state, *reason) == (LinkState::Down, Reason::TimedOut),
    };
    if !silent {
        return;
    }
    let within = if *state == LinkState::Suspect { LIVELY_OF_LATE } else { LIVELY };
    let acknowledged = acknowledged(*side, within);
    detail.push_str(match acknowledged {
        Some(true) => ", though its kernel answers: the agent there is stopped or stuck",
        Some(false) => ", and its kernel answers nothing: no power, no link, or what is sent gets lost",
        None => "",
    });
    if acknowledged == Some(false) {
        *reason = Reason::TimedOut;
    }
}
