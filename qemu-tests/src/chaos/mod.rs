//! Chaos: faults of every kind, at every position of a chain and in every phase of a deployment, with the real programs.
//!
//! A [`Case`] is what happens, to whom and when; a seed draws the rest (which middle node, which byte, how long). It is played
//! in a lab of its own ([`play()`]) and judged from outside: exit codes, the report, every disk against the image.
//! [`pairwise`] are the few cases of the lab tier, [`run()`] plays the product for `./check.sh chaos`.

mod case;
mod cover;
mod culprit;
pub mod disk;
pub(crate) mod floods;
mod frames;
mod fuse;
mod judge;
pub mod liar;
pub mod misplace;
mod play;
pub mod proxy;
mod rig;
mod run;
pub mod stranger;
mod strike;

pub use case::{Case, Kind, Phase, Position};
pub use cover::pairwise;
pub use culprit::culprit;
pub use play::{Able, Measured, Outcome, play};
pub use run::{Options, replay, run};
