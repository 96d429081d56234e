//! What `serve` makes of the events of its service: rows in the database, and what the API shows of the moment.

use super::database::Database;
use super::live::Live;
use super::store::Seen;
use crate::service::{Command, Event, Finished, Front, MachineView};
use crate::shown::shown;
use serde_json::json;
use slidecast_proto::approval::Identity;
use std::collections::HashSet;

/// The front end of a standing server.
#[derive(Debug)]
pub(super) struct Recorder {
    database: Database,
    live: Live,
    /// Deployments of which the database knows that they have started.
    started: HashSet<String>,
}

impl Recorder {
    pub(super) fn new(database: Database, live: Live) -> Self {
        Self { database, live, started: HashSet::new() }
    }

    fn on_machine(&self, view: &MachineView) {
        let macs = view.hello.cards.iter().map(|card| card.mac).filter(|mac| *mac != [0; 6]);
        let hardware: Vec<String> = macs.map(|mac| Identity::Mac(mac).to_string()).collect();
        if hardware.is_empty() {
            return log::warn!("the agent at {} has no hardware address: it can't be known again", view.address);
        }
        self.live.lock().machines.insert(view.node, hardware.clone());
        let disks = view.hello.disks.iter().map(|disk| {
            json!({
                "path": shown(&disk.path),
                "model": shown(&disk.model),
                "serial": shown(&disk.serial),
                "bytes": disk.bytes,
                "rotational": disk.rotational,
            })
        });
        let seen = Seen {
            name: shown(&view.hello.hostname),
            hardware,
            address: view.address.to_string(),
            interface: view.card.clone(),
            disks: disks.collect(),
        };
        self.database.post("keeping a machine", move |store| store.on_machine(&seen).map(drop));
    }

    fn on_over(&mut self, finished: Box<Finished>) {
        let id = finished.id.to_string();
        self.live.lock().snapshots.remove(&id);
        self.started.remove(&id);
        self.database.post("keeping the end of a deployment", move |store| {
            let code = finished.machine.exit_code().unwrap_or(3);
            let report = serde_json::to_value(finished.report()).ok();
            // The deployment's state file goes when `finished` does: after this.
            store.end(&id, code, report.as_ref(), "")
        });
    }
}

impl Front for Recorder {
    fn on_event(&mut self, event: Event) -> Option<Command> {
        match event {
            Event::Machine(view) => self.on_machine(&view),
            Event::MachineGone(node) => drop(self.live.lock().machines.remove(&node)),
            Event::Snapshot(id, snapshot) => {
                let id = id.to_string();
                if snapshot.ran.is_some() && self.started.insert(id.clone()) {
                    let id = id.clone();
                    self.database.post("keeping the start of a deployment", move |store| store.on_started(&id));
                }
                self.live.lock().snapshots.insert(id, snapshot);
            }
            Event::Line(Some(id), text) => {
                let id = id.to_string();
                self.database.post("keeping an event", move |store| store.add_event("line", Some(&id), &text));
            }
            Event::Line(None, text) | Event::TurnedAway(text) => log::warn!("{text}"),
            Event::Over(finished) => self.on_over(finished),
            Event::NotStarted(id, error) => {
                let (id, detail) = (id.to_string(), format!("starting a thread: {error}"));
                self.database.post("keeping the end of a deployment", move |store| store.end(&id, 1, None, &detail));
            }
            // Everybody is let in, and waits: what takes part is decided by the deployments.
            Event::Unapproved(_) | Event::Stopping(..) | Event::HasImage(..) => {}
        }
        None
    }
}
