//! A stranger on the wire, without a secret, that floods a server or a node at a rate that is told.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use signal_hook::consts::SIGUSR1;
use slidecast_proto::control::ToServer;
use slidecast_proto::discovery::{DATAGRAM_LEN, Offer, Seek};
use slidecast_proto::link::{Sender, Terms};
use slidecast_proto::noise::PublicKey;
use slidecast_proto::reason::LinkClass;
use slidecast_proto::units::{DeploymentId, Epoch, LinkKey, NodeId};

use crate::disk::random::Random;
use crate::peer::{Clock, Control, ask, hello};

/// What it says once it knows what it must.
pub const READY: &str = "ready";
/// What it says once the flood has begun.
pub const STRUCK: &str = "struck";
/// Where the spoofed seeks come from: 65,536 addresses, none of which is anybody's.
pub const SPOOFED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 0);
/// How long a connection is waited for.
const LIMIT: Duration = Duration::from_secs(1);
/// How many connections are made at once.
const THREADS: u32 = 8;

/// What the stranger does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Deed {
    /// Seeks, each from another address.
    Seeks,
    /// Hellos of a chain link, with the right numbers and without the key.
    Hellos,
    /// Hellos of a control link, each as another machine.
    Calls,
    /// Offers to whoever seeks: the server's key and port, each from another address, without a proof.
    Offers,
}

/// What is done to whom, and how fast.
#[derive(Debug, Clone, Args)]
pub struct Flood {
    /// What is done
    pub deed: Deed,
    /// The server's discovery and control port
    pub server: SocketAddrV4,
    /// The struck node's chain link port, for `hellos`
    #[arg(long)]
    pub node: Option<SocketAddrV4>,
    /// The node's number
    #[arg(long, default_value_t = 1)]
    pub to: u32,
    /// The number of its upstream
    #[arg(long, default_value_t = 0)]
    pub from: u32,
    /// Datagrams or connections a second
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Begin when SIGUSR1 comes
    #[arg(long)]
    pub held: bool,
}

#[expect(clippy::print_stdout, reason = "what happened goes to standard output, for the lab to read")]
fn say(text: &str) {
    println!("{text}");
}

/// Floods for as long as it is told.
///
/// # Errors
/// When the server does not answer a seek before the flood.
pub fn run(flood: &Flood) -> io::Result<()> {
    let begins = Arc::new(AtomicBool::new(!flood.held));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&begins))?;
    let offer = ask(SocketAddr::V4(flood.server), Duration::from_secs(5))?;
    say(READY);
    while !begins.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = AtomicU64::new(0);
    let seekers = Seekers::listen(flood)?;
    let one: &(dyn Fn(u64) -> io::Result<()> + Sync) = match flood.deed {
        Deed::Seeks => &|number| seek(flood.server, number),
        Deed::Hellos => &|number| greet(flood, offer.deployment, number),
        Deed::Calls => &|number| call(flood.server, offer.server, number),
        Deed::Offers => &|number| seekers.answer(offer, number),
    };
    let threads = if matches!(flood.deed, Deed::Seeks | Deed::Offers) { 1 } else { THREADS };
    say(STRUCK);
    let pace = |thread: u32| {
        let rate = f64::from(flood.rate) / f64::from(threads);
        let (begun, mut number) = (Instant::now(), u64::from(thread));
        let mut done = 0_u32;
        while begun.elapsed().as_secs() < flood.seconds {
            if f64::from(done) >= begun.elapsed().as_secs_f64() * rate {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            // A refused connection is an answer, too; where nobody seeks there is nobody to answer.
            if one(number).is_ok() || flood.deed != Deed::Offers {
                sent.fetch_add(1, Ordering::Relaxed);
            }
            number += u64::from(threads);
            done += 1;
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|thread| drop(scope.spawn(move || pace(thread)))));
    say(&format!("{} sent", sent.load(Ordering::Relaxed)));
    Ok(())
}

/// A datagram from an address that is not this machine's; the firewall of a switch might stop it, this network has none.
fn spoof(to: impl Into<SocketAddr>, number: u64, bytes: &[u8]) -> io::Result<()> {
    let offset = u32::try_from(number % 65_536).expect("below 65,536");
    let socket = UdpSocket::bind((Ipv4Addr::from(u32::from(SPOOFED) + offset), 0))?;
    socket.send_to(bytes, to.into()).map(drop)
}

fn seek(server: SocketAddrV4, number: u64) -> io::Result<()> {
    spoof(server, number, &Seek::new(number.to_le_bytes()).encode())
}

/// Agents whose seeks were heard, each with the nonce of its search.
#[derive(Debug)]
struct Seekers {
    socket: UdpSocket,
    heard: Mutex<Vec<(SocketAddr, [u8; 8])>>,
}

impl Seekers {
    /// Hears seeks that are broadcast to the server's port.
    fn listen(flood: &Flood) -> io::Result<Self> {
        // Several strangers may be on one machine, of which one can hear.
        let port = if flood.deed == Deed::Offers { flood.server.port() } else { 0 };
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, heard: Mutex::new(Vec::new()) })
    }

    /// A forged offer to one of them, in turn; they are few.
    fn answer(&self, offer: Offer, number: u64) -> io::Result<()> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; DATAGRAM_LEN];
        while let Ok((len, from)) = self.socket.recv_from(&mut bytes) {
            if let Ok(seek) = Seek::parse(&bytes[..len])
                && !heard.contains(&(from, seek.nonce))
            {
                heard.push((from, seek.nonce));
            }
        }
        let turn = usize::try_from(number).unwrap_or(0) % heard.len().max(1);
        let Some((to, nonce)) = heard.get(turn).copied() else { return Err(io::ErrorKind::WouldBlock.into()) };
        drop(heard);
        spoof(to, number, &offer.encode(nonce))
    }
}

/// A hello of a chain link as the node's upstream says it. Which epoch and pass are right is soon found by trying.
fn greet(flood: &Flood, deployment: DeploymentId, number: u64) -> io::Result<()> {
    let Some(node) = flood.node else { return Ok(()) };
    let pass = 1 - number % 2;
    let terms = Terms {
        deployment,
        // The pass stands above the chain's own count.
        epoch: Epoch((pass << 32) + 1 + number / 2 % 6),
        pass: u32::from(pass == 1),
        from: NodeId(flood.from),
        to: NodeId(flood.to),
        key: LinkKey([0x5c; 32]),
        class: LinkClass::Paced,
    };
    let mut nonce = [0x5c; 16];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    let mut sender = Sender::new(terms, nonce, Clock::start().now());
    let mut socket = TcpStream::connect_timeout(&SocketAddr::V4(node), LIMIT)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    while let Some(bytes) = sender.poll_control() {
        socket.write_all(&bytes)?;
    }
    socket.read(&mut [0; 256]).map(drop)
}

/// A hello of a control link, and gone again as soon as it is answered.
fn call(server: SocketAddrV4, key: Option<PublicKey>, number: u64) -> io::Result<()> {
    let mut control = Control::connect(SocketAddr::V4(server), key, LIMIT)?;
    let hello = hello(&mut Random::new(number), control.address()?, 4000);
    control.say(&ToServer::Hello(hello))?;
    control.hear(Duration::from_millis(100)).map(drop)
}
