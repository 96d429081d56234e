//! The server's end of a chain: the upstream of the head. It holds every block, so its "ring" has no limit; all it decides
//! is which frame comes next.

use crate::frame::{HEADER_LEN, Header, Kind};
use crate::link::{BEAT, LinkFault, Sender, SenderEvent, Terms};
use crate::node::Shape;
use crate::set::BlockSet;
use crate::units::{BlockNo, PartNo, Time};
use std::sync::Arc;

/// How a stored block looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFrame {
    /// How its payload is compressed.
    pub codec: u8,
    /// Its length in bytes before compression.
    pub raw_len: u32,
    /// The length of its payload in bytes.
    pub stored_len: u32,
    /// CRC-32 of its payload, as `image create` stored it.
    pub crc: u32,
}

/// Where a feed gets what it sends.
pub trait Source {
    /// The encoded manifest header.
    fn manifest(&self) -> Arc<[u8]>;
    /// An encoded part.
    fn part(&self, part: PartNo) -> Arc<[u8]>;
    /// A stored block, or nothing for a fill block.
    fn block(&self, block: BlockNo) -> Option<BlockFrame>;
}

/// The next thing to write to the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedTransmit {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A header and its payload.
    Shared([u8; HEADER_LEN], Arc<[u8]>),
    /// A header, and then the payload of this block from the image file.
    Block([u8; HEADER_LEN], BlockNo),
}

/// The upstream end of a chain's first link.
#[derive(Debug)]
pub struct Feed {
    sender: Sender,
    shape: Arc<Shape>,
    todo: BlockSet,
    cursor: BlockNo,
    parts_sent: BlockSet,
    manifest_due: bool,
    end_sent: bool,
    /// What comes next is more than the credit covers.
    held: bool,
    /// When the time was last let pass.
    looked: Time,
}

impl Feed {
    /// A feed that was just connected to the head named in `terms` and has the blocks of `todo` to send. `nonce` must be
    /// fresh random bytes.
    #[must_use]
    pub fn new(terms: Terms, shape: Arc<Shape>, todo: BlockSet, nonce: [u8; 16], now: Time) -> Self {
        let mut sender = Sender::new(terms, nonce, now);
        sender.set_universe(shape.blocks);
        let parts_sent = BlockSet::empty(u32::try_from(shape.parts.len()).unwrap_or(0));
        Self {
            sender,
            shape,
            todo,
            cursor: BlockNo(0),
            parts_sent,
            manifest_due: false,
            end_sent: false,
            held: false,
            looked: now,
        }
    }

    /// Whether the head has proven its link key.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.sender.is_proven()
    }

    /// Whether everything was sent.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.end_sent && self.sender.has_no_again()
    }

    /// Any byte that arrives proves that the head lives.
    pub fn on_alive(&mut self, now: Time) {
        self.sender.on_alive(now);
    }

    /// Takes a frame that came complete from the head. [`SenderEvent::Again`] is for the caller: when the block is good
    /// in the image file, [`Self::resend`].
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub fn on_frame(&mut self, header: &Header, payload: &[u8], now: Time) -> Result<SenderEvent, LinkFault> {
        let event = self.sender.on_frame(header, payload, now)?;
        if let SenderEvent::Proven { has_header } = event {
            self.manifest_due = !has_header;
        }
        Ok(event)
    }

    /// Sends `block` once more, after everything new.
    pub fn resend(&mut self, block: BlockNo) {
        self.sender.resend(block);
    }

    /// Keeps the link alive, or finds it dead.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub fn on_time(&mut self, now: Time) -> Result<(), LinkFault> {
        // If this side stood still, it has not read what was sent meanwhile: the silence is its own.
        if now.since(self.looked) >= BEAT * 3 {
            self.sender.on_alive(now);
        }
        self.looked = now;
        self.sender.on_time(now)
    }

    /// When [`Self::on_time`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.sender.deadline()
    }

    /// Something was written whole.
    pub fn on_transmitted(&mut self, now: Time) {
        self.sender.on_said(now);
    }

    /// Whether there is something to send that the head gave no credit for.
    #[must_use]
    pub fn waits_for_credit(&self) -> bool {
        self.held
    }

    /// The next thing to write, if there is any and credit covers it.
    pub fn poll_transmit(&mut self, source: &impl Source) -> Option<FeedTransmit> {
        self.held = false;
        if let Some(bytes) = self.sender.poll_control() {
            return Some(FeedTransmit::Bytes(bytes));
        }
        let deployment = self.sender.terms().deployment;
        if self.sender.is_proven() && self.manifest_due {
            self.manifest_due = false;
            let bytes = source.manifest();
            let header = Header::with_payload(Kind::Manifest, deployment, 0, &bytes);
            return Some(FeedTransmit::Shared(header.encode(), bytes));
        }
        if !self.sender.is_open() {
            return None;
        }
        while let Some(block) = self.todo.next(self.cursor) {
            self.cursor = block;
            if !self.sender.lacks(block) {
                self.todo.remove(block);
                continue;
            }
            let part = self.shape.part_of(block);
            if !self.parts_sent.contains(BlockNo(part.0)) {
                let bytes = source.part(part);
                let header = Header::with_payload(Kind::Part, deployment, part.0, &bytes);
                if !self.sender.may_send(header.charge()) {
                    self.held = true;
                    return None;
                }
                self.sender.sent_part(&header);
                self.parts_sent.insert(BlockNo(part.0));
                return Some(FeedTransmit::Shared(header.encode(), bytes));
            }
            let comparing = self.sender.terms().pass == 0;
            let Some(frame) = source.block(block).filter(|_| !comparing) else {
                // A fill block needs nothing but its part, and a pass that compares has no blocks.
                self.todo.remove(block);
                continue;
            };
            let sent = self.send_block(block, frame);
            if sent.is_some() {
                self.todo.remove(block);
            }
            return sent;
        }
        // What is wanted again comes after everything new.
        while let Some(block) = self.sender.next_again() {
            let Some(frame) = source.block(block) else {
                self.sender.settle_again();
                continue;
            };
            let sent = self.send_block(block, frame);
            if sent.is_some() {
                self.sender.settle_again();
            }
            return sent;
        }
        if self.end_sent {
            return None;
        }
        self.end_sent = true;
        let header = Header::bare(Kind::End, deployment, self.sender.terms().pass);
        Some(FeedTransmit::Bytes(header.encode().to_vec()))
    }

    fn send_block(&mut self, block: BlockNo, frame: BlockFrame) -> Option<FeedTransmit> {
        let header = Header {
            codec: frame.codec,
            raw_len: frame.raw_len,
            payload_len: frame.stored_len,
            payload_crc: frame.crc,
            ..Header::bare(Kind::Block, self.sender.terms().deployment, block.0)
        };
        if !self.sender.may_send(header.charge()) {
            self.held = true;
            return None;
        }
        self.sender.sent_block(&header);
        Some(FeedTransmit::Block(header.encode(), block))
    }
}
