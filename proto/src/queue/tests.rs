use super::*;
use crate::plan::PlannedChain;
use crate::units::NodeId;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn id(number: u64) -> DeploymentId {
    DeploymentId(u128::from(number).to_be_bytes())
}

fn card(name: &str) -> CardId {
    CardId(name.to_owned())
}

fn queue() -> Queue {
    let cards = [("eth0", 10_000), ("eth1", 1000), ("eth2", 0)];
    Queue::new(&cards.map(|(name, mbits)| PlanCard { card: card(name), mbits }))
}

fn takes(parts: &[(&str, Share)]) -> Load {
    parts.iter().map(|(name, share)| (card(name), *share)).collect()
}

fn all(queue: &mut Queue) -> Vec<DeploymentId> {
    std::iter::from_fn(|| queue.poll()).collect()
}

#[test]
fn deployments_on_different_cards_run_at_once_and_on_one_card_one_after_the_other_with_the_reason() {
    let mut queue = queue();
    let eth1 = takes(&[("eth1", Share::Whole)]);
    queue.on_ready(4, id(4), eth1.clone());
    queue.on_ready(5, id(5), eth1.clone());
    queue.on_ready(6, id(6), takes(&[("eth2", Share::Whole)]));
    queue.on_ready(7, id(7), eth1);
    assert_eq!(all(&mut queue), [id(4), id(6)]);
    let said = queue.waits(5).unwrap();
    assert_eq!((said.card.0.as_str(), said.other, said.runs), ("eth1", id(4), true));
    assert_eq!(queue.waits(7).unwrap().other, id(5), "the one before it is what it waits for");
    queue.on_gone(4);
    assert_eq!(all(&mut queue), [id(5)]);
}

#[test]
fn slow_chains_share_a_fast_card_until_it_is_full_and_a_large_one_is_not_overtaken_for_ever() {
    let mut queue = queue();
    let of = |mbits| takes(&[("eth0", Share::Mbits(mbits))]);
    queue.on_ready(1, id(1), of(4000));
    queue.on_ready(2, id(2), of(4000));
    queue.on_ready(3, id(3), of(4000));
    queue.on_ready(4, id(4), of(1000));
    assert_eq!(all(&mut queue), [id(1), id(2)]);
    assert_eq!(queue.waits(4).unwrap(), Waits { card: card("eth0"), other: id(3), runs: false }, "it would fit");
    queue.on_gone(1);
    assert_eq!(all(&mut queue), [id(3), id(4)]);
}

#[test]
fn one_whose_nodes_went_away_holds_up_nobody() {
    let mut queue = queue();
    let whole = takes(&[("eth1", Share::Whole)]);
    queue.on_running(1, id(1), whole.clone());
    queue.on_ready(2, id(2), whole.clone());
    queue.on_ready(3, id(3), whole);
    assert_eq!(all(&mut queue), []);
    queue.on_gone(2);
    queue.on_gone(1);
    assert_eq!(all(&mut queue), [id(3)]);
}

#[test]
fn a_chain_takes_what_its_slowest_link_takes_and_the_whole_card_where_that_is_not_known() {
    let queue = queue();
    let node = |number, name: &str, mbits| PlanNode {
        node: NodeId(number),
        card: card(name),
        address: [10, 0, 0, 1].into(),
        mbits,
        rotational: false,
    };
    let chain = |name: &str, nodes: &[u32]| PlannedChain {
        card: card(name),
        nodes: nodes.iter().map(|node| NodeId(*node)).collect(),
    };
    let load = |chains: Vec<PlannedChain>, nodes: &[PlanNode]| queue.load(&Plan { chains }, nodes);
    let nodes = [node(1, "eth0", 2500), node(2, "eth0", 1000), node(3, "eth0", 1000), node(4, "eth0", 0)];
    let two = vec![chain("eth0", &[1, 2]), chain("eth0", &[3])];
    assert_eq!(load(two, &nodes), takes(&[("eth0", Share::Mbits(2000))]));
    assert_eq!(load(vec![chain("eth0", &[4])], &nodes), takes(&[("eth0", Share::Whole)]));
    assert_eq!(load(vec![chain("eth1", &[3])], &nodes), takes(&[("eth1", Share::Whole)]));
    assert_eq!(load(vec![chain("eth2", &[3])], &nodes), takes(&[("eth2", Share::Whole)]));
    let full = (0..10).map(|_| chain("eth0", &[2])).collect();
    assert_eq!(load(full, &nodes), takes(&[("eth0", Share::Whole)]));
}

