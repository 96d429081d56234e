//! A feed: what `server/src/feed/` does around the feed machine, in virtual time.

use crate::agent::Agent;
use crate::core::Core;
use crate::network::{CALLER, ConnId, Frame, SERVER};
use crate::queue::Event;
use slidecast_proto::feed::{Feed as Machine, FeedTransmit, Source};
use slidecast_proto::frame::{HEADER_LEN, Header};
use slidecast_proto::link::{DamagedAnswers, LinkFault, SenderEvent, Terms};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, Time};
use std::net::SocketAddr;
use std::time::Duration;

/// The constants of `server/src/feed/mod.rs`.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// What a feed has to send, and to whom.
#[derive(Debug)]
pub struct FeedOrder {
    /// Tells it from others.
    pub serial: u64,
    /// What the head was told.
    pub terms: Terms,
    /// Where the head listens.
    pub address: SocketAddr,
    /// What to send.
    pub blocks: BlockSet,
}

/// What became of a feed.
#[derive(Debug)]
pub enum FeedNews {
    /// Something went out.
    Sent {
        /// Block frames.
        blocks: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The link is up.
    Up,
    /// The link broke and is being made again; what the head sent was damaged, or not.
    Broken(String, bool),
    /// The link is gone and did not come back; whatever the head answered was damaged, or not.
    Down(String, bool),
    /// For how long the network or the head took nothing, and in what time.
    Waited(Duration, Duration),
    /// This block of the image is rotten.
    ImageCorrupt(BlockNo),
}

#[derive(Debug)]
struct Connection {
    conn: ConnId,
    established: bool,
    machine: Machine,
    waiting: bool,
}

/// One feed.
#[derive(Debug)]
pub struct Feed {
    order: FeedOrder,
    connection: Option<Connection>,
    retry_at: Time,
    give_up: Time,
    answers: DamagedAnswers,
    said_up: bool,
    over: bool,
    timer: Time,
    /// Since when, for how long of it the network or the head took nothing, and when that was looked at last.
    waited: (Time, Duration, Time),
}

impl Feed {
    /// Starts to connect.
    pub fn start(order: FeedOrder, core: &mut Core) -> Self {
        let mut feed = Self {
            order,
            connection: None,
            retry_at: core.now,
            give_up: core.now.after(PATIENCE),
            answers: DamagedAnswers::default(),
            said_up: false,
            over: false,
            timer: Time(u64::MAX),
            waited: (core.now, Duration::ZERO, core.now),
        };
        feed.connect(core);
        feed.sleep(core);
        feed
    }

    /// Which one it is.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.order.serial
    }

    /// Its connection.
    #[must_use]
    pub fn conn(&self) -> Option<ConnId> {
        self.connection.as_ref().map(|connection| connection.conn)
    }

    /// Ends it.
    pub fn stop(self, core: &mut Core) {
        if let Some(connection) = self.connection {
            core.close(connection.conn, CALLER);
        }
    }

    fn connect(&mut self, core: &mut Core) {
        let Some(agent) = Agent::at(self.order.address.ip()) else { return };
        let conn = core.connect(SERVER, agent + 1);
        let (terms, todo) = (self.order.terms.clone(), self.order.blocks.clone());
        let machine = Machine::new(terms, core.image.shape.clone(), todo, core.rng.bytes(), core.now);
        self.connection = Some(Connection { conn, established: false, machine, waiting: false });
    }

    /// The call was answered.
    pub fn on_called(&mut self, accepted: bool, core: &mut Core) -> Vec<FeedNews> {
        if !accepted {
            return self.on_closed("connection refused", core);
        }
        if let Some(connection) = &mut self.connection {
            connection.established = true;
        }
        self.turn(core)
    }

    /// The connection is gone.
    pub fn on_closed(&mut self, why: &str, core: &mut Core) -> Vec<FeedNews> {
        let mut news = Vec::new();
        self.fail(&LinkFault::Broken(why.to_owned()), &mut news, core);
        self.sleep(core);
        news
    }

    fn fail(&mut self, fault: &LinkFault, news: &mut Vec<FeedNews>, core: &mut Core) {
        let Some(connection) = self.connection.take() else { return };
        core.close(connection.conn, CALLER);
        let why = fault.to_string();
        if connection.machine.is_proven() {
            self.give_up = core.now.after(PATIENCE);
            news.push(FeedNews::Broken(why.clone(), fault.is_damage()));
        } else {
            self.answers.on_fault(fault);
        }
        if core.now >= self.give_up || self.answers.are_many() {
            self.over = true;
            news.push(FeedNews::Down(why, self.answers.are_many()));
        }
        self.retry_at = core.now.after(PAUSE);
    }

