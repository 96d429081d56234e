//! The two ends of a chain link. The upstream end ([`Sender`]) connects; both prove that they know the link key that the
//! server gave them; the downstream end ([`Receiver`]) says what it lacks and how much may come; then frames flow.
//!
//! Neither end holds payloads or knows a socket: the caller brings each frame that arrived complete, asks for control bytes
//! to write, and accounts block frames with [`Sender::sent_block`] and [`Receiver::on_block`]. State table: `docs/WIRE.md`.

use crate::bug::{self, Bug};
use crate::frame::{HAS_HEADER, Header, HeaderError, Kind, LAST};
use crate::reason::LinkClass;
use crate::set::BlockSet;
use crate::units::{BlockNo, DeploymentId, Epoch, LinkKey, NodeId, Time};
use crate::wire::{Malformed, array, whole};
use core::time::Duration;
use nom::Parser;
use nom::number::complete::{le_u8, le_u32, le_u64};
use std::collections::VecDeque;

/// The longest either end keeps quiet.
pub const BEAT: Duration = Duration::from_millis(250);
/// Silence after which the neighbour is suspected.
pub const SUSPECT: Duration = Duration::from_secs(1);
/// Silence after which the link counts as dead.
pub const SILENT: Duration = Duration::from_secs(2);
/// The longest a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(2);
/// Credit and arrival are reported at least this often while they change ...
const ACK_EVERY: Duration = Duration::from_millis(50);
/// ... and whenever so many bytes of blocks have come: what the upstream holds for the nodes below stays small enough for its
/// processor's cache.
const ACK_BYTES: u64 = 1 << 20;

/// What the server said of one link, to both its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The epoch of the order that made the link.
    pub epoch: Epoch,
    /// The pass it serves.
    pub pass: u32,
    /// The upstream end.
    pub from: NodeId,
    /// The downstream end.
    pub to: NodeId,
    /// What both ends prove to know.
    pub key: LinkKey,
    /// Paced or follower.
    pub class: LinkClass,
}

/// Why a link can't go on. Each ends the link, none of them the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// Bytes that are no frame of this version.
    Header(HeaderError),
    /// A frame that may not come in this state.
    Unexpected(Kind),
    /// A payload that does not parse.
    Malformed(&'static str),
    /// A frame of another deployment.
    Deployment,
    /// A caller that is not the one the order named, or of another epoch.
    Stranger {
        /// Who calls.
        from: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The neighbour does not know the link key.
    Proof,
    /// The payload of a control frame is damaged.
    PayloadCrc(Kind),
    /// The neighbour hung up and said why.
    Refused(String),
    /// More came than credit was given for.
    Credit,
    /// A block came damaged twice.
    BlockCrc(BlockNo),
    /// The manifest or a part of it is not what the root says.
    Manifest(&'static str),
    /// The connection broke; the text is the system's.
    Broken(String),
    /// A link that the server's newest order no longer names.
    Superseded,
    /// Nothing was heard for so long.
    Silent(Duration),
    /// The handshake took too long.
    Handshake,
}

impl core::fmt::Display for LinkFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Unexpected(kind) => write!(f, "{kind:?} frame out of turn"),
            Self::Malformed(what) => write!(f, "malformed {what}"),
            Self::Deployment => write!(f, "frame of another deployment"),
            Self::Stranger { from, epoch } => {
                write!(f, "call from node {from} at epoch {epoch}, which is not expected")
            }
            Self::Proof => write!(f, "wrong link key"),
            Self::PayloadCrc(kind) => write!(f, "{kind:?} payload damaged (its CRC differs)"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Credit => write!(f, "more was sent than credit was given for"),
            Self::BlockCrc(block) => write!(f, "block {block} came damaged twice (its CRC differs)"),
            Self::Manifest(what) => write!(f, "{what} does not match the manifest root"),
            Self::Broken(why) => f.write_str(why),
            Self::Superseded => write!(f, "the chain was changed"),
            Self::Silent(span) => write!(f, "silent for {:.1} s", span.as_secs_f32()),
            Self::Handshake => write!(f, "no complete handshake within {} s", HANDSHAKE.as_secs()),
        }
    }
}

impl std::error::Error for LinkFault {}

impl From<HeaderError> for LinkFault {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

impl From<Malformed> for LinkFault {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.what)
    }
}

