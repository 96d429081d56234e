//! Thousands of deployments in virtual time.
//!
//! The machines of `proto` are the real ones. Everything around them is played: sockets ([`network`]), the agent's loop
//! ([`agent`], [`run`]), its disk ([`disk`], [`engine`]), the server's loop ([`server`], [`feed`]) and the clock ([`queue`]). One seed is one
//! run ([`scenario`]); what goes wrong in it is done by [`faults`], and [`checker`] looks at every decision.

mod agent;
#[cfg(slidecast_bugs)]
mod bugs;
mod checker;
mod cli;
mod core;
mod damage;
mod disk;
mod engine;
mod faults;
mod feed;
mod growth;
#[cfg(test)]
mod guilty;
mod image;
mod listener;
mod network;
mod queue;
mod quirks;
mod rng;
mod run;
mod scenario;
mod seeds;
mod server;
mod state;
mod world;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args().skip(1))
}
