use super::*;
use crate::approval::Identity;
use crate::control::{Card, Hello};
use crate::plan::CardId;
use crate::units::DeploymentId;

const FIRST: DeploymentId = DeploymentId([1; 16]);
const SECOND: DeploymentId = DeploymentId([2; 16]);

fn mac(machine: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, machine]
}

/// Run number `run` of the agent of a machine.
fn caller(machine: u8, run: u8) -> Caller {
    let card = Card { name: "eth0".into(), mac: mac(machine), addresses: Vec::new(), mbits: 0, up: true };
    let hello = Hello {
        agent_version: "0".into(),
        hostname: String::new(),
        boot: [run; 16],
        ram_bytes: 0,
        cards: vec![card],
        disks: Vec::new(),
        link_port: 9,
        target: String::new(),
    };
    let address = [10, 0, 0, machine].into();
    Caller { hello, key: None, handshake: [0; 32], address, card: CardId("eth0".into()) }
}

fn only(machines: &[u8]) -> Wanted {
    Wanted::Machines(machines.iter().map(|machine| Identity::Mac(mac(*machine))).collect())
}

fn at(millis: u64) -> Time {
    Time(1).after(Duration::from_millis(millis))
}

fn fleet() -> Fleet {
    Fleet::new("0".into(), at(0))
}

fn events(fleet: &mut Fleet) -> Vec<FleetEvent> {
    std::iter::from_fn(|| fleet.poll_event()).collect()
}

fn orders(fleet: &mut Fleet) -> Vec<(NodeId, ToAgent)> {
    std::iter::from_fn(|| fleet.poll_order()).collect()
}

#[test]
fn two_deployments_get_the_machines_that_they_want_and_a_third_machine_is_idle() {
    let mut fleet = fleet();
    let [a, b] = [1, 2].map(|machine| fleet.on_agent(caller(machine, machine), at(0)));
    assert_eq!(events(&mut fleet), [FleetEvent::Idle(a), FleetEvent::Idle(b)]);
    fleet.open(FIRST, only(&[1]));
    fleet.open(SECOND, only(&[3, 1]));
    let c = fleet.on_agent(caller(3, 3), at(1));
    let lent = |node, deployment| FleetEvent::Lent { node, deployment };
    assert_eq!(events(&mut fleet), [lent(a, FIRST), lent(c, SECOND)]);
    assert_eq!([a, b, c].map(|node| fleet.loan(node)), [Some(FIRST), None, Some(SECOND)]);
    fleet.close(FIRST);
    assert_eq!(events(&mut fleet), [FleetEvent::Idle(a), lent(a, SECOND)], "the other deployment wants it, too");
    assert_eq!(fleet.loan(b), None);
}

#[test]
fn a_run_of_an_agent_keeps_its_number_and_its_deployment_while_that_lasts() {
    let mut fleet = fleet();
    fleet.open(FIRST, Wanted::Everyone);
    let a = fleet.on_agent(caller(1, 1), at(0));
    fleet.on_gone(a);
    fleet.open(SECOND, Wanted::Everyone);
    assert_eq!(fleet.on_agent(caller(1, 1), at(1)), a);
    assert_eq!(fleet.loan(a), Some(FIRST));
    fleet.on_gone(a);
    fleet.close(FIRST);
    assert!(fleet.agent(a).is_none(), "it is not there, and nobody waits for it");
    let again = fleet.on_agent(caller(1, 1), at(2));
    assert!(again > a);
    assert_eq!(fleet.loan(again), Some(SECOND));
}

#[test]
fn agents_of_an_earlier_run_of_the_server_come_back_to_their_deployment_under_their_numbers() {
    let mut fleet = fleet();
    let key = crate::noise::SecretKey::generate().unwrap().public();
    fleet.expect_back(NodeId(7), [1; 16], Some(key), FIRST);
    fleet.reserve(9);
    assert!(fleet.has_other_key(&[1; 16], None) && !fleet.has_other_key(&[1; 16], Some(key)));
    fleet.open(SECOND, Wanted::Everyone);
    fleet.open(FIRST, only(&[1]));
    let back = fleet.on_agent(Caller { key: Some(key), ..caller(1, 1) }, at(0));
    assert_eq!((back, fleet.loan(back)), (NodeId(7), Some(FIRST)));
    assert_eq!(fleet.on_agent(caller(2, 2), at(0)), NodeId(10));
}

#[test]
fn idle_agents_hear_heartbeats_and_silent_ones_are_given_up() {
    let mut fleet = fleet();
    let [a, b] = [1, 2].map(|machine| fleet.on_agent(caller(machine, machine), at(0)));
    let welcomed: Vec<_> = orders(&mut fleet).into_iter().map(|(node, _)| node).collect();
    assert_eq!(welcomed, [a, b]);
    events(&mut fleet);
    for beat in 1..=6 {
        fleet.on_time(at(beat * 500));
        fleet.on_message(b, at(beat * 500));
    }
    assert_eq!(events(&mut fleet), [FleetEvent::Silent(a)]);
    fleet.on_gone(a);
    assert_eq!(orders(&mut fleet).into_iter().filter(|(node, _)| *node == b).count(), 6);
    fleet.open(FIRST, Wanted::Everyone);
    assert_eq!(fleet.deadline(), None, "a deployment keeps its agents itself");
}

