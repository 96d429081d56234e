//! How machines come to their addresses: fixed, leased and renewed, or without anybody who gives any.

use nix::sys::signal::Signal;
use slidecast_lab::machine::{Card, Machine, Options, mac};
use slidecast_lab::{Exit, Lab, Process};

use crate::Takes::{All, One};
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, SOON, all_done, finish};

pub(crate) const TESTS: &[Test] = &[
    ("addresses::a_fixed_address_needs_no_dhcp", One, fixed),
    ("addresses::a_lease_is_renewed_with_its_server", One, renewed),
    (
        "addresses::a_lease_of_one_address_with_classless_routes_and_a_short_name_lead_to_a_server_elsewhere",
        One,
        elsewhere,
    ),
    ("addresses::a_router_outside_of_a_lease_of_one_address_is_used_and_failed_names_are_explained", One, outside),
    ("addresses::classless_routes_of_any_order_lead_to_a_server_elsewhere_and_a_missing_default_is_told", One, routes),
    ("addresses::a_lease_of_two_addresses_finds_its_server_by_broadcast", One, two),
    (
        "addresses::without_dhcp_cards_take_link_local_addresses_and_all_goes_by_the_one_that_leads_to_the_server",
        All,
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
    let said = |dhcp: &Process, what: &str| dhcp.said().matches(what).count();
    dhcp.wait_until("renewing the lease", SOON * 2, |dhcp| said(dhcp, "DHCPACK(") >= 3).unwrap();
    assert_eq!(said(&dhcp, "DHCPDISCOVER("), 1, "{}", dhcp.tail());
    assert!(!machine.console().contains("may not be used any longer"), "{}", machine.console());
}

/// Gives the server an address that no machine has in its own network.
fn add_far_address(lab: &Lab) {
    let words = ["address", "add", "10.99.0.1/32", "dev", "eth0"];
    let mut added = lab.on_server("address", "ip", words).unwrap();
    assert_eq!(added.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", added.tail());
}

/// A server of names that knows one, `deploy.lab.test`.
fn name_server(lab: &Lab) -> Process {
    let words = ["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-resolv", "--no-hosts"];
    let more = ["--log-facility=-", "--local=/#/", "--host-record=deploy.lab.test,10.99.0.1", "--port=53"];
    let mut process = lab.on_server("names", "dnsmasq", words.into_iter().chain(more)).unwrap();
    process.wait_for("started", SOON).unwrap();
    process
}

/// As clouds do it: one address, the router on the wire by option 121 and everything else through it, no use of option 3.
fn elsewhere() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    add_far_address(&lab);
    let _names = name_server(&lab);
    let _dhcp = lab
        .dhcp(&[
            "--dhcp-option=1,255.255.255.255",
            "--dhcp-option=3,10.77.0.66",
            "--dhcp-option=121,10.77.0.1/32,0.0.0.0,0.0.0.0/0,10.77.0.1",
            "--dhcp-option=6,10.99.0.1",
            "--dhcp-option=119,nowhere.test,lab.test",
            "--dhcp-option=26,1400",
        ])
        .unwrap();
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let boot = fixtures.boot.kernel("slidecast.server=deploy").unwrap();
    let mut machines = [lab.machine(Options::new(boot, vec![fixtures.disk(&lab, "d")])).unwrap()];
    machines[0].wait_for("/32 (dhcp)", BOOT).unwrap();
    machines[0].wait_for("link eth0: MTU 1400", SOON).unwrap();
    machines[0].wait_for("slidecast: server 10.99.0.1:7531", SOON).unwrap();
    all_done(deploy, 1);
    finish(fixtures, &mut machines);
}

/// One address and option 3 alone; names that fail.
fn outside() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    add_far_address(&lab);
    let names = name_server(&lab);
    let one = ["--dhcp-option=1,255.255.255.255", "--dhcp-option=3,10.77.0.1", "--dhcp-option=6,10.99.0.1"];
    let _dhcp = lab.dhcp(&[&one[..], &["--dhcp-option=15,lab.test"]].concat()).unwrap();
    let boot = fixtures.boot.kernel("slidecast.server=missing").unwrap();
    let mut machine = lab.machine(Options::new(boot, vec![])).unwrap();
    machine.wait_for("/32 (dhcp)", BOOT).unwrap();
    machine
        .wait_for("there is no such name (NXDOMAIN), in lab.test neither, says name server 10.99.0.1", SOON)
        .unwrap();
    names.signal(Signal::SIGSTOP);
    machine.wait_for("no usable answer in time from name server 10.99.0.1", SOON).unwrap();
    names.signal(Signal::SIGCONT);
    assert!(!machine.console().contains("route to"), "{}", machine.console());
}

/// The leases of three reports: the router that is in the machine's own network gets a route all the same; the default route
/// comes before the one that leads to its router; there are routes without a default, so that option 3 counts for nothing.
fn routes() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    add_far_address(&lab);
    let hosts: Vec<String> = (1..=3).map(|n| format!("--dhcp-host={},set:m{n}", mac(n, 0))).collect();
    let options = [
        "--dhcp-option=tag:m1,3,10.77.0.66",
        "--dhcp-option=tag:m1,121,10.77.0.1/32,0.0.0.0,0.0.0.0/0,10.77.0.1",
        "--dhcp-option=tag:m2,1,255.255.255.255",
        "--dhcp-option=tag:m2,121,0.0.0.0/0,10.77.0.1,10.77.0.1/32,0.0.0.0",
        "--dhcp-option=tag:m3,3,10.77.0.1",
        "--dhcp-option=tag:m3,121,10.5.1.0/24,10.77.0.8",
    ];
    let all: Vec<&str> = hosts.iter().map(String::as_str).chain(options).collect();
    let _dhcp = lab.dhcp(&all).unwrap();
    let deploy = fixtures.deploy(&lab, 2, &["--then", "poweroff"]);
    let boot = fixtures.boot.kernel("slidecast.server=10.99.0.1").unwrap();
    let start = |n: usize| {
        let disk = fixtures.disk(&lab, &format!("d{n}"));
        lab.machine(Options::new(boot.clone(), vec![disk])).unwrap()
    };
    let mut machines: Vec<Machine> = (1..=3).map(start).collect();
    for (machine, lease) in machines.iter_mut().zip(["/24 (dhcp)", "/32 (dhcp)", "/24 (dhcp)"]) {
        machine.wait_for(lease, BOOT).unwrap();
    }
    let mut lost = machines.pop().unwrap();
    lost.wait_for("server at 10.99.0.1:7531: no connection: Network unreachable", SOON).unwrap();
    all_done(deploy, 2);
    finish(fixtures, &mut machines);
}

/// RFC 3021. There is no broadcast in such a network but the one to everybody on the wire.
fn two() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&["--dhcp-option=1,255.255.255.254"]).unwrap();
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let mut machines = [lab.machine(Options::new(fixtures.kernel(), vec![fixtures.disk(&lab, "d")])).unwrap()];
    machines[0].wait_for("/31 (dhcp)", BOOT).unwrap();
    all_done(deploy, 1);
    finish(fixtures, &mut machines);
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
