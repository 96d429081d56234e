//! System tests in virtual machines: from power-on to a disk that boots.
//!
//! `cargo test -p slidecast-lab --test machines [NAME]`, or `./check.sh qemu`, which builds the programs first and installs
//! QEMU. An emulated machine takes a whole processor: tests with one run two at a time, those with up to four one by one.

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
use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Arguments, Trial};
use slidecast_lab::{privilege, programs, run, slowest, tool};

/// A test: its name says what is so.
type Test = (&'static str, Takes, fn());

/// How much of the processors a test takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Takes {
    /// One: it has one machine at a time.
    One,
    /// All.
    All,
}

/// Held alone by a test that takes all processors.
static PROCESSORS: RwLock<()> = RwLock::new(());

fn in_turn(takes: Takes, test: impl FnOnce()) {
    // The lock keeps nothing that a test that failed could have left half done.
    let _turn = match takes {
        Takes::One => (Some(PROCESSORS.read().unwrap_or_else(PoisonError::into_inner)), None),
        Takes::All => (None, Some(PROCESSORS.write().unwrap_or_else(PoisonError::into_inner))),
    };
    test();
}

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
    arguments.test_threads.get_or_insert(2);
    let trial = |&(name, takes, run): &Test| {
        let body = move || {
            in_turn(takes, || slowest::timed(name, run));
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
    let mut tests: Vec<&Test> = groups.into_iter().flatten().collect();
    // None waits for its turn while a processor is idle.
    tests.sort_by_key(|(_, takes, _)| *takes);
    let code = libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code();
    eprintln!("{}", slowest::told());
    // What tests share is in a static, which is never dropped.
    run::remove_all();
    code
}
