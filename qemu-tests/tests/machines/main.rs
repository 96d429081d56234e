//! System tests in virtual machines: from power-on to a disk that boots.
//!
//! `cargo test -p slidecast-lab --test machines [NAME]`, or `./check.sh qemu`, which builds the programs first and installs
//! QEMU. One test at a time: a test has up to four machines, and an emulated machine takes a whole processor.

#![expect(clippy::unwrap_used, reason = "these are tests, though not in functions marked as such")]

mod addresses;
mod boot_files;
mod console;
mod direct;
mod disks;
mod faults;
mod fixtures;
mod held;
mod network;
mod restored;
mod secure;
mod stick;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use slidecast_lab::{privilege, programs, run, slowest, tool};

/// A test: its name says what is so.
type Test = (&'static str, fn());

/// What the machines need of this one.
const TOOLS: &[&str] = &["qemu-system-x86_64", "dnsmasq", "xorriso", "busybox"];

fn main() -> ExitCode {
    let built = programs::server().and(programs::agent());
    if let Err(error) = built.map(drop).and_then(|()| privilege::enter()) {
        eprintln!("machines: {error}");
        return ExitCode::FAILURE;
    }
    let missing: Vec<&str> = TOOLS.iter().copied().filter(|program| !tool::have(program)).collect();
    if !missing.is_empty() {
        eprintln!(
            "machines: missing {missing:?}: apt-get install qemu-system-x86 ovmf ipxe-qemu ipxe dnsmasq-base xorriso busybox-static"
        );
        if std::env::var_os("CI").is_some_and(|value| value == "true") {
            return ExitCode::FAILURE;
        }
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let trial = |&(name, run): &Test| {
        let body = move || {
            slowest::timed(name, run);
            Ok(())
        };
        Trial::test(name, body).with_ignored_flag(!missing.is_empty())
    };
    let groups = [
        boot_files::TESTS,
        direct::TESTS,
        addresses::TESTS,
        console::TESTS,
        held::TESTS,
        disks::TESTS,
        faults::TESTS,
        stick::TESTS,
        network::TESTS,
        restored::TESTS,
        secure::TESTS,
    ];
    let code = libtest_mimic::run(&arguments, groups.into_iter().flatten().map(trial).collect()).exit_code();
    eprintln!("{}", slowest::told());
    // What tests share is in a static, which is never dropped.
    run::remove_all();
    code
}
