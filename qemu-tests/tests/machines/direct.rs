//! Machines that are given kernel and initramfs: what the agent does as the first process, without any firmware.

use slidecast_lab::Lab;
use slidecast_lab::machine::{Card, Machine, Options};

use crate::Takes::All;
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, SOON, all_done, finish};

pub(crate) const TESTS: &[Test] = &[
    ("direct::four_machines_form_one_chain_and_their_disks_equal_the_image", All, four_in_one_chain),
    ("direct::machines_behind_two_cards_of_the_server_form_two_chains", All, two_cards),
    ("direct::a_card_without_an_answer_does_not_keep_a_machine_from_the_other_one", All, dead_card),
];

fn four_in_one_chain() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let deploy = fixtures.deploy(&lab, 4, &["--then", "poweroff"]);
    let start = |n| lab.machine(Options::new(fixtures.kernel(), vec![fixtures.disk(&lab, &format!("d{n}"))])).unwrap();
    let mut machines: Vec<Machine> = (1..=4).map(start).collect();
    for machine in &mut machines {
        machine.wait_for("slidecast: boot ", BOOT).unwrap();
        machine.wait_for("/24 (dhcp)", SOON).unwrap();
        machine.wait_for("slidecast: server 10.77.0.1:7531", SOON).unwrap();
    }
    let report = all_done(deploy, 4);
    assert_eq!(report.chains.len(), 1);
    let copies = report.egress_bytes as f64 / report.stored_bytes as f64;
    assert!(copies < 1.05, "the server sent {copies} images");
    finish(fixtures, &mut machines);
}

fn two_cards() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(2).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let deploy = fixtures.deploy(&lab, 2, &["--then", "poweroff"]);
    let start = |card: usize| {
        let options = Options::new(fixtures.kernel(), vec![fixtures.disk(&lab, &format!("d{card}"))]);
        lab.machine(options.cards(vec![Card::behind(card)])).unwrap()
    };
    let mut machines: Vec<Machine> = (0..2).map(start).collect();
    let report = all_done(deploy, 2);
    let mut cards: Vec<&str> = report.chains.iter().map(|chain| chain.interface.as_str()).collect();
    cards.sort_unstable();
    assert_eq!(cards, ["eth0", "eth1"]);
    for chain in &report.chains {
        let subnet = if chain.interface == "eth0" { "10.77.0." } else { "10.77.1." };
        assert!(report.nodes_of(chain).all(|node| node.address.starts_with(subnet)), "{chain:?}");
    }
    finish(fixtures, &mut machines);
}

fn dead_card() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    // The first one has a carrier, and nobody on the other side. The second one is of another make.
    let cards = vec![Card { behind: None, model: "virtio-net-pci" }, Card { behind: Some(0), model: "e1000e" }];
    let options = Options::new(fixtures.kernel(), vec![fixtures.disk(&lab, "d")]).cards(cards);
    let mut machines = [lab.machine(options).unwrap()];
    machines[0].wait_for("/24 (dhcp)", BOOT).unwrap();
    all_done(deploy, 1);
    finish(fixtures, &mut machines);
}
