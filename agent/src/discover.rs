//! Finding the server: seeks go out by broadcast on every network card, offers come back and say where to connect.
//!
//! An offer proves nothing: it only puts an address on the list of those to be tried; the handshake of the
//! control link decides.

use crate::cards;
use crate::cli::Trust;
use crate::dial::{Server, keep_to};
use crate::error::AgentError;
use crate::lookup::Lookup;
use crate::names;
use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token, Waker};
use pnet_datalink::NetworkInterface;
use slidecast_proto::discovery::{DATAGRAM_LEN, Offer, OfferError, Recognition, Seek};
use slidecast_proto::noise::{PublicKey, SecretKey};
use slidecast_proto::reason::Reason;
use slidecast_proto::units::Time;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// The pause after the first seek. Each one is a quarter longer than the one before, up to [`MAX_SEEK_PAUSE`]: eight or nine seeks in the
/// first second, so that a server which loses most of them in a flood still hears one.
const FIRST_SEEK_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two seeks, [`jitter`] aside.
const MAX_SEEK_PAUSE: Duration = Duration::from_secs(2);
/// When an address that did not answer is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// When a server that can't be ours is tried again: its key may have been a forged hint, or it may be restarted.
const RETRY_OTHER: Duration = Duration::from_secs(5);
/// How often the same thing is said again.
pub(crate) const SAY_AGAIN: Duration = Duration::from_secs(10);
/// How many addresses are kept.
const CANDIDATES: usize = 64;
/// How many addresses that failed are remembered beyond those that are kept.
const FAILED: usize = 256;
/// How many servers are tried at a time.
pub(crate) const TRIES: usize = 4;
/// How long a try may take while another address waits that was never tried.
pub(crate) const TRY_FOR: Duration = Duration::from_secs(1);
/// How many complaints there are between two lines that say what is waited for.
const COMPLAINTS: u32 = 16;
/// How many cards are used.
pub(crate) const MAX_SEEK_SOCKETS: usize = 32;

/// What speaks for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Its offer names another key than ours, or another mode.
    Other,
    /// Its offer claims what we look for.
    Claims,
    /// Its offer proves that it is of the server whose key we know; or the operator named the address.
    Proven,
}

/// Where the server may be.
#[derive(Debug)]
struct Candidate {
    server: Server,
    rank: Rank,
    heard: Time,
    try_at: Time,
    tried: bool,
    /// A try is under way.
    trying: bool,
    complaint: Option<(String, Time)>,
}

/// Where the server is looked for.
#[derive(Debug)]
enum SearchScope {
    /// `--server`: this name, and nowhere else.
    Named(Named),
    /// Every card, or those named.
    Cards(Cards),
}

/// The search for a name.
#[derive(Debug)]
struct Named {
    host: String,
    port: u16,
    ask_at: Time,
    /// The name is being looked up.
    lookup: Option<Lookup>,
    complaint: Option<(String, Time)>,
    /// What wakes the net thread when it was.
    waker: Arc<Waker>,
}

/// The search on cards.
#[derive(Debug)]
struct Cards {
    /// Those that may be used; none: all.
    only: Vec<String>,
    port: u16,
    /// A server is reached by the card that its offer came by.
    keep: bool,
    seekers: Vec<SeekSocket>,
    seek: Seek,
    seek_at: Time,
    pause: Duration,
    /// Seeks so far.
    seeks: usize,
}

/// The socket on one card.
#[derive(Debug)]
struct SeekSocket {
    card: NetworkInterface,
    socket: UdpSocket,
    token: Token,
    readable: bool,
}

/// What came to a card.
#[derive(Debug)]
struct Heard {
    card: String,
    source: SocketAddr,
    bytes: Vec<u8>,
}

/// The search for a server.
#[derive(Debug)]
pub(crate) struct Search {
    scope: SearchScope,
    key: Option<PublicKey>,
    /// What offers of the server whose key is known are recognised by.
    recognition: Option<Recognition>,
    candidates: Vec<Candidate>,
    /// Addresses that failed and made room for others, and when they may be tried again.
    failed: VecDeque<(Server, Time)>,
    complaints: u32,
    first_token: usize,
    say_at: Time,
    version_said: Option<Time>,
}

impl Search {
    /// A search for the server that `--server` names.
    #[must_use]
    pub(crate) fn of_name(host: String, port: u16, trust: &Trust, waker: Arc<Waker>, now: Time) -> Self {
        let named = Named { host, port, ask_at: now, lookup: None, complaint: None, waker };
        Self::new(SearchScope::Named(named), trust, 0, now)
    }

