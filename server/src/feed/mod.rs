//! Feeds: one thread per chain sends the image to the chain's head.
//!
//! What is sent, when, and how long a head is called again is decided by [`slidecast_proto::feed`]; here are the socket and the
//! image file. A payload goes from the layer file into the socket by sendfile(2), without passing through this program.

mod connection;
mod outgoing;
mod readahead;
mod source;
#[cfg(test)]
mod tests;

use crate::clock::Clock;
use connection::{Connection, ConnectionError};
use mio::{Events, Interest, Poll, Token, Waker};
use slidecast_image::Resolved;
use slidecast_proto::feed::{Feed as Machine, FeedEvent, FeedOrder};
use slidecast_proto::node::Shape;
use source::FromImage;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// What all feeds of a deployment share.
pub struct FeedContext {
    /// The image.
    pub image: Arc<Resolved>,
    /// How its manifest is cut.
    pub shape: Arc<Shape>,
    /// The clock.
    pub clock: Clock,
    /// Bytes given to the kernel by all feeds.
    pub egress: AtomicU64,
    /// Called with the serial number of a feed when something happened on it.
    pub tell: Box<dyn Fn(u64, FeedEvent) + Send + Sync>,
}

impl std::fmt::Debug for FeedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedContext").field("egress", &self.egress).finish_non_exhaustive()
    }
}

/// A running feed. It stops when this is dropped.
#[derive(Debug)]
pub struct Feed {
    stop: Arc<AtomicBool>,
    waker: Waker,
}

impl Feed {
    /// Starts the thread of a feed of `chain`. `serial` tells it from others that the chain had or will have.
    ///
    /// # Errors
    /// What the system said to a new thread or poll set.
    pub fn start(serial: u64, chain: u16, order: FeedOrder, context: Arc<FeedContext>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let machine = Machine::new(order, context.shape.clone(), context.clock.now());
        let worker = Worker { serial, chain, machine, context, poll, stop: stop.clone() };
        std::thread::Builder::new().name(format!("slidecast-feed{chain}")).spawn(move || worker.run())?;
        Ok(Self { stop, waker })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread is not waited for: it may be reading from a disk that takes its time.
        let _ = self.waker.wake();
    }
}

struct Worker {
    serial: u64,
    chain: u16,
    machine: Machine,
    context: Arc<FeedContext>,
    poll: Poll,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        while !self.machine.is_over() && !self.stop.load(Ordering::Relaxed) {
            let result = match self.machine.wants_call(self.context.clock.now()) {
                true => self.serve(),
                false => self.sleep().map_err(ConnectionError::from),
            };
            if let Err(error) = result {
                let order = self.machine.order();
                log::debug!("chain {}: link to node {} at {}: {error}", self.chain, order.terms.to, order.address);
                match error.into_fault() {
                    Ok(fault) => self.machine.on_closed(&fault, self.context.clock.now()),
                    Err(detail) => self.machine.on_image_fault(detail),
                }
            }
            self.tell();
        }
    }

    fn tell(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            (self.context.tell)(self.serial, event);
        }
    }

    /// Waits until something happens, or until the machine's time comes.
    fn sleep(&mut self) -> io::Result<()> {
        let clock = self.context.clock;
        let from = clock.now();
        let mut events = Events::with_capacity(4);
        match self.poll.poll(&mut events, Some(clock.until(self.machine.deadline()))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => self.machine.on_slept(from, clock.now()),
        }
        Ok(())
    }

    /// Calls the head, and serves the connection until the feed or its link ends.
    fn serve(&mut self) -> Result<(), ConnectionError> {
        let context = self.context.clone();
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let source = FromImage::new(context.image.clone());
        let mut connection = Connection::open(self.machine.order(), source)?;
        self.poll.registry().register(connection.socket(), SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        self.machine.on_calling(nonce, context.clock.now());
        while self.machine.has_link() && !self.stop.load(Ordering::Relaxed) {
            let turn = connection.turn(&mut self.machine, context.clock.now())?;
            context.egress.fetch_add(turn.written, Ordering::Relaxed);
            self.tell();
            if turn.idle {
                self.sleep()?;
            }
        }
        Ok(())
    }
}
