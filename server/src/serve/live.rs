//! What is there now and in no database: connected machines and the newest snapshot of each deployment.

use super::metrics::Tally;
use crate::service::Start;
use crate::view::{Facts, Snapshot};
use serde::Serialize;
use slidecast_proto::units::NodeId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An agent that is connected, as it says what its machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Here {
    /// Its host name, fit to show.
    pub(super) name: String,
    pub(super) address: String,
    /// Hardware addresses.
    pub(super) hardware: Vec<String>,
    /// Serial numbers of its disks, fit to show.
    pub(super) serials: Vec<String>,
}

impl Here {
    /// What tells it from another one, for people.
    pub(super) fn words(&self) -> String {
        let name = if self.name.is_empty() { "a machine" } else { &self.name };
        match self.serials.as_slice() {
            [] => format!("{name} at {}", self.address),
            serials => format!("{name} at {} (disk {})", self.address, serials.join(", ")),
        }
    }
}

/// What is there now.
#[derive(Debug, Default)]
pub(super) struct Now {
    /// Each connected agent.
    pub(super) machines: HashMap<NodeId, Here>,
    /// Those of them that have said for some time that they are one machine.
    pub(super) contested: HashSet<NodeId>,
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
    /// The hardware addresses of all that are connected.
    pub(super) fn connected(&self) -> HashSet<String> {
        self.machines.values().flat_map(|here| here.hardware.iter().cloned()).collect()
    }

    /// The agents that say that they are the machine with these hardware addresses, if there are several: by their addresses.
    pub(super) fn claimants(&self, hardware: &[String]) -> Vec<Here> {
        let contested = self.contested.iter().filter_map(|node| self.machines.get(node));
        let claims = |here: &&Here| here.hardware.iter().any(|mac| hardware.contains(mac));
        let mut all: Vec<Here> = contested.filter(claims).cloned().collect();
        all.sort_by(|a, b| (&a.address, &a.name).cmp(&(&b.address, &b.name)));
        all
    }

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
