//! Messages from the server to an agent.

use crate::reason::{Free, LinkClass, Reason, Then, Verify};
use crate::units::{BlockNo, DeploymentId, Epoch, Hash, LinkKey, NodeId};
use std::net::SocketAddr;

/// Anything the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    /// The answer to a hello.
    Welcome(Welcome),
    /// Find the target for this image and open it; nothing is written yet.
    Prepare(Prepare),
    /// Take this place in a chain.
    Join(Join),
    /// The block is good on the server: fetch it again.
    Resend(Resend),
    /// Nobody needs the node any more: finish the disk and end.
    Finish(Finish),
    /// Stop; the disk stays marked.
    Abort(Abort),
    /// Nothing but a sign of life.
    Heartbeat,
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What the node is called from now on.
    pub node: NodeId,
    /// The version of the server.
    pub server_version: String,
}

/// Find the target for this image and open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The manifest root: what everything is checked against.
    pub root: Hash,
    /// The name of the image, for people.
    pub image: String,
    /// The size of the image's disk in bytes: the least the target must have.
    pub disk_bytes: u64,
    /// The logical sector of the image's disk in bytes.
    pub sector: u32,
    /// The block size in bytes.
    pub block: u32,
    /// The grain in bytes.
    pub grain: u32,
    /// The server's selector; empty for exactly one eligible disk.
    pub selector: String,
    /// How much is read back.
    pub verify: Verify,
    /// What happens to what the image says nothing of.
    pub free: Free,
    /// What the node does at the end.
    pub then: Then,
    /// Write everything, whatever is on the target.
    pub fresh: bool,
}

/// One end of a chain link, as the node at the other end needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// The node there.
    pub node: NodeId,
    /// Where it listens. The upstream connects; in [`Join::upstream`] it says nothing.
    pub address: SocketAddr,
    /// What both ends prove to know.
    pub key: LinkKey,
    /// Whether the link may hold the ring.
    pub class: LinkClass,
}

/// Take this place in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The chain's epoch; below the node's own highest the order is refused.
    pub epoch: Epoch,
    /// The pass: 0 manifest parts only, 1 the main pass, above that catch-up passes.
    pub pass: u32,
    /// The chain.
    pub chain: u16,
    /// The position in it; 1 is the head.
    pub position: u16,
    /// How many nodes the chain has.
    pub chain_len: u16,
    /// Who will connect to the node.
    pub upstream: LinkSpec,
    /// Whom the node connects to; nobody for the tail.
    pub downstream: Option<LinkSpec>,
}

/// The block is good on the server: fetch it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resend {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The block.
    pub block: BlockNo,
}

/// Nobody needs the node any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The deployment.
    pub deployment: DeploymentId,
    /// What the node does then.
    pub then: Then,
}

/// Stop; the disk stays marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Why.
    pub reason: Reason,
    /// The facts behind the reason, for people.
    pub detail: String,
}