    /// A search on every card, or on those named. With `keep` a server is reached by the card that its offer came by.
    /// `nonce` must be fresh random bytes and `secret` drawn for this search; the sockets have tokens from `first_token` on.
    #[must_use]
    pub(crate) fn on_cards(
        only: Vec<String>,
        port: u16,
        keep: bool,
        trust: &Trust,
        (nonce, secret): ([u8; 8], &SecretKey),
        first_token: usize,
        now: Time,
    ) -> Self {
        let recognition = match trust {
            Trust::Pinned(key) => Recognition::new(secret, key),
            Trust::Insecure => None,
        };
        let seek = Seek { key: recognition.as_ref().map(Recognition::public), ..Seek::new(nonce) };
        let cards =
            Cards { only, port, keep, seekers: Vec::new(), seek, seek_at: now, pause: FIRST_SEEK_PAUSE, seeks: 0 };
        Self { recognition, ..Self::new(SearchScope::Cards(cards), trust, first_token, now) }
    }

    fn new(scope: SearchScope, trust: &Trust, first_token: usize, now: Time) -> Self {
        let key = match trust {
            Trust::Pinned(key) => Some(*key),
            Trust::Insecure => None,
        };
        Self {
            scope,
            key,
            recognition: None,
            candidates: Vec::new(),
            failed: VecDeque::new(),
            complaints: 0,
            first_token,
            say_at: now,
            version_said: None,
        }
    }

    /// Takes note of what the kernel says.
    pub(crate) fn on_event(&mut self, event: &Event) {
        if let SearchScope::Cards(cards) = &mut self.scope
            && let Some(seeker) = cards.seekers.iter_mut().find(|seeker| seeker.token == event.token())
        {
            seeker.readable = true;
        }
    }

    /// Sends seeks when they are due, reads answers, and now and then logs what it is waiting for.
    ///
    /// # Errors
    /// [`AgentError::NoSuchInterface`].
    pub(crate) fn advance(&mut self, registry: &Registry, now: Time) -> Result<(), AgentError> {
        match &mut self.scope {
            SearchScope::Named(named) => {
                for address in named.advance(now) {
                    self.add(address.into(), Rank::Proven, now);
                }
            }
            SearchScope::Cards(Cards { only, port, keep, seekers, seek, seek_at, pause, seeks }) => {
                if *seek_at <= now {
                    renew(seekers, cards::interfaces(only)?, registry, self.first_token);
                    seekers.iter().for_each(|seeker| seeker.broadcast(*seek, *port));
                    *seek_at = now.after(*pause + jitter(*pause, seek.nonce, *seeks));
                    *seeks = seeks.wrapping_add(1);
                    *pause = (*pause * 5 / 4).min(MAX_SEEK_PAUSE);
                }
                let (nonce, keep) = (seek.nonce, *keep);
                let mut heard = Vec::new();
                seekers.iter_mut().for_each(|seeker| seeker.listen(&mut heard));
                for Heard { card, source, bytes } in heard {
                    self.on_datagram(source, keep.then_some(card), &bytes, nonce, now);
                }
            }
        }
        if self.say_at <= now {
            (self.say_at, self.complaints) = (now.after(SAY_AGAIN), 0);
            log::info!("{}", self.describe());
        }
        Ok(())
    }

    /// What is being waited for.
    fn describe(&self) -> String {
        match &self.scope {
            SearchScope::Named(Named { host, port, .. }) => format!("waiting for the server at {host}:{port}"),
            SearchScope::Cards(Cards { seekers, only, .. }) if seekers.is_empty() => match &only[..] {
                [] => "waiting for a network card that is up and has an IPv4 address".to_owned(),
                names => format!("waiting for {} to be up and have an IPv4 address", names.join(", ")),
            },
            SearchScope::Cards(Cards { seekers, port, .. }) => {
                let names: Vec<&str> = seekers.iter().map(|seeker| seeker.card.name.as_str()).collect();
                format!("looking for a server on {}, port {port}", names.join(", "))
            }
        }
    }

    fn on_datagram(&mut self, source: SocketAddr, card: Option<String>, bytes: &[u8], nonce: [u8; 8], now: Time) {
        match Offer::parse(bytes, nonce) {
            Ok(offer) => {
                let address = SocketAddr::new(source.ip(), offer.port);
                let proven = |known: &Recognition| known.is_of_server(bytes, source.ip());
                let rank = match &self.recognition {
                    _ if offer.server != self.key => Rank::Other,
                    Some(known) if proven(known) => Rank::Proven,
                    _ => Rank::Claims,
                };
                self.add(Server { address, card }, rank, now);
            }
            Err(error @ OfferError::OtherVersion(_)) => {
                if self.version_said.is_none_or(|said| now.since(said) >= SAY_AGAIN) {
                    self.version_said = Some(now);
                    log::warn!("{}: server at {}: {error}", Reason::VersionMismatch, source.ip());
                }
            }
            Err(error) => log::trace!("datagram from {source}: {error}"),
        }
    }

