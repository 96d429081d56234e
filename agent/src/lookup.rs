//! Looks a name up on a thread of its own: where a name server does not answer, the C library waits for seconds, and the net thread
//! waits for nothing but its events.

use mio::Waker;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::Builder;

/// Addresses of one name that are kept.
const MAX_ADDRESSES: usize = 64;

/// A look-up that is under way.
#[derive(Debug)]
pub(crate) struct Lookup(Receiver<io::Result<Vec<SocketAddr>>>);

impl Lookup {
    /// Starts to look `host` up; `waker` tells when there is something to [`Lookup::poll`]. An address needs no looking up.
    pub(crate) fn start(host: &str, port: u16, waker: Arc<Waker>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        if let Ok(address) = host.parse::<IpAddr>() {
            let _ = sender.send(Ok(vec![SocketAddr::new(address, port)]));
            return Ok(Self(receiver));
        }
        let host = host.to_owned();
        // Nobody waits for it: the agent may end in the middle of a look-up.
        Builder::new().name("slidecast-names".to_owned()).spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect());
            // Whoever asked may have stopped asking.
            if sender.send(found).is_ok()
                && let Err(error) = waker.wake()
            {
                log::error!("waking the net thread: {error}");
            }
        })?;
        Ok(Self(receiver))
    }

    /// What was found, once.
    pub(crate) fn poll(&self) -> Option<io::Result<Vec<SocketAddr>>> {
        match self.0.try_recv() {
            Ok(found) => Some(found),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the look-up broke off"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};

    #[test]
    fn a_name_is_looked_up_beside_the_event_loop_which_is_woken() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        // A waker that nobody holds any more wakes nobody: as in the event loop, it outlives the thread.
        let lookup = Lookup::start("localhost", 7, waker.clone()).unwrap();
        let mut events = Events::with_capacity(1);
        let found = loop {
            if let Some(found) = lookup.poll() {
                break found.unwrap();
            }
            poll.poll(&mut events, None).unwrap();
        };
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7) && !found.is_empty());
        drop(waker);
    }

    #[test]
    fn an_address_is_there_at_once() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let lookup = Lookup::start("10.0.0.1", 7, waker).unwrap();
        assert_eq!(lookup.poll().unwrap().unwrap(), [SocketAddr::from(([10, 0, 0, 1], 7))]);
    }
}
