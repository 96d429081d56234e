//! The two ends of a chain link. The upstream end ([`Sender`]) connects; both prove that they know the link key that the
//! server gave them; the downstream end ([`Receiver`]) says what it lacks and how much may come; then frames flow.
//!
//! Neither end holds payloads or knows a socket: the caller brings each frame that arrived complete, asks for control bytes
//! to write, and accounts block frames with [`Sender::sent_block`] and [`Receiver::on_block`]. State table: `docs/WIRE.md`.

mod again;
mod outlet;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

pub use outlet::Transmit;
pub(crate) use outlet::{Next, Outlet, Supply};
pub use receiver::{Receiver, ReceiverEvent};
pub use sender::{Sender, SenderEvent};

use crate::bug::{self, Bug};
use crate::frame::{Header, HeaderError, Kind};
use crate::reason::LinkClass;
use crate::units::{BlockNo, DeploymentId, Epoch, LinkKey, NodeId, PartNo, Time};
use crate::wire::{Malformed, array, whole};
use core::time::Duration;
use nom::Parser;
use nom::number::complete::{le_u8, le_u32, le_u64};

/// The longest either end keeps quiet.
pub const BEAT: Duration = Duration::from_millis(250);
/// Silence after which the neighbour is suspected.
pub(crate) const SUSPECT: Duration = Duration::from_secs(1);
/// Silence after which the link counts as dead.
pub(crate) const SILENT: Duration = Duration::from_secs(2);
/// The longest a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(2);

/// So many damaged answers to calls of one link are no chance.
const MAX_DAMAGED_ANSWERS: u32 = 3;

/// What the server said of one link, to both its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The epoch of the order that made the link.
    pub epoch: Epoch,
    /// The pass it serves.
    pub pass: u32,
    /// The upstream end.
    pub from: NodeId,
    /// The downstream end.
    pub to: NodeId,
    /// What both ends prove to know.
    pub key: LinkKey,
    /// Paced or follower.
    pub class: LinkClass,
}

/// Why a link can't go on. Each ends the link, none of them the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// Bytes that are no frame of this version.
    Header(HeaderError),
    /// A frame that may not come in this state.
    Unexpected(Kind),
    /// A payload that does not parse.
    Malformed(&'static str),
    /// A frame of another deployment.
    Deployment,
    /// A caller that is not the one the order named, or of another epoch.
    Stranger {
        /// The caller.
        from: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The neighbour does not know the link key.
    Proof,
    /// The payload of a control frame is damaged.
    PayloadCrc(Kind),
    /// The neighbour hung up and said why.
    Refused(String),
    /// More came than credit was given for.
    Credit,
    /// A block came damaged twice, or too many were damaged.
    BlockCrc(BlockNo),
    /// The manifest header does not have the root that the server named.
    ManifestHash,
    /// A part of the manifest does not have the hash that the manifest header names.
    PartHash(PartNo),
    /// The manifest breaks a rule, though its hash is right.
    Manifest(&'static str),
    /// The connection broke; the text is the system's.
    Broken(String),
    /// A link that the server's newest order no longer names.
    Superseded,
    /// Nothing was heard for so long.
    Silent(Duration),
    /// The handshake took too long.
    Handshake,
}

impl LinkFault {
    /// Whether it says that a frame of the neighbour was damaged, and not that the neighbour breaks the rules.
    #[must_use]
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            // A neighbour of another version says so in its very first frame.
            Self::Header(HeaderError::Version(_)) => false,
            Self::Header(_) | Self::PayloadCrc(_) | Self::BlockCrc(_) | Self::ManifestHash | Self::PartHash(_) => true,
            _ => false,
        }
    }

    /// The fault as it is told to the server. Before its key is proven the other end may be anybody: what it sends damaged says
    /// nothing against the neighbour.
    #[must_use]
    pub(crate) fn as_seen(&self, proven: bool) -> Self {
        if self.is_damage() && !proven { Self::Broken(self.to_string()) } else { self.clone() }
    }
}

/// The damaged answers of a neighbour that was called and has not proven the link key. Each ends its connection.
///
/// The answer of one call proves little: its key is not proven. But the caller connected to the address that the neighbour told
/// the server, so only the neighbour, or what stands on the way to it, can answer there. An end that is called does not count
/// what callers send: anybody can call.
#[derive(Debug, Default)]
pub struct DamagedAnswers {
    count: u32,
}

impl DamagedAnswers {
    /// A call ended with `fault` before the key was proven. Gives whether that makes it sure that what the neighbour sends is
    /// damaged: calling again would not help.
    pub(crate) fn on_fault(&mut self, fault: &LinkFault) -> bool {
        self.count += u32::from(fault.is_damage());
        self.are_many()
    }

    /// Whether there were so many that it is sure.
    #[must_use]
    pub(crate) fn are_many(&self) -> bool {
        self.count >= MAX_DAMAGED_ANSWERS
    }
}

