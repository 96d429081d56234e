//! What can be seen of a deployment at one moment: made in the event loop, shown elsewhere, so that a slow terminal never
//! holds up a deployment.
//!
//! Every text that came from an agent has been made fit to show.

use crate::shown::{shown, shown_detail};
use slidecast_proto::deployment::{Deployment, NodeRecord, Stage, Standing};
use slidecast_proto::queue::Waits;
use slidecast_proto::reason::{EndState, Phase, Reason, Verified};
use slidecast_proto::units::{NodeId, Time};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// How much a new second counts in a rate.
const SMOOTHING: f64 = 0.3;

/// What does not change while a deployment runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The image's file, as it was given.
    pub image: String,
    /// The size of its disk in bytes.
    pub disk_bytes: u64,
    /// The bytes of all places on one target.
    pub raw_bytes: u64,
    /// The bytes of the payloads of one image.
    pub stored_bytes: u64,
    /// How many blocks it has.
    pub blocks: u32,
    /// The deployment's id.
    pub deployment: String,
    /// The server's public key; none with `--insecure`.
    pub key: Option<String>,
    /// The port.
    pub port: u16,
    /// How many nodes start it.
    pub wait_for: u32,
    /// How long it waits for them.
    pub timeout: Option<Duration>,
}

/// A deployment at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// How far it is.
    pub stage: Stage,
    /// Since it began to wait.
    pub waited: Duration,
    /// Since the plan was fixed, until now or until the last node ended.
    pub ran: Option<Duration>,
    /// Bytes sent by the server.
    pub egress_bytes: u64,
    /// How many agents wait for approval.
    pub unapproved: usize,
    /// Why it does not begin although its nodes are ready.
    pub waits: Option<Waits>,
    /// The nodes by number.
    pub nodes: Vec<NodeView>,
    /// The chains.
    pub chains: Vec<ChainView>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainView {
    /// The card that feeds it.
    pub interface: String,
    /// Its nodes, the head first.
    pub nodes: Vec<u32>,
}

/// Where a node stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It looks for its target.
    Preparing,
    /// It could start.
    Ready,
    /// It takes no part.
    Refused,
    /// It is at work.
    Running(Phase),
    /// It is through.
    Ended(EndState),
}

impl State {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Refused => "refused",
            Self::Running(phase) => phase.as_str(),
            Self::Ended(state) => state.as_str(),
        }
    }
}

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its number.
    pub id: u32,
    /// Its host name, if it has one.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The server's card that it hangs on.
    pub interface: String,
    /// Its chain, from 1, and its position, 1 being the head.
    pub place: Option<(u32, u32)>,
    /// The chain and position it would get if the deployment started now.
    pub expected: Option<(u32, u32)>,
    /// Where it stands.
    pub state: State,
    /// Why it failed or was refused.
    pub reason: Reason,
    /// The facts behind the reason.
    pub detail: String,
    /// The path of its target.
    pub target: String,
    /// The target for people: model, serial, size.
    pub describe: String,
    /// The control link stands.
    pub connected: bool,
    /// Blocks accepted, durable and verified.
    pub blocks: (u32, u32, u32),
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes received per second.
    pub rate: f64,
    /// Of 100.
    pub percent: f64,
    /// Until it has everything, if that can be told.
    pub left: Option<Duration>,
    /// How it ended.
    pub end: Option<EndView>,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndView {
    /// Since the plan was fixed.
    pub after: Duration,
    /// How the disk was read back.
    pub verified: Verified,
    /// Blocks written and blocks kept.
    pub blocks: (u32, u32),
}

impl NodeView {
    /// How to name it to a person.
    #[must_use]
    pub fn label(&self) -> String {
        let name = if self.name.is_empty() { String::new() } else { format!(" {}", self.name) };
        format!("node {}{name} ({})", self.id, self.address)
    }
}

/// Follows the rates of the nodes from one snapshot to the next.
#[derive(Debug, Default)]
pub struct Tracker {
    meters: HashMap<NodeId, Meter>,
}

#[derive(Debug)]
struct Meter {
    at: Time,
    bytes: u64,
    blocks: f64,
    byte_rate: f64,
    block_rate: f64,
}

impl Tracker {
    /// The deployment now.
    pub fn snapshot(&mut self, deployment: &Deployment, began: Time, egress_bytes: u64, now: Time) -> Snapshot {
        let (fixed, over) = deployment.times();
        let mut nodes: Vec<_> = deployment.nodes().map(|node| self.node(&node, fixed, now)).collect();
        if deployment.stage() == Stage::Waiting {
            for (chain, planned) in (1..).zip(deployment.plan_now().chains) {
                for (position, id) in (1..).zip(planned.nodes) {
                    let node = nodes.iter_mut().find(|node| node.id == id.0);
                    node.into_iter().for_each(|node| node.expected = Some((chain, position)));
                }
            }
        }
        let interface =
            |ids: &[NodeId]| ids.first().and_then(|id| deployment.node(*id)).map(|node| node.card.0.clone());
        let chains = deployment.chains().map(|ids| ChainView {
            interface: interface(ids).unwrap_or_default(),
            nodes: ids.iter().map(|id| id.0).collect(),
        });
        Snapshot {
            stage: deployment.stage(),
            waited: now.since(began),
            ran: fixed.map(|fixed| over.unwrap_or(now).since(fixed)),
            egress_bytes,
            unapproved: 0,
            waits: None,
            chains: chains.collect(),
            nodes,
        }
    }

