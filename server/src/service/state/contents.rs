//! The form of a state file.

use super::{Keys, RequestFingerprint, Unfinished};
use serde::{Deserialize, Serialize};
use slidecast_proto::control::Ready;
use slidecast_proto::deployment::{Place, Saved, SavedEnd, SavedNode};
use slidecast_proto::hex;
use slidecast_proto::noise::PublicKey;
use slidecast_proto::plan::CardId;
use slidecast_proto::units::{DeploymentId, NodeId};
use std::net::IpAddr;
use std::time::Duration;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) version: u32,
    pub(super) image: String,
    #[serde(rename = "asked")]
    pub(super) fingerprint: RequestFingerprint,
    pub(super) deployment: String,
    /// When the server was alive, in seconds since 1970.
    pub(super) alive: u64,
    pub(super) egress_bytes: u64,
    pub(super) elapsed_us: u64,
    pub(super) pass: u32,
    pub(super) last_id: u32,
    pub(super) nodes: Vec<NodeContents>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeContents {
    id: u32,
    boot: String,
    key: Option<String>,
    hostname: String,
    card: String,
    address: IpAddr,
    chain: u16,
    position: u16,
    target: String,
    describe: String,
    bytes: u64,
    rotational: bool,
    direct: bool,
    comparable: bool,
    ring: u64,
    repairs: u32,
    moved: bool,
    late: bool,
    /// A code that was typed let it in.
    #[serde(default)]
    approved: bool,
    end: Option<EndContents>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EndContents {
    state: String,
    reason: String,
    detail: String,
    verified: String,
    blocks_written: u32,
    blocks_kept: u32,
    last_look: String,
    last_look_blocks: u32,
    after_us: u64,
}

impl Contents {
    /// What it says, if every field has a meaning.
    pub(super) fn unpack(self) -> Option<Unfinished> {
        let deployment = DeploymentId(hex::parse(&self.deployment)?);
        let (mut keys, mut approved) = (Keys::new(), Vec::new());
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in self.nodes {
            let key = node.key.as_deref().map(str::parse::<PublicKey>).transpose().ok()?;
            let was_typed = node.approved;
            let node = node.unpack(deployment)?;
            keys.insert(node.boot, key);
            approved.extend(was_typed.then_some(node.boot));
            nodes.push(node);
        }
        let elapsed = Duration::from_micros(self.elapsed_us);
        let saved = Saved { pass: self.pass, last_id: self.last_id, elapsed, nodes };
        Some(Unfinished { deployment, saved, keys, approved, egress: self.egress_bytes })
    }
}

impl NodeContents {
    pub(super) fn of(node: &SavedNode, key: Option<PublicKey>, approved: bool) -> Self {
        let Ready { target, describe, bytes, rotational, direct, comparable, ring, .. } = node.ready.clone();
        Self {
            id: node.id.0,
            boot: hex::text(&node.boot),
            key: key.map(|key| key.to_string()),
            hostname: node.hostname.clone(),
            card: node.card.0.clone(),
            address: node.address,
            chain: node.place.chain,
            position: node.place.position,
            target,
            describe,
            bytes,
            rotational,
            direct,
            comparable,
            ring,
            repairs: node.repairs,
            moved: node.moved,
            late: node.late,
            approved,
            end: node.end.as_ref().map(EndContents::of),
        }
    }

    fn unpack(self, deployment: DeploymentId) -> Option<SavedNode> {
        let Self { target, describe, bytes, rotational, direct, comparable, ring, .. } = self;
        Some(SavedNode {
            id: NodeId(self.id),
            boot: hex::parse(&self.boot)?,
            hostname: self.hostname,
            card: CardId(self.card),
            address: self.address,
            place: Place { chain: self.chain, position: self.position },
            ready: Ready { deployment, target, describe, bytes, rotational, direct, comparable, ring },
            end: match self.end {
                None => None,
                Some(end) => Some(end.unpack()?),
            },
            repairs: self.repairs,
            moved: self.moved,
            late: self.late,
        })
    }
}

impl EndContents {
    fn of(end: &SavedEnd) -> Self {
        Self {
            state: end.state.to_string(),
            reason: end.reason.to_string(),
            detail: end.detail.clone(),
            verified: end.verified.to_string(),
            blocks_written: end.blocks.0,
            blocks_kept: end.blocks.1,
            last_look: end.last_look.0.to_string(),
            last_look_blocks: end.last_look.1,
            after_us: micros(end.after),
        }
    }

    fn unpack(self) -> Option<SavedEnd> {
        Some(SavedEnd {
            state: self.state.parse().ok()?,
            reason: self.reason.parse().ok()?,
            detail: self.detail,
            verified: self.verified.parse().ok()?,
            blocks: (self.blocks_written, self.blocks_kept),
            last_look: (self.last_look.parse().ok()?, self.last_look_blocks),
            after: Duration::from_micros(self.after_us),
        })
    }
}

pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