    /// A frame came from the head.
    pub fn on_frame(&mut self, frame: Frame, core: &mut Core) -> Vec<FeedNews> {
        let Frame::Whole(bytes) = frame else { return Vec::new() };
        let mut news = Vec::new();
        if let Err(fault) = self.take(&bytes, &mut news, core) {
            self.fail(&fault, &mut news, core);
        }
        news.extend(self.turn(core));
        news
    }

    fn take(&mut self, bytes: &[u8], news: &mut Vec<FeedNews>, core: &Core) -> Result<(), LinkFault> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let Some((head, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(LinkFault::Malformed("frame"));
        };
        connection.machine.on_alive(core.now);
        let header = Header::parse(head)?;
        if let SenderEvent::Again(block) = connection.machine.on_frame(&header, payload, core.now)? {
            if core.image.rotten == Some(block.0) {
                self.over = true;
                news.push(FeedNews::ImageCorrupt(block));
            } else {
                connection.machine.resend(block);
            }
        }
        Ok(())
    }

    /// A frame that waited is out.
    pub fn on_out(&mut self, core: &Core) {
        if let Some(connection) = &mut self.connection {
            connection.waiting = false;
            connection.machine.on_transmitted(core.now);
        }
    }

    /// Writes what can be written, keeps the link alive, connects again.
    pub fn turn(&mut self, core: &mut Core) -> Vec<FeedNews> {
        let mut news = Vec::new();
        if self.timer <= core.now {
            self.timer = Time(u64::MAX);
        }
        if self.over {
            return news;
        }
        self.count_waits(&mut news, core.now);
        if self.connection.is_none() && self.retry_at <= core.now {
            self.connect(core);
        }
        let lost = self.connection.as_mut().and_then(|connection| connection.machine.on_time(core.now).err());
        if let Some(fault) = lost {
            if fault == LinkFault::Handshake {
                self.give_up = core.now;
            }
            self.fail(&fault, &mut news, core);
        }
        self.transmit(&mut news, core);
        if !self.said_up && self.connection.as_ref().is_some_and(|connection| connection.machine.is_proven()) {
            self.said_up = true;
            news.push(FeedNews::Up);
        }
        self.sleep(core);
        news
    }

    fn count_waits(&mut self, news: &mut Vec<FeedNews>, now: Time) {
        let waits = |connection: &Connection| connection.waiting || connection.machine.waits_for_credit();
        let (since, mut network, last) = self.waited;
        if self.connection.as_ref().is_some_and(waits) {
            network += now.since(last);
        }
        self.waited = (since, network, now);
        if now.since(since) >= Duration::from_secs(1) {
            news.push(FeedNews::Waited(network, now.since(since)));
            self.waited = (now, Duration::ZERO, now);
        }
    }

    fn transmit(&mut self, news: &mut Vec<FeedNews>, core: &mut Core) {
        let Some(connection) = self.connection.as_mut().filter(|connection| connection.established) else { return };
        let (mut blocks, mut bytes) = (0, 0);
        while core.network.can_start(connection.conn, CALLER) {
            let image = core.image.clone();
            let Some(transmit) = connection.machine.poll_transmit(&*image) else { break };
            let frame = match transmit {
                FeedTransmit::Bytes(bytes) => Frame::Whole(bytes),
                FeedTransmit::Shared(header, bytes) => Frame::Shared(header, bytes),
                FeedTransmit::Block(header, block) => {
                    blocks += 1;
                    let len = image.block(block).map_or(0, |frame| frame.stored_len);
                    Frame::Block(header, len, image.sent(block.0))
                }
            };
            bytes += frame.wire_bytes();
            if core.start(connection.conn, CALLER, frame) {
                connection.machine.on_transmitted(core.now);
            } else {
                connection.waiting = true;
            }
        }
        if bytes > 0 {
            news.push(FeedNews::Sent { blocks, bytes });
        }
    }

    fn sleep(&mut self, core: &mut Core) {
        if self.over {
            return;
        }
        let deadline = self.connection.as_ref().map_or(self.retry_at, |connection| connection.machine.deadline());
        let deadline = deadline.max(core.now.after(Duration::from_micros(50)));
        if deadline < self.timer {
            self.timer = deadline;
            core.wake(deadline, Event::Feed(self.order.serial));
        }
    }
}