    fn node(&mut self, node: &NodeRecord<'_>, fixed: Option<Time>, now: Time) -> NodeView {
        let progress = node.progress;
        let total = f64::from(node.durable.universe().max(1));
        let phase = progress.map_or(Phase::Preparing, |progress| progress.phase);
        let blocks = progress.map_or((0, 0, 0), |progress| (progress.accepted, progress.durable, progress.verified));
        let received_bytes = progress.map_or(0, |progress| progress.received_bytes);
        let (state, reason, detail) = match node.standing {
            Standing::Preparing => (State::Preparing, Reason::None, ""),
            Standing::Ready(_) => (State::Ready, Reason::None, ""),
            Standing::Refused { reason, detail } => (State::Refused, *reason, detail.as_str()),
            Standing::Running(_) => (State::Running(phase), Reason::None, ""),
            Standing::Ended(end) => (State::Ended(end.state), end.reason, end.detail.as_str()),
        };
        let describe = match node.standing {
            Standing::Ready(ready) | Standing::Running(ready) => ready.describe.as_str(),
            // A deployment may be over before anybody looked.
            Standing::Ended(end) => end.ready.describe.as_str(),
            Standing::Preparing | Standing::Refused { .. } => "",
        };
        // While blocks come, the way is measured by what has come; after that, by what was read back.
        let behind = if phase > Phase::Receiving { blocks.2 } else { blocks.0 };
        let meter = self.meters.entry(node.id).or_insert_with(|| Meter::new(now));
        meter.take(now, received_bytes, f64::from(behind));
        let running = matches!(state, State::Running(_));
        let whole = matches!(state, State::Ended(EndState::Done | EndState::Written));
        let left =
            (running && meter.block_rate > 0.01).then(|| (total - f64::from(behind)).max(0.0) / meter.block_rate);
        NodeView {
            id: node.id.0,
            name: shown(&node.hello.hostname),
            address: node.address,
            interface: node.card.0.clone(),
            place: node.place.map(|place| (u32::from(place.chain) + 1, u32::from(place.position))),
            expected: None,
            state,
            reason,
            detail: shown_detail(detail),
            target: shown(node.target()),
            describe: shown(describe),
            connected: node.connected,
            blocks,
            received_bytes,
            written_bytes: progress.map_or(0, |progress| progress.written_bytes),
            rate: if running { meter.byte_rate } else { 0.0 },
            percent: if whole { 100.0 } else { (f64::from(behind) / total * 100.0).clamp(0.0, 100.0) },
            left: left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            end: node.outcome().map(|end| EndView {
                after: fixed.map_or(Duration::ZERO, |fixed| end.at.since(fixed)),
                verified: end.verified,
                blocks: end.blocks,
            }),
        }
    }
}

impl Meter {
    fn new(now: Time) -> Self {
        Self { at: now, bytes: 0, blocks: 0.0, byte_rate: 0.0, block_rate: 0.0 }
    }

    /// Agents report once a second; a shorter look would see nothing or twice too much.
    fn take(&mut self, now: Time, bytes: u64, blocks: f64) {
        let span = now.since(self.at).as_secs_f64();
        if span < 0.9 {
            return;
        }
        let smooth = |old: f64, new: f64| if old > 0.0 { old + SMOOTHING * (new - old) } else { new };
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let grown = bytes.saturating_sub(self.bytes) as f64;
        self.byte_rate = smooth(self.byte_rate, grown / span);
        // The measure starts anew where reading back begins.
        self.block_rate = smooth(self.block_rate, (blocks - self.blocks).max(0.0) / span);
        (self.at, self.bytes, self.blocks) = (now, bytes, blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(millis: u64) -> Time {
        Time(1).after(Duration::from_millis(millis))
    }

    #[test]
    fn a_rate_is_measured_over_whole_seconds_and_smoothed() {
        let mut meter = Meter::new(after(0));
        meter.take(after(100), 5_000_000, 5.0);
        assert!(meter.byte_rate.abs() < 1.0);
        meter.take(after(1000), 10_000_000, 10.0);
        assert!((meter.byte_rate - 1e7).abs() < 1e5);
        meter.take(after(2000), 10_000_000, 10.0);
        assert!((meter.byte_rate - 0.7e7).abs() < 1e5);
        assert!((meter.block_rate - 7.0).abs() < 0.1);
    }

    #[test]
    fn states_have_one_word_each() {
        assert_eq!(State::Running(Phase::Receiving).as_str(), "receiving");
        assert_eq!(State::Ended(EndState::Written).as_str(), "written");
        assert_eq!(State::Refused.as_str(), "refused");
    }
}
