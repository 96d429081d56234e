//! Things that break while a deployment runs: each ends in a clear report, never in a hang.

use std::fs;
use std::time::Instant;

use nix::sys::signal::Signal;
use slidecast_lab::{Exit, Lab, Node, Process};

use crate::fixtures::{Fixtures, LONG, SOON, says, start_agents, wait_until_written};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        "faults::a_node_that_dies_in_mid_deployment_is_named_in_the_report_and_the_exit_code_is_3",
        Needs::Network,
        node_dies,
    ),
    ("faults::a_node_whose_cable_is_pulled_ends_the_deployment_within_seconds", Needs::Network, cable_pulled),
    ("faults::ctrl_c_while_waiting_starts_nothing_and_touches_no_disk", Needs::Network, stopped_early),
    ("faults::ctrl_c_in_mid_deployment_tells_the_agents_and_leaves_disks_marked", Needs::Network, stopped_late),
    ("faults::a_server_that_dies_leaves_agents_that_say_so_and_disks_that_do_not_boot", Needs::Network, server_dies),
    ("faults::an_agent_started_again_after_a_failure_completes_the_disk", Needs::Network, tried_again),
];

/// Bytes of a disk after which a deployment is in its middle: a sixth of what the sample disk holds.
const MIDDLE: u64 = 6 << 20;

/// A disk that neither boots nor passes for untouched: no boot signature, and something in its first sector.
fn assert_marked(node: &Node) {
    let head = fs::read(&node.target.path).unwrap();
    assert_ne!(&head[510..512], [0x55, 0xaa], "{} has a boot signature", node.name);
    assert_ne!(&head[512..520], b"EFI PART", "{} has a partition table", node.name);
    assert!(head[..512].iter().any(|&byte| byte != 0), "{} has no mark", node.name);
}

/// Two nodes on links slow enough that there is a middle, and all programs.
fn running() -> (Lab, Vec<Node>, slidecast_lab::Deploy, Vec<Process>) {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(3, &fixtures.node().mbits(30)).unwrap();
    let deploy = lab.deploy(&fixtures.base, 3, &[]).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    wait_until_written(&mut agents[1], &nodes[1], MIDDLE);
    (lab, nodes, deploy, agents)
}

fn node_dies() {
    let (_lab, nodes, mut deploy, mut agents) = running();
    agents[1].kill();
    let killed = Instant::now();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:?}");
    assert!(killed.elapsed() < LONG / 2, "{:?}", killed.elapsed());
    let node = report.node(&nodes[1].address).unwrap();
    assert_eq!(node.state, "failed");
    assert!(matches!(node.reason.as_str(), "node-lost" | "downstream-lost" | "upstream-lost"), "{node:?}");
    assert!(!node.detail.is_empty(), "{node:?}");
    assert!(report.nodes.iter().all(|node| node.state == "failed" || node.state == "done"), "{report:?}");
    assert_marked(&nodes[1]);
    for (node, agent) in nodes.iter().zip(&mut agents) {
        let done = report.node(&node.address).unwrap().state == "done";
        if node.name != nodes[1].name {
            let exit = agent.wait_exit(SOON).unwrap();
            assert_eq!(exit == Exit::Code(0), done, "{} {exit:?}", node.name);
        }
    }
}

fn cable_pulled() {
    let (lab, nodes, mut deploy, _agents) = running();
    lab.unplug(&nodes[2]).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:?}");
    assert_eq!(report.node(&nodes[2].address).unwrap().state, "failed");
}

fn stopped_early() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    let here = nodes[0].address.clone();
    deploy.process.wait_until("seeing the node", SOON, |process| says(process, &[&here])).unwrap();
    deploy.process.signal(Signal::SIGINT);
    assert_eq!(deploy.process.wait_exit(SOON).unwrap(), Exit::Code(1));
    assert!(fs::read(&nodes[0].target.path).unwrap().iter().all(|&byte| byte == 0));
    // Nothing was asked of it: it may wait for the next server, or end with a failure, but not with success.
    agents[0].signal(Signal::SIGTERM);
    assert_ne!(agents[0].wait_exit(SOON).unwrap(), Exit::Code(0));
}

fn stopped_late() {
    let (_lab, nodes, mut deploy, mut agents) = running();
    deploy.process.signal(Signal::SIGINT);
    let (exit, report) = deploy.wait(SOON).unwrap();
    assert_eq!(exit, Exit::Code(3));
    for (node, agent) in nodes.iter().zip(&mut agents) {
        let exit = agent.wait_exit(SOON).unwrap();
        assert!(matches!(exit, Exit::Code(code) if code != 0), "{} {exit:?}", node.name);
        let entry = report.node(&node.address).unwrap();
        assert_eq!((entry.state.as_str(), entry.reason.as_str()), ("failed", "aborted"), "{entry:?}");
        assert_marked(node);
    }
}

fn server_dies() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &fixtures.node().mbits(30)).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    let start = |node: &Node| lab.impatient_agent(node, "3s").unwrap();
    let mut agents: Vec<Process> = nodes.iter().map(start).collect();
    wait_until_written(&mut agents[1], &nodes[1], MIDDLE);
    deploy.process.kill();
    for (node, agent) in nodes.iter().zip(&mut agents) {
        let exit = agent.wait_exit(LONG).unwrap();
        assert!(matches!(exit, Exit::Code(code) if code != 0), "{} {exit:?}", node.name);
        assert!(says(agent, &["server"]), "{}", agent.tail());
        assert_marked(node);
    }
}

fn tried_again() {
    let fixtures = Fixtures::get();
    let (lab, nodes, mut deploy, mut agents) = running();
    deploy.process.signal(Signal::SIGINT);
    deploy.wait(SOON).unwrap();
    agents.iter_mut().for_each(Process::kill);
    drop(agents);
    for node in &nodes {
        lab.shape(node, 1000).unwrap();
    }
    let mut deploy = lab.deploy_as("second", &fixtures.base, nodes.len(), &[]).unwrap();
    let _agents = start_agents(&lab, &nodes);
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}
