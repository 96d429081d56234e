//! In front of the machine: its keyboard, a shell where that is allowed, and what the first process does when the second fails.

use std::time::Duration;

use serde_json::json;
use slidecast_lab::machine::{BootFiles, Machine, Options};
use slidecast_lab::{Exit, Lab, compare};

use crate::Takes::One;
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, LONG, SOON};

pub(crate) const TESTS: &[Test] = &[
    ("console::somebody_at_the_keyboard_picks_a_disk_on_the_screen", One, keyboard),
    ("console::after_the_third_panic_the_machine_holds_and_orphans_are_collected", One, panics),
    ("console::without_leave_there_is_no_shell", One, no_shell),
];

fn press(machine: &Machine, key: &str) {
    machine.qmp("send-key", &json!({ "keys": [{ "type": "qcode", "data": key }] })).unwrap();
}

fn keyboard() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let mut deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let boot = fixtures.boot.kernel("console=tty0 slidecast.attended=1").unwrap();
    let disks = ["a", "b"].map(|letter| fixtures.disk(&lab, letter)).to_vec();
    let usb = ["-device", "qemu-xhci,id=keys", "-device", "usb-kbd,bus=keys.0"].map(str::to_owned).to_vec();
    let options = Options { screen: true, more: usb, ..Options::new(boot, disks) };
    let mut machine = lab.machine(options).unwrap();
    machine.wait_for("2: /dev/vdb (serial b", BOOT).unwrap();
    press(&machine, "1");
    machine.wait_for("Write to /dev/vda (serial a", SOON).unwrap();
    // Not that one.
    press(&machine, "n");
    machine.wait_for("2: /dev/vdb (serial b", SOON).unwrap();
    press(&machine, "2");
    machine.wait_for("Write to /dev/vdb (serial b", SOON).unwrap();
    press(&machine, "y");
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    machine.wait_until_off(SOON).unwrap();
    fixtures.assert_holds_image(&machine.options.disks[1].file);
    assert!(compare::data_ranges(&machine.options.disks[0].file).unwrap().is_empty(), "the other disk was written");
}

fn panics() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let debug = lab.path("debug/bin");
    std::fs::create_dir_all(&debug).unwrap();
    std::fs::copy("/bin/busybox", debug.join("busybox")).unwrap();
    let add = lab.path("debug").display().to_string();
    let more = ["--add", &add, "--cmdline", "slidecast.shell=1"];
    let files = BootFiles::make(&lab.path("out"), "virtio", "insecure", &more).unwrap();
    let boot = files.kernel("slidecast.key=insecure slidecast.shell=1").unwrap();
    let mut machine = lab.machine(Options::new(boot, vec![fixtures.disk(&lab, "d")])).unwrap();
    machine.wait_for("slidecast: waiting for server", BOOT).unwrap();
    machine.type_text("s").unwrap();
    machine.wait_for("slidecast# ", SOON).unwrap();
    // An orphan: whoever started it is gone before it ends.
    machine
        .type_text(
            "o=$(sh -c 'sleep 1 >&- 2>&- & echo $!'); ls -d /proc/$o; sleep 3; ls -d /proc/$o || echo colle''cted\n",
        )
        .unwrap();
    machine.wait_for("collected", SOON).unwrap();
    machine.type_text("for i in 1 2 3; do kill -ABRT $(pidof slidecast-worker); sleep 13; done &\n").unwrap();
    for line in ["panic 1 of 3: the worker was ended by SIGABRT", "starting again in 10 s", "waiting for server"] {
        machine.wait_for(&format!("slidecast: {line}"), SOON).unwrap();
    }
    machine.wait_for("slidecast: panic 2 of 3", SOON).unwrap();
    machine.wait_for("slidecast: panic 3 of 3", SOON).unwrap();
    machine.wait_for("slidecast: holding", SOON).unwrap();
    assert!(machine.wait_for("slidecast: boot", Duration::from_secs(12)).is_err(), "it began again");
    assert!(machine.is_on());
}

fn no_shell() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let mut machine = lab.machine(Options::new(fixtures.kernel(), vec![fixtures.disk(&lab, "d")])).unwrap();
    machine.wait_for("slidecast: waiting for server", BOOT).unwrap();
    machine.type_text("sl").unwrap();
    machine.wait_for("looking for a server", SOON).unwrap();
    assert!(!machine.console().contains("shell"), "{}", machine.console());
}
