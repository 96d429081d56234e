//! Who is dead, who can't be reached, who comes back, and who gets what he lacks first.

use super::*;
use crate::control::LinkSpec;
use crate::reason::LinkClass;

impl World {
    /// Time passes and only these nodes are heard.
    fn only_heard(&mut self, heard: &[NodeId], millis: u64) {
        for _ in 0..millis / 250 {
            self.now = self.now.after(Duration::from_millis(250));
            heard.iter().for_each(|id| self.machine.on_message(*id, ToServer::Heartbeat, self.now));
            self.machine.on_time(self.now);
        }
    }

    /// A report that `pass` is over for `id`, which has the blocks below `durable`.
    fn pass_over(&mut self, id: NodeId, pass: u32, durable: u32) {
        let epoch = self.machine.node(id).unwrap().seat.join().unwrap().epoch;
        let ToServer::Progress(report) = progress(durable) else { panic!() };
        let durable_new = if durable == 0 { Vec::new() } else { vec![(0, durable)] };
        self.say(id, ToServer::Progress(Progress { epoch, pass_ended: pass, durable_new, ..report }));
    }

    fn upstream_class(&self, id: NodeId) -> LinkClass {
        self.machine.node(id).unwrap().seat.join().unwrap().upstream.class
    }
}

#[test]
fn a_complaint_that_comes_before_the_hang_up_makes_it_death_at_once() {
    let (mut world, [a, b, c]) = World::running();
    world.link(a, b, Side::Downstream, LinkState::Down, Reason::DownstreamLost);
    assert_eq!(world.reasons(), [None; 3]);
    world.machine.on_gone(b, "it hung up", world.now);
    assert_eq!(world.reasons(), [None, Some(Reason::NodeLost), None]);
    let detail = world.machine.node(b).unwrap().outcome().unwrap().detail.clone();
    assert!(detail.contains("it hung up") && detail.contains("node 1 says"), "{detail}");
    assert_eq!(world.chain(0), [a.0, c.0]);
}

#[test]
fn a_node_whose_kernel_is_silent_too_is_dead_after_a_second() {
    let (mut world, [a, b, c]) = World::running();
    world.only_heard(&[a, c], 750);
    world.link(a, b, Side::Downstream, LinkState::Suspect, Reason::TimedOut);
    assert_eq!(world.reasons(), [None; 3], "here it was heard a moment ago");
    world.only_heard(&[a, c], 250);
    assert_eq!(world.reasons(), [None, Some(Reason::NodeLost), None]);
    assert_eq!(world.chain(0), [a.0, c.0]);
}

#[test]
fn suspicion_is_nothing_if_its_kernel_answers_or_it_is_heard_here_or_the_witness_was_cut_off_itself() {
    let (mut world, [a, b, c]) = World::running();
    world.only_heard(&[a, c], 1000);
    world.link(a, b, Side::Downstream, LinkState::Suspect, Reason::None);
    assert_eq!(world.reasons(), [None; 3], "it may only be stopped");
    world.link(c, b, Side::Upstream, LinkState::Suspect, Reason::TimedOut);
    assert_eq!(world.reasons()[1], Some(Reason::NodeLost));

    let (mut world, [a, b, c]) = World::running();
    world.only_heard(&[a, c], 750);
    world.link(a, b, Side::Downstream, LinkState::Suspect, Reason::TimedOut);
    world.say(b, ToServer::Heartbeat);
    world.only_heard(&[a, c], 1250);
    assert_eq!(world.reasons(), [None; 3]);

    let (mut world, [a, b, c]) = World::running();
    world.only_heard(&[c], 1000);
    world.link(a, b, Side::Downstream, LinkState::Suspect, Reason::TimedOut);
    assert_eq!(world.reasons(), [None; 3], "nothing was heard of the witness either");
}

#[test]
fn the_end_waits_a_moment_for_who_fell_silent_and_not_for_who_hung_up() {
    let silent = || {
        let (mut world, [a, b, c]) = World::running();
        world.say(b, progress(1));
        world.only_heard(&[a, c], 1000);
        world.link(a, b, Side::Downstream, LinkState::Suspect, Reason::TimedOut);
        assert_eq!(world.reasons()[1], Some(Reason::NodeLost));
        [a, c].iter().for_each(|id| world.say(*id, ended(EndState::Done)));
        world.only_heard(&[a, c], 1000);
        assert!(!world.all_events().contains(&DeploymentEvent::Over));
        (world, [a, b, c])
    };
    let (mut world, [_, b, _]) = silent();
    world.say(b, ended(EndState::Done));
    assert!(world.all_events().contains(&DeploymentEvent::Over));
    assert_eq!(world.reasons(), [Some(Reason::None); 3]);

    let (mut world, [a, b, c]) = silent();
    world.only_heard(&[a, c], 1500);
    assert!(world.all_events().contains(&DeploymentEvent::Over));
    assert_eq!(world.machine.node(b).unwrap().outcome().unwrap().reason, Reason::NodeLost);

    let (mut world, [a, b, c]) = World::running();
    world.link(a, b, Side::Downstream, LinkState::Down, Reason::DownstreamLost);
    world.machine.on_gone(b, "it hung up", world.now);
    [a, c].iter().for_each(|id| world.say(*id, ended(EndState::Done)));
    assert!(world.all_events().contains(&DeploymentEvent::Over));
}

