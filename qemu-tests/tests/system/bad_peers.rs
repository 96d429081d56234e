//! Wrong keys, wrong versions, no peers and noise: one clear line on the right side, and nothing else is lost.

use std::fs;

use slidecast_lab::lab::PORT;
use slidecast_lab::{Exit, Lab, Node, Process, forge};

use crate::fixtures::{Fixtures, LONG, SOON, says, slidecast, start_agents};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("bad_peers::an_agent_with_another_servers_key_says_so_and_the_rest_goes_on", Needs::Network, wrong_key),
    ("bad_peers::a_server_restarted_with_a_new_key_is_not_obeyed", Needs::Network, new_key),
    ("bad_peers::insecure_on_the_agents_side_only_is_refused", Needs::Network, insecure_agent),
    ("bad_peers::insecure_on_the_servers_side_only_is_refused", Needs::Network, insecure_server),
    ("bad_peers::an_agent_on_a_card_that_is_not_used_is_turned_away_with_a_line", Needs::Network, other_card),
    ("bad_peers::an_agent_without_a_key_and_without_insecure_exits_2", Needs::Network, no_key),
    ("bad_peers::a_port_in_use_is_said_and_nothing_starts", Needs::Network, port_in_use),
    ("bad_peers::too_few_agents_by_the_timeout_starts_nothing", Needs::Network, nobody),
    ("bad_peers::a_server_of_another_protocol_version_is_named_as_that", Needs::Network, other_server),
    ("bad_peers::an_agent_of_another_protocol_version_costs_nothing", Needs::Network, other_agent),
    ("bad_peers::random_datagrams_on_the_discovery_port_cost_nothing", Needs::Network, datagrams),
    ("bad_peers::random_bytes_on_every_tcp_port_cost_nothing", Needs::Network, bytes),
    ("bad_peers::forged_peers_with_right_keys_and_checksums_cost_nothing", Needs::Network, forged),
];

const LAB: &str = env!("CARGO_BIN_EXE_slidecast-lab");

fn target(node: &Node) -> String {
    node.target.path.display().to_string()
}

fn untouched(node: &Node) -> bool {
    fs::read(&node.target.path).unwrap().iter().all(|&byte| byte == 0)
}

/// An agent with the public key of some other server.
fn stranger(lab: &Lab, node: &Node, name: &str) -> Process {
    let other = lab.path(&format!("{name}.key")).display().to_string();
    slidecast(&["key", "new", "-o", &other]);
    let key = format!("{other}.pub");
    lab.agent_with(node, ["--target", &target(node), "--server-key", &key]).unwrap()
}

/// Of all lines on the right sides just one each has the reason: the agent's, and the server's with the agent's address.
fn assert_told_once(deploy: &Process, agent: &Process, node: &Node, reason: &str) {
    let count = |process: &Process, words: &[&str]| {
        process.said().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    assert_eq!(count(agent, &[reason]), 1, "{}", agent.tail());
    assert_eq!(count(deploy, &["turned away", &node.address]), count(deploy, &["turned away"]), "{}", deploy.tail());
    // The line when it happened; where nothing was started, the last line says it again.
    assert!((1..=2).contains(&count(deploy, &["turned away"])), "{}", deploy.tail());
}

fn wrong_key() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let lost = lab.node(0, &fixtures.node()).unwrap();
    let nodes = lab.nodes(2, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    let mut stranger = stranger(&lab, &lost, "other");
    stranger.wait_until("saying what is wrong", SOON, |agent| says(agent, &["key"])).unwrap();
    let _agents = start_agents(&lab, &nodes);
    assert_eq!(deploy.wait(LONG).unwrap().0, Exit::Code(0));
    assert_told_once(&deploy.process, &stranger, &lost, "key-mismatch");
    assert!(untouched(&lost));
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn new_key() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &fixtures.node()).unwrap();
    let mut agent = lab.agent(&node).unwrap();
    let here = node.address.clone();
    let mut first = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    first.process.wait_until("seeing the node", SOON, |process| says(process, &[&here])).unwrap();
    first.process.kill();
    let new = lab.path("new.key").display().to_string();
    slidecast(&["key", "new", "-o", &new]);
    let args = ["--key-file", &new, "--timeout", "5s"];
    let mut second = lab.deploy_as("second", &fixtures.base, 1, &args).unwrap();
    assert_eq!(second.process.wait_exit(LONG).unwrap(), Exit::Code(1), "{}", second.process.tail());
    assert!(says(&agent, &["key"]), "{}", agent.tail());
    agent.kill();
    assert!(untouched(&node));
}

