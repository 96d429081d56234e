//! One disk under several names: device nodes of any name, hard links of a file behind a loop device, loop devices over one file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use slidecast_lab::target::attach;
use slidecast_lab::{Exit, Lab, Node, NodeOptions, TargetKind, programs, tool};

use crate::bad_targets::assert_refused;
use crate::fixtures::{Fixtures, LONG, SOON};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("names::a_device_node_of_any_name_is_the_disk", Needs::Loops, any_node),
    ("names::a_node_whose_name_is_that_of_another_disk_is_not_believed", Needs::Loops, another_disks_name),
    ("names::a_hard_link_of_a_file_behind_a_loop_device_is_refused", Needs::Loops, hard_link),
    ("names::a_disk_that_is_behind_a_loop_device_is_refused", Needs::Loops, behind_loop),
    ("names::two_loop_devices_over_one_file_are_one_disk_and_both_are_named", Needs::Loops, two_loops),
    ("names::a_mount_of_one_loop_device_holds_the_other_over_its_file", Needs::Loops, other_is_mounted),
];

fn loop_node(lab: &Lab, bytes: u64) -> Node {
    lab.node(0, &NodeOptions::file(bytes).on(TargetKind::Loop { sector: 512 })).unwrap()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A device node of this name for the device of another node.
fn node_for(path: &Path, device: &Path) {
    let rdev = fs::metadata(device).unwrap().rdev();
    let (major, minor) = (libc::major(rdev).to_string(), libc::minor(rdev).to_string());
    tool::run("mknod", [text(path), "b".to_owned(), major, minor]).unwrap();
}

/// Deploys the base with this `--target` of the agent, which must go well; gives what both sides said.
fn deployed(lab: &Lab, node: &Node, target: &str) -> (String, String) {
    let mut deploy = lab.deploy(&Fixtures::get().base, 1, &["--progress", "json"]).unwrap();
    let key = lab.key().unwrap().with_extension("key.pub").display().to_string();
    let mut agent = lab.agent_with(node, ["--target", target, "--server-key", &key, "--once"]).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}\n{}", agent.tail());
    assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(0));
    // On a larger disk the table is another.
    if node.target.bytes == Fixtures::get().bytes() {
        Fixtures::get().assert_holds_base(node);
    }
    (deploy.process.said(), agent.said())
}

fn any_node() {
    let lab = Lab::new(1).unwrap();
    let node = loop_node(&lab, Fixtures::get().bytes());
    let made = lab.path("some-disk");
    node_for(&made, &node.target.path);
    let (server, _) = deployed(&lab, &node, &text(&made));
    assert!(server.contains(&format!("\"target\":\"{}\"", text(&node.target.path))), "{server}");
    // The same by a mount over a file.
    let mounted = lab.path("some-file");
    fs::write(&mounted, "").unwrap();
    tool::run("mount", ["--bind".as_ref(), node.target.path.as_os_str(), mounted.as_os_str()]).unwrap();
    deployed(&lab, &node, &text(&mounted));
}

fn another_disks_name() {
    let lab = Lab::new(1).unwrap();
    // A size that no other disk of this machine has.
    let bytes = Fixtures::get().bytes() + (9 << 20) + 512 * 33;
    let (node, other) = (loop_node(&lab, bytes), loop_node(&lab, bytes + 512));
    let mut deploy = lab.deploy(&Fixtures::get().base, 1, &["--timeout", "10s"]).unwrap();
    let key = lab.key().unwrap().with_extension("key.pub").display().to_string();
    // In this agent's world the name of the one disk leads to the other.
    let (path, others) = (text(&node.target.path), text(&other.target.path));
    let script = format!("mount --bind {others} {path} && exec \"$0\" --target size={bytes} --server-key {key} --once");
    let agent = programs::agent().unwrap().display().to_string();
    let args = ["--mount", "sh", "-c", &script, &agent];
    let mut agent = lab.on_node(&node, &node.name, "unshare", args).unwrap();
    assert!(matches!(deploy.process.wait_exit(LONG).unwrap(), Exit::Code(1 | 3)), "{}", deploy.process.tail());
    assert_ne!(agent.wait_exit(SOON).unwrap(), Exit::Code(0));
    assert!(agent.said().contains("the node is not the disk of that name"), "{}", agent.tail());
    for disk in [&node, &other] {
        assert!(fs::read(&disk.target.file).unwrap().iter().all(|&byte| byte == 0), "{}", agent.tail());
    }
}

fn hard_link() {
    let lab = Lab::new(1).unwrap();
    let node = loop_node(&lab, Fixtures::get().bytes());
    let link = node.target.file.with_extension("link");
    fs::hard_link(&node.target.file, &link).unwrap();
    assert_refused(&lab, &node, &text(&link), "target-held");
}

fn behind_loop() {
    let lab = Lab::new(1).unwrap();
    let node = loop_node(&lab, Fixtures::get().bytes());
    let _over = Attached::over(&node.target.path);
    assert_refused(&lab, &node, &text(&node.target.path), "target-held");
}

fn two_loops() {
    let lab = Lab::new(1).unwrap();
    // A size that no other disk of this machine has.
    let bytes = Fixtures::get().bytes() + (11 << 20) + 512 * 55;
    let node = loop_node(&lab, bytes);
    let other = Attached::over(&node.target.file);
    let (server, agent) = deployed(&lab, &node, &format!("transport=loop,size={bytes}"));
    for said in [server, agent] {
        assert!(said.contains("(also /dev/loop"), "{said}");
    }
    // By the name of either it is that one.
    let (server, _) = deployed(&lab, &node, &text(&other.0));
    assert!(server.contains(&format!("\"target\":\"{}\"", text(&other.0))), "{server}");
}

fn other_is_mounted() {
    let lab = Lab::new(1).unwrap();
    let node = loop_node(&lab, Fixtures::get().bytes());
    let other = Attached::over(&node.target.file);
    tool::run("mke2fs", [Path::new("-q"), &other.0]).unwrap();
    let dir = lab.path("mounted");
    fs::create_dir(&dir).unwrap();
    // Read-only, so that the kernel writes nothing either.
    tool::run("mount", ["-o".as_ref(), "ro".as_ref(), other.0.as_os_str(), dir.as_os_str()]).unwrap();
    assert_refused(&lab, &node, &text(&node.target.path), "target-mounted");
    tool::run("umount", [&dir]).unwrap();
}

/// A loop device that goes at the end.
struct Attached(PathBuf);

impl Attached {
    fn over(file: &Path) -> Self {
        Self(attach(file, 512).unwrap())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = tool::run("losetup", ["-d".as_ref(), self.0.as_os_str()]);
    }
}
