//! Plans on real cards.

use slidecast_lab::Lab;

use crate::fixtures::{Fixtures, deploy_to};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("chains::a_fast_card_before_slow_nodes_feeds_several_chains_from_one_reader", Needs::Network, several_chains),
    ("chains::a_node_on_a_slow_link_is_last_in_its_chain", Needs::Network, slow_last),
];

fn several_chains() {
    let fixtures = Fixtures::get();
    let lab = Lab::with_card_rate(1, 1000).unwrap();
    let nodes = lab.nodes(4, &fixtures.node().mbits(100)).unwrap();
    let report = deploy_to(&lab, &nodes, &fixtures.base, &[]);
    assert!(report.chains.len() >= 2, "{report:?}");
    let expected = report.chains.len() as f64 * report.stored_bytes as f64;
    let ratio = report.egress_bytes as f64 / expected;
    assert!((1.0..1.05).contains(&ratio), "egress is {ratio} x chains x stored");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}

fn slow_last() {
    let fixtures = Fixtures::get();
    let lab = Lab::with_card_rate(1, 100).unwrap();
    let slow = lab.node(0, &fixtures.node().mbits(40)).unwrap();
    let mut nodes = lab.nodes(2, &fixtures.node().mbits(100)).unwrap();
    nodes.push(slow);
    let report = deploy_to(&lab, &nodes, &fixtures.base, &[]);
    let last = report
        .chains
        .iter()
        .filter_map(|chain| report.nodes_of(chain).last())
        .any(|node| node.address == nodes[2].address);
    assert!(last, "{report:?}");
    nodes.iter().for_each(|node| fixtures.assert_holds_base(node));
}