#[test]
fn silence_while_the_server_stood_still_means_nothing() {
    let mut fleet = fleet();
    let a = fleet.on_agent(caller(1, 1), at(0));
    events(&mut fleet);
    fleet.on_time(at(60_000));
    assert!(events(&mut fleet).is_empty());
    assert!(fleet.agent(a).is_some());
}

#[test]
fn idle_agents_of_one_address_are_bounded_and_wanted_ones_are_not() {
    let mut fleet = fleet();
    let here = |machine: u8| Caller { address: [10, 0, 0, 1].into(), ..caller(machine, machine) };
    for machine in 0..32 {
        assert_eq!(fleet.destination(&here(machine)), Ok(None));
        fleet.on_agent(here(machine), at(0));
    }
    assert_eq!(fleet.destination(&here(200)), Err(NoPlace::Address));
    assert_eq!(fleet.destination(&here(3)), Ok(None), "one that is there calls again");
    assert_eq!(fleet.destination(&caller(200, 200)), Ok(None));
    fleet.open(FIRST, only(&[200]));
    assert_eq!(fleet.destination(&here(200)), Ok(Some(FIRST)));
}

#[test]
fn two_agents_that_claim_one_machine_are_held_until_one_is_gone() {
    let mut fleet = fleet();
    fleet.open(FIRST, only(&[1, 2]));
    let a = fleet.on_agent(caller(1, 1), at(0));
    let lent = |node| FleetEvent::Lent { node, deployment: FIRST };
    assert_eq!(events(&mut fleet), [lent(a)]);
    let b = fleet.on_agent(caller(1, 2), at(1));
    let claimed = FleetEvent::Claimed { node: a, deployment: FIRST };
    assert_eq!(
        events(&mut fleet),
        [FleetEvent::Idle(b), claimed],
        "the second gets nothing, the first is to be given back"
    );
    fleet.give_back(a);
    assert_eq!(events(&mut fleet), [FleetEvent::Idle(a)]);
    fleet.open(SECOND, only(&[1]));
    assert!(events(&mut fleet).is_empty() && fleet.is_contested(a) && fleet.is_contested(b));
    let other = fleet.on_agent(caller(2, 3), at(2));
    assert_eq!(events(&mut fleet), [lent(other)], "others are not held");
    fleet.on_gone(a);
    assert_eq!(events(&mut fleet), [FleetEvent::Idle(b), lent(b)], "not told of, so nothing is taken back");
}

#[test]
fn a_shared_hardware_address_is_told_once_when_it_has_lasted_and_when_it_is_over() {
    let mut fleet = fleet();
    let nodes = [1, 2].map(|run| fleet.on_agent(caller(1, run), at(0)));
    events(&mut fleet);
    let mut told = Vec::new();
    for beat in 1..60 {
        nodes.iter().for_each(|node| fleet.on_message(*node, at(beat * 500)));
        fleet.on_time(at(beat * 500));
        told.extend(events(&mut fleet).into_iter().map(|event| (beat, event)));
        // The same run calls again, with the same cards.
        fleet.on_agent(caller(1, 1), at(beat * 500));
        events(&mut fleet);
    }
    let [a, b] = nodes;
    assert_eq!(told, [(20, FleetEvent::Contested(vec![b, a]))]);
    // A third one comes: it is named together with the others.
    let c = fleet.on_agent(caller(1, 3), at(30_000));
    events(&mut fleet);
    for beat in 61..90 {
        [a, b, c].iter().for_each(|node| fleet.on_message(*node, at(beat * 500)));
        fleet.on_time(at(beat * 500));
    }
    assert_eq!(events(&mut fleet), [FleetEvent::Contested(vec![a, b, c])]);
    fleet.on_gone(a);
    assert!(events(&mut fleet).is_empty(), "two are left");
    fleet.on_gone(c);
    assert_eq!(events(&mut fleet), [FleetEvent::Settled(b), FleetEvent::Idle(b)]);
}

#[test]
fn a_machine_that_its_deployment_hears_no_more_claims_nothing() {
    let mut fleet = fleet();
    fleet.open(FIRST, only(&[1]));
    let a = fleet.on_agent(caller(1, 1), at(0));
    // It was switched off and on: its former link still stands.
    let b = fleet.on_agent(caller(1, 2), at(1000));
    events(&mut fleet);
    fleet.set_heard(a, false);
    assert_eq!(events(&mut fleet), [FleetEvent::Idle(b), FleetEvent::Lent { node: b, deployment: FIRST }]);
    fleet.set_heard(a, true);
    let claimed = |node| FleetEvent::Claimed { node, deployment: FIRST };
    assert_eq!(events(&mut fleet), [claimed(b), claimed(a)], "it was not off");
}

#[test]
fn a_deployment_for_everyone_takes_agents_whatever_they_claim_and_zeros_are_no_address() {
    let mut fleet = fleet();
    fleet.open(FIRST, Wanted::Everyone);
    for run in [1, 2] {
        fleet.on_agent(caller(1, run), at(0));
    }
    let lent = events(&mut fleet);
    assert!(lent.iter().all(|event| matches!(event, FleetEvent::Lent { .. })) && lent.len() == 2, "{lent:?}");
    let tunnel = |run| {
        let mut caller = caller(9, run);
        caller.hello.cards[0].mac = [0; 6];
        caller
    };
    let [c, d] = [3, 4].map(|run| fleet.on_agent(tunnel(run), at(0)));
    assert!(!fleet.is_contested(c) && !fleet.is_contested(d));
}
