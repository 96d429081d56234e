//! What there is once per port: the listener, discovery, and the control links of all agents, whatever they take part in.

use super::answer::Answerer;
use super::link::{Broken, ControlLink, Standing};
use crate::nic::Nics;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slidecast_proto::control::{ToAgent, ToServer};
use slidecast_proto::door::{Admission, Door, Place};
use slidecast_proto::noise::{Channel, Mode, SecretKey};
use slidecast_proto::units::Time;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Bounds on callers that have not said hello: whatever they do, they hold a few sockets for a few seconds and nothing else.
const DOOR: Door = Door { places: 64, per_address: 2, reserved: 0, newest_wins: false };
/// How many callers at a time are told that there is no place for them; then the oldest is not told any more.
const TURNED_AWAY: usize = 16;
/// How long a caller may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(3);
/// How many callers are let in before everybody else has a turn.
const CALLERS: usize = 32;
/// How long to leave callers waiting when the system has no room for them.
const NO_ROOM: Duration = Duration::from_millis(200);

pub(super) const LISTENER: Token = Token(0);
pub(super) const DISCOVERY: Token = Token(1);
pub(super) const WAKE: Token = Token(3);
const FIRST_LINK: usize = 16;

/// A caller that was not let in.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) address: IpAddr,
    pub(super) why: String,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Port {
    poll: Poll,
    listener: TcpListener,
    answerer: Answerer,
    nics: Nics,
    secret: Option<SecretKey>,
    links: HashMap<Token, ControlLink>,
    next_link: usize,
    /// Sources that may have more waiting; their edge has passed.
    unfinished: HashSet<Token>,
    accept_at: Option<Time>,
}

