//! Feeds: one thread per chain sends the image to the chain's head.
//!
//! A payload goes from the layer file into the socket by sendfile(2), without passing through this program. A connection
//! that breaks is made again for as long as [`PATIENCE`]; what was lost with it the head asks for itself, because every
//! link begins with what its downstream lacks.

mod connection;
mod incoming;
mod outgoing;
mod readahead;
#[cfg(test)]
mod tests;

use crate::clock::Clock;
use connection::{Connection, ConnectionError};
use mio::{Events, Interest, Poll, Token, Waker};
use slidecast_image::Resolved;
use slidecast_proto::link::{DamagedAnswers, LinkFault, Terms};
use slidecast_proto::node::Shape;
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, Time};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long a feed tries to get, or to get back, its connection.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is told what a feed waited for.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// What a feed has to send, and to whom.
#[derive(Clone, Debug)]
pub struct FeedOrder {
    /// Tells this feed from others that the chain had or will have.
    pub serial: u64,
    /// The chain.
    pub chain: u16,
    /// What the head was told of the link.
    pub terms: Terms,
    /// Where the head listens.
    pub address: SocketAddr,
    /// The blocks of this pass.
    pub blocks: BlockSet,
}

/// What became of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedNews {
    /// The link is up; blocks flow.
    Up,
    /// Everything of the pass was given to the kernel.
    Ended,
    /// The link broke; it is being made again.
    Broken {
        /// Why, in one line.
        detail: String,
        /// What the head sent was damaged.
        damaged: bool,
    },
    /// How long there was something to send and the network did not take it.
    Waited {
        /// Waited for the network.
        network: Duration,
        /// Out of this.
        of: Duration,
    },
    /// The link is gone and did not come back. Nothing more comes from this feed.
    Down {
        /// Why, in one line.
        detail: String,
        /// Whatever the head answered was damaged.
        damaged: bool,
    },
    /// A block in the image file is not what it should be. Nothing more comes from this feed.
    ImageCorrupt {
        /// The block.
        block: BlockNo,
        /// File, block and fault in one line.
        detail: String,
    },
}

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
    /// Called with the serial number of a feed when there is news of it.
    pub news: Box<dyn Fn(u64, FeedNews) + Send + Sync>,
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
    /// Starts the thread of a feed.
    ///
    /// # Errors
    /// What the system said to a new thread or poll set.
    pub fn start(order: FeedOrder, context: Arc<FeedContext>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker { order, context, poll, stop: stop.clone() };
        let name = format!("slidecast-feed{}", worker.order.chain);
        std::thread::Builder::new().name(name).spawn(move || worker.run())?;
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
    order: FeedOrder,
    context: Arc<FeedContext>,
    poll: Poll,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        let mut give_up = self.context.clock.now().after(PATIENCE);
        let mut said_up = false;
        let mut answers = DamagedAnswers::default();
        while let Err((error, was_open)) = self.connect_and_serve(&mut said_up) {
            let now = self.context.clock.now();
            if was_open {
                give_up = now.after(PATIENCE);
                if !matches!(error, ConnectionError::Image { .. }) {
                    let damaged = matches!(&error, ConnectionError::Fault(fault) if fault.is_damage());
                    self.say(FeedNews::Broken { detail: error.to_string(), damaged });
                }
            } else if let ConnectionError::Fault(fault) = &error {
                answers.on_fault(fault);
            }
            let terms = &self.order.terms;
            log::debug!("chain {}: link to node {} at {}: {error}", self.order.chain, terms.to, self.order.address);
            match error {
                ConnectionError::Image { block, detail } => {
                    return self.say(FeedNews::ImageCorrupt { block, detail });
                }
                // If the kernel acknowledges but the agent is silent, another attempt will not help.
                error
                    if now >= give_up
                        || answers.are_many()
                        || matches!(error, ConnectionError::Fault(LinkFault::Handshake)) =>
                {
                    let detail = format!("link to node {} at {}: {error}", terms.to, self.order.address);
                    return self.say(FeedNews::Down { detail, damaged: answers.are_many() });
                }
                _ => {}
            }
            if self.wait(now.after(PAUSE)).is_err() || self.stopped() {
                return;
            }
        }
    }

    fn say(&self, news: FeedNews) {
        (self.context.news)(self.order.serial, news);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until something happens or `until` comes.
    fn wait(&mut self, until: Time) -> io::Result<()> {
        let mut events = Events::with_capacity(4);
        match self.poll.poll(&mut events, Some(self.context.clock.until(until))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// Serves one connection until the feed is stopped; an error says whether blocks could flow before it.
    fn connect_and_serve(&mut self, said_up: &mut bool) -> Result<(), (ConnectionError, bool)> {
        let context = self.context.clone();
        let mut connection = Connection::open(&self.order, &context).map_err(|error| (error.into(), false))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(connection.socket(), SOCKET, interest);
        registered.map_err(|error| (error.into(), false))?;
        let mut said_ended = false;
        let (mut since, mut network) = (context.clock.now(), Duration::ZERO);
        while !self.stopped() {
            let turn = connection.turn(context.clock.now());
            let turn = turn.map_err(|error| (error, connection.is_proven()))?;
            context.egress.fetch_add(turn.written, Ordering::Relaxed);
            if connection.is_proven() && !*said_up {
                *said_up = true;
                self.say(FeedNews::Up);
            }
            if connection.is_drained() && !said_ended {
                said_ended = true;
                self.say(FeedNews::Ended);
            }
            let before = context.clock.now();
            if before.since(since) >= TELL_EVERY {
                self.say(FeedNews::Waited { network, of: before.since(since) });
                (since, network) = (before, Duration::ZERO);
            }
            if turn.idle {
                self.wait(connection.deadline()).map_err(|error| (error.into(), connection.is_proven()))?;
                if connection.is_sending() {
                    network += context.clock.now().since(before);
                }
            }
        }
        Ok(())
    }
}
