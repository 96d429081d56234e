//! Creating images, beside plain `zstd` on the same data.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use slidecast_lab::disk::random::Random;
use slidecast_lab::{LabError, Result, compare, programs, tool};

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

/// Bytes that creating an increment reads, by file, as the kernel answered them: of the source, and of the layers below.
fn increment(setup: &Setup, table: &mut Table) -> Result<()> {
    let disks = setup.debian()?;
    let base = setup.system_image()?.file;
    let (image, calls) = (setup.path("increment.slide"), setup.path("calls"));
    fs::create_dir(&calls).map_err(LabError::io("creating", &calls))?;
    // A file of its own for each thread, so that no call is cut in two.
    let mut words: Vec<&OsStr> =
        ["-ff", "-qq", "-y", "-s", "0", "-e", "trace=read,pread64", "-o"].map(OsStr::new).into();
    let (prefix, program) = (calls.join("thread"), programs::server()?);
    words.extend([prefix.as_os_str(), program.as_os_str(), OsStr::new("image"), OsStr::new("create")]);
    words.extend([disks.second.as_os_str(), OsStr::new("-o"), image.as_os_str()]);
    words.extend([OsStr::new("--parent"), base.as_os_str()]);
    tool::run("strace", words)?;
    let of_source = bytes_read(&calls, &disks.second)?;
    let of_base = bytes_read(&calls, &base)?;
    let data: u64 = compare::data_ranges(&disks.second)?.iter().map(|range| range.end - range.start).sum();
    let from = format!("{:.0} MiB read, {:.0} MiB of data in it", mib(of_source), mib(data));
    let name = "increment: bytes read of the source / data in it";
    table.row(name, of_source as f64 / data as f64, Bar::AtMost(1.05), &from);
    let (size, increment) = (size(&base)?, size(&image)?);
    let from =
        format!("{:.0} MiB read of {:.0} MiB; the increment has {:.0} MiB", mib(of_base), mib(size), mib(increment));
    table.row("increment: bytes read of the base / its file", of_base as f64 / size as f64, Bar::Report, &from);
    Ok(())
}

/// The sum of what `read` and `pread64` gave from `file`, in the files that strace wrote to `calls`.
fn bytes_read(calls: &Path, file: &Path) -> Result<u64> {
    let file = file.canonicalize().map_err(LabError::io("looking at", file))?;
    let descriptor = format!("<{}>", file.display());
    let mut sum = 0;
    for entry in fs::read_dir(calls).map_err(LabError::io("reading", calls))?.flatten() {
        let text = fs::read_to_string(entry.path()).map_err(LabError::io("reading", entry.path()))?;
        let ours = text.lines().filter(|line| line.contains(&descriptor));
        // `pread64(7</tmp/second.img>, ""..., 1048576, 0) = 1048576`
        sum += ours.filter_map(|line| line.rsplit_once(" = ")?.1.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(sum)
}

fn size(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|meta| meta.len()).map_err(LabError::io("looking at", path))
}
