//! Chains of numbers, without a deployment: which orders follow from which change.

use super::*;
use crate::control::Join;
use crate::reason::LinkClass;
use std::net::SocketAddr;

const BLOCKS: u32 = 4;

fn ids<const N: usize>(numbers: [u32; N]) -> Vec<NodeId> {
    numbers.into_iter().map(NodeId).collect()
}

fn address(id: NodeId) -> Option<SocketAddr> {
    Some(SocketAddr::from(([10, 0, 0, u8::try_from(id.0).unwrap()], 4000)))
}

fn nobody_corrupts(_: NodeId) -> bool {
    false
}

fn new(nodes: Vec<NodeId>, pass: u32) -> NewChain {
    let (card, blocks) = (CardId("eth0".into()), BlockSet::full(BLOCKS));
    NewChain { card, nodes, blocks, pass, phase: Phase::Flowing }
}

/// A chain of the main pass, ordered.
fn chain<const N: usize>(numbers: [u32; N]) -> Topology {
    let mut topology = Topology::new(DeploymentId([5; 16]), [3; 32]);
    topology.raise_pass(1);
    let (chain, _) = topology.form(new(ids(numbers), 1));
    topology.close(chain, address);
    topology
}

fn told(joins: &[(NodeId, Join)]) -> Vec<u32> {
    joins.iter().map(|(id, _)| id.0).collect()
}

#[test]
fn a_later_pass_outweighs_any_number_of_changes() {
    assert!(overall(2, 1) > overall(1, u64::from(u32::MAX)));
}

#[test]
fn the_neighbours_of_a_node_that_is_removed_are_told_the_lower_one_first_and_all_other_links_stay() {
    let mut topology = chain([1, 2, 3, 4, 5]);
    let keys = |topology: &Topology| ids([2, 5]).map_keys(topology);
    let before = keys(&topology);
    let gap = topology.remove(NodeId(3)).unwrap();
    assert_eq!(gap.successor, Some(NodeId(4)));
    let closed = topology.close(gap.chain, address);
    assert_eq!(told(&closed.joins), [4, 2]);
    assert!(closed.joins.iter().all(|(_, join)| join.epoch == gap.epoch));
    assert!(matches!(closed.feed, FeedChange::Keep));
    assert_eq!(keys(&topology), before);
    assert_eq!(topology.remove(NodeId(3)), None, "it stands nowhere");
}

trait Keys {
    fn map_keys(self, topology: &Topology) -> Vec<crate::units::LinkKey>;
}

impl Keys for Vec<NodeId> {
    fn map_keys(self, topology: &Topology) -> Vec<crate::units::LinkKey> {
        self.into_iter().map(|id| topology.seat(id).join().unwrap().upstream.key.clone()).collect()
    }
}

#[test]
fn a_chain_without_its_head_gets_another_feed_and_one_without_nodes_none() {
    let mut topology = chain([1, 2]);
    topology.remove(NodeId(1)).unwrap();
    let FeedChange::Start { terms, address: at, .. } = topology.close(0, address).feed else { panic!() };
    assert_eq!((terms.to, Some(at)), (NodeId(2), address(NodeId(2))));
    topology.remove(NodeId(2)).unwrap();
    assert!(matches!(topology.close(0, address).feed, FeedChange::Stop));
    assert!(matches!(topology.close(0, address).feed, FeedChange::Keep), "there is none to stop");
}

#[test]
fn nobody_is_linked_to_a_node_that_was_told_to_finish() {
    let mut topology = chain([1, 2, 3]);
    let closed = topology.close(0, |id| address(id).filter(|_| id != NodeId(2)));
    assert_eq!(told(&closed.joins), [3, 1]);
    assert_eq!(closed.joins[0].1.upstream.node, NodeId(1));
}

#[test]
fn nodes_that_come_stand_behind_the_core_the_slow_behind_the_others_and_the_corrupting_last() {
    let mut topology = chain([1, 2]);
    topology.rank_behind(NodeId(3), Rank::Slow);
    for id in ids([5, 3, 4]) {
        topology.append(0, id, |id| id == NodeId(5));
    }
    assert_eq!(topology.chain(0).nodes(), ids([1, 2, 4, 3, 5]));
    assert_eq!(topology.chain(0).core(), ids([1, 2]));
    topology.close(0, address);
    let class = |id| topology.seat(NodeId(id)).join().unwrap().upstream.class;
    assert_eq!((class(2), class(4), class(5)), (LinkClass::Paced, LinkClass::Follower, LinkClass::Follower));
}

#[test]
fn a_node_that_comes_from_another_chain_of_its_pass_sees_its_epoch_rise() {
    let mut topology = chain([1, 2, 3]);
    for _ in 0..5 {
        topology.renew_link(NodeId(3));
        topology.close(0, address);
    }
    let (other, _) = topology.form(new(ids([4]), 1));
    topology.close(other, address);
    let before = topology.seat(NodeId(3)).join().unwrap().epoch;
    topology.remove(NodeId(3)).unwrap();
    topology.append(other, NodeId(3), nobody_corrupts);
    topology.close(other, address);
    assert!(topology.seat(NodeId(3)).join().unwrap().epoch > before);
}

#[test]
fn neighbours_that_change_places_get_new_links_and_followers_stay_followers() {
    let mut topology = chain([1, 2, 3]);
    topology.append(0, NodeId(4), nobody_corrupts);
    topology.close(0, address);
    assert_eq!(topology.swap(NodeId(3), NodeId(4)), None);
    assert_eq!(topology.swap(NodeId(1), NodeId(2)), Some(0));
    let closed = topology.close(0, address);
    assert_eq!(topology.chain(0).nodes(), ids([2, 1, 3, 4]));
    assert_eq!(told(&closed.joins), [3, 1, 2]);
}

#[test]
fn the_first_chain_that_passes_blocks_ends_the_arrival_of_a_node() {
    let mut topology = chain([1]);
    let arrival = Arrival { kind: crate::deployment::RepairKind::Late, since: Time(7) };
    topology.arrive(NodeId(2), arrival);
    let phase = Phase::Comparing { until: Time(9), of_plan: false };
    let (alone, taken) = topology.form(NewChain { phase, ..new(ids([2]), 0) });
    assert_eq!(taken, []);
    assert!(!topology.end_comparing(alone));
    topology.remove(NodeId(2)).unwrap();
    let (_, taken) = topology.append(0, NodeId(2), nobody_corrupts);
    assert_eq!(taken, TakenIn { node: NodeId(2), arrival: Some(arrival), waited: false });
    topology.remove(NodeId(2)).unwrap();
    topology.wait(NodeId(2));
    let (_, taken) = topology.append(0, NodeId(2), nobody_corrupts);
    assert_eq!(taken, TakenIn { node: NodeId(2), arrival: None, waited: true });
}

#[test]
fn followers_have_their_time_when_the_core_is_settled() {
    let mut topology = chain([1]);
    let linger = Duration::from_secs(1);
    topology.settle(0, true, linger, Time(0));
    assert_eq!(topology.chain(0).phase(), Phase::Settled { since: Time(0) });
    topology.settle(0, true, linger, Time(0).after(linger));
    assert!(topology.chain(0).is_through());
    topology.settle(0, false, linger, Time(0).after(linger));
    assert_eq!(topology.chain(0).phase(), Phase::Flowing);
}
