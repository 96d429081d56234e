//! What a server does around its fleet and its deployments, as it is shipped and simulated.
//!
//! [`Hosted`] is one deployment at its server: which state is kept and when, which orders wait until that is on disk, which feed of a
//! chain counts, which blocks are checked in the image, and what comes last at the end. [`Host`] has all of them and the fleet: it decides
//! which deployment hears an agent, gets it and loses it, and whose control links are closed.

mod holding;
mod host;
mod hosted;
#[cfg(test)]
mod tests;

pub use host::{Host, HostAct, Refused};
pub use hosted::{Hosted, HostedAct, MAX_CHECKS};
