//! Looking for a server: a few are tried at a time, and the first that proves itself is taken.

use super::Agent;
use crate::control::{Control, Lost};
use crate::dial::Server;
use crate::discover::{Search, TRIES, TRY_FOR};
use crate::error::AgentError;
use crate::event_loop::{CONTROL, DISCOVERY, TRIALS};
use crate::random::random_bytes;
use mio::Token;
use mio::event::Event;
use slidecast_proto::noise::SecretKey;
use slidecast_proto::reason::Reason;
use slidecast_proto::units::Time;

impl Agent<'_> {
    /// Starts to connect to a server.
    pub(super) fn call(&self, server: Server, token: Token) -> Result<Control, Lost> {
        Control::connect(server, &self.secret, self.key(), self.events.registry(), token, self.events.now())
    }

    /// Looks for a server until one has proven itself; `None` when the agent was stopped.
    pub(super) fn find(&mut self) -> Result<Option<Control>, AgentError> {
        self.board().inspect(|board| board.on_search());
        let now = self.events.now();
        let mut search = match self.arguments.server_name() {
            Ok(Some((host, port))) => Search::of_name(host, port, self.trust, self.events.waker(), now),
            _ => {
                let nonce = random_bytes().ok_or(AgentError::NoRandomness)?;
                let only = self.arguments.interface.clone();
                // On somebody else's machine its own routes decide, which may be elaborate.
                let keep = self.machine.is_some();
                let own = SecretKey::generate().map_err(|_| AgentError::NoRandomness)?;
                Search::on_cards(only, self.arguments.port, keep, self.trust, (nonce, &own), DISCOVERY, now)
            }
        };
        let mut tries = Tries::default();
        loop {
            let now = self.events.now();
            search.advance(self.events.registry(), now)?;
            if let Some(mut control) = tries.advance(&mut search, now) {
                match control.reregister(self.events.registry(), CONTROL) {
                    Ok(()) => return Ok(Some(control)),
                    Err(lost) => search.on_failure(control.server(), lost.reason(), &lost.to_string(), now),
                }
            }
            while let Some(token) = tries.free()
                && let Some(server) = search.poll(now)
            {
                match self.call(server.clone(), token) {
                    Ok(control) => tries.controls.push((token, control)),
                    Err(lost) => search.on_failure(&server, lost.reason(), &lost.to_string(), now),
                }
            }
            let next = if tries.free().is_some() { search.deadline() } else { search.ask_at() };
            let deadline = tries.deadline(&search, now).min(next).min(self.receive_callers(None, None, now));
            self.events.wait(deadline, |event| {
                self.callers.on_event(event);
                search.on_event(event);
                tries.on_event(event);
            })?;
            if self.events.is_stopped() {
                log::info!("stopped by a signal");
                return Ok(None);
            }
        }
    }
}

/// Servers that are being tried, a few at a time: one that does not answer must not keep out the next.
#[derive(Debug, Default)]
struct Tries {
    controls: Vec<(Token, Control)>,
}

impl Tries {
    /// A token for one more, if there may be one more.
    fn free(&self) -> Option<Token> {
        let taken = |token: &Token| self.controls.iter().any(|(other, _)| other == token);
        (TRIALS..TRIALS + TRIES).map(Token).find(|token| !taken(token))
    }

    /// Goes on with all of them; gives the first that has proven itself. What failed is told to the search.
    fn advance(&mut self, search: &mut Search, now: Time) -> Option<Control> {
        if self.free().is_none() {
            self.make_room(search, now);
        }
        let crowded = self.free().is_none() && search.has_untried(now);
        let mut at = 0;
        while let Some((_, control)) = self.controls.get_mut(at) {
            match control.advance(now) {
                Ok(()) if control.is_open() => return Some(self.controls.swap_remove(at).1),
                Ok(()) if crowded && now.since(control.opened()) >= TRY_FOR => {
                    let why = format!("no answer within {} s", TRY_FOR.as_secs());
                    search.on_failure(control.server(), Reason::ServerLost, &why, now);
                    self.controls.swap_remove(at);
                }
                Ok(()) => at += 1,
                Err(lost) => {
                    search.on_failure(control.server(), lost.reason(), &lost.to_string(), now);
                    self.controls.swap_remove(at);
                }
            }
        }
        None
    }

    /// Gives up the oldest try of a server that only claims to be ours, if one waits that has proven it.
    fn make_room(&mut self, search: &mut Search, now: Time) {
        self.controls.sort_by_key(|(_, control)| control.opened());
        if let Some(at) = search.makes_room(self.controls.iter().map(|(_, control)| control.server()), now) {
            let (_, control) = self.controls.remove(at);
            search.on_failure(control.server(), Reason::ServerLost, "a proven offer comes first", now);
        }
    }

    fn deadline(&self, search: &Search, now: Time) -> Time {
        let crowded = self.free().is_none() && search.has_untried(now);
        let of = |(_, control): &(Token, Control)| {
            let late = if crowded { control.opened().after(TRY_FOR) } else { Time(u64::MAX) };
            control.deadline().min(late)
        };
        self.controls.iter().map(of).min().unwrap_or(Time(u64::MAX))
    }

    fn on_event(&mut self, event: &Event) {
        let of = self.controls.iter_mut().filter(|(token, _)| *token == event.token());
        of.for_each(|(_, control)| control.on_event(event));
    }
}
