//! The demo: the main job on this machine, from a disk to a proof, with what happens shown.
//!
//! A server with two cards, nodes behind them in turn, links of 1 Gbit/s, loop devices as disks. The agents find the
//! server by broadcast and know it by its key. Afterwards every disk is compared with the source itself, by what
//! `dumpe2fs` says is in use, and with what `image export` gives.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::compare::{Compared, compare, compare_ranges, length};
use crate::disk::debian::{self, Flavour};
use crate::disk::synthetic::Disks;
use crate::error::{LabError, Result};
use crate::lab::{Lab, Node, NodeOptions};
use crate::process::{Exit, Process};
use crate::programs;
use crate::report::{self, Report};
use crate::target::{TargetKind, loops_work};
use crate::tool;

/// Rate of all links in Mbit/s.
const MBITS: u32 = 1000;
/// A deployment that takes longer has gone wrong.
const LIMIT: Duration = Duration::from_secs(1800);

/// What is to be shown.
#[derive(Debug)]
pub struct Demo {
    /// A disk, a disk image or a `.slide` file; none is the sample disk, with an increment on top.
    pub source: Option<PathBuf>,
    /// Number of nodes.
    pub nodes: usize,
}

/// One state of a disk on its way to the nodes.
struct Stage {
    /// `base` or `increment`, the name of the files.
    name: &'static str,
    title: &'static str,
    /// What the image was made of, if that can be compared with.
    source: Option<PathBuf>,
    image: PathBuf,
    report: Option<Report>,
}

impl Demo {
    /// Shows it; `say` gets every line.
    ///
    /// # Errors
    /// When anything is not as it should be: this is a test as well.
    pub fn run(&self, say: &dyn Fn(&str)) -> Result<()> {
        let started = Instant::now();
        // Before anything that takes long.
        programs::server()?;
        programs::agent()?;
        let disks = match self.source {
            Some(_) => None,
            None => Some(debian::make(Flavour::Minimal, &mut |step| say(&format!("sample disk: {step}")))?),
        };
        let lab = Lab::with_card_rate(2, MBITS)?;
        let mut stages = self.stages(&lab, disks.as_ref());
        for i in 0..stages.len() {
            let parent = i.checked_sub(1).map(|before| stages[before].image.clone());
            self.create(&stages[i], parent.as_deref(), say)?;
        }
        let expected: Vec<PathBuf> = stages.iter().map(|stage| export(&lab, stage)).collect::<Result<_>>()?;
        let kind = if loops_work() { TargetKind::Loop { sector: 512 } } else { TargetKind::File };
        let options = NodeOptions::file(length(&expected[0])?).on(kind).mbits(MBITS);
        let nodes = lab.nodes(self.nodes, &options)?;
        say("");
        say(&format!(
            "{} nodes behind 2 cards of the server, links of 1 Gbit/s, found by broadcast, known by key:",
            self.nodes
        ));
        for node in &nodes {
            say(&format!("  {} {} {}", node.name, node.address, node.target.path.display()));
        }
        for (stage, expected) in stages.iter_mut().zip(&expected) {
            say(&format!("\n== {}", stage.title));
            stage.report = Some(deploy(&lab, &nodes, stage)?);
            for node in &nodes {
                say(&format!("proof: {}", prove(node, stage, expected, disks.as_ref())?));
            }
        }
        say("");
        self.close(&stages, started, say);
        Ok(())
    }

    fn stages(&self, lab: &Lab, disks: Option<&Disks>) -> Vec<Stage> {
        let stage = |name, title, source: &Path, image| Stage {
            name,
            title,
            source: Some(source.to_owned()),
            image,
            report: None,
        };
        match (disks, &self.source) {
            (Some(disks), _) => vec![
                stage("base", "the base image onto empty disks", &disks.first, lab.path("base.slide")),
                stage(
                    "increment",
                    "the increment onto disks that hold the base",
                    &disks.second,
                    lab.path("increment.slide"),
                ),
            ],
            (None, Some(image)) if image.extension().is_some_and(|extension| extension == "slide") => {
                vec![Stage {
                    name: "image",
                    title: "the image onto empty disks",
                    source: None,
                    image: image.clone(),
                    report: None,
                }]
            }
            (None, Some(source)) => vec![stage("base", "the image onto empty disks", source, lab.path("base.slide"))],
            (None, None) => Vec::new(),
        }
    }

