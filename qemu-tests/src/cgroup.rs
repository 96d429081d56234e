//! Control groups, for the processor time of everything a node or the server does.
//!
//! Version 2 where its `cpu` controller can be had, else version 1's `cpuacct`. Without either (no root, a container)
//! there is no figure, and whoever wanted one is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A control group in which processes are counted together.
#[derive(Debug, Clone)]
pub struct Group {
    dir: PathBuf,
}

impl Group {
    /// Makes the group `name`, if this machine lets us.
    pub fn new(name: &str) -> Option<Self> {
        let dir = root()?.join(name);
        fs::create_dir(&dir).ok()?;
        Some(Self { dir })
    }

    /// The file into which a process writes its id to join.
    pub fn entrance(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// User and system time of all that ever ran in the group.
    pub fn cpu(&self) -> Option<Duration> {
        if let Ok(text) = fs::read_to_string(self.dir.join("cpuacct.usage")) {
            return text.trim().parse().ok().map(Duration::from_nanos);
        }
        let text = fs::read_to_string(self.dir.join("cpu.stat")).ok()?;
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        micros.trim().parse().ok().map(Duration::from_micros)
    }
}

/// Where our groups are made: a hierarchy that counts processor time and lets us make folders.
fn root() -> Option<PathBuf> {
    let unified = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|controller| controller == "cpu") {
        // cpu.stat has usage_usec in every group of version 2, with or without the controller switched on.
        return Some(unified.to_owned());
    }
    ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct"]
        .map(PathBuf::from)
        .into_iter()
        .find(|dir| dir.join("cpuacct.usage").exists())
}

fn ours(prefix: &str) -> Vec<PathBuf> {
    let entries = root().and_then(|root| fs::read_dir(root).ok()).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path()).collect()
}

/// The processes in all groups whose name starts with `prefix`.
pub(crate) fn processes(prefix: &str) -> Vec<i32> {
    let texts = ours(prefix).into_iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
    texts.flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Removes the (by now empty) groups whose name starts with `prefix`.
pub fn remove(prefix: &str) {
    for dir in ours(prefix) {
        let _ = fs::remove_dir(dir);
    }
}
