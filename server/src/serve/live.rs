//! What is there now and in no database: connected machines and the newest snapshot of each deployment.

use super::metrics::Tally;
use crate::service::Start;
use crate::view::{Facts, Snapshot};
use slidecast_proto::units::NodeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is there now.
#[derive(Debug, Default)]
pub(super) struct Now {
    /// The hardware addresses of each connected agent.
    pub(super) machines: HashMap<NodeId, Vec<String>>,
    /// By the id of the deployment.
    pub(super) snapshots: HashMap<String, Box<Snapshot>>,
    /// What does not change of the deployments that are not over.
    pub(super) facts: HashMap<String, Arc<Facts>>,
    /// What has been counted for `/metrics`.
    pub(super) tally: Tally,
    /// Counts changes of `machines`.
    pub(super) changes: u64,
}

impl Now {
    pub(super) fn on_start(&mut self, start: &Start) {
        self.facts.insert(start.facts.deployment.clone(), start.facts.clone());
    }

    pub(super) fn on_over(&mut self, id: &str) {
        self.snapshots.remove(id);
        self.facts.remove(id);
    }
}

/// Shared by the event loop, which writes, and the requests, which read. Nobody holds it for longer than a copy takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Live(Arc<Mutex<Now>>);

impl Live {
    pub(super) fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
