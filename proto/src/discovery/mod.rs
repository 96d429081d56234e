//! How an agent finds the server: it broadcasts a seek, servers answer with an offer.
//!
//! An offer is only a hint where to connect; the handshake proves the identity of the server ([`crate::noise`]). An agent that knows the
//! server's key puts a key of its own into the seek, and the server proves with both that the offer is its own and where it can be
//! reached: such offers are tried before all others, however many of those there are. Both datagrams have the same length, so nobody can
//! make the server send more than they sent themselves. The server keeps a table of fixed size to answer each address only so often, and
//! nothing else.

mod datagram;
mod proof;
mod responder;
#[cfg(test)]
mod tests;

pub use datagram::{DATAGRAM_LEN, Offer, OfferError, Seek};
pub use proof::Recognition;
pub use responder::{Answer, Responder};

/// The UDP port of discovery, and the TCP port of the control link, unless the operator says otherwise.
pub const DEFAULT_PORT: u16 = 7531;
