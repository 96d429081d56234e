//! What SlideCast says on the wire, and the machines that decide what to say.
//!
//! Nothing in this crate opens a socket or a file, starts a thread or reads a clock: bytes and the time come in as
//! parameters, bytes and orders go out. `docs/WIRE.md` has the byte tables.
#![forbid(unsafe_code)]

pub mod approval;
#[cfg(slidecast_bugs)]
pub mod bug;
#[cfg(not(slidecast_bugs))]
#[expect(unreachable_pub, reason = "the list is public in the build that has the bugs")]
mod bug;
pub mod callers;
pub mod control;
pub mod deployment;
pub mod discovery;
pub mod door;
pub mod feed;
pub mod fleet;
pub mod frame;
pub mod hex;
pub mod hosting;
pub mod link;
mod look;
pub mod node;
pub mod noise;
pub mod plan;
pub mod quantity;
pub mod queue;
pub mod reason;
mod relay_log;
pub mod run;
pub mod schedule;
pub mod selector;
pub mod set;
pub mod units;
pub mod visit;
pub mod wire;
