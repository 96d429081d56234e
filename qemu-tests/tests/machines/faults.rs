//! Disks that fail, cables that are pulled, power that goes.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde_json::json;
use slidecast_lab::machine::{Boot, Bus, Machine, Options};
use slidecast_lab::{Exit, Lab};

use crate::Takes::All;
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, LONG, SOON, all_done, finish};

pub(crate) const TESTS: &[Test] = &[
    ("faults::a_disk_that_fails_to_flush_is_named_and_its_neighbours_are_done", All, failing_flush),
    ("faults::what_the_kernel_says_of_a_disk_that_fails_is_on_both_sides_and_in_the_report", All, kernel_words),
    ("faults::a_machine_whose_cable_is_cut_is_left_behind_and_the_others_are_done", All, cut_cable),
    ("faults::a_machine_that_stood_still_is_let_in_again_and_done", All, stood_still),
    (
        "faults::the_kernels_words_about_an_nvme_disk_that_answers_no_more_are_at_the_server_and_the_others_are_done",
        All,
        stuck_nvme,
    ),
    ("faults::a_slow_disk_is_done_all_the_same", All, slow_disk),
    ("faults::after_a_power_cut_the_disk_does_not_boot_and_the_next_network_boot_finishes", All, power_cut),
];

/// Slow enough for something to happen in the middle.
const SLOW: u64 = 4 << 20;

/// The disk holds at least this much.
fn wait_until_written(machine: &mut Machine, bytes: u64) {
    let deadline = Instant::now() + LONG;
    let file = machine.options.disks[0].file.clone();
    while std::fs::metadata(&file).unwrap().blocks() * 512 < bytes {
        assert!(machine.is_on() && Instant::now() < deadline, "{} was not written", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn failing_flush() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 3, &["--then", "poweroff"]);
    let disk = |name: &str| fixtures.disk(&lab, name);
    let rules = "[inject-error]\nevent = \"flush_to_disk\"\nerrno = \"5\"\nonce = \"off\"\n";
    let start = |disk| lab.machine(Options::new(fixtures.kernel(), vec![disk])).unwrap();
    let mut bad = start(disk("bad").failing(rules).unwrap());
    let mut machines: Vec<Machine> = ["d1", "d2"].map(|name| start(disk(name))).into();
    bad.wait_for("slidecast: failed disk-flush", BOOT).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:?}");
    assert_eq!(report.nodes.iter().filter(|node| node.state == "done").count(), 2, "{report:?}");
    assert!(report.nodes.iter().any(|node| node.reason == "disk-flush"), "{report:?}");
    finish(fixtures, &mut machines);
}

fn kernel_words() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 1, &[]);
    let rules = "[inject-error]\nevent = \"write_aio\"\nerrno = \"5\"\nonce = \"off\"\n";
    let disk = fixtures.disk(&lab, "bad").failing(rules).unwrap();
    let mut machine = lab.machine(Options::new(fixtures.kernel(), vec![disk])).unwrap();
    // The kernel prints it on the serial line, and the server shows it.
    machine.wait_for("I/O error, dev vda, sector", BOOT).unwrap();
    deploy.process.wait_for("kernel: I/O error, dev vda, sector", SOON).unwrap();
    machine.wait_for("the kernel: I/O error, dev vda, sector", SOON).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:?}");
    let node = &report.nodes[0];
    assert_eq!(node.reason, "disk-write", "{report:?}");
    assert!(node.detail.contains("on /dev/vda: I/O error; the kernel: I/O error, dev vda"), "{report:?}");
    assert!(!machine.console().contains("warning: kernel: I/O error"), "the serial line has it twice");
}