#[test]
fn of_several_silent_nodes_side_by_side_those_in_the_middle_go_soon_after() {
    let (mut world, [a, b, c, d, e]) = World::running_with();
    world.only_heard(&[a, e], 1000);
    world.link(a, b, Side::Downstream, LinkState::Suspect, Reason::TimedOut);
    world.link(e, d, Side::Upstream, LinkState::Suspect, Reason::TimedOut);
    assert_eq!(world.chain(0), [a.0, c.0, e.0]);
    world.only_heard(&[a, e], 500);
    assert_eq!(world.chain(0), [a.0, e.0]);
}

#[test]
fn those_next_to_a_dead_node_who_are_as_quiet_go_with_it() {
    let (mut world, [a, b, c, d, e]) = World::running_with();
    world.only_heard(&[a, e], 2000);
    world.link(a, b, Side::Downstream, LinkState::Down, Reason::TimedOut);
    assert_eq!(world.chain(0), [a.0, e.0]);
    assert_eq!(joins(world.orders()).iter().filter(|(id, _)| [b, c, d].contains(id)).count(), 2, "never to the last");
    let spec: &LinkSpec = &world.machine.node(e).unwrap().seat.join().unwrap().upstream;
    assert_eq!(spec.node, a);
}

#[test]
fn a_living_node_that_its_upstream_cannot_reach_is_served_by_another() {
    let (mut world, [a, b, c, d]) = World::running_with();
    world.link(a, b, Side::Downstream, LinkState::Down, Reason::TimedOut);
    assert_eq!(world.reasons(), [None; 4]);
    assert_eq!(world.chain(0), [a.0, c.0, d.0, b.0]);
    assert_eq!((world.upstream_class(c), world.upstream_class(b)), (LinkClass::Paced, LinkClass::Follower));
    assert!(world.notes().iter().any(|note| note.contains("node 2") && note.contains("from node 1")));
    // The tail itself has nobody else: it waits for a pass of its own.
    world.link(d, b, Side::Downstream, LinkState::Down, Reason::TimedOut);
    assert_eq!(world.chain(0), [a.0, c.0, d.0]);
    for id in [a, c, d] {
        world.pass_over(id, 1, BLOCKS);
    }
    world.later(2);
    assert_eq!(world.machine.chains().collect::<Vec<_>>(), [&[a, c, d][..], &[b]]);
}

#[test]
fn a_stopped_agent_that_goes_on_is_taken_back_although_its_connection_never_broke() {
    let (mut world, [a, b, c]) = World::running();
    world.only_heard(&[a, c], 2000);
    world.link(c, b, Side::Upstream, LinkState::Down, Reason::TimedOut);
    assert_eq!(world.reasons()[1], Some(Reason::NodeLost));
    world.orders();
    world.say(b, ToServer::Heartbeat);
    world.later(1);
    assert_eq!(world.reasons(), [None; 3]);
    assert_eq!(world.chain(0), [a.0, c.0, b.0]);
    let node = world.machine.node(b).unwrap();
    assert_eq!((node.returned, node.late), (1, false));
}

#[test]
fn a_tail_that_comes_back_to_the_tail_is_told_of_a_new_link() {
    let (mut world, [_, b, c]) = World::running();
    let before = world.machine.node(c).unwrap().seat.join().cloned().unwrap();
    world.machine.on_gone(c, "reset", world.now);
    world.later(3);
    assert_eq!(world.reasons()[2], Some(Reason::NodeLost));
    world.orders();
    assert_eq!(world.join(3), c);
    world.later(1);
    let joins = joins(world.orders());
    let [(first, theirs), (second, ours)] = &joins[..] else { panic!("{joins:?}") };
    assert_eq!((*first, *second), (c, b));
    assert_eq!(theirs.upstream.key, ours.downstream.as_ref().unwrap().key);
    assert_ne!(theirs.upstream.key, before.upstream.key);
}

