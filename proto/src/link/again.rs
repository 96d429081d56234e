//! How often blocks are asked for again, and how often that is heard.
//!
//! A block is asked for once until it comes. Few are asked for in a second, and an end that asks more often is not heard: its
//! requests cost the other end reads of a disk, and everybody below it time. What is not heard comes in a catch-up pass.

use crate::units::{BlockNo, Time};
use core::time::Duration;
use std::collections::VecDeque;

/// The most blocks that wait to be sent or to come again on a link.
const MAX_WAITING: usize = 64;

/// So many requests at once, and one each `every` after that.
#[derive(Debug)]
struct Pace {
    every: Duration,
    burst: u32,
    /// When the next request would be due if they came evenly.
    due: Time,
}

impl Pace {
    fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, due: Time::default() }
    }

    fn opens(&self) -> Time {
        let ahead = self.every * self.burst;
        Time(self.due.0.saturating_sub(u64::try_from(ahead.as_micros()).unwrap_or(u64::MAX)))
    }

    fn take(&mut self, now: Time) -> bool {
        let open = self.opens() <= now;
        if open {
            self.due = self.due.max(now).after(self.every);
        }
        open
    }
}

/// What the downstream end asks for again.
#[derive(Debug)]
pub(super) struct Asked {
    pace: Pace,
    /// Not asked for yet.
    waiting: VecDeque<BlockNo>,
    /// Asked for, and not come yet.
    out: Vec<BlockNo>,
}

impl Asked {
    pub(super) fn new() -> Self {
        Self { pace: Pace::new(Duration::from_millis(125), 16), waiting: VecDeque::new(), out: Vec::new() }
    }

    /// `block` is wanted again.
    pub(super) fn want(&mut self, block: BlockNo) {
        let known = self.waiting.contains(&block) || self.out.contains(&block);
        if !known && self.waiting.len() + self.out.len() < MAX_WAITING {
            self.waiting.push_back(block);
        }
    }

    /// `block` came.
    pub(super) fn on_come(&mut self, block: BlockNo) {
        self.out.retain(|out| *out != block);
    }

    /// The next block to ask for.
    pub(super) fn next(&mut self, now: Time) -> Option<BlockNo> {
        if self.waiting.is_empty() || !self.pace.take(now) {
            return None;
        }
        let block = self.waiting.pop_front()?;
        self.out.push(block);
        Some(block)
    }

    /// When there may be one more to ask for.
    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then(|| self.pace.opens())
    }
}

/// What the upstream end is asked for again.
#[derive(Debug)]
pub(super) struct Wanted {
    pace: Pace,
    waiting: VecDeque<BlockNo>,
}

impl Wanted {
    pub(super) fn new() -> Self {
        // More than one end asks for, as what comes late comes at once.
        Self { pace: Pace::new(Duration::from_millis(100), 40), waiting: VecDeque::new() }
    }

    /// A request came; gives whether it is heard.
    pub(super) fn hear(&mut self, block: BlockNo, now: Time) -> bool {
        !self.waiting.contains(&block) && self.waiting.len() < MAX_WAITING && self.pace.take(now)
    }

    /// `block` is to be sent again.
    pub(super) fn push(&mut self, block: BlockNo) {
        if !self.waiting.contains(&block) && self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(block);
        }
    }

    /// The next one to send.
    pub(super) fn front(&self) -> Option<BlockNo> {
        self.waiting.front().copied()
    }

    /// That one is settled.
    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_asked_for_once_until_it_comes_and_few_are_asked_for_in_a_second() {
        let mut asked = Asked::new();
        let mut now = Time(1_000_000);
        asked.want(BlockNo(1));
        asked.want(BlockNo(1));
        assert_eq!((asked.next(now), asked.next(now)), (Some(BlockNo(1)), None));
        asked.want(BlockNo(1));
        assert_eq!(asked.next(now), None);
        asked.on_come(BlockNo(1));
        asked.want(BlockNo(1));
        assert_eq!(asked.next(now), Some(BlockNo(1)));
        let mut count = 0;
        for turn in 0..10_000 {
            asked.want(BlockNo(turn));
            while let Some(block) = asked.next(now) {
                count += 1;
                asked.on_come(block);
            }
            now = now.after(Duration::from_millis(1));
        }
        assert!((80..=100).contains(&count), "{count}");
        assert!(asked.deadline().is_some_and(|at| at <= now.after(Duration::from_millis(125))));
    }

    #[test]
    fn a_flood_of_requests_is_not_heard_and_holds_no_memory() {
        let mut wanted = Wanted::new();
        let mut heard = 0;
        for turn in 0..100_000_u32 {
            let now = Time(1_000_000).after(Duration::from_micros(u64::from(turn) * 100));
            if wanted.hear(BlockNo(turn), now) {
                wanted.push(BlockNo(turn));
                heard += 1;
            }
        }
        assert!(heard <= 64 && wanted.waiting.len() <= MAX_WAITING, "{heard}");
        assert!(!wanted.hear(BlockNo(0), Time(u64::MAX / 2)), "it waits already");
    }
}
