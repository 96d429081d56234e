//! One node of one deployment, without sockets, disk and image: what its server does, and in which order.

use super::hosted::KEEP_EVERY;
use super::{Host, HostAct, Hosted, HostedAct, MAX_CHECKS};
use crate::approval::{Caller, Identity};
use crate::control::{Card, LinkClass, ToAgent, ToServer};
use crate::deployment::tests::{self, BLOCKS, DEPLOYMENT, config, hello};
use crate::deployment::{DeploymentEvent, Standing};
use crate::feed::{FeedEvent, FeedOrder};
use crate::fleet::Wanted;
use crate::link::Terms;
use crate::plan::CardId;
use crate::set::BlockSet;
use crate::units::{BlockNo, DeploymentId, Epoch, LinkKey, NodeId, Time};
use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr};

const NODE: NodeId = NodeId(1);
const NOW: Time = Time(1);
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A deployment that begins with its first node.
fn hosted() -> Hosted {
    Hosted::new(config(1, None), NOW)
}

/// A deployment for which its one node is ready.
fn ready() -> Hosted {
    let mut hosted = hosted();
    hosted.deployment_mut().on_agent(NODE, hello(1), CardId("eth0".into()), ADDRESS, NOW);
    hosted.deployment_mut().on_message(NODE, tests::ready(), NOW);
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
    let order = FeedOrder { terms, address, blocks: BlockSet::full(BLOCKS) };
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
    let mut hosted = hosted();
    for block in [0, 0].into_iter().chain(0..100) {
        hosted.on_event(DeploymentEvent::CheckBlock(BlockNo(block)));
    }
    assert_eq!(acts(&mut hosted, NOW).len(), MAX_CHECKS);
    hosted.on_checked(BlockNo(7), None, NOW);
    (0..100).for_each(|block| hosted.on_event(DeploymentEvent::CheckBlock(BlockNo(block))));
    assert!(matches!(hosted.poll(NOW), Some(HostedAct::CheckBlock(BlockNo(7)))));
    assert!(hosted.poll(NOW).is_none());
}

fn caller(boot: u8) -> Caller {
    let card = CardId("eth0".into());
    Caller { hello: hello(boot), key: None, handshake: [0; 32], address: ADDRESS, card }
}

fn orders(host: &mut Host, now: Time) -> Vec<(NodeId, ToAgent)> {
    let order = |act| if let HostAct::Send(node, order) = act { Some((node, order)) } else { None };
    std::iter::from_fn(|| host.poll(now)).filter_map(order).collect()
}

#[test]
fn an_agent_that_no_deployment_wants_is_idle_and_goes_to_the_first_that_does() {
    let mut host = Host::new("0".into(), NOW);
    let node = host.on_agent(caller(1), NOW).unwrap();
    assert!(matches!(orders(&mut host, NOW)[..], [(first, ToAgent::Welcome(_))] if first == node));
    assert!(host.is_here(&[1; 16]) && host.of_agent(node).is_none());
    assert!(!host.on_message(node, ToServer::Heartbeat, NOW), "no deployment hears it");
    host.open(DEPLOYMENT, hosted(), Wanted::Everyone, NOW);
    assert!(matches!(orders(&mut host, NOW)[..], [(_, ToAgent::Welcome(_)), (_, ToAgent::Prepare(_))]));
    assert_eq!(host.of_agent(node), Some(DEPLOYMENT));
    assert!(host.on_message(node, ToServer::Heartbeat, NOW));
}

#[test]
fn an_agent_that_goes_is_not_here_and_its_deployment_waits_for_it() {
    let mut host = Host::new("0".into(), NOW);
    host.open(DEPLOYMENT, hosted(), Wanted::Everyone, NOW);
    let node = host.on_agent(caller(1), NOW).unwrap();
    orders(&mut host, NOW);
    host.on_gone(node, "it hung up", NOW);
    assert!(!host.is_here(&[1; 16]));
    let back = host.on_agent(caller(1), NOW).unwrap();
    assert!(host.is_here(&[1; 16]));
    let known = host.get(DEPLOYMENT).unwrap().deployment().node(back).is_some();
    assert!(known && host.of_agent(back) == Some(DEPLOYMENT));
}

