//! Deeds that wait until the state they follow from is kept, so that a server that loses its power does not go on from a state
//! that agents have already left behind.
//!
//! Most wait for half a second at most: nodes that wait for an order matter more. What a state that lacks them costs is made good
//! by the agents, which report what they have, and by passes that are numbered far above those that were kept. Letting agents go
//! can't be made good, as they do not come back: that waits longer, and nobody stands still meanwhile.

use crate::units::Time;
use core::time::Duration;
use std::collections::VecDeque;

/// How long a deed may wait that a node may be waiting for.
const SHORT: Duration = Duration::from_millis(500);
/// How long it may take until agents are let go: a disk that flushes for longer fails.
const LONG: Duration = Duration::from_secs(30);

/// How long a deed waits at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Another run of the server need not know of it.
    Not,
    /// Half a second.
    Short,
    /// It lets agents go.
    Long,
}

/// The deeds that wait.
#[derive(Debug)]
pub(super) struct Holding<D> {
    /// The number of the newest state.
    newest: Option<u64>,
    /// States up to this number are kept, or could not be.
    kept: u64,
    /// Until then new deeds wait for it.
    until: Option<Time>,
    short: VecDeque<D>,
    /// Each with the state that it waits for, and until when.
    long: VecDeque<(u64, Time, D)>,
}

impl<D> Default for Holding<D> {
    fn default() -> Self {
        Self { newest: None, kept: 0, until: None, short: VecDeque::new(), long: VecDeque::new() }
    }
}

impl<D> Holding<D> {
    /// The state with this number is being kept; none: there is nothing to keep yet.
    pub(super) fn on_keep(&mut self, number: Option<u64>, now: Time) {
        self.newest = number;
        self.until = number.map(|_| now.after(SHORT));
    }

    /// States up to this number are kept.
    pub(super) fn on_kept(&mut self, number: u64) {
        self.kept = self.kept.max(number);
    }

    /// Takes a deed; gives it back if it may be done now.
    pub(super) fn enter(&mut self, deed: D, wait: Wait, now: Time) -> Option<D> {
        let unkept = self.newest.filter(|newest| *newest > self.kept);
        let first = self.short.is_empty() && self.long.is_empty();
        match (wait, unkept) {
            (Wait::Not, _) => Some(deed),
            (Wait::Short, Some(_)) if self.until.is_some_and(|until| now < until) => self.hold(deed),
            (Wait::Short, _) if !self.short.is_empty() => self.hold(deed),
            (Wait::Long, None) if first => Some(deed),
            (Wait::Long, unkept) => {
                self.long.push_back((unkept.or(self.newest).unwrap_or(0), now.after(LONG), deed));
                None
            }
            (Wait::Short, _) => Some(deed),
        }
    }

    fn hold(&mut self, deed: D) -> Option<D> {
        self.short.push_back(deed);
        None
    }

    /// The next deed that need not wait any longer, in the order in which they came.
    pub(super) fn poll(&mut self, now: Time) -> Option<D> {
        let kept_number = self.kept;
        let kept = self.newest.is_none_or(|newest| newest <= kept_number);
        self.until.take_if(|until| *until <= now || kept);
        if !self.short.is_empty() {
            return if self.until.is_none() { self.short.pop_front() } else { None };
        }
        let due = |(number, until, _): &(u64, Time, D)| *until <= now || kept || *number <= kept_number;
        self.long.front().is_some_and(due).then(|| self.long.pop_front())?.map(|(_, _, deed)| deed)
    }

    /// When a deed is due though nothing was kept.
    pub(super) fn deadline(&self) -> Option<Time> {
        let short = self.until.filter(|_| !self.short.is_empty());
        short.into_iter().chain(self.long.front().map(|(_, until, _)| *until)).min()
    }

    /// Everything that waits, at the end of a deployment.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = D> {
        let short = std::mem::take(&mut self.short);
        short.into_iter().chain(std::mem::take(&mut self.long).into_iter().map(|(_, _, deed)| deed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time(millis * 1000)
    }

    #[test]
    fn deeds_wait_for_the_state_half_a_second_and_keep_their_order() {
        let mut holding = Holding::default();
        assert_eq!(holding.enter("before", Wait::Short, at(0)), Some("before"));
        holding.on_keep(Some(1), at(0));
        assert_eq!(holding.enter("a", Wait::Short, at(0)), None);
        assert_eq!(holding.enter("heartbeat", Wait::Not, at(0)), Some("heartbeat"));
        assert_eq!(holding.enter("b", Wait::Short, at(400)), None);
        assert_eq!((holding.poll(at(499)), holding.deadline()), (None, Some(at(500))));
        assert_eq!(holding.poll(at(500)), Some("a"));
        assert_eq!(holding.enter("c", Wait::Short, at(500)), None, "b is first");
        assert_eq!([holding.poll(at(500)), holding.poll(at(500))], [Some("b"), Some("c")]);
        holding.on_keep(Some(2), at(600));
        assert_eq!(holding.enter("d", Wait::Short, at(600)), None);
        holding.on_kept(2);
        assert_eq!(holding.poll(at(601)), Some("d"));
        assert_eq!(holding.deadline(), None);
    }

    #[test]
    fn agents_are_let_go_when_it_is_kept_that_they_are_done_and_others_do_not_wait_for_that() {
        let mut holding = Holding::default();
        holding.on_keep(Some(1), at(0));
        assert_eq!(holding.enter("join", Wait::Short, at(0)), None);
        assert_eq!(holding.enter("finish", Wait::Long, at(0)), None);
        assert_eq!(holding.poll(at(500)), Some("join"));
        assert_eq!(holding.poll(at(500)), None);
        assert_eq!(holding.enter("another join", Wait::Short, at(600)), Some("another join"));
        holding.on_keep(Some(2), at(700));
        assert_eq!(holding.enter("over", Wait::Long, at(700)), None);
        holding.on_kept(1);
        assert_eq!([holding.poll(at(800)), holding.poll(at(800))], [Some("finish"), None]);
        holding.on_kept(2);
        assert_eq!(holding.poll(at(900)), Some("over"));
        holding.on_keep(Some(3), at(1000));
        assert_eq!(holding.enter("finish", Wait::Long, at(1000)), None);
        assert_eq!(holding.poll(at(31_000)), Some("finish"), "not for ever");
    }

    #[test]
    fn without_a_place_for_the_state_nothing_waits() {
        let mut holding = Holding::default();
        holding.on_kept(u64::MAX);
        holding.on_keep(Some(1), at(0));
        assert_eq!(holding.enter("join", Wait::Short, at(0)), Some("join"));
        assert_eq!(holding.enter("finish", Wait::Long, at(0)), Some("finish"));
    }
}
