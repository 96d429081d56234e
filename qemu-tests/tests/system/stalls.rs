//! What takes seconds and must hold nobody: a flush of the state folder, a disk that has to spin up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use slidecast_lab::chaos::disk::FaultyDisk;
use slidecast_lab::{Exit, Lab, TargetKind, tool};

use crate::fixtures::{Fixtures, LONG, SOON, says, start_agents, wait_until_written};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("stalls::a_state_folder_whose_flush_takes_five_seconds_costs_no_node", Needs::LoggedDisk, slow_state),
    ("stalls::a_node_whose_target_is_slow_to_open_is_heard_meanwhile", Needs::LoggedDisk, slow_target),
];

/// A file system on a disk that can be made to hang; unmounted when it goes.
struct Mounted(PathBuf);

impl Mounted {
    fn new(device: &Path, at: PathBuf) -> Self {
        tool::run("mke2fs", [Path::new("-q"), Path::new("-F"), Path::new("-t"), Path::new("ext4"), device]).unwrap();
        std::fs::create_dir(&at).unwrap();
        tool::run("mount", [device, &at]).unwrap();
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = tool::run("umount", [&self.0]);
    }
}

fn slow_state() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let file = lab.path("state.raw");
    std::fs::File::create(&file).unwrap().set_len(32 << 20).unwrap();
    let disk = FaultyDisk::new(&lab, "state", &file).unwrap();
    let state = Mounted::new(&disk.device, lab.path("state-folder"));
    let nodes = lab.nodes(3, &fixtures.node().mbits(100)).unwrap();
    let folder = state.0.display().to_string();
    let mut deploy = lab.deploy(&fixtures.base, nodes.len(), &["--state", &folder]).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    wait_until_written(&mut agents[0], &nodes[0], 1 << 20);
    // The length of the fault: every flush that begins in it takes until its end.
    disk.hang();
    std::thread::sleep(Duration::from_secs(5));
    disk.go_on();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(report.repair_log.is_empty(), "{:?}", report.repair_log);
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn slow_target() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let mut nodes = lab.nodes(2, &fixtures.node().on(TargetKind::File)).unwrap();
    let disk = FaultyDisk::new(&lab, "slow", &nodes[0].target.file).unwrap();
    nodes[0].target.path.clone_from(&disk.device);
    let mut deploy = lab.deploy(&fixtures.base, nodes.len(), &[]).unwrap();
    disk.hang();
    // What the kernel knows of the file behind the loop device it asks again after a second.
    std::thread::sleep(Duration::from_secs(2));
    let mut agents = start_agents(&lab, &nodes);
    agents[0].wait_for("calls this node", SOON).unwrap();
    // As long as a disk takes that has to spin up, and more than twice as long as a silent node is waited for.
    std::thread::sleep(Duration::from_secs(10));
    disk.go_on();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(!says(&deploy.process, &["left before the start"]), "{}", deploy.process.tail());
    assert_eq!(
        agents[0].said().matches("calls this node").count(),
        1,
        "it never lost its server: {}",
        agents[0].tail()
    );
    drop(agents);
    drop(disk);
    nodes[0].target.path = nodes[0].target.file.clone();
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}
