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

/// A deed that waits.
#[derive(Debug)]
struct Held<D> {
    /// How many deeds were held before it.
    place: u64,
    /// The state that it waits for.
    number: u64,
    /// When it goes although that is not kept.
    until: Time,
    deed: D,
}

/// The deeds that wait.
#[derive(Debug)]
pub(super) struct Holding<D> {
    /// The number of the newest state.
    newest: Option<u64>,
    /// States up to this number are kept, or could not be.
    kept: u64,
    /// Until then a short deed waits for the newest state.
    until: Time,
    /// How many deeds were held so far.
    held: u64,
    short: VecDeque<Held<D>>,
    long: VecDeque<Held<D>>,
}

impl<D> Default for Holding<D> {
    fn default() -> Self {
        let (short, long) = (VecDeque::new(), VecDeque::new());
        Self { newest: None, kept: 0, until: Time(0), held: 0, short, long }
    }
}

impl<D> Holding<D> {
    /// The state with this number is being kept; none: there is nothing to keep yet.
    pub(super) fn on_keep(&mut self, number: Option<u64>, now: Time) {
        self.newest = number;
        self.until = now.after(SHORT);
    }

    /// States up to this number are kept.
    pub(super) fn on_kept(&mut self, number: u64) {
        self.kept = self.kept.max(number);
    }

    /// Takes a deed; gives it back if it may be done now.
    pub(super) fn enter(&mut self, deed: D, wait: Wait, now: Time) -> Option<D> {
        let unkept = self.newest.filter(|newest| *newest > self.kept);
        let first = self.short.is_empty() && self.long.is_empty();
        let waits_for = match wait {
            Wait::Not => None,
            Wait::Short => {
                let newest = unkept.map(|number| (number, self.until)).filter(|(_, until)| now < *until);
                // Behind another one it waits for no less than that one does.
                let last = self.short.back().map(|last| (last.number, last.until));
                newest.max(last)
            }
            Wait::Long if unkept.is_none() && first => None,
            Wait::Long => Some((self.newest.unwrap_or(0), now.after(LONG))),
        };
        let Some((number, until)) = waits_for else { return Some(deed) };
        self.held += 1;
        let queue = if wait == Wait::Short { &mut self.short } else { &mut self.long };
        queue.push_back(Held { place: self.held, number, until, deed });
        None
    }

    /// The first deed of each queue. A long one does not overtake a short one that came before it.
    fn fronts(&self) -> [Option<&Held<D>>; 2] {
        let short = self.short.front();
        let long = self.long.front().filter(|long| short.is_none_or(|short| long.place < short.place));
        [short, long]
    }

    /// The next deed that need not wait any longer. Those that wait equally long keep the order in which they came.
    pub(super) fn poll(&mut self, now: Time) -> Option<D> {
        let due = |held: &Held<D>| held.until <= now || held.number <= self.kept || self.newest.is_none();
        let queue = match self.fronts().map(|front| front.is_some_and(due)) {
            [true, _] => &mut self.short,
            [false, true] => &mut self.long,
            [false, false] => return None,
        };
        queue.pop_front().map(|held| held.deed)
    }

    /// When a deed is due though nothing was kept: the first of those that [`Self::poll`] would give.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.fronts().into_iter().flatten().map(|held| held.until).min()
    }

    /// Everything that waits, at the end of a deployment.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = D> {
        let short = std::mem::take(&mut self.short);
        short.into_iter().chain(std::mem::take(&mut self.long)).map(|held| held.deed)
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
    fn a_deed_waits_for_its_own_state_however_many_newer_ones_follow() {
        let mut holding = Holding::default();
        holding.on_keep(Some(1), at(0));
        assert_eq!(holding.enter("a", Wait::Short, at(0)), None);
        holding.on_keep(Some(2), at(400));
        assert_eq!(holding.enter("b", Wait::Short, at(400)), None);
        assert_eq!(holding.deadline(), Some(at(500)));
        assert_eq!([holding.poll(at(500)), holding.poll(at(500))], [Some("a"), None]);
        holding.on_keep(Some(3), at(800));
        assert_eq!(holding.enter("c", Wait::Short, at(850)), None);
        assert_eq!([holding.poll(at(900)), holding.poll(at(900))], [Some("b"), None]);
        holding.on_keep(Some(4), at(1000));
        holding.on_kept(3);
        assert_eq!(holding.poll(at(1000)), Some("c"), "state 4 is not kept, and c does not follow from it");
    }

    #[test]
    fn the_deadline_is_that_of_a_deed_which_goes_then() {
        let mut holding = Holding::default();
        holding.on_keep(Some(1), at(0));
        assert_eq!(holding.enter("finish", Wait::Long, at(0)), None);
        // States that are never kept, each with a deed that has to wait: at no time is there none.
        let mut now = at(0);
        let mut done = Vec::new();
        for number in 2..100 {
            holding.on_keep(Some(number), now);
            assert_eq!(holding.enter("short", Wait::Short, now), None);
            now = now.after(Duration::from_millis(400));
            while let Some(deadline) = holding.deadline().filter(|deadline| *deadline <= now) {
                done.push((deadline, holding.poll(deadline).expect("it is due")));
            }
        }
        assert!(done.contains(&(at(30_000), "finish")), "{done:?}");
    }

    #[test]
    fn agents_are_not_let_go_before_what_was_decided_earlier_is_done() {
        let mut holding = Holding::default();
        holding.on_keep(Some(1), at(0));
        assert_eq!(holding.enter("finish one", Wait::Long, at(0)), None);
        holding.on_keep(Some(2), at(29_800));
        assert_eq!(holding.enter("join", Wait::Short, at(29_800)), None);
        assert_eq!(holding.enter("finish another", Wait::Long, at(29_800)), None);
        assert_eq!((holding.poll(at(29_999)), holding.deadline()), (None, Some(at(30_000))));
        assert_eq!([holding.poll(at(30_000)), holding.poll(at(30_000))], [Some("finish one"), None]);
        assert_eq!(holding.deadline(), Some(at(30_300)), "join is first");
        holding.on_kept(2);
        assert_eq!([holding.poll(at(30_100)), holding.poll(at(30_100))], [Some("join"), Some("finish another")]);
        assert_eq!(holding.deadline(), None);
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
