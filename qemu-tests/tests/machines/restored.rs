//! The whole way: empty machines boot from the network, are written, restart, and are what the image is.

use slidecast_lab::disk::debian::{self, Flavour};
use slidecast_lab::machine::{Boot, Disk, Machine, Options};
use slidecast_lab::{Exit, Lab};

use crate::Takes::All;
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, LONG, slidecast};

pub(crate) const TESTS: &[Test] =
    &[("restored::bios_and_uefi_machines_boot_from_the_network_and_then_show_debians_login", All, login)];

fn login() {
    let fixtures = Fixtures::get();
    let debian = debian::make(Flavour::Minimal, &mut |step| eprintln!("{step}")).unwrap();
    let lab = Lab::new(1).unwrap();
    let mut boot_server = lab.boot_server(&fixtures.boot.dir, false).unwrap();
    let image = lab.path("debian.slide");
    slidecast(["image".as_ref(), "create".as_ref(), debian.first.as_path(), "-o".as_ref(), &image]);
    let key = fixtures.key.display().to_string();
    let mut deploy = lab.deploy(&image, 2, &["--key-file", &key, "--timeout", "180s", "--then", "reboot"]).unwrap();
    let disk = |name: &str| Disk::empty(&lab.path(name), debian.layout.bytes()).unwrap();
    let options = |name: &str| Options::new(Boot::DiskThenNetwork, vec![disk(name)]).memory(512).restarting();
    let mut machines: Vec<Machine> =
        [options("bios"), options("uefi").uefi()].map(|one| lab.machine(one).unwrap()).into();
    for fetched in ["fetched boot.ipxe", "fetched snponly.efi"] {
        boot_server.wait_for(fetched, BOOT).unwrap();
    }
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    for machine in &mut machines {
        machine.wait_for("slidecast: rebooting", BOOT).unwrap();
        machine.wait_for("sample login:", LONG).unwrap();
    }
    assert_eq!(boot_server.said().matches("fetched initramfs.img").count(), 2, "they restarted from their own disks");
}