/// A deployment with these arguments of server and agent does not start, and the agent says why.
fn assert_mode_refused(server: &[&str], agent: &[&str]) {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 1, &[server, &["--timeout", "5s"]].concat()).unwrap();
    let key = lab.key().unwrap().with_extension("key.pub").display().to_string();
    let target = target(&node);
    let args = ["--target", &target].into_iter().chain(agent.iter().map(|arg| if *arg == "KEY" { &*key } else { arg }));
    let mut agent = lab.agent_with(&node, args).unwrap();
    assert_eq!(deploy.process.wait_exit(LONG).unwrap(), Exit::Code(1), "{}", deploy.process.tail());
    assert_told_once(&deploy.process, &agent, &node, "insecure-mismatch");
    agent.kill();
    assert!(untouched(&node));
}

fn insecure_agent() {
    assert_mode_refused(&[], &["--insecure"]);
}

fn insecure_server() {
    assert_mode_refused(&["--insecure"], &["--server-key", "KEY"]);
}

fn other_card() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(2).unwrap();
    let node = lab.node(1, &fixtures.node()).unwrap();
    let args = ["--interface", "eth0", "--timeout", "5s"];
    let mut deploy = lab.deploy(&fixtures.base, 1, &args).unwrap();
    let key = lab.key().unwrap().with_extension("key.pub").display().to_string();
    let server = format!("{}:{PORT}", lab.server_address(1));
    let args = ["--target", &target(&node), "--server-key", &key, "--server", &server];
    let mut agent = lab.agent_with(&node, args).unwrap();
    assert_eq!(deploy.process.wait_exit(LONG).unwrap(), Exit::Code(1), "{}", deploy.process.tail());
    let words = [&node.address, "turned away", "--interface"];
    assert!(says(&deploy.process, &words), "{}", deploy.process.tail());
    agent.kill();
    assert!(untouched(&node));
}

fn no_key() {
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &Fixtures::get().node()).unwrap();
    let mut agent = lab.agent_with(&node, ["--target", &target(&node), "--once"]).unwrap();
    assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(2));
    assert!(says(&agent, &["--server-key", "--insecure"]), "{}", agent.tail());
}

fn port_in_use() {
    let fixtures = Fixtures::get();
    for socket in ["TCP4-LISTEN", "UDP4-RECV"] {
        let lab = Lab::new(1).unwrap();
        let mut squatter = lab.on_server("squatter", "socat", ["-u", &format!("{socket}:{PORT}"), "-"]).unwrap();
        let table = if socket.starts_with("TCP") { "tcp" } else { "udp" };
        let bound = |process: &Process| {
            // Before it is the squatter it is the program that puts it into the server's namespace.
            let name = fs::read_to_string(format!("/proc/{}/comm", process.pid())).unwrap_or_default();
            let text = fs::read_to_string(format!("/proc/{}/net/{table}", process.pid())).unwrap_or_default();
            name.trim() == "socat" && text.contains(&format!(":{PORT:04X}"))
        };
        squatter.wait_until("binding", SOON, bound).unwrap();
        let mut deploy = lab.deploy(&fixtures.base, 1, &["--progress", "none"]).unwrap();
        assert_eq!(deploy.process.wait_exit(SOON).unwrap(), Exit::Code(1), "{socket}: {}", deploy.process.tail());
        assert!(says(&deploy.process, &[&PORT.to_string(), "in use"]), "{socket}: {}", deploy.process.tail());
    }
}

fn nobody() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node()).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    let mut deploy = lab.deploy(&fixtures.base, 2, &["--timeout", "3s"]).unwrap();
    assert_eq!(deploy.process.wait_exit(SOON).unwrap(), Exit::Code(1));
    assert!(says(&deploy.process, &["nothing was started: too few nodes were ready"]), "{}", deploy.process.tail());
    assert!(untouched(&nodes[0]));
    agents[0].kill();
    drop(agents);
    let mut deploy = lab.deploy_as("nobody", &fixtures.base, 1, &["--timeout", "1s", "--progress", "none"]).unwrap();
    assert_eq!(deploy.process.wait_exit(SOON).unwrap(), Exit::Code(1));
    let said = deploy.process.err();
    assert!(said.ends_with("slidecast: nothing was started: too few nodes were ready in time\n"), "{said}");
}

/// `socat` in a node's namespace that writes a control link's preface with this version and shows the answer in hex.
fn preface(lab: &Lab, node: &Node, version: u8) -> Process {
    let hello = format!("SLIDECTL\\{version:03o}\\000\\000\\000\\000\\000\\000\\000");
    let script =
        format!("(printf '{hello}'; sleep 2) | socat - TCP4:{}:{PORT} | od -An -tx1 -v", lab.server_address(0));
    lab.on_node(node, "preface", "sh", ["-c", &script]).unwrap()
}

