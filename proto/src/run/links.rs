//! The two connections of a run: the one that is being made, what arrives, and what goes out.

use super::{Run, RunAct};
use crate::bug::{self, Bug};
use crate::control::Side;
use crate::frame::{HEADER_LEN, Header};
use crate::link::LinkFault;
use crate::node::{Take, Transmit};
use crate::units::Time;
use core::time::Duration;
use std::sync::Arc;

/// How much is read from a neighbour, and how much is written to one, before anything else has its turn, in bytes.
pub const TURN: u64 = 2 << 20;
/// How often what was sent may free more to send before the sockets have their turn again.
const TURNS: u32 = 4;
/// How long the downstream may take to accept a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The next thing to write to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunTransmit<P> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A header and a payload that is shared.
    Shared([u8; HEADER_LEN], Arc<[u8]>),
    /// A header and a payload of the ring.
    Block([u8; HEADER_LEN], P),
    /// The same, of which a copy is sent: a follower that takes its time must not hold up the ring with the one frame it is at.
    Copy([u8; HEADER_LEN], P),
}

/// The connection down the chain.
#[derive(Debug)]
pub(super) struct Downstream {
    /// The try that is being made, and when it is given up.
    dialing: Option<(u64, Time)>,
    /// What is on its way out; the node is told when it is out.
    sending: Option<Transmit>,
    /// Of that a copy is sent: the ring need not hold it.
    copied: bool,
}

impl Downstream {
    pub(super) fn dialing(attempt: u64, now: Time) -> Self {
        Self { dialing: Some((attempt, now.after(DIAL_TIMEOUT))), sending: None, copied: false }
    }

    pub(super) fn dialing_until(&self) -> Option<Time> {
        self.dialing.map(|(_, until)| until)
    }
}

/// How far a turn is.
#[derive(Debug)]
pub(super) struct Turn {
    budget: u64,
    left: u64,
    rounds: u32,
    /// There is more to do without waiting for anything.
    more: bool,
}

impl Turn {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, left: budget, rounds: 0, more: false }
    }

    pub(super) fn begin(&mut self) {
        (self.left, self.rounds, self.more) = (self.budget, 0, true);
    }

    pub(super) fn goes_on(&mut self, moved: bool) -> bool {
        self.rounds += 1;
        self.left = self.budget;
        self.more = moved;
        moved && self.rounds < TURNS
    }

    pub(super) fn has_more(&self) -> bool {
        self.more
    }
}

impl<P: Clone> Run<P> {
    /// The connection on `side` is of no more use.
    pub fn on_lost(&mut self, side: Side, fault: &LinkFault, now: Time) {
        self.forget(side);
        self.acts.push_back(RunAct::Hangup(side, Some(fault.clone())));
        self.node.on_link_lost(side, fault, now);
    }

    pub(super) fn forget(&mut self, side: Side) {
        if side == Side::Downstream {
            self.downstream = None;
        }
    }

    /// Whether the connection down the chain is still being made.
    #[must_use]
    pub fn is_dialing(&self) -> bool {
        self.downstream.as_ref().is_some_and(|down| down.dialing.is_some())
    }

    /// The downstream has accepted the connection; `nonce` must be fresh random bytes. Without any there can be no link.
    pub fn on_dialed(&mut self, nonce: Option<[u8; 16]>, now: Time) {
        let Some((attempt, _)) = self.downstream.as_mut().and_then(|down| down.dialing.take()) else { return };
        if !nonce.is_some_and(|nonce| self.node.on_connected(attempt, nonce, now)) {
            self.forget(Side::Downstream);
            self.acts.push_back(RunAct::Hangup(Side::Downstream, None));
        }
    }

    pub(super) fn time_dialing(&mut self, now: Time) {
        let until = self.downstream.as_ref().and_then(Downstream::dialing_until);
        if until.is_some_and(|until| until <= now) {
            let fault = LinkFault::Broken(format!("no answer within {} s", DIAL_TIMEOUT.as_secs()));
            self.on_lost(Side::Downstream, &fault, now);
        }
    }

