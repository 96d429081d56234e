//! How far a node is in the deployment, and how it ended.

use crate::control::{Ended, Ready};
use crate::reason::{EndState, LookedAt, Reason, Verified};
use crate::units::Time;

/// Where a node stands, in the order in which it gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was told of the image and looks for its target.
    Preparing,
    /// Its target is found and open.
    Ready(Ready),
    /// It has no target for this image; it takes no part.
    Refused {
        /// Why.
        reason: Reason,
        /// The facts behind the reason.
        detail: String,
    },
    /// It has a place in a chain.
    Running(Ready),
    /// It is through, or was given up.
    Ended(Outcome),
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
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
    /// The target it was about.
    pub ready: Ready,
    /// When.
    pub at: Time,
    /// It was told that it may go.
    pub(super) released: bool,
}

impl Outcome {
    pub(super) fn failed(reason: Reason, detail: String, ready: Ready, at: Time) -> Self {
        Self {
            state: EndState::Failed,
            reason,
            detail,
            verified: Verified::No,
            blocks: (0, 0),
            last_look: (LookedAt::No, 0),
            ready,
            at,
            released: false,
        }
    }

    pub(super) fn of(ended: Ended, ready: Ready, at: Time) -> Self {
        let Ended { state, reason, detail, verified, blocks_written, blocks_kept, last_look, last_look_blocks, .. } =
            ended;
        let (blocks, last_look) = ((blocks_written, blocks_kept), (last_look, last_look_blocks));
        Self { state, reason, detail, verified, blocks, last_look, ready, at, released: false }
    }
}

/// A node's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chain, from 0.
    pub chain: u16,
    /// The position in it; 1 is the head.
    pub position: u16,
}
