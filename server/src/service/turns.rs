//! Whose turn it is: what the queue is told of the deployments, and which begin.

use super::event_loop::Service;
use slidecast_proto::deployment::{Deployment, Stage};
use slidecast_proto::queue::{Load, Queue, Share};
use slidecast_proto::units::{DeploymentId, Time};
use std::collections::BTreeMap;

/// The queue, and the place of each deployment in it.
#[derive(Debug)]
pub(super) struct Turns {
    queue: Queue,
    orders: BTreeMap<DeploymentId, u64>,
    last: u64,
}

impl Turns {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, orders: BTreeMap::new(), last: 0 }
    }

    /// A deployment comes after all that there are.
    pub(super) fn on_start(&mut self, id: DeploymentId) {
        self.last += 1;
        self.orders.insert(id, self.last);
    }

    pub(super) fn on_over(&mut self, id: DeploymentId) {
        if let Some(order) = self.orders.remove(&id) {
            self.queue.on_gone(order);
        }
    }

    /// Tells the queue how a deployment stands.
    fn look(&mut self, id: DeploymentId, deployment: &Deployment) {
        let Some(order) = self.orders.get(&id).copied() else { return };
        match deployment.stage() {
            Stage::Waiting => match deployment.could_begin() {
                Some((plan, nodes)) => {
                    let load = self.queue.load(&plan, &nodes);
                    self.queue.on_ready(order, id, load);
                }
                None => self.queue.on_gone(order),
            },
            // One that an earlier run of the server began was not in the queue: nobody knows how much it takes.
            Stage::Running if !self.queue.runs(order) => {
                let cards = deployment.nodes().filter(|node| node.place.is_some()).map(|node| node.card.clone());
                let load: Load = cards.map(|card| (card, Share::Whole)).collect();
                self.queue.on_running(order, id, load);
            }
            Stage::Running => {}
            Stage::Over { .. } => self.queue.on_gone(order),
        }
    }
}

impl Service {
    /// Begins the deployments whose turn it is, and remembers why the others wait.
    pub(super) fn carry_turns(&mut self, now: Time) {
        let Self { turns, running, host, .. } = self;
        if !running.values().any(|running| running.unqueued) {
            return;
        }
        for (id, running) in running.iter_mut().filter(|(_, running)| running.unqueued) {
            running.unqueued = false;
            host.get(*id).into_iter().for_each(|hosted| turns.look(*id, hosted.deployment()));
        }
        while let Some(id) = turns.queue.poll() {
            running.get_mut(&id).into_iter().for_each(|running| running.changed = true);
            let begun = host.get_mut(id).is_some_and(|hosted| hosted.deployment_mut().begin(now));
            if !begun && let Some(order) = turns.orders.get(&id) {
                turns.queue.on_gone(*order);
            }
        }
        for (id, running) in running.iter_mut() {
            let waits = turns.orders.get(id).and_then(|order| turns.queue.waits(*order));
            running.changed |= waits != running.waits;
            running.waits = waits;
        }
    }
}
