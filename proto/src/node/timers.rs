//! All spans of time of a node and its deadlines in one table. The deadlines of a link itself are in [`crate::link`].

use super::Node;
use super::downstream::State;
use crate::units::Time;
use core::time::Duration;

/// How often what the node waits for is sampled.
pub(super) const SAMPLE: Duration = Duration::from_millis(100);
/// How long a node tries to reach a downstream that does not answer.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// The pause between two tries.
pub(super) const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long the ring is kept for another downstream when one is lost: the server's order is on its way by then.
pub(super) const KEEP: Duration = Duration::from_secs(1);

/// What a node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// What the node waits for is sampled. A downstream that never answers is given up in one of the samples, and the ring that was
    /// kept for another one is let go: nobody waits for either to the millisecond.
    Sample,
    /// The link to the upstream has a heartbeat or credit to send, or its neighbour is silent.
    Upstream,
    /// The same of the link to the downstream.
    Downstream,
    /// The downstream is called.
    Connect,
}

impl Timer {
    const ALL: [Self; 4] = [Self::Sample, Self::Upstream, Self::Downstream, Self::Connect];
}

impl Node {
    /// When this is due, if it is awaited.
    fn due(&self, timer: Timer) -> Option<Time> {
        match (timer, self.downstream.as_ref().map(|down| &down.state)) {
            (Timer::Sample, _) => Some(self.reporting.next_sample()),
            (Timer::Upstream, _) => self.upstream.deadline(),
            (Timer::Downstream, Some(State::Up(flow))) => Some(flow.outlet.sender.deadline()),
            (Timer::Connect, Some(State::Idle { connect_at })) => Some(*connect_at),
            (Timer::Downstream | Timer::Connect, _) => None,
        }
    }

    /// When [`Self::on_time`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        Timer::ALL.into_iter().filter_map(|timer| self.due(timer)).min().unwrap_or(Time(u64::MAX))
    }
}
