//! Plans on real cards.

use std::fs;
use std::path::{Path, PathBuf};

use slidecast_lab::{Exit, Lab, LabError, Process, tool};

use crate::fixtures::{Fixtures, LONG, deploy_to, start_agents};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("chains::a_fast_card_before_slow_nodes_feeds_several_chains_from_one_reader", Needs::Network, several_chains),
    ("chains::a_node_on_a_slow_link_is_last_in_its_chain", Needs::Network, slow_last),
];

fn several_chains() {
    let fixtures = Fixtures::get();
    let lab = Lab::with_card_rate(1, 1000).unwrap();
    let nodes = lab.nodes(4, &fixtures.node().mbits(100)).unwrap();
    let image = cold_copy(&fixtures.base, &lab.path("cold.slide"));
    let mut deploy = lab.deploy(&image, nodes.len(), &[]).unwrap();
    let _agents = start_agents(&lab, &nodes);
    // Bytes that the server made the kernel fetch from the disk (proc_pid_io(5)); the last look before it ends counts.
    let mut read = 0;
    let look = |process: &Process| {
        let counts = fs::read_to_string(format!("/proc/{}/io", process.pid())).unwrap_or_default();
        let bytes = counts.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.trim().parse::<u64>().ok());
        read = read.max(bytes.unwrap_or(0));
        false
    };
    assert!(matches!(deploy.process.wait_until("ending", LONG, look), Err(LabError::Ended { .. })));
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(report.chains.len() >= 2, "{report:?}");
    let expected = report.chains.len() as f64 * report.stored_bytes as f64;
    let ratio = report.egress_bytes as f64 / expected;
    assert!((1.0..1.05).contains(&ratio), "egress is {ratio} x chains x stored");
    let ratio = read as f64 / report.stored_bytes as f64;
    assert!((0.5..1.15).contains(&ratio), "{ratio} x stored was read from the disk for {} chains", report.chains.len());
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

/// A copy of a file that is on the disk and not in the page cache.
fn cold_copy(from: &Path, to: &Path) -> PathBuf {
    fs::copy(from, to).unwrap();
    tool::run("sync", [to]).unwrap();
    tool::run("dd", [&format!("if={}", to.display()), "iflag=nocache", "count=0", "status=none"]).unwrap();
    to.to_owned()
}

fn slow_last() {
    let fixtures = Fixtures::get();
    let lab = Lab::with_card_rate(1, 100).unwrap();
    let slow = lab.node(0, &fixtures.node().mbits(40)).unwrap();
    let mut nodes = lab.nodes(2, &fixtures.node().mbits(100)).unwrap();
    nodes.push(slow);
    let report = deploy_to(&lab, &nodes, &fixtures.base, &[]);
    let last = report
        .chains
        .iter()
        .filter_map(|chain| report.nodes_of(chain).last())
        .any(|node| node.address == nodes[2].address);
    assert!(last, "{report:?}");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}
