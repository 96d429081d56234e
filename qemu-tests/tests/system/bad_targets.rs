//! Disks that must not be written: refused before the first write, with the reason.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use slidecast_lab::{Exit, Lab, Node, NodeOptions, Process, TargetKind, tool};

use crate::fixtures::{Fixtures, LONG, SOON, start_agents};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("bad_targets::one_sector_too_small_is_refused", Needs::Network, too_small),
    ("bad_targets::sectors_of_4096_bytes_are_refused_for_an_image_of_512", Needs::Loops, other_sectors),
    ("bad_targets::two_disks_that_match_are_refused_by_name", Needs::Loops, ambiguous),
    ("bad_targets::a_disk_that_is_not_there_is_refused", Needs::Network, absent),
    ("bad_targets::a_mounted_disk_is_refused", Needs::Loops, mounted),
    ("bad_targets::a_read_only_disk_is_refused", Needs::Loops, read_only),
    ("bad_targets::a_disk_that_another_program_holds_is_refused", Needs::Loops, held),
    ("bad_targets::a_refused_node_costs_the_others_nothing", Needs::Network, others_go_on),
];

/// The agent's `--target` on this node is refused with this reason; the disk stays as it was.
pub(crate) fn assert_refused(lab: &Lab, node: &Node, target: &str, reason: &str) {
    let before = fs::read(&node.target.file).unwrap();
    let mut deploy = lab.deploy(&Fixtures::get().base, 1, &["--timeout", "10s"]).unwrap();
    let key = lab.key().unwrap().with_extension("key.pub").display().to_string();
    let mut agent = lab.agent_with(node, ["--target", target, "--server-key", &key, "--once"]).unwrap();
    let exit = deploy.process.wait_exit(LONG).unwrap();
    assert!(matches!(exit, Exit::Code(1 | 3)), "{exit:?}: {}", deploy.process.tail());
    assert!(deploy.process.said().contains(reason), "{reason} is not in:\n{}", deploy.process.tail());
    let exit = agent.wait_exit(SOON).unwrap();
    assert!(matches!(exit, Exit::Code(code) if code != 0), "{exit:?}");
    assert!(agent.said().contains(reason), "{reason} is not in:\n{}", agent.tail());
    assert!(fs::read(&node.target.file).unwrap() == before, "the refused disk was written");
}

fn path(node: &Node) -> String {
    node.target.path.display().to_string()
}

fn loop_node(lab: &Lab, bytes: u64, sector: u32) -> Node {
    lab.node(0, &NodeOptions::file(bytes).on(TargetKind::Loop { sector })).unwrap()
}

fn too_small() {
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &NodeOptions::file(Fixtures::get().bytes() - 512)).unwrap();
    assert_refused(&lab, &node, &path(&node), "target-too-small");
}

fn other_sectors() {
    let lab = Lab::new(1).unwrap();
    let node = loop_node(&lab, Fixtures::get().bytes(), 4096);
    assert_refused(&lab, &node, &path(&node), "target-sector-size");
}

fn ambiguous() {
    let lab = Lab::new(1).unwrap();
    // A size that no other disk of this machine has.
    let bytes = Fixtures::get().bytes() + (13 << 20) + 512 * 77;
    let (node, other) = (loop_node(&lab, bytes, 512), loop_node(&lab, bytes, 512));
    let selector = format!("transport=loop,size={bytes}..{bytes}");
    assert_refused(&lab, &node, &selector, "target-ambiguous");
    assert!(fs::read(&other.target.file).unwrap().iter().all(|&byte| byte == 0));
}

fn absent() {
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &Fixtures::get().node()).unwrap();
    assert_refused(&lab, &node, "serial=NOSUCHDISK", "target-not-found");
}

fn mounted() {
    let lab = Lab::new(1).unwrap();
    let node = loop_node(&lab, Fixtures::get().bytes(), 512);
    tool::run("mke2fs", [Path::new("-q"), &node.target.path]).unwrap();
    let dir = lab.path("mounted");
    fs::create_dir(&dir).unwrap();
    tool::run("mount", [&node.target.path, &dir]).unwrap();
    // What mounting itself writes must be on the disk before it is looked at.
    tool::run("sync", ["-f".as_ref(), dir.as_os_str()]).unwrap();
    assert_refused(&lab, &node, &path(&node), "target-mounted");
}

fn read_only() {
    let lab = Lab::new(1).unwrap();
    let node = loop_node(&lab, Fixtures::get().bytes(), 512);
    tool::run("blockdev", [Path::new("--setro"), &node.target.path]).unwrap();
    assert_refused(&lab, &node, &path(&node), "target-read-only");
}

fn held() {
    let lab = Lab::new(1).unwrap();
    let node = loop_node(&lab, Fixtures::get().bytes(), 512);
    let _holder = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&node.target.path).unwrap();
    assert_refused(&lab, &node, &path(&node), "target-held");
}

fn others_go_on() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let small = lab.node(0, &NodeOptions::file(fixtures.bytes() - 512)).unwrap();
    let good = lab.nodes(2, &fixtures.node()).unwrap();
    let mut deploy = lab.deploy(&fixtures.base, 2, &[]).unwrap();
    let mut refused = lab.agent(&small).unwrap();
    let told = |process: &Process| process.said().contains("target-too-small");
    deploy.process.wait_until("saying who is refused", SOON, told).unwrap();
    let _agents = start_agents(&lab, &good);
    let (exit, report) = deploy.wait(LONG).unwrap();
    // As many as were waited for have it; that one never took part is in the report.
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    let entry = report.node(&small.address).unwrap();
    assert_eq!((entry.state.as_str(), entry.reason.as_str()), ("failed", "target-too-small"), "{entry:?}");
    good.iter().for_each(|node| fixtures.assert_holds_base(node));
    assert_ne!(refused.wait_exit(SOON).unwrap(), Exit::Code(0));
}
