//! Callers of a node's listener, until one of them has proven that it is the upstream.
//!
//! A first frame with the right numbers proves nothing. The caller is answered and stays here, outside the node, until its proof
//! holds; the present upstream is not touched before that. Callers are few, none stays for long, and a crowd of them cannot keep out
//! the address from which the upstream is expected.

use crate::door::{Admission, Door, Place};
use crate::frame::Header;
use crate::link::HANDSHAKE;
use crate::node::Candidate;
use crate::units::Time;
use std::net::IpAddr;

/// How many callers there may be at a time.
pub const MAX_CALLERS: usize = 32;
/// The newest of an address takes the place of its oldest: a neighbour that calls again has given up its earlier call.
const DOOR: Door = Door { places: MAX_CALLERS, per_address: 4, reserved: 8, newest_wins: true };

/// A caller that has proven nothing yet; `C` is its connection.
#[derive(Debug)]
struct Caller<C> {
    conn: C,
    address: IpAddr,
    since: Time,
    /// Its Hello was right, and its proof is to come.
    candidate: Option<Box<Candidate>>,
}

/// What follows from what a caller did.
#[derive(Debug)]
pub enum Heard<C> {
    /// It may go on.
    Nothing,
    /// This was its first frame. [`Callers::answer`] or [`Callers::remove`] is next.
    First,
    /// It has proven the link key.
    Proven(C, Box<Candidate>),
    /// It is none of ours, or took too long: its connection is to be closed. The text says why, for people.
    Stranger(C, String),
}

/// Callers that have proven nothing, each known by its place among them.
#[derive(Debug)]
pub struct Callers<C> {
    callers: Vec<Caller<C>>,
}

impl<C> Default for Callers<C> {
    /// Nobody.
    fn default() -> Self {
        Self { callers: Vec::new() }
    }
}

impl<C> Callers<C> {
    /// Whether a caller from `address` may enter; gives the one that is put out for it, if there is no other place. The upstream is
    /// `expected` to call from this address.
    ///
    /// # Errors
    /// [`Busy`]: there are too many.
    pub fn admit(&mut self, address: IpAddr, expected: Option<IpAddr>) -> Result<Option<C>, Busy> {
        let stage = |caller: &Caller<C>| u8::from(caller.candidate.is_some());
        let place = |caller: &Caller<C>| Place { address: caller.address, since: caller.since, stage: stage(caller) };
        let here: Vec<Place> = self.callers.iter().map(place).collect();
        match DOOR.admit(address, expected, &here) {
            Admission::Enter => Ok(None),
            Admission::Replace(at) => Ok(self.remove(at)),
            Admission::Busy => Err(Busy),
        }
    }

    /// A caller that was admitted comes in; gives its place.
    pub fn enter(&mut self, conn: C, address: IpAddr, now: Time) -> usize {
        self.callers.push(Caller { conn, address, since: now, candidate: None });
        self.callers.len() - 1
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.callers.len()
    }

    /// The connections, by place.
    pub fn iter(&self) -> impl Iterator<Item = &C> {
        self.callers.iter().map(|caller| &caller.conn)
    }

    /// The connection at a place.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut C> {
        self.callers.get_mut(at).map(|caller| &mut caller.conn)
    }

    /// Puts a caller out; gives its connection.
    pub fn remove(&mut self, at: usize) -> Option<C> {
        (at < self.callers.len()).then(|| self.callers.remove(at).conn)
    }

    /// The Hello of a caller was right: its proof is awaited. Gives the answer.
    pub fn answer(&mut self, at: usize, mut candidate: Candidate) -> Option<Vec<u8>> {
        let bytes = candidate.poll_control();
        self.callers.get_mut(at)?.candidate = Some(Box::new(candidate));
        bytes
    }

    /// A frame came from a caller.
    pub fn on_frame(&mut self, at: usize, header: &Header, payload: &[u8], now: Time) -> Heard<C> {
        let Some(caller) = self.callers.get_mut(at) else { return Heard::Nothing };
        let Some(candidate) = &mut caller.candidate else { return Heard::First };
        match candidate.on_frame(header, payload, now) {
            Ok(false) => Heard::Nothing,
            Ok(true) => {
                let Caller { conn, candidate, .. } = self.callers.remove(at);
                match candidate {
                    Some(candidate) => Heard::Proven(conn, candidate),
                    None => Heard::Stranger(conn, "proved nothing".to_owned()),
                }
            }
            Err(fault) => self.put_out(at, fault.to_string()),
        }
    }

    /// Nothing came from a caller. None may take longer than the handshake of a link.
    pub fn on_time(&mut self, at: usize, now: Time) -> Heard<C> {
        match self.callers.get(at) {
            Some(caller) if now.since(caller.since) >= HANDSHAKE => {
                let what = if caller.candidate.is_some() { "proved" } else { "said" };
                self.put_out(at, format!("{what} nothing for {} s", HANDSHAKE.as_secs()))
            }
            _ => Heard::Nothing,
        }
    }

    /// A caller did something that no upstream does, or is gone.
    pub fn put_out(&mut self, at: usize, why: String) -> Heard<C> {
        self.remove(at).map_or(Heard::Nothing, |conn| Heard::Stranger(conn, why))
    }

    /// When the patience with a caller is over, for each of them.
    pub fn deadlines(&self) -> impl Iterator<Item = (&C, Time)> {
        self.callers.iter().map(|caller| (&caller.conn, caller.since.after(HANDSHAKE)))
    }
}

/// There are too many callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::units::DeploymentId;

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_caller_is_heard_by_its_first_frame_and_put_out_when_its_handshake_takes_too_long() {
        let mut callers = Callers::default();
        assert_eq!(callers.admit(from(1), None), Ok(None));
        let at = callers.enter("one", from(1), Time(0));
        let header = Header::bare(Kind::Hello, DeploymentId([0; 16]), 0);
        assert!(matches!(callers.on_frame(at, &header, &[], Time(1)), Heard::First));
        let late = Time(0).after(HANDSHAKE);
        assert!(matches!(callers.on_time(at, Time(late.0 - 1)), Heard::Nothing));
        assert_eq!(callers.deadlines().collect::<Vec<_>>(), [(&"one", late)]);
        let Heard::Stranger("one", why) = callers.on_time(at, late) else { panic!() };
        assert!(why.starts_with("said nothing for"), "{why}");
        assert_eq!(callers.count(), 0);
    }

    #[test]
    fn a_neighbour_that_calls_again_takes_the_place_of_its_oldest_call() {
        let mut callers = Callers::default();
        for at in 0..4 {
            assert_eq!(callers.admit(from(1), None), Ok(None));
            callers.enter(at, from(1), Time(at));
        }
        assert_eq!(callers.admit(from(1), None), Ok(Some(0)));
        assert_eq!(callers.iter().copied().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
