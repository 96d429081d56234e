//! What is there now and in no database: connected machines and the newest snapshot of each deployment.

use crate::view::Snapshot;
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
}

/// Shared by the event loop, which writes, and the requests, which read. Nobody holds it for longer than a copy takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Live(Arc<Mutex<Now>>);

impl Live {
    pub(super) fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
