//! Importing: an image of a container or a saved folder in one step, beside the program of that format that makes it a raw disk, of which the
//! image is made then. And the memory of each reader.

mod clonezilla;
mod memory;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use slidecast_lab::{LabError, Result, programs, tool};

use crate::setup::Setup;
use crate::table::{Bar, Table, median};
use crate::usage::{Usage, measured};
use clonezilla::Saved;
pub use memory::run as run_memory;

/// What is imported.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Of import: a raw disk with a GPT, instead of that of a Debian system
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// Of import: how often each way is gone; the middle counts
    #[arg(long, default_value_t = 5)]
    times: usize,
}

/// What the programs call a format, and the options that `qemu-img convert` makes a file of it with.
const CONTAINERS: &[(&str, &str, &[&str])] = &[
    ("qcow2 (zlib)", "qcow2", &["-c"]),
    ("VHDX", "vhdx", &["-o", "subformat=dynamic"]),
    ("VMDK streamOptimized", "vmdk", &["-o", "subformat=streamOptimized"]),
];

/// Runs the figures.
///
/// # Errors
/// When a program fails.
pub fn run(setup: &Setup, options: &Options, table: &mut Table) -> Result<()> {
    table.group(
        "Importing in one step, beside a raw disk in between; T in units of the two steps",
        "slidecast image create FILE  beside  qemu-img convert -O raw (or partclone.restore), then slidecast image create RAW",
    );
    let source = match &options.disk {
        Some(disk) => disk.clone(),
        None => setup.debian()?.first,
    };
    for (name, format, words) in CONTAINERS {
        if !tool::have("qemu-img") {
            table.skip(name, "qemu-img is not installed");
            continue;
        }
        let file = setup.path(&format!("import.{format}"));
        let fixed = ["convert", "-f", "raw", "-O", format].map(Path::new).into_iter();
        tool::run("qemu-img", fixed.chain(words.iter().map(Path::new)).chain([source.as_path(), &file]))?;
        let raw = setup.path("import.raw");
        let convert = || {
            let mut command = Command::new("qemu-img");
            command.args(["convert", "-f", format, "-O", "raw"]).arg(&file).arg(&raw);
            measured(command, &setup.path("said"))
        };
        compare(setup, options, table, name, &file, &raw, convert)?;
        fs::remove_file(&file).map_err(LabError::io("removing", &file))?;
    }
    for packer in ["zstd", "gzip"] {
        let name = format!("Clonezilla folder ({packer})");
        if let Some(missing) = clonezilla::missing_tool() {
            table.skip(&name, &format!("{missing} is not installed"));
            continue;
        }
        let saved = Saved::of(&source, &setup.path(&format!("saved-{packer}")), packer)?;
        let raw = setup.path("import.raw");
        compare(setup, options, table, &name, &saved.folder, &raw, || saved.restore(&raw, &setup.path("said")))?;
    }
    Ok(())
}

/// Both ways in turns, so that a machine that becomes slower is so for both.
fn compare(
    setup: &Setup,
    options: &Options,
    table: &mut Table,
    name: &str,
    file: &Path,
    raw: &Path,
    mut unpack: impl FnMut() -> Result<Usage>,
) -> Result<()> {
    let image = setup.path("import.slide");
    let said = setup.path("said");
    let (mut ours, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.times.max(1) {
        ours.push(create(file, &image, &said)?);
        let _ = fs::remove_file(raw);
        first.push(unpack()?);
        second.push(create(raw, &image, &said)?);
    }
    fs::remove_file(raw).map_err(LabError::io("removing", raw))?;
    let middle = |all: &[Usage], of: fn(&Usage) -> f64| median(all.iter().map(of).collect());
    for (what, bar, of) in [
        ("time", Bar::AtMost(1.1), (|usage| usage.seconds) as fn(&Usage) -> f64),
        ("processor time", Bar::Report, |usage| usage.processor),
    ] {
        let (us, unpacking, creating) = (middle(&ours, of), middle(&first, of), middle(&second, of));
        let from = format!("{us:.2} s against {unpacking:.2} s and {creating:.2} s");
        table.row(&format!("{name}: {what}"), us / (unpacking + creating), bar, &from);
    }
    Ok(())
}

/// `slidecast image create`, and what it took.
fn create(source: &Path, image: &Path, said: &Path) -> Result<Usage> {
    let _ = fs::remove_file(image);
    let mut command = Command::new(programs::server()?);
    command.args(["image", "create"]).arg(source).arg("-o").arg(image);
    measured(command, said)
}
