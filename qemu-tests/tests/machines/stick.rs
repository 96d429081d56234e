//! The USB stick: one file for BIOS and UEFI, and a CD as well.

use slidecast_lab::machine::{Disk, Machine, Options};
use slidecast_lab::{Lab, compare};

use crate::Takes::{All, One};
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, SOON, all_done, finish};

pub(crate) const TESTS: &[Test] = &[
    ("stick::the_same_stick_starts_a_machine_with_bios_and_one_with_uefi", All, both),
    ("stick::the_same_file_is_a_cd_that_starts_both", All, cd),
    ("stick::what_a_machine_was_booted_from_is_refused_whatever_is_asked_for", One, never_written),
];

fn both() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let options = |name: &str| Options::new(fixtures.boot.stick(), vec![fixtures.disk(&lab, name)]).memory(512);
    // The stick is a disk, too: it must not make the choice ambiguous, nor be written. It is read-only here besides.
    let screen = |options: Options| Options { screen: true, ..options };
    let start = |options| lab.machine(screen(options)).unwrap();
    let mut machines: Vec<Machine> = [options("bios"), options("uefi").uefi()].map(start).into();
    for machine in &mut machines {
        machine.wait_for("slidecast: waiting for server", BOOT).unwrap();
    }
    let screens = [0, 1].map(|n: usize| machines[n].screenshot().unwrap());
    for screen in &screens {
        assert!(screen.lit_rows() > 20, "{} lit rows of {}", screen.lit_rows(), screen.height);
    }
    // A text screen fills the monitor as it is; on one of many points the letters are twice as large.
    assert!(!screens[0].has_double_rows() && screens[1].has_double_rows(), "{} rows", screens[1].height);
    let deploy = fixtures.deploy(&lab, 2, &["--then", "poweroff"]);
    all_done(deploy, 2);
    finish(fixtures, &mut machines);
}

fn cd() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let options = || Options::new(fixtures.boot.cd(), vec![]).memory(512);
    let mut machines: Vec<Machine> = [options(), options().uefi()].map(|one| lab.machine(one).unwrap()).into();
    for machine in &mut machines {
        machine.wait_for("slidecast: waiting for server", BOOT).unwrap();
    }
}

fn never_written() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let _deploy = fixtures.deploy(&lab, 1, &[]);
    // As a card reader may show it: writable, not removable, large enough, and asked for by name.
    let stick = lab.path("stick.disk");
    std::fs::copy(fixtures.boot.file("slidecast.iso"), &stick).unwrap();
    let bytes = std::fs::metadata(&stick).unwrap().len();
    std::fs::File::options().write(true).open(&stick).unwrap().set_len(fixtures.disks.layout.bytes() * 2).unwrap();
    let boot = fixtures.boot.kernel("slidecast.target=/dev/vda").unwrap();
    let mut machine = lab.machine(Options::new(boot, vec![Disk::of(&stick)])).unwrap();
    machine.wait_for("this machine has no disk of its own", BOOT).unwrap();
    machine.wait_for("slidecast: failed target-boot-medium", SOON).unwrap();
    machine.cut_power();
    let same = compare::compare_ranges(&stick, &fixtures.boot.file("slidecast.iso"), std::slice::from_ref(&(0..bytes)))
        .unwrap();
    assert!(matches!(same, slidecast_lab::Compared::Equal(_)), "{same}");
}
