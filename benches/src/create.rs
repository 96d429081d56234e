//! Creating images, beside plain `zstd` on the same data.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use slidecast_lab::disk::random::Random;
use slidecast_lab::{LabError, Result, programs};

use crate::setup::{Setup, create};
use crate::table::{Bar, Table, median, mib};

const ROUNDS: usize = 3;

/// Runs the figures.
///
/// # Errors
/// When a program fails.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    table.group(
        &format!("Creating images: the used bytes of a Debian system, {cores} cores, zstd level 3"),
        &format!("slidecast image create used.bin -o used.slide  beside  {cores} x (zstd -3 --single-thread PIECE)"),
    );
    let disks = setup.debian()?;
    let used = setup.path("used.bin");
    let pieces = gather(&disks.first, &disks.layout.used_ranges(&disks.first)?, &used, cores)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let image = setup.path(&format!("used{round}.slide"));
        let started = Instant::now();
        create(&used, &image, &[])?;
        ours.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        zstd(&pieces)?;
        theirs.push(started.elapsed().as_secs_f64());
        fs::remove_file(&image).map_err(LabError::io("removing", &image))?;
    }
    let bytes = fs::metadata(&used).map_err(LabError::io("looking at", &used))?.len();
    let (ours, theirs) = (median(ours), median(theirs));
    let from = format!("{ours:.2} s against {theirs:.2} s for {:.0} MiB", mib(bytes));
    table.row("speed of image create / zstd threads", theirs / ours, Bar::AtLeast(0.8), &from);
    increment(setup, table)
}

/// The used ranges in a row, behind a MiB of noise so that nothing takes them for a file system; and cut in pieces.
fn gather(disk: &Path, ranges: &[std::ops::Range<u64>], used: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let reading = || LabError::io("reading", disk);
    let writing = || LabError::io("writing", used);
    let mut from = File::open(disk).map_err(reading())?;
    let mut to = File::create(used).map_err(writing())?;
    to.write_all(&Random::new(3).bytes(1 << 20)).map_err(writing())?;
    for range in ranges {
        from.seek(SeekFrom::Start(range.start)).map_err(reading())?;
        std::io::copy(&mut Read::by_ref(&mut from).take(range.end - range.start), &mut to).map_err(writing())?;
    }
    let bytes = to.stream_position().map_err(writing())?;
    let each = bytes.div_ceil(count as u64);
    let mut from = File::open(used).map_err(reading())?;
    let mut pieces = Vec::new();
    for i in 0..count {
        let piece = used.with_extension(format!("piece{i}"));
        let mut to = File::create(&piece).map_err(LabError::io("creating", &piece))?;
        std::io::copy(&mut Read::by_ref(&mut from).take(each), &mut to).map_err(writing())?;
        pieces.push(piece);
    }
    Ok(pieces)
}

fn zstd(pieces: &[PathBuf]) -> Result<()> {
    let start = |piece: &PathBuf| {
        let packed = piece.with_extension("zst");
        let mut command = Command::new("zstd");
        command.args(["-q", "-f", "-3", "--single-thread"]).arg(piece).arg("-o").arg(packed).stdin(Stdio::null());
        command.spawn().map_err(|source| LabError::Start { program: "zstd".to_owned(), source })
    };
    let children: Vec<_> = pieces.iter().map(start).collect::<Result<_>>()?;
    for mut child in children {
        let status = child.wait().map_err(LabError::io("waiting for", "zstd"))?;
        if !status.success() {
            return Err(LabError::Tool { command: "zstd".into(), code: status.code(), stderr: String::new() });
        }
    }
    Ok(())
}

/// Bytes that creating an increment reads, by the kernel's count of the process, over what the source holds.
fn increment(setup: &Setup, table: &mut Table) -> Result<()> {
    let disks = setup.debian()?;
    let base = setup.system_image()?.file;
    let image = setup.path("increment.slide");
    let mut command = Command::new(programs::server()?);
    command.args(["image", "create"]).arg(&disks.second).arg("-o").arg(&image).arg("--parent").arg(&base);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|source| LabError::Start { program: "slidecast".to_owned(), source })?;
    // Ended but not yet forgotten: its counts can still be read.
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("Linux process ids are below 2^22"));
    let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    let counts = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap_or_default();
    let status = child.wait().map_err(LabError::io("waiting for", "slidecast"))?;
    if !status.success() {
        return Err(LabError::Tool { command: "image create".into(), code: status.code(), stderr: String::new() });
    }
    let read = counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.trim().parse::<u64>().ok());
    let data: u64 =
        slidecast_lab::compare::data_ranges(&disks.second)?.iter().map(|range| range.end - range.start).sum();
    let (base, increment) = (size(&base)?, size(&image)?);
    let from = |read: u64| {
        format!(
            "{:.0} MiB read, {:.0} MiB of data in the source; base {:.0} MiB, increment {:.0} MiB",
            mib(read),
            mib(data),
            mib(base),
            mib(increment)
        )
    };
    let name = "increment: bytes read / data in the source";
    match read {
        Some(read) => table.row(name, read as f64 / data as f64, Bar::AtMost(1.1), &from(read)),
        None => table.skip(name, "the kernel does not count reads here"),
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|meta| meta.len()).map_err(LabError::io("looking at", path))
}
