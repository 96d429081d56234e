//! One link from a feed to the head of its chain. A feed holds every block, so its "ring" has no limit.

use super::{FeedTransmit, Source};
use crate::frame::{Header, Kind};
use crate::link::{BEAT, LinkFault, Next, Outlet, Sender, SenderEvent, Supply, Terms, Transmit};
use crate::node::Shape;
use crate::set::BlockSet;
use crate::units::{BlockNo, DeploymentId, Time};
use std::sync::Arc;

/// The upstream end of a chain's first link.
#[derive(Debug)]
pub(super) struct FeedLink {
    outlet: Outlet,
    shape: Arc<Shape>,
    todo: BlockSet,
    cursor: BlockNo,
    /// When the time was last let pass.
    looked: Time,
}

impl FeedLink {
    /// A link that was just connected to the head named in `terms` and has the blocks of `todo` to send. `nonce` must be
    /// fresh random bytes.
    pub(super) fn new(terms: Terms, shape: Arc<Shape>, todo: BlockSet, nonce: [u8; 16], now: Time) -> Self {
        let mut outlet = Outlet::new(Sender::new(terms, nonce, now));
        outlet.set_universe(shape.blocks, shape.parts.len());
        Self { outlet, shape, todo, cursor: BlockNo(0), looked: now }
    }

    /// Whether the head has proven its link key.
    pub(super) fn is_proven(&self) -> bool {
        self.outlet.sender.is_proven()
    }

    /// Whether everything was sent.
    pub(super) fn is_drained(&self) -> bool {
        self.outlet.is_drained()
    }

    /// Any byte that arrives proves that the head lives.
    pub(super) fn on_alive(&mut self, now: Time) {
        self.outlet.sender.on_alive(now);
    }

    /// Takes a frame that came complete from the head. [`SenderEvent::Again`] is for the caller: when the block is good
    /// in the image file, [`Self::resend`].
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub(super) fn on_frame(&mut self, header: &Header, payload: &[u8], now: Time) -> Result<SenderEvent, LinkFault> {
        self.outlet.on_frame(header, payload, now)
    }

    /// Sends `block` once more, after everything new.
    pub(super) fn resend(&mut self, block: BlockNo) {
        self.outlet.sender.resend(block);
    }

    /// Keeps the link alive, or finds it dead.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub(super) fn on_time(&mut self, now: Time) -> Result<(), LinkFault> {
        // If this side stood still, it has not read what was sent meanwhile: the silence is its own.
        if now.since(self.looked) >= BEAT * 3 {
            self.outlet.sender.on_alive(now);
        }
        self.looked = now;
        self.outlet.sender.on_time(now)
    }

    /// When [`Self::on_time`] must be called at the latest.
    pub(super) fn deadline(&self) -> Time {
        self.outlet.sender.deadline()
    }

    /// Something was written whole.
    pub(super) fn on_transmitted(&mut self, now: Time) {
        self.outlet.sender.on_said(now);
    }

    /// Whether there is something to send that the head gave no credit for.
    pub(super) fn waits_for_credit(&self) -> bool {
        self.outlet.waits_for_credit()
    }

    /// The next thing to write, if there is any and credit covers it.
    pub(super) fn poll_transmit<S: Source>(&mut self, source: &S) -> Option<FeedTransmit<S::Payload>> {
        let Self { outlet, shape, todo, cursor, .. } = self;
        let Terms { deployment, pass, .. } = *outlet.sender.terms();
        let transmit = outlet.poll(&mut FromImage { source, deployment, pass, shape, todo, cursor })?;
        Some(match transmit {
            Transmit::Bytes(bytes) => FeedTransmit::Bytes(bytes),
            Transmit::Shared(header, bytes) => FeedTransmit::Shared(header.encode(), bytes),
            Transmit::Block(header, (block, payload)) => FeedTransmit::Block(header.encode(), block, payload),
        })
    }
}

/// What a pass has for the head, from the image.
struct FromImage<'a, S> {
    source: &'a S,
    deployment: DeploymentId,
    pass: u32,
    shape: &'a Shape,
    todo: &'a mut BlockSet,
    cursor: &'a mut BlockNo,
}

impl<S: Source> Supply for FromImage<'_, S> {
    type Payload = (BlockNo, S::Payload);

    fn manifest(&self) -> Option<Arc<[u8]>> {
        Some(self.source.manifest())
    }

    fn next(&mut self, sender: &Sender, parts_sent: &BlockSet) -> Option<Next<Self::Payload>> {
        while let Some(block) = self.todo.next(*self.cursor) {
            *self.cursor = block;
            if sender.lacks(block) {
                let part = self.shape.part_of(block);
                if !parts_sent.contains(BlockNo(part.0)) {
                    return Some(Next::Part(part, self.source.part(part)));
                }
                // A pass that compares has no blocks, and a fill block needs nothing but its part.
                if self.pass != 0
                    && let Some((header, payload)) = self.again(block)
                {
                    return Some(Next::Block(header, payload));
                }
            }
            self.todo.remove(block);
        }
        None
    }

    fn again(&mut self, block: BlockNo) -> Option<(Header, Self::Payload)> {
        let frame = self.source.block(block)?;
        let header = Header {
            codec: frame.codec,
            raw_len: frame.raw_len,
            payload_len: frame.stored_len,
            payload_crc: frame.crc,
            ..Header::bare(Kind::Block, self.deployment, block.0)
        };
        Some((header, (block, frame.payload)))
    }

    fn on_part_sent(&mut self) {}

    fn on_block_sent(&mut self, (block, _): &Self::Payload, again: bool) {
        if !again {
            self.todo.remove(*block);
        }
    }

    fn ended(&self) -> Option<u32> {
        Some(self.pass)
    }
}
