//! The disk of a workstation: what of it is imaged, and at what cost, beside `partclone` and `zstd` for the same partitions.

mod disk;
mod fill;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use slidecast_lab::{LabError, Result, programs, tool};

use crate::setup::{Setup, info};
use crate::table::{Bar, Table, median, mib};
use crate::usage::{Usage, measured, measured_line};
use disk::{Disk, Loop, Partition};

/// What the disk is like.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Of workstation: the size of the disk in GiB, at least 4
    #[arg(long, default_value_t = 20)]
    gib: u64,
    /// Of workstation: the folder whose files fill the disk, each of them once; text and noise once there are no more
    #[arg(long, default_value = "/usr")]
    files: PathBuf,
    /// Of workstation: how often both sides run; the middle counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of workstation: a file for the disk, which is kept, and taken as it is if it is there with the same options
    #[arg(long, value_name = "FILE")]
    keep_disk: Option<PathBuf>,
}

/// Runs the figures.
///
/// # Errors
/// When a program fails.
pub fn run(setup: &Setup, options: &Options, table: &mut Table) -> Result<()> {
    table.group(
        &format!("The disk of a workstation, {} GiB, filled and emptied in turns", options.gib),
        "slidecast image create disk.img -o disk.slide  beside  partclone.KIND -c -s PARTITION -o - | zstd -3 -T2, for each partition",
    );
    if let Some(missing) = disk::missing_tool() {
        table.skip("all", &format!("{missing} is not installed"));
        return Ok(());
    }
    let path = options.keep_disk.clone().unwrap_or_else(|| setup.path("workstation.img"));
    let disk = Disk::made(&path, options.gib, &options.files)?;
    let image = setup.path("workstation.slide");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut our_bytes, mut their_bytes) = (0, 0);
    for _ in 0..options.rounds.max(1) {
        let mut command = Command::new(programs::server()?);
        command.args(["image", "create"]).arg(&path).arg("-o").arg(&image);
        ours.push(measured(command, &setup.path("said"))?);
        our_bytes = size(&image)?;
        let (usage, bytes) = saved(setup, &disk)?;
        theirs.push(usage);
        their_bytes = bytes;
    }
    accounts(&disk, &image, table)?;
    let middle = |all: &[Usage], of: fn(&Usage) -> f64| median(all.iter().map(of).collect());
    let mut ratio = |what: &str, bar, of: fn(&Usage) -> f64| {
        let (us, them) = (middle(&ours, of), middle(&theirs, of));
        table.row(what, us / them, bar, &format!("{us:.2} s against {them:.2} s"));
    };
    ratio("processor time of create / partclone and zstd", Bar::AtMost(0.7), |usage| usage.processor);
    ratio("time of create / partclone and zstd", Bar::Report, |usage| usage.seconds);
    let from = format!("{:.0} MiB against {:.0} MiB", mib(our_bytes), mib(their_bytes));
    table.row("size of the image / partclone and zstd", our_bytes as f64 / their_bytes as f64, Bar::AtMost(1.0), &from);
    let peak = ours.iter().map(|usage| usage.peak).max().unwrap_or(0);
    table.row("memory of create in MiB", mib(peak), Bar::Report, "the most of all rounds");
    fs::remove_file(&image).map_err(LabError::io("removing", &image))?;
    tool::run("sync", [] as [&str; 0]).map(drop)
}

/// Saves every partition that partclone knows, one after the other, and gives the bytes of the files.
fn saved(setup: &Setup, disk: &Disk) -> Result<(Usage, u64)> {
    let (mut usage, mut bytes) = (Usage::default(), 0);
    for partition in &disk.partitions {
        let Some(program) = partition.kind.partclone() else { continue };
        let device = Loop::new(&disk.path, partition.start, partition.bytes)?;
        let (packed, log) = (setup.path("partition.zst"), setup.path("partclone.log"));
        let line = format!(
            "{program} -c -s {} -o - -L {} | zstd -q -f -3 -T2 -o {}",
            device.path(),
            log.display(),
            packed.display()
        );
        usage += measured_line(&line, &setup.path("said"))?;
        bytes += size(&packed)?;
        fs::remove_file(&packed).map_err(LabError::io("removing", &packed))?;
    }
    Ok((usage, bytes))
}

/// What is imaged of each partition, beside what the file system itself says is used of it.
fn accounts(disk: &Disk, image: &Path, table: &mut Table) -> Result<()> {
    let facts = info(image)?;
    let found = find(&facts, "partitions").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let number = |value: &serde_json::Value, key: &str| value.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let (mut all_ours, mut all_theirs) = (0, 0);
    for Partition { kind, outer_start, used, .. } in &disk.partitions {
        let Some(used) = *used else { continue };
        let ours = found.iter().find(|row| number(row, "start") == *outer_start);
        let ours = ours.map_or(0, |row| number(row, "used_bytes"));
        (all_ours, all_theirs) = (all_ours + ours, all_theirs + used);
        let from = format!("{:.1} MiB against {:.1} MiB", mib(ours), mib(used));
        table.row(&format!("{}: bytes imaged / used", kind.name()), ours as f64 / used as f64, Bar::Report, &from);
    }
    let from = format!("{:.0} MiB against {:.0} MiB", mib(all_ours), mib(all_theirs));
    table.row(
        "bytes imaged / used by the file systems' word",
        all_ours as f64 / all_theirs as f64,
        Bar::AtMost(1.02),
        &from,
    );
    Ok(())
}

/// The first value called `key` anywhere in some JSON.
fn find<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        serde_json::Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

fn size(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|meta| meta.len()).map_err(LabError::io("looking at", path))
}