fn other_agent() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node()).unwrap();
    let odd = lab.node(0, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 1, &[]).unwrap();
    deploy.process.wait_for_tcp(PORT, SOON).unwrap();
    let mut preface = preface(&lab, &odd, 99);
    preface.wait_exit(SOON).unwrap();
    // The server's own preface: its version, and the verdict "version" (1) in byte 10.
    let answer: Vec<String> = preface.out().split_whitespace().map(str::to_owned).collect();
    assert!(answer.len() >= 16, "{answer:?}");
    assert_eq!((answer[8].as_str(), answer[10].as_str()), ("03", "01"), "{answer:?}");
    assert!(says(&deploy.process, &["version", &odd.address]), "{}", deploy.process.tail());
    let _agents = start_agents(&lab, &nodes);
    assert_eq!(deploy.wait(LONG).unwrap().0, Exit::Code(0));
}

fn other_server() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &fixtures.node()).unwrap();
    // The answer is in a file: socat would take the backslashes for its own.
    let script = lab.path("answer.sh");
    let preface = r"head -c 16 >/dev/null; printf 'SLIDECTL\143\000\001\000\000\000\000\000'; sleep 1";
    fs::write(&script, preface).unwrap();
    let answer = format!("EXEC:sh {}", script.display());
    let listen = format!("TCP4-LISTEN:{PORT},reuseaddr,fork");
    let mut server = lab.on_server("odd-server", "socat", [listen, answer]).unwrap();
    server.wait_for_tcp(PORT, SOON).unwrap();
    let address = format!("{}:{PORT}", lab.server_address(0));
    let key = lab.key().unwrap().with_extension("key.pub").display().to_string();
    let args = ["--server", &address, "--target", &target(&node), "--server-key", &key];
    let mut agent = lab.agent_with(&node, args).unwrap();
    agent.wait_until("naming the version", SOON, |agent| says(agent, &["version"])).unwrap();
    assert!(untouched(&node));
}

fn datagrams() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let noisy = lab.node(0, &fixtures.node()).unwrap();
    let nodes = lab.nodes(2, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    deploy.process.wait_for_tcp(PORT, SOON).unwrap();
    let before = resident(&deploy.process);
    let to = format!("{}:{PORT}", lab.server_address(0));
    let mut flood = lab.on_node(&noisy, "flood", LAB, ["noise", "--datagrams", "200000", &to]).unwrap();
    assert_eq!(flood.wait_exit(LONG).unwrap(), Exit::Code(0), "{}", flood.tail());
    let after = resident(&deploy.process);
    assert!(after < before + (16 << 20), "{before} -> {after} bytes resident");
    assert!(deploy.process.said().len() < 64 << 10, "the noise fills the log");
    let _agents = start_agents(&lab, &nodes);
    assert_eq!(deploy.wait(LONG).unwrap().0, Exit::Code(0));
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

/// Every TCP port on which a process listens.
fn tcp_ports(process: &Process) -> Vec<u16> {
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{}/fd", process.pid()))
        .unwrap()
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{}/net/{table}", process.pid())));
    let table: String = table.into_iter().flatten().collect();
    let listening = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    listening
        .filter(|fields| {
            fields.get(3) == Some(&"0A") && fields.get(9).is_some_and(|inode| inodes.iter().any(|i| i == inode))
        })
        .filter_map(|fields| u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok())
        .collect()
}

fn bytes() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let noisy = lab.node(0, &fixtures.node()).unwrap();
    let nodes = lab.nodes(2, &fixtures.node()).unwrap();
    let mut agents = start_agents(&lab, &nodes[..1]);
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    let here = nodes[0].address.clone();
    deploy.process.wait_until("seeing the node", SOON, |process| says(process, &[&here])).unwrap();
    let mut victims: Vec<String> = Vec::new();
    victims.extend(tcp_ports(&deploy.process).iter().map(|port| format!("{}:{port}", lab.server_address(0))));
    victims.extend(tcp_ports(&agents[0]).iter().map(|port| format!("{}:{port}", nodes[0].address)));
    assert!(victims.len() >= 2, "{victims:?}");
    for victim in victims {
        let mut noise = lab.on_node(&noisy, "noise", LAB, ["noise", "--connections", "50", &victim]).unwrap();
        assert_eq!(noise.wait_exit(LONG).unwrap(), Exit::Code(0), "{}", noise.tail());
    }
    agents.extend(start_agents(&lab, &nodes[1..]));
    assert_eq!(deploy.wait(LONG).unwrap().0, Exit::Code(0));
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

/// Resident memory in bytes.
fn resident(process: &Process) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// `slidecast-lab forge` plays as many as are wanted.
fn forged() {
    let said = std::sync::Mutex::new(String::new());
    let options = forge::Options { runs: 200, seed: 1, jobs: 2, until_failure: false };
    let good = forge::run(options, &|line| said.lock().unwrap().push_str(&format!("{line}\n"))).unwrap();
    assert!(good, "{}", said.lock().unwrap());
}