/// What a Hello says, before anything of it is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Who calls.
    pub from: NodeId,
    /// Whom it wants.
    pub to: NodeId,
    /// The epoch of its order.
    pub epoch: Epoch,
    /// The pass the link is for.
    pub pass: u32,
    /// Paced or follower.
    pub class: LinkClass,
    nonce: [u8; 16],
}

impl Greeting {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.extend_from_slice(&self.from.0.to_le_bytes());
        out.extend_from_slice(&self.to.0.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.pass.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.class == LinkClass::Follower), 0, 0, 0]);
        out.extend_from_slice(&self.nonce);
        out
    }

    /// Reads the payload of a Hello frame.
    ///
    /// # Errors
    /// [`LinkFault::Malformed`] if it is not 40 bytes of the right form.
    pub fn parse(payload: &[u8]) -> Result<Self, LinkFault> {
        let mut parser = (le_u32, le_u32, le_u64, le_u32, le_u8, array::<3>, array::<16>);
        let (from, to, epoch, pass, class, _, nonce) = whole("Hello", |input| parser.parse(input), payload)?;
        let class = match class {
            0 => LinkClass::Paced,
            1 => LinkClass::Follower,
            _ => return Err(LinkFault::Malformed("Hello")),
        };
        Ok(Self { from: NodeId(from), to: NodeId(to), epoch: Epoch(epoch), pass, class, nonce })
    }
}

/// Proof of the link key: keyed BLAKE3 over both nonces and everything the Hello said.
fn proof(terms: &Terms, label: &[u8], hello: &[u8], nonce: &[u8; 16]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&terms.key.0);
    hasher.update(label).update(&terms.deployment.0).update(hello).update(nonce);
    *hasher.finalize().as_bytes()
}

const DOWNSTREAM: &[u8] = b"slidecast link 1 downstream";
const UPSTREAM: &[u8] = b"slidecast link 1 upstream";

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    blake3::Hash::from(*a) == blake3::Hash::from(*b)
}

/// When something was last heard and said on a link.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    opened: Time,
    heard: Time,
    said: Time,
}

impl Pulse {
    fn new(now: Time) -> Self {
        Self { opened: now, heard: now, said: now }
    }

    fn check(&self, open: bool, now: Time) -> Result<(), LinkFault> {
        if !open && now.since(self.opened) >= HANDSHAKE {
            return Err(LinkFault::Handshake);
        }
        let silence = now.since(self.heard);
        if open && silence >= SILENT && !bug::is(Bug::SilenceUnseen) { Err(LinkFault::Silent(silence)) } else { Ok(()) }
    }

    fn deadline(&self, open: bool) -> Time {
        if open { self.said.after(BEAT).min(self.heard.after(SILENT)) } else { self.opened.after(HANDSHAKE) }
    }
}

/// A frame that fits in one piece: its header and payload.
fn framed(kind: Kind, deployment: DeploymentId, number: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let header = Header { flags, ..Header::with_payload(kind, deployment, number, payload) };
    [&header.encode()[..], payload].concat()
}

/// The bytes of a Refuse frame: the last thing said on a link that can't be.
#[must_use]
pub fn refusal(deployment: DeploymentId, why: &str) -> Vec<u8> {
    let cut = why.char_indices().map(|(at, _)| at).find(|at| *at >= 500).unwrap_or(why.len());
    framed(Kind::Refuse, deployment, 0, 0, &why.as_bytes()[..cut])
}

fn refused(payload: &[u8]) -> LinkFault {
    LinkFault::Refused(String::from_utf8_lossy(payload).chars().filter(|c| !c.is_control()).collect())
}

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
    /// A block is wanted again.
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
                if received > self.frames_sent || next > received {
                    return Err(LinkFault::Malformed("Ack"));
                }
                self.received = self.received.max(received);
                self.received_next = self.received_next.max(next);
                self.credit = self.credit.max(credit);
                Ok(SenderEvent::Acked)
            }
            (Kind::Again, SenderState::Open) => {
                let block = BlockNo(header.number);
                if block.0 >= self.lacks.universe() {
                    return Err(LinkFault::Malformed("Again"));
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

    /// Accounts a block frame that is about to be written.
    pub fn sent_block(&mut self, header: &Header) {
        self.lacks.remove(BlockNo(header.number));
        self.spent += header.charge();
        self.frames_sent += 1;
    }

    /// Accounts a part frame that is about to be written.
    pub fn sent_part(&mut self, header: &Header) {
        self.spent += header.charge();
    }

    /// How many block frames were sent on this link.
    #[must_use]
    pub fn frames_sent(&self) -> u64 {
        self.frames_sent
    }

    /// How many of them the downstream has, and how many its own downstream has too.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.received, self.received_next)
    }
}

