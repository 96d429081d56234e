//! The upstream end of a link: it connects, learns what the downstream lacks, and sends within its credit.

use super::again::Wanted;
use super::{
    BEAT, DOWNSTREAM, Greeting, LinkFault, Pulse, SILENT, Terms, UPSTREAM, check_frame, framed, proof, refused, same,
};
use crate::bug::{self, Bug};
use crate::frame::{HAS_HEADER, Header, Kind, LAST};
use crate::set::BlockSet;
use crate::units::{BlockNo, Time};
use crate::wire::{array, whole};
use core::time::Duration;
use nom::Parser;
use nom::number::complete::le_u64;
use std::collections::VecDeque;

/// What a frame from the downstream meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// Nothing to act on.
    Nothing,
    /// The key is proven; the manifest header is to be sent unless the downstream holds it.
    Proven {
        /// Whether the downstream said that it holds the manifest header.
        has_header: bool,
    },
    /// What the downstream lacks is known: blocks may be sent.
    Open,
    /// More has arrived there or more may come.
    Acked,
    /// A block is wanted again: [`Sender::resend`] it, or fetch it. What comes too often is not heard.
    Again(BlockNo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SenderState {
    Greeted,
    Proven,
    Open,
}

/// The upstream end of a link.
#[derive(Debug)]
pub struct Sender {
    terms: Terms,
    state: SenderState,
    hello: Vec<u8>,
    lacks: BlockSet,
    segments_seen: u32,
    spent: u64,
    credit: u64,
    frames_sent: u64,
    received: u64,
    received_next: u64,
    pulse: Pulse,
    wanted: Wanted,
    out: VecDeque<Vec<u8>>,
}

impl Sender {
    /// A link that was just connected. `nonce` must be fresh random bytes.
    #[must_use]
    pub fn new(terms: Terms, nonce: [u8; 16], now: Time) -> Self {
        let Terms { from, to, epoch, pass, class, .. } = terms;
        let hello = Greeting { from, to, epoch, pass, class, nonce }.encode();
        let out = VecDeque::from([framed(Kind::Hello, terms.deployment, 0, 0, &hello)]);
        Self {
            terms,
            state: SenderState::Greeted,
            hello,
            lacks: BlockSet::empty(0),
            segments_seen: 0,
            spent: 0,
            credit: 0,
            frames_sent: 0,
            received: 0,
            received_next: 0,
            pulse: Pulse::new(now),
            wanted: Wanted::new(),
            out,
        }
    }

    /// The terms of this link.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Tells how many blocks the image has, which is what the downstream's set is read against. Must be called before
    /// the manifest header is sent.
    pub fn set_universe(&mut self, blocks: u32) {
        if self.lacks.universe() != blocks {
            self.lacks = BlockSet::empty(blocks);
        }
    }

    /// Whether blocks may be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == SenderState::Open
    }

    /// Whether the key is proven.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.state != SenderState::Greeted
    }

    /// Any byte that arrives proves that the other end lives.
    pub fn on_alive(&mut self, now: Time) {
        self.pulse.heard = now;
    }

    /// Any byte that leaves makes a beat needless.
    pub fn on_said(&mut self, now: Time) {
        self.pulse.said = now;
    }

    /// Takes a frame that came complete from the downstream.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub fn on_frame(&mut self, header: &Header, payload: &[u8], now: Time) -> Result<SenderEvent, LinkFault> {
        self.pulse.heard = now;
        check_frame(header, payload, self.terms.deployment)?;
        match (header.kind, self.state) {
            (Kind::Refuse, _) => Err(refused(payload)),
            (Kind::Accept, SenderState::Greeted) => {
                let mut parser = (array::<16>, array::<32>);
                let (nonce, theirs) = whole("Accept", |input| parser.parse(input), payload)?;
                if !same(&theirs, &proof(&self.terms, DOWNSTREAM, &self.hello, &nonce)) {
                    return Err(LinkFault::Proof);
                }
                let mine = proof(&self.terms, UPSTREAM, &self.hello, &nonce);
                self.out.push_back(framed(Kind::Proof, self.terms.deployment, 0, 0, &mine));
                self.state = SenderState::Proven;
                Ok(SenderEvent::Proven { has_header: header.flags & HAS_HEADER != 0 })
            }
            (Kind::Lacks, SenderState::Proven) => {
                if header.number != self.segments_seen || !self.lacks.set_segment(header.number, payload) {
                    return Err(LinkFault::Malformed("Lacks"));
                }
                self.segments_seen += 1;
                let complete = self.segments_seen == self.lacks.segments();
                if complete != (header.flags & LAST != 0) {
                    return Err(LinkFault::Malformed("Lacks"));
                }
                if complete {
                    self.state = SenderState::Open;
                    return Ok(SenderEvent::Open);
                }
                Ok(SenderEvent::Nothing)
            }
            (Kind::Ack, SenderState::Proven | SenderState::Open) => {
                let mut parser = (le_u64, le_u64, le_u64);
                let (received, next, credit) = whole("Ack", |input| parser.parse(input), payload)?;
                if (received > self.frames_sent || next > received) && !bug::is(Bug::AckUnchecked) {
                    return Err(LinkFault::Malformed("Ack"));
                }
                self.received = self.received.max(received);
                self.received_next = self.received_next.max(next);
                self.credit = self.credit.max(credit);
                Ok(SenderEvent::Acked)
            }
            (Kind::Again, SenderState::Open) => {
                let block = BlockNo(header.number);
                if block.0 >= self.lacks.universe() && !bug::is(Bug::AgainUnchecked) {
                    return Err(LinkFault::Malformed("Again"));
                }
                if !self.wanted.hear(block, now) {
                    return Ok(SenderEvent::Nothing);
                }
                self.lacks.insert(block);
                Ok(SenderEvent::Again(block))
            }
            (Kind::Beat, _) => Ok(SenderEvent::Nothing),
            (kind, _) => Err(LinkFault::Unexpected(kind)),
        }
    }

    /// Keeps the link alive, or finds it dead.
    ///
    /// # Errors
    /// [`LinkFault::Silent`] or [`LinkFault::Handshake`].
    pub fn on_time(&mut self, now: Time) -> Result<(), LinkFault> {
        let proven = self.is_proven();
        self.pulse.check(proven, now)?;
        if proven && self.out.is_empty() && now.since(self.pulse.said) >= BEAT && !bug::is(Bug::BeatForgotten) {
            self.out.push_back(Header::bare(Kind::Beat, self.terms.deployment, 0).encode().to_vec());
        }
        Ok(())
    }

    /// How long nothing was heard.
    #[must_use]
    pub fn silence(&self, now: Time) -> Duration {
        now.since(self.pulse.heard)
    }

    /// When [`Self::on_time`] wants to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        if self.is_proven() && !self.out.is_empty() {
            // The beat waits for the socket already: looking again at once would not help it.
            return self.pulse.heard.after(SILENT);
        }
        self.pulse.deadline(self.is_proven())
    }

    /// The next control frame to write.
    pub fn poll_control(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// Whether the downstream lacks `block`, as far as is known here: what was sent no longer counts.
    #[must_use]
    pub fn lacks(&self, block: BlockNo) -> bool {
        self.lacks.contains(block)
    }

    /// All that the downstream lacks.
    #[must_use]
    pub fn lacking(&self) -> &BlockSet {
        &self.lacks
    }

    /// Whether credit covers a frame of this charge.
    #[must_use]
    pub fn may_send(&self, charge: u64) -> bool {
        self.is_open() && (self.spent + charge <= self.credit || bug::is(Bug::CreditIgnored))
    }

    /// `block` is to be sent again, when nothing new is to be sent.
    pub fn resend(&mut self, block: BlockNo) {
        self.wanted.push(block);
    }

    /// The next block to send again.
    #[must_use]
    pub(crate) fn next_again(&self) -> Option<BlockNo> {
        self.wanted.front()
    }

    /// The next block to send again was sent, or can't be.
    pub(crate) fn settle_again(&mut self) {
        self.wanted.pop();
    }

    /// Whether no block waits to be sent again.
    #[must_use]
    pub(crate) fn has_no_again(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Accounts a block frame that is about to be written.
    pub fn sent_block(&mut self, header: &Header) {
        self.lacks.remove(BlockNo(header.number));
        self.spent += header.charge();
        self.frames_sent += 1;
    }

    /// Accounts a part frame that is about to be written.
    pub(crate) fn sent_part(&mut self, header: &Header) {
        self.spent += header.charge();
    }

    /// How many of them the downstream has, and how many its own downstream has too.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.received, self.received_next)
    }
}
