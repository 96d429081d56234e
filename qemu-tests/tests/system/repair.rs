//! Nodes that die, stall, are slow, come late or come back: the others go on, and whoever can still finish does.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use slidecast_lab::report::Node as NodeReport;
use slidecast_lab::{Compared, Deploy, Exit, Lab, Node, NodeOptions, Process, Report, compare, tool};

use crate::fixtures::{Fixtures, LONG, SOON, says, slidecast, wait_until_written};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("repair::head_middle_and_tail_die_and_the_chain_closes_around_each", Needs::Network, three_die),
    ("repair::a_stopped_agent_is_told_from_a_dead_one_and_finishes_when_it_goes_on", Needs::Network, stopped),
    ("repair::a_node_whose_link_flaps_is_repaired_around_and_finishes_in_the_same_run", Needs::Network, flap),
    ("repair::an_agent_that_is_started_again_is_one_entry_in_the_report_and_finishes", Needs::Network, started_again),
    ("repair::a_node_on_a_slow_link_is_moved_behind_the_tail_and_ends_done", Needs::Network, slow_link),
    ("repair::a_late_node_gets_what_it_lacks_and_the_server_sends_it_once", Needs::Network, late),
    ("repair::a_disk_that_is_full_fails_with_its_place_and_its_node_goes_on_relaying", Needs::Network, disk_full),
];

/// An image of bytes that do not compress, so that it takes its time.
struct Big {
    image: PathBuf,
    raw: PathBuf,
}

/// Bytes of [`Big`].
const BIG: u64 = 64 << 20;

impl Big {
    fn get() -> &'static Self {
        static BIG_IMAGE: OnceLock<Big> = OnceLock::new();
        BIG_IMAGE.get_or_init(|| {
            let dir = Fixtures::get().folder("big");
            let (raw, image) = (dir.join("big.raw"), dir.join("big.slide"));
            // The kernel's random bytes, of which only their number matters here.
            let bytes = BIG.to_string();
            let into = std::fs::File::create(&raw).unwrap();
            let status = std::process::Command::new("head").args(["-c", &bytes, "/dev/urandom"]).stdout(into).status();
            assert!(status.unwrap().success());
            let (from, to) = (raw.display().to_string(), image.display().to_string());
            slidecast(&["image", "create", &from, "-o", &to, "--codec", "none"]);
            Self { image, raw }
        })
    }

    fn assert_on(&self, node: &Node) {
        let compared = compare(&node.target.path, &self.raw).unwrap();
        assert!(matches!(compared, Compared::Equal(_)), "{} {compared}", node.name);
    }
}

/// Agents whose rings hold a few blocks, so that what happens to one node is soon felt by the others.
fn start_agents_with_small_rings(lab: &Lab, nodes: &[Node]) -> Vec<Process> {
    let key = lab.key().unwrap().with_extension("key.pub").display().to_string();
    let start = |node: &Node| {
        let target = node.target.path.display().to_string();
        let args = ["--target", &target, "--server-key", &key, "--ring", "8MiB", "--once"];
        lab.agent_with(node, args).unwrap()
    };
    nodes.iter().map(start).collect()
}

fn of<'a>(report: &'a Report, node: &Node) -> &'a NodeReport {
    report.node(&node.address).unwrap_or_else(|| panic!("{} is not in {report:?}", node.name))
}

/// All others are done and hold the image.
fn assert_done(report: &Report, nodes: &[&Node]) {
    for node in nodes {
        assert_eq!(of(report, node).state, "done", "{report:#?}");
        Big::get().assert_on(node);
    }
}

/// A chain of `count` nodes on links of `mbits`.
fn chain(count: usize, mbits: u32) -> (Lab, Vec<Node>, Deploy, Vec<Process>) {
    let big = Big::get();
    let lab = Lab::with_card_rate(1, mbits).unwrap();
    let nodes = lab.nodes(count, &NodeOptions::file(BIG).mbits(mbits)).unwrap();
    let deploy = lab.deploy(&big.image, count, &["--progress", "plain"]).unwrap();
    let agents = start_agents_with_small_rings(&lab, &nodes);
    (lab, nodes, deploy, agents)
}

