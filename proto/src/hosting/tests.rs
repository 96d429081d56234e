//! One node of one deployment, without sockets, disk and image: what its server does, and in which order.

use super::*;
use crate::control::{Hello, LinkClass, Prepare, Ready, ToServer};
use crate::link::Terms;
use crate::plan::{CardId, PlanCard, PlanLimits};
use crate::reason::{Free, Then, Verify};
use crate::set::BlockSet;
use crate::units::{DeploymentId, Epoch, Hash, LinkKey};
use std::net::{IpAddr, Ipv4Addr};

const DEPLOYMENT: DeploymentId = DeploymentId([5; 16]);
const NODE: NodeId = NodeId(1);
const NOW: Time = Time(1);

fn config() -> DeploymentConfig {
    DeploymentConfig {
        prepare: Prepare {
            deployment: DEPLOYMENT,
            root: Hash([6; 32]),
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
        },
        blocks: 100,
        secret: [3; 32],
        wait_for: 1,
        timeout: None,
        join_window: None,
        cards: vec![PlanCard { card: CardId("eth0".into()), mbits: 1000 }],
        limits: PlanLimits::default(),
        version: "0".into(),
    }
}

/// A deployment for which its one node is ready.
fn ready() -> Hosted {
    let mut hosted = Hosted::new(config(), NOW);
    let hello = Hello {
        agent_version: "0".into(),
        hostname: "host".into(),
        boot: [1; 16],
        ram_bytes: 1 << 30,
        cards: Vec::new(),
        disks: Vec::new(),
        link_port: 4000,
        target: String::new(),
    };
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    hosted.deployment_mut().on_agent(NODE, hello, CardId("eth0".into()), address, NOW);
    let ready = Ready {
        deployment: DEPLOYMENT,
        target: "/dev/sda".into(),
        describe: String::new(),
        bytes: 1 << 30,
        rotational: false,
        direct: true,
        comparable: false,
        ring: 1 << 26,
    };
    hosted.deployment_mut().on_message(NODE, ToServer::Ready(ready), NOW);
    hosted
}

/// What is to be done now, in words.
fn acts(hosted: &mut Hosted, now: Time) -> Vec<String> {
    let act = |act| match act {
        HostedAct::Send(_, order) => format!("{order:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
        HostedAct::Keep { number, sync, .. } => format!("Keep {number} {sync}"),
        HostedAct::StartFeed { serial, .. } => format!("StartFeed {serial}"),
        HostedAct::StopFeed(serial) => format!("StopFeed {serial}"),
        other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
    };
    let all = std::iter::from_fn(|| hosted.poll(now)).map(act);
    all.filter(|act| !["NodeChanged", "Note"].contains(&act.as_str())).collect()
}

#[test]
fn orders_and_feeds_wait_until_the_state_is_kept_and_inviting_an_agent_does_not() {
    let mut hosted = ready();
    assert_eq!(acts(&mut hosted, NOW), ["Keep 1 true", "Welcome", "Prepare"]);
    hosted.on_kept(1);
    assert_eq!(acts(&mut hosted, NOW), ["Join", "PlanFixed", "StartFeed 1"]);
}

#[test]
fn a_disk_that_is_slow_to_keep_the_state_holds_up_nodes_for_half_a_second() {
    let mut hosted = ready();
    acts(&mut hosted, NOW);
    let later = hosted.deadline();
    assert_eq!(later, NOW.after(Duration::from_millis(500)));
    assert_eq!(acts(&mut hosted, later), ["Join", "PlanFixed", "StartFeed 1"]);
}

#[test]
fn a_deployment_that_runs_is_kept_every_second_although_nothing_happens() {
    let mut hosted = ready();
    hosted.on_kept(u64::MAX);
    acts(&mut hosted, NOW);
    let later = NOW.after(KEEP_EVERY);
    hosted.on_time(later);
    assert!(acts(&mut hosted, later).contains(&"Keep 2 false".to_owned()));
}

#[test]
fn at_the_end_feeds_stop_and_every_order_goes_out_before_parting() {
    let mut hosted = ready();
    hosted.on_kept(u64::MAX);
    acts(&mut hosted, NOW);
    hosted.deployment_mut().on_stop(NOW);
    let acts = acts(&mut hosted, NOW);
    assert_eq!(acts.last().map(String::as_str), Some("Over"), "{acts:?}");
    let at = |what: &str| acts.iter().position(|act| act == what);
    assert!(at("StopFeed 1") < at("RemoveState") && at("StopFeed 1").is_some(), "{acts:?}");
    assert!(at("Abort").is_some() && hosted.poll(NOW).is_none(), "{acts:?}");
    assert_eq!(hosted.keep(true, NOW), None, "and nothing is kept any more");
}

#[test]
fn what_a_replaced_feed_says_no_longer_counts() {
    let terms = Terms {
        deployment: DEPLOYMENT,
        epoch: Epoch(1),
        pass: 1,
        from: NodeId::SERVER,
        to: NODE,
        key: LinkKey([7; 32]),
        class: LinkClass::Paced,
    };
    let address = "10.0.0.1:4000".parse().unwrap();
    let order = FeedOrder { terms, address, blocks: BlockSet::full(100) };
    let mut hosted = ready();
    hosted.on_kept(u64::MAX);
    acts(&mut hosted, NOW);
    hosted.start_feed(0, order);
    assert_eq!(acts(&mut hosted, NOW), ["StopFeed 1", "StartFeed 2"]);
    let down = || FeedEvent::Down { detail: "silent".to_owned(), damaged: false };
    hosted.on_feed(1, down(), NOW);
    assert!(acts(&mut hosted, NOW).is_empty());
    hosted.on_feed(2, down(), NOW);
    assert!(!acts(&mut hosted, NOW).is_empty());
}

#[test]
fn a_block_is_checked_once_at_a_time_and_only_so_many_wait() {
    let mut hosted = Hosted::new(config(), NOW);
    for block in [0, 0].into_iter().chain(0..100) {
        hosted.on_event(DeploymentEvent::CheckBlock(BlockNo(block)));
    }
    assert_eq!(acts(&mut hosted, NOW).len(), MAX_CHECKS);
    hosted.on_checked(BlockNo(7), None, NOW);
    (0..100).for_each(|block| hosted.on_event(DeploymentEvent::CheckBlock(BlockNo(block))));
    assert!(matches!(hosted.poll(NOW), Some(HostedAct::CheckBlock(BlockNo(7)))));
    assert!(hosted.poll(NOW).is_none());
}
