//! A server that was killed and is started again, and agents that come back to it.

use super::*;

/// A server that is started again after three nodes had been given their places, one of which has ended since.
fn restarted(at_once: bool) -> (World, Saved, [NodeId; 3]) {
    let (mut world, ids) = World::running();
    world.later(3);
    world.say(ids[2], ended(EndState::Done));
    assert!(world.machine.take_unsaved());
    let saved = world.machine.saved(world.now).unwrap();
    assert!(!world.machine.take_unsaved());
    let mut world = World::new(3, None);
    world.now = Time(0).after(saved.elapsed);
    world.expect_back(saved.clone(), at_once);
    (world, saved, ids)
}

#[test]
fn agents_that_kept_their_state_find_their_deployment_again_above_all_epochs() {
    let (mut world, saved, [a, b, c]) = restarted(false);
    assert_eq!((saved.elapsed, saved.nodes.len()), (Duration::from_secs(3), 3));
    assert_eq!([1, 2].map(|boot| world.join(boot)), [a, b]);
    assert!(world.orders().iter().all(|(_, order)| matches!(order, ToAgent::Welcome(_))), "nobody begins again");
    assert_eq!(world.machine.stage(), Stage::Waiting);
    world.say(a, progress(4));
    assert_eq!(world.machine.stage(), Stage::Running);
    assert_eq!(world.machine.times().0, Some(Time(0)), "time goes on");
    assert!(joins(world.orders()).is_empty(), "the others are waited for");
    world.say(b, progress(5));
    world.join(3);
    world.say(c, ended(EndState::Done));
    let joins = joins(world.orders());
    assert_eq!(joins.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [b, a]);
    assert!(
        joins.iter().all(|(_, join)| join.pass > saved.pass && join.epoch > Epoch(1_u64 << 32 | u64::from(u32::MAX)))
    );
    let events = world.events();
    let [DeploymentEvent::PlanFixed(plan), DeploymentEvent::Resumed, DeploymentEvent::StartFeed { terms, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((plan.chains[0].nodes.as_slice(), terms.to), (&[a, b, c][..], a));
    [a, b].into_iter().for_each(|id| world.say(id, ended(EndState::Done)));
    assert_eq!(world.machine.exit_code(), Some(0));
}

#[test]
fn orders_of_a_resumed_server_outweigh_those_of_passes_that_were_not_kept() {
    let (mut world, saved, [a, b, _]) = restarted(false);
    world.join(1);
    world.say(a, progress(4));
    world.join(2);
    world.say(b, progress(5));
    world.later(6);
    let unkept = u64::from(saved.pass + 50) << 32;
    let joins = joins(world.orders());
    assert!(!joins.is_empty() && joins.iter().all(|(_, join)| join.epoch.0 > unkept), "{joins:?}");
}

#[test]
fn who_does_not_come_back_is_not_waited_for_and_lost_in_the_end() {
    let (mut world, _, [a, b, c]) = restarted(false);
    world.join(1);
    world.say(a, progress(4));
    world.later(6);
    assert_eq!(joins(world.orders()).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [a]);
    world.say(a, ended(EndState::Done));
    assert_eq!(world.machine.stage(), Stage::Running, "node {b} may still come");
    world.later(121);
    assert_eq!(world.reasons(), [Some(Reason::None), Some(Reason::NodeLost), Some(Reason::None)], "{c} was done");
    assert_eq!(world.machine.exit_code(), Some(3));
}

#[test]
fn who_comes_back_late_is_taken_in_and_who_lost_its_state_begins_again() {
    let (mut world, _, [a, b, _]) = restarted(true);
    assert_eq!(world.machine.stage(), Stage::Running);
    world.join(1);
    world.say(a, progress(4));
    world.later(6);
    world.orders();
    world.join(2);
    world.later(1);
    assert!(joins(world.orders()).is_empty());
    world.later(3);
    assert!(matches!(world.orders()[..], [(id, ToAgent::Prepare(_))] if id == b));
    world.say(b, ready());
    assert!(joins(world.orders()).iter().any(|(id, _)| *id == b));
}

#[test]
fn the_same_command_for_other_machines_is_a_new_deployment() {
    let (mut world, ..) = restarted(false);
    let ids = [7, 8, 9].map(|boot| world.join(boot));
    assert!(ids.iter().all(|id| id.0 > 3));
    ids.into_iter().for_each(|id| world.say(id, ready()));
    assert_eq!(world.machine.stage(), Stage::Running);
    assert!(joins(world.orders()).iter().all(|(_, join)| join.pass == 1));
    // One of the others after all: it begins again like anybody who is late.
    let old = world.join(1);
    world.orders();
    world.say(old, progress(4));
    world.later(1);
    assert!(world.machine.nodes().filter(|node| node.place.is_some()).all(|node| ids.contains(&node.id)));
}

#[test]
fn an_agent_that_was_started_again_takes_the_place_of_the_one_that_died() {
    let (mut world, [a, b, c]) = World::running();
    world.machine.on_gone(b, "reset", world.now);
    world.later(3);
    assert_eq!(world.reasons()[1], Some(Reason::NodeLost));
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    let again = world.call(hello(20), CardId("eth0".into()), address);
    world.say(again, ready());
    assert!(world.events().contains(&DeploymentEvent::Replaced { old: b, new: again }));
    assert_eq!(world.machine.nodes().map(|node| node.id).collect::<Vec<_>>(), [a, c, again]);
    [a, c, again].into_iter().for_each(|id| world.say(id, ended(EndState::Done)));
    assert_eq!(world.machine.exit_code(), Some(0));
    let node = world.machine.node(again).unwrap();
    assert_eq!((node.repairs, node.late), (1, true));
}

#[test]
fn an_agent_started_again_together_with_the_server_takes_the_place_of_the_one_that_died() {
    let (mut world, _, [a, b, c]) = restarted(false);
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    // It is ready before anybody shows that there is a deployment to go on with.
    let again = world.call(hello(20), CardId("eth0".into()), address);
    world.say(again, ready());
    world.join(1);
    world.say(a, progress(4));
    world.join(3);
    world.say(c, ended(EndState::Done));
    assert!(world.events().contains(&DeploymentEvent::Replaced { old: b, new: again }));
    [a, again].into_iter().for_each(|id| world.say(id, ended(EndState::Done)));
    assert_eq!(world.machine.exit_code(), Some(0), "nobody waits for the one that died");
}

#[test]
fn who_has_ended_before_the_server_was_killed_holds_up_nobody() {
    let (mut world, _, [a, b, c]) = restarted(false);
    for (boot, id) in [(1, a), (2, b)] {
        world.join(boot);
        world.say(id, progress(4));
    }
    assert_eq!(joins(world.orders()).len(), 2, "node {c} has ended, and its agent may have, too");
    [a, b].into_iter().for_each(|id| world.say(id, ended(EndState::Done)));
    assert_eq!(world.machine.stage(), Stage::Running, "node {c} may still call, to be let go");
    world.later(5);
    assert_eq!(world.machine.exit_code(), Some(0), "but it is not waited for longer than for those at work");
}

#[test]
fn who_has_ended_and_was_not_let_go_is_let_go_by_the_server_that_was_started_again() {
    let lets_go = |world: &mut World, id| {
        let orders = world.orders();
        orders.iter().any(|(to, order)| *to == id && matches!(order, ToAgent::Finish(_)))
    };
    // While the others are at work, or when they have ended and it is all that is waited for.
    for others_end_first in [false, true] {
        let (mut world, _, [a, b, c]) = restarted(false);
        for (boot, id) in [(1, a), (2, b)] {
            world.join(boot);
            world.say(id, progress(4));
        }
        if others_end_first {
            [a, b].into_iter().for_each(|id| world.say(id, ended(EndState::Done)));
        }
        world.later(1);
        world.join(3);
        assert!(!lets_go(&mut world, c), "it has not said yet whether it kept its state");
        world.later(1);
        world.say(c, ended(EndState::Done));
        assert!(lets_go(&mut world, c), "{others_end_first}");
        [a, b].into_iter().for_each(|id| world.say(id, ended(EndState::Done)));
        assert_eq!(world.machine.exit_code(), Some(0));
    }
}

#[test]
fn if_all_have_ended_they_are_let_go_when_they_call() {
    let (mut world, ids) = World::running();
    ids[1..].iter().for_each(|id| world.say(*id, ended(EndState::Done)));
    let mut saved = world.machine.saved(world.now).unwrap();
    saved.nodes[0].end = saved.nodes[1].end.clone();
    let mut world = World::new(3, None);
    world.expect_back(saved, true);
    world.later(1);
    assert_eq!(world.machine.stage(), Stage::Running);
    for (boot, id) in [(1, ids[0]), (2, ids[1]), (3, ids[2])] {
        world.join(boot);
        world.say(id, ended(EndState::Done));
    }
    let finished = world.orders().into_iter().filter(|(_, order)| matches!(order, ToAgent::Finish(_))).count();
    assert_eq!((finished, world.machine.exit_code()), (3, Some(0)));
}

#[test]
fn who_comes_back_and_never_got_its_first_place_is_told_everything_again() {
    let (mut world, [_, b, _]) = World::running();
    world.machine.on_gone(b, "reset", world.now);
    world.join(2);
    let orders = world.orders();
    let again = [ToAgent::Prepare(world.machine.config.prepare.clone())];
    assert!(orders.iter().any(|(id, order)| *id == b && again.contains(order)), "{orders:?}");
    world.say(b, ready());
    world.say(b, progress(1));
    world.machine.on_gone(b, "reset", world.now);
    world.join(2);
    assert!(!world.orders().iter().any(|(_, order)| matches!(order, ToAgent::Prepare(_))));
}

#[test]
fn who_calls_again_before_it_had_a_first_place_is_told_everything_again() {
    let (mut world, _) = World::running();
    // No chain is on its card, and the next pass is still to come.
    let (card, address) = (CardId("eth1".into()), IpAddr::V4(Ipv4Addr::new(10, 0, 1, 9)));
    let late = world.call(hello(9), card.clone(), address);
    world.say(late, ready());
    assert!(world.machine.node(late).unwrap().is_running() && joins(world.orders()).is_empty());
    world.machine.on_gone(late, "reset", world.now);
    assert_eq!(world.call(hello(9), card, address), late);
    let orders = world.orders();
    assert!(orders.iter().any(|(id, order)| *id == late && matches!(order, ToAgent::Prepare(_))), "{orders:?}");
    world.later(1);
    assert!(joins(world.orders()).iter().any(|(id, _)| *id == late));
}

#[test]
fn what_is_still_said_of_a_run_that_is_to_be_dropped_counts_for_nothing() {
    let (mut world, _) = World::running();
    let late = world.join(9);
    world.say(late, progress(BLOCKS));
    world.say(late, ended(EndState::Done));
    world.say(late, ready());
    assert!(joins(world.orders()).iter().any(|(id, _)| *id == late), "it lacks everything");
}

#[test]
fn who_begins_again_is_done_when_its_new_run_is() {
    let (mut world, [_, b, _]) = World::running();
    // It came through while nothing could be heard of it, and so it is told everything again.
    world.machine.on_gone(b, "reset", world.now);
    world.join(2);
    world.say(b, progress(BLOCKS));
    world.say(b, ended(EndState::Done));
    let node = world.machine.node(b).unwrap();
    assert!(node.is_running() && !node.has_all(BLOCKS), "its disk is wiped when it begins");
    world.say(b, ready());
    world.say(b, ended(EndState::Done));
    assert!(world.machine.node(b).unwrap().outcome().is_some());
}

#[test]
fn who_was_lost_before_the_server_was_killed_and_is_back_after_it_goes_on() {
    let (mut world, [a, b, c]) = World::running();
    world.machine.on_gone(b, "reset", world.now);
    world.later(3);
    let saved = world.machine.saved(world.now).unwrap();
    assert_eq!(saved.nodes[1].end.as_ref().map(|end| end.reason), Some(Reason::NodeLost));
    let again = || {
        let mut world = World::new(3, None);
        world.now = Time(0).after(saved.elapsed);
        world.expect_back(saved.clone(), false);
        world
    };
    let back = |world: &mut World, boot, id| {
        assert_eq!(world.join(boot), id);
        world.say(id, progress(4));
    };
    // After the others: it joins behind them.
    let mut world = again();
    back(&mut world, 1, a);
    back(&mut world, 3, c);
    assert_eq!(world.chain(0), [a.0, c.0]);
    back(&mut world, 2, b);
    assert_eq!((world.reasons(), world.chain(0)), (vec![None; 3], vec![a.0, c.0, b.0]));
    // Before them: it has its place in the new chain.
    let mut world = again();
    back(&mut world, 2, b);
    back(&mut world, 1, a);
    back(&mut world, 3, c);
    assert_eq!((world.reasons(), world.chain(0).len()), (vec![None; 3], 3));
    assert!(world.machine.repairs().iter().any(|repair| repair.kind == RepairKind::Returned && repair.node == b));
    // Without its state: it begins again.
    let mut world = again();
    back(&mut world, 1, a);
    world.join(2);
    world.orders();
    world.later(4);
    assert!(world.orders().iter().any(|(id, order)| *id == b && matches!(order, ToAgent::Prepare(_))));
}

#[test]
fn a_server_that_stood_still_does_not_take_its_own_silence_for_that_of_others() {
    let (mut world, [a, b, _]) = World::running();
    world.later(1);
    world.now = world.now.after(Duration::from_millis(1500));
    let epoch = world.machine.node(a).unwrap().seat.join().unwrap().epoch;
    let (state, reason, detail) = (LinkState::Down, Reason::DownstreamLost, "reset".to_owned());
    let (deployment, peer, side) = (DEPLOYMENT, b, Side::Downstream);
    world.say(a, ToServer::Link(LinkEvent { deployment, epoch, peer, side, state, reason, detail }));
    assert_eq!(world.reasons(), [None, None, None], "the link is made anew, nobody is lost");
}