/// The same rules, written as one would explain them, over plain lists.
#[derive(Default)]
struct Naive {
    running: Vec<(u64, Load)>,
    waiting: Vec<(u64, Load)>,
}

impl Naive {
    fn speed(card: &CardId) -> u64 {
        match card.0.as_str() {
            "eth0" => 10_000,
            "eth1" => 1000,
            _ => 0,
        }
    }

    fn fits(&self, load: &Load) -> bool {
        load.iter().all(|(card, share)| {
            let users: Vec<Share> = self.running.iter().filter_map(|(_, load)| load.get(card).copied()).collect();
            let number = |share: &Share| match share {
                Share::Mbits(mbits) => u64::from(*mbits),
                Share::Whole => u64::MAX / 100,
            };
            let used: u64 = users.iter().map(number).sum();
            users.is_empty() || used == 0 || used + number(share) <= Self::speed(card)
        })
    }

    /// Goes through those that wait, the oldest first: each begins, or closes its cards to those behind it.
    fn begin(&mut self) -> Vec<u64> {
        let (mut begun, mut closed) = (Vec::new(), Vec::<CardId>::new());
        self.waiting.sort_by_key(|(order, _)| *order);
        for (order, load) in std::mem::take(&mut self.waiting) {
            if load.keys().any(|card| closed.contains(card)) || !self.fits(&load) {
                closed.extend(load.keys().cloned());
                self.waiting.push((order, load));
            } else {
                self.running.push((order, load));
                begun.push(order);
            }
        }
        begun
    }

    fn remove(&mut self, order: u64) {
        self.running.retain(|(other, _)| *other != order);
        self.waiting.retain(|(other, _)| *other != order);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ready(u64, Load),
    Gone(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let share = prop_oneof![(1_u32..6000).prop_map(Share::Mbits), Just(Share::Whole)];
    let name = prop_oneof![Just(card("eth0")), Just(card("eth1")), Just(card("eth2"))];
    let load = btree_map(name, share, 1..3);
    prop_oneof![3 => (0_u64..12, load).prop_map(|(order, load)| Step::Ready(order, load)), 2 => (0_u64..12).prop_map(Step::Gone)]
}

proptest! {
    #[test]
    fn the_queue_begins_what_a_naive_model_begins_and_says_of_all_others_why_they_wait(steps in vec(any_step(), 1..60)) {
        let (mut queue, mut naive) = (queue(), Naive::default());
        for step in steps {
            match step {
                Step::Ready(order, load) => {
                    queue.on_ready(order, id(order), load.clone());
                    if !naive.running.iter().any(|(other, _)| *other == order) {
                        naive.remove(order);
                        naive.waiting.push((order, load));
                    }
                }
                Step::Gone(order) => {
                    queue.on_gone(order);
                    naive.remove(order);
                }
            }
            let begun: Vec<_> = naive.begin().into_iter().map(id).collect();
            prop_assert_eq!(all(&mut queue), begun);
            for (order, load) in &naive.waiting {
                let waits = queue.waits(*order);
                prop_assert!(waits.is_some_and(|waits| load.contains_key(&waits.card) && waits.other != id(*order)));
            }
            for (order, _) in &naive.running {
                prop_assert_eq!(queue.waits(*order), None);
            }
            // When all that run are over, the oldest that waits begins: nothing waits for ever.
        }
        while !naive.waiting.is_empty() {
            let running: Vec<u64> = naive.running.iter().map(|(order, _)| *order).collect();
            for order in running {
                queue.on_gone(order);
                naive.remove(order);
            }
            let begun: Vec<_> = naive.begin().into_iter().map(id).collect();
            prop_assert!(!begun.is_empty());
            prop_assert_eq!(all(&mut queue), begun);
        }
    }
}
