//! Agents that are refused, come again and again, or only say hello; and a server that stands still.

use super::*;
use crate::approval::{Caller, Unapproved};
use crate::control::{Card, Refused};

/// A machine's hello: `run` is the run of the agent on it.
fn of_machine(machine: u16, run: u32) -> Hello {
    let [high, low] = machine.to_be_bytes();
    let card = Card { name: "eth0".into(), mac: [2, 0, 0, 0, high, low], addresses: Vec::new(), mbits: 0, up: true };
    let mut boot = [0xB0; 16];
    boot[..4].copy_from_slice(&run.to_le_bytes());
    Hello { boot, cards: vec![card], ..hello(1) }
}

fn refused() -> ToServer {
    let detail = "no disk fits".to_owned();
    ToServer::Refused(Refused { deployment: DEPLOYMENT, reason: Reason::TargetNotFound, detail })
}

impl World {
    fn come(&mut self, hello: Hello, address: [u8; 4]) -> Result<NodeId, NoRoom> {
        self.now = self.now.after(Duration::from_millis(1));
        self.machine.make_room(&hello, address.into())?;
        Ok(self.call(hello, CardId("eth0".into()), address.into()))
    }
}

#[test]
fn a_refused_agent_that_is_started_again_300_times_has_one_record_and_locks_out_nobody() {
    let mut world = World::new(1, None);
    for run in 0..300 {
        let id = world.come(of_machine(1, run), [10, 0, 0, 1]).unwrap();
        world.say(id, refused());
        world.machine.on_gone(id, "it hung up", world.now);
        assert_eq!(world.machine.nodes().count(), 1);
    }
    let forgotten = world.events().iter().filter(|event| matches!(event, DeploymentEvent::Forgotten { .. })).count();
    assert_eq!(forgotten, 299);
    let id = world.come(of_machine(2, 999), [10, 0, 0, 2]).unwrap();
    world.say(id, ready());
    assert_eq!(world.machine.stage(), Stage::Running);
}

#[test]
fn hellos_of_any_number_of_machines_leave_room_for_one_that_can_take_part() {
    for gone in [true, false] {
        let mut world = World::new(2, None);
        let first = world.come(of_machine(9999, 9999), [10, 1, 0, 1]).unwrap();
        world.say(first, ready());
        for run in 0..600_u16 {
            let [high, low] = run.to_be_bytes();
            let came = world.come(of_machine(run, run.into()), [10, 2, high, low % 16]);
            if let (true, Ok(id)) = (gone, came) {
                world.machine.on_gone(id, "it hung up", world.now);
            }
        }
        assert!(world.machine.nodes().count() <= 2 * 2 + 256 + 1);
        let last = world.come(of_machine(8888, 8888), [10, 1, 0, 2]).unwrap();
        world.say(last, ready());
        assert_eq!(world.machine.stage(), Stage::Running, "gone: {gone}");
        assert!(world.machine.node(first).is_some_and(|node| node.is_running()), "who can take part keeps its record");
    }
}

#[test]
fn one_address_gets_no_more_than_its_share_of_records() {
    let mut world = World::new(2, None);
    let came = (0..100_u16).filter(|run| world.come(of_machine(*run, (*run).into()), [10, 2, 0, 1]).is_ok()).count();
    assert_eq!(came, 32);
    assert_eq!(world.come(of_machine(200, 200), [10, 2, 0, 1]), Err(NoRoom::Address));
    assert!(world.come(of_machine(201, 201), [10, 2, 0, 2]).is_ok());
}

#[test]
fn a_server_that_stood_still_for_five_seconds_gives_every_node_its_time_again() {
    for first in 0..3 {
        let (mut world, ids) = World::running();
        world.later(2);
        world.now = world.now.after(Duration::from_secs(5));
        // Whatever is looked at first after it: the clock, what a node said, or that its link is gone.
        match first {
            0 => world.machine.on_time(world.now),
            1 => world.link(ids[1], ids[0], Side::Upstream, LinkState::Down, Reason::TimedOut),
            _ => world.machine.on_gone(ids[2], "it hung up", world.now),
        }
        world.machine.on_time(world.now);
        assert_eq!(world.reasons(), [None, None, None], "{first}");
        // The agents have given the server up, and call again.
        for boot in 1..=3 {
            world.join(boot);
        }
        world.later(2);
        assert_eq!(world.reasons(), [None, None, None], "{first}");
    }
}

#[test]
fn after_a_stall_of_six_seconds_a_closed_control_link_shows_nothing_until_the_node_had_time_to_call() {
    let (mut world, ids) = World::running();
    world.later(2);
    world.machine.on_gone(ids[1], "it hung up", world.now);
    world.now = world.now.after(Duration::from_secs(6));
    ids.iter().for_each(|id| world.machine.on_gone(*id, "it hung up", world.now));
    let down = FeedEvent::Down { detail: "no complete handshake within 2 s".to_owned(), damaged: false };
    world.machine.on_feed(0, down, world.now);
    world.machine.on_time(world.now);
    assert_eq!(world.reasons(), [None, None, None]);
    world.join(1);
    world.join(2);
    world.later(1);
    assert_eq!(world.reasons(), [None, None, None]);
    world.later(2);
    assert_eq!(world.reasons(), [None, None, Some(Reason::NodeLost)], "the one that does not call is lost");
}

#[test]
fn an_agent_that_nobody_approved_is_in_the_report_and_counts_for_nothing() {
    let mut world = World::new(1, None);
    let id = world.come(of_machine(1, 1), [10, 0, 0, 1]).unwrap();
    world.say(id, ready());
    let (hello, card) = (of_machine(2, 2), CardId("eth0".into()));
    let caller = Caller { hello, key: None, handshake: [0; 32], address: [10, 0, 0, 2].into(), card };
    let why = "it is not on the list".to_owned();
    let unapproved = world.new_id();
    world.machine.on_unapproved(unapproved, Unapproved { caller, why: why.clone() }, world.now);
    let node = world.machine.nodes().last().unwrap();
    assert_eq!(*node.standing, Standing::Refused { reason: Reason::NotApproved, detail: why });
    assert!(node.id == unapproved && node.place.is_none() && !node.connected);
    assert!(std::iter::from_fn(|| world.machine.poll_order()).all(|(to, _)| to != unapproved));
}
