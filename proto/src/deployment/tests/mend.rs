//! Links that break between living nodes, and frames that arrive damaged: who is blamed, who is moved, who is never given up.

use super::*;
use crate::control::Notice;
use crate::reason::LinkClass;

impl World {
    /// `id` says that frames of its upstream are damaged, so that the link can't go on.
    fn damaged(&mut self, id: NodeId) {
        let upper = self.upstream(id);
        self.link(id, upper, Side::Upstream, LinkState::Down, Reason::LinkCorrupt);
    }

    fn upstream(&self, id: NodeId) -> NodeId {
        self.machine.node(id).unwrap().seat.join().unwrap().upstream.node
    }

    /// Time passes and all report.
    fn reporting(&mut self, seconds: u64, bytes: u64) {
        for second in 1..=seconds {
            self.later(1);
            let running: Vec<NodeId> =
                self.machine.nodes().filter(|node| node.is_running()).map(|node| node.id).collect();
            for id in running {
                let epoch = self.machine.node(id).unwrap().seat.join().unwrap().epoch;
                let ToServer::Progress(report) = progress(2) else { panic!() };
                let (received_bytes, written_bytes) = (second * bytes, self.now.0);
                let report = Progress { epoch, received_bytes, written_bytes, durable_new: Vec::new(), ..report };
                self.say(id, ToServer::Progress(report));
            }
        }
    }

    fn kinds(&self, kind: RepairKind) -> Vec<NodeId> {
        self.machine.repairs().iter().filter(|repair| repair.kind == kind).map(|repair| repair.node).collect()
    }
}

#[test]
fn one_damaged_frame_makes_the_link_anew_and_the_second_time_the_two_ends_change_places() {
    let (mut world, [a, b, c, d]) = World::running_with();
    world.damaged(c);
    assert_eq!(world.chain(0), [a.0, b.0, c.0, d.0]);
    assert_eq!(joins(world.orders()).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [c, b]);
    world.damaged(c);
    assert_eq!(world.chain(0), [a.0, c.0, b.0, d.0]);
    assert_eq!(world.upstream(c), a);
    let class = |id| world.machine.node(id).unwrap().seat.join().unwrap().upstream.class;
    assert_eq!([class(c), class(b), class(d)], [LinkClass::Paced; 3], "nobody lacks anything for it");
    assert_eq!(world.reasons(), [None; 4]);
    assert_eq!((world.kinds(RepairKind::Relinked), world.kinds(RepairKind::Swapped)), (vec![c], vec![c]));
}

#[test]
fn who_corrupts_two_neighbours_goes_behind_everybody_and_is_named_everywhere() {
    let (mut world, [a, b, c, d]) = World::running_with();
    world.damaged(c);
    world.damaged(c);
    world.orders();
    world.link(d, b, Side::Upstream, LinkState::Suspect, Reason::LinkCorrupt);
    assert_eq!(world.chain(0), [a.0, c.0, d.0, b.0]);
    assert_eq!(world.machine.node(b).unwrap().seat.join().unwrap().upstream.class, LinkClass::Follower);
    let said = "arrives damaged at node 3 and at node 4";
    let told = |(id, order): &(NodeId, ToAgent)| {
        *id == b && matches!(order, ToAgent::Notice(Notice { detail, .. }) if detail.contains(said))
    };
    assert!(world.orders().iter().any(told), "on its own console");
    let notes = world.notes();
    assert!(notes.iter().any(|note| note.starts_with("node 2 ") && note.contains(said)), "{notes:?}");
    assert_eq!(world.kinds(RepairKind::Corrupting), [b]);
    world.say(b, ended(EndState::Done));
    let outcome = world.machine.node(b).unwrap().outcome().unwrap();
    assert_eq!((outcome.state, outcome.reason), (EndState::Done, Reason::None));
    assert!(outcome.detail.contains(said), "{}", outcome.detail);
    assert_eq!(world.reasons(), [None, Some(Reason::None), None, None]);
}

#[test]
fn a_witness_that_receives_well_from_another_neighbour_is_enough() {
    let (mut world, [a, b, c]) = World::running();
    world.damaged(c);
    world.damaged(c);
    assert_eq!(world.chain(0), [a.0, c.0, b.0]);
    world.reporting(1, 1 << 20);
    assert_eq!(world.kinds(RepairKind::Corrupting), []);
    world.reporting(3, 1 << 20);
    assert_eq!(world.kinds(RepairKind::Corrupting), [b]);
    assert_eq!((world.chain(0), world.reasons()), (vec![a.0, c.0, b.0], vec![None; 3]));
}

#[test]
fn a_node_that_finds_damage_from_everybody_is_itself_moved_and_convicts_nobody() {
    let (mut world, [a, b, c, d]) = World::running_with();
    world.damaged(b);
    world.damaged(b);
    assert_eq!((world.chain(0), world.upstream(b)), (vec![b.0, a.0, c.0, d.0], NodeId::SERVER));
    world.damaged(b);
    assert_eq!(world.chain(0), [a.0, c.0, d.0, b.0]);
    world.reporting(5, 1 << 20);
    assert_eq!((world.kinds(RepairKind::Complaining), world.kinds(RepairKind::Corrupting)), (vec![b], vec![]));
    for id in [a, c, d] {
        let epoch = world.machine.node(id).unwrap().seat.join().unwrap().epoch;
        let ToServer::Progress(report) = progress(BLOCKS) else { panic!() };
        world.say(id, ToServer::Progress(Progress { epoch, pass_ended: 1, ..report }));
    }
    for _ in 0..10 {
        world.damaged(b);
        world.later(1);
    }
    assert_eq!(world.reasons(), [None, Some(Reason::LinkCorrupt), None, None], "it says so itself of whatever it gets");
}

