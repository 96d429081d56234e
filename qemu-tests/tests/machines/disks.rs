//! Disks of every kind: the right one or none.

use slidecast_lab::machine::{Bus, Disk, Machine, Options};
use slidecast_lab::{Exit, Lab, compare, target};

use crate::Takes::{All, One};
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, LONG, SOON, all_done, finish, slidecast};

pub(crate) const TESTS: &[Test] = &[
    ("disks::nvme_sata_and_scsi_are_written_and_a_disk_of_large_sectors_is_refused", All, kinds),
    ("disks::disks_of_large_sectors_get_the_image_of_such_a_disk", All, large_sectors),
    ("disks::of_two_disks_none_is_taken_until_somebody_picks_one", All, two_disks),
    ("disks::two_paths_to_one_disk_are_one_disk_and_both_are_named", One, two_paths),
];

fn kinds() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 3, &["--then", "poweroff"]);
    let start = |disk: Disk| lab.machine(Options::new(fixtures.kernel(), vec![disk])).unwrap();
    let large = fixtures.disk(&lab, "large").on(Bus::Scsi).with_large_sectors();
    let mut refused = start(large.clone());
    refused.wait_for("slidecast: failed target-sector-size", BOOT).unwrap();
    let buses = [("nvme", Bus::Nvme), ("sata", Bus::Sata), ("scsi", Bus::Scsi)];
    let mut machines: Vec<Machine> = buses.map(|(name, bus)| start(fixtures.disk(&lab, name).on(bus))).into();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert_eq!(report.nodes.iter().filter(|node| node.state == "done").count(), 3, "{report:?}");
    assert!(report.nodes.iter().any(|node| node.reason == "target-sector-size"), "{report:?}");
    finish(fixtures, &mut machines);
    assert!(compare::data_ranges(&large.file).unwrap().is_empty(), "a refused disk was written");
}

fn large_sectors() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    // An image knows the sectors of its disk from the disk: a file has none.
    if !target::loops_work() {
        return eprintln!("left out: this machine gives no loop devices");
    }
    let (source, image) = (lab.path("source.raw"), lab.path("large.slide"));
    std::fs::copy(&fixtures.raw, &source).unwrap();
    let device = target::attach(&source, 4096).unwrap();
    slidecast(["image".as_ref(), "create".as_ref(), device.as_path(), "-o".as_ref(), &image]);
    let _dhcp = lab.dhcp(&[]).unwrap();
    let key = fixtures.key.display().to_string();
    let args = ["--key-file", &key, "--timeout", "120s", "--then", "poweroff"];
    let deploy = lab.deploy(&image, 2, &args).unwrap();
    let start = |(name, bus)| {
        let disk = fixtures.disk(&lab, name).on(bus).with_large_sectors();
        lab.machine(Options::new(fixtures.kernel(), vec![disk])).unwrap()
    };
    let mut machines: Vec<Machine> = [("nvme", Bus::Nvme), ("scsi", Bus::Scsi)].map(start).into();
    all_done(deploy, 2);
    // The content is that of the small disk, and so is what `image export` gives.
    finish(fixtures, &mut machines);
}

fn two_disks() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let disks = |name: &str| ["a", "b"].map(|letter| fixtures.disk(&lab, &format!("{name}-{letter}"))).to_vec();
    let mut alone = lab.machine(Options::new(fixtures.kernel(), disks("alone"))).unwrap();
    alone.wait_for("slidecast: failed target-ambiguous", BOOT).unwrap();
    let boot = fixtures.boot.kernel("slidecast.attended=1").unwrap();
    let mut attended = lab.machine(Options::new(boot, disks("attended"))).unwrap();
    attended.wait_for("2: /dev/vdb (serial attended-b", BOOT).unwrap();
    attended.type_text("2").unwrap();
    attended.wait_for("Write to /dev/vdb (serial attended-b", SOON).unwrap();
    attended.type_text("y").unwrap();
    let (_, report) = deploy.wait(LONG).unwrap();
    assert!(report.nodes.iter().any(|node| node.state == "done"), "{report:?}");
    assert!(report.nodes.iter().any(|node| node.reason == "target-ambiguous"), "{report:?}");
    attended.wait_until_off(SOON).unwrap();
    fixtures.assert_holds_image(&attended.options.disks[1].file);
    let others = alone.options.disks.iter().chain(&attended.options.disks[..1]);
    for disk in others {
        assert!(compare::data_ranges(&disk.file).unwrap().is_empty(), "{} was written", disk.file.display());
    }
}

fn two_paths() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff", "--progress", "json"]);
    let disk = fixtures.disk(&lab, "san-lun-7");
    let options = Options::new(fixtures.kernel(), disk.clone().by_two_paths(0x5000_c500_a1b2_c3d4));
    let mut machine = lab.machine(options).unwrap();
    machine.wait_for("also /dev/sdb)", BOOT).unwrap();
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert!(deploy.process.said().contains("(also /dev/sdb)"), "{}", deploy.process.tail());
    machine.wait_until_off(SOON).unwrap();
    fixtures.assert_holds_image(&disk.file);
}
