//! A proxy between an upstream and its downstream that damages, holds or cuts what it passes on, at a byte that was named before.
//!
//! It runs in the struck node's network namespace, whose firewall sends it every connection that comes over the card
//! ([`redirect`]), or every chain link that the node makes itself ([`redirect_out`]); the kernel still knows where each was bound
//! for, and there the proxy connects. That connection does not come over the card, or carries a mark, so it is not redirected
//! again. Neither end can tell.
//!
//! Bytes are counted over all connections of the run, each direction for itself: a stream that was cut goes on being
//! counted in the next one. A direction that stays as it is is not counted.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt};
use signal_hook::consts::SIGUSR1;
use slidecast_proto::frame::{Header, Kind};
use slidecast_proto::units::DeploymentId;

use super::frames::{Aim, Frames, Then};

/// Where it listens.
pub const PORT: u16 = 7999;
/// What it says once it is ready.
pub const READY: &str = "ready";
/// What it says when the fault has happened.
pub const STRUCK: &str = "struck";
/// How much it holds of either direction. Small: what it holds is in nobody's ring.
const BUFFER: usize = 64 * 1024;
/// How often it looks whether the fault is to happen now, in milliseconds.
const LOOK: u8 = 5;
/// No byte is the next one at which something happens.
const NEVER: u64 = u64::MAX;
/// How far apart the damaged bytes of [`Fault::Garble`] are unless it is told.
pub const GARBLE_EVERY: u64 = 5 << 19;
/// How often a proxy that holds the image back says for its sender that it lives.
const BEAT: Duration = Duration::from_millis(200);
/// How far apart they are of a node that damages all it sends down: hardly a block gets through.
pub const GARBLE_OUT_EVERY: u64 = 512 << 10;
/// How far apart they are on the way up: no frame is shorter, so none gets through.
const GARBLE_UP_EVERY: u64 = slidecast_proto::frame::HEADER_LEN as u64;
/// The firewall mark of the proxy's own connections.
const MARK: u32 = 0x5c;

/// What is done to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// One byte is changed.
    Flip,
    /// A byte is changed, and another one every 2.5 MiB.
    Garble,
    /// Both ends get a reset.
    Reset,
    /// Both ends see the end of the stream.
    Close,
    /// One bit of a part of the manifest is changed.
    Part,
    /// One bit of the manifest's header is changed.
    Header,
    /// Nothing of the image passes any more, over this link or a later one. Both ends live and hear each other.
    Stuck,
}

impl Fault {
    /// Whether it changes bytes, and cuts nothing.
    pub fn changes(self) -> bool {
        matches!(self, Self::Flip | Self::Garble)
    }

    /// Whether it cuts the connection.
    fn cuts(self) -> bool {
        matches!(self, Self::Reset | Self::Close)
    }
}

/// Which bytes are struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Those that go down, on every connection that comes here.
    Down,
    /// Those that go up.
    Up,
    /// Those that the node itself sends: down on the links that it made, and up on the links that were made to it.
    Own,
}

/// What is to happen where.
#[derive(Debug)]
pub struct Plan {
    /// What.
    pub fault: Fault,
    /// To which bytes.
    pub which: Which,
    /// Before this byte; none is when [`SIGUSR1`] comes.
    pub at: Option<u64>,
    /// How far apart the bytes are that [`Fault::Garble`] damages on the way down.
    pub every: u64,
    /// The CRC of a frame that is changed is computed anew.
    pub mended: bool,
}

/// The firewall rules, for `nft -f`, that lead every TCP connection over the card to the proxy.
pub fn redirect() -> String {
    format!(
        "table ip chaos {{\nchain arriving {{\ntype nat hook prerouting priority dstnat\n\
         iifname \"eth0\" meta l4proto tcp redirect to :{PORT}\n}}\n}}\n"
    )
}

/// The rules that lead every TCP connection of the node to the proxy, but for those to the server's `port` and the proxy's own.
pub fn redirect_out(port: u16) -> String {
    format!(
        "table ip chaos {{\nchain leaving {{\ntype nat hook output priority -100\n\
         oifname \"eth0\" meta l4proto tcp meta mark != {MARK} tcp dport != {port} redirect to :{PORT}\n}}\n}}\n"
    )
}

