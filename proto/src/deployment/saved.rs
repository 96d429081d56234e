//! What is kept of a deployment for a server that is started again.

use super::{NodeRecord, Outcome, Place, Standing};
use crate::control::{Hello, Ready};
use crate::plan::CardId;
use crate::reason::{EndState, LookedAt, Reason, Verified};
use crate::units::{NodeId, Time};
use core::time::Duration;
use std::net::IpAddr;

/// What is kept of a deployment, for a server that is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The highest pass.
    pub pass: u32,
    /// The highest number of a node.
    pub last_id: u32,
    /// Since the plan was fixed.
    pub elapsed: Duration,
    /// All nodes with a place.
    pub nodes: Vec<SavedNode>,
}

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedNode {
    /// Its number.
    pub id: NodeId,
    /// The run of its agent.
    pub boot: [u8; 16],
    /// Its host name.
    pub hostname: String,
    /// The server's card that it hangs on.
    pub card: CardId,
    /// Its address.
    pub address: IpAddr,
    /// Its place in the plan.
    pub place: Place,
    /// Its target.
    pub ready: Ready,
    /// How it ended, if it has.
    pub end: Option<SavedEnd>,
    /// How often the chain was repaired around it.
    pub repairs: u32,
    /// Whether it was moved behind the tail.
    pub moved: bool,
    /// Whether it came after the start.
    pub late: bool,
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedEnd {
    /// Done, written or failed.
    pub state: EndState,
    /// Why it failed.
    pub reason: Reason,
    /// The facts behind the reason.
    pub detail: String,
    /// How the disk was read back.
    pub verified: Verified,
    /// Blocks written and blocks that were there already.
    pub blocks: (u32, u32),
    /// How much was read once more before the head was written, and how many blocks that were.
    pub last_look: (LookedAt, u32),
    /// After the plan was fixed.
    pub after: Duration,
}

impl SavedNode {
    pub(super) fn of(node: &NodeRecord<'_>, fixed: Time) -> Option<Self> {
        let (ready, end) = match node.standing {
            Standing::Running(ready) => (ready, None),
            Standing::Ended(outcome) => (&outcome.ready, Some(SavedEnd::of(outcome, fixed))),
            Standing::Preparing | Standing::Ready(_) | Standing::Refused { .. } => return None,
        };
        Some(Self {
            id: node.id,
            boot: node.hello.boot,
            hostname: node.hello.hostname.clone(),
            card: node.card.clone(),
            address: node.address,
            place: node.place?,
            ready: ready.clone(),
            end,
            repairs: node.repairs,
            moved: node.moved,
            late: node.late,
        })
    }

    pub(super) fn standing(&self, fixed: Time) -> Standing {
        match &self.end {
            None => Standing::Running(self.ready.clone()),
            Some(SavedEnd { state, reason, detail, verified, blocks, last_look, after }) => Standing::Ended(Outcome {
                state: *state,
                reason: *reason,
                detail: detail.clone(),
                verified: *verified,
                blocks: *blocks,
                last_look: *last_look,
                ready: self.ready.clone(),
                at: fixed.after(*after),
                released: false,
            }),
        }
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            agent_version: String::new(),
            hostname: self.hostname.clone(),
            boot: self.boot,
            ram_bytes: 0,
            cards: Vec::new(),
            disks: Vec::new(),
            link_port: 0,
            target: String::new(),
        }
    }
}

impl SavedEnd {
    fn of(outcome: &Outcome, fixed: Time) -> Self {
        let Outcome { state, reason, detail, verified, blocks, last_look, at, .. } = outcome.clone();
        Self { state, reason, detail, verified, blocks, last_look, after: at.since(fixed) }
    }
}
