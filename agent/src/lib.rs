//! The agent: finds the server, receives blocks from its upstream, passes them on, writes them to the target and proves
//! what stands there.
//!
//! | thread | what it does | where |
//! | --- | --- | --- |
//! | net | every socket, every timer, every decision of the chain position | `event_loop` |
//! | `slidecast-w0`.. | unpack, hash, write, flush, read back | `disk/` |
//!
//! `run` is one deployment from the server's first order to the last word. System calls that need unsafe code are
//! all in `sys/`; everything else is safe Rust.
#![deny(unsafe_code)]

mod agent;
mod boot;
mod callers;
mod cards;
mod cli;
mod conn;
mod control;
mod dial;
mod discover;
mod disk;
mod disks;
mod error;
mod event_loop;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod inventory;
mod key_file;
mod logging;
mod lookup;
mod machine;
mod names;
mod parts;
mod preparation;
pub mod program;
mod random;
mod ring;
mod run;
mod status;
#[expect(unsafe_code, reason = "memory maps and the system calls of block devices have no safe form")]
mod sys;
mod target;
