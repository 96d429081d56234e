//! Which nodes form which chain, in which order: a pure function of what is known of cards and nodes.
//!
//! The nodes behind one network card of the server are a group, and a chain never leaves its group. A card that is faster
//! than the links of its nodes feeds several chains side by side. A chain runs at its slowest link, so nodes are sorted
//! first (fast links before slow ones, then solid state before rotational disks, then by subnet and address) and the
//! sorted row is cut into chains: slow nodes end up at the tail of the last one, and nodes behind one switch follow one another.

use crate::units::NodeId;
use core::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A network card of the server, by the name of its interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardId(pub String);

impl core::fmt::Display for CardId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(&self.0)
    }
}

/// What is known of a card of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanCard {
    /// Which.
    pub card: CardId,
    /// Its speed in Mbit/s; 0 when it is not known.
    pub mbits: u32,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanNode {
    /// Which.
    pub node: NodeId,
    /// The card of the server that it hangs on.
    pub card: CardId,
    /// Its address.
    pub address: IpAddr,
    /// The speed of its link in Mbit/s; 0 when it is not known.
    pub mbits: u32,
    /// Its target has heads that move.
    pub rotational: bool,
}

/// What a plan may not go beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// The most chains behind one card.
    pub chains_per_card: usize,
}

impl Default for PlanLimits {
    fn default() -> Self {
        Self { chains_per_card: 8 }
    }
}

/// The chains, those of one card next to one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// No chain is empty.
    pub chains: Vec<PlannedChain>,
}

/// One chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChain {
    /// The card that feeds it.
    pub card: CardId,
    /// Its nodes, the head first.
    pub nodes: Vec<NodeId>,
}

/// Plans chains for `nodes`. Every node is in one chain, also one whose card is not among `cards` (its speed is then
/// unknown). The order of the nodes does not matter, that of the cards is the order of the chains.
#[must_use]
pub fn plan(cards: &[PlanCard], nodes: &[PlanNode], limits: &PlanLimits) -> Plan {
    let mut groups = BTreeMap::<&CardId, Vec<&PlanNode>>::new();
    for node in nodes {
        groups.entry(&node.card).or_default().push(node);
    }
    let mut chains = Vec::new();
    for card in cards {
        if let Some(group) = groups.remove(&card.card) {
            chains.extend(plan_group(card, group, limits));
        }
    }
    for (card, group) in groups {
        chains.extend(plan_group(&PlanCard { card: card.clone(), mbits: 0 }, group, limits));
    }
    Plan { chains }
}

fn plan_group(card: &PlanCard, mut group: Vec<&PlanNode>, limits: &PlanLimits) -> Vec<PlannedChain> {
    let usual = usual_mbits(&group);
    let slow = |node: &PlanNode| node.mbits != 0 && usual.is_some_and(|usual| node.mbits < usual);
    group.sort_by_key(|node| {
        let address = node.address.to_canonical();
        (slow(node), node.rotational, subnet(address), address, node.node)
    });
    let side_by_side = usual.map_or(1, |usual| card.mbits / usual) as usize;
    let most = group.len().div_ceil(2).min(limits.chains_per_card);
    let count = side_by_side.min(most).max(1);
    let (short, longer) = (group.len() / count, group.len() % count);
    let mut rest = group.into_iter().map(|node| node.node);
    (0..count)
        .map(|chain| short + usize::from(chain < longer))
        .map(|len| PlannedChain { card: card.card.clone(), nodes: rest.by_ref().take(len).collect() })
        .collect()
}

/// The slowest link that is at least half as fast as the median; none if no speed is known.
fn usual_mbits(group: &[&PlanNode]) -> Option<u32> {
    let mut known: Vec<_> = group.iter().map(|node| node.mbits).filter(|mbits| *mbits != 0).collect();
    known.sort_unstable_by_key(|mbits| Reverse(*mbits));
    let median = *known.get(known.len().saturating_sub(1) / 2)?;
    known.into_iter().rev().find(|mbits| u64::from(*mbits) * 2 >= u64::from(median))
}