#[test]
fn damage_from_the_server_is_no_nodes_fault_and_ends() {
    let (mut world, [a, b, c]) = World::running();
    world.damaged(a);
    world.damaged(a);
    assert_eq!(world.chain(0), [b.0, c.0, a.0], "another head is tried");
    world.damaged(b);
    assert_eq!(world.chain(0), [b.0, c.0, a.0], "and no more than one");
    let notes = world.notes();
    assert!(notes.iter().any(|note| note.contains("the server is at fault and no node")), "{notes:?}");
    assert_eq!(world.kinds(RepairKind::Corrupting), []);
    for _ in 0..60 {
        let Some(head) = world.machine.chains().next().and_then(|chain| chain.first().copied()) else { break };
        world.damaged(head);
    }
    assert_eq!(world.reasons(), [Some(Reason::LinkCorrupt); 3]);
}

#[test]
fn a_false_complaint_fails_no_living_neighbour_and_moves_the_one_that_complains() {
    let (mut world, [a, b, c, d]) = World::running_with();
    for _ in 0..2 {
        world.link(a, b, Side::Downstream, LinkState::Down, Reason::DownstreamLost);
    }
    assert_eq!(world.chain(0), [b.0, a.0, c.0, d.0]);
    world.link(a, c, Side::Downstream, LinkState::Down, Reason::DownstreamLost);
    assert_eq!(world.chain(0), [b.0, c.0, d.0, a.0]);
    for _ in 0..20 {
        let Some(upper) = world.machine.node(a).map(|_| world.upstream(a)) else { break };
        world.link(a, upper, Side::Upstream, LinkState::Down, Reason::UpstreamLost);
    }
    assert_eq!(world.reasons(), [None; 4]);
}

#[test]
fn resets_that_were_mended_are_forgotten() {
    let (mut world, [_, b, c]) = World::running();
    for _ in 0..20 {
        world.link(c, b, Side::Upstream, LinkState::Down, Reason::UpstreamLost);
        world.later(61);
        world.reporting(1, 1);
    }
    assert_eq!((world.reasons(), world.chain(0)), (vec![None; 3], vec![1, 2, 3]));
}

#[test]
fn a_node_that_no_neighbour_can_keep_gets_a_pass_with_the_server_before_it_is_given_up() {
    let (mut world, [a, b, c, d, e]) = World::running_with();
    // Whoever serves it says that the link broke; it says nothing itself.
    for _ in 0..12 {
        let upper = world.upstream(b);
        if upper == NodeId::SERVER {
            world.machine.on_feed(0, FeedEvent::Down { detail: "connection reset".into(), damaged: false }, world.now);
        } else {
            world.link(upper, b, Side::Downstream, LinkState::Down, Reason::DownstreamLost);
        }
    }
    assert_eq!(world.reasons(), [None; 5]);
    assert!(!world.chain(0).contains(&b.0), "it waits for a pass of its own");
    for id in [a, c, d, e] {
        let epoch = world.machine.node(id).unwrap().seat.join().unwrap().epoch;
        let ToServer::Progress(report) = progress(BLOCKS) else { panic!() };
        world.say(id, ToServer::Progress(Progress { epoch, pass_ended: 1, ..report }));
    }
    world.later(2);
    assert_eq!((world.chain(1), world.upstream(b)), (vec![b.0], NodeId::SERVER));
}

#[test]
fn heads_that_the_server_cannot_reach_are_tried_in_turn_and_it_ends() {
    let (mut world, _) = World::running();
    for _ in 0..2 {
        world.machine.on_feed(0, FeedEvent::Down { detail: "connection refused".into(), damaged: false }, world.now);
    }
    assert_eq!((world.chain(0), world.reasons()), (vec![2, 3, 1], vec![None; 3]));
    for _ in 0..60 {
        for chain in 0..u16::try_from(world.machine.chains().count()).unwrap() {
            world.machine.on_feed(
                chain,
                FeedEvent::Down { detail: "connection refused".into(), damaged: false },
                world.now,
            );
        }
        world.later(1);
    }
    assert_eq!(world.reasons(), [Some(Reason::UpstreamLost); 3]);
}

#[test]
fn a_node_that_only_the_server_serves_is_named_if_the_server_hears_another_head_well() {
    for heard in [false, true] {
        let (mut world, [_, _, _]) = World::running();
        if heard {
            world.machine.on_feed(0, FeedEvent::Up, world.now);
        }
        let late = world.join(9);
        let ToServer::Ready(ready) = ready() else { panic!() };
        world.say(late, ToServer::Ready(Ready { comparable: true, ..ready }));
        for _ in 0..8 {
            world.machine.on_feed(1, FeedEvent::Down { detail: "damaged".into(), damaged: true }, world.now);
        }
        assert_eq!(world.kinds(RepairKind::Corrupting), if heard { vec![late] } else { vec![] });
        assert_eq!(world.machine.node(late).unwrap().outcome().map(|end| end.reason), Some(Reason::LinkCorrupt));
        assert_eq!(world.reasons()[..3], [None; 3]);
    }
}
