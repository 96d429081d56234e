//! Disks that hold something of the image already: only what differs travels, and what is there is not written.

use std::fs;
use std::path::Path;

use slidecast_lab::{Compared, Exit, Lab, Node, Process, Report, compare_data};

use crate::fixtures::{Fixtures, LONG, SOON, deploy_to, says, start_agents, wait_until_written};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("redeploy::a_disk_that_holds_the_image_is_done_without_a_write", Needs::Network, same_image),
    (
        "redeploy::an_increment_onto_its_base_sends_what_changed_to_blank_and_used_disks_alike",
        Needs::Network,
        increment,
    ),
    ("redeploy::with_fresh_everything_is_sent_and_written", Needs::Network, fresh),
    ("redeploy::a_disk_with_something_else_on_it_is_written_whole", Needs::Network, something_else),
    ("redeploy::an_agent_killed_in_mid_stream_and_started_again_keeps_what_its_disk_has", Needs::Network, agent_killed),
    ("redeploy::a_server_killed_in_mid_stream_and_started_again_goes_on", Needs::Network, server_killed),
    ("redeploy::another_image_puts_an_end_to_an_unfinished_deployment", Needs::Network, another_image),
];

/// Bytes of a disk after which a deployment is in its middle.
const MIDDLE: u64 = 12 << 20;

/// Puts the bytes of an exported disk on a node's target, as an earlier deployment would have.
fn fill(node: &Node, raw: &Path) {
    fs::copy(raw, &node.target.file).unwrap();
}

fn assert_nothing_written(report: &Report) {
    for node in &report.nodes {
        assert_eq!((node.state.as_str(), node.blocks_written), ("done", 0), "{node:?}");
        assert!(node.blocks_kept > 0, "{node:?}");
    }
    // What went out is the manifest and words.
    assert!(report.egress_bytes < report.stored_bytes / 20, "{report:?}");
}

fn same_image() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(3, &fixtures.node()).unwrap();
    nodes.iter().for_each(|node| fill(node, &fixtures.base_raw));
    let before = fs::metadata(&nodes[1].target.file).unwrap().modified().unwrap();
    assert_nothing_written(&deploy_to(&lab, &nodes, &fixtures.base, &[]));
    assert_eq!(fs::metadata(&nodes[1].target.file).unwrap().modified().unwrap(), before, "nobody wrote to the file");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn increment() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let used = lab.nodes(2, &fixtures.node()).unwrap();
    used.iter().for_each(|node| fill(node, &fixtures.base_raw));
    let report = deploy_to(&lab, &used, &fixtures.increment, &[]);
    assert!(report.egress_bytes * 20 <= report.stored_bytes, "at most 5 %: {report:?}");
    for node in &report.nodes {
        assert!(node.blocks_written > 0 && node.blocks_kept > 4 * node.blocks_written, "{node:?}");
    }
    used.iter().for_each(|node| fixtures.assert_holds_increment(node));

    // One blank disk in a chain of old ones takes all, and the others still only what changed.
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(3, &fixtures.node()).unwrap();
    [&nodes[0], &nodes[2]].into_iter().for_each(|node| fill(node, &fixtures.base_raw));
    let report = deploy_to(&lab, &nodes, &fixtures.increment, &[]);
    for node in &nodes {
        let entry = report.node(&node.address).unwrap();
        let blank = node.name == nodes[1].name;
        assert_eq!(entry.blocks_kept == 0, blank, "{entry:?}");
        assert_eq!(entry.blocks_written > entry.blocks_kept, blank, "{entry:?}");
        fixtures.assert_holds_increment(node);
    }
    assert!(report.egress_bytes < report.stored_bytes * 11 / 10, "{report:?}");
}

