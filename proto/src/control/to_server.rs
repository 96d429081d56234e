//! Messages from an agent to the server.

use super::fields::{block, deployment, epoch, line, node, put_line};
use super::{Card, Disk, MAX_CARDS, MAX_DISKS, MAX_LABEL, MAX_LINE, MAX_NAME, MAX_RANGES};
use crate::approval::Share;
use crate::reason::{EndState, LinkState, LookedAt, Phase, Reason, Side, Verified};
use crate::units::{BlockNo, DeploymentId, Epoch, Hash, MAX_BLOCKS, NodeId};
use crate::wire::{Malformed, Parsed, array, flag, hash, list, put_list, whole};
use nom::Parser;
use nom::combinator::{fail, map, verify};
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};

/// Anything an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToServer {
    /// The first message: the identity and the hardware of the node.
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
    /// The node is finished, successfully or not.
    Ended(Ended),
    /// A line of the agent's log.
    Log(LogLine),
    /// Nothing but a sign of life.
    Heartbeat,
    /// The agent's part of the code that both screens show.
    ApprovalShare(Share),
}

impl ToServer {
    /// The message as bytes, at most [`MAX_MESSAGE`](super::MAX_MESSAGE) of them. Texts and lists over their limits are
    /// cut; disks that do not fit are left out from the end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Hello(hello) => hello.put(&mut out),
            Self::Ready(ready) => ready.put(&mut out),
            Self::Refused(refused) => refused.put(&mut out),
            Self::Progress(progress) => progress.put(&mut out),
            Self::Link(event) => event.put(&mut out),
            Self::BadBlock(bad) => bad.put(&mut out),
            Self::Ended(ended) => ended.put(&mut out),
            Self::Log(line) => line.put(&mut out),
            Self::Heartbeat => out.push(9),
            Self::ApprovalShare(share) => share.put(10, &mut out),
        }
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`] for anything that [`Self::encode`] does not make.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        whole("message to the server", Self::read, bytes)
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        match le_u8(input)? {
            (input, 1) => map(Hello::read, Self::Hello).parse(input),
            (input, 2) => map(Ready::read, Self::Ready).parse(input),
            (input, 3) => map(Refused::read, Self::Refused).parse(input),
            (input, 4) => map(Progress::read, Self::Progress).parse(input),
            (input, 5) => map(LinkEvent::read, Self::Link).parse(input),
            (input, 6) => map(BadBlock::read, Self::BadBlock).parse(input),
            (input, 7) => map(Ended::read, Self::Ended).parse(input),
            (input, 8) => map(LogLine::read, Self::Log).parse(input),
            (input, 9) => Ok((input, Self::Heartbeat)),
            (input, 10) => map(Share::read, Self::ApprovalShare).parse(input),
            (input, _) => fail().parse(input),
        }
    }
}

/// The identity and the hardware of a node.
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

impl Hello {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_line(out, &self.agent_version, MAX_NAME);
        put_line(out, &self.hostname, MAX_LABEL);
        out.extend_from_slice(&self.boot);
        out.extend_from_slice(&self.ram_bytes.to_le_bytes());
        out.extend_from_slice(&self.link_port.to_le_bytes());
        put_line(out, &self.target, MAX_LINE);
        put_list(out, &self.cards, MAX_CARDS, |out, card| card.put(out));
        Disk::put_all(out, &self.disks);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        let who = (line(MAX_NAME), line(MAX_LABEL), array, le_u64, le_u16, line(MAX_LINE));
        map(
            (who, list(MAX_CARDS, Card::read), list(MAX_DISKS, Disk::read)),
            |((agent_version, hostname, boot, ram_bytes, link_port, target), cards, disks)| Self {
                agent_version,
                hostname,
                boot,
                ram_bytes,
                cards,
                disks,
                link_port,
                target,
            },
        )
        .parse(input)
    }
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
    /// It carries the mark of an unfinished deployment or something else, so that comparing it with the image may be worth it.
    pub comparable: bool,
    /// The size of the ring in bytes.
    pub ring: u64,
}

impl Ready {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(2);
        out.extend_from_slice(&self.deployment.0);
        put_line(out, &self.target, MAX_LINE);
        put_line(out, &self.describe, MAX_LINE);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend([self.rotational, self.direct, self.comparable].map(u8::from));
        out.extend_from_slice(&self.ring.to_le_bytes());
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map(
            (deployment, line(MAX_LINE), line(MAX_LINE), le_u64, flag, flag, flag, le_u64),
            |(deployment, target, describe, bytes, rotational, direct, comparable, ring)| Self {
                deployment,
                target,
                describe,
                bytes,
                rotational,
                direct,
                comparable,
                ring,
            },
        )
        .parse(input)
    }
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

impl Refused {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(3);
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
    /// Milliseconds since the last report in which there was room in the ring: the upstream could have sent more.
    pub wait_upstream_ms: u32,
    /// Milliseconds since the last report in which there was no room because the downstream had not taken what was there.
    pub wait_downstream_ms: u32,
    /// Milliseconds since the last report in which the target had work: blocks had come that were not written yet. In the time
    /// that is in neither of the other two there was no room because of it.
    pub wait_disk_ms: u32,
    /// The last pass of which the upstream said that nothing more comes; 0 for none.
    pub pass_ended: u32,
    /// Blocks that became durable since the last progress: ranges start..end, not empty, ascending, at most
    /// [`MAX_RANGES`]; what does not fit comes with the next.
    pub durable_new: Vec<(u32, u32)>,
}

impl Progress {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(4);
        out.extend_from_slice(&self.deployment.0);
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.push(self.phase.code());
        for count in [self.accepted, self.durable, self.verified] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        for bytes in [self.received_bytes, self.sent_bytes, self.written_bytes] {
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        for wait in [self.wait_upstream_ms, self.wait_downstream_ms, self.wait_disk_ms, self.pass_ended] {
            out.extend_from_slice(&wait.to_le_bytes());
        }
        put_list(out, &self.durable_new, MAX_RANGES, |out, (start, end)| {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&end.to_le_bytes());
        });
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        let ranges = verify(list(MAX_RANGES, |input| (le_u32, le_u32).parse(input)), ascending);
        map(
            (
                deployment,
                epoch,
                Phase::read,
                (le_u32, le_u32, le_u32),
                (le_u64, le_u64, le_u64),
                (le_u32, le_u32, le_u32, le_u32),
                ranges,
            ),
            |(deployment, epoch, phase, counts, bytes, waits, durable_new)| Self {
                deployment,
                epoch,
                phase,
                accepted: counts.0,
                durable: counts.1,
                verified: counts.2,
                received_bytes: bytes.0,
                sent_bytes: bytes.1,
                written_bytes: bytes.2,
                wait_upstream_ms: waits.0,
                wait_downstream_ms: waits.1,
                wait_disk_ms: waits.2,
                pass_ended: waits.3,
                durable_new,
            },
        )
        .parse(input)
    }
}

/// No range is empty, runs backwards, overlaps the one before or goes past the last block there can be.
fn ascending(ranges: &[(u32, u32)]) -> bool {
    let mut from = 0;
    ranges.iter().all(|(start, end)| {
        let good = from <= *start && start < end && *end <= MAX_BLOCKS;
        from = *end;
        good
    })
}

/// A chain link came up, looks dead or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The epoch of the link.
    pub epoch: Epoch,
    /// The node at its other end.
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

impl LinkEvent {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(5);
        out.extend_from_slice(&self.deployment.0);
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.peer.0.to_le_bytes());
        out.extend_from_slice(&[self.side.code(), self.state.code(), self.reason.code()]);
        put_line(out, &self.detail, MAX_LINE);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map(
            (deployment, epoch, node, Side::read, LinkState::read, Reason::read, line(MAX_LINE)),
            |(deployment, epoch, peer, side, state, reason, detail)| Self {
                deployment,
                epoch,
                peer,
                side,
                state,
                reason,
                detail,
            },
        )
        .parse(input)
    }
}

/// A block's content was not what the manifest says, although its CRC held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBlock {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The block.
    pub block: BlockNo,
    /// The node that sent it.
    pub from: NodeId,
    /// What was wrong, for people.
    pub detail: String,
}

impl BadBlock {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(6);
        out.extend_from_slice(&self.deployment.0);
        out.extend_from_slice(&self.block.0.to_le_bytes());
        out.extend_from_slice(&self.from.0.to_le_bytes());
        put_line(out, &self.detail, MAX_LINE);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map((deployment, block, node, line(MAX_LINE)), |(deployment, block, from, detail)| Self {
            deployment,
            block,
            from,
            detail,
        })
        .parse(input)
    }
}

/// The node is finished, successfully or not.
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
    /// How much was read once more before the head was written.
    pub last_look: LookedAt,
    /// How many blocks that were.
    pub last_look_blocks: u32,
}

impl Ended {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(7);
        out.extend_from_slice(&self.deployment.0);
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&[self.state.code(), self.reason.code()]);
        put_line(out, &self.detail, MAX_LINE);
        out.push(self.verified.code());
        out.extend_from_slice(&self.blocks_written.to_le_bytes());
        out.extend_from_slice(&self.blocks_kept.to_le_bytes());
        out.push(self.last_look.code());
        out.extend_from_slice(&self.last_look_blocks.to_le_bytes());
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map(
            (
                (deployment, hash, EndState::read, Reason::read, line(MAX_LINE)),
                (Verified::read, le_u32, le_u32, LookedAt::read, le_u32),
            ),
            |(
                (deployment, root, state, reason, detail),
                (verified, blocks_written, blocks_kept, last_look, last_look_blocks),
            )| Self {
                deployment,
                root,
                state,
                reason,
                detail,
                verified,
                blocks_written,
                blocks_kept,
                last_look,
                last_look_blocks,
            },
        )
        .parse(input)
    }
}

/// A line of the agent's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u8,
    /// The line.
    pub text: String,
}

impl LogLine {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[8, self.level.clamp(1, 5)]);
        put_line(out, &self.text, MAX_LINE);
    }

    fn read(input: &[u8]) -> Parsed<'_, Self> {
        map((verify(le_u8, |level| (1..=5).contains(level)), line(MAX_LINE)), |(level, text)| Self { level, text })
            .parse(input)
    }
}
