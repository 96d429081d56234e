//! A feed: the server's end of a chain. It calls the head, sends it what the pass has for it, and calls again when the link breaks,
//! for as long as [`PATIENCE`]. What was lost with a link the head asks for itself, because every link begins with what its
//! downstream lacks.
//!
//! The caller opens connections, reads and writes; everything else is decided here:
//!
//! ```text
//! wants_call -> open a connection -> on_calling     poll_transmit -> write -> on_transmitted
//! a frame    -> on_frame                            the connection failed -> on_closed
//! the time   -> on_time                             !has_link -> close the connection
//! ```

mod link;
#[cfg(test)]
mod tests;

use crate::bug::{self, Bug};
use crate::frame::{HEADER_LEN, Header};
use crate::link::{DamagedAnswers, LinkFault, SenderEvent, Terms};
use crate::node::Shape;
use crate::set::BlockSet;
use crate::units::{BlockNo, PartNo, Time};
use core::time::Duration;
use link::FeedLink;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// How long a feed tries to get, or to get back, its link.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The pause between two calls.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it says what it waited for.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How a stored block looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFrame<P> {
    /// How its payload is compressed.
    pub codec: u8,
    /// Its length in bytes before compression.
    pub raw_len: u32,
    /// The length of its payload in bytes.
    pub stored_len: u32,
    /// CRC-32 of its payload, as `image create` stored it.
    pub crc: u32,
    /// Where that payload is to be had.
    pub payload: P,
}

/// Where a feed gets what it sends.
pub trait Source {
    /// Where the payload of a block is to be had.
    type Payload;

    /// The encoded manifest header.
    fn manifest(&self) -> Arc<[u8]>;
    /// An encoded part.
    fn part(&self, part: PartNo) -> Arc<[u8]>;
    /// A stored block, or nothing for a fill block.
    fn block(&self, block: BlockNo) -> Option<BlockFrame<Self::Payload>>;
}

/// The next thing to write to the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedTransmit<P> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A header and its payload.
    Shared([u8; HEADER_LEN], Arc<[u8]>),
    /// A header, and then the payload of this block.
    Block([u8; HEADER_LEN], BlockNo, P),
}

/// What happened on a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// The link stands; blocks flow.
    Up,
    /// Everything of the pass was given to the connection.
    Ended,
    /// The link broke; it is being made again.
    Broken {
        /// Why.
        detail: String,
        /// What the head sent was damaged.
        damaged: bool,
    },
    /// For how long the feed had something to send and the network did not take it, and in what time.
    Waited {
        /// Waited for the network.
        network: Duration,
        /// Out of this.
        of: Duration,
    },
    /// The link is gone and is not made again. Nothing more comes from this feed.
    Down {
        /// Why.
        detail: String,
        /// Whatever the head answered was damaged.
        damaged: bool,
    },
    /// A block in the image file is not what it must be; file, block and fault in one line. Nothing more comes from this feed.
    ImageCorrupt(String),
}

/// What a feed has to send, and to whom.
#[derive(Clone, Debug)]
pub struct FeedOrder {
    /// What the head was told of the link.
    pub terms: Terms,
    /// Where the head listens.
    pub address: SocketAddr,
    /// The blocks of this pass.
    pub blocks: BlockSet,
}

/// The upstream of a chain's head, from its first call to its end.
#[derive(Debug)]
pub struct Feed {
    order: FeedOrder,
    shape: Arc<Shape>,
    link: Option<FeedLink>,
    /// When to call the head, if there is no link.
    call_at: Time,
    give_up: Time,
    answers: DamagedAnswers,
    /// A frame was given to the connection and is not out yet.
    writing: bool,
    said_up: bool,
    said_ended: bool,
    over: bool,
    waited: Waited,
    events: VecDeque<FeedEvent>,
}

/// How long the network took nothing of what there was to send.
#[derive(Debug)]
struct Waited {
    since: Time,
    network: Duration,
}

impl Feed {
    /// A feed that is to call its head at once.
    #[must_use]
    pub fn new(order: FeedOrder, shape: Arc<Shape>, now: Time) -> Self {
        Self {
            order,
            shape,
            link: None,
            call_at: now,
            give_up: now.after(PATIENCE),
            answers: DamagedAnswers::default(),
            writing: false,
            said_up: false,
            said_ended: false,
            over: false,
            waited: Waited { since: now, network: Duration::ZERO },
            events: VecDeque::new(),
        }
    }

    /// What it has to send, and to whom.
    #[must_use]
    pub fn order(&self) -> &FeedOrder {
        &self.order
    }

    /// Whether the head is to be called now: [`Self::on_calling`] with the new connection, or [`Self::on_closed`] if it fails.
    #[must_use]
    pub fn wants_call(&self, now: Time) -> bool {
        self.link.is_none() && !self.over && self.call_at <= now
    }

    /// A connection is being opened; `nonce` must be fresh random bytes.
    pub fn on_calling(&mut self, nonce: [u8; 16], now: Time) {
        let FeedOrder { terms, blocks, .. } = self.order.clone();
        (self.writing, self.said_ended) = (false, false);
        self.waited = Waited { since: now, network: Duration::ZERO };
        self.link = Some(FeedLink::new(terms, self.shape.clone(), blocks, nonce, now));
    }

