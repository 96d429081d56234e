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
    for run in 0..32 {
        assert_eq!(fleet.destination(&caller(1, run)), Ok(None));
        fleet.on_agent(caller(1, run), at(0));
    }
    assert_eq!(fleet.destination(&caller(1, 200)), Err(NoPlace::Address));
    assert_eq!(fleet.destination(&caller(1, 3)), Ok(None), "one that is there calls again");
    assert_eq!(fleet.destination(&caller(2, 200)), Ok(None));
    fleet.open(FIRST, only(&[1]));
    assert_eq!(fleet.destination(&caller(1, 200)), Ok(Some(FIRST)));
}
