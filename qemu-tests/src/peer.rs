//! The pieces of which peers are made that are no agent: a control link, a hello, a question to the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use slidecast_proto::control::{Card, Disk, Held, Hello, ToAgent, ToServer};
use slidecast_proto::discovery::{DATAGRAM_LEN, Offer, Seek};
use slidecast_proto::noise::{Channel, PublicKey, SecretKey};
use slidecast_proto::units::Time;

use crate::disk::random::Random;

/// How long anything may take that is answered at once.
const SOON: Duration = Duration::from_secs(2);

/// What the machines of `proto` take for the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Time {
        Time(1).after(self.0.elapsed())
    }
}

/// A control link to a server.
pub(crate) struct Control {
    socket: TcpStream,
    channel: Channel,
}

impl Control {
    /// Connects to a server, and proves a key that nobody knows. Without the server's key the link is insecure.
    pub(crate) fn connect(server: SocketAddr, key: Option<PublicKey>, limit: Duration) -> io::Result<Self> {
        let secret = SecretKey::generate().map_err(|_| io::Error::other("no randomness"))?;
        let socket = TcpStream::connect_timeout(&server, limit)?;
        Self::over(socket, Channel::agent(&secret, key), limit)
    }

    /// Makes a control link out of a connection and either end of a channel.
    pub(crate) fn over(socket: TcpStream, channel: Channel, limit: Duration) -> io::Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.set_write_timeout(Some(SOON))?;
        socket.set_nodelay(true)?;
        let mut control = Self { socket, channel };
        let until = Instant::now() + limit;
        while !control.channel.is_open() {
            control.pump()?;
            if Instant::now() >= until {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(control)
    }

    /// Sends what there is, and takes in what has come.
    fn pump(&mut self) -> io::Result<()> {
        self.flush()?;
        let mut buffer = [0; 16 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
            Ok(len) => self.channel.on_bytes(&buffer[..len]).map_err(io::Error::other)?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.channel.poll_transmit() {
            self.socket.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Says something to a server.
    pub(crate) fn say(&mut self, message: &ToServer) -> io::Result<()> {
        self.say_bytes(&message.encode())
    }

    /// Says bytes that need not be a message.
    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.channel.send(bytes).map_err(io::Error::other)?;
        self.flush()
    }

    /// What the server says next, if it does so within `limit`.
    pub(crate) fn hear(&mut self, limit: Duration) -> io::Result<Option<ToAgent>> {
        self.hear_bytes(limit)?.map(|bytes| ToAgent::parse(&bytes)).transpose().map_err(io::Error::other)
    }

    /// The next message, if it comes within `limit`.
    pub(crate) fn hear_bytes(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        let until = Instant::now() + limit;
        loop {
            if let Some(message) = self.channel.poll_message() {
                return Ok(Some(message));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            self.pump()?;
        }
    }

    /// This end's address.
    pub(crate) fn address(&self) -> io::Result<IpAddr> {
        Ok(self.socket.local_addr()?.ip())
    }
}

/// The hello of a machine that there is not.
pub(crate) fn hello(random: &mut Random, address: IpAddr, link_port: u16) -> Hello {
    let mut boot = [0; 16];
    boot.copy_from_slice(&random.bytes(16));
    let card = Card {
        name: "eth0".to_owned(),
        mac: [2, 0, 0, 0, 0, boot[0]],
        addresses: vec![address],
        mbits: 1000,
        up: true,
    };
    let disk = Disk {
        path: "/dev/vda".to_owned(),
        model: "disk".to_owned(),
        serial: "1".to_owned(),
        wwn: String::new(),
        transport: "virtio".to_owned(),
        bytes: 1 << 30,
        logical_sector: 512,
        physical_sector: 512,
        rotational: false,
        removable: false,
        read_only: false,
        held: Held::No,
        file: false,
        other_paths: Vec::new(),
    };
    Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: "stranger".to_owned(),
        boot,
        ram_bytes: 1 << 30,
        cards: vec![card],
        disks: vec![disk],
        link_port,
        target: String::new(),
    }
}

/// Asks a server what it deploys and which key it has, as anybody may.
pub(crate) fn ask(server: SocketAddr, limit: Duration) -> io::Result<Offer> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let nonce = *b"stranger";
    let until = Instant::now() + limit;
    while Instant::now() < until {
        socket.send_to(&Seek::new(nonce).encode(), server)?;
        let mut answer = [0; DATAGRAM_LEN];
        if socket.recv(&mut answer).is_ok_and(|len| len == DATAGRAM_LEN)
            && let Ok(offer) = Offer::parse(&answer, nonce)
        {
            return Ok(offer);
        }
    }
    Err(ErrorKind::TimedOut.into())
}