    /// Whether there is a link. The caller closes its connection where there is none.
    #[must_use]
    pub fn has_link(&self) -> bool {
        self.link.is_some()
    }

    /// Whether nothing more comes from this feed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The connection is gone, or could not be opened. [`LinkFault::Broken`] has the words of the system.
    pub fn on_closed(&mut self, fault: &LinkFault, now: Time) {
        let proven = self.link.take().is_some_and(|link| link.is_proven());
        if self.over {
            return;
        }
        if proven {
            self.give_up = now.after(PATIENCE);
            self.events.push_back(FeedEvent::Broken { detail: fault.to_string(), damaged: fault.is_damage() });
        } else {
            self.answers.on_fault(fault);
        }
        self.call_at = now.after(if bug::is(Bug::RetryForgotten) { PATIENCE * 100 } else { PAUSE });
        let damaged = self.answers.are_many();
        // If the kernel acknowledges but the agent is silent, another attempt will not help.
        if now >= self.give_up || damaged || *fault == LinkFault::Handshake {
            let FeedOrder { terms, address, .. } = &self.order;
            let detail = format!("link to node {} at {address}: {fault}", terms.to);
            self.end(FeedEvent::Down { detail, damaged });
        }
    }

    /// The image file did not give what was to be sent, or gave something else; `detail` says which file, what, and where.
    pub fn on_image_fault(&mut self, detail: String) {
        self.end(FeedEvent::ImageCorrupt(detail));
    }

    fn end(&mut self, event: FeedEvent) {
        self.link = None;
        if !self.over {
            self.over = true;
            self.events.push_back(event);
        }
    }

    /// Bytes came: the head lives.
    pub fn on_alive(&mut self, now: Time) {
        if let Some(link) = &mut self.link {
            link.on_alive(now);
        }
    }

    /// Takes a frame that came complete from the head. Gives a block that the head wants again: where it is good in the
    /// image file, [`Self::resend`], else [`Self::on_image_fault`].
    pub fn on_frame(&mut self, header: &Header, payload: &[u8], now: Time) -> Option<BlockNo> {
        let event = self.link.as_mut()?.on_frame(header, payload, now);
        self.say_up();
        match event {
            Ok(SenderEvent::Again(block)) => Some(block).filter(|_| !bug::is(Bug::AgainForgotten)),
            Ok(_) => None,
            Err(fault) => {
                self.on_closed(&fault, now);
                None
            }
        }
    }

    /// Sends `block` once more, after everything new.
    pub fn resend(&mut self, block: BlockNo) {
        if let Some(link) = &mut self.link {
            link.resend(block);
        }
    }

    /// Keeps the link alive, or finds it dead.
    pub fn on_time(&mut self, now: Time) {
        let result = self.link.as_mut().map(|link| link.on_time(now));
        if let Some(Err(fault)) = result {
            self.on_closed(&fault, now);
        }
        let of = now.since(self.waited.since);
        if self.link.is_some() && of >= TELL_EVERY {
            self.events.push_back(FeedEvent::Waited { network: self.waited.network, of });
            self.waited = Waited { since: now, network: Duration::ZERO };
        }
    }

    /// The caller had nothing to do from `from` to `to`: it waited for the connection or the clock.
    pub fn on_slept(&mut self, from: Time, to: Time) {
        let held = self.link.as_ref().is_some_and(FeedLink::waits_for_credit);
        if (self.writing || held) && !bug::is(Bug::WaitUncounted) {
            self.waited.network += to.since(from);
        }
    }

    /// When to call [`Self::on_time`], and to look at [`Self::wants_call`], at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.link.as_ref().map_or(self.call_at, FeedLink::deadline)
    }

    /// The next thing to write, if there is any and credit covers it. The caller takes nothing more until it is out.
    pub fn poll_transmit<S: Source>(&mut self, source: &S) -> Option<FeedTransmit<S::Payload>> {
        let transmit = self.link.as_mut()?.poll_transmit(source);
        self.writing = transmit.is_some();
        self.say_ended();
        transmit
    }

    /// Something was written; `whole` if nothing of the frame is left to write.
    pub fn on_transmitted(&mut self, whole: bool, now: Time) {
        let Some(link) = &mut self.link else { return };
        link.on_transmitted(now);
        self.writing = !whole;
        self.say_ended();
    }

    fn say_up(&mut self) {
        if !self.said_up && self.link.as_ref().is_some_and(FeedLink::is_proven) {
            self.said_up = true;
            self.events.push_back(FeedEvent::Up);
        }
    }

    fn say_ended(&mut self) {
        let drained = !self.writing && self.link.as_ref().is_some_and(FeedLink::is_drained);
        if drained && !self.said_ended {
            self.said_ended = true;
            self.events.push_back(FeedEvent::Ended);
        }
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<FeedEvent> {
        self.events.pop_front()
    }
}
