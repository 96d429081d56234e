//! How long agents take to get their place with the server while a stranger floods it, and whether a node is lost by that.
//!
//! One deployment for each kind of flood. Where the flood goes to the server or to agents that seek, the deployment waits for all
//! agents. Where it goes to a node's chain link, three nodes behind a slow card are in the middle of a deployment that takes longer
//! than the flood, and agents come to the server's other card.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::chaos::floods::{listens, planned};
use crate::chaos::stranger::{Deed, SPOOFED, STRUCK};
use crate::disk::random;
use crate::error::{LabError, Result};
use crate::lab::{Lab, Node, NodeOptions, PORT};
use crate::process::{Exit, Process};
use crate::run::Run;
use crate::{programs, tool};

/// For what happens at once.
const SOON: Duration = Duration::from_secs(20);
/// Longer than any deployment takes.
const LONG: Duration = Duration::from_secs(600);
/// Bytes of the image where agents only have to come.
const SMALL: u64 = 4 << 20;
/// Bytes of the image that is on its way meanwhile, and the rate of the card of the chain: more than a minute.
const LARGE: (u64, u32) = (24 << 20, 3);
/// How many nodes are in the chain that is struck.
const CHAIN: usize = 3;
/// The pause between two agents that are started in the same part of the flood.
const BETWEEN: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kinds of flood; none: all.
    pub deeds: Vec<Deed>,
    /// Datagrams or connections a second that are asked for.
    pub rate: u32,
    /// How long, in seconds.
    pub seconds: u64,
    /// How many agents are started in each part of the flood.
    pub tries: usize,
}

/// Measures, and gives `say` a line for each kind of flood. Gives whether every node was done each time.
///
/// # Errors
/// When the lab cannot do it.
pub fn run(options: &Options, say: &dyn Fn(&str)) -> Result<bool> {
    let run = Run::start()?;
    let deeds = match &options.deeds[..] {
        [] => &[Deed::Seeks, Deed::Calls, Deed::Hellos, Deed::Offers],
        some => some,
    };
    let mut good = true;
    for deed in deeds {
        let bytes = if *deed == Deed::Hellos { LARGE.0 } else { SMALL };
        let flood = Flood { options, deed: *deed, bytes, image: image(&run, bytes)? };
        let (line, done) = flood.play()?;
        say(&line);
        good &= done;
    }
    Ok(good)
}

fn image(run: &Run, bytes: u64) -> Result<PathBuf> {
    let (raw, slide) = (run.dir().join(format!("{bytes}.raw")), run.dir().join(format!("{bytes}.slide")));
    if !slide.exists() {
        random::write_file(&raw, bytes, 7)?;
        let args = ["image".as_ref(), "create".as_ref(), raw.as_os_str(), "-o".as_ref(), slide.as_os_str()];
        tool::run(
            &programs::server()?.display().to_string(),
            args.into_iter().chain(["--codec".as_ref(), "none".as_ref()]),
        )?;
    }
    Ok(slide)
}

struct Flood<'a> {
    options: &'a Options,
    deed: Deed,
    bytes: u64,
    image: PathBuf,
}

