//! Connections that may become the upstream link. A Hello proves nothing, since its numbers are no secret: the connection waits
//! outside the node, and the upstream link stays as it is, until the caller has proven that it knows the link key. What a
//! candidate does until then changes nothing in the node and is told to nobody.

use super::{Act, Node};
use crate::bug::{self, Bug};
use crate::control::{LinkState, Side};
use crate::frame::Header;
use crate::link::{LinkFault, Receiver, ReceiverEvent, Terms};
use crate::units::Time;

/// A connection with a right Hello and no proof yet. The caller of this keeps few of them ([`crate::door`]), and each no longer than
/// [`crate::link::HANDSHAKE`].
#[derive(Debug)]
pub struct Candidate {
    link: Receiver,
}

impl Candidate {
    /// The next bytes to write to it: the answer to its Hello.
    pub fn poll_control(&mut self) -> Option<Vec<u8>> {
        self.link.poll_control()
    }

    /// A control frame came complete. Gives whether the link key is proven now: then [`Node::adopt`] is next.
    ///
    /// # Errors
    /// [`LinkFault`]: the connection is to be closed, and nothing else.
    pub fn on_frame(&mut self, header: &Header, payload: &[u8], now: Time) -> Result<bool, LinkFault> {
        Ok(self.link.on_frame(header, payload, now)? == ReceiverEvent::Proven)
    }
}

impl Node {
    /// What the call of the upstream must say, once the server has ordered one.
    #[must_use]
    pub fn upstream_terms(&self) -> Option<&Terms> {
        self.upstream.terms()
    }

    /// A Hello came on a new connection. If it is the call that the server announced, the connection is a candidate; `nonce` must be
    /// fresh random bytes.
    ///
    /// # Errors
    /// [`LinkFault`]: the caller sends a [`crate::link::refusal`] and hangs up.
    pub fn on_hello(
        &mut self,
        header: &Header,
        payload: &[u8],
        nonce: [u8; 16],
        now: Time,
    ) -> Result<Candidate, LinkFault> {
        let Some(terms) = self.upstream.terms().cloned() else {
            return Err(LinkFault::Unexpected(crate::frame::Kind::Hello));
        };
        let link = Receiver::answer(terms, header, payload, self.manifest.has_header(), nonce, now)?;
        if bug::is(Bug::CandidateReplacesUpstream) && self.upstream.link().is_some() {
            self.upstream.drop_link();
            self.acts.push_back(Act::Close(Side::Upstream));
        }
        Ok(Candidate { link })
    }

    /// The candidate has proven the link key: its connection becomes the upstream link and replaces an older one.
    ///
    /// # Errors
    /// [`LinkFault::Superseded`]: a newer order names another upstream. The connection is to be closed.
    pub fn adopt(&mut self, candidate: Candidate) -> Result<(), LinkFault> {
        let Candidate { link } = candidate;
        let of = link.terms();
        let wanted = self.upstream.terms().is_some_and(|terms| (terms.from, &terms.key) == (of.from, &of.key));
        if !wanted || !link.is_proven() {
            return Err(LinkFault::Superseded);
        }
        let peer = of.from;
        self.upstream.adopt(link, self.relay_log.next_id());
        self.tell_link(Side::Upstream, peer, LinkState::Up, None);
        self.open_upstream();
        Ok(())
    }
}
