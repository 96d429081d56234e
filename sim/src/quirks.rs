//! What is wrong with an agent that runs, and orders that come late.

use crate::rng::Rng;
use slidecast_proto::control::{Abort, Finish, Join, LinkEvent, LinkState, Side, ToAgent, ToServer};
use slidecast_proto::reason::{Reason, Then};
use slidecast_proto::units::{DeploymentId, Time};
use std::time::Duration;

/// A deployment that was before all that are simulated.
const OLDER: DeploymentId = DeploymentId([0xEE; 16]);

/// What is wrong with an agent that runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quirks {
    /// It never says how far it is.
    pub(crate) mute: bool,
    pub(crate) stuck: bool,
    /// It says so many times more that its downstream link broke, which is not so.
    pub(crate) false_downs: u32,
    /// When it says so next.
    false_at: Time,
}

impl Quirks {
    /// Says that the downstream link of this place broke, if it is one that says so though it is not so.
    pub(crate) fn complaint(&mut self, join: &Join, now: Time) -> Option<ToServer> {
        let down = join.downstream.as_ref().filter(|_| self.false_downs > 0 && self.false_at <= now)?;
        self.false_downs -= 1;
        self.false_at = now.after(Duration::from_millis(100));
        Some(ToServer::Link(LinkEvent {
            deployment: join.deployment,
            epoch: join.epoch,
            peer: down.node,
            side: Side::Downstream,
            state: LinkState::Down,
            reason: Reason::DownstreamLost,
            detail: "connection reset (it was not)".to_owned(),
        }))
    }
}

/// An order that comes late: a place that was given before, in this deployment or the one before it, or the end of the older one.
pub(crate) fn late_order(
    newest: Option<DeploymentId>,
    joins: &[Join],
    past: &[Join],
    rng: &mut Rng,
) -> Option<ToAgent> {
    let before = past.first().map(|join| join.deployment).filter(|before| Some(*before) != newest);
    let deployment = before.unwrap_or(OLDER);
    match rng.below(4) {
        0 => Some(ToAgent::Finish(Finish { deployment, then: Then::Hold })),
        1 => Some(ToAgent::Abort(Abort { deployment, reason: Reason::Aborted, detail: "it is old".to_owned() })),
        2 => past.last().cloned().map(ToAgent::Join),
        _ => joins.first().cloned().map(ToAgent::Join),
    }
}

/// An order in one line.
pub(crate) fn short(order: &ToAgent) -> String {
    match order {
        ToAgent::Join(join) => {
            let down = join.downstream.as_ref().map(|spec| spec.node.0);
            let Join { epoch, pass, chain, position, chain_len, upstream, .. } = join;
            format!(
                "join {:#x} pass {pass} chain {chain} {position}/{chain_len} from {} to {down:?}",
                epoch.0, upstream.node
            )
        }
        ToAgent::Prepare(_) => "prepare".to_owned(),
        other => format!("{other:?}"),
    }
}
