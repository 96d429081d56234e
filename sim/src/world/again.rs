//! A second deployment after the first: another process of the server brings another image to the agents that are still there. What
//! their disks and links suffer from goes on, and orders of the first deployment come late.

use super::{DEPLOYMENT, World};
use crate::image::Image;
use crate::network::SERVER;
use crate::queue::Event;
use crate::scenario::Fault;
use slidecast_proto::units::DeploymentId;
use slidecast_proto::visit::Task;
use std::sync::Arc;
use std::time::Duration;

const SECOND: DeploymentId = DeploymentId([0x5E; 16]);
/// How long the second deployment may take.
const LIMIT: Duration = Duration::from_secs(600);
/// When old orders come, after its beginning: while targets are opened, and while blocks flow.
const LATE_ORDERS: [Duration; 3] = [Duration::from_millis(1_030), Duration::from_millis(1_200), Duration::from_secs(3)];

impl World {
    /// Begins it, if there is to be one and anybody is there for it.
    pub(super) fn begin_again(&mut self) -> bool {
        let there = self.agents.iter().filter(|agent| agent.is_alive()).count();
        // A disk that is still being written for the first would be two images at once to the checker.
        let at_rest = self.agents.iter().all(|agent| agent.run().is_none_or(|run| run.ended().is_some()));
        if !std::mem::take(&mut self.scenario.again) || there == 0 || !at_rest {
            return false;
        }
        let now = self.core.now;
        let image = Arc::new(Image::new(&self.scenario.image, !self.scenario.seed));
        self.core.note(format_args!("server: another one begins, for {there} agents"));
        let mut config = self.config.clone();
        debug_assert_ne!(SECOND, DEPLOYMENT);
        (config.prepare.deployment, config.prepare.root) = (SECOND, image.root());
        (config.secret, config.wait_for) = ([8; 32], u32::try_from(there).unwrap_or(1));
        self.core.image = image;
        self.agents.iter_mut().for_each(|agent| agent.platter.expect_another());
        self.core.network.hosts[SERVER].listening = true;
        self.core.checker.begin_again(SECOND);
        self.server.begin_again(config, !self.scenario.seed, self.scenario.state_write, now);
        self.scenario.limit = now.after(LIMIT);
        for agent in 0..self.agents.len() {
            for after in LATE_ORDERS {
                self.scenario.faults.push((now.after(after), Fault::StaleOrder(agent)));
                self.core.queue.push(now.after(after), Event::Fault(self.scenario.faults.len() - 1));
            }
        }
        self.server.turn(&mut self.core);
        true
    }
}
