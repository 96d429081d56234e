//! What `serve` makes of the events of its service: rows in the database, and what the API shows of the moment.

use super::database::Database;
use super::live::{Here, Live};
use super::store::{Began, Seen};
use crate::failure::one_line;
use crate::service::{Command, Event, Finished, Front, MachineView};
use crate::shown::shown;
use crate::view::{NodeView, Snapshot, State};
use serde_json::json;
use slidecast_proto::approval::Identity;
use slidecast_proto::reason::Reason;
use slidecast_proto::units::NodeId;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

/// How many machines that went are remembered.
const MAX_GONE: usize = 4096;

/// The front end of a standing server.
#[derive(Debug)]
pub(super) struct Recorder {
    database: Database,
    live: Live,
    /// Deployments of which the database knows that they have started.
    started: HashSet<String>,
    /// Nodes of which it knows how they ended, by deployment. One that comes back may end once more.
    ended: HashMap<String, HashMap<u32, State>>,
    /// Hardware addresses of machines that went last, the oldest first: how their part ended may be told after that.
    gone: VecDeque<(NodeId, String)>,
}

impl Recorder {
    pub(super) fn new(database: Database, live: Live) -> Self {
        Self { database, live, started: HashSet::new(), ended: HashMap::new(), gone: VecDeque::new() }
    }

