//! Who is slow is moved once, and nobody else.

use super::*;
use crate::reason::LinkClass;

/// What a node does in a second.
#[derive(Clone, Copy)]
struct Second {
    received: u64,
    written: u64,
    /// Milliseconds of room, of the downstream's fault, of work for the disk.
    waits: [u32; 3],
}

const MB: u64 = 1_000_000;
/// In step with a chain of 10 MB/s; its disk could do 100.
const WELL: Second = Second { received: 10 * MB, written: 10 * MB, waits: [1000, 0, 100] };
/// Held up at 1 MB/s by somebody below.
const HELD: Second = Second { received: MB, written: MB, waits: [0, 1000, 10] };
/// With nothing to do, below somebody slow.
const IDLE: Second = Second { received: MB, written: MB, waits: [1000, 0, 10] };
/// With a disk that takes 1 MB/s.
const SLOW_DISK: Second = Second { received: MB, written: MB, waits: [0, 0, 1000] };
const HUNG: Second = Second { received: 0, written: 0, waits: [0, 0, 1000] };
const STUCK: Second = Second { received: 0, written: 0, waits: [0, 1000, 0] };
const EMPTY: Second = Second { received: 0, written: 0, waits: [1000, 0, 0] };

struct Rows<const N: usize> {
    world: World,
    ids: [NodeId; N],
    totals: [(u64, u64); N],
}

impl<const N: usize> Rows<N> {
    fn new() -> Self {
        Self::claiming(0)
    }

    /// Cards that claim this speed.
    fn claiming(mbits: u32) -> Self {
        let (world, ids) = World::running_on(mbits);
        let mut rows = Self { world, ids, totals: [(0, 0); N] };
        rows.run(5, [WELL; N]);
        rows
    }

    fn run(&mut self, seconds: u32, each: [Second; N]) {
        for _ in 0..seconds {
            self.world.later(1);
            for ((id, total), second) in self.ids.iter().zip(&mut self.totals).zip(each) {
                *total = (total.0 + second.received, total.1 + second.written);
                let ToServer::Progress(report) = progress(1) else { panic!() };
                let [wait_upstream_ms, wait_downstream_ms, wait_disk_ms] = second.waits;
                let epoch = self.world.machine.node(*id).unwrap().seat.join().unwrap().epoch;
                let report = Progress {
                    epoch,
                    received_bytes: total.0,
                    sent_bytes: total.0,
                    written_bytes: total.1,
                    wait_upstream_ms,
                    wait_downstream_ms,
                    wait_disk_ms,
                    durable_new: Vec::new(),
                    ..report
                };
                self.world.say(*id, ToServer::Progress(report));
            }
        }
    }

    fn moved(&self) -> Vec<u32> {
        self.world.machine.nodes().filter(|node| node.moved).map(|node| node.id.0).collect()
    }
}

#[test]
fn a_slow_disk_paces_the_others_for_15_seconds_at_most_and_is_moved_behind_the_tail_as_a_follower() {
    let mut rows = Rows::<4>::new();
    let slow = [HELD, SLOW_DISK, IDLE, IDLE];
    rows.run(7, slow);
    assert_eq!(rows.moved(), [0; 0], "a hiccup is no slowness");
    rows.run(7, slow);
    assert_eq!(rows.moved(), [2]);
    assert_eq!(rows.world.chain(0), [1, 3, 4, 2]);
    let class = |id: usize| rows.world.machine.node(rows.ids[id]).unwrap().seat.join().unwrap().upstream.class;
    assert_eq!((class(2), class(3), class(1)), (LinkClass::Paced, LinkClass::Paced, LinkClass::Follower));
    let notes = rows.world.notes();
    let said = "its disk writes 1.0 MiB/s while the chain could do 10: moved behind the tail";
    assert!(notes.iter().any(|note| note.starts_with("node 2 ") && note.ends_with(said)), "{notes:?}");
    // Behind the tail it may be as slow as it likes.
    rows.run(60, [WELL, SLOW_DISK, WELL, WELL]);
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![2], vec![1, 3, 4, 2]));
    assert_eq!(rows.world.machine.repairs().len(), 1);
}

#[test]
fn a_slow_tail_keeps_its_link_and_only_follows_from_then_on() {
    let mut rows = Rows::<3>::new();
    let before = rows.world.machine.node(rows.ids[2]).unwrap().seat.join().cloned().unwrap();
    rows.run(14, [HELD, HELD, SLOW_DISK]);
    let after = rows.world.machine.node(rows.ids[2]).unwrap().seat.join().cloned().unwrap();
    assert_eq!((rows.moved(), after.upstream.class), (vec![3], LinkClass::Follower));
    assert_eq!(after.upstream.key, before.upstream.key);
}

#[test]
fn a_disk_that_takes_nothing_is_moved_too_though_nothing_moves_anywhere() {
    let mut rows = Rows::<3>::new();
    rows.run(14, [STUCK, HUNG, EMPTY]);
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![2], vec![1, 3, 2]));
}

