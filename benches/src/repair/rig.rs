//! A lab in which one deployment after the other runs, some with a fault.

use std::path::Path;
use std::time::{Duration, Instant};

use slidecast_lab::report::Repair;
use slidecast_lab::{Compared, Exit, Lab, LabError, Node, NodeOptions, Process, Result, TargetKind, compare};

use super::fault::Fault;
use super::{Wire, wrong};
use crate::setup::Image;

/// No deployment takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a node is looked at whose byte is awaited: at 1 Gbit/s this is a 16th of a block.
const LOOK: Duration = Duration::from_micros(500);

/// A server, its nodes, and two images that are written in turn, so that a disk never holds what is to come.
pub(super) struct Rig<'a> {
    wire: &'a Wire,
    images: &'a [Image; 2],
    lab: Lab,
    nodes: Vec<Node>,
    runs: usize,
}

/// What a deployment gave.
#[derive(Debug)]
pub(super) struct Trial {
    /// When each node ended; nothing for a victim.
    pub(super) seconds: Vec<Option<f64>>,
    /// Bytes that the server sent.
    pub(super) egress: u64,
    /// The most blocks that a node wrote.
    pub(super) blocks: u64,
    /// The changes of the chain, in words.
    pub(super) repairs: Vec<String>,
}

impl Trial {
    /// When the last of those that matter ended.
    pub(super) fn last(&self) -> f64 {
        self.seconds.iter().flatten().copied().fold(0.0, f64::max)
    }

    /// By how much any of them ended later than usual.
    pub(super) fn later_than(&self, usual: &[f64]) -> f64 {
        let late = self.seconds.iter().zip(usual).filter_map(|(seconds, usual)| Some((*seconds)? - usual));
        late.fold(f64::NEG_INFINITY, f64::max)
    }
}

impl<'a> Rig<'a> {
    pub(super) fn new(wire: &'a Wire, images: &'a [Image; 2]) -> Result<Self> {
        let lab = Lab::with_card_rate(1, wire.mbits)?;
        let options = NodeOptions { mbits: Some(wire.mbits), kind: TargetKind::FilledRam, bytes: images[0].disk_bytes };
        let nodes = lab.nodes(wire.nodes, &options)?;
        Ok(Self { wire, images, lab, nodes, runs: 0 })
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// What each node receives in a deployment, at the least.
    pub(super) fn bytes(&self) -> u64 {
        self.images[0].disk_bytes
    }

    /// One deployment. Every survivor's disk is compared with the image.
    pub(super) fn deploy(&mut self, fault: Option<&Fault>) -> Result<Trial> {
        let image = &self.images[self.runs % 2];
        self.runs += 1;
        let hit = |at: usize| fault.is_some_and(|fault| fault.hits(at));
        let mut agents: Vec<Process> = self.nodes.iter().map(|node| self.lab.agent(node)).collect::<Result<_>>()?;
        let args = [&["--progress", "none", "--fresh"], self.wire.args].concat();
        let mut deploy = self.lab.deploy(&image.file, self.nodes.len(), &args)?;
        let strike = fault.map_or(Ok(()), |fault| self.strike(fault, &mut agents));
        let ended = strike.and_then(|()| deploy.wait(LIMIT));
        for (node, _) in fault.iter().flat_map(|fault| &fault.victims).filter(|(_, silent)| *silent) {
            self.lab.replug(&self.nodes[*node])?;
        }
        let (exit, report) = ended?;
        for (at, agent) in agents.iter_mut().enumerate() {
            if !hit(at) {
                agent.wait_exit(LIMIT)?;
            }
        }
        let (mut seconds, mut blocks) = (Vec::new(), 0);
        for (at, node) in self.nodes.iter().enumerate() {
            let of = report.node(&node.address).ok_or_else(|| wrong(format!("{} is not in the report", node.name)))?;
            // Who died when it had all is done, and delays nobody.
            if hit(at) {
                seconds.push(None);
                continue;
            }
            if !matches!(of.state.as_str(), "done" | "written") {
                return Err(wrong(format!("{} {}: {} {}", node.name, of.state, of.reason, of.detail)));
            }
            let compared = compare(&node.target.path, &image.source)?;
            if !matches!(compared, Compared::Equal(_)) {
                let (disk, with) = (node.target.path.clone(), image.source.display().to_string());
                return Err(LabError::Differs { disk, with, how: compared.to_string() });
            }
            seconds.push(Some(of.seconds));
            blocks = blocks.max(of.blocks_written + of.blocks_kept);
        }
        if fault.is_none() && exit != Exit::Code(0) {
            return Err(wrong(format!("a deployment without a fault: {exit:?}")));
        }
        let repairs = report.repair_log.iter().map(in_words).collect();
        Ok(Trial { seconds, egress: report.egress_bytes, blocks, repairs })
    }

    /// Waits for the byte, then kills.
    fn strike(&self, fault: &Fault, agents: &mut [Process]) -> Result<()> {
        let Some((first, _)) = fault.victims.first() else { return Ok(()) };
        let first = &mut agents[*first];
        // Before it has its place there is no chain that could lose it.
        first.wait_for("position ", LIMIT)?;
        let received = |agent: &Process| agent.traffic("eth0").map_or(0, |(received, _)| received);
        let (before, began) = (received(first), Instant::now());
        while received(first) < before + fault.byte && first.poll_exit().is_none() {
            if began.elapsed() > LIMIT {
                return Err(wrong(format!("{} never received its byte", first.name())));
            }
            std::thread::sleep(LOOK);
        }
        for (victim, silent) in &fault.victims {
            if *silent {
                self.lab.unplug(&self.nodes[*victim])?;
            }
            agents[*victim].kill();
        }
        Ok(())
    }

    /// Keeps what the programs of the last deployment said.
    pub(super) fn keep(&self, dir: Option<&Path>, name: &str) -> Result<()> {
        let Some(dir) = dir else { return Ok(()) };
        let into = dir.join(name);
        std::fs::create_dir_all(&into).map_err(LabError::io("creating", &into))?;
        let names = self.nodes.iter().map(|node| node.name.as_str()).chain(["deploy"]);
        for file in names.flat_map(|name| [format!("{name}.err"), format!("{name}.out"), format!("{name}.json")]) {
            // Nodes write no report.
            let _ = std::fs::copy(self.lab.path(&file), into.join(&file));
        }
        Ok(())
    }
}

fn in_words(repair: &Repair) -> String {
    let Repair { at, node, kind, detail, seconds } = repair;
    let took = seconds.map_or("never mended".to_owned(), |seconds| format!("mended in {seconds:.3} s"));
    format!("at {at:.3} s node {node} {kind}, {took}: {detail}")
}
