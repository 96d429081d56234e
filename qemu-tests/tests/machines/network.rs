//! Booting from the network, beside another DHCP server and without PXE. Plain PXE is in `restored`, for BIOS and UEFI.

use std::path::PathBuf;

use slidecast_lab::machine::{Boot, Machine, Options};
use slidecast_lab::{Lab, NodeOptions};

use crate::Takes::{All, One};
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, SOON, all_done, finish};

pub(crate) const TESTS: &[Test] = &[
    ("network::machines_boot_beside_another_dhcp_server_that_knows_nothing_of_us", All, proxy),
    ("network::a_bios_machine_goes_on_from_undionly_to_the_agent", One, undionly),
    ("network::a_uefi_machine_boots_over_http_alone", One, http),
    ("network::a_uefi_machine_boots_over_tftp_without_ipxe", One, tftp),
];

fn proxy() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let other = lab.node(0, &NodeOptions::file(512)).unwrap();
    let words = "--keep-in-foreground --conf-file=/dev/null --port=0 --user=root --no-ping --log-dhcp --log-facility=- \
                 --dhcp-authoritative --dhcp-range=10.77.0.100,10.77.0.199,1h";
    let leases = format!("--dhcp-leasefile={}", lab.path("leases").display());
    let mut dhcp = lab.on_node(&other, "dhcp", "dnsmasq", words.split(' ').chain([leases.as_str()])).unwrap();
    dhcp.wait_for("IP range", BOOT).unwrap();
    let mut boot_server = lab.boot_server(&fixtures.boot.dir, true).unwrap();
    let deploy = fixtures.deploy(&lab, 2, &["--then", "poweroff"]);
    let options = |name| Options::new(Boot::Network, vec![fixtures.disk(&lab, name)]).memory(512);
    let mut machines: Vec<Machine> =
        [options("bios"), options("uefi").uefi()].map(|one| lab.machine(one).unwrap()).into();
    for _ in 0..2 {
        boot_server.wait_for("fetched initramfs.img", BOOT).unwrap();
    }
    all_done(deploy, 2);
    finish(fixtures, &mut machines);
    for machine in &machines {
        let given = dhcp.said().lines().any(|line| line.contains("DHCPACK") && line.contains(&machine.mac(0)));
        assert!(given, "the other server gave no address: {}", dhcp.tail());
    }
}

/// A BIOS whose PXE is not iPXE loads `undionly.kpxe` over TFTP, which drives the card through the PXE stack that loaded it.
/// QEMU has no such ROM: another iPXE loads it by name, with a stack of that kind below, and does nothing else.
fn undionly() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let script = lab.path("first.ipxe");
    let line = format!("#!ipxe\ndhcp net0 && chain tftp://{}/undionly.kpxe\n", lab.server_address(0));
    std::fs::write(&script, line).unwrap();
    let mut boot_server = lab.boot_server(&fixtures.boot.dir, false).unwrap();
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let kernel = PathBuf::from("/usr/lib/ipxe/ipxe.lkrn");
    let first = Boot::Kernel { kernel, initramfs: script, words: String::new() };
    let mut machines = [lab.machine(Options::new(first, vec![fixtures.disk(&lab, "d")]).memory(512)).unwrap()];
    boot_server.wait_for("fetched undionly.kpxe", BOOT).unwrap();
    for name in ["boot.ipxe", "vmlinuz", "initramfs.img"] {
        boot_server.wait_for(&format!("fetched {name}"), BOOT).unwrap();
    }
    all_done(deploy, 1);
    finish(fixtures, &mut machines);
}

fn http() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let mut boot_server = lab.boot_server(&fixtures.boot.dir, false).unwrap();
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let options = Options::new(Boot::Network, vec![fixtures.disk(&lab, "d")]).memory(768).uefi();
    let mut machines = [lab.machine(Options { more: Options::without_pxe(), ..options }).unwrap()];
    boot_server.wait_for("asked for boot (UEFI HTTP Boot)", BOOT).unwrap();
    boot_server.wait_for("fetched slidecast.efi", BOOT).unwrap();
    all_done(deploy, 1);
    finish(fixtures, &mut machines);
}

fn tftp() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let more = ["--dhcp", "10.77.0.100-10.77.0.199", "--uefi", "uki"];
    let mut boot_server = lab.boot_server_with(&fixtures.boot.dir, &more).unwrap();
    let options = Options::new(Boot::Network, vec![fixtures.disk(&lab, "d")]).memory(768).uefi();
    let mut machine = lab.machine(options).unwrap();
    boot_server.wait_for("fetched slidecast.efi", BOOT).unwrap();
    machine.wait_for("/24 (dhcp)", BOOT).unwrap();
    machine.wait_for("slidecast: waiting for server", SOON).unwrap();
    assert!(!boot_server.said().contains("fetched snponly.efi"), "{}", boot_server.tail());
}
