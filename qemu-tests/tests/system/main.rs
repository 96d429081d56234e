//! System tests: the real programs in the lab.
//!
//! `cargo test -p slidecast-lab --test system [NAME]`, or `./check.sh lab`, which builds the programs first. A test that
//! needs what this machine does not give (loop devices, control groups) is reported as ignored, never as passed.

#![expect(clippy::unwrap_used, reason = "these are tests, though not in functions marked as such")]

mod harness;
mod lab;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main(&[lab::TESTS])
}
