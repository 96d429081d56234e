//! What the server makes of a stall of its own: it was suspended, its processor or its disk was busy elsewhere.
//!
//! The silence of nodes in that time means nothing. They may have said a lot that was not read yet. After 4 s they give the silent server up and
//! call again, so a control link that is found closed means nothing either, until they had the time to call.

use super::timers::{MIN_SERVER_STALL, RECONNECT_TIMEOUT, Timer};
use super::{Deployment, NodeRecord};
use crate::units::Time;
use core::time::Duration;

/// When the server last looked at the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    looked: Time,
    /// The end of its last stall.
    awake: Option<Time>,
}

impl Attention {
    pub(super) fn new(now: Time) -> Self {
        Self { looked: now, awake: None }
    }

    /// Whether a stall ended so short a time ago that nodes may not have called again.
    pub(super) fn is_dazed(&self, now: Time) -> bool {
        self.awake.is_some_and(|awake| now.since(awake) < RECONNECT_TIMEOUT)
    }

    /// Looks at the clock; gives the length of the stall that ended just now.
    fn look_up(&mut self, now: Time) -> Option<Duration> {
        let pause = now.since(self.looked);
        self.looked = now;
        (pause >= MIN_SERVER_STALL).then(|| {
            self.awake = Some(now);
            pause
        })
    }
}

impl Deployment {
    /// Comes before whatever draws conclusions from the time: after a stall all nodes are given their time again.
    pub(super) fn look_up(&mut self, now: Time) {
        let Some(pause) = self.attention.look_up(now) else { return };
        self.roster.forgive(pause, now);
        self.ledger.forgive(pause, now);
        self.timers.postpone(Timer::Gather, pause);
        self.timers.postpone(Timer::Return, pause);
    }

    /// Whether a node has no control link, and that says something about the node.
    pub(super) fn is_cut_off(&self, node: &NodeRecord<'_>, now: Time) -> bool {
        !node.connected && !self.attention.is_dazed(now)
    }
}
