//! The connections of a feed, in virtual time: what `server/src/feed/` does for the same machine.

use crate::core::Core;
use crate::network::{CALLER, ConnId, Frame, SERVER, host_at};
use crate::queue::Event;
use slidecast_proto::feed::{Feed as Machine, FeedEvent, FeedOrder, FeedTransmit};
use slidecast_proto::frame::{HEADER_LEN, Header};
use slidecast_proto::link::LinkFault;
use slidecast_proto::units::Time;
use std::time::Duration;

#[derive(Debug)]
struct Connection {
    conn: ConnId,
    established: bool,
}

#[derive(Debug)]
pub(crate) struct Feed {
    serial: u64,
    machine: Machine,
    connection: Option<Connection>,
    timer: Time,
    /// When it was looked at last; it slept since.
    looked: Time,
    /// Block frames and bytes sent that were not counted yet.
    sent: (u64, u64),
}

impl Feed {
    pub(crate) fn start(serial: u64, order: FeedOrder, core: &mut Core) -> Self {
        let machine = Machine::new(order, core.image.shape.clone(), core.now);
        let (connection, timer) = (None, Time(u64::MAX));
        let mut feed = Self { serial, machine, connection, timer, looked: core.now, sent: (0, 0) };
        feed.turn(core);
        feed
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        self.connection.as_ref().map(|connection| connection.conn)
    }

    pub(crate) fn stop(self, core: &mut Core) {
        if let Some(connection) = self.connection {
            core.close(connection.conn, CALLER);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<FeedEvent> {
        self.machine.poll_event()
    }

    /// The block frames and bytes sent since the last call.
    pub(crate) fn take_sent(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.sent)
    }

    pub(crate) fn on_called(&mut self, accepted: bool, core: &mut Core) {
        if !accepted {
            return self.on_closed("connection refused", core);
        }
        if let Some(connection) = &mut self.connection {
            connection.established = true;
        }
        self.turn(core);
    }

    pub(crate) fn on_closed(&mut self, why: &str, core: &mut Core) {
        self.machine.on_closed(&LinkFault::Broken(why.to_owned()), core.now);
        self.turn(core);
    }

    /// A frame came from the head.
    pub(crate) fn on_frame(&mut self, frame: Frame, core: &mut Core) {
        let Frame::Whole(bytes) = frame else { return };
        self.take(&bytes, core);
        self.turn(core);
    }

    fn take(&mut self, bytes: &[u8], core: &Core) {
        let parsed = bytes.split_first_chunk::<HEADER_LEN>().ok_or(LinkFault::Malformed("frame"));
        let parsed = parsed.and_then(|(head, payload)| Ok((Header::parse(head)?, payload)));
        self.machine.on_alive(core.now);
        match parsed {
            Err(fault) => self.machine.on_closed(&fault, core.now),
            Ok((header, payload)) => match self.machine.on_frame(&header, payload, core.now) {
                Some(block) if core.image.rotten == Some(block.0) => {
                    self.machine.on_image_fault(format!("block {block} of the image is rotten"));
                }
                Some(block) => self.machine.resend(block),
                None => {}
            },
        }
    }

    /// A frame that waited is out.
    pub(crate) fn on_out(&mut self, core: &Core) {
        self.sleep(core.now);
        self.machine.on_transmitted(true, core.now);
    }

    /// Writes what can be written, keeps the link alive, connects again.
    pub(crate) fn turn(&mut self, core: &mut Core) {
        if self.timer <= core.now {
            self.timer = Time(u64::MAX);
        }
        self.sleep(core.now);
        self.machine.on_time(core.now);
        self.transmit(core);
        if !self.machine.has_link()
            && let Some(connection) = self.connection.take()
        {
            core.close(connection.conn, CALLER);
        }
        if self.machine.wants_call(core.now) {
            self.connect(core);
        }
        self.set_timer(core);
    }

    fn connect(&mut self, core: &mut Core) {
        let Some(host) = host_at(self.machine.order().address.ip()) else { return };
        let conn = core.connect(SERVER, host);
        self.machine.on_calling(core.rng.bytes(), core.now);
        self.connection = Some(Connection { conn, established: false });
    }

    fn sleep(&mut self, now: Time) {
        self.machine.on_slept(self.looked, now);
        self.looked = now;
    }

    fn transmit(&mut self, core: &mut Core) {
        let Some(connection) = self.connection.as_mut().filter(|connection| connection.established) else { return };
        while core.network.can_start(connection.conn, CALLER) {
            let image = core.image.clone();
            let Some(transmit) = self.machine.poll_transmit(&*image) else { break };
            let frame = match transmit {
                FeedTransmit::Bytes(bytes) => Frame::Whole(bytes),
                FeedTransmit::Shared(header, bytes) => Frame::Shared(header, bytes),
                FeedTransmit::Block(header, _, content) => {
                    self.sent.0 += 1;
                    let len = Header::parse(&header).map_or(0, |header| header.payload_len);
                    Frame::Block(header, len, content)
                }
            };
            self.sent.1 += frame.wire_bytes();
            if core.start(connection.conn, CALLER, frame) {
                self.machine.on_transmitted(true, core.now);
            }
        }
    }

    fn set_timer(&mut self, core: &mut Core) {
        if self.machine.is_over() {
            return;
        }
        let deadline = self.machine.deadline().max(core.now.after(Duration::from_micros(50)));
        if deadline < self.timer {
            self.timer = deadline;
            core.wake(deadline, Event::Feed(self.serial));
        }
    }
}