    fn on_machine(&self, view: &MachineView) {
        let macs = view.hello.cards.iter().map(|card| card.mac).filter(|mac| *mac != [0; 6]);
        let hardware: Vec<String> = macs.map(|mac| Identity::Mac(mac).to_string()).collect();
        if hardware.is_empty() {
            return log::warn!("the agent at {} has no hardware address: it can't be known again", view.address);
        }
        {
            let mut now = self.live.lock();
            let serials = view.hello.disks.iter().map(|disk| shown(disk.serial.trim())).filter(|text| !text.is_empty());
            let here = Here {
                name: shown(&view.hello.hostname),
                address: view.address.to_string(),
                hardware: hardware.clone(),
                serials: serials.collect(),
            };
            now.machines.insert(view.node, here);
            now.changes += 1;
        }
        // Nobody knows which of them it is: what is known of the machine stays as it was.
        if view.contested {
            return;
        }
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

    fn on_machine_gone(&mut self, node: NodeId) {
        let mut now = self.live.lock();
        now.changes += 1;
        now.contested.remove(&node);
        let Some(mac) = now.machines.remove(&node).and_then(|here| here.hardware.into_iter().next()) else { return };
        if self.gone.len() >= MAX_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back((node, mac));
    }

    /// These agents say that they are one machine: an operator has to look.
    fn on_contested(&self, nodes: &[NodeId]) {
        let (words, macs) = {
            let mut now = self.live.lock();
            let mut all: Vec<(NodeId, Here)> =
                nodes.iter().filter_map(|node| Some((*node, now.machines.get(node)?.clone()))).collect();
            all.sort_by_key(|(node, _)| *node);
            now.contested.extend(all.iter().map(|(node, _)| *node));
            now.changes += 1;
            let macs: Vec<String> = all.iter().flat_map(|(_, here)| here.hardware.iter().cloned()).collect();
            let shared: BTreeSet<&String> =
                macs.iter().filter(|mac| macs.iter().filter(|other| other == mac).count() > 1).collect();
            let shared: Vec<&str> = shared.into_iter().map(String::as_str).collect();
            let all: Vec<String> = all.iter().map(|(_, here)| here.words()).collect();
            let words = format!(
                "{} are connected with the same hardware address {}; no deployment begins with any of them until the others are \
                 switched off or have another address",
                all.join(" and "),
                shared.join(", ")
            );
            (words, macs)
        };
        log::warn!("{words}");
        self.database.insist("keeping that machines claim one identity", move |store| {
            store.claim_events("machine-conflict", &macs, &words)
        });
    }

    fn on_settled(&self, node: NodeId) {
        let here = {
            let mut now = self.live.lock();
            now.contested.remove(&node);
            now.changes += 1;
            now.machines.get(&node).cloned()
        };
        let Some(here) = here else { return };
        let words = format!("{} alone is connected with its hardware addresses again", here.words());
        log::info!("{words}");
        self.database.insist("keeping that one machine has its identity again", move |store| {
            store.claim_events("machine-conflict-over", &here.hardware, &words)
        });
    }

    fn on_snapshot(&mut self, id: String, snapshot: Box<Snapshot>) {
        if snapshot.ran.is_some() && self.started.insert(id.clone()) {
            let (id, began) = (id.clone(), self.began(&snapshot));
            self.database.insist("keeping the start of a deployment", move |store| store.on_started(&id, &began));
        }
        self.keep_ends(&id, &snapshot);
        self.live.lock().snapshots.insert(id, snapshot);
    }

    /// Its nodes now that it begins.
    fn began(&self, snapshot: &Snapshot) -> Vec<Began> {
        let now = self.live.lock();
        let nodes = snapshot.nodes.iter().filter_map(|node| {
            let mac = now.machines.get(&NodeId(node.id))?.hardware.first()?.clone();
            Some(Began { mac, left_out: node.place.is_none().then(|| why_left_out(node)) })
        });
        nodes.collect()
    }

    /// Keeps how nodes ended, once each time.
    fn keep_ends(&mut self, id: &str, snapshot: &Snapshot) {
        let ended = self.ended.entry(id.to_owned()).or_default();
        let new: Vec<_> = snapshot
            .nodes
            .iter()
            .filter(|node| has_ended(ended, node.id, node.state))
            .map(|node| {
                self.live.lock().tally.on_node(node.state, node.reason);
                let id = NodeId(node.id);
                let mac = self.live.lock().machines.get(&id).and_then(|here| here.hardware.first().cloned());
                let gone = || self.gone.iter().rev().find(|(went, _)| *went == id).map(|(_, mac)| mac.clone());
                let mac = mac.or_else(gone);
                let words = match node.reason {
                    Reason::None => node.state.as_str().to_owned(),
                    reason => format!("{} ({}): {}", node.state.as_str(), reason.as_str(), node.detail),
                };
                let name = if node.name.is_empty() { node.address.to_string() } else { node.name.clone() };
                (mac, format!("{name}: {words}"))
            })
            .collect();
        if !new.is_empty() {
            let id = id.to_owned();
            self.database.insist("keeping how nodes ended", move |store| store.on_nodes(&id, &new));
        }
    }

    fn on_over(&mut self, finished: Box<Finished>) {
        let id = finished.id.to_string();
        self.keep_ends(&id, &finished.snapshot());
        {
            let mut now = self.live.lock();
            now.tally.on_over(&finished);
            now.on_over(&id);
        }
        self.started.remove(&id);
        self.ended.remove(&id);
        self.database.insist("keeping the end of a deployment", move |store| {
            let code = finished.machine.exit_code().unwrap_or(3);
            let report = serde_json::to_value(finished.report()).ok();
            // The deployment's state file goes when `finished` does: after this.
            store.end(&id, code, report.as_ref(), "")
        });
    }
}

/// Why a node has no place in the plan.
fn why_left_out(node: &NodeView) -> String {
    match (node.state, node.reason) {
        (State::Refused, Reason::None) => "refused".to_owned(),
        (State::Refused, reason) => format!("refused, {}: {}", reason.as_str(), node.detail),
        _ => "not ready".to_owned(),
    }
}

/// Whether a node has ended, and not so already. One that was lost or left may come back and end otherwise.
fn has_ended(ended: &mut HashMap<u32, State>, node: u32, state: State) -> bool {
    match state {
        State::Ended(_) | State::Refused => ended.insert(node, state) != Some(state),
        _ => {
            ended.remove(&node);
            false
        }
    }
}

impl Front for Recorder {
    fn on_event(&mut self, event: Event) -> Option<Command> {
        match event {
            Event::Machine(view) => self.on_machine(&view),
            Event::MachineGone(node) => self.on_machine_gone(node),
            Event::Contested(nodes) => self.on_contested(&nodes),
            Event::Settled(node) => self.on_settled(node),
            Event::Snapshot(id, snapshot) => self.on_snapshot(id.to_string(), snapshot),
            Event::Line(Some(id), text) => {
                let id = id.to_string();
                self.database.post("keeping an event", move |store| store.add_event("line", Some(&id), &text));
            }
            Event::Line(None, text) | Event::TurnedAway(text) => log::warn!("{text}"),
            Event::Over(finished) => self.on_over(finished),
            Event::NotStarted(id, error) => {
                let (id, detail) = (id.to_string(), format!("starting a thread: {}", one_line(&error)));
                self.live.lock().on_over(&id);
                self.database.insist("keeping the end of a deployment", move |store| store.end(&id, 1, None, &detail));
            }
            // Everybody is let in, and waits: what takes part is decided by the deployments.
            Event::Unapproved(_) | Event::Stopping(..) | Event::HasImage(..) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slidecast_proto::reason::EndState;

    #[test]
    fn a_node_that_comes_back_after_it_left_or_was_lost_ends_once_more() {
        let mut ended = HashMap::new();
        assert!(has_ended(&mut ended, 1, State::Refused));
        assert!(!has_ended(&mut ended, 1, State::Refused), "it is told once");
        assert!(!has_ended(&mut ended, 1, State::Ready));
        assert!(has_ended(&mut ended, 1, State::Refused), "it left again");
        assert!(has_ended(&mut ended, 1, State::Ended(EndState::Failed)));
        assert!(has_ended(&mut ended, 1, State::Ended(EndState::Done)), "it was lost only, and is done");
        assert!(has_ended(&mut ended, 2, State::Ended(EndState::Done)));
    }
}
