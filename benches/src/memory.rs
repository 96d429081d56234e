//! Memory of agent and server: the peak of the proportional set size, in which the page cache is not.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use slidecast_lab::{Process, Result, compare, tool};

use crate::setup::{Bench, Image, Setup, create, info};
use crate::table::{Bar, Table, mib};

/// Looks at processes until told to stop.
#[derive(Debug)]
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

impl Watch {
    fn start(pids: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let look = move || {
            let mut peaks = vec![0; pids.len()];
            while !seen.load(Ordering::Relaxed) {
                for (peak, pid) in peaks.iter_mut().zip(&pids) {
                    *peak = (*peak).max(pss(*pid).unwrap_or(0));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            peaks
        };
        Self { stop, thread: std::thread::spawn(look) }
    }

    /// The peaks in bytes, in the order of the processes.
    fn end(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// The proportional set size of a process in bytes (`/proc/PID/smaps_rollup`, proc_pid_smaps(5)): memory mapped twice
/// counts once, as our ring is.
fn pss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Deploys and gives the peaks of the server and of the largest agent.
fn peaks(bench: &Bench, image: &Image) -> Result<(u64, u64)> {
    let mut watch = None;
    bench.deploy(image, &[], |server: &Process, agents: &[Process]| {
        let pids = std::iter::once(server).chain(agents).map(Process::pid).collect();
        watch = Some(Watch::start(pids));
    })?;
    let peaks = watch.map(Watch::end).unwrap_or_default();
    Ok((peaks.first().copied().unwrap_or(0), peaks.iter().skip(1).copied().max().unwrap_or(0)))
}

/// Runs the figures.
///
/// # Errors
/// When a deployment fails.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    table.group(
        "Memory, default ring, blocks of 1 MiB: peak PSS in MiB",
        "slidecast deploy IMAGE --wait-for N | slidecast-agent --target RAMFILE --once",
    );
    let mut agent = |name: &str, value: u64| {
        table.row(&format!("{name}: agent"), mib(value), Bar::AtMost(128.0), "the largest of all agents");
    };
    let random = setup.random_image()?;
    let bench = Bench::new(2, None, random.disk_bytes)?;
    let (small_server, value) = peaks(&bench, &random)?;
    agent("random bytes, N=2, unshaped", value);
    drop(bench);
    let system = setup.system_image()?;
    let bench = Bench::new(2, None, system.disk_bytes)?;
    let (_, value) = peaks(&bench, &system)?;
    agent("Debian system, N=2, unshaped", value);
    drop(bench);
    let (image, created) = large(setup)?;
    let bench = Bench::new(1, None, image.disk_bytes)?;
    let (server, value) = peaks(&bench, &image)?;
    agent("sparse 1 TiB, N=1", value);
    table.row("random bytes, N=2: server", mib(small_server), Bar::AtMost(128.0), "");
    let facts = info(&image.file)?;
    let number = |key: &str| find(&facts, key).unwrap_or(0);
    let (blocks, extents) = (number("blocks"), number("extents"));
    let bar = mib((128 << 20) + 64 * blocks + 24 * extents + blocks / 8);
    let from = format!("bar: 128 MiB + 64 B x {blocks} blocks + 24 B x {extents} extents + 1 bit x blocks x nodes");
    table.row("sparse 1 TiB, N=1: server", mib(server), Bar::AtMost(bar), &from);
    table.row("sparse 1 TiB: image create", mib(created), Bar::Report, "");
    Ok(())
}

/// A 1 TiB disk with one ext4 file system that holds the Debian system, and the peak of creating its image.
fn large(setup: &Setup) -> Result<(Image, u64)> {
    let (source, file) = (setup.path("large.img"), setup.path("large.slide"));
    let disk_bytes = 1_u64 << 40;
    let make = fs::File::create(&source).and_then(|file| file.set_len(disk_bytes));
    make.map_err(slidecast_lab::LabError::io("creating", &source))?;
    let tree = setup.path("tree");
    fs::create_dir_all(&tree).map_err(slidecast_lab::LabError::io("creating", &tree))?;
    let tar = slidecast_lab::disk::debian::cache().join("debian-full.tar");
    setup.debian()?;
    let words = ["--extract", "--exclude=./dev/*", "--file"].map(Path::new);
    tool::run("tar", words.into_iter().chain([tar.as_path(), Path::new("--directory"), &tree]))?;
    let words = ["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d"].map(Path::new);
    tool::run("mke2fs", words.into_iter().chain([tree.as_path(), &source]))?;
    fs::remove_dir_all(&tree).map_err(slidecast_lab::LabError::io("removing", &tree))?;
    let mut created = 0;
    let program = slidecast_lab::programs::server()?;
    let args = ["image".into(), "create".into(), source.clone().into_os_string(), "-o".into(), file.clone().into()];
    let place = slidecast_lab::process::Place::default();
    let mut process = Process::start("create", &setup.path(""), &place, &program, args)?;
    process.wait_until("creating", Duration::from_secs(900), |process| {
        created = created.max(pss(process.pid()).unwrap_or(0));
        file.exists()
    })?;
    process.wait_exit(Duration::from_secs(60))?;
    if !file.exists() {
        create(&source, &file, &[])?;
    }
    Ok((Image { file, disk_bytes: compare::length(&source)?, source }, created))
}

/// The first number called `key` anywhere in some JSON.
fn find(value: &serde_json::Value, key: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(map) => {
            let here = map.get(key).and_then(serde_json::Value::as_u64);
            here.or_else(|| map.values().find_map(|value| find(value, key)))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}