/// Runs the proxy until it is killed.
///
/// # Errors
/// When it cannot listen.
pub fn run(plan: Plan) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let buffer = BUFFER;
    setsockopt(&listener, sockopt::RcvBuf, &buffer)?;
    let now = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&now))?;
    let next = plan.at.unwrap_or(NEVER);
    let state = Arc::new(State {
        next: [AtomicU64::new(next), AtomicU64::new(next)],
        plan,
        now,
        passed: [const { AtomicU64::new(0) }; 2],
    });
    say(READY);
    for call in listener.incoming() {
        let (call, state) = (call?, Arc::clone(&state));
        let pass = move || {
            if let Err(error) = pass(call, &state) {
                say(&format!("a connection ended: {error}"));
            }
        };
        std::thread::Builder::new().name("pass".to_owned()).spawn(pass)?;
    }
    Ok(())
}

/// What all connections have in common.
#[derive(Debug)]
struct State {
    plan: Plan,
    /// The next byte at which something happens, down and up, or [`NEVER`].
    next: [AtomicU64; 2],
    /// Something is to happen now.
    now: Arc<AtomicBool>,
    /// Bytes passed on, down and up.
    passed: [AtomicU64; 2],
}

#[expect(clippy::print_stdout, reason = "what happened goes to standard output, for the lab to read")]
fn say(text: &str) {
    println!("{text}");
}

/// One direction of a connection.
#[derive(Debug)]
struct Way {
    up: bool,
    /// These bytes are those that are struck.
    aimed_at: bool,
    held: Vec<u8>,
    /// The sender has ended.
    ended: bool,
    /// The receiver was told so.
    told: bool,
    frames: Frames,
    /// Nothing more is read, as the next frame may not pass: of which deployment it is, and when the receiver was last told that
    /// the sender lives.
    stuck: Option<(DeploymentId, Instant)>,
}

impl Way {
    fn new(up: bool, aimed_at: bool) -> Self {
        let (held, frames) = (Vec::with_capacity(BUFFER), Frames::default());
        Self { up, aimed_at, held, ended: false, told: false, frames, stuck: None }
    }

    fn reads(&self) -> bool {
        !self.ended && self.held.is_empty() && self.stuck.is_none()
    }

    /// Says for the sender of a stream that is stuck that it lives.
    fn beat(&mut self) {
        if let Some((deployment, said)) = &mut self.stuck
            && said.elapsed() >= BEAT
            && self.held.is_empty()
            && self.frames.between()
        {
            *said = Instant::now();
            self.held.extend_from_slice(&Header::bare(Kind::Beat, *deployment, 0).encode());
        }
    }
}

/// Connects to where the connection was bound for, past the firewall's rules.
fn connect_past(to: SocketAddrV4) -> io::Result<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Mark, &MARK)?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(TcpStream::from(fd))
}