    fn create(&self, stage: &Stage, parent: Option<&Path>, say: &dyn Fn(&str)) -> Result<()> {
        let Some(source) = &stage.source else { return Ok(()) };
        let started = Instant::now();
        let mut args = vec![Path::new("image"), Path::new("create"), source, Path::new("-o"), &stage.image];
        args.extend(parent.into_iter().flat_map(|parent| [Path::new("--parent"), parent]));
        tool::run(&programs::server()?.display().to_string(), args)?;
        let (disk, image) = (length(source)?, length(&stage.image)?);
        let seconds = started.elapsed().as_secs_f64();
        say(&format!("image create: {} of {} became {} in {seconds:.1} s", stage.name, size(disk), size(image)));
        Ok(())
    }

    fn close(&self, stages: &[Stage], started: Instant, say: &dyn Fn(&str)) {
        say(&format!(
            "{} disks equal their source, byte for byte where it counts; every node proved its own by reading it back.",
            self.nodes
        ));
        for (stage, report) in stages.iter().filter_map(|stage| Some((stage, stage.report.as_ref()?))) {
            let images =
                report.egress_bytes as f64 / report.stored_bytes.max(1) as f64 / report.chains.len().max(1) as f64;
            say(&format!(
                "{}: {} of disk went as {} in {:.1} s to {} nodes; the server sent {images:.2} images per chain ({} chains).",
                stage.name,
                size(report.raw_bytes),
                size(report.stored_bytes),
                report.seconds,
                self.nodes,
                report.chains.len(),
            ));
            let sum = |count: fn(&report::Node) -> u64| report.nodes.iter().map(count).sum::<u64>();
            let (kept, written) = (sum(|node| node.blocks_kept), sum(|node| node.blocks_written));
            if kept > 0 {
                say(&format!("{}: {kept} of {} blocks were on the disks already.", stage.name, kept + written));
            }
        }
        if stages.len() == 1 {
            say("Without arguments the demo makes a Debian disk and shows an increment on top of it, too.");
        }
        say(&format!(
            "All of it is removed again ({:.0} s); your own disk: ./demo.sh /dev/DISK (or an image file) --nodes 8",
            started.elapsed().as_secs_f64()
        ));
        say("Next: README.md, slidecast deploy --help, and docs/GUARANTEES.md for what is promised and tested.");
    }
}

/// `image export` of a stage: what its disks must equal.
fn export(lab: &Lab, stage: &Stage) -> Result<PathBuf> {
    let raw = lab.path(&format!("{}.raw", stage.name));
    let args = [Path::new("image"), Path::new("export"), &stage.image, &raw];
    tool::run(&programs::server()?.display().to_string(), args)?;
    Ok(raw)
}

fn deploy(lab: &Lab, nodes: &[Node], stage: &Stage) -> Result<Report> {
    let mut agents: Vec<Process> = nodes.iter().map(|node| lab.agent(node)).collect::<Result<_>>()?;
    let mut deploy = lab.deploy_shown(stage.name, &stage.image, nodes.len(), &["--timeout", "60s"])?;
    let (exit, report) = deploy.wait(LIMIT)?;
    let ended = |agent: &mut Process| agent.wait_exit(Duration::from_secs(30));
    for agent in &mut agents {
        let end = ended(agent)?;
        if end != Exit::Code(0) {
            let what = format!("{} ended with {end:?}, the deployment with {exit:?}", agent.name());
            return Err(LabError::Ended { what, tail: agent.tail() });
        }
    }
    if exit == Exit::Code(0) {
        return Ok(report);
    }
    Err(LabError::Ended { what: format!("the deployment ended with {exit:?}"), tail: deploy.process.tail() })
}

/// Compares a node's disk, in words; a difference is an error.
fn prove(node: &Node, stage: &Stage, expected: &Path, disks: Option<&Disks>) -> Result<String> {
    let equal = |with: &str, compared: Compared| match compared {
        Compared::Equal(bytes) => Ok(bytes),
        Compared::Differs { .. } => {
            Err(LabError::Differs { disk: node.target.path.clone(), with: with.to_owned(), how: compared.to_string() })
        }
    };
    let mut words = format!("{} {}", node.name, node.target.path.display());
    if stage.name == "increment" {
        // What neither image uses any more still holds the base's bytes.
        let ranges = crate::compare::data_ranges(expected)?;
        let bytes = equal("image export", compare_ranges(&node.target.path, expected, &ranges)?)?;
        words += &format!(": {} equal image export", size(bytes));
    } else {
        let bytes = equal("image export", compare(&node.target.path, expected)?)?;
        words += &format!(": all {} equal image export", size(bytes));
    }
    if let (Some(disks), Some(source)) = (disks, &stage.source) {
        let used = disks.layout.used_ranges(source)?;
        let bytes = equal("the source", compare_ranges(&node.target.path, source, &used)?)?;
        disks.layout.check(&node.target.path)?;
        words += &format!(", {} in use equal the source, e2fsck finds nothing", size(bytes));
    }
    Ok(words)
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}
