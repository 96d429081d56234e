//! Progress for programs: one JSON object a line. `docs/DEPLOY.md` lists the objects; keys are only ever added.

use crate::approve::UnapprovedView;
use crate::view::{Facts, NodeView, Snapshot, State};
use serde_json::{Value, json};
use slidecast_proto::deployment::Stage;
use slidecast_proto::reason::{EndState, Reason};
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

/// How often the nodes at work are told of.
const EVERY: Duration = Duration::from_secs(1);

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Json {
    states: HashMap<u32, (State, Reason)>,
    planned: bool,
    told: Option<Duration>,
}

fn put(out: &mut dyn Write, object: &Value) -> io::Result<()> {
    writeln!(out, "{object}")
}

impl Json {
    pub(super) fn start(&mut self, facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "event": "start",
            "image": facts.image,
            "deployment": facts.deployment,
            "disk_bytes": facts.disk_bytes,
            "raw_bytes": facts.raw_bytes,
            "stored_bytes": facts.stored_bytes,
            "blocks": facts.blocks,
            "wait_for": facts.wait_for,
            "port": facts.port,
            "key": facts.key,
            "insecure": facts.key.is_none(),
        });
        put(out, &object)
    }

    pub(super) fn line(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        put(out, &json!({ "event": "log", "text": text }))
    }

    pub(super) fn unapproved(&mut self, view: &UnapprovedView, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "event": "unapproved",
            "name": view.name,
            "address": view.address,
            "interface": view.interface,
            "code": view.code,
            "detail": view.why,
            "hardware": view.hardware,
            "serials": view.serials,
            "key": view.key,
        });
        put(out, &object)
    }

    pub(super) fn show(&mut self, facts: &Facts, snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
        // A deployment that goes on has no chains before its nodes are back.
        let planned = !snapshot.chains.is_empty() || matches!(snapshot.stage, Stage::Over { .. });
        if snapshot.ran.is_some() && !self.planned && planned {
            self.planned = true;
            let chains = snapshot.chains.iter();
            let chains: Vec<_> =
                chains.map(|chain| json!({ "interface": chain.interface, "nodes": chain.nodes })).collect();
            put(out, &json!({ "event": "plan", "chains": chains }))?;
        }
        for node in &snapshot.nodes {
            let now = (node.state, node.reason);
            if self.states.insert(node.id, now) != Some(now) {
                put(out, &state(node))?;
            }
        }
        let Some(ran) = snapshot.ran else { return Ok(()) };
        if self.told.is_some_and(|told| ran < told + EVERY) {
            return Ok(());
        }
        self.told = Some(ran);
        let nodes = snapshot.nodes.iter().filter(|node| matches!(node.state, State::Running(_)));
        let object = json!({
            "event": "progress",
            "seconds": ran.as_secs_f64(),
            "egress_bytes": snapshot.egress_bytes,
            "blocks": facts.blocks,
            "nodes": nodes.map(progress).collect::<Vec<_>>(),
        });
        put(out, &object)
    }

    pub(super) fn end(&mut self, snapshot: &Snapshot, code: u8, out: &mut dyn Write) -> io::Result<()> {
        let count = |state| snapshot.nodes.iter().filter(|node| node.state == State::Ended(state)).count();
        let object = json!({
            "event": "end",
            "exit_code": code,
            "seconds": snapshot.ran.unwrap_or_default().as_secs_f64(),
            "egress_bytes": snapshot.egress_bytes,
            "done": count(EndState::Done),
            "written": count(EndState::Written),
            "failed": count(EndState::Failed),
        });
        put(out, &object)
    }
}

fn state(node: &NodeView) -> Value {
    json!({
        "event": "node",
        "id": node.id,
        "name": node.name,
        "address": node.address,
        "interface": node.interface,
        "chain": node.place.map(|(chain, _)| chain),
        "position": node.place.map(|(_, position)| position),
        "state": node.state.as_str(),
        "reason": node.reason.as_str(),
        "detail": node.detail,
        "target": node.target,
        "describe": node.describe,
        "connected": node.connected,
    })
}

/// How far a deployment and each of its nodes is.
pub(crate) fn progress_json(id: &str, blocks: u32, snapshot: &Snapshot) -> Value {
    json!({
        "event": "progress",
        "deployment": id,
        "seconds": snapshot.ran.map(|ran| ran.as_secs_f64()),
        "egress_bytes": snapshot.egress_bytes,
        "blocks": blocks,
        "nodes": snapshot.nodes.iter().map(progress).collect::<Vec<_>>(),
    })
}

/// All that is said of a node, in one object.
pub(crate) fn node_json(node: &NodeView) -> Value {
    let mut all = state(node);
    if let (Value::Object(all), Value::Object(more)) = (&mut all, progress(node)) {
        all.remove("event");
        all.extend(more);
    }
    all
}

fn progress(node: &NodeView) -> Value {
    let (accepted, durable, verified) = node.blocks;
    json!({
        "id": node.id,
        "state": node.state.as_str(),
        "percent": node.percent,
        "accepted": accepted,
        "durable": durable,
        "verified": verified,
        "received_bytes": node.received_bytes,
        "written_bytes": node.written_bytes,
        "bytes_per_second": node.rate,
        "seconds_left": node.left.map(|left| left.as_secs()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{facts, node, snapshot};
    use slidecast_proto::reason::Phase;

    fn lines(write: impl FnOnce(&mut Vec<u8>)) -> Vec<Value> {
        let mut out = Vec::new();
        write(&mut out);
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_line_is_one_object_with_its_event() {
        let mut json = Json::default();
        let running = snapshot(Some(Duration::from_secs(1)), vec![node(1, State::Running(Phase::Receiving))]);
        let all = lines(|out| {
            json.start(&facts(), out).unwrap();
            json.line("a \"line\"\n", out).unwrap();
            json.show(&facts(), &running, out).unwrap();
            json.show(&facts(), &running, out).unwrap();
            json.end(&running, 3, out).unwrap();
        });
        let events: Vec<_> = all.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["start", "log", "plan", "node", "progress", "end"]);
        assert_eq!(all[2]["chains"][0]["nodes"], json!([1]));
        assert_eq!((&all[3]["state"], &all[3]["position"]), (&json!("receiving"), &json!(1)));
        assert_eq!(all[4]["nodes"][0]["seconds_left"], 31);
        assert_eq!(all[5]["exit_code"], 3);
    }

    #[test]
    fn the_plan_of_a_deployment_that_goes_on_comes_when_its_nodes_are_back() {
        let mut json = Json::default();
        let mut running = snapshot(Some(Duration::from_secs(1)), vec![node(1, State::Running(Phase::Receiving))]);
        let chains = std::mem::take(&mut running.chains);
        let first = lines(|out| json.show(&facts(), &running, out).unwrap());
        assert!(first.iter().all(|line| line["event"] != "plan"), "{first:?}");
        running.chains = chains;
        let second = lines(|out| json.show(&facts(), &running, out).unwrap());
        assert_eq!((&second[0]["event"], &second[0]["chains"][0]["nodes"]), (&json!("plan"), &json!([1])));
    }
}
