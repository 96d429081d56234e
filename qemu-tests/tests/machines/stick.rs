//! The USB stick: one file for BIOS and UEFI.

use slidecast_lab::Lab;
use slidecast_lab::machine::{Machine, Options};

use crate::Test;
use crate::fixtures::{BOOT, Fixtures, all_done, finish};

pub(crate) const TESTS: &[Test] = &[
    ("stick::the_same_stick_starts_a_machine_with_bios_and_one_with_uefi", both),
    ("stick::the_same_input_gives_the_same_bytes", same_bytes),
];

fn both() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let deploy = fixtures.deploy(&lab, 2, &["--then", "poweroff"]);
    let options = |name: &str| Options::new(fixtures.boot.stick(), vec![fixtures.disk(&lab, name)]).memory(512);
    // The stick is a disk, too: it must not make the choice ambiguous, nor be written. It is read-only here besides.
    let screen = Options { screen: true, ..options("bios") };
    let mut machines: Vec<Machine> = [screen, options("uefi").uefi()].map(|one| lab.machine(one).unwrap()).into();
    machines[0].wait_for("slidecast: waiting for server", BOOT).unwrap();
    let screen = machines[0].screenshot().unwrap();
    assert!(screen.lit_rows() > 20, "{} lit rows of {}", screen.lit_rows(), screen.height);
    all_done(deploy, 2);
    finish(fixtures, &mut machines);
}

fn same_bytes() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let key = std::fs::read_to_string(fixtures.key.with_extension("key.pub")).unwrap();
    // In another folder, at another time.
    let again = slidecast_lab::machine::BootFiles::make(&lab.path("again"), "common", key.trim(), &[]).unwrap();
    let manifest = |dir: &std::path::Path| std::fs::read_to_string(dir.join("manifest.txt")).unwrap();
    assert_eq!(manifest(&again.dir), manifest(&fixtures.boot.dir));
    let bytes = |name: &str| std::fs::metadata(again.file(name)).unwrap().len();
    assert!(bytes("initramfs.img") <= 20 << 20, "{}", bytes("initramfs.img"));
    for name in ["vmlinuz", "slidecast.efi", "slidecast.iso", "boot.ipxe"] {
        assert!(manifest(&again.dir).contains(&format!("{} {name}\n", bytes(name))), "{name}");
    }
}