    fn add(&mut self, server: Server, rank: Rank, now: Time) {
        if let Some(known) = self.candidates.iter_mut().find(|known| known.server == server) {
            known.heard = now;
            if known.rank < rank {
                (known.rank, known.try_at) = (rank, known.try_at.min(now));
            }
            return;
        }
        if self.candidates.len() >= CANDIDATES && !self.make_room(rank) {
            return;
        }
        let failed = self.failed.iter().position(|(other, _)| *other == server).and_then(|at| self.failed.remove(at));
        let first = if rank == Rank::Other { now.after(RETRY) } else { now };
        let try_at = failed.as_ref().map_or(first, |(_, again)| first.max(*again));
        let tried = failed.is_some();
        self.candidates.push(Candidate { server, rank, heard: now, try_at, tried, trying: false, complaint: None });
    }

    /// Makes room for an address of this rank: one that was tried in vain goes first, and remembers that; the newest never takes
    /// the place of one that was not tried and has as much in its favour.
    fn make_room(&mut self, rank: Rank) -> bool {
        let idle = self.candidates.iter().enumerate().filter(|(_, candidate)| !candidate.trying);
        let may_go = |candidate: &Candidate| candidate.rank < rank || (candidate.tried && candidate.rank <= rank);
        let worst = idle.filter(|(_, candidate)| may_go(candidate));
        let worst = worst.min_by_key(|(_, candidate)| (candidate.rank, !candidate.tried, candidate.heard));
        let Some((at, _)) = worst else { return false };
        let gone = self.candidates.swap_remove(at);
        if gone.tried {
            self.failed.push_back((gone.server, gone.try_at));
            if self.failed.len() > FAILED {
                self.failed.pop_front();
            }
        }
        true
    }

    /// The server to try next, if any is due. [`Search::on_failure`] is to be told if that comes to nothing.
    pub(crate) fn poll(&mut self, now: Time) -> Option<Server> {
        let due = self.candidates.iter_mut().filter(|candidate| !candidate.trying && candidate.try_at <= now);
        let next = due.max_by_key(|candidate| (candidate.rank, !candidate.tried, now.since(candidate.try_at)))?;
        (next.tried, next.trying, next.try_at) = (true, true, now.after(RETRY));
        Some(next.server.clone())
    }

    /// Whether an address waits that was never tried.
    #[must_use]
    pub(crate) fn has_untried(&self, now: Time) -> bool {
        self.candidates.iter().any(|candidate| !candidate.tried && candidate.try_at <= now)
    }

    /// Which of the servers that are being `tried` makes room when all tries are taken: the first whose offer is not proven, if
    /// a server whose offer is proven waits.
    pub(crate) fn makes_room<'a>(&self, tried: impl IntoIterator<Item = &'a Server>, now: Time) -> Option<usize> {
        let proven = |candidate: &&Candidate| candidate.rank == Rank::Proven;
        self.candidates.iter().filter(proven).find(|candidate| !candidate.trying && candidate.try_at <= now)?;
        let is_proven = |server: &Server| self.candidates.iter().filter(proven).any(|known| known.server == *server);
        tried.into_iter().position(|server| !is_proven(server))
    }

    /// This server is not to be had. Says so, unless it was said a moment ago.
    pub(crate) fn on_failure(&mut self, server: &Server, reason: Reason, text: &str, now: Time) {
        let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.server == *server) else { return };
        let other = reason != Reason::ServerLost;
        candidate.try_at = now.after(if other { RETRY_OTHER } else { RETRY });
        candidate.trying = false;
        let said = candidate.complaint.as_ref();
        if said.is_some_and(|(said, at)| said == text && now.since(*at) < SAY_AGAIN) {
            return;
        }
        candidate.complaint = Some((text.to_owned(), now));
        self.complaints += 1;
        if self.complaints > COMPLAINTS {
            log::debug!("{reason}: server at {server}: {text}");
        } else if other {
            log::warn!("{reason}: server at {server}: {text}");
        } else {
            log::info!("server at {server}: {text}; trying again");
        }
    }

    /// When [`Search::advance`] has something to do at the latest.
    #[must_use]
    pub(crate) fn ask_at(&self) -> Time {
        let ask = match &self.scope {
            // The look-up wakes whoever waits.
            SearchScope::Named(Named { lookup: Some(_), .. }) => Time(u64::MAX),
            SearchScope::Named(Named { ask_at, .. }) => *ask_at,
            SearchScope::Cards(cards) if cards.seekers.iter().any(|seeker| seeker.readable) => Time::default(),
            SearchScope::Cards(cards) => cards.seek_at,
        };
        ask.min(self.say_at)
    }

    /// When [`Search::advance`] or [`Search::poll`] has something to do at the latest.
    #[must_use]
    pub(crate) fn deadline(&self) -> Time {
        let ask = self.ask_at();
        let waiting = self.candidates.iter().filter(|candidate| !candidate.trying);
        waiting.map(|candidate| candidate.try_at).min().map_or(ask, |try_at| try_at.min(ask))
    }
}

