//! The listener of an agent: callers that have proven nothing yet, and the places that the machine ([`Callers`]) gives them.

use crate::core::Core;
use crate::network::{CALLED, CALLER, ConnId, Frame, SERVER, address_of};
use crate::run::Run;
use slidecast_proto::callers::{Callers, Heard};
use slidecast_proto::frame::{HEADER_LEN, Header};
use slidecast_proto::link::refusal;
use slidecast_proto::units::Time;

#[derive(Debug)]
pub(crate) struct Listener {
    agent: usize,
    callers: Callers<ConnId>,
}

impl Listener {
    pub(crate) fn new(agent: usize) -> Self {
        Self { agent, callers: Callers::default() }
    }

    /// A frame of a caller came. Gives nothing if the caller is to be hung up on.
    pub(crate) fn on_frame(
        &mut self,
        conn: ConnId,
        frame: &Frame,
        run: Option<&mut Run>,
        core: &mut Core,
    ) -> Option<()> {
        let known = self.callers.iter().position(|caller| *caller == conn);
        let at = match known {
            Some(at) => at,
            None => self.admit(conn, run.as_deref(), core)?,
        };
        let parsed = match frame {
            Frame::Whole(bytes) => bytes.split_first_chunk::<HEADER_LEN>(),
            _ => None,
        };
        let parsed = parsed.and_then(|(head, payload)| Some((Header::parse(head).ok()?, payload)));
        let heard = match &parsed {
            Some((header, payload)) => self.callers.on_frame(at, header, payload, core.now),
            None => self.callers.put_out(at, "no frame of a link".to_owned()),
        };
        match (heard, parsed) {
            (Heard::First, Some((header, payload))) => {
                let answer = run.map(|run| run.on_hello(&header, payload, core)).ok_or("no deployment here".to_owned());
                match answer.and_then(|answer| answer.map_err(|fault| fault.to_string())) {
                    Ok(candidate) => {
                        let bytes = self.callers.answer(at, candidate)?;
                        core.start(conn, CALLED, Frame::Whole(bytes));
                    }
                    Err(why) => {
                        core.note(format_args!("agent {}: refuses a call: {why}", self.agent));
                        core.start(conn, CALLED, Frame::Whole(refusal(header.deployment, &why)));
                        self.callers.remove(at);
                        return None;
                    }
                }
            }
            (Heard::Proven(conn, candidate), _) => run?.on_proven(conn, *candidate, core),
            (Heard::Stranger(..), _) => return None,
            (Heard::Nothing | Heard::First, _) => {}
        }
        Some(())
    }

    fn admit(&mut self, conn: ConnId, run: Option<&Run>, core: &mut Core) -> Option<usize> {
        let address = address_of(core.network.conn(conn).hosts[CALLER]);
        let expected = run.and_then(Run::upstream_address).unwrap_or(address_of(SERVER));
        let gone = self.callers.admit(address, Some(expected)).ok()?;
        gone.into_iter().for_each(|gone| core.close(gone, CALLED));
        Some(self.callers.enter(conn, address, core.now))
    }

    pub(crate) fn on_closed(&mut self, conn: ConnId) {
        let at = self.callers.iter().position(|caller| *caller == conn);
        at.and_then(|at| self.callers.remove(at));
    }

    /// Hangs up on callers that take too long.
    pub(crate) fn on_time(&mut self, core: &mut Core) {
        for at in (0..self.callers.count()).rev() {
            if let Heard::Stranger(conn, _) = self.callers.on_time(at, core.now) {
                core.close(conn, CALLED);
            }
        }
    }

    /// When [`Self::on_time`] must be called, if that is before `deadline`; else that.
    pub(crate) fn first(&self, deadline: Time) -> Time {
        self.callers.deadlines().map(|(_, at)| at).fold(deadline, Time::min)
    }
}
