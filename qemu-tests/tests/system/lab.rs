//! The lab itself: if these fail, no other result means anything.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use slidecast_lab::process::Place;
use slidecast_lab::run::Run;
use slidecast_lab::{Exit, Lab, NodeOptions, Process, TargetKind};

use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("lab::broadcasts_reach_everybody_behind_one_card_and_nobody_else", Needs::Network, broadcasts),
    ("lab::tcp_on_a_shaped_link_carries_94_per_cent_of_its_rate", Needs::Network, shaped),
    ("lab::an_unplugged_node_is_silent_until_it_is_plugged_in_again", Needs::Network, unplugged),
    ("lab::a_node_sees_its_own_host_name_and_the_speed_of_its_link", Needs::Network, own_view),
    ("lab::processor_time_of_a_node_is_counted", Needs::Cgroups, counted),
    ("lab::targets_are_zeros_of_the_size_and_sector_size_asked_for", Needs::Loops, targets),
    ("lab::ctrl_c_removes_everything", Needs::Network, interrupted),
    ("lab::what_a_killed_run_left_is_removed_by_the_next", Needs::Network, killed),
    ("lab::a_user_without_rights_gets_a_lab_in_a_user_namespace", Needs::Network, unprivileged),
];

const SOON: Duration = Duration::from_secs(20);
const LAB: &str = env!("CARGO_BIN_EXE_slidecast-lab");

fn file_node() -> NodeOptions {
    NodeOptions::file(1 << 20)
}

/// Sends "hello" as a broadcast from `node` until `until` holds.
fn shout(lab: &Lab, node: &slidecast_lab::Node, until: &mut dyn FnMut() -> bool, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        let script = "echo hello | socat -u - UDP4-DATAGRAM:255.255.255.255:9999,broadcast,so-bindtodevice=eth0";
        let mut shout = lab.on_node(node, "shout", "sh", ["-c", script]).unwrap();
        assert_eq!(shout.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", shout.tail());
        if until() {
            return true;
        }
    }
    false
}

fn listener(lab: &Lab, node: &slidecast_lab::Node, name: &str) -> Process {
    let mut process = lab.on_node(node, name, "socat", ["-u", "UDP4-RECV:9999", "-"]).unwrap();
    let bound = |process: &Process| {
        fs::read_to_string(format!("/proc/{}/net/udp", process.pid())).is_ok_and(|table| table.contains(":270F"))
    };
    process.wait_until("binding", SOON, bound).unwrap();
    process
}

fn broadcasts() {
    let lab = Lab::new(2).unwrap();
    let nodes = lab.nodes(4, &file_node()).unwrap();
    let mut server = lab.on_server("server-ear", "socat", ["-u", "UDP4-RECV:9999", "-"]).unwrap();
    let same = listener(&lab, &nodes[2], "same");
    let other = listener(&lab, &nodes[1], "other");
    assert!(shout(&lab, &nodes[0], &mut || server.out().contains("hello") && same.out().contains("hello"), SOON));
    assert_eq!(other.out(), "");
    server.kill();
}

