//! Messages from the server to an agent.

use super::fields::{deployment, epoch, line, node, put_line, put_socket_address, socket_address};
use super::{MAX_LINE, MAX_NAME, NotApproved};
use crate::approval::Share;
use crate::reason::{Free, LinkClass, Reason, Then, Verify};
use crate::units::{BLOCK_MAX, BLOCK_MIN, DeploymentId, Epoch, GRAIN_MIN, Hash, LinkKey, MAX_DISK_BYTES, NodeId};
use crate::wire::{Malformed, Parsed, array, flag, hash, whole};
use nom::Parser;
use nom::combinator::{cond, fail, map, verify};
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};
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
    /// Nobody needs the node any more: finish the disk and end.
    Finish(Finish),
    /// Stop; the disk stays marked.
    Abort(Abort),
    /// Nothing but a sign of life.
    Heartbeat,
    /// A text for the console of this node.
    Notice(Notice),
    /// It has to be approved first.
    NotApproved(NotApproved),
    /// The server's part of the code that both screens show.
    ApprovalShare(Share),
}

impl ToAgent {
    /// The message as bytes, at most [`MAX_MESSAGE`](super::MAX_MESSAGE) of them. Texts over their limits are cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Welcome(welcome) => welcome.put(&mut out),
            Self::Prepare(prepare) => prepare.put(&mut out),
            Self::Join(join) => join.put(&mut out),
            Self::Finish(finish) => finish.put(&mut out),
            Self::Abort(abort) => abort.put(&mut out),
            Self::Heartbeat => out.push(0x87),
            Self::Notice(notice) => notice.put(&mut out),
            Self::NotApproved(not_approved) => not_approved.put(&mut out),
            Self::ApprovalShare(share) => share.put(0x8a, &mut out),
        }
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`] for anything that [`Self::encode`] does not make.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        whole("message to the agent", Self::read, bytes)
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        match le_u8(input)? {
            (input, 0x81) => map(Welcome::read, Self::Welcome).parse(input),
            (input, 0x82) => map(Prepare::read, Self::Prepare).parse(input),
            (input, 0x83) => map(Join::read, Self::Join).parse(input),
            (input, 0x85) => map(Finish::read, Self::Finish).parse(input),
            (input, 0x86) => map(Abort::read, Self::Abort).parse(input),
            (input, 0x87) => Ok((input, Self::Heartbeat)),
            (input, 0x88) => map(Notice::read, Self::Notice).parse(input),
            (input, 0x89) => map(NotApproved::read, Self::NotApproved).parse(input),
            (input, 0x8a) => map(Share::read, Self::ApprovalShare).parse(input),
            (input, _) => fail().parse(input),
        }
    }
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What the node is called from now on.
    pub node: NodeId,
    /// The version of the server.
    pub server_version: String,
}

impl Welcome {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(0x81);
        out.extend_from_slice(&self.node.0.to_le_bytes());
        put_line(out, &self.server_version, MAX_NAME);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map((node, line(MAX_NAME)), |(node, server_version)| Self { node, server_version }).parse(input)
    }
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

impl Prepare {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(0x82);
        out.extend_from_slice(&self.deployment.0);
        out.extend_from_slice(&self.root.0);
        put_line(out, &self.image, MAX_LINE);
        out.extend_from_slice(&self.disk_bytes.to_le_bytes());
        for size in [self.sector, self.block, self.grain] {
            out.extend_from_slice(&size.to_le_bytes());
        }
        put_line(out, &self.selector, MAX_LINE);
        out.extend_from_slice(&[self.verify.code(), self.free.code(), self.then.code(), self.fresh.into()]);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        let sizes = verify((le_u64, le_u32, le_u32, le_u32), |(disk_bytes, sector, block, grain)| {
            (1..=MAX_DISK_BYTES).contains(disk_bytes)
                && sector.is_power_of_two()
                && (512..=BLOCK_MIN).contains(sector)
                && (BLOCK_MIN..=BLOCK_MAX).contains(block)
                && grain.is_power_of_two()
                && (GRAIN_MIN..=*block).contains(grain)
                && block % grain == 0
        });
        let choices = (Verify::read, Free::read, Then::read, flag);
        map(
            (deployment, hash, line(MAX_LINE), sizes, line(MAX_LINE), choices),
            |(deployment, root, image, (disk_bytes, sector, block, grain), selector, (verify, free, then, fresh))| {
                Self { deployment, root, image, disk_bytes, sector, block, grain, selector, verify, free, then, fresh }
            },
        )
        .parse(input)
    }
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

impl LinkSpec {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node.0.to_le_bytes());
        put_socket_address(out, self.address);
        out.extend_from_slice(&self.key.0);
        out.push(self.class.code());
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map((node, socket_address, array, LinkClass::read), |(node, address, key, class)| Self {
            node,
            address,
            key: LinkKey(key),
            class,
        })
        .parse(input)
    }
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
    /// The neighbour that will connect to the node.
    pub upstream: LinkSpec,
    /// Whom the node connects to; nobody for the tail.
    pub downstream: Option<LinkSpec>,
}

impl Join {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(0x83);
        out.extend_from_slice(&self.deployment.0);
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.pass.to_le_bytes());
        for place in [self.chain, self.position, self.chain_len] {
            out.extend_from_slice(&place.to_le_bytes());
        }
        self.upstream.put(out);
        out.push(self.downstream.is_some().into());
        if let Some(downstream) = &self.downstream {
            downstream.put(out);
        }
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        let place = verify((le_u16, le_u16, le_u16), |(_, position, chain_len)| (1..=*chain_len).contains(position));
        let (input, (deployment, epoch, pass, (chain, position, chain_len), upstream, more)) =
            (deployment, epoch, le_u32, place, LinkSpec::read, flag).parse(input)?;
        let (input, downstream) = cond(more, LinkSpec::read).parse(input)?;
        Ok((input, Self { deployment, epoch, pass, chain, position, chain_len, upstream, downstream }))
    }
}

/// Nobody needs the node any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The deployment.
    pub deployment: DeploymentId,
    /// What the node does then.
    pub then: Then,
}

impl Finish {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(0x85);
        out.extend_from_slice(&self.deployment.0);
        out.push(self.then.code());
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map((deployment, Then::read), |(deployment, then)| Self { deployment, then }).parse(input)
    }
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

impl Abort {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(0x86);
        out.extend_from_slice(&self.deployment.0);
        out.push(self.reason.code());
        put_line(out, &self.detail, MAX_LINE);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map((deployment, Reason::read, line(MAX_LINE)), |(deployment, reason, detail)| Self {
            deployment,
            reason,
            detail,
        })
        .parse(input)
    }
}

/// A text for the console of this node; the agent does not act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The deployment.
    pub deployment: DeploymentId,
    /// What it is.
    pub detail: String,
}

impl Notice {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(0x88);
        out.extend_from_slice(&self.deployment.0);
        put_line(out, &self.detail, MAX_LINE);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map((deployment, line(MAX_LINE)), |(deployment, detail)| Self { deployment, detail }).parse(input)
    }
}
