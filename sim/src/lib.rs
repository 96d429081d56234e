//! Thousands of deployments in virtual time.
//!
//! The machines of `proto` are the real ones. Everything around them is played: sockets ([`network`]), the agent's loop
//! ([`agent`], [`run`]), its disk ([`disk`], [`engine`]), the server's loop ([`server`], [`feed`]) and the clock ([`queue`]). One seed is one
//! run ([`scenario`]); what goes wrong in it is done by [`faults`], and [`checker`] looks at every decision.

pub mod agent;
#[cfg(slidecast_bugs)]
pub mod bugs;
pub mod checker;
pub mod cli;
pub mod core;
pub mod damage;
pub mod disk;
pub mod engine;
pub mod faults;
pub mod feed;
pub mod growth;
pub mod guilty;
pub mod image;
pub mod network;
pub mod queue;
pub mod quirks;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod seeds;
pub mod server;
pub mod world;