impl core::fmt::Display for LinkFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Unexpected(kind) => write!(f, "{kind:?} frame out of turn"),
            Self::Malformed(what) => write!(f, "malformed {what}"),
            Self::Deployment => write!(f, "frame of another deployment"),
            Self::Stranger { from, epoch } => {
                write!(f, "call from node {from} at epoch {epoch}, which is not expected")
            }
            Self::Proof => write!(f, "wrong link key"),
            Self::PayloadCrc(kind) => write!(f, "{kind:?} payload damaged (its CRC differs)"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Credit => write!(f, "more was sent than credit was given for"),
            Self::BlockCrc(block) => write!(f, "block {block} came damaged, and not the first time (its CRC differs)"),
            Self::ManifestHash => write!(f, "the manifest header is damaged (it does not have the manifest root)"),
            Self::PartHash(part) => write!(f, "part {part} of the manifest is damaged (its hash differs)"),
            Self::Manifest(what) => write!(f, "{what} does not match the manifest root"),
            Self::Broken(why) => f.write_str(why),
            Self::Superseded => write!(f, "the chain was changed"),
            Self::Silent(span) => write!(f, "silent for {:.1} s", span.as_secs_f32()),
            Self::Handshake => write!(f, "no complete handshake within {} s", HANDSHAKE.as_secs()),
        }
    }
}

impl std::error::Error for LinkFault {}

impl From<HeaderError> for LinkFault {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

impl From<Malformed> for LinkFault {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.what)
    }
}

/// What a Hello says, before anything of it is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The caller.
    pub from: NodeId,
    /// The node that it calls.
    pub to: NodeId,
    /// The epoch of its order.
    pub epoch: Epoch,
    /// The pass the link is for.
    pub pass: u32,
    /// Paced or follower.
    pub class: LinkClass,
    nonce: [u8; 16],
}

impl Greeting {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.extend_from_slice(&self.from.0.to_le_bytes());
        out.extend_from_slice(&self.to.0.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.pass.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.class == LinkClass::Follower), 0, 0, 0]);
        out.extend_from_slice(&self.nonce);
        out
    }

    /// Reads the payload of a Hello frame.
    ///
    /// # Errors
    /// [`LinkFault::Malformed`] if it is not 40 bytes of the right form.
    pub fn parse(payload: &[u8]) -> Result<Self, LinkFault> {
        let mut parser = (le_u32, le_u32, le_u64, le_u32, le_u8, array::<3>, array::<16>);
        let (from, to, epoch, pass, class, _, nonce) = whole("Hello", |input| parser.parse(input), payload)?;
        let class = match class {
            0 => LinkClass::Paced,
            1 => LinkClass::Follower,
            _ => return Err(LinkFault::Malformed("Hello")),
        };
        Ok(Self { from: NodeId(from), to: NodeId(to), epoch: Epoch(epoch), pass, class, nonce })
    }
}

/// Proof of the link key: keyed BLAKE3 over both nonces and everything the Hello said.
fn proof(terms: &Terms, label: &[u8], hello: &[u8], nonce: &[u8; 16]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&terms.key.0);
    hasher.update(label).update(&terms.deployment.0).update(hello).update(nonce);
    *hasher.finalize().as_bytes()
}

const DOWNSTREAM: &[u8] = b"slidecast link 1 downstream";
const UPSTREAM: &[u8] = b"slidecast link 1 upstream";

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    blake3::Hash::from(*a) == blake3::Hash::from(*b)
}

/// When something was last heard and said on a link.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    opened: Time,
    heard: Time,
    said: Time,
}

impl Pulse {
    fn new(now: Time) -> Self {
        Self { opened: now, heard: now, said: now }
    }

    fn check(&self, open: bool, now: Time) -> Result<(), LinkFault> {
        if !open && now.since(self.opened) >= HANDSHAKE {
            return Err(LinkFault::Handshake);
        }
        let silence = now.since(self.heard);
        if open && silence >= SILENT && !bug::is(Bug::SilenceUnseen) { Err(LinkFault::Silent(silence)) } else { Ok(()) }
    }

    fn deadline(&self, open: bool) -> Time {
        if open { self.said.after(BEAT).min(self.heard.after(SILENT)) } else { self.opened.after(HANDSHAKE) }
    }
}

/// A frame that fits in one piece: its header and payload.
fn framed(kind: Kind, deployment: DeploymentId, number: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let header = Header { flags, ..Header::with_payload(kind, deployment, number, payload) };
    [&header.encode()[..], payload].concat()
}

/// The bytes of a Refuse frame: the last thing said on a link that can't be.
#[must_use]
pub fn refusal(deployment: DeploymentId, why: &str) -> Vec<u8> {
    let cut = why.char_indices().map(|(at, _)| at).find(|at| *at >= 500).unwrap_or(why.len());
    framed(Kind::Refuse, deployment, 0, 0, &why.as_bytes()[..cut])
}

fn refused(payload: &[u8]) -> LinkFault {
    LinkFault::Refused(String::from_utf8_lossy(payload).chars().filter(|c| !c.is_control()).collect())
}

fn check_frame(header: &Header, payload: &[u8], deployment: DeploymentId) -> Result<(), LinkFault> {
    if header.deployment != deployment {
        return Err(LinkFault::Deployment);
    }
    if crc32fast::hash(payload) != header.payload_crc {
        return Err(LinkFault::PayloadCrc(header.kind));
    }
    Ok(())
}
