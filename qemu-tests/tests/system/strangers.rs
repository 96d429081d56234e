//! Strangers on the wire without a secret: whatever they send, nodes join and every node is done.

use std::time::Duration;

use nix::sys::signal::Signal;
use slidecast_lab::lab::PORT;
use slidecast_lab::{Exit, Lab, Node, NodeOptions, Process, programs};

use crate::fixtures::{Fixtures, LONG, SOON, start_agents, wait_until_written};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("strangers::seeks_from_thousands_of_addresses_do_not_end_discovery", Needs::Network, seeks),
    ("strangers::hundreds_of_hellos_leave_places_for_nodes", Needs::Network, calls),
    ("strangers::hellos_with_the_right_numbers_break_no_link", Needs::Network, hellos),
    ("strangers::forged_offers_do_not_keep_agents_from_their_server", Needs::Network, offers),
    ("strangers::a_refused_agent_started_again_262_times_leaves_places_for_others", Needs::Network, refused),
    ("strangers::agents_that_come_late_in_a_flood_of_seeks_get_their_place", Needs::Network, late_in_seeks),
];

/// Addresses that are nobody's, and the way to them.
const NOBODY: &str = "10.99.0.0/16";
const WAY: [&str; 5] = ["route", "add", NOBODY, "dev", "eth0"];
/// The kernel answers for the addresses of its card alone (`arp_ignore`).
const SILENCE: &str = "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore";
const LAB: &str = env!("CARGO_BIN_EXE_slidecast-lab");

/// Starts a flood from a machine of its own, and waits until it has begun.
fn flood(lab: &Lab, from: &Node, deed: &str, more: &[String]) -> Process {
    let args = ["stranger".to_owned(), deed.to_owned(), format!("{}:{PORT}", lab.server_address(0))];
    let args = args.into_iter().chain(more.iter().cloned());
    let mut flood = lab.on_node(from, deed, LAB, args).unwrap();
    flood.wait_for("struck", SOON).unwrap();
    flood
}

/// How long after its start an agent has its place with the server.
fn joins(agent: &mut Process) -> Duration {
    let begun = std::time::Instant::now();
    agent.wait_for("calls this node", LONG).unwrap();
    begun.elapsed()
}