#[test]
fn who_comes_late_never_paces_and_its_beginning_comes_after_the_survivors() {
    let (mut world, [a, b, c]) = World::running();
    let late = world.join(9);
    world.say(late, ready());
    assert_eq!(world.chain(0), [a.0, b.0, c.0, late.0]);
    assert_eq!(world.upstream_class(late), LinkClass::Follower);
    // The core is through; a survivor lacks two blocks, the late node all but two.
    world.later(1);
    world.events();
    world.pass_over(late, 1, 2);
    world.pass_over(a, 1, BLOCKS);
    world.pass_over(b, 1, BLOCKS - 2);
    world.pass_over(c, 1, BLOCKS);
    world.later(2);
    let feed = |events: Vec<DeploymentEvent>| {
        let started = events.into_iter().find_map(|event| match event {
            DeploymentEvent::StartFeed { blocks, terms, .. } => Some((terms.to, blocks.count())),
            _ => None,
        });
        started.unwrap()
    };
    assert_eq!(feed(world.events()), (b, 2));
    assert_eq!(world.chain(1), [b.0, late.0], "the late node takes what comes");
    world.pass_over(b, 2, BLOCKS);
    world.later(2);
    assert_eq!(feed(world.events()), (late, BLOCKS - 2));
    assert_eq!(world.chain(2), [late.0]);
}

#[test]
fn the_report_knows_how_long_a_repair_took() {
    let (mut world, [a, b, c]) = World::running();
    world.only_heard(&[a, c], 2000);
    world.link(a, b, Side::Downstream, LinkState::Down, Reason::TimedOut);
    assert_eq!(world.machine.repairs()[0].took(), None);
    world.only_heard(&[a, c], 500);
    world.link(c, a, Side::Upstream, LinkState::Up, Reason::None);
    let repairs = world.machine.repairs();
    assert_eq!((repairs[0].kind, repairs[0].node, repairs.len()), (RepairKind::Lost, b, 1));
    assert_eq!(repairs[0].took(), Some(Duration::from_millis(2500)), "from the last that was heard of it");
}

#[test]
fn of_a_chain_that_stands_still_only_the_node_with_the_stuck_disk_is_given_up() {
    let (mut world, [a, b, c]) = World::running();
    for id in [a, b, c] {
        let ToServer::Progress(report) = progress(1) else { panic!() };
        let (up, down, disk) = if id == a {
            (0, 900, 0)
        } else if id == b {
            (0, 0, 1000)
        } else {
            (1000, 0, 0)
        };
        let (wait_upstream_ms, wait_downstream_ms, wait_disk_ms) = (up, down, disk);
        world.say(id, ToServer::Progress(Progress { wait_upstream_ms, wait_downstream_ms, wait_disk_ms, ..report }));
    }
    world.later(125);
    assert_eq!(world.reasons(), [None, Some(Reason::TimedOut), None]);
    assert_eq!(world.chain(0), [a.0, c.0]);
}

#[test]
fn a_tail_that_was_let_go_and_hangs_up_is_no_loss() {
    let (mut world, [a, b, c]) = World::running();
    world.say(c, ended(EndState::Failed));
    assert!(world.orders().iter().any(|(id, order)| *id == c && matches!(order, ToAgent::Finish(_))));
    world.machine.on_gone(c, "it hung up", world.now);
    world.link(b, c, Side::Downstream, LinkState::Down, Reason::DownstreamLost);
    assert_eq!(world.chain(0), [a.0, b.0]);
    assert_eq!(world.machine.repairs(), []);
}

#[test]
fn a_node_that_has_ended_and_calls_again_hears_of_its_new_neighbour() {
    let (mut world, [a, b, c]) = World::running();
    world.say(a, ended(EndState::Done));
    world.machine.on_gone(b, "reset", world.now);
    world.link(c, b, Side::Upstream, LinkState::Down, Reason::UpstreamLost);
    assert_eq!(world.chain(0), [a.0, c.0]);
    // Its order goes down with its control link.
    assert!(joins(world.orders()).iter().any(|(id, _)| *id == a));
    world.machine.on_gone(a, "reset", world.now);
    assert_eq!(world.join(1), a);
    let joins = joins(world.orders());
    let [(first, join)] = &joins[..] else { panic!("{joins:?}") };
    assert_eq!((*first, join.downstream.as_ref().unwrap().node), (a, c));
}

#[test]
fn a_node_that_was_let_go_and_calls_again_gets_no_place() {
    let (mut world, [_, _, c]) = World::running();
    world.say(c, ended(EndState::Done));
    assert!(matches!(world.orders()[..], [(id, ToAgent::Finish(_))] if id == c));
    world.machine.on_gone(c, "it hung up", world.now);
    assert_eq!(world.join(3), c);
    assert!(joins(world.orders()).is_empty());
}