fn cut_cable() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 3, &["--then", "poweroff"]);
    let disk = |n: usize| fixtures.disk(&lab, &format!("d{n}")).writing_at(SLOW);
    let start = |n| lab.machine(Options::new(fixtures.kernel(), vec![disk(n)])).unwrap();
    let mut machines: Vec<Machine> = (1..=3).map(start).collect();
    // Wherever it is in the chain.
    wait_until_written(&mut machines[0], 8 << 20);
    let cut = machines.remove(0);
    lab.plug(&cut, 0, false).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:?}");
    assert_eq!(report.nodes.iter().filter(|node| node.state == "done").count(), 2, "{report:?}");
    assert!(report.nodes.iter().any(|node| node.reason == "node-lost"), "{report:?}");
    finish(fixtures, &mut machines);
}

fn stood_still() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 2, &["--then", "poweroff"]);
    let disk = |n: usize| fixtures.disk(&lab, &format!("d{n}")).writing_at(SLOW);
    let start = |n| lab.machine(Options::new(fixtures.kernel(), vec![disk(n)])).unwrap();
    let mut machines: Vec<Machine> = (1..=2).map(start).collect();
    wait_until_written(&mut machines[0], 8 << 20);
    machines[0].qmp("stop", &json!({})).unwrap();
    deploy.process.wait_for("is lost", SOON).unwrap();
    // The server has closed its control link, too.
    std::thread::sleep(Duration::from_secs(4));
    machines[0].qmp("cont", &json!({})).unwrap();
    let report = all_done(deploy, 2);
    assert!(report.nodes.iter().any(|node| node.returned == 1), "{report:?}");
    finish(fixtures, &mut machines);
}

fn stuck_nvme() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 3, &["--then", "poweroff"]);
    let start = |name: &str| {
        let disk = fixtures.disk(&lab, name).on(Bus::Nvme).writing_at(SLOW);
        lab.machine(Options::new(fixtures.kernel(), vec![disk])).unwrap()
    };
    let mut machines: Vec<Machine> = ["bad", "d1", "d2"].map(start).into();
    wait_until_written(&mut machines[0], 8 << 20);
    // The controller lives, and no request ends any more.
    let limits =
        json!({ "device": "disk0", "bps": 0, "bps_rd": 1, "bps_wr": 1, "iops": 0, "iops_rd": 0, "iops_wr": 0 });
    machines[0].qmp("block_set_io_throttle", &limits).unwrap();
    machines[0].wait_for("warning: kernel: nvme nvme0: I/O", LONG).unwrap();
    deploy.process.wait_for("kernel: nvme nvme0: I/O", SOON).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:?}");
    assert_eq!(report.nodes.iter().filter(|node| node.state == "done").count(), 2, "{report:?}");
    assert_eq!(report.nodes.iter().filter(|node| node.state == "failed").count(), 1, "{report:?}");
    machines.remove(0).cut_power();
    finish(fixtures, &mut machines);
}

fn slow_disk() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let deploy = fixtures.deploy(&lab, 2, &["--then", "poweroff"]);
    let disks = [fixtures.disk(&lab, "slow").writing_at(SLOW), fixtures.disk(&lab, "quick")];
    let mut machines = disks.map(|disk| lab.machine(Options::new(fixtures.kernel(), vec![disk])).unwrap());
    all_done(deploy, 2);
    finish(fixtures, &mut machines);
}

fn power_cut() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let mut boot_server = lab.boot_server(&fixtures.boot.dir, false).unwrap();
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let options = Options::new(Boot::DiskThenNetwork, vec![fixtures.disk(&lab, "d").writing_at(SLOW)]).memory(512);
    let mut machine = lab.machine(options).unwrap();
    wait_until_written(&mut machine, 8 << 20);
    machine.cut_power();
    drop(deploy);
    let fetched = |process: &slidecast_lab::Process| process.said().matches("fetched initramfs.img").count();
    assert_eq!(fetched(&boot_server), 1);
    // The firmware tries the disk first, and goes on to the network.
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    machine.start_again().unwrap();
    boot_server.wait_until("booting it again", BOOT, |process| fetched(process) == 2).unwrap();
    let report = all_done(deploy, 1);
    assert!(report.nodes[0].blocks_kept > 0, "what had been written was kept: {report:?}");
    finish(fixtures, std::slice::from_mut(&mut machine));
}
