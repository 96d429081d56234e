//! Callers of the listener: the run says which of them may be its upstream.

use super::Agent;
use crate::callers::Calling;
use crate::random::random_bytes;
use crate::run::Run;
use slidecast_proto::units::Time;
use std::net::IpAddr;
use std::time::Duration;

/// How many callers are let in before everything else has its turn.
const CALLERS: usize = 32;
/// The pause between two lines about callers that are none of ours.
const STRANGERS: Duration = Duration::from_secs(1);

impl Agent<'_> {
    /// Lets callers in and out; the upstream is `expected` to call from this address. Gives when this must be done again at the
    /// latest.
    pub(super) fn receive_callers(&mut self, mut run: Option<&mut Run>, expected: Option<IpAddr>, now: Time) -> Time {
        for _ in 0..CALLERS {
            let Some((stream, peer)) = self.events.accept() else { break };
            match self.callers.enter(stream, peer, expected, self.events.registry(), now) {
                Ok(None) => {}
                Ok(Some(calling)) => self.strangers.take(calling, now),
                Err(error) => log::debug!("call from {peer}: {error}"),
            }
        }
        while let Some(calling) = self.callers.poll(now) {
            match (calling, &mut run, random_bytes()) {
                (Calling::Spoke { caller, peer, header, payload }, Some(run), Some(nonce)) => {
                    match run.on_hello(&header, &payload, nonce, now) {
                        Ok(candidate) => self.callers.answer(caller, candidate),
                        Err(fault) => {
                            log::debug!("call from {peer}: {fault}");
                            self.callers.refuse(caller, header.deployment, &fault.to_string());
                        }
                    }
                }
                (Calling::Spoke { caller, header, .. }, _, _) => {
                    self.callers.refuse(caller, header.deployment, "no deployment here");
                }
                (Calling::Proven { conn, candidate }, Some(run), _) => {
                    run.on_proven(*conn, *candidate, self.events.registry(), now);
                }
                (Calling::Proven { .. }, None, _) => {}
                (stranger, _, _) => self.strangers.take(stranger, now),
            }
        }
        let deadline = self.callers.deadline().unwrap_or(Time(u64::MAX));
        self.events.accept_at().map_or(deadline, |at| at.min(deadline))
    }
}

/// Callers that are none of ours: one line each, but never more than one in a second.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    said: Option<Time>,
    unsaid: u64,
}

impl Strangers {
    fn take(&mut self, calling: Calling, now: Time) {
        let Calling::Stranger { peer, why } = calling else { return };
        if self.said.is_some_and(|said| now.since(said) < STRANGERS) {
            self.unsaid += 1;
            return;
        }
        self.said = Some(now);
        match std::mem::take(&mut self.unsaid) {
            0 => log::warn!("call from {peer}: {why}; hung up"),
            more => log::warn!("call from {peer}: {why}; hung up (and on {more} others before)"),
        }
    }
}
