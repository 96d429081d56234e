//! What goes out on a link, and in which order. The server's feed and every node send through this machine; where parts and blocks
//! come from is their own ([`Supply`]).
//!
//! The order: what handshake and heartbeats need; the manifest header; parts and blocks as they are at hand; blocks that are wanted
//! again; the end of the pass. Where the credit does not cover what is next, everything behind that waits.

use super::{LinkFault, Sender, SenderEvent};
use crate::bug::{self, Bug};
use crate::frame::{Header, Kind};
use crate::set::BlockSet;
use crate::units::{BlockNo, PartNo, Time};
use std::sync::Arc;

/// The next thing to write to a neighbour. `P` says where the payload of a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit<P> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A header and a payload that is shared.
    Shared(Header, Arc<[u8]>),
    /// A header and the payload of a block.
    Block(Header, P),
}

/// What is next in line for the downstream.
#[derive(Debug)]
pub(crate) enum Next<P> {
    /// A part of the manifest.
    Part(PartNo, Arc<[u8]>),
    /// A block.
    Block(Header, P),
}

/// Where an outlet gets what it sends.
pub(crate) trait Supply {
    /// Where the payload of a block is.
    type Payload;

    /// The encoded manifest header, if it is at hand.
    fn manifest(&self) -> Option<Arc<[u8]>>;
    /// The next part or block that the downstream lacks. It stays the next one until it is sent.
    fn next(&mut self, sender: &Sender, parts_sent: &BlockSet) -> Option<Next<Self::Payload>>;
    /// A block that the downstream wants again, if it is at hand.
    fn again(&mut self, block: BlockNo) -> Option<(Header, Self::Payload)>;
    /// The part that was next is sent now.
    fn on_part_sent(&mut self);
    /// A block is sent now: the one that was next, or one that was wanted again.
    fn on_block_sent(&mut self, payload: &Self::Payload, again: bool);
    /// The pass that is over once everything at hand is sent.
    fn ended(&self) -> Option<u32>;
}

/// The sending end of a link.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) sender: Sender,
    parts_sent: BlockSet,
    manifest_due: bool,
    end_sent: Option<u32>,
    /// What comes next is more than the credit covers.
    held: bool,
}

impl Outlet {
    pub(crate) fn new(sender: Sender) -> Self {
        Self { sender, parts_sent: BlockSet::empty(0), manifest_due: false, end_sent: None, held: false }
    }

    /// Tells how many blocks and parts the image has. Must be called before the manifest header is sent.
    pub(crate) fn set_universe(&mut self, blocks: u32, parts: usize) {
        self.sender.set_universe(blocks);
        let parts = u32::try_from(parts).unwrap_or(0);
        if self.parts_sent.universe() != parts {
            self.parts_sent = BlockSet::empty(parts);
        }
    }

    /// Takes a frame that came complete from the downstream.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub(crate) fn on_frame(&mut self, header: &Header, payload: &[u8], now: Time) -> Result<SenderEvent, LinkFault> {
        let event = self.sender.on_frame(header, payload, now)?;
        if let SenderEvent::Proven { has_header } = event {
            self.manifest_due = !has_header;
        }
        Ok(event)
    }

    /// Whether this part was sent on this link.
    pub(crate) fn has_sent(&self, part: PartNo) -> bool {
        self.parts_sent.contains(BlockNo(part.0))
    }

    /// Whether everything was sent, and that it was.
    pub(crate) fn is_drained(&self) -> bool {
        self.end_sent.is_some() && self.sender.has_no_again()
    }

    /// Whether there is something to send that the downstream gave no credit for.
    pub(crate) fn waits_for_credit(&self) -> bool {
        self.held
    }

    /// The next thing to write, if there is any and credit covers it.
    pub(crate) fn poll<S: Supply>(&mut self, supply: &mut S) -> Option<Transmit<S::Payload>> {
        self.held = false;
        if let Some(bytes) = self.sender.poll_control() {
            return Some(Transmit::Bytes(bytes));
        }
        let deployment = self.sender.terms().deployment;
        if self.manifest_due
            && let Some(bytes) = supply.manifest()
        {
            self.manifest_due = false;
            return Some(Transmit::Shared(Header::with_payload(Kind::Manifest, deployment, 0, &bytes), bytes));
        }
        if !self.sender.is_open() {
            return None;
        }
        let sent = match supply.next(&self.sender, &self.parts_sent) {
            Some(Next::Part(part, bytes)) => self.send_part(part, bytes, supply),
            Some(Next::Block(header, payload)) => self.send_block(header, payload, false, supply),
            // What is wanted again comes after everything new.
            None => self.send_again(supply),
        };
        if sent.is_some() || (self.held && !bug::is(Bug::EndTooEarly)) {
            return sent;
        }
        let pass = supply.ended().filter(|pass| self.end_sent != Some(*pass))?;
        self.end_sent = Some(pass);
        Some(Transmit::Bytes(Header::bare(Kind::End, deployment, pass).encode().to_vec()))
    }

    fn send_part<S: Supply>(&mut self, part: PartNo, bytes: Arc<[u8]>, supply: &mut S) -> Option<Transmit<S::Payload>> {
        let header = Header::with_payload(Kind::Part, self.sender.terms().deployment, part.0, &bytes);
        if !self.is_covered(&header) {
            return None;
        }
        self.sender.sent_part(&header);
        self.parts_sent.insert(BlockNo(part.0));
        supply.on_part_sent();
        Some(Transmit::Shared(header, bytes))
    }

    fn send_block<S: Supply>(
        &mut self,
        header: Header,
        payload: S::Payload,
        again: bool,
        supply: &mut S,
    ) -> Option<Transmit<S::Payload>> {
        if !self.is_covered(&header) {
            return None;
        }
        self.sender.sent_block(&header);
        supply.on_block_sent(&payload, again);
        Some(Transmit::Block(header, payload))
    }

    fn send_again<S: Supply>(&mut self, supply: &mut S) -> Option<Transmit<S::Payload>> {
        while let Some(block) = self.sender.next_again() {
            let found = supply.again(block);
            let missing = found.is_none();
            let sent = found.and_then(|(header, payload)| self.send_block(header, payload, true, supply));
            if missing || sent.is_some() {
                self.sender.settle_again();
            }
            if !missing {
                return sent;
            }
        }
        None
    }

    fn is_covered(&mut self, header: &Header) -> bool {
        self.held = !self.sender.may_send(header.charge());
        !self.held
    }
}