fn fresh() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &fixtures.node()).unwrap();
    nodes.iter().for_each(|node| fill(node, &fixtures.base_raw));
    let report = deploy_to(&lab, &nodes, &fixtures.base, &["--fresh"]);
    assert!(report.egress_bytes >= report.stored_bytes, "{report:?}");
    assert!(report.nodes.iter().all(|node| node.blocks_kept == 0 && node.blocks_written > 0), "{report:?}");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn something_else() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node()).unwrap();
    let noise: Vec<u8> =
        (0..fixtures.bytes()).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 13).to_le_bytes()[0]).collect();
    fs::write(&nodes[0].target.file, noise).unwrap();
    let report = deploy_to(&lab, &nodes, &fixtures.base, &[]);
    assert!(report.egress_bytes >= report.stored_bytes, "{report:?}");
    assert_eq!(report.nodes[0].blocks_kept, 0, "{report:?}");
    let holds = compare_data(&nodes[0].target.path, &fixtures.base_raw).unwrap();
    assert!(matches!(holds, Compared::Equal(_)), "{holds}");
}

/// The node's disk neither boots nor passes for whole.
fn assert_marked(node: &Node) {
    let head = fs::read(&node.target.path).unwrap();
    assert_eq!(&head[..8], b"SLIDEMRK", "{} has no mark", node.name);
    assert_ne!(&head[510..512], [0x55, 0xaa], "{} has a boot signature", node.name);
}

fn agent_killed() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &fixtures.node().mbits(30)).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    wait_until_written(&mut agents[1], &nodes[1], MIDDLE);
    agents[1].kill();
    assert_marked(&nodes[1]);
    lab.shape(&nodes[1], 1000).unwrap();
    let mut again = lab.agent(&nodes[1]).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!((exit, report.nodes.len()), (Exit::Code(0), 2), "the new run took the place of the old one: {report:?}");
    assert_eq!(again.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", again.tail());
    assert!(says(&again, &["on the disk already"]), "{}", again.tail());
    let entry = report.node(&nodes[1].address).unwrap();
    assert_eq!(entry.state, "done", "{report:?}");
    assert!(entry.blocks_kept > 4, "{entry:?}");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
    let exit = agents.first_mut().map(|agent: &mut Process| agent.wait_exit(SOON).unwrap());
    assert_eq!(exit, Some(Exit::Code(0)));
}

fn server_killed() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(3, &fixtures.node().mbits(30)).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 3, &[]).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    wait_until_written(&mut agents[2], &nodes[2], MIDDLE);
    deploy.process.kill();
    let mut again = lab.deploy_as("again", &fixtures.base, 3, &[]).unwrap();
    let (exit, report) = again.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(says(&again.process, &["going on"]), "{}", again.process.tail());
    assert_eq!(report.nodes.len(), 3);
    for (node, agent) in nodes.iter().zip(&mut agents) {
        let entry = report.node(&node.address).unwrap();
        assert_eq!((entry.state.as_str(), entry.blocks_kept), ("done", 0), "{entry:?}");
        assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", agent.tail());
        fixtures.assert_holds_base(node);
    }
    // What both servers sent: the image once down each chain, and what was on its way when the first one died.
    let chains = report.chains.len() as u64;
    assert!(report.egress_bytes < report.stored_bytes * chains * 5 / 4, "{report:?}");
    // It is over: the same command once more would begin anew.
    let mut third = lab.deploy_as("third", &fixtures.base, 3, &["--resume"]).unwrap();
    assert_eq!(third.process.wait_exit(SOON).unwrap(), Exit::Code(1));
    assert!(says(&third.process, &["nothing to resume"]), "{}", third.process.tail());
}

fn another_image() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &fixtures.node().mbits(60)).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    wait_until_written(&mut agents[1], &nodes[1], MIDDLE);
    deploy.process.kill();
    let mut refused = lab.deploy_as("refused", &fixtures.increment, 2, &["--resume"]).unwrap();
    assert_eq!(refused.process.wait_exit(SOON).unwrap(), Exit::Code(1));
    assert!(says(&refused.process, &["a different image", "base.slide"]), "{}", refused.process.tail());
    let mut other = lab.deploy_as("other", &fixtures.increment, 2, &[]).unwrap();
    let (exit, report) = other.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(says(&other.process, &["a new deployment", "base.slide"]), "{}", other.process.tail());
    for (node, agent) in nodes.iter().zip(&mut agents) {
        assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", agent.tail());
        assert!(report.node(&node.address).unwrap().blocks_kept > 0, "{report:?}");
        fixtures.assert_holds_increment(node);
    }
}
