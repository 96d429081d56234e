//! Disks that may hold something are compared before the main pass.

use super::*;

/// Two ready nodes, of which the second may hold something; and its report that it is at this phase.
fn comparing() -> (World, [NodeId; 2]) {
    let mut world = World::new(2, None);
    let ids = [1, 2].map(|boot| world.join(boot));
    world.say(ids[0], ready());
    world.say(ids[1], comparable());
    (world, ids)
}

fn comparable() -> ToServer {
    let ToServer::Ready(ready) = ready() else { panic!() };
    ToServer::Ready(Ready { comparable: true, ..ready })
}

fn at_phase(world: &World, id: NodeId, phase: Phase) -> ToServer {
    let epoch = world.machine.node(id).unwrap().seat.join().unwrap().epoch;
    let ToServer::Progress(report) = progress(0) else { panic!() };
    ToServer::Progress(Progress { epoch, phase, durable_new: Vec::new(), ..report })
}

#[test]
fn a_chain_in_which_somebody_may_hold_something_compares_before_the_main_pass() {
    let (mut world, [a, b]) = comparing();
    assert!(joins(world.orders()).iter().all(|(_, join)| join.pass == 0));
    assert!(matches!(&world.events()[1], DeploymentEvent::StartFeed { terms, .. } if terms.pass == 0));
    for (id, phase) in [(a, Phase::Waiting), (b, Phase::Preparing)] {
        let message = at_phase(&world, id, phase);
        world.say(id, message);
    }
    for _ in 0..20 {
        world.later(1);
        let message = at_phase(&world, b, Phase::Preparing);
        world.say(b, message);
    }
    assert!(joins(world.orders()).is_empty(), "one still compares");
    let old = world.machine.node(b).unwrap().seat.join().cloned().unwrap();
    let message = at_phase(&world, b, Phase::Waiting);
    world.say(b, message);
    let joins = joins(world.orders());
    assert_eq!(joins.iter().map(|(id, join)| (*id, join.pass)).collect::<Vec<_>>(), [(b, 1), (a, 1)]);
    assert!(joins[0].1.epoch > old.epoch && joins[0].1.upstream.key != old.upstream.key);
    let events = world.events();
    assert!(matches!(&events[..], [DeploymentEvent::StartFeed { chain: 0, terms, .. }] if terms.pass == 1));
}

#[test]
fn a_disk_that_compares_too_slowly_is_not_waited_for() {
    let (mut world, [a, b]) = comparing();
    for (id, phase) in [(a, Phase::Waiting), (b, Phase::Preparing)] {
        let message = at_phase(&world, id, phase);
        world.say(id, message);
    }
    world.orders();
    world.later(31);
    assert!(joins(world.orders()).iter().all(|(_, join)| join.pass == 1));
    assert_eq!(world.reasons(), [None, None]);
}

#[test]
fn a_node_that_reports_nothing_is_not_waited_for_by_those_that_have_compared() {
    let (mut world, [a, _]) = comparing();
    world.orders();
    for _ in 0..4 {
        world.later(1);
        let message = at_phase(&world, a, Phase::Waiting);
        world.say(a, message);
    }
    assert!(joins(world.orders()).iter().any(|(id, join)| (*id, join.pass) == (a, 1)));
}

#[test]
fn who_holds_everything_ends_without_a_main_pass() {
    let (mut world, [a, b]) = comparing();
    world.orders();
    world.say(b, ended(EndState::Done));
    world.say(a, ended(EndState::Done));
    assert!(joins(world.orders()).is_empty());
    assert_eq!(world.machine.exit_code(), Some(0));
}

