//! Runs the tests, after taking on the rights that they need.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};
use slidecast_lab::cgroup::Group;
use slidecast_lab::{privilege, programs, slowest, target, tool};

/// What a test needs of the machine beyond network namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing more.
    Network,
    /// Loop devices.
    Loops,
    /// A loop device over a file that QEMU's storage daemon shows and keeps a log of.
    LoggedDisk,
    /// dnsmasq, iPXE's first stages and curl.
    NetworkBoot,
    /// Debian's packages, and what boot files are made with.
    Packages,
    /// Control groups that count processor time.
    Cgroups,
    /// curl.
    Curl,
}

/// A test: its name says what is so.
pub(crate) type Test = (&'static str, Needs, fn());

/// How many tests run at once: every test is a handful of processes, which wait most of the time for shaped links and for each other.
const AT_ONCE: usize = 3;
/// How many that do little but wait for minutes run beside them.
const WAITING: usize = 4;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// Runs a test when fewer than [`AT_ONCE`] others do. One that does little but wait runs without.
pub(crate) fn in_turn<T>(test: impl FnOnce() -> T) -> T {
    struct Turn;
    impl Drop for Turn {
        fn drop(&mut self) {
            *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            ENDED.notify_one();
        }
    }
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running = ENDED.wait_while(running, |running| *running >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
    *running += 1;
    drop(running);
    let _turn = Turn;
    test()
}

/// Runs what the arguments choose of `groups` and of the tests that `more` makes once the rights are there: first those that do
/// little but wait, then the others.
pub(crate) fn main(groups: &[&[Test]], more: fn() -> (Vec<Trial>, Vec<Trial>)) -> ExitCode {
    let built = programs::server().and(programs::agent());
    if let Err(error) = built.map(drop).and_then(|()| privilege::enter()) {
        eprintln!("system tests: {error}");
        return ExitCode::FAILURE;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE + WAITING);
    let loops = target::loops_work();
    let cgroups = Group::new(&format!("slc-{}-probe", std::process::id())).is_some();
    slidecast_lab::cgroup::remove(&format!("slc-{}-probe", std::process::id()));
    let given = |needs| match needs {
        Needs::Network => true,
        Needs::Loops => loops,
        Needs::LoggedDisk => loops && tool::have("qemu-storage-daemon") && Path::new("/dev/fuse").exists(),
        Needs::NetworkBoot => {
            let stages = ["undionly.kpxe", "snponly.efi"].map(|name| Path::new("/usr/lib/ipxe").join(name).exists());
            tool::have("dnsmasq") && tool::have("curl") && stages == [true; 2]
        }
        Needs::Packages => {
            let files =
                ["ISOLINUX/isolinux.bin", "syslinux/modules/bios/ldlinux.c32", "systemd/boot/efi/linuxx64.efi.stub"];
            let programs = ["dpkg-deb", "cc", "cpio", "zstd", "xz", "depmod", "objcopy", "mkfs.vfat", "mmd", "xorriso"];
            programs.iter().all(|program| tool::have(program))
                && files.iter().all(|name| Path::new("/usr/lib").join(name).exists())
        }
        Needs::Cgroups => cgroups,
        Needs::Curl => tool::have("curl"),
    };
    let trial = |&(name, needs, run): &Test| {
        Trial::test(name, move || {
            in_turn(|| slowest::timed(name, run));
            Ok(())
        })
        .with_ignored_flag(!given(needs))
    };
    let (waiting, more) = more();
    let tests = groups.iter().flat_map(|group| group.iter()).map(trial);
    let trials = waiting.into_iter().chain(tests).chain(more).collect();
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    eprintln!("{}", slowest::told());
    code
}
