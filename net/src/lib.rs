//! What agent and server share below the machines: frames and control messages on sockets, socket options, the clock, and the texts of
//! errors.
//!
//! Nothing here decides anything. Sockets come in as `Read` and `Write`, so that each program keeps its own event loop.
#![forbid(unsafe_code)]

pub mod clock;
pub mod control;
pub mod frames;
pub mod options;
pub mod text;
