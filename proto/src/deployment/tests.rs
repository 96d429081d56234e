//! A server without sockets: nodes come, report and go; what the machine orders and decides is looked at.

mod comparing;
mod mend;
mod places;
mod repair;
mod resume;
mod slow;

use super::*;
use crate::control::{Ended, Hello, Join, LinkEvent, LinkState, Progress, Ready, Refused, Side, ToServer};
use crate::plan::CardId;
use crate::reason::{Free, LookedAt, Phase, Reason, Then, Verified, Verify};
use crate::units::{DeploymentId, Epoch, Hash};
use std::net::{IpAddr, Ipv4Addr};

pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId([5; 16]);
const ROOT: Hash = Hash([6; 32]);
pub(crate) const BLOCKS: u32 = 10;

struct World {
    machine: Deployment,
    now: Time,
    last_id: u32,
}

pub(crate) fn hello(boot: u8) -> Hello {
    Hello {
        agent_version: "0".into(),
        hostname: format!("host{boot}"),
        boot: [boot; 16],
        ram_bytes: 1 << 30,
        cards: Vec::new(),
        disks: Vec::new(),
        link_port: 4000,
        target: String::new(),
    }
}

pub(crate) fn prepare() -> Prepare {
    Prepare {
        deployment: DEPLOYMENT,
        root: ROOT,
        image: "x.slide".into(),
        disk_bytes: 1 << 30,
        sector: 512,
        block: 1 << 20,
        grain: 4096,
        selector: String::new(),
        verify: Verify::Full,
        free: Free::Keep,
        then: Then::Hold,
        fresh: false,
    }
}

pub(crate) fn config(wait_for: u32, timeout: Option<Duration>) -> DeploymentConfig {
    DeploymentConfig {
        prepare: prepare(),
        blocks: BLOCKS,
        secret: [3; 32],
        wait_for,
        timeout,
        join_window: None,
        cards: vec![PlanCard { card: CardId("eth0".into()), mbits: 1000 }],
        limits: PlanLimits::default(),
        version: "0".into(),
    }
}

pub(crate) fn ready() -> ToServer {
    ToServer::Ready(Ready {
        deployment: DEPLOYMENT,
        target: "/dev/sda".into(),
        describe: String::new(),
        bytes: 1 << 30,
        rotational: false,
        direct: true,
        comparable: false,
        ring: 1 << 26,
    })
}

fn ended(state: EndState) -> ToServer {
    ToServer::Ended(Ended {
        deployment: DEPLOYMENT,
        root: ROOT,
        state,
        reason: Reason::None,
        detail: String::new(),
        verified: Verified::Direct,
        blocks_written: BLOCKS,
        blocks_kept: 0,
        last_look: LookedAt::Sample,
        last_look_blocks: BLOCKS,
    })
}

fn progress(accepted: u32) -> ToServer {
    ToServer::Progress(Progress {
        deployment: DEPLOYMENT,
        epoch: Epoch(1),
        phase: Phase::Receiving,
        accepted,
        durable: BLOCKS,
        verified: 0,
        received_bytes: 0,
        sent_bytes: 0,
        written_bytes: 0,
        wait_upstream_ms: 1,
        wait_downstream_ms: 0,
        wait_disk_ms: 9,
        pass_ended: 0,
        durable_new: vec![(0, u32::MAX)],
    })
}

impl World {
    fn new(wait_for: u32, timeout: Option<Duration>) -> Self {
        Self { machine: Deployment::new(config(wait_for, timeout), Time(0)), now: Time(0), last_id: 0 }
    }

