//! Disks of nodes: loop devices as real block devices, or plain files, on disk or in RAM.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};
use crate::run::Run;
use crate::tool;

/// What a node's target is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A sparse file in the run's folder.
    File,
    /// A sparse file in memory: for figures in which the disk is not the point.
    Ram,
    /// A file in memory that has all its pages already, as a disk has its sectors: for figures in which not even the
    /// making of pages is the point.
    FilledRam,
    /// A loop device with direct I/O over a file in the run's folder, with this logical sector size in bytes.
    Loop {
        /// 512 or 4096.
        sector: u32,
    },
}

/// A node's disk: what the agent is given, and the file that holds its bytes.
#[derive(Debug, Clone)]
pub struct Target {
    /// What `--target` names: the loop device or the file.
    pub path: PathBuf,
    /// The file behind it.
    pub file: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Target {
    /// Makes a disk of zeros, named after its node.
    pub(crate) fn new(run: &Run, name: &str, kind: TargetKind, bytes: u64) -> Result<Self> {
        let in_memory = matches!(kind, TargetKind::Ram | TargetKind::FilledRam);
        let dir = if in_memory { ram(run)? } else { run.dir().to_owned() };
        let file = dir.join(format!("{name}.disk"));
        let mut made = File::create_new(&file).map_err(LabError::io("creating", &file))?;
        if kind == TargetKind::FilledRam {
            std::io::copy(&mut std::io::repeat(0).take(bytes), &mut made).map_err(LabError::io("filling", &file))?;
        }
        made.set_len(bytes).map_err(LabError::io("sizing", &file))?;
        if let TargetKind::Loop { sector } = kind {
            let path = attach(&file, sector)?;
            return Ok(Self { path, file, bytes });
        }
        Ok(Self { path: file.clone(), file, bytes })
    }
}

/// Attaches `file` to a free loop device. It goes when the run of its folder goes.
///
/// # Errors
/// When the kernel has none to give.
pub fn attach(file: &Path, sector: u32) -> Result<PathBuf> {
    let sector = sector.to_string();
    let words = ["--find", "--show", "--direct-io=on", "--sector-size", &sector].map(Path::new);
    let said = tool::run("losetup", words.into_iter().chain([file]))?;
    let device = PathBuf::from(said.trim());
    // Whoever had the device before may have left it read-only: that outlives a detach.
    tool::run("blockdev", [Path::new("--setrw"), &device])?;
    Ok(device)
}

/// Whether loop devices can be had: the control device is there and attaching works.
pub fn loops_work() -> bool {
    let try_one = || -> Result<()> {
        let run = Run::start()?;
        Target::new(&run, "probe", TargetKind::Loop { sector: 512 }, 1 << 20).map(drop)
    };
    Path::new("/dev/loop-control").exists() && try_one().is_ok()
}

/// The run's folder in memory, mounted on first use.
fn ram(run: &Run) -> Result<PathBuf> {
    let dir = run.dir().join("ram");
    if !dir.exists() {
        std::fs::create_dir(&dir).map_err(LabError::io("creating", &dir))?;
        let kind = Path::new("tmpfs");
        tool::run("mount", [Path::new("-t"), kind, Path::new("-o"), Path::new("size=90%"), kind, &dir])?;
    }
    Ok(dir)
}
