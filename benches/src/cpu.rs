//! Processor time of a chain that nothing holds back, beside a chain of `mbuffer` in the same run.

use std::time::Duration;

use slidecast_lab::{Exit, LabError, Process, Result, compare};

use crate::setup::{Bench, Image, Setup};
use crate::table::{Bar, Table, median};

const NODES: usize = 4;
const ROUNDS: usize = 3;

/// Runs the figures.
///
/// # Errors
/// When a deployment or the peer fails.
pub fn run(setup: &Setup, table: &mut Table) -> Result<()> {
    let image = setup.random_image()?;
    table.group(
        "Processor time, 4 nodes, unshaped, random bytes: seconds per node and GiB, all of the server's in it",
        "slidecast deploy random.slide --wait-for 4 --verify none  beside  mbuffer -s 256k -m 64M -I 7000 -O NEXT:7000 -o - 1<>RAMFILE (no page of which is new)",
    );
    if Bench::new(1, None, 1 << 20)?.cpu().is_none() {
        table.skip("slidecast / mbuffer", "no control groups here");
        return Ok(());
    }
    let (mut ours, mut with_read_back, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that a busy machine is busy for all of them.
    for _ in 0..ROUNDS {
        ours.push(slidecast(&image, &["--verify", "none"])?);
        theirs.push(mbuffer(&image)?);
        with_read_back.push(slidecast(&image, &[])?);
    }
    let spread = |values: &[f64]| {
        let texts: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
        texts.join(" ")
    };
    let peer = median(theirs.clone());
    let mut row = |name: &str, values: &[f64], bar| {
        let from = format!("{} against {} s/node/GiB", spread(values), spread(&theirs));
        table.row(name, median(values.to_vec()) / peer, bar, &from);
    };
    row("--verify none, CRC and BLAKE3 on: slidecast / mbuffer", &ours, Bar::AtMost(0.75));
    row("with read-back: slidecast / mbuffer", &with_read_back, Bar::Report);
    Ok(())
}

/// Seconds per node and GiB.
fn share(bench: &Bench, before: f64, image: &Image) -> f64 {
    let spent = bench.cpu().unwrap_or(f64::NAN) - before;
    spent / bench.nodes.len() as f64 / (image.disk_bytes as f64 / f64::from(1 << 30))
}

fn slidecast(image: &Image, args: &[&str]) -> Result<f64> {
    let bench = Bench::filled(NODES, None, image.disk_bytes)?;
    bench.lab.key()?;
    let before = bench.cpu().unwrap_or(0.0);
    bench.deploy(image, args, |_, _| ())?;
    Ok(share(&bench, before, image))
}

fn mbuffer(image: &Image) -> Result<f64> {
    let bench = Bench::filled(NODES, None, image.disk_bytes)?;
    let before = bench.cpu().unwrap_or(0.0);
    let usual = ["-q", "-s", "256k", "-m", "64M"];
    let mut chain: Vec<Process> = Vec::new();
    for (i, node) in bench.nodes.iter().enumerate().rev() {
        // It refuses to overwrite a file, and would cut it off: the shell opens it for its standard output.
        let disk = node.target.path.display().to_string();
        let mut args = vec!["-c".to_owned(), r#"exec mbuffer "$@" 1<>"$0""#.to_owned(), disk];
        args.extend(usual.map(str::to_owned));
        args.extend(["-I".to_owned(), "7000".to_owned()]);
        if let Some(next) = bench.nodes.get(i + 1) {
            args.extend(["-O".to_owned(), format!("{}:7000", next.address)]);
        }
        args.extend(["-o", "-"].map(str::to_owned));
        let mut process = bench.lab.on_node(node, &format!("mbuffer-{}", node.name), "sh", args)?;
        process.wait_for_tcp(7000, Duration::from_secs(10))?;
        chain.push(process);
    }
    let (source, head) = (image.source.display().to_string(), format!("{}:7000", bench.nodes[0].address));
    let args = usual.into_iter().chain(["-i", &source, "-O", &head]);
    chain.push(bench.lab.on_server("mbuffer", "mbuffer", args)?);
    for process in chain.iter_mut().rev() {
        if process.wait_exit(Duration::from_secs(300))? != Exit::Code(0) {
            return Err(LabError::Ended { what: "the mbuffer chain".to_owned(), tail: process.tail() });
        }
    }
    if let Some(node) = bench.nodes.last() {
        let compared = slidecast_lab::compare_data(&node.target.path, &image.source)?;
        if !matches!(compared, compare::Compared::Equal(_)) {
            let how = compared.to_string();
            return Err(LabError::Differs {
                disk: node.target.path.clone(),
                with: image.source.display().to_string(),
                how,
            });
        }
    }
    Ok(share(&bench, before, image))
}
