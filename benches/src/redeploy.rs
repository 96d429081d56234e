//! Redeploying: what travels to machines that hold an older image, and how fast a disk is compared.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use slidecast_lab::disk::random::Random;
use slidecast_lab::{LabError, Result, TargetKind, compare, tool};

use crate::setup::{Bench, Image, Setup, create};
use crate::table::{Bar, Table, mib};

/// How many machines.
const NODES: usize = 8;
/// One piece that is changed, in bytes.
const PIECE: u64 = 64 << 10;

/// Runs the figures.
///
/// # Errors
/// When a deployment fails.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let base = setup.random_image()?;
    let increment = changed(setup, &base)?;
    let title = format!(
        "Redeploying {:.0} MiB of random bytes, of which 2 % are changed in pieces of 64 KiB",
        mib(base.disk_bytes)
    );
    table
        .group(&title, "slidecast image create NEW --parent BASE | slidecast deploy INCREMENT to disks that hold BASE");

    let bench = Bench::with_disks(1, None, base.disk_bytes, TargetKind::Ram)?;
    hold(&bench, &base)?;
    let report = bench.deploy(&base, &[], |_, _| {})?;
    let written: u64 = report.nodes.iter().map(|node| node.blocks_written).sum();
    let rate = mib(report.raw_bytes) / report.seconds;
    let from = format!("{:.2} s to done, {written} blocks written", report.seconds);
    table.row("the same image, N=1, in memory: MiB/s compared", rate, Bar::Report, &from);
    drop(bench);

    let bench = Bench::with_disks(NODES, None, base.disk_bytes, TargetKind::File)?;
    hold(&bench, &base)?;
    let report = bench.deploy(&increment, &[], |_, _| {})?;
    let share = 100.0 * report.egress_bytes as f64 / report.stored_bytes as f64;
    let from =
        format!("{:.1} of {:.1} MiB sent, {:.1} s", mib(report.egress_bytes), mib(report.stored_bytes), report.seconds);
    table.row(&format!("increment, N={NODES}: per cent of the image sent"), share, Bar::AtMost(5.0), &from);
    let blocks = |count: fn(&slidecast_lab::report::Node) -> u64| report.nodes.iter().map(count).sum::<u64>() as f64;
    let (written, kept) = (blocks(|node| node.blocks_written), blocks(|node| node.blocks_kept));
    let from = format!("{kept} blocks kept by all nodes, {written} written");
    table.row(
        &format!("increment, N={NODES}: per cent of blocks written"),
        100.0 * written / (written + kept),
        Bar::Report,
        &from,
    );
    Ok(())
}

/// Puts the image on every disk, as an earlier deployment would have.
fn hold(bench: &Bench, image: &Image) -> Result<()> {
    for node in &bench.nodes {
        tool::run("cp", [Path::new("--reflink=auto"), &image.source, &node.target.file])?;
    }
    Ok(())
}

/// The image of the same disk with 2 % of it changed.
fn changed(setup: &Setup, base: &Image) -> Result<Image> {
    let (source, file) = (setup.path("changed.img"), setup.path("changed.slide"));
    tool::run("cp", [Path::new("--reflink=auto"), &base.source, &source])?;
    let disk = File::options().write(true).open(&source).map_err(LabError::io("opening", &source))?;
    let mut random = Random::new(12);
    let pieces = base.disk_bytes / PIECE;
    for _ in 0..pieces / 50 {
        let at = random.below(pieces) * PIECE;
        let piece = random.bytes(usize::try_from(PIECE).unwrap_or(0));
        disk.write_all_at(&piece, at).map_err(LabError::io("writing", &source))?;
    }
    create(&source, &file, &["--parent", &base.file.display().to_string()])?;
    Ok(Image { file, disk_bytes: compare::length(&source)?, source })
}
