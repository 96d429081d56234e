//! The neighbour down the chain: how its link is made, kept alive, and lost. What goes out on it is in `relay.rs`.

use super::relay::Flow;
use super::timers::{CONNECT_PATIENCE, CONNECT_PAUSE, KEEP};
use super::{Act, Node};
use crate::control::{LinkState, Side};
use crate::frame::{Header, Kind};
use crate::link::{DamagedAnswers, LinkFault, Outlet, Sender, SenderEvent, Terms};
use crate::reason::LinkClass;
use crate::relay_log::Need;
use crate::set::BlockSet;
use crate::units::Time;
use std::net::SocketAddr;

/// How many segments the largest set has.
const MAX_EARLY: usize = 32;

/// The neighbour that is sent to.
#[derive(Debug)]
pub(super) struct Downstream {
    terms: Terms,
    address: SocketAddr,
    /// Until then it is called again.
    give_up: Time,
    answers: DamagedAnswers,
    pub(super) state: State,
}

/// How far the link to it is.
#[derive(Debug)]
pub(super) enum State {
    /// It is called at this time.
    Idle { connect_at: Time },
    /// It is being called.
    Connecting { attempt: u64 },
    /// The connection stands.
    Up(Box<Flow>),
    /// Lost. Until then the ring is kept for whoever comes in its place.
    Gone { kept: Option<Time> },
}

/// What a node knows of the needs below it.
#[derive(Debug)]
pub(super) enum Below<'a> {
    /// There is nobody.
    Nothing,
    /// They have not said yet.
    Unknown,
    /// They lack these blocks.
    Lacks(&'a BlockSet),
}

impl Downstream {
    fn new(terms: Terms, address: SocketAddr, now: Time) -> Self {
        let (state, give_up) = (State::Idle { connect_at: now }, now.after(CONNECT_PATIENCE));
        Self { terms, address, give_up, answers: DamagedAnswers::default(), state }
    }

    /// What goes out to it, while its connection stands.
    pub(super) fn flow(&mut self) -> Option<&mut Flow> {
        match &mut self.state {
            State::Up(flow) => Some(flow),
            _ => None,
        }
    }

    /// Whether it takes what it can and never holds the ring.
    fn follows(&self) -> bool {
        self.terms.class == LinkClass::Follower
    }
}

impl Node {
    /// From now on this is the downstream. A link to the same neighbour under the same key lives on.
    pub(super) fn set_downstream(&mut self, wanted: Option<(Terms, SocketAddr)>, now: Time) {
        if let (Some(down), Some((terms, _))) = (&mut self.downstream, &wanted) {
            let kept = down.terms.to == terms.to && down.terms.key == terms.key;
            if kept && !matches!(down.state, State::Gone { .. }) {
                down.terms.class = terms.class;
                if down.follows() {
                    self.manifest.unqueue_all();
                }
                return;
            }
        }
        if self.downstream.take().is_some() {
            self.acts.push_back(Act::Close(Side::Downstream));
        }
        self.manifest.unqueue_all();
        // A frame that was on its way out went with the link: nothing may wait for it.
        self.relay_log.forget_downstream();
        self.downstream = wanted.map(|(terms, address)| Downstream::new(terms, address, now));
    }

