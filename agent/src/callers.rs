//! Callers of the listener, until one of them has proven that it is the upstream.
//!
//! A first frame with the right numbers proves nothing. The caller is answered and stays here, outside the run, until its proof
//! holds; the present upstream is not touched before that. Callers are few, none stays for long, and a crowd of them cannot keep out
//! the address from which the upstream is expected.

use crate::conn::{Arrival, Conn, Outgoing};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use slidecast_proto::door::{Admission, Door, Place};
use slidecast_proto::frame::Header;
use slidecast_proto::link::{HANDSHAKE, refusal};
use slidecast_proto::node::Candidate;
use slidecast_proto::units::{DeploymentId, Time};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// How many callers there may be. The newest of an address takes the place of its oldest: a neighbour that calls again has given up
/// its earlier call.
const DOOR: Door = Door { places: Callers::PLACES, per_address: 4, reserved: 8, newest_wins: true };
/// How much of what a caller says is read in one turn, in bytes.
const TURN: usize = 4096;

/// A caller that has proven nothing yet.
#[derive(Debug)]
struct Caller {
    conn: Conn,
    peer: SocketAddr,
    token: Token,
    since: Time,
    /// Its Hello was right, and its proof is to come.
    candidate: Option<Box<Candidate>>,
}

/// What a caller turned out to be.
#[derive(Debug)]
pub(crate) enum Calling {
    /// It said this first: a link's Hello, if anything. [`Callers::answer`] or [`Callers::refuse`] is next.
    Spoke {
        /// Which caller.
        caller: Token,
        /// Where it calls from.
        peer: SocketAddr,
        /// The first frame.
        header: Header,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// It has proven the link key.
    Proven {
        /// The connection.
        conn: Box<Conn>,
        /// Its end of the link.
        candidate: Box<Candidate>,
    },
    /// It is none of ours, or took too long; the connection is closed.
    Stranger {
        /// Where it came from.
        peer: SocketAddr,
        /// What was wrong, for people.
        why: String,
    },
}

/// Callers that have proven nothing.
#[derive(Debug)]
pub(crate) struct Callers {
    callers: Vec<Caller>,
    first_token: usize,
    next: usize,
}

impl Callers {
    /// How many callers there may be at a time.
    pub(crate) const PLACES: usize = 32;

    /// Nobody yet. Callers have the [`Callers::PLACES`] tokens from `first_token` on.
    #[must_use]
    pub(crate) fn new(first_token: usize) -> Self {
        Self { callers: Vec::new(), first_token, next: 0 }
    }

    /// Lets a caller in. Gives what became of the one whose place it takes, if there was no other. The upstream is
    /// `expected` to call from this address.
    ///
    /// # Errors
    /// The connection can't be watched.
    pub(crate) fn enter(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        expected: Option<IpAddr>,
        registry: &Registry,
        now: Time,
    ) -> io::Result<Option<Calling>> {
        let stage = |caller: &Caller| u8::from(caller.candidate.is_some());
        let place = |caller: &Caller| Place { address: caller.peer.ip(), since: caller.since, stage: stage(caller) };
        let here: Vec<Place> = self.callers.iter().map(place).collect();
        let stranger = |peer, why: &str| Some(Calling::Stranger { peer, why: why.to_owned() });
        let gone = match DOOR.admit(peer.ip(), expected, &here) {
            Admission::Enter => None,
            Admission::Replace(at) => stranger(self.callers.remove(at).peer, "proved nothing, and others call"),
            Admission::Busy => return Ok(stranger(peer, "too many calls")),
        };
        let taken = |number: usize| self.callers.iter().any(|caller| caller.token.0 == self.first_token + number);
        while taken(self.next) {
            self.next = (self.next + 1) % Self::PLACES;
        }
        let token = Token(self.first_token + self.next);
        let mut conn = Conn::over(stream);
        conn.tune();
        conn.register(registry, token)?;
        self.callers.push(Caller { conn, peer, token, since: now, candidate: None });
        Ok(gone)
    }

    /// Takes note of what the kernel says of a caller.
    pub(crate) fn on_event(&mut self, event: &Event) {
        if let Some(caller) = self.callers.iter_mut().find(|caller| caller.token == event.token()) {
            caller.conn.on_event(event);
        }
    }

    /// The Hello of `caller` was right: it is answered, and its proof awaited.
    pub(crate) fn answer(&mut self, caller: Token, mut candidate: Candidate) {
        if let Some(caller) = self.callers.iter_mut().find(|other| other.token == caller) {
            if let Some(bytes) = candidate.poll_control() {
                caller.conn.start(Outgoing::Bytes(bytes));
            }
            caller.candidate = Some(Box::new(candidate));
        }
    }

    /// `caller` is told why it is not wanted, and hung up on.
    pub(crate) fn refuse(&mut self, caller: Token, deployment: DeploymentId, why: &str) {
        if let Some(at) = self.callers.iter().position(|other| other.token == caller) {
            self.callers.remove(at).conn.say_last(refusal(deployment, why));
        }
    }