/// Waits until node `at` is in the middle. Nodes stand in the chain as among `nodes`, by their addresses.
fn middle_of(agents: &mut [Process], nodes: &[Node], at: usize) {
    wait_until_written(&mut agents[at], &nodes[at], 12 << 20);
}

fn three_die() {
    let (_lab, nodes, mut deploy, mut agents) = chain(6, 100);
    middle_of(&mut agents, &nodes, 5);
    for at in [0, 2, 5] {
        agents[at].kill();
    }
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:#?}");
    assert_done(&report, &[&nodes[1], &nodes[3], &nodes[4]]);
    for at in [0, 2, 5] {
        let node = of(&report, &nodes[at]);
        assert_eq!((node.state.as_str(), node.reason.as_str()), ("failed", "node-lost"), "{node:?}");
        // Its link may have been made anew first, where a neighbour said that it broke before its control link was gone. How long it
        // takes is for the bench.
        let lost = report.repair_log.iter().find(|repair| (repair.node, repair.kind.as_str()) == (node.id, "lost"));
        assert!(lost.is_some_and(|repair| repair.seconds.is_some()), "{:?}", report.repair_log);
    }
    assert!(report.egress_bytes < BIG + BIG / 4, "{}", report.egress_bytes);
}

fn stopped() {
    let (_lab, nodes, mut deploy, mut agents) = chain(4, 60);
    middle_of(&mut agents, &nodes, 3);
    agents[1].signal(Signal::SIGSTOP);
    deploy.process.wait_for("is lost", SOON).unwrap();
    assert!(says(&deploy.process, &["node", "though its kernel answers"]), "{}", deploy.process.tail());
    agents[1].signal(Signal::SIGCONT);
    deploy.process.wait_for("is back", SOON).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:#?}");
    assert_done(&report, &nodes.iter().collect::<Vec<_>>());
    assert_eq!((of(&report, &nodes[1]).returned, of(&report, &nodes[1]).late), (1, false));
    let lost = report.repair_log.iter().find(|repair| repair.kind == "lost").unwrap();
    assert!(lost.seconds.is_some_and(|seconds| seconds <= 3.0), "{lost:?}");
}

fn flap() {
    let (lab, nodes, mut deploy, mut agents) = chain(4, 60);
    middle_of(&mut agents, &nodes, 3);
    lab.unplug(&nodes[2]).unwrap();
    deploy.process.wait_for("is lost", SOON).unwrap();
    assert!(says(&deploy.process, &["node", "its kernel answers nothing"]), "{}", deploy.process.tail());
    lab.replug(&nodes[2]).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:#?}");
    assert_done(&report, &nodes.iter().collect::<Vec<_>>());
    let lost = report.repair_log.iter().find(|repair| repair.kind == "lost").unwrap();
    assert!(lost.seconds.is_some_and(|seconds| seconds <= 3.0), "{lost:?}");
    assert_eq!(of(&report, &nodes[2]).returned, 1);
}

fn started_again() {
    let (lab, nodes, mut deploy, mut agents) = chain(3, 60);
    middle_of(&mut agents, &nodes, 1);
    agents[1].kill();
    let again = start_agents_with_small_rings(&lab, &nodes[1..2]);
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:#?}");
    assert_eq!(report.nodes.len(), 3, "{report:#?}");
    assert_done(&report, &nodes.iter().collect::<Vec<_>>());
    assert_eq!(of(&report, &nodes[1]).returned, 1);
    drop(again);
}