    /// Whether the downstream takes what it can and never holds the ring: what goes out to it must not stay in the ring
    /// until it is out, so the caller sends a copy.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.downstream.as_ref().is_some_and(Downstream::follows)
    }

    /// Who needs the entries of the ring.
    pub(super) fn need(&self) -> Need {
        match &self.downstream {
            None => Need::Nobody,
            Some(Downstream { state: State::Gone { kept: None }, .. }) => Need::Loose,
            Some(down) if down.follows() => Need::Loose,
            Some(_) => Need::Paced,
        }
    }

    /// The connection of `attempt` stands; `nonce` must be fresh random bytes. Gives whether it is wanted.
    pub fn on_connected(&mut self, attempt: u64, nonce: [u8; 16], now: Time) -> bool {
        let Some(down) = &mut self.downstream else { return false };
        if !matches!(down.state, State::Connecting { attempt: wanted } if wanted == attempt) {
            return false;
        }
        let mut outlet = Outlet::new(Sender::new(down.terms.clone(), nonce, now));
        if let Some(shape) = self.manifest.shape() {
            outlet.set_universe(shape.blocks, shape.parts.len());
        }
        down.state = State::Up(Box::new(Flow::new(outlet, self.relay_log.first_id())));
        true
    }

    pub(super) fn downstream_alive(&mut self, now: Time) {
        if let Some(flow) = self.downstream.as_mut().and_then(Downstream::flow) {
            flow.outlet.sender.on_alive(now);
        }
    }

    /// What the nodes below lack, so far as that is fetched for them. What a follower misses stays lacking until a catch-up
    /// pass: nobody above waits while it comes down the chain again.
    pub(super) fn downstream_lacks(&self) -> Below<'_> {
        if self.is_followed() {
            return Below::Nothing;
        }
        match self.downstream.as_ref().map(|down| &down.state) {
            None | Some(State::Gone { .. }) => Below::Nothing,
            Some(State::Up(flow)) if flow.outlet.sender.is_open() => Below::Lacks(flow.outlet.sender.lacking()),
            Some(_) => Below::Unknown,
        }
    }

    pub(super) fn lose_downstream(&mut self, fault: &LinkFault, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        let proven = match &down.state {
            State::Gone { .. } | State::Idle { .. } => return,
            State::Connecting { .. } => None,
            State::Up(flow) => Some(flow.outlet.sender.is_proven()),
        };
        // A downstream that has not heard of us yet hangs up; its order is on the way. One that says nothing is dead.
        let retry = proven.is_none_or(|proven| !proven && !matches!(fault, LinkFault::Proof | LinkFault::Handshake));
        let damages = proven == Some(false) && down.answers.on_fault(fault);
        if retry && !damages && now < down.give_up {
            down.state = State::Idle { connect_at: now.after(CONNECT_PAUSE) };
            return;
        }
        let peer = down.terms.to;
        let gone = State::Gone { kept: Some(now.after(KEEP)) };
        if let State::Up(flow) = core::mem::replace(&mut down.state, gone) {
            flow.unacknowledged().for_each(|id| self.relay_log.on_sent(id, false));
        }
        self.manifest.unqueue_all();
        let fault = fault.as_seen(damages || proven == Some(true));
        self.tell_link(Side::Downstream, peer, LinkState::Down, Some(&fault));
        self.open_upstream();
    }

    pub(super) fn time_downstream(&mut self, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        match &mut down.state {
            State::Idle { connect_at } if *connect_at <= now => {
                self.attempts += 1;
                let attempt = self.attempts;
                down.state = State::Connecting { attempt };
                self.acts.push_back(Act::Connect { attempt, address: down.address });
            }
            State::Connecting { .. } if down.give_up <= now => self.hang_up_downstream(&LinkFault::Handshake, now),
            State::Gone { kept } if kept.is_some_and(|until| until <= now) => {
                // No order came: nobody above waits any longer.
                *kept = None;
                self.reclaim();
            }
            State::Up(flow) => {
                let sender = &mut flow.outlet.sender;
                let (peer, silence, proven) = (down.terms.to, sender.silence(now), sender.is_proven());
                match sender.on_time(now) {
                    Ok(()) if proven => self.suspect(Side::Downstream, peer, silence),
                    Ok(()) => {}
                    Err(fault) => self.hang_up_downstream(&fault, now),
                }
            }
            _ => {}
        }
    }

    fn hang_up_downstream(&mut self, fault: &LinkFault, now: Time) {
        self.lose_downstream(fault, now);
        self.acts.push_back(Act::Close(Side::Downstream));
        self.reclaim();
    }

    pub(super) fn on_downstream_control(
        &mut self,
        header: &Header,
        payload: &[u8],
        now: Time,
    ) -> Result<(), LinkFault> {
        let Some(down) = &mut self.downstream else { return Ok(()) };
        let State::Up(flow) = &mut down.state else { return Ok(()) };
        if self.manifest.shape().is_none() && header.kind == Kind::Lacks && flow.outlet.sender.is_proven() {
            // It knows the image from before, and this node is new: its set is read once the manifest has come.
            if flow.early.len() >= MAX_EARLY {
                return Err(LinkFault::Malformed("Lacks"));
            }
            flow.outlet.sender.on_alive(now);
            flow.early.push((*header, payload.to_vec(), now));
            return Ok(());
        }
        match flow.outlet.on_frame(header, payload, now)? {
            SenderEvent::Nothing => {}
            SenderEvent::Proven { .. } => {
                let peer = down.terms.to;
                self.tell_link(Side::Downstream, peer, LinkState::Up, None);
                self.offer_manifest();
            }
            SenderEvent::Open => self.open_downstream(),
            SenderEvent::Acked => {
                flow.on_acked(&mut self.relay_log);
                self.reclaim();
            }
            SenderEvent::Again(block) => match self.relay_log.find(block) {
                Some(_) => flow.outlet.sender.resend(block),
                // It left the ring: whoever still holds it is further up. It comes down the same way.
                None => self.ask_again(block),
            },
        }
        Ok(())
    }

    /// Tells the sender how many blocks there are, which the set of what is lacking is read against.
    pub(super) fn offer_manifest(&mut self) {
        let Some(shape) = self.manifest.shape() else { return };
        let Some(flow) = self.downstream.as_mut().and_then(Downstream::flow) else { return };
        flow.outlet.set_universe(shape.blocks, shape.parts.len());
        for (header, payload, at) in core::mem::take(&mut flow.early) {
            if let Err(fault) = self.on_downstream_control(&header, &payload, at) {
                self.lose_downstream(&fault, at);
                self.acts.push_back(Act::Close(Side::Downstream));
            }
        }
    }
}
