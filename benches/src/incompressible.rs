//! Random bytes on 1 Gbit/s links: how much of the link is used when nothing can be saved.

use slidecast_lab::Result;
use slidecast_lab::net::GOODPUT;

use crate::setup::{Bench, Setup, fits};
use crate::table::{Bar, Table, mib};

const MBITS: u32 = 1000;

/// Runs the figures.
///
/// # Errors
/// When a deployment fails.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let image = setup.random_image()?;
    table.group(
        "Random bytes on links of 1 Gbit/s; goodput is what TCP can carry, 94.1 % of the link",
        "slidecast deploy random.slide --wait-for N [--verify none] | slidecast-agent --target RAMFILE --once",
    );
    let cases: [(u64, &[&str], _); 4] =
        [(1, &[], Some(0.97)), (4, &[], Some(0.97)), (8, &["--verify", "none"], None), (8, &[], None)];
    for (count, args, of_goodput) in cases {
        let name = format!("N={count}{}", if args.is_empty() { ", with read-back" } else { ", --verify none" });
        if !fits(image.disk_bytes * count) {
            table.skip(&name, "too little memory for the disks");
            continue;
        }
        let bench = Bench::filled(usize::try_from(count).unwrap_or(1), Some(MBITS), image.disk_bytes)?;
        let report = bench.deploy(&image, args, |_, _| ())?;
        let rate = report.raw_bytes as f64 * 8.0 / 1e6 / report.seconds;
        let cpu = bench.cpu().map_or(String::new(), |cpu| format!("; {:.1} cores busy", cpu / report.seconds));
        let from = format!("{:.2} s for {:.0} MiB: {rate:.0} Mbit/s{cpu}", report.seconds, mib(report.raw_bytes));
        if let Some(bar) = of_goodput {
            let share = rate / (f64::from(MBITS) * GOODPUT);
            table.row(&format!("{name}: rate / goodput"), share, Bar::AtLeast(bar), &from);
        } else {
            let bar = if args.is_empty() { Bar::Report } else { Bar::AtLeast(0.90) };
            table.row(&format!("{name}: rate / raw link"), rate / f64::from(MBITS), bar, &from);
        }
    }
    Ok(())
}
