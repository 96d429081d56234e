//! From power-on to a server, and to a disk that is done: what firmware, boot loader, kernel and agent take of it.
//!
//! The machines are emulated (QEMU without hardware acceleration): the figures tell ways to boot apart, and nothing of real machines.

use std::path::Path;
use std::time::{Duration, Instant};

use slidecast_lab::machine::{Boot, BootFiles, Disk, Options};
use slidecast_lab::{Exit, Lab, LabError, Result};

use crate::boot_size::SmallImage;
use crate::setup::Setup;
use crate::table::{Bar, Table};

/// Whatever else this machine does makes it later, never earlier: the quicker one counts.
const ROUNDS: usize = 2;
/// A machine that takes longer has gone wrong.
const LIMIT: Duration = Duration::from_secs(180);

/// A way to boot: its name, what is booted, and whether the firmware is UEFI.
struct Way {
    name: &'static str,
    boot: Boot,
    uefi: bool,
    http: bool,
}

/// Runs the figures.
///
/// # Errors
/// When a machine does not get there.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let image = SmallImage::make(setup)?;
    let files = image.boot_files(setup, "common")?;
    let way = |name, boot: Boot, uefi| Way { name, boot, uefi, http: false };
    let ways = [
        way("direct (unpacked kernel, no firmware)", files.kernel("")?, false),
        way("PXE, BIOS", Boot::Network, false),
        way("PXE, UEFI", Boot::Network, true),
        Way { http: true, ..way("UEFI HTTP Boot", Boot::Network, true) },
        way("USB stick, BIOS", files.stick(), false),
        way("USB stick, UEFI", files.stick(), true),
    ];
    let from = format!("the quicker of {ROUNDS} runs; one machine, 768 MiB, drivers `common`");
    let mut figures = Vec::new();
    for way in &ways {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| seconds(way, &image, &files)).collect::<Result<_>>()?;
        figures.push((way.name, rounds));
    }
    type Pick = fn(&(f64, f64)) -> f64;
    let kinds: [(&str, Pick); 2] = [("waiting for server", |round| round.0), ("done", |round| round.1)];
    for (what, pick) in kinds {
        table.group(
            &format!("Power-on to \"{what}\" in seconds, QEMU (TCG)"),
            &format!(
                "slidecast boot-server --dhcp RANGE, slidecast deploy IMAGE --wait-for 1   ({})",
                image.describe()
            ),
        );
        for (name, rounds) in &figures {
            table.row(name, rounds.iter().map(pick).fold(f64::INFINITY, f64::min), Bar::Report, &from);
        }
    }
    Ok(())
}

/// Seconds until the machine looks for its server, and until its disk is done.
fn seconds(way: &Way, image: &SmallImage, files: &BootFiles) -> Result<(f64, f64)> {
    let lab = Lab::new(1)?;
    let from_network = way.boot == Boot::Network;
    let _server = if from_network { lab.boot_server(&files.dir, false)? } else { lab.dhcp(&[])? };
    let mut deploy = image.deploy(&lab)?;
    let disk = Disk::empty(&lab.path("d.disk"), image.disk_bytes)?;
    let mut options = Options::new(way.boot.clone(), vec![disk]).memory(768);
    if way.uefi {
        options = options.uefi();
    }
    if way.http {
        options.more = Options::without_pxe();
    }
    let power_on = Instant::now();
    let mut machine = lab.machine(options)?;
    machine.wait_for("slidecast: waiting for server", LIMIT)?;
    let waiting = power_on.elapsed().as_secs_f64();
    machine.wait_for("slidecast: done", LIMIT)?;
    let done = power_on.elapsed().as_secs_f64();
    match deploy.wait(LIMIT)? {
        (Exit::Code(0), _) => Ok((waiting, done)),
        (exit, report) => Err(LabError::Ended { what: format!("{}: {exit:?}", way.name), tail: format!("{report:?}") }),
    }
}

/// The path of a file as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