fn slow_link() {
    let big = Big::get();
    let lab = Lab::with_card_rate(1, 40).unwrap();
    let nodes = lab.nodes(4, &NodeOptions::file(BIG).mbits(40)).unwrap();
    let mut deploy = lab.deploy(&big.image, 4, &["--progress", "plain"]).unwrap();
    let mut agents = start_agents_with_small_rings(&lab, &nodes);
    wait_until_written(&mut agents[3], &nodes[3], 10 << 20);
    let throttled = Instant::now();
    lab.shape(&nodes[1], 4).unwrap();
    deploy.process.wait_for("moved behind the tail", SOON).unwrap();
    assert!(throttled.elapsed() < Duration::from_secs(16), "{:?}", throttled.elapsed());
    assert!(says(&deploy.process, &["is slow", "its link brings"]), "{}", deploy.process.tail());
    // The others go on at their rate, and do not wait for the slow one; then its link recovers, so that this test ends.
    for at in [0, 2, 3] {
        agents[at].wait_until("having everything", LONG, |agent| says(agent, &["done:"])).unwrap();
    }
    assert!(!says(&agents[1], &["done:"]));
    lab.shape(&nodes[1], 1000).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:#?}");
    assert_done(&report, &nodes.iter().collect::<Vec<_>>());
    let moved: Vec<bool> = nodes.iter().map(|node| of(&report, node).moved).collect();
    assert_eq!(moved, [false, true, false, false], "{report:#?}");
}

fn late() {
    let big = Big::get();
    let lab = Lab::with_card_rate(1, 100).unwrap();
    let nodes = lab.nodes(4, &NodeOptions::file(BIG).mbits(100)).unwrap();
    let mut deploy = lab.deploy(&big.image, 2, &["--progress", "plain"]).unwrap();
    let mut agents = start_agents_with_small_rings(&lab, &nodes[..2]);
    wait_until_written(&mut agents[1], &nodes[1], BIG / 4);
    let _late = start_agents_with_small_rings(&lab, &nodes[2..]);
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:#?}");
    assert_done(&report, &nodes.iter().collect::<Vec<_>>());
    let late: Vec<bool> = nodes.iter().map(|node| of(&report, node).late).collect();
    assert_eq!(late, [false, false, true, true]);
    // Both lack the same beginning: at most all of it, and not each for itself.
    assert!(report.egress_bytes < 2 * BIG, "{}", report.egress_bytes);
}

fn disk_full() {
    let big = Big::get();
    let lab = Lab::with_card_rate(1, 100).unwrap();
    let nodes = lab.nodes(3, &NodeOptions::file(BIG).mbits(100)).unwrap();
    // The file promises more than the file system has.
    let small = lab.path("small");
    std::fs::create_dir(&small).unwrap();
    let tmpfs = Path::new("tmpfs");
    tool::run("mount", [Path::new("-t"), tmpfs, Path::new("-o"), Path::new("size=20m"), tmpfs, &small]).unwrap();
    let disk = small.join("disk");
    std::fs::File::create(&disk).unwrap().set_len(BIG).unwrap();
    let mut full = nodes[1].clone();
    (full.target.path, full.target.file) = (disk.clone(), disk);
    let mut deploy = lab.deploy(&big.image, 3, &["--progress", "plain"]).unwrap();
    let _agents = start_agents_with_small_rings(&lab, &[nodes[0].clone(), full, nodes[2].clone()]);
    let (exit, report) = deploy.wait(LONG).unwrap();
    tool::run("umount", [Path::new("-l"), &small]).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:#?}");
    assert_done(&report, &[&nodes[0], &nodes[2]]);
    let failed = of(&report, &nodes[1]);
    assert_eq!((failed.state.as_str(), failed.reason.as_str()), ("failed", "disk-write"), "{failed:?}");
    let place = ["writing block", " at ", "No space left"];
    assert!(place.iter().all(|word| failed.detail.contains(word)), "{failed:?}");
    assert!(report.repair_log.is_empty(), "its neighbours noticed nothing: {report:#?}");
}
