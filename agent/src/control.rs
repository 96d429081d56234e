//! The control link: one TCP connection to the server, encrypted, for orders down and reports up.
//!
//! What is of no more use when it is late (a heartbeat, a line of the log) is left out while the server does not read.

use crate::dial::{Server, dial};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slidecast_net::control::{Came, ControlError, ControlPipe};
use slidecast_net::text::os_error_text;
use slidecast_proto::control::{Hello, LogLine, ToAgent, ToServer};
use slidecast_proto::noise::{Channel, ChannelError, PublicKey, SecretKey};
use slidecast_proto::reason::Reason;
use slidecast_proto::units::Time;
use slidecast_proto::visit::{ControlClock, Quiet};
use slidecast_proto::wire::Malformed;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// How many reads make a turn: less than half of what the channel keeps for the caller to poll.
const MAX_READS: usize = 16;
/// What waits to be written when lines of the log are left out, in bytes.
const LOG_BACKLOG: usize = 64 << 10;

/// Why there is no control link (any more).
#[derive(Debug)]
pub(crate) enum Lost {
    /// No connection could be made.
    Connect(io::Error),
    /// The connection broke.
    Io(io::Error),
    /// The server hung up.
    Closed,
    /// The server hung up before it had proven itself.
    ClosedEarly,
    /// Nothing was heard for too long.
    Quiet(Quiet),
    /// The two ends don't agree on the channel.
    Channel(ChannelError),
    /// A message that can't be understood.
    Malformed(Malformed),
    /// The send backlog is full: the server is not reading.
    Backlog,
}

impl Lost {
    /// The reason for the report.
    #[must_use]
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Channel(error) => error.reason(),
            Self::Malformed(_) => Reason::ProtocolError,
            _ => Reason::ServerLost,
        }
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection: {}", os_error_text(error)),
            Self::Io(error) => write!(f, "connection broken: {}", os_error_text(error)),
            Self::Closed => f.write_str("it hung up"),
            Self::ClosedEarly => f.write_str("it hung up during the handshake"),
            Self::Quiet(quiet) => quiet.fmt(f),
            Self::Channel(error) => error.fmt(f),
            Self::Malformed(error) => error.fmt(f),
            Self::Backlog => f.write_str("send backlog full: the server is not reading"),
        }
    }
}

impl std::error::Error for Lost {}

/// The agent's end of a control link.
#[derive(Debug)]
pub(crate) struct Control {
    server: Server,
    pipe: ControlPipe<TcpStream>,
    connected: bool,
    readable: bool,
    writable: bool,
    clock: ControlClock,
}

