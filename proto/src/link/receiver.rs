//! The downstream end of a link: it is called, says what it lacks, and gives credit and counts.

use super::again::Asked;
use super::{BEAT, DOWNSTREAM, Greeting, LinkFault, Pulse, Terms, UPSTREAM, check_frame, framed, proof, refused, same};
use crate::bug::{self, Bug};
use crate::frame::{HAS_HEADER, Header, Kind, LAST};
use crate::set::BlockSet;
use crate::units::{BlockNo, Time};
use crate::wire::{array, whole};
use core::time::Duration;
use std::collections::VecDeque;

/// Credit and arrival are reported at least this often while they change ...
const ACK_EVERY: Duration = Duration::from_millis(50);
/// ... and whenever so many bytes of blocks have come: what the upstream holds for the nodes below stays small enough for its
/// processor's cache.
const ACK_BYTES: u64 = 1 << 20;

/// What a control frame from the upstream meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// Nothing to act on.
    Nothing,
    /// The upstream has proven the link key.
    Proven,
    /// The payload is the manifest header.
    Manifest,
    /// The payload is this part of the manifest.
    Part(u32),
    /// The upstream has nothing more for this pass.
    End(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReceiverState {
    Answered,
    Proven,
    Open,
}

/// The downstream end of a link.
#[derive(Debug)]
pub struct Receiver {
    terms: Terms,
    state: ReceiverState,
    expected: [u8; 32],
    spent: u64,
    granted: u64,
    received: u64,
    /// What the block frames that came complete cost of the credit.
    complete: u64,
    reported: (u64, u64),
    /// `complete` at the last report.
    reported_complete: u64,
    /// Something is new and not reported yet.
    unsaid: bool,
    acked: Time,
    pulse: Pulse,
    asked: Asked,
    out: VecDeque<Vec<u8>>,
}

impl Receiver {
    /// Answers a Hello that came on a new connection, if it is the call that `terms` announced.
    ///
    /// # Errors
    /// [`LinkFault`] of a caller that is somebody else; the caller of this sends a [`super::refusal`] and hangs up.
    pub fn answer(
        terms: Terms,
        header: &Header,
        payload: &[u8],
        has_header: bool,
        nonce: [u8; 16],
        now: Time,
    ) -> Result<Self, LinkFault> {
        check_frame(header, payload, terms.deployment)?;
        if header.kind != Kind::Hello {
            return Err(LinkFault::Unexpected(header.kind));
        }
        let hello = Greeting::parse(payload)?;
        if (hello.from, hello.to, hello.epoch) != (terms.from, terms.to, terms.epoch) {
            return Err(LinkFault::Stranger { from: hello.from, epoch: hello.epoch });
        }
        let mine = proof(&terms, DOWNSTREAM, payload, &nonce);
        let expected = proof(&terms, UPSTREAM, payload, &nonce);
        let flags = if has_header { HAS_HEADER } else { 0 };
        let accept = framed(Kind::Accept, terms.deployment, 0, flags, &[&nonce[..], &mine[..]].concat());
        Ok(Self {
            terms,
            state: ReceiverState::Answered,
            expected,
            spent: 0,
            granted: 0,
            received: 0,
            complete: 0,
            reported: (0, 0),
            reported_complete: 0,
            unsaid: false,
            acked: now,
            pulse: Pulse::new(now),
            asked: Asked::new(),
            out: VecDeque::from([accept]),
        })
    }

    /// The terms of this link.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether the upstream's key is proven.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.state != ReceiverState::Answered
    }

    /// Whether the upstream knows what is lacking.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == ReceiverState::Open
    }

    /// Any byte that arrives proves that the other end lives.
    pub fn on_alive(&mut self, now: Time) {
        self.pulse.heard = now;
    }

    /// Any byte that leaves makes a beat needless.
    pub fn on_said(&mut self, now: Time) {
        self.pulse.said = now;
    }

    /// Takes a control frame that came complete from the upstream.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link.
    pub fn on_frame(&mut self, header: &Header, payload: &[u8], now: Time) -> Result<ReceiverEvent, LinkFault> {
        self.pulse.heard = now;
        check_frame(header, payload, self.terms.deployment)?;
        match (header.kind, self.state) {
            (Kind::Refuse, _) => Err(refused(payload)),
            (Kind::Proof, ReceiverState::Answered) => {
                let theirs = whole("Proof", array::<32>, payload)?;
                if !same(&theirs, &self.expected) {
                    return Err(LinkFault::Proof);
                }
                self.state = ReceiverState::Proven;
                Ok(ReceiverEvent::Proven)
            }
            (Kind::Manifest, ReceiverState::Proven) => Ok(ReceiverEvent::Manifest),
            (Kind::Part, ReceiverState::Open) => {
                self.spend(header)?;
                Ok(ReceiverEvent::Part(header.number))
            }
            (Kind::End, ReceiverState::Open) => Ok(ReceiverEvent::End(header.number)),
            (Kind::Beat, ReceiverState::Proven | ReceiverState::Open) => Ok(ReceiverEvent::Nothing),
            (kind, _) => Err(LinkFault::Unexpected(kind)),
        }
    }

    fn spend(&mut self, header: &Header) -> Result<(), LinkFault> {
        self.spent += header.charge();
        if self.spent > self.granted { Err(LinkFault::Credit) } else { Ok(()) }
    }

    /// Takes the header of a block frame, before its payload has come: credit must cover it.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller closes the link and receives no payload.
    pub fn on_block(&mut self, header: &Header, now: Time) -> Result<(), LinkFault> {
        self.pulse.heard = now;
        if header.deployment != self.terms.deployment {
            return Err(LinkFault::Deployment);
        }
        if self.state != ReceiverState::Open {
            return Err(LinkFault::Unexpected(header.kind));
        }
        self.spend(header)
    }

    /// The payload of the frame with `block` is complete and its CRC was looked at.
    pub fn on_block_complete(&mut self, block: BlockNo) {
        self.asked.on_come(block);
        self.received += 1;
        self.complete = self.spent;
    }

    /// How many block frames came complete on this link.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Says what is lacking, once the image is known; after this blocks may come.
    pub fn say_lacks(&mut self, lacks: &BlockSet) {
        if self.state != ReceiverState::Proven {
            return;
        }
        let last = lacks.segments() - 1;
        for index in 0..=last {
            let flags = if index == last { LAST } else { 0 };
            self.out.push_back(framed(Kind::Lacks, self.terms.deployment, index, flags, &lacks.segment(index)));
        }
        self.state = ReceiverState::Open;
    }

    /// Asks for `block` once more, unless it is asked for already; a few a second, the others wait for their turn.
    pub fn say_again(&mut self, block: BlockNo) {
        if self.is_open() {
            self.asked.want(block);
        }
    }

    /// Reports `next` (how many leading frames of this link the next node has too) and that `free` bytes of the ring are
    /// free, when there is enough to say or it was quiet long enough.
    ///
    /// # Errors
    /// [`LinkFault::Silent`] or [`LinkFault::Handshake`].
    pub fn on_time(&mut self, next: u64, free: u64, capacity: u64, now: Time) -> Result<(), LinkFault> {
        self.pulse.check(self.is_proven(), now)?;
        if !self.is_open() {
            // The manifest may take a while to come down the chain, and a marked disk to be hashed.
            if self.is_proven() && now.since(self.pulse.said) >= BEAT {
                self.out.push_back(Header::bare(Kind::Beat, self.terms.deployment, 0).encode().to_vec());
                self.pulse.said = now;
            }
            return Ok(());
        }
        while let Some(block) = self.asked.next(now) {
            self.out.push_back(Header::bare(Kind::Again, self.terms.deployment, block.0).encode().to_vec());
        }
        let granted = self.granted.max(self.spent + free);
        let grown = granted - self.granted;
        let changed = grown > 0 || self.reported != (self.received, next);
        let urgent = grown >= capacity / 16
            || (grown > 0 && self.granted - self.spent < capacity / 4)
            || self.complete - self.reported_complete >= ACK_BYTES;
        if urgent || (changed && now.since(self.acked) >= ACK_EVERY) || now.since(self.pulse.said) >= BEAT {
            let mut counts = [self.received, next.min(self.received)];
            if bug::is(Bug::AcksSwapped) {
                counts.reverse();
            }
            let payload = [counts[0].to_le_bytes(), counts[1].to_le_bytes(), granted.to_le_bytes()].concat();
            self.out.push_back(framed(Kind::Ack, self.terms.deployment, 0, 0, &payload));
            self.granted = granted;
            self.reported = (self.received, next);
            self.reported_complete = self.complete;
            self.unsaid = false;
            self.acked = now;
            self.pulse.said = now;
        } else {
            self.unsaid = changed;
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
        let pulse = self.pulse.deadline(self.is_proven());
        let pulse = self.asked.deadline().map_or(pulse, |asked| pulse.min(asked));
        if self.unsaid { pulse.min(self.acked.after(ACK_EVERY)) } else { pulse }
    }

    /// The next control frame to write.
    pub fn poll_control(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }
}