#[test]
fn an_agent_that_goes_right_after_it_was_lent_is_known_to_its_deployment() {
    for ended in [false, true] {
        let mut host = Host::new("0".into(), NOW);
        let earlier = DeploymentId([7; 16]);
        if ended {
            host.open(earlier, hosted(), Wanted::Everyone, NOW);
        }
        let node = host.on_agent(caller(1), NOW).unwrap();
        host.open(DEPLOYMENT, hosted(), Wanted::Everyone, NOW);
        if ended {
            host.close(earlier, NOW);
        }
        host.on_gone(node, "it hung up", NOW);
        assert!(host.get(DEPLOYMENT).unwrap().deployment().node(node).is_some(), "{ended}: its deployment knows it");
        host.close(DEPLOYMENT, NOW);
        assert_eq!(host.fleet().agents().count(), 0, "{ended}: nobody waits for it any longer");
    }
}

#[test]
fn an_idle_agent_that_is_silent_is_gone_and_its_link_is_closed() {
    let mut host = Host::new("0".into(), NOW);
    let node = host.on_agent(caller(1), NOW).unwrap();
    let mut now = NOW;
    let mut silent = Vec::new();
    for _ in 0..20 {
        now = now.after(Duration::from_millis(500));
        host.on_time(now);
        silent.extend(std::iter::from_fn(|| host.poll(now)).filter(|act| matches!(act, HostAct::Silent(_))));
    }
    assert!(matches!(silent[..], [HostAct::Silent(of)] if of == node));
    assert!(!host.is_here(&[1; 16]));
}

#[test]
fn a_deployment_that_is_over_gives_its_agents_back_only_when_it_is_closed() {
    let mut host = Host::new("0".into(), NOW);
    host.open(DEPLOYMENT, hosted(), Wanted::Everyone, NOW);
    let node = host.on_agent(caller(1), NOW).unwrap();
    orders(&mut host, NOW);
    let hosted = host.get_mut(DEPLOYMENT).unwrap();
    hosted.on_kept(u64::MAX);
    hosted.deployment_mut().on_stop(NOW);
    let is_over = |act: &HostAct| matches!(act, HostAct::Of(DEPLOYMENT, HostedAct::Over));
    assert!(std::iter::from_fn(|| host.poll(NOW)).any(|act| is_over(&act)));
    assert!(host.take(DEPLOYMENT).is_some() && host.fleet().loan(node) == Some(DEPLOYMENT));
    host.close(DEPLOYMENT, NOW);
    assert!(matches!(host.poll(NOW), Some(HostAct::Machine(idle)) if idle == node));
    assert_eq!(host.fleet().loan(node), None);
}

fn caller_with_card(boot: u8) -> Caller {
    let card = Card { name: "eth0".into(), mac: [2, 0, 0, 0, 0, 1], addresses: Vec::new(), mbits: 0, up: true };
    let mut caller = caller(boot);
    caller.hello.cards = vec![card];
    caller
}

#[test]
fn an_agent_whose_machine_another_one_claims_is_taken_back_before_the_start_and_comes_again_when_it_is_alone() {
    let mut host = Host::new("0".into(), NOW);
    let wanted = Wanted::Machines([Identity::Mac([2, 0, 0, 0, 0, 1])].into());
    host.open(DEPLOYMENT, hosted(), wanted, NOW);
    let first = host.on_agent(caller_with_card(1), NOW).unwrap();
    assert_eq!(host.of_agent(first), Some(DEPLOYMENT));
    orders(&mut host, NOW);
    let second = host.on_agent(caller_with_card(2), NOW).unwrap();
    let told = orders(&mut host, NOW);
    let abort = |node| told.iter().any(|(to, order)| *to == node && matches!(order, ToAgent::Abort(_)));
    assert!(abort(first) && !abort(second), "{told:?}");
    assert_eq!((host.of_agent(first), host.of_agent(second)), (None, None));
    let node = host.get(DEPLOYMENT).unwrap().deployment().node(first).unwrap();
    assert!(
        !node.connected
            && matches!(node.standing, Standing::Refused { detail, .. } if detail.contains("hardware address"))
    );
    host.on_gone(second, "it was switched off", NOW);
    assert!(
        matches!(orders(&mut host, NOW)[..], [(a, ToAgent::Welcome(_)), (b, ToAgent::Prepare(_))] if a == first && b == first)
    );
    assert_eq!(host.of_agent(first), Some(DEPLOYMENT));
}
