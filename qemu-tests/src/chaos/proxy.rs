//! A proxy between an upstream and its downstream that damages or cuts what it passes on, at a byte that was named before.
//!
//! It runs in the downstream's network namespace, whose firewall sends it every connection that comes over the card
//! ([`redirect`]); the kernel still knows where each was bound for, and there the proxy connects. That connection
//! does not come over the card, so it is not redirected again. Neither end can tell.
//!
//! Bytes are counted over all connections of the run, each direction for itself: a stream that was cut goes on being
//! counted in the next one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use signal_hook::consts::SIGUSR1;

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
/// How far apart the damaged bytes of [`Fault::Garble`] are.
const GARBLE_EVERY: u64 = 5 << 19;

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
}

impl Fault {
    /// Whether it changes bytes, and cuts nothing.
    pub fn changes(self) -> bool {
        matches!(self, Self::Flip | Self::Garble)
    }
}

/// What is to happen where.
#[derive(Debug)]
pub struct Plan {
    /// What.
    pub fault: Fault,
    /// On the way up instead of down.
    pub up: bool,
    /// Before this byte; none is when [`SIGUSR1`] comes.
    pub at: Option<u64>,
}

/// The firewall rules, for `nft -f`, that lead every TCP connection over the card to the proxy.
pub fn redirect() -> String {
    format!(
        "table ip chaos {{\nchain arriving {{\ntype nat hook prerouting priority dstnat\n\
         iifname \"eth0\" meta l4proto tcp redirect to :{PORT}\n}}\n}}\n"
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
    let state = Arc::new(State {
        next: AtomicU64::new(plan.at.unwrap_or(NEVER)),
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
    /// The next byte at which something happens, or [`NEVER`].
    next: AtomicU64,
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
    held: Vec<u8>,
    /// The sender has ended.
    ended: bool,
    /// The receiver was told so.
    told: bool,
}

impl Way {
    fn new(up: bool) -> Self {
        Self { up, held: Vec::with_capacity(BUFFER), ended: false, told: false }
    }
}

/// Passes on one connection until both ends have ended or it is cut.
fn pass(call: TcpStream, state: &State) -> io::Result<()> {
    let meant = nix::sys::socket::getsockopt(&call, sockopt::OriginalDst)?;
    let address = Ipv4Addr::from(u32::from_be(meant.sin_addr.s_addr));
    let to = SocketAddr::V4(SocketAddrV4::new(address, u16::from_be(meant.sin_port)));
    let on = TcpStream::connect(to)?;
    for stream in [&call, &on] {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
    }
    let mut ways = [Way::new(false), Way::new(true)];
    loop {
        wait(&call, &on, &ways)?;
        for way in &mut ways {
            let (mut from, mut to) = if way.up { (&on, &call) } else { (&call, &on) };
            state.arm(way);
            if !way.ended && way.held.is_empty() {
                way.held.resize(BUFFER, 0);
                let got = from.read(&mut way.held);
                way.held.truncate(*got.as_ref().unwrap_or(&0));
                match got {
                    Ok(0) => way.ended = true,
                    Ok(_) => state.damage(way),
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
                        state.passed[usize::from(way.up)].fetch_add(count as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            if state.cut_in(way) == Some(0) && state.take() {
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
        flags.set(PollFlags::POLLIN, !reads.ended && reads.held.is_empty());
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

impl State {
    fn passed(&self, way: &Way) -> u64 {
        self.passed[usize::from(way.up)].load(Ordering::Relaxed)
    }

    /// If the fault was asked for, it happens at the next byte that this way passes on.
    fn arm(&self, way: &Way) {
        if way.up == self.plan.up && self.plan.at.is_none() && self.now.swap(false, Ordering::Relaxed) {
            self.next.store(self.passed(way), Ordering::Relaxed);
        }
    }

    /// How many bytes may still pass this way before the stream is cut; nothing if it is never cut.
    fn cut_in(&self, way: &Way) -> Option<usize> {
        let next = self.next.load(Ordering::Relaxed);
        if self.plan.fault.changes() || way.up != self.plan.up || next == NEVER {
            return None;
        }
        usize::try_from(next.saturating_sub(self.passed(way))).ok()
    }

    /// Whether this connection is the one that is cut: there is one cut only.
    fn take(&self) -> bool {
        let taken = self.next.swap(NEVER, Ordering::Relaxed) != NEVER;
        if taken {
            say(STRUCK);
        }
        taken
    }

    /// Changes those of the bytes just read that are to be changed.
    fn damage(&self, way: &mut Way) {
        if !self.plan.fault.changes() || way.up != self.plan.up {
            return;
        }
        let passed = self.passed(way);
        loop {
            let next = self.next.load(Ordering::Relaxed);
            let gap = next.saturating_sub(passed);
            let Some(byte) = usize::try_from(gap).ok().and_then(|gap| way.held.get_mut(gap)) else { return };
            *byte ^= 0x10;
            let more = self.plan.fault == Fault::Garble;
            self.next.store(if more { next + GARBLE_EVERY } else { NEVER }, Ordering::Relaxed);
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