    /// The header of a frame came. Gives where its payload goes; nothing: the connection is lost.
    pub fn on_announced(&mut self, side: Side, header: &Header, now: Time) -> Option<Take> {
        let take = self.node.on_header(side, header, now);
        take.map_err(|fault| self.on_lost(side, &fault, now)).ok()
    }

    /// Some bytes of a payload came.
    pub fn on_bytes(&mut self, side: Side, bytes: usize, now: Time) {
        self.node.on_bytes(side, bytes, now);
    }

    /// A block came complete; `crc` is that of its payload.
    pub fn on_block(&mut self, side: Side, header: &Header, crc: u32, payload: P, now: Time) {
        match self.node.on_block(header, crc) {
            Ok(Some(id)) => self.payloads.push_back((id, payload)),
            Ok(None) => {}
            Err(fault) => self.on_lost(side, &fault, now),
        }
    }

    /// A frame came complete whose header was not announced.
    pub fn on_control(&mut self, side: Side, header: &Header, payload: Vec<u8>, now: Time) {
        let result = self.node.on_header(side, header, now);
        if let Err(fault) = result.and_then(|_| self.node.on_control(side, header, payload, now)) {
            self.on_lost(side, &fault, now);
        }
    }

    /// The next thing to write to the neighbour on `side`. The caller writes it whole and then calls [`Self::on_transmitted`] before
    /// it asks again.
    pub fn poll_transmit(&mut self, side: Side, now: Time) -> Option<RunTransmit<P>> {
        if side == Side::Downstream {
            return self.transmit_downstream(now);
        }
        match self.node.poll_transmit(side)? {
            Transmit::Bytes(bytes) => Some(RunTransmit::Bytes(bytes)),
            Transmit::Shared(..) | Transmit::Block(..) => None,
        }
    }

    fn transmit_downstream(&mut self, now: Time) -> Option<RunTransmit<P>> {
        let ready = |down: &Downstream| down.dialing.is_none() && down.sending.is_none();
        if self.turn.left == 0 || !self.downstream.as_ref().is_some_and(ready) {
            return None;
        }
        let transmit = self.node.poll_transmit(Side::Downstream)?;
        let (frame, len) = match &transmit {
            Transmit::Bytes(bytes) => (RunTransmit::Bytes(bytes.clone()), bytes.len() as u64),
            Transmit::Shared(header, payload) => {
                (RunTransmit::Shared(header.encode(), payload.clone()), (HEADER_LEN + payload.len()) as u64)
            }
            Transmit::Block(header, id) => {
                let payload = self.payload(*id)?.clone();
                let len = u64::from(header.payload_len);
                let followed = self.node.is_followed();
                let frame = if followed { RunTransmit::Copy } else { RunTransmit::Block };
                (frame(header.encode(), payload), HEADER_LEN as u64 + len)
            }
        };
        self.turn.left = self.turn.left.saturating_sub(len);
        if bug::is(Bug::SentWhenStarted) {
            self.node.on_transmitted(Side::Downstream, &transmit, now);
        }
        if let Some(down) = &mut self.downstream {
            (down.sending, down.copied) = (Some(transmit), matches!(frame, RunTransmit::Copy(..)));
        }
        Some(frame)
    }

    /// What was to be written to the neighbour on `side` is out as a whole.
    pub fn on_transmitted(&mut self, side: Side, now: Time) {
        match side {
            Side::Upstream => self.node.on_transmitted(side, &Transmit::Bytes(Vec::new()), now),
            Side::Downstream => {
                if let Some(transmit) = self.downstream.as_mut().and_then(|down| down.sending.take()) {
                    self.node.on_transmitted(side, &transmit, now);
                }
            }
        }
    }

    /// Whether an entry of the ring is on its way to a downstream that holds it, and was let go all the same.
    #[must_use]
    pub fn sends_what_it_let_go(&self) -> bool {
        let sending = self.downstream.as_ref().filter(|down| !down.copied).and_then(|down| down.sending.as_ref());
        matches!(sending, Some(Transmit::Block(_, id)) if self.payload(*id).is_none())
    }
}