    fn join(&mut self, boot: u8) -> NodeId {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, boot));
        self.call(hello(boot), CardId("eth0".into()), address)
    }

    /// An agent calls, and gets a number if its run has none.
    fn call(&mut self, hello: Hello, card: CardId, address: IpAddr) -> NodeId {
        let known = self.machine.number_of(&hello.boot);
        let id = known.unwrap_or_else(|| self.new_id());
        self.machine.on_agent(id, hello, card, address, self.now);
        id
    }

    /// This is a server that was started again.
    fn expect_back(&mut self, saved: Saved, at_once: bool) {
        self.last_id = saved.last_id;
        self.machine.expect_back(saved, at_once, self.now);
    }

    fn new_id(&mut self) -> NodeId {
        self.last_id += 1;
        NodeId(self.last_id)
    }

    fn say(&mut self, id: NodeId, message: ToServer) {
        self.machine.on_message(id, message, self.now);
    }

    fn later(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.now = self.now.after(Duration::from_millis(500));
            let connected: Vec<NodeId> =
                self.machine.nodes().filter(|node| node.connected).map(|node| node.id).collect();
            connected.into_iter().for_each(|id| self.machine.on_message(id, ToServer::Heartbeat, self.now));
            self.machine.on_time(self.now);
        }
    }

    fn orders(&mut self) -> Vec<(NodeId, ToAgent)> {
        std::iter::from_fn(|| self.machine.poll_order()).filter(|(_, order)| *order != ToAgent::Heartbeat).collect()
    }

    fn events(&mut self) -> Vec<DeploymentEvent> {
        self.all_events()
            .into_iter()
            .filter(|event| !matches!(event, DeploymentEvent::NodeChanged(_) | DeploymentEvent::Note(_)))
            .collect()
    }

    fn all_events(&mut self) -> Vec<DeploymentEvent> {
        std::iter::from_fn(|| self.machine.poll_event()).collect()
    }

    /// What the operator was told since the last look.
    fn notes(&mut self) -> Vec<String> {
        let note = |event| if let DeploymentEvent::Note(text) = event { Some(text) } else { None };
        self.all_events().into_iter().filter_map(note).collect()
    }

    /// What node `id` says of its link to `peer`.
    fn link(&mut self, id: NodeId, peer: NodeId, side: Side, state: LinkState, reason: Reason) {
        let epoch = self.machine.node(id).unwrap().seat.join().unwrap().epoch;
        let detail = "silent for 2.0 s".to_owned();
        let event = LinkEvent { deployment: DEPLOYMENT, epoch, peer, side, state, reason, detail };
        self.say(id, ToServer::Link(event));
    }

    fn chain(&self, chain: usize) -> Vec<u32> {
        self.machine.chains().nth(chain).unwrap().iter().map(|id| id.0).collect()
    }

    /// A running chain of three.
    fn running() -> (Self, [NodeId; 3]) {
        Self::running_with()
    }

    /// A running chain.
    fn running_with<const N: usize>() -> (Self, [NodeId; N]) {
        Self::running_on(0)
    }

    /// A running chain of nodes with cards of this speed.
    fn running_on<const N: usize>(mbits: u32) -> (Self, [NodeId; N]) {
        let mut world = Self::new(u32::try_from(N).unwrap(), None);
        let ids = core::array::from_fn(|at| {
            let id = world.join(u8::try_from(at + 1).unwrap());
            let node = world.machine.roster.get_mut(id).unwrap();
            let (name, addresses) = ("eth0".to_owned(), vec![node.address]);
            node.hello.cards = vec![crate::control::Card { name, mac: [2; 6], addresses, mbits, up: true }];
            id
        });
        ids.into_iter().for_each(|id| world.say(id, ready()));
        assert_eq!(world.machine.stage(), Stage::Running);
        world.orders();
        world.events();
        (world, ids)
    }

    fn reasons(&self) -> Vec<Option<Reason>> {
        self.machine.nodes().map(|node| node.outcome().map(|outcome| outcome.reason)).collect()
    }
}

#[test]
fn it_starts_when_enough_nodes_are_ready_and_gives_neighbours_the_same_key() {
    let mut world = World::new(2, None);
    let first = world.join(1);
    world.say(first, ready());
    assert_eq!(world.machine.stage(), Stage::Waiting);
    assert!(matches!(world.orders()[..], [(_, ToAgent::Welcome(_)), (_, ToAgent::Prepare(_))]));
    let second = world.join(2);
    world.say(second, ready());
    let joins: Vec<Join> = joins(world.orders()).into_iter().map(|(_, join)| join).collect();
    assert_eq!(joins.iter().map(|join| join.position).collect::<Vec<_>>(), [2, 1], "the tail is told first");
    let (tail, head) = (&joins[0], &joins[1]);
    let down = head.downstream.as_ref().unwrap();
    assert_eq!((&down.key, down.node), (&tail.upstream.key, second));
    assert_eq!(down.address, "10.0.0.2:4000".parse().unwrap());
    let events = world.events();
    assert!(matches!(&events[0], DeploymentEvent::PlanFixed(plan) if plan.chains.len() == 1));
    let DeploymentEvent::StartFeed { terms, .. } = &events[1] else { panic!("{events:?}") };
    assert_eq!((&terms.key, terms.to), (&head.upstream.key, first));
    assert_ne!(terms.key, down.key);
}

