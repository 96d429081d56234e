//! The sockets of callers, until one of them has proven that it is the upstream. Which of them may stay, and for how long, is decided
//! by [`slidecast_proto::callers`].

use crate::conn::{Arrival, Conn, Outgoing};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use slidecast_proto::callers::{self, Heard, MAX_CALLERS};
use slidecast_proto::frame::Header;
use slidecast_proto::link::refusal;
use slidecast_proto::node::Candidate;
use slidecast_proto::units::{DeploymentId, Time};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// How much of what a caller says is read in one turn, in bytes.
const TURN: usize = 4096;

/// The connection of a caller that has proven nothing yet.
#[derive(Debug)]
struct Caller {
    conn: Conn,
    peer: SocketAddr,
    token: Token,
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
    callers: callers::Callers<Caller>,
    first_token: usize,
    next: usize,
}

impl Callers {
    /// How many callers there may be at a time.
    pub(crate) const PLACES: usize = MAX_CALLERS;

    /// Nobody yet. Callers have the [`Callers::PLACES`] tokens from `first_token` on.
    #[must_use]
    pub(crate) fn new(first_token: usize) -> Self {
        Self { callers: callers::Callers::default(), first_token, next: 0 }
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
        let stranger = |peer, why: &str| Calling::Stranger { peer, why: why.to_owned() };
        let Ok(gone) = self.callers.admit(peer.ip(), expected) else {
            return Ok(Some(stranger(peer, "too many calls")));
        };
        let gone = gone.map(|caller| stranger(caller.peer, "proved nothing, and others call"));
        let taken = |number: usize| self.callers.iter().any(|caller| caller.token.0 == self.first_token + number);
        let mut next = self.next;
        while taken(next) {
            next = (next + 1) % Self::PLACES;
        }
        self.next = next;
        let token = Token(self.first_token + next);
        let mut conn = Conn::over(stream);
        conn.tune();
        conn.register(registry, token)?;
        self.callers.enter(Caller { conn, peer, token }, peer.ip(), now);
        Ok(gone)
    }

    fn place(&self, token: Token) -> Option<usize> {
        self.callers.iter().position(|caller| caller.token == token)
    }

    /// Takes note of what the kernel says of a caller.
    pub(crate) fn on_event(&mut self, event: &Event) {
        if let Some(caller) = self.place(event.token()).and_then(|at| self.callers.get_mut(at)) {
            caller.conn.on_event(event);
        }
    }

    /// The Hello of `caller` was right: it is answered, and its proof awaited.
    pub(crate) fn answer(&mut self, caller: Token, candidate: Candidate) {
        let Some(at) = self.place(caller) else { return };
        if let Some(bytes) = self.callers.answer(at, candidate)
            && let Some(caller) = self.callers.get_mut(at)
        {
            caller.conn.start(Outgoing::Bytes(bytes));
        }
    }

    /// `caller` is told why it is not wanted, and hung up on.
    pub(crate) fn refuse(&mut self, caller: Token, deployment: DeploymentId, why: &str) {
        if let Some(caller) = self.place(caller).and_then(|at| self.callers.remove(at)) {
            caller.conn.say_last(refusal(deployment, why));
        }
    }

    /// The next caller of which something new is known.
    pub(crate) fn poll(&mut self, now: Time) -> Option<Calling> {
        for at in 0..self.callers.count() {
            let caller = self.callers.get_mut(at)?;
            let (token, peer) = (caller.token, caller.peer);
            let heard = match caller.advance(now) {
                Ok(None) => self.callers.on_time(at, now),
                Ok(Some((header, payload))) => match self.callers.on_frame(at, &header, &payload, now) {
                    Heard::First => return Some(Calling::Spoke { caller: token, peer, header, payload }),
                    heard => heard,
                },
                Err(why) => self.callers.put_out(at, why),
            };
            match heard {
                Heard::Nothing | Heard::First => {}
                Heard::Proven(Caller { conn, .. }, candidate) => {
                    return Some(Calling::Proven { conn: Box::new(conn), candidate });
                }
                Heard::Stranger(_, why) => return Some(Calling::Stranger { peer, why }),
            }
        }
        None
    }

    /// When [`Callers::poll`] must be called at the latest.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Time> {
        let at = |(caller, late): (&Caller, Time)| if caller.conn.can_receive() { Time::default() } else { late };
        self.callers.deadlines().map(at).min()
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
