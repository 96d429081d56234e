//! Control groups, for the processor time of everything a node or the server does, and for disks that are slow on purpose.
//!
//! Version 2 where its controllers can be had, else version 1's `cpuacct` and `blkio`. Without either (no root, a
//! container) there is no figure, and whoever wanted one is told.

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

/// A control group whose processes write to one block device at a bounded rate: a slow disk, which may become slow and
/// recover while it is used. For writes that go past the page cache.
#[derive(Debug)]
pub struct Brake {
    dir: PathBuf,
    device: String,
    unified: bool,
}

impl Brake {
    /// Puts the process `pid` in a group `name` for what it writes to the block device at `path`, which goes on as before
    /// until [`Brake::set`]. Nothing if this machine does not let us.
    pub fn new(name: &str, pid: u32, path: &Path) -> Option<Self> {
        let number = fs::read_to_string(Path::new("/sys/class/block").join(path.file_name()?).join("dev")).ok()?;
        let (root, unified) = brakes()?;
        let dir = root.join(name);
        fs::create_dir(&dir).ok()?;
        let brake = Self { dir, device: number.trim().to_owned(), unified };
        fs::write(brake.dir.join("cgroup.procs"), pid.to_string()).ok()?;
        // A rule that cannot be set later is found out now.
        brake.set(u64::from(u32::MAX)).then_some(brake)
    }

    /// From now on at most `rate` bytes a second are written. Gives whether the kernel took it.
    pub fn set(&self, rate: u64) -> bool {
        let (file, rule) = if self.unified {
            ("io.max", format!("{} wbps={rate}", self.device))
        } else {
            ("blkio.throttle.write_bps_device", format!("{} {rate}", self.device))
        };
        fs::write(self.dir.join(file), rule).is_ok()
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        // With a process in it, it stays until its run is removed.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Where groups that bound a device's rate are made, and whether that is version 2.
fn brakes() -> Option<(PathBuf, bool)> {
    let unified = Path::new("/sys/fs/cgroup");
    let has_io = |file: &str| {
        let text = fs::read_to_string(unified.join(file)).unwrap_or_default();
        text.split_whitespace().any(|controller| controller == "io")
    };
    if has_io("cgroup.controllers") {
        let on = has_io("cgroup.subtree_control") || fs::write(unified.join("cgroup.subtree_control"), "+io").is_ok();
        return on.then(|| (unified.to_owned(), true));
    }
    let old = unified.join("blkio");
    old.join("blkio.throttle.write_bps_device").exists().then_some((old, false))
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
    let mut roots: Vec<PathBuf> = root().into_iter().chain(brakes().map(|(root, _)| root)).collect();
    roots.dedup();
    let entries = roots.into_iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
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
