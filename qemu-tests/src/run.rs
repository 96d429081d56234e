//! One run of the lab on this machine, and its complete removal.
//!
//! Everything a run makes carries the run's name (`slc-PID-N`): network namespaces, control groups, and one folder in
//! which targets, logs and mounts are. So removal needs no record of what was made, and the same function serves the
//! end of a test, a failure, a panic, Ctrl-C and the leftovers of a run that was killed: those are told by their
//! owner's process id and start time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cgroup;
use crate::error::{LabError, Result};
use crate::tool;

/// The runs of this process that are not removed yet.
static RUNS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static COUNT: AtomicU32 = AtomicU32::new(0);
static GUARD: Once = Once::new();

/// A run's name and folder; dropping it removes everything the run made.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    name: String,
}

impl Run {
    /// Starts a run. The first one of a process also removes what dead runs left and arms Ctrl-C.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn start() -> Result<Self> {
        GUARD.call_once(|| {
            remove_leftovers();
            arm();
        });
        let pid = std::process::id();
        let name = format!("slc-{pid}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = base().join(&name);
        fs::create_dir_all(&dir).map_err(LabError::io("creating", &dir))?;
        let owner = dir.join("owner");
        fs::write(&owner, format!("{pid} {}", start_time(pid).unwrap_or(0))).map_err(LabError::io("writing", owner))?;
        RUNS.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone());
        Ok(Self { dir, name })
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The run's name, the prefix of everything it makes outside its folder.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        remove(&self.dir);
        RUNS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.dir);
    }
}

/// Removes all runs of this process: for the ends that do not unwind.
pub fn remove_all() {
    let runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for dir in runs {
        remove(&dir);
    }
}

/// Removes the runs whose owner is no more.
pub fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(base()) else { return };
    for dir in entries.flatten().map(|entry| entry.path()) {
        if !owner_lives(&dir) {
            remove(&dir);
        }
    }
}

/// Where the folders of runs are: `SLIDECAST_LAB_DIR`, else one for each user in `/var/tmp`.
fn base() -> PathBuf {
    let ours = || PathBuf::from(format!("/var/tmp/slidecast-lab-{}", nix::unistd::Uid::effective()));
    std::env::var_os("SLIDECAST_LAB_DIR").map_or_else(ours, PathBuf::from)
}

fn owner_lives(dir: &Path) -> bool {
    let Ok(text) = fs::read_to_string(dir.join("owner")) else {
        // Made this very moment by another process, or half removed: the name has the process id too.
        let pid = dir.file_name().and_then(|name| name.to_str()?.split('-').nth(1)?.parse().ok());
        return pid.is_some_and(|pid| start_time(pid).is_some());
    };
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started))) = (words.next(), words.next()) else { return false };
    u32::try_from(pid).ok().and_then(start_time) == Some(started)
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc_pid_stat(5)).
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// On the signals of somebody who wants to stop: remove everything, then end as the signal would have.
fn arm() {
    if cfg!(panic = "abort") {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            hook(info);
            remove_all();
        }));
    }
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    let watch = move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("stopped: removing the lab");
            remove_all();
            #[expect(clippy::exit, reason = "the run was stopped from outside")]
            std::process::exit(128 + signal);
        }
    };
    // Without this thread Ctrl-C would still end us; the next run removes what is left.
    let _ = std::thread::Builder::new().name("lab-signals".into()).spawn(watch);
}

/// Ends and removes everything of the run in `dir`. Goes on after each failure: the next step may still succeed.
fn remove(dir: &Path) {
    let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { return };
    if !name.starts_with("slc-") {
        return;
    }
    let prefix = format!("{name}-");
    let namespaces: Vec<String> = list("/run/netns").into_iter().filter(|entry| entry.starts_with(&prefix)).collect();
    let mut pids: Vec<i32> = cgroup::processes(&prefix);
    for namespace in &namespaces {
        let text = tool::run("ip", ["netns", "pids", namespace]).unwrap_or_default();
        pids.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    for pid in &pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    await_end(&pids);
    detach_loops(dir);
    unmount(dir);
    for namespace in &namespaces {
        let _ = tool::run("ip", ["netns", "delete", namespace]);
    }
    cgroup::remove(&prefix);
    let _ = fs::remove_dir_all(dir);
}

/// Waits until killed processes have let go of their files: a loop device or a mount would still be busy.
fn await_end(pids: &[i32]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let lives = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    };
    while pids.iter().any(lives) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn detach_loops(dir: &Path) {
    for device in list("/sys/block").into_iter().filter(|name| name.starts_with("loop")) {
        let backing = fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim_end()).starts_with(dir) {
            let _ = tool::run("losetup", ["-d", &format!("/dev/{device}")]);
        }
    }
}

fn unmount(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for mount in mounts.iter().rev().filter(|mount| Path::new(mount).starts_with(dir)) {
        let _ = nix::mount::umount2(*mount, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn list(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_run_is_alive_and_a_reused_process_id_is_not() {
        let run = Run::start().unwrap();
        assert!(owner_lives(run.dir()));
        fs::write(run.dir().join("owner"), format!("{} 1", std::process::id())).unwrap();
        assert!(!owner_lives(run.dir()));
    }

    #[test]
    fn dropping_a_run_removes_its_folder() {
        let run = Run::start().unwrap();
        let dir = run.dir().to_owned();
        fs::write(dir.join("disk"), b"x").unwrap();
        drop(run);
        assert!(!dir.exists());
    }
}