    /// The next caller of which something new is known.
    pub(crate) fn poll(&mut self, now: Time) -> Option<Calling> {
        for at in 0..self.callers.len() {
            let caller = &mut self.callers[at];
            let result = match caller.advance(now) {
                Ok(None) if now.since(caller.since) >= HANDSHAKE => {
                    let what = if caller.candidate.is_some() { "proved" } else { "said" };
                    Err(format!("{what} nothing for {} s", HANDSHAKE.as_secs()))
                }
                Ok(None) => continue,
                Ok(Some((header, payload))) => match &mut caller.candidate {
                    None => {
                        let (caller, peer) = (caller.token, caller.peer);
                        return Some(Calling::Spoke { caller, peer, header, payload });
                    }
                    Some(candidate) => candidate.on_frame(&header, &payload, now).map_err(|fault| fault.to_string()),
                },
                Err(why) => Err(why),
            };
            if result == Ok(false) {
                continue;
            }
            let Caller { conn, peer, candidate, .. } = self.callers.remove(at);
            return Some(match (result, candidate) {
                (Ok(_), Some(candidate)) => Calling::Proven { conn: Box::new(conn), candidate },
                (Ok(_), None) => Calling::Stranger { peer, why: "proved nothing".to_owned() },
                (Err(why), _) => Calling::Stranger { peer, why },
            });
        }
        None
    }

    /// When [`Callers::poll`] must be called at the latest.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Time> {
        let more = |caller: &Caller| caller.conn.can_receive();
        let at = |caller: &Caller| if more(caller) { Time::default() } else { caller.since.after(HANDSHAKE) };
        self.callers.iter().map(at).min()
    }
}

impl Caller {
    /// Writes the answer as far as it goes, and gives the next frame.
    fn advance(&mut self, now: Time) -> Result<Option<(Header, Vec<u8>)>, String> {
        self.conn.flush().map_err(|error| error.to_string())?;
        self.conn.look_again(now);
        match self.conn.receive(&mut TURN.clone()) {
            Ok(None) => Ok(None),
            Ok(Some(Arrival::Control(header, payload))) => Ok(Some((header, payload))),
            Ok(Some(_)) => Err("sent a block and has proven nothing".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::net::TcpListener;
    use mio::{Events, Interest, Poll};
    use slidecast_proto::frame::Kind;
    use std::io::{Read, Write};
    use std::time::Duration;

    struct House {
        poll: Poll,
        listener: TcpListener,
        callers: Callers,
    }

    impl House {
        fn new() -> Self {
            let poll = Poll::new().unwrap();
            let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            poll.registry().register(&mut listener, Token(0), Interest::READABLE).unwrap();
            Self { poll, listener, callers: Callers::new(10) }
        }

        fn call(&self) -> std::net::TcpStream {
            std::net::TcpStream::connect(self.listener.local_addr().unwrap()).unwrap()
        }

        /// Turns the loop until a case is clear.
        fn next(&mut self, now: Time) -> Calling {
            let mut events = Events::with_capacity(16);
            loop {
                if let Some(calling) = self.callers.poll(now) {
                    return calling;
                }
                self.poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
                assert!(!events.is_empty(), "nothing happened for 5 s");
                for event in &events {
                    self.callers.on_event(event);
                    while let Ok((stream, peer)) = self.listener.accept() {
                        if let Some(gone) = self.callers.enter(stream, peer, None, self.poll.registry(), now).unwrap() {
                            return gone;
                        }
                    }
                }
            }
        }
    }

    fn hello() -> Vec<u8> {
        let payload = [1u8; 40];
        [&Header::with_payload(Kind::Hello, DeploymentId([0; 16]), 0, &payload).encode()[..], &payload].concat()
    }

    #[test]
    fn a_caller_is_known_by_its_first_frame() {
        let mut house = House::new();
        let mut caller = house.call();
        caller.write_all(&hello()).unwrap();
        let Calling::Spoke { header, payload, .. } = house.next(Time(0)) else { panic!() };
        assert_eq!((header.kind, payload.len()), (Kind::Hello, 40));
    }

    #[test]
    fn random_bytes_are_a_stranger_and_hung_up_on() {
        let mut house = House::new();
        let mut caller = house.call();
        caller.write_all(&[0x5A; 300]).unwrap();
        let Calling::Stranger { why, .. } = house.next(Time(0)) else { panic!() };
        assert_eq!(why, "not a SlideCast frame");
        caller.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(!matches!(caller.read(&mut [0; 1]), Ok(1)));
    }

    #[test]
    fn a_caller_that_says_nothing_has_as_long_as_the_handshake_may_take() {
        let mut house = House::new();
        let _caller = house.call();
        let mut events = Events::with_capacity(4);
        while house.callers.deadline().is_none() {
            house.poll.poll(&mut events, None).unwrap();
            let (stream, peer) = house.listener.accept().unwrap();
            house.callers.enter(stream, peer, None, house.poll.registry(), Time(0)).unwrap();
        }
        let deadline = house.callers.deadline().unwrap();
        assert!(house.callers.poll(Time(deadline.0 - 1)).is_none());
        assert!(matches!(house.callers.poll(deadline), Some(Calling::Stranger { .. })));
    }

    #[test]
    fn idle_callers_cannot_keep_the_upstream_out() {
        let mut house = House::new();
        let idle: Vec<_> = (0..Callers::PLACES).map(|_| house.call()).collect();
        let mut upstream = house.call();
        upstream.write_all(&hello()).unwrap();
        let mut gone = 0;
        let spoke = loop {
            match house.next(Time(0)) {
                Calling::Stranger { .. } => gone += 1,
                spoke => break spoke,
            }
        };
        assert!(matches!(spoke, Calling::Spoke { .. }));
        assert!(gone > 0, "the oldest go");
        drop(idle);
    }
}
