//! `--approve`: machines that are not on the list, or that show no code that was typed, get nothing.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use slidecast_lab::lab::PORT;
use slidecast_lab::{Exit, Lab, Node, NodeOptions, Process, Report, programs};

use crate::fixtures::{Fixtures, LONG, SOON, start_agents, wait_until_written};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("approve::listed_agents_are_done_and_an_unlisted_one_never_gets_a_byte_of_the_image", Needs::Network, list),
    ("approve::an_agent_joins_when_its_code_is_typed_and_another_one_does_not", Needs::Network, codes),
    ("approve::an_agent_that_a_code_let_in_goes_on_when_the_server_is_started_again", Needs::Network, restart),
    ("approve::hundreds_of_unapproved_agents_keep_no_listed_one_out", Needs::Network, flood),
    ("approve::a_bad_line_in_a_list_stops_the_command", Needs::Network, bad_line),
];

const WAITS: &str = "waiting for approval at the server";

/// The hardware address of a node.
fn mac(lab: &Lab, node: &Node) -> String {
    let mut cat = lab.on_node(node, &format!("mac-{}", node.name), "cat", ["/sys/class/net/eth0/address"]).unwrap();
    assert_eq!(cat.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", cat.tail());
    cat.out().trim().to_owned()
}

fn write_list(lab: &Lab, text: &str) -> String {
    let path = lab.path("room7.txt");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// The code on an agent's screen, once it is there.
fn code(agent: &mut Process) -> String {
    agent.wait_for(&format!("{WAITS}, code "), SOON).unwrap();
    let said = agent.said();
    said.rsplit_once("server, code ").unwrap().1.chars().take(6).collect()
}

/// The agent on this node was never approved: it says so, ends with 1, and neither its disk nor its net saw the image.
fn assert_got_nothing(agent: &mut Process, node: &Node, received: u64, report: &Report, reason: &str) {
    assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(1), "{}", agent.tail());
    assert!(agent.said().contains("not-approved: the server ended the deployment"), "{}", agent.tail());
    assert!(!agent.said().contains("calls this node"), "{}", agent.tail());
    assert_eq!(fs::metadata(&node.target.file).unwrap().blocks(), 0, "its disk was written");
    assert!(received < report.stored_bytes / 4, "{received} bytes came to it, of {}", report.stored_bytes);
    let entry = report.nodes.iter().find(|entry| entry.address == node.address).unwrap();
    assert_eq!((entry.state.as_str(), entry.reason.as_str()), ("failed", "not-approved"), "{entry:?}");
    assert!(entry.detail.contains(reason), "{entry:?}");
    assert!(report.chains.iter().flat_map(|chain| &chain.nodes).all(|placed| placed.id != entry.id));
}

/// A process that is there as long as its node, to count what comes to it.
fn witness(lab: &Lab, node: &Node) -> Process {
    lab.on_node(node, &format!("witness-{}", node.name), "sleep", ["1000"]).unwrap()
}

fn received(witness: &Process) -> u64 {
    witness.traffic("eth0").unwrap().0
}

fn list() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(3, &fixtures.node()).unwrap();
    let own = lab.path("n2.key");
    lab.slidecast(["key", "new", "-o"].map(OsString::from).into_iter().chain([own.clone().into()])).unwrap();
    let public = programs::public_key(&own).unwrap();
    let list = write_list(&lab, &format!("# room 7\n{}\nkey={public} # the second one\n", mac(&lab, &nodes[0])));
    let mut deploy = lab.deploy(&fixtures.base, 2, &["--approve", &list]).unwrap();
    let witness = witness(&lab, &nodes[2]);
    let mut unlisted = lab.agent(&nodes[2]).unwrap();
    unlisted.wait_for(WAITS, SOON).unwrap();
    deploy.process.wait_for("waits for approval: it is not on the list", SOON).unwrap();
    let mut first = lab.agent(&nodes[0]).unwrap();
    first.wait_for("calls this node", SOON).unwrap();
    assert!(!deploy.process.said().contains("2 of 2 nodes ready"), "an unlisted agent was counted");
    let (target, server) = (nodes[1].target.path.display().to_string(), lab.key().unwrap().with_extension("key.pub"));
    let (server, own) = (server.display().to_string(), own.display().to_string());
    let args = ["--target", &target, "--server-key", &server, "--once", "--key-file", &own];
    let mut second = lab.agent_with(&nodes[1], args).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert_got_nothing(&mut unlisted, &nodes[2], received(&witness), &report, "it is not on the list");
    for (agent, node) in [(&mut first, &nodes[0]), (&mut second, &nodes[1])] {
        assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", agent.tail());
        fixtures.assert_holds_base(node);
    }
    assert!(deploy.process.said().contains("1 machine was not approved"), "{}", deploy.process.tail());
}