#[test]
fn too_few_nodes_in_time_start_nothing() {
    let mut world = World::new(2, Some(Duration::from_secs(5)));
    let first = world.join(1);
    world.say(first, ready());
    world.later(6);
    assert_eq!(world.machine.exit_code(), Some(1));
    assert!(world.orders().iter().any(|(_, order)| matches!(order, ToAgent::Abort(_))));
}

#[test]
fn a_node_without_a_target_does_not_count() {
    let mut world = World::new(1, None);
    let first = world.join(1);
    let (reason, detail) = (Reason::TargetTooSmall, "short".to_owned());
    world.say(first, ToServer::Refused(Refused { deployment: DEPLOYMENT, reason, detail }));
    assert_eq!(world.machine.stage(), Stage::Waiting);
    let second = world.join(2);
    world.say(second, ready());
    assert_eq!(world.machine.chains().collect::<Vec<_>>(), [[second]]);
}

#[test]
fn all_done_is_exit_0_and_each_is_let_go_when_nobody_below_needs_it() {
    let (mut world, [a, b, c]) = World::running();
    world.say(a, ended(EndState::Done));
    assert!(world.orders().is_empty(), "the head is still needed");
    world.say(b, ended(EndState::Done));
    world.say(c, ended(EndState::Done));
    let finished: Vec<NodeId> = world
        .orders()
        .into_iter()
        .filter_map(|(id, order)| matches!(order, ToAgent::Finish(_)).then_some(id))
        .collect();
    assert_eq!(finished, [c, b, a]);
    assert_eq!(world.events(), [DeploymentEvent::StopFeed { chain: 0 }, DeploymentEvent::Over]);
    assert_eq!(world.machine.exit_code(), Some(0));
}

#[test]
fn a_done_with_another_root_is_a_failure() {
    let (mut world, ids) = World::running();
    let ToServer::Ended(mut wrong) = ended(EndState::Done) else { panic!() };
    wrong.root = Hash([9; 32]);
    world.say(ids[0], ToServer::Ended(wrong));
    assert_eq!(world.reasons()[0], Some(Reason::ManifestMismatch));
}

/// The joins among the orders, with the node each goes to.
fn joins(orders: Vec<(NodeId, ToAgent)>) -> Vec<(NodeId, Join)> {
    orders
        .into_iter()
        .filter_map(|(id, order)| if let ToAgent::Join(join) = order { Some((id, join)) } else { None })
        .collect()
}

#[test]
fn the_chain_closes_around_a_dead_node_successor_first_and_the_end_is_exit_3() {
    let (mut world, [a, b, c]) = World::running();
    let before = world.machine.node(c).unwrap().seat.join().cloned().unwrap();
    world.machine.on_gone(b, "reset", world.now);
    assert_eq!(world.reasons(), [None, None, None], "losing the control link alone is not death");
    world.later(3);
    assert_eq!(world.reasons(), [None, Some(Reason::NodeLost), None]);
    let joins = joins(world.orders());
    let [(first, successor), (second, predecessor)] = &joins[..] else { panic!("{joins:?}") };
    assert_eq!((*first, *second), (c, a));
    assert_eq!(successor.upstream.node, a);
    let down = predecessor.downstream.as_ref().unwrap();
    assert_eq!((down.node, &down.key), (c, &successor.upstream.key));
    assert!(successor.epoch > before.epoch && successor.upstream.key != before.upstream.key);
    assert!(world.events().is_empty(), "the feed of the head lives on");
    world.say(a, ended(EndState::Done));
    world.say(c, ended(EndState::Done));
    assert_eq!(world.machine.exit_code(), Some(3));
    assert_eq!(world.machine.node(c).unwrap().repairs, 1);
}