fn check_frame(header: &Header, payload: &[u8], deployment: DeploymentId) -> Result<(), LinkFault> {
    if header.deployment != deployment {
        return Err(LinkFault::Deployment);
    }
    if crc32fast::hash(payload) != header.payload_crc {
        return Err(LinkFault::PayloadCrc(header.kind));
    }
    Ok(())
}

/// What a control frame from the upstream meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// Nothing to act on.
    Nothing,
    /// The upstream is who the server said it is.
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
    out: VecDeque<Vec<u8>>,
}

impl Receiver {
    /// Answers a Hello that came on a new connection, if it is the call that `terms` announced.
    ///
    /// # Errors
    /// [`LinkFault`] of a caller that is somebody else; the caller of this sends a [`refusal`] and hangs up.
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

    /// The payload of a block frame is complete and its CRC was looked at.
    pub fn on_block_complete(&mut self) {
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

    /// Asks for `block` once more.
    pub fn say_again(&mut self, block: BlockNo) {
        if self.is_open() {
            self.out.push_back(Header::bare(Kind::Again, self.terms.deployment, block.0).encode().to_vec());
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
        if self.unsaid { pulse.min(self.acked.after(ACK_EVERY)) } else { pulse }
    }

    /// The next control frame to write.
    pub fn poll_control(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_LEN;

    const T0: Time = Time(1_000_000);

    fn terms(key: u8) -> Terms {
        Terms {
            deployment: DeploymentId([1; 16]),
            epoch: Epoch(3),
            pass: 0,
            from: NodeId(4),
            to: NodeId(5),
            key: LinkKey([key; 32]),
            class: LinkClass::Paced,
        }
    }

    fn cut(bytes: &[u8]) -> (Header, Vec<u8>) {
        let header = Header::parse(bytes[..HEADER_LEN].try_into().unwrap()).unwrap();
        (header, bytes[HEADER_LEN..].to_vec())
    }

    fn answered(upstream: Terms, downstream: Terms) -> (Sender, Result<Receiver, LinkFault>) {
        let mut sender = Sender::new(upstream, [7; 16], T0);
        let (header, payload) = cut(&sender.poll_control().unwrap());
        (sender, Receiver::answer(downstream, &header, &payload, false, [9; 16], T0))
    }

    fn open(lacks: &BlockSet) -> (Sender, Receiver) {
        let (mut sender, receiver) = answered(terms(1), terms(1));
        let mut receiver = receiver.unwrap();
        sender.set_universe(lacks.universe());
        let (header, payload) = cut(&receiver.poll_control().unwrap());
        assert_eq!(sender.on_frame(&header, &payload, T0), Ok(SenderEvent::Proven { has_header: false }));
        let (header, payload) = cut(&sender.poll_control().unwrap());
        assert_eq!(receiver.on_frame(&header, &payload, T0), Ok(ReceiverEvent::Proven));
        receiver.say_lacks(lacks);
        while let Some(bytes) = receiver.poll_control() {
            let (header, payload) = cut(&bytes);
            sender.on_frame(&header, &payload, T0).unwrap();
        }
        assert!(sender.is_open() && receiver.is_open());
        (sender, receiver)
    }

    fn block(number: u32, len: u32) -> Header {
        Header { number, raw_len: len, payload_len: len, ..Header::bare(Kind::Block, DeploymentId([1; 16]), 0) }
    }

    #[test]
    fn the_bytes_of_the_hello_are_frozen() {
        let bytes = Sender::new(terms(1), [7; 16], T0).poll_control().unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "534c44460101000001010101010101010101010101010101000000000000000028000000ffddf0d100000000c15eb402\
             040000000500000003000000000000000000000000000000\
             07070707070707070707070707070707"
        );
    }

    #[test]
    fn both_proofs_are_frozen() {
        let hello = Greeting {
            from: NodeId(4),
            to: NodeId(5),
            epoch: Epoch(3),
            pass: 0,
            class: LinkClass::Paced,
            nonce: [7; 16],
        };
        let said = hello.encode();
        let proofs = [DOWNSTREAM, UPSTREAM].map(|label| proof(&terms(1), label, &said, &[9; 16]));
        let all: Vec<u8> = [terms(1).deployment.0.to_vec(), said, vec![9; 16]].concat();
        let by_the_book = [&b"slidecast link 1 downstream"[..], b"slidecast link 1 upstream"]
            .map(|label| *blake3::keyed_hash(&terms(1).key.0, &[label, &all].concat()).as_bytes());
        assert_eq!(proofs, by_the_book);
        assert_eq!(blake3::Hash::from(proofs[0]).to_hex()[..16], *"b606b4c776e4559d");
    }

    #[test]
    fn a_neighbour_without_the_key_is_refused_by_either_end() {
        let (mut sender, receiver) = answered(terms(1), terms(2));
        let (header, payload) = cut(&receiver.unwrap().poll_control().unwrap());
        assert_eq!(sender.on_frame(&header, &payload, T0), Err(LinkFault::Proof));

        let (_, receiver) = answered(terms(1), terms(1));
        let mut receiver = receiver.unwrap();
        let (header, payload) = cut(&framed(Kind::Proof, terms(1).deployment, 0, 0, &[0; 32]));
        assert_eq!(receiver.on_frame(&header, &payload, T0), Err(LinkFault::Proof));
    }

    #[test]
    fn a_call_from_an_older_epoch_or_another_node_is_a_stranger() {
        let stale = Terms { epoch: Epoch(2), ..terms(1) };
        let (_, receiver) = answered(stale, terms(1));
        assert_eq!(receiver.err(), Some(LinkFault::Stranger { from: NodeId(4), epoch: Epoch(2) }));
        let other = Terms { from: NodeId(6), ..terms(1) };
        let (_, receiver) = answered(other, terms(1));
        assert_eq!(receiver.err(), Some(LinkFault::Stranger { from: NodeId(6), epoch: Epoch(3) }));
    }

    #[test]
    fn the_upstream_learns_exactly_what_is_lacking() {
        let mut lacks = BlockSet::empty(1_200_000);
        [0, 5, 600_000, 1_199_999].into_iter().for_each(|block| assert!(lacks.insert(BlockNo(block))));
        let (mut sender, _) = open(&lacks);
        assert_eq!(sender.lacking(), &lacks);
        sender.sent_block(&block(5, 10));
        assert!(!sender.lacks(BlockNo(5)));
    }

    #[test]
    fn credit_bounds_what_may_come_and_a_frame_beyond_it_ends_the_link() {
        let (mut sender, mut receiver) = open(&BlockSet::full(10));
        assert!(!sender.may_send(4096));
        receiver.on_time(0, 8192, 8192, T0).unwrap();
        let (header, payload) = cut(&receiver.poll_control().unwrap());
        assert_eq!(sender.on_frame(&header, &payload, T0), Ok(SenderEvent::Acked));
        assert!(sender.may_send(8192) && !sender.may_send(8193));
        assert_eq!(receiver.on_block(&block(0, 5000), T0), Ok(()));
        assert_eq!(receiver.on_block(&block(1, 1), T0), Err(LinkFault::Credit));
    }

    #[test]
    fn a_mebibyte_that_came_is_acknowledged_at_once_though_no_space_is_free_again() {
        let (_, mut receiver) = open(&BlockSet::full(10));
        receiver.on_time(0, 64 << 20, 64 << 20, T0).unwrap();
        assert!(receiver.poll_control().is_some(), "the first credit");
        let arrive = |receiver: &mut Receiver, number| {
            receiver.on_block(&block(number, 512 << 10), T0).unwrap();
            receiver.on_block_complete();
            receiver.on_time(0, (64 << 20) - u64::from(number + 1) * (512 << 10), 64 << 20, T0).unwrap();
            receiver.poll_control()
        };
        assert_eq!(arrive(&mut receiver, 0), None);
        let (header, payload) = cut(&arrive(&mut receiver, 1).unwrap());
        assert_eq!((header.kind, &payload[..8]), (Kind::Ack, &2u64.to_le_bytes()[..]));
        assert_eq!(arrive(&mut receiver, 2), None);
    }

    #[test]
    fn an_ack_for_frames_never_sent_is_malformed() {
        let (mut sender, _) = open(&BlockSet::full(10));
        let payload = [1u64.to_le_bytes(), 0u64.to_le_bytes(), 0u64.to_le_bytes()].concat();
        let (header, payload) = cut(&framed(Kind::Ack, terms(1).deployment, 0, 0, &payload));
        assert_eq!(sender.on_frame(&header, &payload, T0), Err(LinkFault::Malformed("Ack")));
    }

    #[test]
    fn silence_is_found_after_two_seconds_and_a_beat_prevents_it() {
        let (mut sender, mut receiver) = open(&BlockSet::full(10));
        let later = T0.after(Duration::from_millis(1900));
        sender.on_time(later).unwrap();
        let (header, payload) = cut(&sender.poll_control().unwrap());
        assert_eq!(header.kind, Kind::Beat);
        receiver.on_frame(&header, &payload, later).unwrap();
        let end = T0.after(Duration::from_millis(2100));
        assert!(matches!(sender.on_time(end), Err(LinkFault::Silent(_))));
        assert_eq!(receiver.on_time(0, 0, 1, end), Ok(()));
    }

    #[test]
    fn a_proven_link_lives_while_the_manifest_is_awaited_or_a_disk_is_hashed() {
        let (mut sender, receiver) = answered(terms(1), terms(1));
        let mut receiver = receiver.unwrap();
        let (header, payload) = cut(&receiver.poll_control().unwrap());
        sender.on_frame(&header, &payload, T0).unwrap();
        let (header, payload) = cut(&sender.poll_control().unwrap());
        receiver.on_frame(&header, &payload, T0).unwrap();
        for step in 1..100 {
            let now = T0.after(BEAT * step);
            assert_eq!((sender.on_time(now), receiver.on_time(0, 0, 1, now)), (Ok(()), Ok(())), "after {step} beats");
            let (header, payload) = cut(&sender.poll_control().unwrap());
            assert_eq!(receiver.on_frame(&header, &payload, now), Ok(ReceiverEvent::Nothing));
            sender.on_said(now);
            let (header, payload) = cut(&receiver.poll_control().unwrap());
            assert_eq!(sender.on_frame(&header, &payload, now), Ok(SenderEvent::Nothing));
            receiver.on_said(now);
        }
    }

    #[test]
    fn an_end_with_nothing_to_say_sleeps_until_its_next_beat() {
        let (mut sender, mut receiver) = open(&BlockSet::full(10));
        let mut now = T0;
        for _ in 0..100 {
            receiver.on_time(0, 4096, 4096, now).unwrap();
            sender.on_time(now).unwrap();
            let next = receiver.deadline().min(sender.deadline());
            assert!(next > now, "it would be asked again at once");
            while let Some(bytes) = receiver.poll_control() {
                let (header, payload) = cut(&bytes);
                sender.on_frame(&header, &payload, now).unwrap();
            }
            // The sender's socket takes nothing: its beat waits.
            receiver.on_alive(now);
            now = next;
        }
        assert!(now >= T0.after(BEAT * 20), "100 turns took only {:?}", now.since(T0));
    }

    #[test]
    fn a_handshake_that_never_completes_is_given_up() {
        let (mut sender, _) = answered(terms(1), terms(1));
        assert_eq!(sender.on_time(T0.after(HANDSHAKE)), Err(LinkFault::Handshake));
    }

    #[test]
    fn blocks_before_the_link_is_open_are_out_of_turn() {
        let (_, receiver) = answered(terms(1), terms(1));
        assert_eq!(receiver.unwrap().on_block(&block(0, 1), T0), Err(LinkFault::Unexpected(Kind::Block)));
    }

    #[test]
    fn a_refusal_is_passed_on_as_one_clean_line() {
        let (mut sender, _) = answered(terms(1), terms(1));
        let (header, payload) = cut(&refusal(terms(1).deployment, "not\nyet"));
        assert_eq!(sender.on_frame(&header, &payload, T0), Err(LinkFault::Refused("notyet".into())));
    }
}
