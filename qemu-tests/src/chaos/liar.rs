//! A node that lies to its server: an agent that really takes part, and between it and the server somebody who passes on every
//! message of the control link except for one lie.
//!
//! The agent is told that this is its server, and pins a key that was made for the purpose; the server is shown a node like any
//! other. Disks, chain links and blocks are the agent's own. The lie begins with [`SIGUSR1`] and never ends.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::SIGUSR1;
use slidecast_proto::control::{Join, LinkEvent, ToAgent, ToServer};
use slidecast_proto::noise::{Channel, PublicKey, SecretKey};
use slidecast_proto::reason::{LinkState, Reason, Side};

/// Where it listens.
pub const PORT: u16 = 7998;
/// What stands ahead of its public key when it is ready.
pub const READY: &str = "ready: ";
/// What it says once it has lied.
pub const STRUCK: &str = "struck";
/// How often a lie is repeated.
const AGAIN: Duration = Duration::from_millis(200);
/// How often it looks at its clock, in milliseconds.
const LOOK: u8 = 20;

/// What the lie is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lie {
    /// It never says how far it is; signs of life go through.
    Mute,
    /// It says over and over that the link to its downstream broke; a tail says so of its upstream.
    Broken,
}

/// Passes on what agents of this machine and the server say to each other, until it is killed.
///
/// # Errors
/// When it cannot listen.
pub fn run(lie: Lie, server: SocketAddr, key: PublicKey) -> io::Result<()> {
    let secret = SecretKey::generate().map_err(|_| io::Error::other("no randomness"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let lying = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&lying))?;
    say(&format!("{READY}{}", secret.public()));
    for call in listener.incoming() {
        let call = call?;
        // An agent that finds nobody here tries again, as it would with the server.
        let Ok(on) = TcpStream::connect(server) else { continue };
        let mut between = Between {
            agent: End::new(call, Channel::server(Some(&secret)))?,
            server: End::new(on, Channel::agent(&secret, Some(key)))?,
            lie,
            lying: Arc::clone(&lying),
            place: None,
            lied: None,
        };
        let pass = move || say(&between.pass().err().map_or("an end hung up".to_owned(), |error| error.to_string()));
        std::thread::Builder::new().name("between".to_owned()).spawn(pass)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what happened goes to standard output, for the lab to read")]
fn say(text: &str) {
    println!("{text}");
}

/// One of the two control links.
struct End {
    socket: TcpStream,
    channel: Channel,
    unsent: Vec<u8>,
}

impl End {
    fn new(socket: TcpStream, channel: Channel) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, channel, unsent: Vec::new() })
    }

    /// Reads and writes what there is; gives whether the other end still stands.
    fn pump(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 << 10];
        let open = match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(len) => self.channel.on_bytes(&buffer[..len]).map(|()| true).map_err(io::Error::other)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => return Err(error),
        };
        self.unsent.extend(std::iter::from_fn(|| self.channel.poll_transmit()).flatten());
        match self.socket.write(&self.unsent) {
            Ok(len) => drop(self.unsent.drain(..len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(open)
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.channel.send(message).map_err(io::Error::other)
    }
}

/// An agent's control link, and the one to the server in its place.
struct Between {
    agent: End,
    server: End,
    lie: Lie,
    lying: Arc<AtomicBool>,
    /// The agent's last order.
    place: Option<Join>,
    lied: Option<Instant>,
}

impl Between {
    /// Passes on until one of the ends hangs up.
    fn pass(&mut self) -> io::Result<()> {
        // A message that came before the other channel is open waits.
        let (mut up, mut down) = (Vec::new(), Vec::new());
        loop {
            if !self.agent.pump()? || !self.server.pump()? {
                return Ok(());
            }
            up.extend(std::iter::from_fn(|| self.agent.channel.poll_message()));
            down.extend(std::iter::from_fn(|| self.server.channel.poll_message()));
            if self.agent.channel.is_open() && self.server.channel.is_open() {
                for message in up.drain(..) {
                    if self.lets_through(&message) {
                        self.server.send(&message)?;
                    }
                }
                for message in down.drain(..) {
                    if let Ok(ToAgent::Join(join)) = ToAgent::parse(&message) {
                        self.place = Some(join);
                    }
                    self.agent.send(&message)?;
                }
                self.tell_of_a_break()?;
            }
            self.agent.pump()?;
            self.server.pump()?;
            self.wait()?;
        }
    }

    fn lets_through(&mut self, message: &[u8]) -> bool {
        let silent = self.lie == Lie::Mute && self.lying.load(Ordering::Relaxed);
        let kept = silent && matches!(ToServer::parse(message), Ok(ToServer::Progress(_)));
        if kept {
            self.note();
        }
        !kept
    }

    fn tell_of_a_break(&mut self) -> io::Result<()> {
        if self.lie != Lie::Broken || !self.lying.load(Ordering::Relaxed) {
            return Ok(());
        }
        let due = self.lied.is_none_or(|lied| lied.elapsed() >= AGAIN);
        let Some(place) = self.place.as_ref().filter(|_| due) else { return Ok(()) };
        let (peer, side, reason) = match &place.downstream {
            Some(downstream) => (downstream.node, Side::Downstream, Reason::DownstreamLost),
            None => (place.upstream.node, Side::Upstream, Reason::UpstreamLost),
        };
        let (deployment, epoch) = (place.deployment, place.epoch);
        let detail = "the connection was reset".to_owned();
        let event = LinkEvent { deployment, epoch, peer, side, state: LinkState::Down, reason, detail };
        self.server.send(&ToServer::Link(event).encode())?;
        self.note();
        Ok(())
    }

    fn note(&mut self) {
        if self.lied.is_none() {
            say(STRUCK);
        }
        self.lied = Some(Instant::now());
    }

    fn wait(&self) -> io::Result<()> {
        let flags = |end: &End| {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, !end.unsent.is_empty());
            flags
        };
        let mut fds = [
            PollFd::new(self.agent.socket.as_fd(), flags(&self.agent)),
            PollFd::new(self.server.socket.as_fd(), flags(&self.server)),
        ];
        match poll(&mut fds, PollTimeout::from(LOOK)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
