//! A deployment that must wait for its turn: others may use the cards that its chains need.

use super::timers::Timer;
use super::{Deployment, Stage};
use crate::plan::{Plan, PlanNode};
use crate::units::Time;
use core::time::Duration;

/// How soon a deployment whose time to wait for its nodes is over, and which waits for its turn, is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Deployment {
    /// From now on it begins only by [`Self::begin`].
    pub fn wait_for_turn(&mut self) {
        self.waits_for_turn = true;
    }

    /// What it would begin with, if enough nodes are ready; nothing before that and after it began.
    #[must_use]
    pub fn could_begin(&self) -> Option<(Plan, Vec<PlanNode>)> {
        if self.stage != Stage::Waiting || !self.has_enough() {
            return None;
        }
        let nodes = self.ready().into_iter().filter_map(|id| self.plan_node(id)).collect();
        Some((self.plan_now(), nodes))
    }

    /// It is its turn: it begins if enough nodes are ready still. Gives whether it has begun.
    pub fn begin(&mut self, now: Time) -> bool {
        if self.stage == Stage::Waiting && self.has_enough() {
            self.arm(now);
        }
        self.stage == Stage::Running
    }

    /// Fewer nodes are enough: it begins with those that are ready, or with the first one.
    pub fn do_not_wait(&mut self, now: Time) {
        self.config.wait_for = 1;
        self.settle(now);
    }

    pub(super) fn has_enough(&self) -> bool {
        self.ready().len() >= self.config.wait_for.max(1) as usize
    }

    /// The time to wait for nodes is over. They are there, and it is not their fault that it does not begin.
    pub(super) fn waits_for_others(&mut self, now: Time) -> bool {
        let waits = self.waits_for_turn && self.has_enough();
        if waits {
            self.timers.set(Timer::Start, now.after(LOOK_AGAIN));
        }
        waits
    }
}