/// What nodes behind one switch usually share: the /24 or the /64.
fn subnet(address: IpAddr) -> [u8; 8] {
    let mut subnet = [0; 8];
    match address {
        IpAddr::V4(address) => subnet[..3].copy_from_slice(&address.octets()[..3]),
        IpAddr::V6(address) => subnet.copy_from_slice(&address.octets()[..8]),
    }
    subnet
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn card(name: &str, mbits: u32) -> PlanCard {
        PlanCard { card: CardId(name.into()), mbits }
    }

    fn node(no: u32, card: &str, address: [u8; 4], mbits: u32) -> PlanNode {
        PlanNode { node: NodeId(no), card: CardId(card.into()), address: address.into(), mbits, rotational: false }
    }

    /// `count` nodes of one speed behind `eth0`.
    fn row(count: u8, mbits: u32) -> Vec<PlanNode> {
        (1..=count).map(|no| node(no.into(), "eth0", [10, 0, 0, no], mbits)).collect()
    }

    fn chains(cards: &[PlanCard], nodes: &[PlanNode]) -> Vec<Vec<u32>> {
        let plan = plan(cards, nodes, &PlanLimits::default());
        plan.chains.into_iter().map(|chain| chain.nodes.into_iter().map(|node| node.0).collect()).collect()
    }

    #[test]
    fn one_card_and_links_of_its_speed_make_one_chain() {
        assert_eq!(chains(&[card("eth0", 1000)], &row(4, 1000)), [[1, 2, 3, 4]]);
    }

    #[test]
    fn unknown_speeds_make_one_chain() {
        assert_eq!(chains(&[card("eth0", 0)], &row(4, 100)), [[1, 2, 3, 4]]);
        assert_eq!(chains(&[card("eth0", 1000)], &row(4, 0)), [[1, 2, 3, 4]]);
        assert_eq!(chains(&[], &row(4, 100)), [[1, 2, 3, 4]]);
    }

    #[test]
    fn a_fast_card_in_front_of_slower_nodes_feeds_several_chains() {
        assert_eq!(chains(&[card("eth0", 1000)], &row(4, 100)), [[1, 2], [3, 4]]);
        assert_eq!(chains(&[card("eth0", 250)], &row(7, 100)), [vec![1, 2, 3, 4], vec![5, 6, 7]]);
        assert_eq!(chains(&[card("eth0", 10_000)], &row(3, 1000)), [vec![1, 2], vec![3]]);
    }

    #[test]
    fn no_card_feeds_more_chains_than_the_limit() {
        assert_eq!(chains(&[card("eth0", 100_000)], &row(40, 1000)).len(), 8);
        let none = PlanLimits { chains_per_card: 0 };
        assert_eq!(plan(&[card("eth0", 100_000)], &row(40, 1000), &none).chains.len(), 1);
    }

    #[test]
    fn each_card_has_its_own_chains_in_the_order_of_the_cards() {
        let nodes = [
            node(1, "eth0", [10, 0, 0, 1], 0),
            node(2, "eth1", [10, 0, 1, 2], 0),
            node(3, "eth0", [10, 0, 0, 3], 0),
            node(4, "wan9", [10, 0, 9, 4], 0),
        ];
        let plan = plan(&[card("eth1", 0), card("eth0", 0), card("eth2", 0)], &nodes, &PlanLimits::default());
        let cards: Vec<_> = plan.chains.iter().map(|chain| chain.card.0.as_str()).collect();
        assert_eq!(cards, ["eth1", "eth0", "wan9"]);
        assert_eq!(plan.chains[1].nodes, [NodeId(1), NodeId(3)]);
    }

    #[test]
    fn slow_links_come_last_and_before_them_rotational_disks() {
        let mut nodes = row(6, 1000);
        nodes[0].mbits = 100;
        nodes[1].rotational = true;
        assert_eq!(chains(&[card("eth0", 1000)], &nodes), [[3, 4, 5, 6, 2, 1]]);
    }

    #[test]
    fn a_slow_link_shares_a_chain_with_few_and_does_not_make_chains() {
        let mut nodes = row(6, 1000);
        nodes[0].mbits = 100;
        assert_eq!(chains(&[card("eth0", 2000)], &nodes), [[2, 3, 4], [5, 6, 1]]);
    }

    #[test]
    fn of_two_nodes_the_much_slower_one_is_slow() {
        let nodes = [node(1, "eth0", [10, 0, 0, 1], 100), node(2, "eth0", [10, 0, 0, 2], 1000)];
        assert_eq!(chains(&[card("eth0", 1000)], &nodes), [[2, 1]]);
    }

    #[test]
    fn nodes_of_one_subnet_follow_one_another() {
        let mut nodes = vec![
            node(1, "eth0", [10, 0, 2, 1], 0),
            node(2, "eth0", [10, 0, 1, 200], 0),
            node(3, "eth0", [10, 0, 2, 3], 0),
            node(4, "eth0", [10, 0, 1, 9], 0),
            node(5, "eth0", [0; 4], 0),
            node(6, "eth0", [0; 4], 0),
        ];
        nodes[4].address = "2001:db8:0:1::9".parse().unwrap();
        nodes[5].address = "::ffff:10.0.1.100".parse().unwrap();
        assert_eq!(chains(&[card("eth0", 0)], &nodes), [[4, 6, 2, 1, 3, 5]]);
    }

    #[test]
    fn nobody_makes_no_chain() {
        assert_eq!(plan(&[card("eth0", 1000)], &[], &PlanLimits::default()), Plan::default());
    }

    fn some_nodes() -> impl Strategy<Value = Vec<PlanNode>> {
        let mbits = prop_oneof![Just(0), Just(10), Just(100), Just(1000), any::<u32>()];
        vec((0..4_u8, any::<[u8; 4]>(), mbits, any::<bool>()), 0..60).prop_map(|nodes| {
            (1..)
                .zip(nodes)
                .map(|(no, (card, address, mbits, rotational))| PlanNode {
                    rotational,
                    ..node(no, &format!("eth{card}"), address, mbits)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn every_plan_keeps_the_rules(nodes in some_nodes(), speeds in vec(any::<u32>(), 0..4), chains_per_card in 1..10_usize) {
            let cards: Vec<_> = (0..).zip(speeds).map(|(no, mbits)| card(&format!("eth{no}"), mbits)).collect();
            let limits = PlanLimits { chains_per_card };
            let made = plan(&cards, &nodes, &limits);

            let of = |id: NodeId| nodes.iter().find(|node| node.node == id).unwrap();
            let placed: Vec<_> = made.chains.iter().flat_map(|chain| chain.nodes.clone()).collect();
            prop_assert_eq!(placed.len(), nodes.len(), "each node once");
            prop_assert_eq!(placed.iter().collect::<BTreeSet<_>>().len(), nodes.len(), "and only once");

            for chain in &made.chains {
                prop_assert!(!chain.nodes.is_empty());
                prop_assert!(chain.nodes.iter().all(|id| of(*id).card == chain.card), "a chain never mixes cards");
                let of_card: Vec<_> = made.chains.iter().filter(|other| other.card == chain.card).collect();
                let lens: Vec<_> = of_card.iter().map(|chain| chain.nodes.len()).collect();
                prop_assert!(lens.iter().max().unwrap() - lens.iter().min().unwrap() <= 1, "chains of one card are alike");
                prop_assert!(of_card.len() <= chains_per_card);

                // Slow links last: along the chains of a card nobody slow comes before somebody usual.
                let row: Vec<_> = of_card.iter().flat_map(|chain| chain.nodes.iter().map(|id| of(*id))).collect();
                let mut known: Vec<_> = row.iter().map(|node| node.mbits).filter(|mbits| *mbits != 0).collect();
                known.sort_unstable();
                let median = known.get(known.len() / 2).copied().unwrap_or(0);
                let slow: Vec<_> = row.iter().map(|n| n.mbits != 0 && u64::from(n.mbits) * 2 < u64::from(median)).collect();
                prop_assert!(slow.is_sorted(), "{slow:?}");

                // No more chains than the card can feed at the speed of the usual links.
                let fed: u64 = of_card.len() as u64 * u64::from(known.iter().copied().find(|mbits| u64::from(*mbits) * 2 >= u64::from(median)).unwrap_or(0));
                let speed = cards.iter().find(|card| card.card == chain.card).map_or(0, |card| card.mbits);
                prop_assert!(of_card.len() == 1 || fed <= u64::from(speed));
            }

            let mut shuffled = nodes.clone();
            shuffled.reverse();
            shuffled.rotate_left(nodes.len() / 3);
            prop_assert_eq!(plan(&cards, &shuffled, &limits), made, "the order of arrival does not matter");
        }
    }
}
