//! Deadlines of a deployment, and all its spans of time in one table, because they are chosen with an eye on each other.

use crate::units::Time;
use core::time::Duration;

/// How often the server says that it lives.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);
/// A control link that is silent for so long counts as gone.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a running node may be without its control link before it counts as lost.
pub(super) const RECONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Nothing heard for so long makes a neighbour's complaint about a node believable.
pub(super) const SUSPECT_AFTER: Duration = Duration::from_secs(1);
/// A neighbour that was itself not heard for so long may have been cut off: its report on the silence of others does not count.
pub(super) const DEAF_AFTER: Duration = Duration::from_millis(600);
/// Quiet for longer than a busy machine would be.
pub(super) const DEAD_AFTER: Duration = Duration::from_millis(1500);
/// A neighbour's complaint counts for so long when the control link goes, too.
pub(super) const COMPLAINT_WINDOW: Duration = Duration::from_secs(2);
/// A node that was silent no longer than this, its control link not closed, may be heard again: after a cable was out for a second TCP
/// recovers at 1.4 s, after longer ones at 3 s (RFC 6298 with Linux's minimum timeout). The deployment does not end before.
pub(super) const TCP_RECOVERY: Duration = Duration::from_millis(3200);
/// A node that reports nothing for so long is mute ...
pub(super) const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// ... if it was heard within this time: one that is starved or stopped says nothing at all.
pub(super) const HEARD_WINDOW: Duration = Duration::from_secs(1);
/// How long nothing may move on a node whose links live.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How much longer nothing may move below a node that was given up for that.
pub(super) const STALL_EXTENSION: Duration = Duration::from_secs(30);
/// How long a node that was told of the image keeps a deployment open that is over otherwise.
pub(super) const INVITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The minimum time from one catch-up pass to the next, so that one that brings nothing costs little.
pub(super) const MIN_PASS_INTERVAL: Duration = Duration::from_millis(250);
/// How long followers may take what is left in the rings above them once the core has everything.
pub(super) const FOLLOWER_LINGER: Duration = Duration::from_secs(1);
/// The time that a chain may take to compare, whatever the size of the image.
pub(super) const MIN_COMPARING: Duration = Duration::from_secs(30);
/// How long a server that was started again waits for all nodes that were at work before it forms chains.
pub(super) const GATHER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an agent that calls such a server may take to say what it holds.
pub(super) const FIRST_REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// A pause between two looks at the clock that counts as a stall of the server. Without one there is a look at every heartbeat.
pub(super) const MIN_SERVER_STALL: Duration = Duration::from_millis(750);

/// The deadlines of the deployment itself. Those of a node follow from what the roster and the ledger know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The nodes are to hear that the server lives.
    Heartbeat,
    /// Reports that were taken together are to be looked at.
    Reports,
    /// The nodes that are waited for must be ready.
    Start,
    /// The next catch-up pass may begin.
    NextPass,
    /// Chains are formed of the nodes that are back after the server was started again.
    Gather,
    /// Nodes that are not back by then are lost.
    Return,
}

/// When each of them is due.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: [Option<Time>; 6],
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Time) {
        self.due[timer as usize] = Some(at);
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        self.due[timer as usize] = None;
    }

    /// Whether it is set and its time has come.
    pub(super) fn is_due(&self, timer: Timer, now: Time) -> bool {
        self.due[timer as usize].is_some_and(|at| now >= at)
    }

    /// Whether it is set and its time is still to come.
    pub(super) fn is_ahead(&self, timer: Timer, now: Time) -> bool {
        self.due[timer as usize].is_some_and(|at| now < at)
    }

    /// The server stood still for so long: what was awaited meanwhile gets that time on top.
    pub(super) fn postpone(&mut self, timer: Timer, pause: Duration) {
        if let Some(at) = &mut self.due[timer as usize] {
            *at = at.after(pause);
        }
    }

    /// When the deployment must be called at the latest. The other timers are looked at with every heartbeat, which is often enough
    /// for them.
    pub(super) fn next(&self) -> Option<Time> {
        [Timer::Heartbeat, Timer::Reports].into_iter().filter_map(|timer| self.due[timer as usize]).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_ahead_until_it_is_due_and_neither_when_it_is_not_set() {
        let mut timers = Timers::default();
        assert!(!timers.is_due(Timer::Gather, Time(9)) && !timers.is_ahead(Timer::Gather, Time(9)));
        timers.set(Timer::Gather, Time(5));
        timers.postpone(Timer::Gather, Duration::from_micros(2));
        timers.postpone(Timer::Return, Duration::from_micros(2));
        assert!(timers.is_ahead(Timer::Gather, Time(6)) && timers.is_due(Timer::Gather, Time(7)));
        assert!(!timers.is_due(Timer::Return, Time(9)));
        timers.clear(Timer::Gather);
        assert!(!timers.is_due(Timer::Gather, Time(9)));
        assert_eq!(timers.next(), None);
    }
}