#[test]
fn a_dead_head_gets_its_successor_a_feed_of_its_own() {
    let (mut world, [a, b, _]) = World::running();
    world.machine.on_gone(a, "reset", world.now);
    world.machine.on_feed(0, FeedEvent::Down { detail: "reset".into(), damaged: false }, world.now);
    assert_eq!(world.reasons(), [Some(Reason::NodeLost), None, None]);
    let events = world.events();
    let [DeploymentEvent::StartFeed { terms, address, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((terms.to, *address), (b, "10.0.0.2:4000".parse().unwrap()));
}

#[test]
fn a_neighbours_word_makes_a_gone_node_dead_at_once_and_a_living_one_is_linked_anew() {
    let (mut world, [a, b, _]) = World::running();
    let event = |world: &World| LinkEvent {
        deployment: DEPLOYMENT,
        epoch: world.machine.node(a).unwrap().seat.join().unwrap().epoch,
        peer: b,
        side: Side::Downstream,
        state: LinkState::Down,
        reason: Reason::DownstreamLost,
        detail: "connection reset".into(),
    };
    let first = event(&world);
    world.say(a, ToServer::Link(first.clone()));
    assert_eq!(world.reasons(), [None, None, None]);
    assert_eq!(joins(world.orders()).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [b, a]);
    world.say(a, ToServer::Link(first));
    assert!(world.orders().is_empty(), "a complaint of an older epoch is stale");
    world.machine.on_gone(b, "reset", world.now);
    let second = event(&world);
    world.say(a, ToServer::Link(second));
    assert_eq!(world.reasons()[1], Some(Reason::NodeLost));
}

#[test]
fn who_lacks_something_when_the_pass_has_ended_gets_a_chain_of_its_own() {
    let (mut world, [a, b, c]) = World::running();
    let pass_ended = |world: &World, id: NodeId, accepted| {
        let epoch = world.machine.node(id).unwrap().seat.join().unwrap().epoch;
        let ToServer::Progress(report) = progress(accepted) else { panic!() };
        ToServer::Progress(Progress { epoch, pass_ended: 1, durable_new: vec![(0, accepted)], ..report })
    };
    world.later(1);
    for (id, accepted) in [(a, BLOCKS), (b, 7), (c, 4)] {
        let message = pass_ended(&world, id, accepted);
        world.say(id, message);
    }
    let events = world.events();
    let [DeploymentEvent::StartFeed { terms, blocks, chain: 1, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((terms.to, terms.pass), (b, 2));
    assert_eq!(blocks.iter().map(|block| block.0).collect::<Vec<_>>(), (4..BLOCKS).collect::<Vec<_>>());
    assert_eq!(world.machine.chains().collect::<Vec<_>>(), [&[a][..], &[b, c]]);
}

#[test]
fn reports_of_very_many_nodes_are_taken_together_and_none_is_forgotten() {
    let mut world = World::new(100, None);
    let ids: Vec<NodeId> = (1..=100).map(|boot| world.join(boot)).collect();
    ids.iter().for_each(|id| world.say(*id, ready()));
    world.later(1);
    let before = world.machine.chains().count();
    for id in &ids {
        let epoch = world.machine.node(*id).unwrap().seat.join().unwrap().epoch;
        let ToServer::Progress(report) = progress(7) else { panic!() };
        let durable_new = vec![(0, 7)];
        world.say(*id, ToServer::Progress(Progress { epoch, pass_ended: 1, durable_new, ..report }));
    }
    assert_eq!(world.machine.chains().count(), before);
    let at = world.machine.deadline();
    assert!(at.since(world.now) <= Duration::from_millis(2));
    world.machine.on_time(at);
    assert_eq!(world.machine.chains().count(), before + 1);
}

#[test]
fn a_lost_node_that_is_heard_again_joins_at_the_tail() {
    let (mut world, [_, b, _]) = World::running();
    world.machine.on_gone(b, "reset", world.now);
    world.later(3);
    assert_eq!(world.reasons()[1], Some(Reason::NodeLost));
    assert_eq!(world.join(2), b);
    world.later(1);
    assert_eq!(world.reasons(), [None, None, None]);
    assert_eq!(world.machine.chains().next().unwrap().last(), Some(&b));
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_place() {
    let (mut world, [_, b, _]) = World::running();
    world.machine.on_gone(b, "reset", world.now);
    world.later(1);
    assert_eq!(world.join(2), b);
    assert!(world.orders().iter().any(|(id, order)| *id == b && matches!(order, ToAgent::Join(_))));
    world.later(5);
    assert_eq!(world.reasons(), [None, None, None]);
}

#[test]
fn those_below_a_dead_node_that_have_everything_are_not_failed() {
    let (mut world, [_, b, c]) = World::running();
    world.say(c, progress(BLOCKS));
    assert!(world.machine.node(c).unwrap().durable.is_full(), "ranges beyond the image are cut");
    world.machine.on_gone(b, "reset", world.now);
    world.later(3);
    assert_eq!(world.reasons(), [None, Some(Reason::NodeLost), None]);
}

#[test]
fn a_rotten_block_in_the_image_ends_it_for_all() {
    let (mut world, [a, ..]) = World::running();
    let bad = crate::control::BadBlock { deployment: DEPLOYMENT, block: BlockNo(3), from: a, detail: String::new() };
    world.say(a, ToServer::BadBlock(bad));
    assert_eq!(world.events(), [DeploymentEvent::CheckBlock(BlockNo(3))]);
    world.machine.on_block_checked(None, world.now);
    assert_eq!(world.machine.stage(), Stage::Running);
    world.machine.on_block_checked(Some("block 3 of x.slide is rotten"), world.now);
    assert_eq!(world.reasons(), [Some(Reason::ImageCorrupt); 3]);
    assert_eq!(world.machine.exit_code(), Some(3));
}

#[test]
fn stopping_before_the_start_is_exit_1_and_after_it_3() {
    let mut world = World::new(2, None);
    world.join(1);
    world.machine.on_stop(world.now);
    assert_eq!(world.machine.exit_code(), Some(1));
    let (mut world, _) = World::running();
    world.machine.on_stop(world.now);
    assert_eq!(world.reasons(), [Some(Reason::Aborted); 3]);
    assert_eq!(world.machine.exit_code(), Some(3));
}

#[test]
fn a_node_on_which_nothing_moves_is_given_up_with_what_it_waits_for() {
    let (mut world, [a, b, c]) = World::running();
    world.say(a, ended(EndState::Done));
    world.say(c, ended(EndState::Done));
    world.say(b, progress(1));
    world.later(121);
    let outcome = world.machine.node(b).unwrap().outcome().unwrap();
    assert_eq!(outcome.reason, Reason::TimedOut);
    assert!(outcome.detail.contains("its disk"), "{}", outcome.detail);
}

#[test]
fn who_comes_after_the_start_is_taken_in_at_the_tail_unless_the_window_is_closed() {
    let (mut world, [_, _, c]) = World::running();
    let late = world.join(9);
    world.say(late, ready());
    let joins = joins(world.orders());
    assert_eq!(joins.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [late, c]);
    assert!(world.machine.node(late).unwrap().late);

    let (mut world, _) = World::running();
    world.machine.config.join_window = Some(Duration::ZERO);
    let late = world.join(9);
    let told = world.orders();
    assert!(
        told.iter().any(|(id, order)| *id == late
            && matches!(order, ToAgent::Abort(abort) if abort.reason == Reason::JoinedTooLate))
    );
}

#[test]
fn a_node_that_is_just_coming_is_waited_for() {
    let (mut world, ids) = World::running();
    let late = world.join(9);
    ids.into_iter().for_each(|id| world.say(id, ended(EndState::Done)));
    assert_eq!(world.machine.stage(), Stage::Running);
    world.say(late, ready());
    assert!(world.machine.node(late).unwrap().is_running());
    world.say(late, ended(EndState::Done));
    assert_eq!(world.machine.exit_code(), Some(0));

    let (mut world, ids) = World::running();
    world.join(9);
    ids.into_iter().for_each(|id| world.say(id, ended(EndState::Done)));
    world.later(6);
    assert_eq!(world.machine.exit_code(), Some(0), "but not for ever");
}

#[test]
fn agents_hear_that_the_server_lives_until_their_last_orders_are_out() {
    let (mut world, _) = World::running();
    world.machine.on_stop(world.now);
    assert!(matches!(world.machine.stage(), Stage::Over { .. }));
    world.orders();
    world.now = world.machine.deadline();
    world.machine.on_time(world.now);
    assert!(world.machine.deadline() > world.now, "whoever waits for it can sleep");
    let orders: Vec<_> = std::iter::from_fn(|| world.machine.poll_order()).map(|(_, order)| order).collect();
    assert_eq!(orders, [ToAgent::Heartbeat, ToAgent::Heartbeat, ToAgent::Heartbeat]);
}