fn all_done(lab: &Lab, stranger: &Node, deed: &str, more: &[String], until_struck: bool) {
    let fixtures = Fixtures::get();
    let nodes = lab.nodes(3, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, nodes.len(), &[]).unwrap();
    deploy.process.wait_for_tcp(PORT, SOON).unwrap();
    let mut flood = flood(lab, stranger, deed, more);
    if until_struck {
        assert_eq!(flood.wait_exit(LONG).unwrap(), Exit::Code(0), "{}", flood.tail());
    }
    let mut agents = start_agents(lab, &nodes);
    let took: Vec<Duration> = agents.iter_mut().map(joins).collect();
    assert!(!took.is_empty());
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    flood.kill();
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

/// The rate and length of a flood: short in the tests, longer by hand.
fn pace(rate: u32, seconds: u32) -> Vec<String> {
    let told = |name: &str, usual: u32| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (rate, seconds) = (told("SLIDECAST_FLOOD_RATE", rate), told("SLIDECAST_FLOOD_SECONDS", seconds));
    vec![format!("--rate={rate}"), format!("--seconds={seconds}")]
}

/// A machine that can send from 65,536 addresses, of which none answers, and to which the server has a way as one with a default
/// route has.
fn spoofer(lab: &Lab) -> Node {
    let stranger = lab.node(0, &Fixtures::get().node()).unwrap();
    let out = ["route", "add", "local", NOBODY, "dev", "lo"];
    lab.on_node(&stranger, "route-out", "ip", out).unwrap().wait_exit(SOON).unwrap();
    lab.on_node(&stranger, "silence", "sh", ["-c", SILENCE]).unwrap().wait_exit(SOON).unwrap();
    lab.on_server("route-back", "ip", WAY).unwrap().wait_exit(SOON).unwrap();
    stranger
}

fn seeks() {
    let lab = Lab::new(1).unwrap();
    let stranger = spoofer(&lab);
    all_done(&lab, &stranger, "seeks", &pace(5000, 60), false);
}

/// The server's kernel has looked for many addresses when the agents come.
fn late_in_seeks() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let stranger = spoofer(&lab);
    let nodes = lab.nodes(3, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, nodes.len(), &[]).unwrap();
    deploy.process.wait_for_tcp(PORT, SOON).unwrap();
    let mut flood = flood(&lab, &stranger, "seeks", &pace(10_000, 200));
    let looked_for = |server: &Process| {
        let table = std::fs::read_to_string(format!("/proc/{}/net/arp", server.pid())).unwrap_or_default();
        table.lines().filter(|line| line.starts_with("10.99.")).count() >= 150
    };
    deploy.process.wait_until("having looked for many addresses", LONG, looked_for).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    agents.iter_mut().for_each(|agent| agent.wait_for("calls this node", LONG).unwrap());
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    flood.kill();
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

/// Offers with the server's key come before any of the server's own, and whoever tries one gets no answer.
fn offers() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let stranger = spoofer(&lab);
    let nodes = lab.nodes(7, &fixtures.node()).unwrap();
    for node in &nodes {
        lab.on_node(node, "route", "ip", WAY).unwrap().wait_exit(SOON).unwrap();
    }
    let mut deploy = lab.deploy(&fixtures.base, nodes.len(), &[]).unwrap();
    deploy.process.wait_for_tcp(PORT, SOON).unwrap();
    let mut flood = flood(&lab, &stranger, "offers", &["--rate=700".to_owned(), "--seconds=200".to_owned()]);
    // The server hears nobody until every agent has tried what was forged.
    deploy.process.signal(Signal::SIGSTOP);
    let mut agents = start_agents(&lab, &nodes);
    agents.iter_mut().for_each(|agent| agent.wait_for("no answer within 1 s", LONG).unwrap());
    deploy.process.signal(Signal::SIGCONT);
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    flood.kill();
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

/// As a supervisor does with a program that ends.
fn refused() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let wrong = lab.node(0, &NodeOptions::file(1 << 20)).unwrap();
    let nodes = lab.nodes(3, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, nodes.len(), &[]).unwrap();
    deploy.process.wait_for_tcp(PORT, SOON).unwrap();
    let (agent, key) = (programs::agent().unwrap(), lab.key().unwrap().with_extension("key.pub"));
    let (agent, key) = (agent.display().to_string(), key.display().to_string());
    let again = "for run in $(seq 262); do \"$@\" && exit 9; done; echo refused each time";
    let target = wrong.target.path.display().to_string();
    let args = ["-c", again, "again", &agent, "--target", &target, "--server-key", &key, "--once"];
    let mut supervisor = lab.on_node(&wrong, "supervisor", "sh", args).unwrap();
    assert_eq!(supervisor.wait_exit(3 * LONG).unwrap(), Exit::Code(0), "{}", supervisor.tail());
    assert_eq!(supervisor.said().matches("target-too-small").count(), 262);
    let _agents = start_agents(&lab, &nodes);
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn calls() {
    let lab = Lab::new(1).unwrap();
    let stranger = lab.node(0, &Fixtures::get().node()).unwrap();
    all_done(&lab, &stranger, "calls", &["--rate=100".to_owned(), "--seconds=5".to_owned()], true);
}

fn hellos() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let stranger = lab.node(0, &fixtures.node()).unwrap();
    let nodes = lab.nodes(3, &fixtures.node().mbits(100)).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, nodes.len(), &[]).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    wait_until_written(&mut agents[0], &nodes[0], 1 << 20);
    let port = link_port(&agents[1]);
    // Whichever node it is, one of these pairs of numbers is right.
    let mut floods = Vec::new();
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2), (0, 1), (0, 2), (0, 3)] {
        let node = format!("--node={}:{port}", nodes[1].address);
        let mut more = vec![node, format!("--from={from}"), format!("--to={to}")];
        more.extend(pace(30, 60));
        floods.push(flood(&lab, &stranger, "hellos", &more));
    }
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(report.repair_log.is_empty(), "{:?}", report.repair_log);
    floods.iter_mut().for_each(Process::kill);
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

/// The port of an agent on which its upstream is awaited (proc_pid_net(5): field 1 is the local end, 3 the state, 0A is LISTEN).
fn link_port(agent: &Process) -> u16 {
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{}/net/{table}", agent.pid())));
    let tables: String = tables.into_iter().flatten().collect();
    let port = tables.lines().find_map(|line| {
        let row: Vec<&str> = line.split_whitespace().take(4).collect();
        let [_, local, _, "0A"] = row.as_slice() else { return None };
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    });
    port.unwrap()
}