impl Control {
    /// Starts to connect to `server`, whose key must be `key` if there is one, by the card that it was found on.
    ///
    /// # Errors
    /// [`Lost::Connect`].
    pub(crate) fn connect(
        server: Server,
        secret: &SecretKey,
        key: Option<PublicKey>,
        registry: &Registry,
        token: Token,
        now: Time,
    ) -> Result<Self, Lost> {
        let mut stream = dial(server.address, server.card.as_deref()).map_err(Lost::Connect)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).map_err(Lost::Connect)?;
        Ok(Self {
            server,
            pipe: ControlPipe::new(stream, Channel::agent(secret, key)),
            connected: false,
            readable: false,
            writable: false,
            clock: ControlClock::new(now),
        })
    }

    /// Watches the connection under another token.
    ///
    /// # Errors
    /// [`Lost::Io`].
    pub(crate) fn reregister(&mut self, registry: &Registry, token: Token) -> Result<(), Lost> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.reregister(self.pipe.socket_mut(), token, both).map_err(Lost::Io)
    }

    /// When the connection was begun.
    #[must_use]
    pub(crate) fn opened(&self) -> Time {
        self.clock.opened()
    }

    #[must_use]
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Whether the server has proven itself: messages can be sent.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.pipe.channel().is_open()
    }

    /// The hash of the handshake, once the server has proven itself.
    #[must_use]
    pub(crate) fn handshake_hash(&self) -> Option<[u8; 32]> {
        self.pipe.channel().handshake_hash()
    }

    /// Takes note of what the kernel says.
    pub(crate) fn on_event(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_error();
    }

    /// Says hello, which must be the first message.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) fn greet(&mut self, hello: Hello, now: Time) -> Result<(), Lost> {
        self.clock.on_greeted(now);
        self.send(&ToServer::Hello(hello))
    }

    /// Puts a message on its way.
    ///
    /// # Errors
    /// [`Lost::Backlog`]: the server is as good as gone.
    pub(crate) fn send(&mut self, message: &ToServer) -> Result<(), Lost> {
        self.pipe.send(&message.encode()).map_err(|error| {
            log::debug!("message to {}: {error}", self.server);
            Lost::Backlog
        })
    }

    /// Puts a line of the log on its way, unless the server is behind with reading.
    pub(crate) fn send_line(&mut self, line: &crate::logging::Line) {
        if self.is_open() && self.pipe.unwritten() < LOG_BACKLOG {
            let level = u8::try_from(line.level as usize).unwrap_or(u8::MAX);
            let _ = self.send(&ToServer::Log(LogLine { level, text: line.text.clone() }));
        }
    }

    /// The next order.
    ///
    /// # Errors
    /// [`Lost::Malformed`].
    pub(crate) fn poll_message(&mut self) -> Result<Option<ToAgent>, Lost> {
        while let Some(message) = self.pipe.poll_message() {
            match ToAgent::parse(&message).map_err(Lost::Malformed)? {
                ToAgent::Heartbeat => {}
                order => return Ok(Some(order)),
            }
        }
        Ok(None)
    }

    /// Reads and writes what can be, keeps the link alive, or finds it dead.
    ///
    /// # Errors
    /// [`Lost`]: drop this. Orders that came before may still be polled.
    pub(crate) fn advance(&mut self, now: Time) -> Result<(), Lost> {
        if !self.connected && !self.establish()? {
            return self.clock.check(false, now).map(drop).map_err(Lost::Quiet);
        }
        // What was said last is worth reading even if the connection is gone for writing.
        self.read(now)?;
        if self.clock.check(self.is_open(), now).map_err(Lost::Quiet)? && self.pipe.unwritten() == 0 {
            self.send(&ToServer::Heartbeat)?;
        }
        self.write(now)
    }

    /// When [`Control::advance`] must be called at the latest.
    #[must_use]
    pub(crate) fn deadline(&self) -> Time {
        if self.readable && self.connected { Time::default() } else { self.clock.deadline(self.is_open()) }
    }

    /// Hangs up, but gives what is on its way up to `patience` to reach the server: an agent's last words.
    pub(crate) fn close(self, patience: Duration) {
        let mut pipe = self.pipe.map_socket(std::net::TcpStream::from);
        let mut say_all = || -> Result<(), ControlError> {
            let stream = pipe.socket();
            stream.set_nonblocking(false)?;
            stream.set_write_timeout(Some(patience))?;
            stream.set_read_timeout(Some(patience))?;
            pipe.write()?;
            // Closing with unread bytes would make the kernel take back what the server has not read yet.
            pipe.socket().shutdown(Shutdown::Write)?;
            let until = Instant::now() + patience;
            while pipe.drain(&mut [0; 4096])? == Came::Bytes && Instant::now() < until {}
            Ok(())
        };
        if let Err(error) = say_all() {
            log::debug!("last words to {}: {error}", self.server);
        }
    }

    fn establish(&mut self) -> Result<bool, Lost> {
        let stream = self.pipe.socket();
        if let Some(error) = stream.take_error().map_err(Lost::Connect)? {
            return Err(Lost::Connect(error));
        }
        if !self.writable {
            return Ok(false);
        }
        match stream.peer_addr() {
            Ok(_) => {
                let _ = stream.set_nodelay(true);
                self.connected = true;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(Lost::Connect(error)),
        }
    }

    fn read(&mut self, now: Time) -> Result<(), Lost> {
        let mut buffer = [0; 16 << 10];
        for _ in 0..MAX_READS {
            if !self.readable {
                break;
            }
            match self.pipe.read(&mut buffer).map_err(|error| self.lost(error))? {
                Came::Bytes => self.clock.on_heard(now),
                Came::Nothing => self.readable = false,
            }
        }
        Ok(())
    }

    fn write(&mut self, now: Time) -> Result<(), Lost> {
        if self.writable {
            let written = self.pipe.write().map_err(|error| self.lost(error))?;
            if written.bytes > 0 {
                self.clock.on_said(now);
            }
            self.writable = !written.blocked;
        }
        Ok(())
    }

    fn lost(&self, error: ControlError) -> Lost {
        match error {
            ControlError::Io(error) => Lost::Io(error),
            ControlError::Closed if self.is_open() => Lost::Closed,
            ControlError::Closed => Lost::ClosedEarly,
            ControlError::Channel(error) => Lost::Channel(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use slidecast_proto::control::Welcome;
    use slidecast_proto::units::NodeId;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream as StdStream};
    use std::thread::JoinHandle;

    const WELCOME: ToAgent = ToAgent::Welcome(Welcome { node: NodeId(7), server_version: String::new() });

    /// Says hello to the listener until the link is lost; returns the orders received, and why it was lost.
    fn visit(server: SocketAddr, key: Option<PublicKey>) -> (Vec<ToAgent>, Lost) {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let secret = SecretKey::generate().unwrap();
        let mut control = Control::connect(server.into(), &secret, key, poll.registry(), Token(3), Time(0)).unwrap();
        let (mut orders, mut greeted) = (Vec::new(), false);
        loop {
            let result = control.advance(Time(0));
            while let Some(order) = control.poll_message().unwrap() {
                orders.push(order);
            }
            if let Err(lost) = result {
                return (orders, lost);
            }
            if control.is_open() && !greeted {
                greeted = true;
                let line = crate::logging::Line { level: log::Level::Warn, text: "hello".to_owned() };
                control.send_line(&line);
                continue;
            }
            poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "nothing happened for 5 s");
            events.iter().for_each(|event| control.on_event(event));
        }
    }

    /// A server that answers the first message with a welcome and a heartbeat, and hangs up.
    fn server(mut channel: Channel) -> (SocketAddr, JoinHandle<Vec<ToServer>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
            while heard.is_empty() {
                let bytes = stream.read(&mut buffer).unwrap_or(0);
                let result = channel.on_bytes(&buffer[..bytes]);
                while let Some(message) = channel.poll_message() {
                    heard.push(ToServer::parse(&message).unwrap());
                    channel.send(&ToAgent::Heartbeat.encode()).unwrap();
                    channel.send(&WELCOME.encode()).unwrap();
                }
                stream.write_all(&channel.poll_transmit().unwrap_or_default()).unwrap();
                if bytes == 0 || result.is_err() {
                    break;
                }
            }
            heard
        });
        (address, thread)
    }

    #[test]
    fn orders_that_came_before_the_server_hung_up_are_obeyed() {
        let secret = SecretKey::generate().unwrap();
        let (address, thread) = server(Channel::server(Some(&secret)));
        let (orders, lost) = visit(address, Some(secret.public()));
        assert_eq!(orders, [WELCOME]);
        assert!(matches!(lost, Lost::Closed), "{lost}");
        assert_eq!(thread.join().unwrap(), [ToServer::Log(LogLine { level: 2, text: "hello".to_owned() })]);
    }

    #[test]
    fn the_hello_comes_first_however_long_the_handshake_takes() {
        let (address, thread) = server(Channel::server(None));
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let secret = SecretKey::generate().unwrap();
        let mut control = Control::connect(address.into(), &secret, None, poll.registry(), Token(3), Time(0)).unwrap();
        // Each answer takes a tenth of the time for the whole handshake: a slow machine, or one far from the server.
        let mut now = Time(0);
        while !control.is_open() {
            control.advance(now).unwrap();
            poll.poll(&mut events, Some(Duration::from_millis(10))).unwrap();
            events.iter().for_each(|event| control.on_event(event));
            if control.connected && !events.is_empty() {
                now = now.after(slidecast_proto::visit::HANDSHAKE / 10);
            }
        }
        control.greet(hello(), now).unwrap();
        control.advance(now).unwrap();
        assert_eq!(thread.join().unwrap(), [ToServer::Hello(hello())]);
    }

    fn hello() -> Hello {
        Hello {
            agent_version: String::new(),
            hostname: String::new(),
            boot: [1; 16],
            ram_bytes: 0,
            cards: Vec::new(),
            disks: Vec::new(),
            link_port: 1,
            target: String::new(),
        }
    }

    #[test]
    fn an_insecure_pair_understands_each_other() {
        let (address, _thread) = server(Channel::server(None));
        assert_eq!(visit(address, None).0, [WELCOME]);
    }

    #[test]
    fn a_server_with_another_key_is_named() {
        let (ours, theirs) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let (address, _thread) = server(Channel::server(Some(&theirs)));
        let (orders, lost) = visit(address, Some(ours.public()));
        assert_eq!((orders.len(), lost.reason()), (0, Reason::KeyMismatch));
    }

    #[test]
    fn insecure_on_one_side_only_is_named() {
        let secret = SecretKey::generate().unwrap();
        let (address, _thread) = server(Channel::server(None));
        assert_eq!(visit(address, Some(secret.public())).1.reason(), Reason::InsecureMismatch);
        let (address, _thread) = server(Channel::server(Some(&secret)));
        assert_eq!(visit(address, None).1.reason(), Reason::InsecureMismatch);
    }

    #[test]
    fn whoever_is_no_server_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let web = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            let _ = stream.read(&mut [0; 100]);
        });
        assert_eq!(visit(address, None).1.reason(), Reason::ProtocolError);
        web.join().unwrap();
        assert!(matches!(visit(address, None).1, Lost::Connect(_)), "and after that nobody listens");
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let poll = Poll::new().unwrap();
        let secret = SecretKey::generate().unwrap();
        let address = listener.local_addr().unwrap();
        let mut control = Control::connect(address.into(), &secret, None, poll.registry(), Token(3), Time(0)).unwrap();
        assert!(control.advance(Time(0)).is_ok());
        assert_eq!(control.deadline(), Time(0).after(slidecast_proto::visit::HANDSHAKE));
        assert!(matches!(control.advance(control.deadline()), Err(Lost::Quiet(Quiet::Handshake))));
    }

    #[test]
    fn last_words_arrive_although_the_server_spoke_too() {
        let (address, listener) = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            (listener.local_addr().unwrap(), listener)
        };
        let poll = Poll::new().unwrap();
        let secret = SecretKey::generate().unwrap();
        let control = Control::connect(address.into(), &secret, None, poll.registry(), Token(3), Time(0)).unwrap();
        let (mut stream, _): (StdStream, _) = listener.accept().unwrap();
        stream.write_all(&[0; 100]).unwrap();
        let closing = std::thread::spawn(move || control.close(Duration::from_secs(5)));
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(&heard[..8], b"SLIDECTL");
        drop(stream);
        closing.join().unwrap();
    }
}