/// Mbit/s that a second of TCP carries from node `a` to node `b`.
fn tcp_rate(lab: &Lab, a: &slidecast_lab::Node, b: &slidecast_lab::Node) -> f64 {
    let mut sink = lab.on_node(b, "sink", "iperf3", ["-s", "-1"]).unwrap();
    sink.wait_for_tcp(5201, SOON).unwrap();
    let mut source = lab.on_node(a, "source", "iperf3", ["-c", &b.address, "-t", "2", "-O", "1", "-J"]).unwrap();
    assert_eq!(source.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", source.tail());
    let json: serde_json::Value = serde_json::from_str(&source.out()).unwrap();
    json["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

fn shaped() {
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &file_node().mbits(100)).unwrap();
    let rate = tcp_rate(&lab, &nodes[0], &nodes[1]);
    assert!((85.0..96.0).contains(&rate), "{rate} Mbit/s");
    lab.shape(&nodes[1], 20).unwrap();
    let rate = tcp_rate(&lab, &nodes[0], &nodes[1]);
    assert!((16.0..20.0).contains(&rate), "{rate} Mbit/s");
}

fn unplugged() {
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &file_node()).unwrap();
    let ear = listener(&lab, &nodes[1], "ear");
    // First that it is heard at all: a test for silence alone would pass on a broken network.
    assert!(shout(&lab, &nodes[0], &mut || ear.out().contains("hello"), SOON));
    lab.unplug(&nodes[0]).unwrap();
    let heard = ear.out().len();
    assert!(!shout(&lab, &nodes[0], &mut || ear.out().len() > heard, Duration::from_millis(500)));
    lab.replug(&nodes[0]).unwrap();
    assert!(shout(&lab, &nodes[0], &mut || ear.out().len() > heard, SOON));
}

fn own_view() {
    let lab = Lab::with_card_rate(1, 1000).unwrap();
    let node = lab.node(0, &file_node().mbits(100)).unwrap();
    let view = "cat /proc/sys/kernel/hostname /sys/class/net/eth0/speed; ls /sys/class/net";
    let mut on_node = lab.on_node(&node, "view", "sh", ["-c", view]).unwrap();
    on_node.wait_exit(SOON).unwrap();
    assert_eq!(on_node.out().split_whitespace().collect::<Vec<_>>(), ["n1", "100", "eth0", "lo"]);
    let mut on_server = lab.on_server("server-view", "sh", ["-c", view]).unwrap();
    on_server.wait_exit(SOON).unwrap();
    assert_eq!(on_server.out().split_whitespace().collect::<Vec<_>>(), ["server", "1000", "eth0", "lo"]);
}

fn counted() {
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &file_node()).unwrap();
    let mut busy =
        lab.on_node(&nodes[0], "busy", "sh", ["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]).unwrap();
    assert_eq!(busy.wait_exit(SOON).unwrap(), Exit::Code(0));
    let spent = |node: &slidecast_lab::Node| node.group.as_ref().unwrap().cpu().unwrap();
    assert!(spent(&nodes[0]) > Duration::from_millis(20), "{:?}", spent(&nodes[0]));
    assert!(spent(&nodes[1]) < Duration::from_millis(20), "{:?}", spent(&nodes[1]));
}

fn targets() {
    let lab = Lab::new(1).unwrap();
    for sector in [512, 4096] {
        let node = lab.node(0, &NodeOptions::file(8 << 20).on(TargetKind::Loop { sector })).unwrap();
        let size = |flag| slidecast_lab::tool::run("blockdev", [Path::new(flag), &node.target.path]).unwrap();
        assert_eq!(size("--getss").trim(), sector.to_string());
        assert_eq!(size("--getsize64").trim(), (8 << 20).to_string());
        assert!(fs::read(&node.target.path).unwrap().iter().all(|&byte| byte == 0));
    }
}

/// What is left of the run `name` on this machine.
fn leftovers(name: &str) -> Vec<String> {
    let mut left = Vec::new();
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    left.extend(names.filter(|path| path.to_string_lossy().contains(&format!("{name}-"))));
    let loops = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path().join("loop/backing_file"));
    left.extend(loops.filter(|file| fs::read_to_string(file).unwrap_or_default().contains(&format!("/{name}/"))));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut left: Vec<String> = left.into_iter().map(|path| path.display().to_string()).collect();
    left.extend(mounts.lines().filter(|line| line.contains(&format!("/{name}/"))).map(str::to_owned));
    let dir = format!("/var/tmp/slidecast-lab-0/{name}");
    left.extend(Path::new(&dir).exists().then_some(dir));
    left
}

/// A lab held by another process, and that lab's name.
fn held(run: &Run) -> (Process, String) {
    let mut hold = Process::start("hold", run.dir(), &Place::default(), Path::new(LAB), ["hold"]).unwrap();
    hold.wait_for("ready: ", SOON).unwrap();
    let out = hold.out();
    let name = out.split("ready: ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    if !slidecast_lab::privilege::in_user_namespace() {
        assert!(!leftovers(&name).is_empty());
    }
    (hold, name)
}

fn interrupted() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = Run::start().unwrap();
        let (mut hold, name) = held(&run);
        hold.signal(signal);
        assert_eq!(hold.wait_exit(SOON).unwrap(), Exit::Code(128 + signal as i32));
        assert_eq!(leftovers(&name), [""; 0]);
    }
}

fn killed() {
    let run = Run::start().unwrap();
    let (mut hold, name) = held(&run);
    hold.kill();
    let mut clean = Process::start("clean", run.dir(), &Place::default(), Path::new(LAB), ["clean"]).unwrap();
    assert_eq!(clean.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", clean.tail());
    assert_eq!(leftovers(&name), [""; 0]);
}

fn unprivileged() {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    let allowed = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
        .args(["unshare", "--user", "--map-root-user", "--mount", "--net", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let run = Run::start().unwrap();
    // A folder that nobody may look into would hide the program.
    let copy = std::env::temp_dir().join(format!("slidecast-lab-{}", std::process::id()));
    fs::copy(LAB, &copy).unwrap();
    let args = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"].map(std::ffi::OsString::from);
    let args = args.into_iter().chain([copy.clone().into(), "hold".into()]);
    let mut hold = Process::start("hold", run.dir(), &Place::default(), Path::new("setpriv"), args).unwrap();
    if allowed {
        hold.wait_for("ready: ", SOON).unwrap();
        // No loop device: the disks are the files themselves.
        assert!(hold.out().contains("n1.disk"), "{}", hold.out());
        hold.signal(Signal::SIGINT);
        assert_eq!(hold.wait_exit(SOON).unwrap(), Exit::Code(130));
    } else {
        assert_eq!(hold.wait_exit(SOON).unwrap(), Exit::Code(1));
        assert!(hold.err().contains("run it as root"), "{}", hold.err());
    }
    fs::remove_file(copy).unwrap();
}