#[test]
fn a_node_that_holds_everything_is_let_go_and_has_no_place_in_the_main_pass() {
    let (mut world, [a, b]) = comparing();
    world.orders();
    let message = at_phase(&world, a, Phase::Waiting);
    world.say(a, message);
    assert!(joins(world.orders()).is_empty(), "one still compares");
    world.say(b, ended(EndState::Done));
    let orders = world.orders();
    assert!(orders.iter().any(|(id, order)| *id == b && matches!(order, ToAgent::Finish(_))), "{orders:?}");
    let [(id, join)] = &joins(orders)[..] else { panic!("one node is left") };
    assert_eq!((*id, join.pass, &join.downstream), (a, 1, &None));
}

#[test]
fn a_late_node_compares_alone_and_is_then_taken_in_at_the_tail() {
    let (mut world, [_, _, c]) = World::running();
    let late = world.join(9);
    world.say(late, comparable());
    let first = joins(world.orders());
    assert_eq!(first.iter().map(|(id, join)| (*id, join.pass)).collect::<Vec<_>>(), [(late, 0)]);
    let message = at_phase(&world, late, Phase::Waiting);
    world.say(late, message);
    let then = joins(world.orders());
    assert_eq!(then.iter().map(|(id, join)| (*id, join.pass)).collect::<Vec<_>>(), [(late, 1), (c, 1)]);
}

#[test]
fn with_fresh_nobody_compares() {
    let mut world = World::new(1, None);
    world.machine.config.prepare.fresh = true;
    let id = world.join(1);
    world.say(id, comparable());
    assert!(joins(world.orders()).iter().all(|(_, join)| join.pass == 1));
}

/// What the nodes of a chain that compares report in a second: at which phase they are, and how many milliseconds of it they waited
/// for the upstream and for the disk.
type Word = (NodeId, Phase, [u32; 2]);

fn report_each_second(world: &mut World, seconds: u32, words: &[Word]) {
    for _ in 0..seconds {
        world.later(1);
        for (id, phase, [wait_upstream_ms, wait_disk_ms]) in words {
            let ToServer::Progress(report) = at_phase(world, *id, *phase) else { panic!() };
            world.say(
                *id,
                ToServer::Progress(Progress {
                    wait_upstream_ms: *wait_upstream_ms,
                    wait_disk_ms: *wait_disk_ms,
                    ..report
                }),
            );
        }
    }
}

fn three_comparing() -> (World, [NodeId; 3]) {
    let mut world = World::new(3, None);
    let ids = [1, 2, 3].map(|boot| world.join(boot));
    ids.into_iter().for_each(|id| world.say(id, comparable()));
    world.orders();
    (world, ids)
}

#[test]
fn a_node_that_gets_nothing_of_the_manifest_is_moved_and_the_chain_goes_on_without_it() {
    let (mut world, [a, b, c]) = three_comparing();
    report_each_second(
        &mut world,
        8,
        &[(a, Phase::Waiting, [0, 0]), (b, Phase::Preparing, [1000, 0]), (c, Phase::Preparing, [1000, 0])],
    );
    assert_eq!(world.chain(0), [a.0, c.0, b.0]);
    assert!(joins(world.orders()).iter().all(|(_, join)| join.pass == 0), "those below it may still compare");
    report_each_second(
        &mut world,
        5,
        &[(a, Phase::Waiting, [0, 0]), (b, Phase::Preparing, [1000, 0]), (c, Phase::Waiting, [0, 0])],
    );
    assert!(joins(world.orders()).iter().any(|(id, join)| (*id, join.pass) == (c, 1)), "and then nobody waits for it");
    assert_eq!((world.chain(0), world.reasons()), (vec![a.0, c.0, b.0], vec![None; 3]));
}

#[test]
fn a_node_that_compares_a_part_for_long_is_not_moved() {
    let (mut world, [a, b, c]) = three_comparing();
    report_each_second(
        &mut world,
        20,
        &[(a, Phase::Waiting, [0, 0]), (b, Phase::Preparing, [0, 1000]), (c, Phase::Waiting, [0, 0])],
    );
    assert_eq!(world.chain(0), [a.0, b.0, c.0]);
    assert!(joins(world.orders()).is_empty(), "it is waited for");
}
