//! How machines come to their addresses: fixed, leased and renewed, or without anybody who gives any.

use slidecast_lab::machine::{Card, Machine, Options};
use slidecast_lab::{Exit, Lab};

use crate::Test;
use crate::fixtures::{BOOT, Fixtures, SOON, all_done, finish};

pub(crate) const TESTS: &[Test] = &[
    ("addresses::a_fixed_address_needs_no_dhcp", fixed),
    ("addresses::a_lease_is_renewed_with_its_server", renewed),
    (
        "addresses::without_dhcp_cards_take_link_local_addresses_and_all_goes_by_the_one_that_leads_to_the_server",
        link_local,
    ),
];

fn fixed() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let boot = fixtures.boot.kernel("ip=10.77.0.60:::255.255.255.0:desk-60:eth0:off").unwrap();
    let mut machines = [lab.machine(Options::new(boot, vec![fixtures.disk(&lab, "d")])).unwrap()];
    machines[0].wait_for("slidecast: link eth0 10.77.0.60/24 (static)", BOOT).unwrap();
    let report = all_done(deploy, 1);
    assert!(report.nodes[0].address.starts_with("10.77.0.60"), "{report:?}");
    finish(fixtures, &mut machines);
}

fn renewed() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    // A renewal is due after five seconds, by what the server says.
    let mut dhcp = lab.dhcp(&["--dhcp-option=58,5", "--dhcp-option=59,100"]).unwrap();
    let mut machine = lab.machine(Options::new(fixtures.kernel(), vec![])).unwrap();
    machine.wait_for("/24 (dhcp)", BOOT).unwrap();
    let said = |dhcp: &slidecast_lab::Process, what: &str| dhcp.said().matches(what).count();
    dhcp.wait_until("renewing the lease", SOON * 2, |dhcp| said(dhcp, "DHCPACK(") >= 3).unwrap();
    assert_eq!(said(&dhcp, "DHCPDISCOVER("), 1, "{}", dhcp.tail());
    assert!(!machine.console().contains("may not be used any longer"), "{}", machine.console());
}

fn link_local() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let words = ["address", "add", "169.254.9.9/16", "dev", "eth0"];
    let mut added = lab.on_server("address", "ip", words).unwrap();
    assert_eq!(added.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", added.tail());
    let deploy = fixtures.deploy(&lab, 2, &["--then", "poweroff"]);
    // The routes of both cards are the same, and those of the first one are preferred: it leads nowhere.
    let cards = || vec![Card { behind: None, model: "virtio-net-pci" }, Card::behind(0)];
    let start = |n: usize| {
        let options = Options::new(fixtures.kernel(), vec![fixtures.disk(&lab, &format!("d{n}"))]);
        lab.machine(options.cards(cards())).unwrap()
    };
    let mut machines: Vec<Machine> = (1..=2).map(start).collect();
    for machine in &mut machines {
        machine.wait_for("/16 (link-local)", BOOT).unwrap();
        machine.wait_for("/16 (link-local)", BOOT).unwrap();
        machine.wait_for("slidecast: server 169.254.9.9:7531", SOON).unwrap();
    }
    let report = all_done(deploy, 2);
    assert_eq!(report.chains.len(), 1);
    assert!(report.nodes.iter().all(|node| node.repairs == 0), "{report:?}");
    finish(fixtures, &mut machines);
}