/// Passes on one connection until both ends have ended or it is cut.
fn pass(call: TcpStream, state: &State) -> io::Result<()> {
    let meant = nix::sys::socket::getsockopt(&call, sockopt::OriginalDst)?;
    let address = Ipv4Addr::from(u32::from_be(meant.sin_addr.s_addr));
    let on = connect_past(SocketAddrV4::new(address, u16::from_be(meant.sin_port)))?;
    for stream in [&call, &on] {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
    }
    // The firewall leads what the node itself connects to the loopback address.
    let inward = call.local_addr()?.ip() == address;
    let mut ways = [false, true].map(|up| Way::new(up, state.plan.which.is(up, inward)));
    loop {
        wait(&call, &on, &ways)?;
        for way in &mut ways {
            let (mut from, mut to) = if way.up { (&on, &call) } else { (&call, &on) };
            state.arm(way);
            way.beat();
            if way.reads() {
                way.held.resize(BUFFER, 0);
                let got = from.read(&mut way.held);
                way.held.truncate(*got.as_ref().unwrap_or(&0));
                match got {
                    Ok(0) => way.ended = true,
                    Ok(_) => {
                        state.damage(way);
                        state.follow(way);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            let due = state.cut_in(way);
            if due != Some(0) && !way.held.is_empty() {
                let most = due.map_or(way.held.len(), |due| way.held.len().min(due));
                match to.write(&way.held[..most]) {
                    Ok(count) => {
                        way.held.drain(..count);
                        if way.aimed_at {
                            state.passed[usize::from(way.up)].fetch_add(count as u64, Ordering::Relaxed);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            if state.cut_in(way) == Some(0) && state.take(way) {
                return cut(state.plan.fault, &call, &on);
            }
            if way.ended && way.held.is_empty() && !way.told {
                way.told = true;
                // It may have hung up itself.
                let _ = to.shutdown(Shutdown::Write);
            }
        }
        if ways.iter().all(|way| way.told) {
            return Ok(());
        }
    }
}

/// Waits until one of the two streams can be read or written, or it is time to look again.
fn wait(call: &TcpStream, on: &TcpStream, ways: &[Way; 2]) -> io::Result<()> {
    let flags = |reads: &Way, writes: &Way| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, reads.reads());
        flags.set(PollFlags::POLLOUT, !writes.held.is_empty());
        flags
    };
    let [down, up] = ways;
    let mut fds = [PollFd::new(call.as_fd(), flags(down, up)), PollFd::new(on.as_fd(), flags(up, down))];
    // A stream of which nothing is asked still tells that it broke.
    match poll(&mut fds, PollTimeout::from(LOOK)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Which {
    /// Whether these are the bytes that go up, or down, on a connection that was made to the node, or by it.
    fn is(self, up: bool, inward: bool) -> bool {
        match self {
            Self::Down => !up,
            Self::Up => up,
            Self::Own => up == inward,
        }
    }
}

impl State {
    fn passed(&self, way: &Way) -> u64 {
        self.passed[usize::from(way.up)].load(Ordering::Relaxed)
    }

    fn next(&self, way: &Way) -> &AtomicU64 {
        &self.next[usize::from(way.up)]
    }

    /// If the fault was asked for, it happens at the next byte that is passed on.
    fn arm(&self, way: &Way) {
        if way.aimed_at && self.plan.at.is_none() && self.now.swap(false, Ordering::Relaxed) {
            for (next, passed) in self.next.iter().zip(&self.passed) {
                next.store(passed.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// What is aimed at in the frames of this way, as far as it is due.
    fn aim(&self, way: &Way) -> Option<Aim> {
        let due = way.aimed_at && self.passed(way) >= self.next(way).load(Ordering::Relaxed);
        let mended = self.plan.mended;
        match self.plan.fault {
            Fault::Part => due.then_some(Aim::Flip { kind: Kind::Part, mended }),
            Fault::Header => due.then_some(Aim::Flip { kind: Kind::Manifest, mended }),
            Fault::Stuck => due.then_some(Aim::Hold),
            Fault::Flip | Fault::Garble | Fault::Reset | Fault::Close => None,
        }
    }

    /// Follows the frames of what was just read, if the fault is about frames.
    fn follow(&self, way: &mut Way) {
        if !way.aimed_at || self.plan.fault.changes() || self.plan.fault.cuts() {
            return;
        }
        let (aim, read) = (self.aim(way), std::mem::take(&mut way.held));
        match way.frames.push(&read, aim, &mut way.held) {
            Then::On => {}
            Then::Struck => {
                self.next(way).store(NEVER, Ordering::Relaxed);
                say(STRUCK);
            }
            Then::Held(deployment) => {
                way.stuck = Some((deployment, Instant::now()));
                say(STRUCK);
            }
        }
    }

    /// How many bytes may still pass this way before the stream is cut; nothing if it is never cut.
    fn cut_in(&self, way: &Way) -> Option<usize> {
        let next = self.next(way).load(Ordering::Relaxed);
        if !self.plan.fault.cuts() || !way.aimed_at || next == NEVER {
            return None;
        }
        usize::try_from(next.saturating_sub(self.passed(way))).ok()
    }

    /// Whether this connection is the one that is cut: there is one cut only.
    fn take(&self, way: &Way) -> bool {
        let taken = self.next(way).swap(NEVER, Ordering::Relaxed) != NEVER;
        if taken {
            say(STRUCK);
        }
        taken
    }

    /// Changes those of the bytes just read that are to be changed.
    fn damage(&self, way: &mut Way) {
        if !self.plan.fault.changes() || !way.aimed_at {
            return;
        }
        let passed = self.passed(way);
        let every = if way.up { GARBLE_UP_EVERY } else { self.plan.every };
        loop {
            let next = self.next(way).load(Ordering::Relaxed);
            let gap = next.saturating_sub(passed);
            let Some(byte) = usize::try_from(gap).ok().and_then(|gap| way.held.get_mut(gap)) else { return };
            *byte ^= 0x10;
            let more = self.plan.fault == Fault::Garble;
            self.next(way).store(if more { next.max(passed) + every } else { NEVER }, Ordering::Relaxed);
            say(STRUCK);
        }
    }
}

fn cut(fault: Fault, call: &TcpStream, on: &TcpStream) -> io::Result<()> {
    for stream in [call, on] {
        if fault == Fault::Reset {
            // Closing a socket that lingers for no time resets it (socket(7)); the caller drops it at once.
            setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        } else {
            stream.shutdown(Shutdown::Both)?;
        }
    }
    Ok(())
}
