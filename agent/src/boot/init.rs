//! The first process of the machine. It never ends, and it never fails: whatever goes wrong is said and left.

use super::console::{self, Console};
use super::{ExitAction, LAST_WORDS, WORKER};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, alarm};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A worker that fails so often is not started again.
const FAILURES: u32 = 3;
/// How long a failure stays on the console before the worker is started again.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a worker that is told to end may take, in seconds.
const PATIENCE: u32 = 5;
/// How long the last lines may take through a serial line.
const DRAIN: Duration = Duration::from_millis(300);

/// What is done about a worker that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// Start it again.
    Again,
    /// Leave the machine as it is.
    Hold,
}

/// How often the worker failed. A restart of the worker is counted here; a restart of the machine would forget it.
#[derive(Debug, Default)]
struct Failures(u32);

impl Failures {
    /// Counts one more; gives what to do, and the line that says so.
    fn count(&mut self, text: &str) -> (Remedy, String) {
        self.0 += 1;
        let remedy = if self.0 < FAILURES { Remedy::Again } else { Remedy::Hold };
        (remedy, format!("panic {} of {FAILURES}: {text}", self.0))
    }
}

pub(super) fn run() -> ! {
    let complaints = mount_all();
    // Threads are none of this process: nobody but this hook would see a panic, and the kernel panics when init ends.
    std::panic::set_hook(Box::new(|info| {
        say_everywhere(&console::open_all(), &format!("internal error of the first process: {info}"));
        loop {
            std::thread::park();
        }
    }));
    // Kernel messages below errors would spoil the screen.
    let _ = fs::write("/proc/sys/kernel/printk", "4 4 1 4");
    let consoles = console::open_all();
    say_everywhere(&consoles, &format!("boot {}", env!("CARGO_PKG_VERSION")));
    complaints.iter().for_each(|complaint| say_everywhere(&consoles, complaint));
    // Ctrl-Alt-Del becomes SIGINT instead of a reset.
    let _ = set_cad_enabled(false);
    let signals = [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGALRM].into_iter().collect::<SigSet>();
    if let Err(error) = signals.thread_block() {
        say_everywhere(&consoles, &format!("blocking signals: {error}"));
    }
    let mut init = Init { consoles, worker: None, failures: Failures::default(), ending: None };
    init.start();
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => init.reap(),
            Ok(Signal::SIGALRM) => init.carry_out_ending(),
            Ok(signal) => init.on_signal(signal),
            Err(_) => {}
        }
    }
}

#[derive(Debug)]
struct Init {
    consoles: Vec<Console>,
    worker: Option<Pid>,
    failures: Failures,
    /// What happens when the worker has ended, however it does.
    ending: Option<ExitAction>,
}

impl Init {
    fn say(&self, text: &str) {
        say_everywhere(&self.consoles, text);
    }

    fn start(&mut self) {
        let _ = fs::remove_file(LAST_WORDS);
        let worker = Command::new("/proc/self/exe").arg0(WORKER).stdin(Stdio::null()).spawn();
        match worker {
            // What it ends with is collected with everybody else's.
            Ok(child) => self.worker = i32::try_from(child.id()).ok().map(Pid::from_raw),
            Err(error) => self.on_failure(&format!("starting the worker: {error}")),
        }
    }

    /// Collects all processes that have ended: the worker, its children, and those nobody else collects.
    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _))) => {
                    if Some(pid) == self.worker {
                        self.worker = None;
                        self.on_ended(status);
                    }
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return self.say(&format!("collecting processes: {error}")),
            }
        }
    }

    fn on_ended(&mut self, status: WaitStatus) {
        if self.ending.is_some() {
            return self.carry_out_ending();
        }
        if let WaitStatus::Exited(_, code) = status
            && let Some(action) = ExitAction::from_code(code)
        {
            return self.carry_out(action);
        }
        let how = match status {
            WaitStatus::Exited(_, code) => format!("the worker ended with code {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("the worker was ended by {signal}"),
            _ => "the worker ended".to_owned(),
        };
        let words = fs::read_to_string(LAST_WORDS).unwrap_or_default();
        self.on_failure(words.lines().next().unwrap_or(&how));
    }

    fn on_failure(&mut self, text: &str) {
        let (remedy, line) = self.failures.count(text);
        self.say(&line);
        match remedy {
            Remedy::Again => {
                self.say(&format!("starting again in {} s", PAUSE.as_secs()));
                std::thread::sleep(PAUSE);
                self.start();
            }
            Remedy::Hold => self.carry_out(ExitAction::Hold),
        }
    }

    /// Somebody wants the machine to restart (Ctrl-Alt-Del) or to stop: the worker may say goodbye first.
    fn on_signal(&mut self, signal: Signal) {
        let action = if signal == Signal::SIGTERM { ExitAction::PowerOff } else { ExitAction::Reboot };
        self.ending = Some(action);
        match self.worker {
            Some(worker) if kill(worker, Signal::SIGTERM).is_ok() => drop(alarm::set(PATIENCE)),
            _ => self.carry_out(action),
        }
    }

    fn carry_out_ending(&mut self) {
        if let Some(action) = self.ending {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: ExitAction) {
        self.say(action.line());
        let mode = match action {
            // The loop goes on: nothing starts a worker any more.
            ExitAction::Hold => return,
            ExitAction::Reboot => RebootMode::RB_AUTOBOOT,
            ExitAction::PowerOff => RebootMode::RB_POWER_OFF,
        };
        nix::unistd::sync();
        std::thread::sleep(DRAIN);
        let result: nix::Result<Infallible> = reboot(mode);
        let Err(error) = result;
        self.say(&format!("{}: {error}", action.line()));
        self.say(ExitAction::Hold.line());
    }
}

fn say_everywhere(consoles: &[Console], text: &str) {
    consoles.iter().for_each(|console| console.print(text));
}

/// Mounts what the kernel shows of itself. Gives a line for everything that went wrong.
fn mount_all() -> Vec<String> {
    let points = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")];
    points.into_iter().filter_map(|(kind, point)| mount_one(kind, point).err()).collect()
}

fn mount_one(kind: &str, point: &str) -> Result<(), String> {
    let wrong = |error: io::Error| format!("mounting {kind} on {point}: {error}");
    fs::create_dir_all(point).map_err(wrong)?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    if kind != "devtmpfs" {
        flags |= MsFlags::MS_NODEV;
    }
    match mount(Some(kind), point, Some(kind), flags, Some("")) {
        // The kernel or the boot image has mounted it already.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(wrong(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_fails_is_started_twice_again_and_then_left() {
        let mut failures = Failures::default();
        assert_eq!(failures.count("a"), (Remedy::Again, "panic 1 of 3: a".to_owned()));
        assert_eq!(failures.count("b"), (Remedy::Again, "panic 2 of 3: b".to_owned()));
        assert_eq!(failures.count("c"), (Remedy::Hold, "panic 3 of 3: c".to_owned()));
    }

    #[test]
    fn every_wish_has_a_code_that_is_neither_success_nor_a_panic() {
        for (action, code) in ExitAction::ALL {
            assert_eq!(ExitAction::from_code(code.into()), Some(action));
        }
        for code in [0, 1, 101, 134] {
            assert_eq!(ExitAction::from_code(code), None);
        }
    }
}
