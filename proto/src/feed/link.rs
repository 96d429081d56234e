//! One link from a feed to the head of its chain. A feed holds every block, so its "ring" has no limit; all that is decided here
//! is which frame comes next.

use super::{BlockFrame, FeedTransmit, Source};
use crate::frame::{Header, Kind};
use crate::link::{BEAT, LinkFault, Sender, SenderEvent, Terms};
use crate::node::Shape;
use crate::set::BlockSet;
use crate::units::{BlockNo, Time};
use std::sync::Arc;

/// The upstream end of a chain's first link.
#[derive(Debug)]
pub(super) struct FeedLink {
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

impl FeedLink {
    /// A link that was just connected to the head named in `terms` and has the blocks of `todo` to send. `nonce` must be
    /// fresh random bytes.
    pub(super) fn new(terms: Terms, shape: Arc<Shape>, todo: BlockSet, nonce: [u8; 16], now: Time) -> Self {
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
    pub(super) fn is_proven(&self) -> bool {
        self.sender.is_proven()
    }

    /// Whether everything was sent.
    pub(super) fn is_drained(&self) -> bool {
        self.end_sent && self.sender.has_no_again()
    }

    /// Any byte that arrives proves that the head lives.
    pub(super) fn on_alive(&mut self, now: Time) {
        self.sender.on_alive(now);
    }

    /// Takes a frame that came complete from the head. [`SenderEvent::Again`] is for the caller: when the block is good
    /// in the image file, [`Self::resend`].
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub(super) fn on_frame(&mut self, header: &Header, payload: &[u8], now: Time) -> Result<SenderEvent, LinkFault> {
        let event = self.sender.on_frame(header, payload, now)?;
        if let SenderEvent::Proven { has_header } = event {
            self.manifest_due = !has_header;
        }
        Ok(event)
    }

    /// Sends `block` once more, after everything new.
    pub(super) fn resend(&mut self, block: BlockNo) {
        self.sender.resend(block);
    }

    /// Keeps the link alive, or finds it dead.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub(super) fn on_time(&mut self, now: Time) -> Result<(), LinkFault> {
        // If this side stood still, it has not read what was sent meanwhile: the silence is its own.
        if now.since(self.looked) >= BEAT * 3 {
            self.sender.on_alive(now);
        }
        self.looked = now;
        self.sender.on_time(now)
    }

    /// When [`Self::on_time`] must be called at the latest.
    pub(super) fn deadline(&self) -> Time {
        self.sender.deadline()
    }

    /// Something was written whole.
    pub(super) fn on_transmitted(&mut self, now: Time) {
        self.sender.on_said(now);
    }

    /// Whether there is something to send that the head gave no credit for.
    pub(super) fn waits_for_credit(&self) -> bool {
        self.held
    }

    /// The next thing to write, if there is any and credit covers it.
    pub(super) fn poll_transmit<S: Source>(&mut self, source: &S) -> Option<FeedTransmit<S::Payload>> {
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

    fn send_block<P>(&mut self, block: BlockNo, frame: BlockFrame<P>) -> Option<FeedTransmit<P>> {
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
        Some(FeedTransmit::Block(header.encode(), block, frame.payload))
    }
}
