//! Messages of the control link that parse and mean something wrong.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use slidecast_proto::approval::{Commitment, Share};
use slidecast_proto::control::{
    Abort, BadBlock, Ended, Join, LinkEvent, LinkSpec, LogLine, NotApproved, Notice, Prepare, Progress, Ready, Refused,
    ToAgent, ToServer, Welcome,
};
use slidecast_proto::reason::{EndState, Free, LinkClass, LinkState, LookedAt, Phase, Reason, Side, Verified, Verify};
use slidecast_proto::units::{BlockNo, DeploymentId, Epoch, Hash, LinkKey, NodeId};

use super::frames::{long, number};
use crate::disk::random::Random;

/// How long the machines' own waits are that a forged text names; only a fact for the text.
const A_WHILE: Duration = Duration::from_secs(2);

fn of<T: Copy>(random: &mut Random, all: &[T]) -> T {
    all[usize::try_from(random.below(all.len() as u64)).expect("below its length")]
}

fn text(random: &mut Random) -> String {
    match random.below(4) {
        0 => String::new(),
        1 => "x".repeat(900),
        2 => "\u{202e}\u{fffd} %s {} \"".to_owned(),
        _ => format!("silent for {} s", A_WHILE.as_secs()),
    }
}

fn deployment(random: &mut Random, known: DeploymentId) -> DeploymentId {
    if random.below(8) == 0 { DeploymentId([3; 16]) } else { known }
}

fn epoch(random: &mut Random, known: Epoch) -> Epoch {
    match random.below(5) {
        0 => Epoch(long(random)),
        1 => Epoch(known.0.wrapping_add(1)),
        2 => Epoch(known.0.saturating_sub(1)),
        _ => known,
    }
}

/// What an agent should not say to a server.
pub(super) fn to_server(random: &mut Random, known: DeploymentId, at: Epoch, root: Hash, count: u32) -> ToServer {
    let deployment = deployment(random, known);
    match random.below(10) {
        0..=2 => {
            let start = number(random, count).min((1 << 24) - 2);
            let end = start.saturating_add(number(random, count).max(1)).min(1 << 24);
            let durable_new = if random.below(2) == 0 { vec![] } else { vec![(start, end)] };
            ToServer::Progress(Progress {
                deployment,
                epoch: epoch(random, at),
                phase: of(random, Phase::ALL),
                accepted: number(random, count),
                durable: number(random, count),
                verified: number(random, count),
                received_bytes: long(random),
                sent_bytes: long(random),
                written_bytes: long(random),
                wait_upstream_ms: number(random, 1000),
                wait_downstream_ms: number(random, 1000),
                wait_disk_ms: number(random, 1000),
                durable_new,
                pass_ended: number(random, 2),
            })
        }
        3 => ToServer::Link(LinkEvent {
            deployment,
            epoch: epoch(random, at),
            peer: NodeId(number(random, 5)),
            side: of(random, Side::ALL),
            state: of(random, LinkState::ALL),
            reason: of(random, Reason::ALL),
            detail: text(random),
        }),
        4 => ToServer::BadBlock(BadBlock {
            deployment,
            block: BlockNo(number(random, count)),
            from: NodeId(number(random, 5)),
            detail: text(random),
        }),
        5 => ToServer::Ended(Ended {
            deployment,
            root: if random.below(2) == 0 { root } else { Hash([5; 32]) },
            state: of(random, EndState::ALL),
            reason: of(random, Reason::ALL),
            detail: text(random),
            verified: of(random, Verified::ALL),
            blocks_written: number(random, count),
            blocks_kept: number(random, count),
            last_look: of(random, LookedAt::ALL),
            last_look_blocks: number(random, count),
        }),
        6 => ToServer::Refused(Refused { deployment, reason: of(random, Reason::ALL), detail: text(random) }),
        7 => ToServer::Log(LogLine { level: u8::try_from(random.below(7)).unwrap_or(0), text: text(random) }),
        8 => ToServer::ApprovalShare(share(random)),
        _ => ToServer::Ready(ready(random, deployment)),
    }
}

fn share(random: &mut Random) -> Share {
    let mut share = [0; 16];
    share.copy_from_slice(&random.bytes(16));
    Share(share)
}

/// A target that can't be as it says.
pub(super) fn ready(random: &mut Random, deployment: DeploymentId) -> Ready {
    Ready {
        deployment,
        target: text(random),
        describe: text(random),
        bytes: long(random),
        rotational: random.below(2) == 0,
        direct: random.below(2) == 0,
        comparable: random.below(2) == 0,
        ring: long(random),
    }
}

/// What a server should not say to an agent. Nothing here restarts a machine.
pub(super) fn to_agent(random: &mut Random, right: &Prepare, join: &Join) -> ToAgent {
    let deployment = deployment(random, right.deployment);
    match random.below(10) {
        0 => ToAgent::Welcome(Welcome {
            node: NodeId(number(random, 5)),
            server_version: text(random).chars().take(9).collect(),
        }),
        1 => ToAgent::Prepare(prepare(random, right)),
        2..=4 => ToAgent::Join(wrong_join(random, join)),
        5 => ToAgent::Notice(Notice { deployment, detail: text(random) }),
        6 if random.below(3) == 0 => {
            ToAgent::Abort(Abort { deployment, reason: of(random, Reason::ALL), detail: text(random) })
        }
        7 => {
            let commitment = (random.below(3) > 0).then_some(Commitment([4; 32]));
            ToAgent::NotApproved(NotApproved { commitment })
        }
        8 => ToAgent::ApprovalShare(share(random)),
        _ => ToAgent::Heartbeat,
    }
}

/// An image that is not the one that comes.
pub(super) fn prepare(random: &mut Random, right: &Prepare) -> Prepare {
    let mut forged = right.clone();
    match random.below(7) {
        0 => forged.root = Hash([6; 32]),
        1 => forged.disk_bytes = long(random).clamp(1, 1 << 60),
        2 => forged.block = (64 << 10) << random.below(9),
        3 => forged.sector = 512 << random.below(8),
        4 => forged.selector = of(random, &["size=1G..", "serial=*", "\u{fffd}", "path=/dev/null", "==,,"]).to_owned(),
        5 => forged.deployment = DeploymentId([3; 16]),
        _ => (forged.verify, forged.free) = (of(random, Verify::ALL), of(random, Free::ALL)),
    }
    forged
}

fn wrong_join(random: &mut Random, right: &Join) -> Join {
    let mut forged = right.clone();
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    match random.below(8) {
        0 => forged.epoch = epoch(random, right.epoch),
        1 => forged.pass = number(random, 3),
        2 => (forged.chain, forged.position, forged.chain_len) = (u16::MAX, u16::MAX, u16::MAX),
        3 => forged.upstream.node = NodeId(number(random, 5)),
        4 => forged.upstream.key = LinkKey([0; 32]),
        5 => {
            let class = of(random, LinkClass::ALL);
            forged.downstream =
                Some(LinkSpec { node: NodeId(number(random, 5)), address: nowhere, key: LinkKey([1; 32]), class });
        }
        6 => forged.downstream = None,
        _ => forged.deployment = DeploymentId([3; 16]),
    }
    if random.below(2) == 0 {
        forged.epoch = Epoch(forged.epoch.0.wrapping_add(1));
    }
    forged
}