impl Port {
    pub(super) fn new(
        poll: Poll,
        mut listener: TcpListener,
        mut answerer: Answerer,
        nics: Nics,
        secret: Option<SecretKey>,
    ) -> io::Result<Self> {
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(answerer.socket(), DISCOVERY, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            answerer,
            nics,
            secret,
            links: HashMap::new(),
            next_link: FIRST_LINK,
            unfinished: HashSet::new(),
            accept_at: None,
        })
    }

    pub(super) fn nics(&self) -> &Nics {
        &self.nics
    }

    pub(super) fn link(&mut self, token: Token) -> Option<&mut ControlLink> {
        self.links.get_mut(&token)
    }

    pub(super) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Waits for something to happen; gives what did.
    pub(super) fn wait(&mut self, events: &mut Events, patience: Duration) -> io::Result<HashSet<Token>> {
        let patience = if self.unfinished.is_empty() { patience } else { Duration::ZERO };
        match self.poll.poll(events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(HashSet::new()),
            result => result?,
        }
        let mut tokens = std::mem::take(&mut self.unfinished);
        tokens.extend(events.iter().map(Event::token));
        Ok(tokens)
    }

    /// When something is due though nothing happened.
    pub(super) fn deadline(&self) -> Option<Time> {
        let waiting = self.links.values().filter(|link| !link.standing.may_stay());
        waiting.map(|link| link.since.after(HELLO_WITHIN)).chain(self.accept_at).min()
    }

    /// Lets time pass: whoever takes too long to say hello, or to go, is gone. Gives whether callers wait to be let in.
    pub(super) fn on_time(&mut self, now: Time) -> bool {
        let late = |link: &ControlLink| !link.standing.may_stay() && now.since(link.since) >= HELLO_WITHIN;
        let slow: Vec<Token> = self.links.iter().filter(|(_, link)| late(link)).map(|(token, _)| *token).collect();
        slow.into_iter().for_each(|token| self.drop_link(token));
        self.accept_at.is_some_and(|at| now >= at)
    }

    /// Answers seeks.
    pub(super) fn answer(&mut self, now: Time) {
        if self.answerer.turn(&self.nics, now) {
            self.unfinished.insert(DISCOVERY);
        }
    }

    /// Lets callers in, or after the end sends them away; gives those that were refused.
    pub(super) fn accept(&mut self, closing: bool, now: Time) -> Vec<Refused> {
        self.accept_at = None;
        let mut refused = Vec::new();
        for _ in 0..CALLERS {
            match self.listener.accept() {
                Ok((socket, from)) if !closing => match self.admit(socket, from.ip().to_canonical(), now) {
                    Ok(admitted) => refused.extend(admitted),
                    Err(error) => log::debug!("call from {from}: {error}"),
                },
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return refused,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A caller that is gone already says so here, and the next one waits; without room it is no use to ask.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::warn!("no room for another connection: {error}");
                    self.accept_at = Some(now.after(NO_ROOM));
                    return refused;
                }
            }
        }
        self.unfinished.insert(LISTENER);
        refused
    }

    fn admit(&mut self, mut socket: TcpStream, from: IpAddr, now: Time) -> io::Result<Option<Refused>> {
        let local = socket.local_addr()?.ip();
        let Some(card) = self.nics.with_address(local).map(|nic| nic.name.clone()) else {
            let why = format!("{} is on none of the --interface cards", local.to_canonical());
            return Ok(Some(Refused { address: from, why }));
        };
        let (mut busy, mut strangers) = (Vec::new(), Vec::new());
        for (token, link) in &self.links {
            match link.standing {
                standing if standing.may_stay() => {}
                Standing::Stranger if !link.busy => strangers.push((*token, link.place())),
                _ => busy.push((link.since, *token)),
            }
        }
        let places: Vec<Place> = strangers.iter().map(|(_, place)| *place).collect();
        let secret = self.secret.as_ref();
        let admission = DOOR.admit(from, None, &places);
        let channel = match admission {
            Admission::Busy => Channel::busy_server(if secret.is_some() { Mode::Pinned } else { Mode::Insecure }),
            _ => Channel::server(secret),
        };
        match admission {
            Admission::Replace(index) => self.drop_link(strangers[index].0),
            Admission::Busy if busy.len() >= TURNED_AWAY => {
                busy.iter().min().map(|(_, oldest)| *oldest).into_iter().for_each(|oldest| self.drop_link(oldest));
            }
            _ => {}
        }
        socket.set_nodelay(true)?;
        let token = Token(self.next_link);
        self.next_link += 1;
        self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut link = ControlLink::new(socket, channel, from, card, now);
        link.busy = admission == Admission::Busy;
        self.links.insert(token, link);
        Ok(None)
    }

    pub(super) fn drop_link(&mut self, token: Token) {
        if let Some(mut link) = self.links.remove(&token) {
            // Closing takes it out of the poll set anyway.
            let _ = self.poll.registry().deregister(link.socket());
        }
    }

    /// Reads what has come on a link. Messages are put in `messages`, also those before an error.
    pub(super) fn read(&mut self, token: Token, messages: &mut Vec<ToServer>) -> Result<(), Broken> {
        let Some(link) = self.links.get_mut(&token) else { return Ok(()) };
        if link.read(messages)? {
            self.unfinished.insert(token);
        }
        Ok(())
    }

    /// Writes what waits on a link, as far as its socket takes it.
    pub(super) fn write(&mut self, token: Token, now: Time) -> Result<(), Broken> {
        match self.links.get_mut(&token) {
            Some(link) if link.standing == Standing::Parting => {
                link.part(now);
                Ok(())
            }
            Some(link) => link.write(),
            None => Ok(()),
        }
    }

    /// Sends an order.
    pub(super) fn send(&mut self, token: Token, order: &ToAgent) -> Result<(), Broken> {
        let Some(link) = self.links.get_mut(&token) else { return Ok(()) };
        link.send(order).and_then(|()| link.write())
    }

    /// Has a link end after what still waits on it.
    pub(super) fn part(&mut self, token: Token, now: Time) {
        self.links.get_mut(&token).into_iter().for_each(|link| link.part(now));
    }

    /// Has all links end.
    pub(super) fn part_all(&mut self, now: Time) {
        self.links.values_mut().for_each(|link| link.part(now));
    }
}
