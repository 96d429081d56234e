//! The main job: an image goes to nodes, and their disks equal it.

use std::path::Path;

use slidecast_lab::{Compared, Exit, Lab, NodeOptions, TargetKind, compare, tool};

use crate::fixtures::{Fixtures, LONG, SOON, deploy_to, start_agents};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("end_to_end::one_node_with_a_file_is_done_and_equals_the_image", Needs::Network, one_file),
    ("end_to_end::one_node_with_a_block_device_is_verified_directly", Needs::Loops, one_loop),
    ("end_to_end::two_nodes_form_one_chain_and_the_server_sends_one_image", Needs::Network, two_nodes),
    ("end_to_end::four_nodes_behind_two_cards_get_base_and_increment", Needs::Loops, base_and_increment),
    ("end_to_end::agents_that_wait_for_the_server_are_served_too", Needs::Network, agents_first),
    ("end_to_end::a_larger_target_gets_its_backup_table_at_its_own_end", Needs::Loops, larger_target),
    ("end_to_end::without_read_back_the_state_is_written_and_not_done", Needs::Network, verify_none),
    ("end_to_end::keys_can_be_switched_off_on_both_sides_and_the_report_says_so", Needs::Network, insecure),
    ("end_to_end::progress_for_machines_is_one_json_object_a_line", Needs::Network, progress_json),
    ("end_to_end::the_fifth_node_is_not_served_when_four_were_waited_for", Needs::Network, one_too_many),
];

fn one_file() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node()).unwrap();
    let report = deploy_to(&lab, &nodes, &fixtures.base, &[]);
    let node = report.node(&nodes[0].address).unwrap();
    assert_eq!(node.state, "done");
    assert_ne!(node.verified, "no");
    assert!(!report.insecure);
    // The disk started as zeros, so that what does not matter is equal as well.
    assert_eq!(compare(&nodes[0].target.path, &fixtures.base_raw).unwrap(), Compared::Equal(fixtures.bytes()));
    fixtures.assert_holds_base(&nodes[0]);
}

fn one_loop() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node().on(TargetKind::Loop { sector: 512 })).unwrap();
    let report = deploy_to(&lab, &nodes, &fixtures.base, &[]);
    assert_eq!(report.node(&nodes[0].address).unwrap().verified, "direct");
    fixtures.assert_holds_base(&nodes[0]);
}

fn two_nodes() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &fixtures.node()).unwrap();
    let report = deploy_to(&lab, &nodes, &fixtures.base, &[]);
    assert_eq!(report.chains.len(), 1);
    assert_eq!(report.chains[0].interface, "eth0");
    let ratio = report.egress_bytes as f64 / report.stored_bytes as f64;
    assert!((1.0..1.05).contains(&ratio), "egress is {ratio} x stored");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn base_and_increment() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(2).unwrap();
    let nodes = lab.nodes(4, &fixtures.node().on(TargetKind::Loop { sector: 512 })).unwrap();
    let report = deploy_to(&lab, &nodes, &fixtures.base, &[]);
    let mut cards: Vec<&str> = report.chains.iter().map(|chain| chain.interface.as_str()).collect();
    cards.sort_unstable();
    assert_eq!(cards, ["eth0", "eth1"]);
    for chain in &report.chains {
        let subnet = format!("10.77.{}.", if chain.interface == "eth0" { 0 } else { 1 });
        assert!(report.nodes_of(chain).all(|node| node.address.starts_with(&subnet)), "{chain:?}");
    }
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
    let report = deploy_to(&lab, &nodes, &fixtures.increment, &[]);
    assert!(report.nodes.iter().all(|node| node.state == "done"), "{report:?}");
    nodes.iter().for_each(|node| fixtures.assert_holds_increment(node));
}

fn agents_first() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &fixtures.node()).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    for agent in &mut agents {
        // Looking for a server is said, so that a person at the node knows.
        agent.wait_until("saying anything", SOON, |agent| !agent.said().is_empty()).unwrap();
    }
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    assert_eq!(deploy.wait(LONG).unwrap().0, Exit::Code(0));
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn larger_target() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let bytes = fixtures.bytes() + (37 << 20);
    let nodes = lab.nodes(1, &NodeOptions::file(bytes).on(TargetKind::Loop { sector: 512 })).unwrap();
    deploy_to(&lab, &nodes, &fixtures.base, &[]);
    let disk = &nodes[0].target.path;
    let verdict = tool::run("sgdisk", [Path::new("--verify"), disk]).unwrap();
    assert!(verdict.contains("No problems found"), "{verdict}");
    let table = |disk: &Path| {
        let text = tool::run("sgdisk", [Path::new("--print"), disk]).unwrap();
        let rows = text.lines().skip_while(|line| !line.starts_with("Number")).map(str::to_owned);
        rows.collect::<Vec<_>>()
    };
    assert_eq!(table(disk), table(&fixtures.disks.first));
    let text = tool::run("sgdisk", [Path::new("--print"), disk]).unwrap();
    assert!(text.contains(&format!("last usable sector is {}", bytes / 512 - 34)), "{text}");
    fixtures.disks.layout.check(disk).unwrap();
}

fn verify_none() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &fixtures.node()).unwrap();
    let report = deploy_to(&lab, &nodes, &fixtures.base, &["--verify", "none"]);
    assert!(report.nodes.iter().all(|node| node.state == "written" && node.verified == "no"), "{report:?}");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn insecure() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 1, &["--insecure"]).unwrap();
    let server = format!("{}:{}", lab.server_address(0), slidecast_lab::lab::PORT);
    let target = node.target.path.display().to_string();
    let args = ["--server", &server, "--insecure", "--target", &target, "--once"];
    let mut agent = lab.agent_with(&node, args).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0));
    assert!(report.insecure);
    assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(0));
    fixtures.assert_holds_base(&node);
}

fn progress_json() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 1, &["--progress", "json"]).unwrap();
    let _agents = start_agents(&lab, &nodes);
    assert_eq!(deploy.wait(LONG).unwrap().0, Exit::Code(0));
    let out = deploy.process.out();
    assert!(!out.is_empty());
    for line in out.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(value.is_object(), "{line}");
    }
}

fn one_too_many() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(5, &fixtures.node()).unwrap();
    let _agents = start_agents(&lab, &nodes);
    let mut deploy = lab.deploy(&fixtures.base, 4, &[]).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0));
    // All who were there when the plan was fixed are served, four or five; nobody is left half written.
    let served: Vec<&str> =
        report.nodes.iter().filter(|node| node.state == "done").map(|node| node.address.as_str()).collect();
    assert!(served.len() >= 4, "{report:?}");
    for node in &nodes {
        let whole = compare(&node.target.path, &fixtures.base_raw).unwrap();
        let empty = compare::data_ranges(&node.target.path).unwrap().is_empty();
        assert!(matches!(whole, Compared::Equal(_)) || empty, "{}: {whole}", node.name);
    }
}