impl Named {
    /// Has the name looked up when it is time; gives the addresses that were found just now.
    fn advance(&mut self, now: Time) -> Vec<SocketAddr> {
        if self.lookup.is_none() && self.ask_at <= now {
            match Lookup::start(&self.host, self.port, Arc::clone(&self.waker)) {
                Ok(lookup) => self.lookup = Some(lookup),
                Err(error) => self.complain(&format!("starting to look up {}: {error}", self.host), now),
            }
            self.ask_at = now.after(MAX_SEEK_PAUSE);
        }
        let Some(found) = self.lookup.as_ref().and_then(Lookup::poll) else { return Vec::new() };
        self.lookup = None;
        match found {
            Ok(addresses) => addresses,
            Err(error) => {
                let servers = std::fs::read_to_string(names::RESOLV_CONF).unwrap_or_default();
                self.complain(&names::explain(&self.host, &error.to_string(), &servers), now);
                Vec::new()
            }
        }
    }

    fn complain(&mut self, text: &str, now: Time) {
        if self.complaint.as_ref().is_none_or(|(said, at)| said != text || now.since(*at) >= SAY_AGAIN) {
            log::warn!("{text}");
            self.complaint = Some((text.to_owned(), now));
        }
    }
}

/// What is added to a pause, at most a quarter of it: machines that are switched on together must not keep asking together.
fn jitter(pause: Duration, nonce: [u8; 8], seeks: usize) -> Duration {
    pause * u32::from(nonce[seeks % nonce.len()]) / 1024
}

/// Keeps the sockets of cards that are as they were, drops those of others, opens new ones.
fn renew(seekers: &mut Vec<SeekSocket>, cards: Vec<NetworkInterface>, registry: &Registry, first_token: usize) {
    let usable: Vec<_> = cards
        .into_iter()
        .filter(|card| card.is_up() && !cards::broadcasts(card).is_empty())
        .take(MAX_SEEK_SOCKETS)
        .collect();
    seekers.retain(|seeker| usable.contains(&seeker.card));
    for card in usable {
        if seekers.iter().any(|seeker| seeker.card == card) {
            continue;
        }
        let free = (first_token..).map(Token).find(|token| seekers.iter().all(|seeker| seeker.token != *token));
        let Some(token) = free else { return };
        match open(&card, registry, token) {
            Ok(socket) => seekers.push(SeekSocket { card, socket, token, readable: false }),
            Err(error) => log::debug!("opening a socket on {}: {error}", card.name),
        }
    }
}

/// A socket that broadcasts on `card` only.
fn open(card: &NetworkInterface, registry: &Registry, token: Token) -> io::Result<UdpSocket> {
    let mut socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into())?;
    socket.set_broadcast(true)?;
    // Older kernels want privileges for this; without it, the broadcast of each subnet still finds its card.
    if let Err(error) = keep_to(&socket, Some(&card.name)) {
        log::debug!("binding a socket to {}: {error}", card.name);
    }
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

impl SeekSocket {
    fn broadcast(&self, seek: Seek, port: u16) {
        for address in cards::broadcasts(&self.card) {
            if let Err(error) = self.socket.send_to(&seek.encode(), SocketAddr::from((address, port))) {
                log::debug!("seek to {address} on {}: {error}", self.card.name);
            }
        }
    }

    /// Takes up to 64 datagrams.
    fn listen(&mut self, heard: &mut Vec<Heard>) {
        for _ in 0..64 {
            if !self.readable {
                return;
            }
            let mut bytes = [0; DATAGRAM_LEN + 1];
            match self.socket.recv_from(&mut bytes) {
                Ok((DATAGRAM_LEN, source)) => {
                    heard.push(Heard { card: self.card.name.clone(), source, bytes: bytes[..DATAGRAM_LEN].to_vec() });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                // The kernel tells only once that something has come: it still lies there.
                Err(error) => log::trace!("receiving on {}: {error}", self.card.name),
            }
        }
    }
}

#[cfg(test)]
mod tests;
