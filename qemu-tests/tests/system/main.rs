//! System tests: the real programs in the lab.
//!
//! `cargo test -p slidecast-lab --test system [NAME]`, or `./check.sh lab`, which builds the programs first. A test that
//! needs what this machine does not give (loop devices, control groups) is reported as ignored, never as passed.

#![expect(clippy::unwrap_used, reason = "these are tests, though not in functions marked as such")]

mod approve;
mod bad_images;
mod bad_peers;
mod bad_targets;
mod boot;
mod boot_doc;
mod chains;
mod chaos;
mod devices;
mod end_to_end;
mod exports;
#[path = "../../../image/tests/common/forge.rs"]
mod false_images;
mod faults;
mod field;
mod fixtures;
mod harness;
mod hosts;
mod keys;
mod lab;
mod names;
mod power_cut;
mod redeploy;
mod repair;
mod serve;
mod stalls;
mod strangers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let groups = [
        lab::TESTS,
        end_to_end::TESTS,
        chains::TESTS,
        devices::TESTS,
        exports::TESTS,
        faults::TESTS,
        bad_images::TESTS,
        bad_targets::TESTS,
        names::TESTS,
        bad_peers::TESTS,
        power_cut::TESTS,
        repair::TESTS,
        redeploy::TESTS,
        boot::TESTS,
        boot_doc::TESTS,
        hosts::TESTS,
        keys::TESTS,
        stalls::TESTS,
        strangers::TESTS,
        approve::TESTS,
        serve::TESTS,
        field::TESTS,
    ];
    let code = harness::main(&groups, chaos::trials);
    // What tests share is in a static, which is never dropped.
    slidecast_lab::run::remove_all();
    code
}