fn type_in(typing: &mut File, line: &str) {
    typing.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn codes() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &fixtures.node()).unwrap();
    let (mut deploy, mut typing) = lab.deploy_typed("deploy", &fixtures.base, 1, &["--approve", "code"]).unwrap();
    let witness = witness(&lab, &nodes[1]);
    let mut agents = start_agents(&lab, &nodes);
    let codes: Vec<String> = agents.iter_mut().map(code).collect();
    assert_ne!(codes[0], codes[1]);
    for code in &codes {
        deploy.process.wait_for(&format!("waits for approval, code {code}"), SOON).unwrap();
    }
    type_in(&mut typing, "AAAAAA");
    deploy.process.wait_for("no machine that waits shows the code AAAAAA", SOON).unwrap();
    type_in(&mut typing, "hello");
    deploy.process.wait_for("\"hello\" was typed: a code has 6 letters", SOON).unwrap();
    type_in(&mut typing, &codes[0].to_lowercase());
    deploy.process.wait_for("is approved", SOON).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert_eq!(agents[0].wait_exit(SOON).unwrap(), Exit::Code(0), "{}", agents[0].tail());
    fixtures.assert_holds_base(&nodes[0]);
    let why = format!("its code {} was not typed", codes[1]);
    assert_got_nothing(&mut agents[1], &nodes[1], received(&witness), &report, &why);
}

fn restart() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &fixtures.node().mbits(100)).unwrap();
    let state = lab.path("state").display().to_string();
    let args = ["--approve", "code", "--state", &state];
    let (mut deploy, mut typing) = lab.deploy_typed("deploy", &fixtures.base, 1, &args).unwrap();
    let mut agent = lab.agent(&node).unwrap();
    type_in(&mut typing, &code(&mut agent));
    wait_until_written(&mut agent, &node, 1 << 20);
    deploy.process.kill();
    let (mut again, _typing) = lab.deploy_typed("again", &fixtures.base, 1, &args).unwrap();
    let (exit, report) = again.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(again.process.said().contains("going on with the deployment"), "{}", again.process.tail());
    assert_eq!(agent.said().matches(WAITS).count(), 1, "it had to be approved once more");
    assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", agent.tail());
    fixtures.assert_holds_base(&node);
}

fn flood() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let (node, stranger) = (lab.node(0, &fixtures.node()).unwrap(), lab.node(0, &NodeOptions::file(1 << 20)).unwrap());
    let list = write_list(&lab, &mac(&lab, &node));
    let mut deploy = lab.deploy(&fixtures.base, 1, &["--approve", &list]).unwrap();
    deploy.process.wait_for_tcp(PORT, SOON).unwrap();
    let server = format!("{}:{PORT}", lab.server_address(0));
    let args = ["stranger", "calls", &server, "--rate=300", "--seconds=5"];
    let mut flood = lab.on_node(&stranger, "calls", env!("CARGO_BIN_EXE_slidecast-lab"), args).unwrap();
    assert_eq!(flood.wait_exit(LONG).unwrap(), Exit::Code(0), "{}", flood.tail());
    assert!(deploy.process.said().contains("waits for approval"), "{}", deploy.process.tail());
    let mut agent = lab.agent(&node).unwrap();
    agent.wait_for("calls this node", SOON).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(report.nodes.len() <= 1 + 8 + 64, "{} nodes in the report", report.nodes.len());
    let lines = deploy.process.said().lines().filter(|line| line.contains("waits for approval")).count();
    assert!(lines <= 100 + 60, "{lines} lines about strangers");
    fixtures.assert_holds_base(&node);
}

fn bad_line() {
    let lab = Lab::new(1).unwrap();
    let list = write_list(&lab, "52:54:00:00:00:01\n52:54:00:00:00\n");
    let image: PathBuf = Fixtures::get().base.clone();
    let output = Command::new(programs::server().unwrap())
        .args(["deploy", &image.display().to_string(), "--wait-for", "1", "--insecure", "--approve", &list])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&format!("{list}, line 2: \"52:54:00:00:00\" is no hardware address")), "{said}");
}