#[test]
fn a_slow_link_shows_where_a_full_ring_meets_an_empty_one() {
    let mut rows = Rows::<4>::new();
    rows.run(14, [HELD, IDLE, IDLE, IDLE]);
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![2], vec![1, 3, 4, 2]));
    let notes = rows.world.notes();
    assert!(notes.iter().any(|note| note.contains("its link brings 1.0 MiB/s")), "{notes:?}");
}

#[test]
fn when_the_next_one_is_slow_behind_the_same_node_that_node_is_the_slow_one() {
    let mut rows = Rows::<8>::new();
    let slow = [HELD, HELD, IDLE, IDLE, IDLE, IDLE, IDLE, IDLE];
    rows.run(14, slow);
    assert_eq!(rows.moved(), [3]);
    rows.run(16, slow);
    assert_eq!(rows.moved(), [2, 3]);
}

#[test]
fn when_too_many_are_slow_the_chain_is_that_slow_and_the_operator_knows() {
    let mut rows = Rows::<4>::new();
    // Two disks of 1 MB/s; the second has to wait for the first only.
    let second = Second { waits: [1000, 0, 900], ..IDLE };
    rows.run(40, [HELD, SLOW_DISK, second, IDLE]);
    assert_eq!(rows.moved(), [0; 0]);
    let notes = rows.world.notes();
    assert_eq!(notes.iter().filter(|note| note.contains("so are 2 of 4 nodes")).count(), 1, "{notes:?}");
}

#[test]
fn a_chain_whose_disks_are_all_alike_is_left_alone_although_the_network_could_do_more() {
    let mut rows = Rows::<4>::new();
    let alike = Second { received: 5 * MB, written: 5 * MB, waits: [700, 0, 980] };
    let fullest = Second { waits: [0, 0, 1000], ..alike };
    rows.run(40, [alike, fullest, alike, alike]);
    assert_eq!(rows.moved(), [0; 0]);
}

#[test]
fn a_head_on_a_slow_link_is_moved_once_and_if_that_helps_nothing_it_is_the_servers_link() {
    let mut rows = Rows::<4>::new();
    let waited = FeedEvent::Waited { network: Duration::from_millis(990), of: Duration::from_secs(1) };
    rows.world.machine.on_feed(0, waited.clone(), rows.world.now);
    rows.run(14, [IDLE; 4]);
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![1], vec![2, 3, 4, 1]));
    rows.world.machine.on_feed(0, waited, rows.world.now);
    rows.run(40, [IDLE; 4]);
    assert_eq!(rows.moved(), [1]);
}

#[test]
fn a_node_that_reports_nothing_follows_after_3_seconds_and_the_others_go_on() {
    let mut rows = Rows::<4>::new();
    let ids = rows.ids;
    for _ in 0..5 {
        rows.world.later(1);
        for id in [ids[0], ids[2], ids[3]] {
            rows.world.say(id, progress(1));
        }
    }
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![2], vec![1, 3, 4, 2]));
    assert_eq!(rows.world.reasons(), [None; 4]);
}

#[test]
fn a_head_that_takes_nothing_is_moved_also_when_too_many_are_slow() {
    let mut rows = Rows::<4>::new();
    let ids = rows.ids;
    for _ in 0..5 {
        rows.world.later(1);
        for id in [ids[0], ids[2], ids[3]] {
            rows.world.say(id, progress(1));
        }
    }
    assert_eq!(rows.moved(), [2], "it reports nothing");
    let waited = FeedEvent::Waited { network: Duration::from_millis(990), of: Duration::from_secs(1) };
    rows.world.machine.on_feed(0, waited, rows.world.now);
    rows.run(8, [EMPTY; 4]);
    assert_eq!(rows.moved(), [1, 2], "two of four are more than the part that is moved for a low rate");
}

#[test]
fn a_head_that_lacks_nothing_and_passes_nothing_on_is_moved_although_one_node_alone_receives() {
    let mut rows = Rows::<2>::new();
    let head = rows.ids[0];
    rows.world.say(head, ended(EndState::Done));
    let waited = FeedEvent::Waited { network: Duration::from_millis(990), of: Duration::from_secs(1) };
    rows.world.machine.on_feed(0, waited, rows.world.now);
    rows.run(12, [EMPTY; 2]);
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![1], vec![2, 1]));
}

#[test]
fn of_two_heads_in_a_row_that_take_nothing_both_are_moved() {
    let mut rows = Rows::<5>::new();
    for moved in [vec![1], vec![1, 2]] {
        let waited = FeedEvent::Waited { network: Duration::from_millis(990), of: Duration::from_secs(1) };
        rows.world.machine.on_feed(0, waited, rows.world.now);
        rows.run(7, [EMPTY; 5]);
        assert_eq!(rows.moved(), moved);
    }
    assert_eq!(rows.world.chain(0), [3, 4, 5, 1, 2]);
}

