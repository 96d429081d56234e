//! The connections there are, and which one is closed to make room for the next.

use super::Shared;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most connections at a time: a whole lecture hall that boots at once.
const CONNECTIONS: usize = 256;
/// The most from one address: iPXE and firmware use one or two.
pub(super) const PER_ADDRESS: usize = 8;
/// How long a caller that was hung up on may take to leave before the next one is hung up on, too.
const LEAVING: Duration = Duration::from_millis(200);

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Callers {
    here: Mutex<Here>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Here {
    last: u64,
    callers: HashMap<u64, Caller>,
}

#[derive(Debug)]
struct Caller {
    from: IpAddr,
    socket: Arc<TcpStream>,
    came: Instant,
    /// Bytes that it took.
    sent: Arc<AtomicU64>,
    /// It was hung up on.
    leaving: bool,
}

/// How little a caller has made of its time, the least first: callers that have taken nothing by how long they have been there, then the others by
/// bytes a second.
fn worth(sent: u64, here: Duration) -> (u128, u128) {
    let millis = here.as_millis().max(1);
    (u128::from(sent) * 1000 / millis, u128::MAX - millis)
}

/// A caller's place, given back when dropped.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    from: IpAddr,
    id: u64,
    socket: Arc<TcpStream>,
    sent: Arc<AtomicU64>,
}

impl Place {
    /// A place for the caller `from`; none if its address has enough of them. Where all are taken, the slowest caller goes.
    pub(super) fn take(shared: &Arc<Shared>, socket: TcpStream, from: IpAddr) -> Option<Self> {
        let Callers { here, left } = &shared.callers;
        let mut here = here.lock().unwrap_or_else(PoisonError::into_inner);
        if here.callers.values().filter(|caller| caller.from == from).count() >= PER_ADDRESS {
            return None;
        }
        while here.callers.len() >= CONNECTIONS {
            here.hang_up_on_slowest(Instant::now());
            here = left.wait_timeout(here, LEAVING).unwrap_or_else(PoisonError::into_inner).0;
        }
        here.last += 1;
        let (id, socket, sent) = (here.last, Arc::new(socket), Arc::<AtomicU64>::default());
        let caller = Caller { from, socket: socket.clone(), came: Instant::now(), sent: sent.clone(), leaving: false };
        here.callers.insert(id, caller);
        Some(Self { shared: shared.clone(), from, id, socket, sent })
    }

    /// The address.
    pub(super) fn from(&self) -> IpAddr {
        self.from
    }

    /// The connection.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The caller took so many bytes more.
    pub(super) fn took(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Here {
    fn hang_up_on_slowest(&mut self, now: Instant) {
        let staying = self.callers.values_mut().filter(|caller| !caller.leaving);
        let slowest = staying.min_by_key(|caller| worth(caller.sent.load(Ordering::Relaxed), now - caller.came));
        if let Some(caller) = slowest {
            caller.leaving = true;
            log::debug!("HTTP: no room, {} is the slowest and goes", caller.from);
            // Its thread wakes from whatever it waits for.
            let _ = caller.socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Callers { here, left } = &self.shared.callers;
        here.lock().unwrap_or_else(PoisonError::into_inner).callers.remove(&self.id);
        left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_go_before_the_slow_and_the_longest_idle_first() {
        let callers = [
            ("fast", 50_000_000, 10_000),
            ("idle for 1 s", 0, 1_000),
            ("idle for 9 s", 0, 9_000),
            ("slow", 20_000, 10_000),
            ("new", 0, 0),
        ];
        let mut order = callers.to_vec();
        order.sort_by_key(|(_, sent, millis)| worth(*sent, Duration::from_millis(*millis)));
        let names: Vec<_> = order.into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["idle for 9 s", "idle for 1 s", "new", "slow", "fast"]);
    }
}