impl Flood<'_> {
    /// One deployment in one flood: what was measured, and whether every node was done.
    fn play(&self) -> Result<(String, bool)> {
        let lab = Lab::new(2)?;
        let node = NodeOptions::file(self.bytes);
        let of_card = |count, card| (0..count).map(|_| lab.node(card, &node)).collect::<Result<Vec<_>>>();
        let stranger = lab.node(0, &node)?;
        let (length, card) = if self.deed == Deed::Hellos { (CHAIN, 1) } else { (0, 0) };
        let (chain, coming) = (of_card(length, 0)?, of_card(3 * self.options.tries, card)?);
        if !chain.is_empty() {
            // Agents that come use the other card: a full queue of the slow one is no flood.
            lab.network().shape("server", "eth0", LARGE.1)?;
        }
        prepare(&lab, &stranger, &coming, self.deed)?;
        let wait_for = if chain.is_empty() { coming.len() } else { chain.len() };
        let mut deploy = lab.deploy(&self.image, wait_for, &["--progress", "json"])?;
        deploy.process.wait_for_tcp(PORT, SOON)?;
        let mut agents = chain.iter().map(|node| lab.agent(node)).collect::<Result<Vec<_>>>()?;
        let more = match chain.get(1) {
            None => Vec::new(),
            Some(struck) => {
                deploy.process.wait_for("\"event\":\"plan\"", SOON)?;
                self.numbers(&chain, struck, &agents, &deploy.process.out())?
            }
        };
        let args = ["stranger".to_owned(), self.name(), format!("{}:{PORT}", lab.server_address(0))];
        let pace = [format!("--rate={}", self.options.rate), format!("--seconds={}", self.options.seconds)];
        let args = args.into_iter().chain(pace).chain(more);
        let mut flood = lab.on_node(&stranger, "flood", &programs::lab()?.display().to_string(), args)?;
        flood.wait_for(STRUCK, SOON)?;
        let begun = Instant::now();
        let mut parts = Vec::new();
        for (part, nodes) in coming.chunks(self.options.tries).enumerate() {
            let at = Duration::from_secs(self.options.seconds * [0, 12, 45][part] / 60);
            std::thread::sleep(at.saturating_sub(begun.elapsed()));
            let mut took = Vec::new();
            for node in nodes {
                let (agent, span) = join(&lab, node)?;
                took.push(format!("{:.2}", span.as_secs_f64()));
                agents.push(agent);
                std::thread::sleep(BETWEEN.saturating_sub(span));
            }
            parts.push(took.join(" "));
        }
        flood.wait_exit(LONG)?;
        let (exit, report) = deploy.wait(LONG)?;
        let done = report.nodes.iter().filter(|node| node.state == "done").count();
        let all = chain.len() + coming.len();
        let [first, second, third] = &parts[..] else { return Err(LabError::Unable { why: "no parts".to_owned() }) };
        let line = format!(
            "{}: {} in {} s; s from the start of an agent to its place: at the start {first}; after a fifth {second}; after three quarters {third}; {done} of {all} done",
            self.name(),
            flood.out().lines().last().unwrap_or_default(),
            self.options.seconds,
        );
        let repairs = report.repair_log.iter().filter(|repair| repair.kind != "late");
        let line = repairs.fold(line, |line, repair| {
            format!("{line}; {:.1} s: node {} {}: {}", repair.at, repair.node, repair.kind, repair.detail)
        });
        Ok((line, exit == Exit::Code(0) && done == all))
    }

    fn name(&self) -> String {
        format!("{:?}", self.deed).to_lowercase()
    }

    /// The numbers that the hello of a chain link to `struck` has.
    fn numbers(&self, chain: &[Node], struck: &Node, agents: &[Process], out: &str) -> Result<Vec<String>> {
        let unable = |why: &str| LabError::Unable { why: why.to_owned() };
        let at = chain.iter().position(|node| node.name == struck.name).unwrap_or(0);
        let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", agents[at].pid()));
        let text: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
        let port = listens(&text).ok_or_else(|| unable("the struck node listens nowhere"))?;
        let numbers = planned(out).ok_or_else(|| unable("the progress has no plan"))?;
        let [from, to, ..] = &numbers[..] else { return Err(unable("the chain is too short")) };
        // Agents say hello in any order: the second of the chain may be another machine, whose numbers are refused as well.
        Ok(vec![format!("--node={}:{port}", struck.address), format!("--from={from}"), format!("--to={to}")])
    }
}

/// Addresses that are nobody's, and ways to them, as a network with a router has.
fn prepare(lab: &Lab, stranger: &Node, coming: &[Node], deed: Deed) -> Result<()> {
    let net = format!("{SPOOFED}/16");
    let (here, there) = (["route", "add", "local", &net, "dev", "lo"], ["route", "add", &net, "dev", "eth0"]);
    lab.on_node(stranger, "route-out", "ip", here)?.wait_exit(SOON)?;
    // The kernel answers for the addresses of its card alone.
    let silence = ["-c", "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore"];
    lab.on_node(stranger, "silence", "sh", silence)?.wait_exit(SOON)?;
    lab.on_server("route-back", "ip", there)?.wait_exit(SOON)?;
    if deed == Deed::Offers {
        for node in coming {
            lab.on_node(node, "route", "ip", there)?.wait_exit(SOON)?;
        }
    }
    Ok(())
}

/// Starts an agent; how long after that it has its place.
fn join(lab: &Lab, node: &Node) -> Result<(Process, Duration)> {
    let begun = Instant::now();
    let mut agent = lab.agent(node)?;
    agent.wait_for("calls this node", LONG)?;
    Ok((agent, begun.elapsed()))
}
