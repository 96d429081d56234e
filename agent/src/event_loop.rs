//! What the net thread waits for: the kernel's events, signals, wake-ups of other threads, and the time.

use crate::callers::Callers;
use crate::dial::keep_to;
use crate::discover::MAX_SEEK_SOCKETS;
use crate::error::{AgentError, Doing};
use mio::event::Event;
use mio::net::{TcpListener, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use slidecast_net::clock::Clock;
use slidecast_proto::units::Time;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Other threads have something to say.
const WAKE: Token = Token(0);
/// A signal came.
const SIGNAL: Token = Token(1);
/// Somebody calls.
const LISTENER: Token = Token(2);
/// The control link.
pub(crate) const CONTROL: Token = Token(3);
/// The chain link to the upstream.
pub(crate) const UPSTREAM: Token = Token(4);
/// The chain link to the downstream.
pub(crate) const DOWNSTREAM: Token = Token(5);
/// The first of the callers.
const CALLERS: usize = 8;
/// The first of the discovery sockets.
pub(crate) const DISCOVERY: usize = CALLERS + Callers::PLACES;
/// The first of the control links that are being tried.
pub(crate) const TRIALS: usize = DISCOVERY + MAX_SEEK_SOCKETS;

/// How long to leave callers waiting when the system has no room for them.
const NO_ROOM: Duration = Duration::from_millis(200);

/// The kernel's side of the net thread.
#[derive(Debug)]
pub(crate) struct EventLoop {
    poll: Poll,
    events: Events,
    clock: Clock,
    waker: Arc<Waker>,
    signals: UnixStream,
    stopped: bool,
    listener: TcpListener,
    calling: bool,
    /// The system had no room for another connection: callers wait until then.
    accept_at: Time,
}

impl EventLoop {
    /// Opens the listener for the upstream (on every address, any free port) and takes over SIGINT and SIGTERM.
    ///
    /// # Errors
    /// [`AgentError::System`].
    pub(crate) fn new() -> Result<Self, AgentError> {
        let poll = Poll::new().doing("opening the event queue")?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).doing("opening the event queue")?);
        let mut listener = listen().doing("listening for the upstream")?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).doing("watching the listener")?;
        let (mut signals, sender) = UnixStream::pair().doing("watching for signals")?;
        poll.registry().register(&mut signals, SIGNAL, Interest::READABLE).doing("watching for signals")?;
        let sender = std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(sender));
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let sender = sender.try_clone().doing("watching for signals")?;
            signal_hook::low_level::pipe::register(signal, sender).doing("watching for signals")?;
        }
        let clock = Clock::start();
        let events = Events::with_capacity(64);
        Ok(Self {
            poll,
            events,
            clock,
            waker,
            signals,
            stopped: false,
            listener,
            calling: false,
            accept_at: Time::default(),
        })
    }

    /// Where sockets are registered.
    #[must_use]
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    #[must_use]
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// The clock, for another thread.
    #[must_use]
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// What wakes this thread from another.
    #[must_use]
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// The port on which the upstream is awaited.
    ///
    /// # Errors
    /// [`AgentError::System`].
    pub(crate) fn port(&self) -> Result<u16, AgentError> {
        Ok(self.listener.local_addr().doing("listening for the upstream")?.port())
    }

    /// Awaits the upstream on this card only; without one, on any.
    ///
    /// # Errors
    /// There is no such card.
    pub(crate) fn keep_to(&self, card: Option<&str>) -> io::Result<()> {
        keep_to(&self.listener, card)
    }

    /// Whether SIGINT or SIGTERM came.
    #[must_use]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Waits for events until `deadline`, and hands over those that are not its own.
    ///
    /// # Errors
    /// [`AgentError::System`].
    pub(crate) fn wait(&mut self, deadline: Time, mut on_event: impl FnMut(&Event)) -> Result<(), AgentError> {
        match self.poll.poll(&mut self.events, Some(self.clock.until(deadline))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => result.doing("waiting for events")?,
        }
        for event in &self.events {
            match event.token() {
                WAKE => {}
                LISTENER => self.calling = true,
                SIGNAL => {
                    while matches!(self.signals.read(&mut [0; 16]), Ok(1..)) {}
                    self.stopped = true;
                }
                _ => on_event(event),
            }
        }
        Ok(())
    }

    /// When [`EventLoop::accept`] is to be asked again, if there may be more callers than it has given.
    #[must_use]
    pub(crate) fn accept_at(&self) -> Option<Time> {
        self.calling.then_some(self.accept_at)
    }

    /// The next connection that was made to the listener.
    pub(crate) fn accept(&mut self) -> Option<(mio::net::TcpStream, SocketAddr)> {
        while self.calling && self.accept_at <= self.now() {
            match self.listener.accept() {
                Ok((stream, peer)) => return Some((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.calling = false,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                // They stay in the kernel's queue, and nothing more is said of them.
                Err(error) => {
                    log::warn!("accepting a connection: {error}");
                    self.accept_at = self.now().after(NO_ROOM);
                }
            }
        }
        None
    }
}

/// Callers whose tokens are told apart from all others.
#[must_use]
pub(crate) fn callers() -> Callers {
    Callers::new(CALLERS)
}

/// A listener on every address; where the kernel has no IPv6, on every IPv4 address.
fn listen() -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}
