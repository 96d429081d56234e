//! A real system image on 100 Mbit/s links: faster than the wire, and flat in the number of nodes.

use slidecast_lab::Result;
use slidecast_lab::net::GOODPUT;

use crate::setup::{Bench, Image, Setup, fits};
use crate::table::{Bar, Table, mib};

const MBITS: u32 = 100;

/// Runs the figures.
///
/// # Errors
/// When a deployment fails.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    table.group(
        "A Debian system on links of 100 Mbit/s; T in units of (used bytes / what TCP can carry)",
        "slidecast deploy system.slide --wait-for N [--verify none] | slidecast-agent --target RAMFILE (no page of which is new) --once",
    );
    let image = setup.system_image()?;
    sizes(setup, table, &image, "with read-back", &[], &[1, 4, 8])?;
    sizes(setup, table, &image, "--verify none", &["--verify", "none"], &[1, 16])?;
    // Each node holds a block until its CRC is checked, so the last block is late by its own length with each.
    let image = setup.system_image_of_blocks("256KiB")?;
    sizes(setup, table, &image, "--verify none, blocks of 256 KiB", &["--verify", "none"], &[1, 16])
}

/// One image to each of these numbers of nodes; the first one is what the others are compared with.
fn sizes(setup: &Setup, table: &mut Table, image: &Image, what: &str, args: &[&str], counts: &[u64]) -> Result<()> {
    let ranges = setup.debian()?.layout.used_ranges(&image.source)?;
    let used = ranges.iter().map(|range| range.end - range.start).sum::<u64>();
    let wire = used as f64 / (f64::from(MBITS) * 1e6 / 8.0 * GOODPUT);
    let mut one = None;
    for &count in counts {
        let name = format!("N={count}, {what}");
        if !fits(used * count) {
            table.skip(&name, "too little memory for the disks");
            continue;
        }
        let bench = Bench::new(usize::try_from(count).unwrap_or(1), Some(MBITS), image.disk_bytes)?;
        bench.fill(&ranges)?;
        let report = bench.deploy(image, args, |_, _| ())?;
        let from = format!(
            "{:.2} s for {:.0} MiB used, {:.0} MiB stored; the wire alone {wire:.2} s",
            report.seconds,
            mib(used),
            mib(report.stored_bytes)
        );
        table.row(&format!("{name}: T / wire"), report.seconds / wire, Bar::AtMost(0.40), &from);
        let first = *one.get_or_insert(report.seconds);
        if count > 1 {
            let from = format!("{:.2} s / {first:.2} s", report.seconds);
            table.row(&format!("{name}: T(N) / T(1)"), report.seconds / first, Bar::AtMost(1.05), &from);
        }
        let images = report.egress_bytes as f64 / report.stored_bytes as f64 / report.chains.len() as f64;
        let from = format!("{:.0} MiB sent, {} chain(s)", mib(report.egress_bytes), report.chains.len());
        table.row(&format!("{name}: egress / (stored x chains)"), images, Bar::AtMost(1.05), &from);
    }
    Ok(())
}
