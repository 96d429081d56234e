//! Messages from an agent to the server.

use crate::control::{Card, Disk};
use crate::reason::{EndState, LinkState, Phase, Reason, Side, Verified};
use crate::units::{BlockNo, DeploymentId, Epoch, Hash, NodeId};

/// Anything an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToServer {
    /// The first message: who and what the node is.
    Hello(Hello),
    /// The target is found, may be written and is open.
    Ready(Ready),
    /// The node does not take part, and why.
    Refused(Refused),
    /// How far it is; once a second, and whenever the phase changes.
    Progress(Progress),
    /// A chain link came up, looks dead or is gone.
    Link(LinkEvent),
    /// A block's content was not what the manifest says.
    BadBlock(BadBlock),
    /// The node is finished, in the one way or the other.
    Ended(Ended),
    /// A line of the agent's log.
    Log(LogLine),
    /// Nothing but a sign of life.
    Heartbeat,
}

/// Who and what a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the agent.
    pub agent_version: String,
    /// The name the node has, if any.
    pub hostname: String,
    /// Drawn at random once per start of the agent: the same node again, or another run of it.
    pub boot: [u8; 16],
    /// The memory of the node, in bytes.
    pub ram_bytes: u64,
    /// Its network cards.
    pub cards: Vec<Card>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// The TCP port at which its upstream reaches it.
    pub link_port: u16,
    /// The agent's own `--target`; empty if it has none.
    pub target: String,
}

/// The target is found, may be written and is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The deployment it was prepared for.
    pub deployment: DeploymentId,
    /// The path of the target.
    pub target: String,
    /// Model, serial and size of the target in one line, for people.
    pub describe: String,
    /// The size of the target in bytes.
    pub bytes: u64,
    /// It has heads that move.
    pub rotational: bool,
    /// It takes direct I/O.
    pub direct: bool,
    /// It carries the mark of an unfinished deployment.
    pub marked: bool,
    /// The size of the ring in bytes.
    pub ring: u64,
}

/// The node does not take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The deployment it refuses.
    pub deployment: DeploymentId,
    /// Why.
    pub reason: Reason,
    /// The facts behind the reason, for people.
    pub detail: String,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The node's highest epoch.
    pub epoch: Epoch,
    /// What it is busy with.
    pub phase: Phase,
    /// Blocks accepted: CRC good, in the ring or written.
    pub accepted: u32,
    /// Blocks that a flush covers.
    pub durable: u32,
    /// Blocks read back and found equal.
    pub verified: u32,
    /// Bytes received from upstreams so far.
    pub received_bytes: u64,
    /// Bytes sent to downstreams so far.
    pub sent_bytes: u64,
    /// Bytes written to the target so far.
    pub written_bytes: u64,
    /// Milliseconds of the last second spent waiting for the upstream.
    pub wait_upstream_ms: u32,
    /// Milliseconds of the last second spent waiting for the downstream.
    pub wait_downstream_ms: u32,
    /// Milliseconds of the last second spent waiting for the target.
    pub wait_disk_ms: u32,
    /// Blocks that became durable since the last progress: ranges start..end, ascending, at most
    /// 4,096 of them; what does not fit comes with the next.
    pub durable_new: Vec<(u32, u32)>,
}

/// A chain link came up, looks dead or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The epoch of the link.
    pub epoch: Epoch,
    /// Who is at its other end.
    pub peer: NodeId,
    /// Which side that is.
    pub side: Side,
    /// What became of it.
    pub state: LinkState,
    /// Why, unless it came up.
    pub reason: Reason,
    /// The facts behind the reason, for people.
    pub detail: String,
}

/// A block's content was not what the manifest says, although its CRC held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBlock {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The block.
    pub block: BlockNo,
    /// Who sent it.
    pub from: NodeId,
    /// What was wrong, for people.
    pub detail: String,
}

/// The node is finished, in the one way or the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The manifest root of what is on the target.
    pub root: Hash,
    /// How it ended.
    pub state: EndState,
    /// Why, if it failed.
    pub reason: Reason,
    /// The facts behind the reason, for people.
    pub detail: String,
    /// How the read-back was done.
    pub verified: Verified,
    /// Blocks written.
    pub blocks_written: u32,
    /// Blocks that were on the target already.
    pub blocks_kept: u32,
}

/// A line of the agent's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u8,
    /// The line.
    pub text: String,
}