#[test]
fn of_two_nodes_in_a_row_that_take_nothing_both_are_moved_where_their_upstream_would_be_one_too_many() {
    let mut rows = Rows::<4>::new();
    rows.run(8, [STUCK, EMPTY, EMPTY, EMPTY]);
    assert_eq!(rows.moved(), [2]);
    rows.run(8, [STUCK, EMPTY, EMPTY, EMPTY]);
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![2, 3], vec![1, 4, 2, 3]));
}

/// A pass of two nodes that took nothing in the one before, which the other two have ended.
fn pass_of_slow_nodes() -> Rows<4> {
    let mut rows = Rows::<4>::new();
    rows.run(7, [STUCK, EMPTY, EMPTY, EMPTY]);
    rows.run(7, [STUCK, EMPTY, EMPTY, EMPTY]);
    assert_eq!(rows.moved(), [2, 3]);
    for at in [0, 3] {
        rows.world.say(rows.ids[at], ended(EndState::Done));
    }
    for at in 0..4 {
        let epoch = rows.world.machine.node(rows.ids[at]).unwrap().seat.join().unwrap().epoch;
        let ToServer::Progress(report) = progress(if at % 3 == 0 { BLOCKS } else { 1 }) else { panic!() };
        let report = Progress { epoch, pass_ended: 1, durable_new: vec![(0, 1)], ..report };
        rows.world.say(rows.ids[at], ToServer::Progress(report));
    }
    rows.world.later(2);
    rows
}

#[test]
fn in_a_pass_of_slow_nodes_one_that_takes_nothing_is_moved_behind_the_others() {
    let mut rows = pass_of_slow_nodes();
    assert_eq!((rows.world.chain(1), rows.world.machine.topology.chain(1).core().len()), (vec![2, 3], 2));
    rows.run(9, [EMPTY, STUCK, EMPTY, EMPTY]);
    assert_eq!((rows.world.chain(1), rows.world.machine.topology.chain(1).core().len()), (vec![2, 3], 1));
}

#[test]
fn slow_nodes_that_all_take_nothing_are_given_up_and_not_moved_for_ever() {
    let mut rows = pass_of_slow_nodes();
    for _ in 0..180 {
        let waited = FeedEvent::Waited { network: Duration::from_millis(990), of: Duration::from_secs(1) };
        for chain in 0..rows.world.machine.topology.len() {
            rows.world.machine.on_feed(u16::try_from(chain).unwrap(), waited.clone(), rows.world.now);
        }
        rows.run(1, [EMPTY; 4]);
    }
    let reasons = rows.world.reasons();
    assert_eq!(reasons[1..3], [Some(Reason::TimedOut); 2], "{reasons:?}");
}

#[test]
fn a_done_node_that_reports_nothing_is_moved_out_of_the_way_of_those_below_it() {
    let mut rows = Rows::<4>::new();
    let ids = rows.ids;
    rows.world.say(ids[1], ended(EndState::Done));
    for _ in 0..5 {
        rows.world.later(1);
        for id in [ids[0], ids[2], ids[3]] {
            rows.world.say(id, progress(1));
        }
    }
    assert_eq!(rows.world.chain(0)[..3], [1, 3, 4], "whether it or the node below it holds up the chain can't be told");
}

#[test]
fn when_most_report_nothing_it_is_not_their_fault() {
    let mut rows = Rows::<3>::new();
    let first = rows.ids[0];
    for _ in 0..6 {
        rows.world.later(1);
        rows.world.say(first, progress(1));
    }
    assert_eq!(rows.moved(), [0; 0]);
}

#[test]
fn a_tail_that_takes_nothing_is_moved_in_seconds_whatever_it_says_of_itself() {
    for lie in [EMPTY, STUCK, Second { received: 10 * MB, ..EMPTY }, Second { written: 10 * MB, ..HUNG }] {
        let mut rows = Rows::<3>::new();
        rows.run(7, [STUCK, STUCK, lie]);
        let moved = rows.moved();
        assert!(moved == [3] || (lie.waits == HUNG.waits && moved.is_empty()), "{moved:?}");
        rows.run(7, [STUCK, STUCK, lie]);
        assert_eq!(rows.moved(), [3]);
    }
}

#[test]
fn a_head_that_gets_no_less_than_another_is_not_slow_though_cards_claim_more() {
    let mut rows = Rows::<4>::claiming(1000);
    let waited = FeedEvent::Waited { network: Duration::from_millis(990), of: Duration::from_secs(1) };
    rows.world.machine.on_feed(0, waited.clone(), rows.world.now);
    let all = [Second { waits: [1000, 0, 10], ..WELL }; 4];
    rows.run(12, all);
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![1], vec![2, 3, 4, 1]), "another one is tried");
    rows.world.machine.on_feed(0, waited, rows.world.now);
    rows.run(40, all);
    assert_eq!((rows.moved(), rows.world.chain(0)), (vec![], vec![2, 3, 4, 1]));
    let class = rows.world.machine.node(rows.ids[0]).unwrap().seat.join().unwrap().upstream.class;
    assert_eq!(class, LinkClass::Paced);
}
