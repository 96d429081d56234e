//! `/metrics`: what a Prometheus server collects. Numbers of machines and deployments, never one line for each of them: those are in the API.
//!
//! What ends in `_total` counts from the start of this server.

use super::api::{Api, Shared};
use super::live::Now;
use super::problem::Problem;
use super::role::Role;
use super::store::Which;
use crate::service::Finished;
use crate::view::{Snapshot, State as NodeState};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use slidecast_proto::reason::Reason;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// The text form of Prometheus, version 0.0.4.
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What has been counted since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Deployments that are over, by exit code.
    deployments: BTreeMap<u8, u64>,
    /// Nodes that have ended their part, by state and reason.
    nodes: BTreeMap<(&'static str, &'static str), u64>,
    /// Changes of chains, by kind.
    repairs: BTreeMap<&'static str, u64>,
    /// Bytes that deployments which are over have sent.
    sent_bytes: u64,
}

impl Tally {
    pub(super) fn on_node(&mut self, state: NodeState, reason: Reason) {
        *self.nodes.entry((state.as_str(), reason.as_str())).or_default() += 1;
    }

    pub(super) fn on_over(&mut self, finished: &Finished) {
        let report = finished.report();
        *self.deployments.entry(finished.machine.exit_code().unwrap_or(3)).or_default() += 1;
        for repair in &report.repair_log {
            *self.repairs.entry(repair.kind).or_default() += 1;
        }
        self.sent_bytes += report.egress_bytes;
    }
}

/// Families of metrics, as text.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    /// Begins a family.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number of a family.
    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| {
                let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                format!("{label}=\"{value}\"")
            })
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A family of one number.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// What the database knows.
#[derive(Debug, Default)]
struct Kept {
    machines: BTreeMap<String, u64>,
    deployments: BTreeMap<&'static str, u64>,
    events: i64,
}

pub(super) async fn answer(State(api): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    api.authorize(&headers, Role::Viewer).await?;
    let kept = kept(&api).await?;
    let text = text(&kept, &api.live.lock());
    Ok(([(header::CONTENT_TYPE, KIND)], text).into_response())
}

async fn kept(api: &Api) -> Result<Kept, Problem> {
    let job = |store: &mut super::store::Store| {
        let mut kept = Kept { events: store.newest_event(), ..Kept::default() };
        for machine in store.machines()? {
            *kept.machines.entry(machine.state).or_default() += 1;
        }
        for row in store.deployments(Which::Active)? {
            *kept.deployments.entry(row.word()).or_default() += 1;
        }
        Ok(kept)
    };
    Ok(api.database.call(job).await?)
}

fn text(kept: &Kept, now: &Now) -> String {
    let mut page = Page::default();
    page.family("slidecast_build_info", "gauge", "The version of this server.");
    page.sample("slidecast_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    page.family("slidecast_machines", "gauge", "Machines that are known.");
    for state in ["new", "accepted"] {
        let count = kept.machines.get(state).copied().unwrap_or_default();
        page.sample("slidecast_machines", &[("state", &state)], count);
    }
    page.one("slidecast_machines_connected", "gauge", "Machines that are connected.", now.machines.len());
    let help = "Connected machines that claim the identity of another one, and are held.";
    page.one("slidecast_machines_contested", "gauge", help, now.contested.len());
    page.family("slidecast_deployments", "gauge", "Deployments that are not over.");
    let (mut states, mut running) = (kept.deployments.clone(), 0);
    for word in ["waiting", "running"] {
        states.entry(word).or_default();
    }
    for (state, count) in states {
        page.sample("slidecast_deployments", &[("state", &state)], count);
    }
    let mut nodes: BTreeMap<&str, u64> = BTreeMap::new();
    for snapshot in now.snapshots.values() {
        running += sent(snapshot);
        snapshot.nodes.iter().for_each(|node| *nodes.entry(node.state.as_str()).or_default() += 1);
    }
    page.family("slidecast_nodes", "gauge", "Nodes of deployments that are not over.");
    nodes.iter().for_each(|(state, count)| page.sample("slidecast_nodes", &[("state", state)], count));
    let sent = now.tally.sent_bytes + running;
    page.one("slidecast_sent_bytes_total", "counter", "Bytes of images that this server has sent.", sent);
    tallied(&mut page, &now.tally);
    page.one("slidecast_events_total", "counter", "Events in the database.", kept.events);
    page.0
}

fn sent(snapshot: &Snapshot) -> u64 {
    snapshot.egress_bytes
}

fn tallied(page: &mut Page, tally: &Tally) {
    page.family("slidecast_deployments_ended_total", "counter", "Deployments that are over.");
    for (code, count) in &tally.deployments {
        page.sample("slidecast_deployments_ended_total", &[("exit_code", code)], count);
    }
    page.family("slidecast_nodes_ended_total", "counter", "Nodes that have ended their part in a deployment.");
    for ((state, reason), count) in &tally.nodes {
        page.sample("slidecast_nodes_ended_total", &[("state", state), ("reason", reason)], count);
    }
    page.family("slidecast_repairs_total", "counter", "Changes of chains in deployments that are over.");
    for (kind, count) in &tally.repairs {
        page.sample("slidecast_repairs_total", &[("kind", kind)], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Every sample belongs to the family above it, of which name and type are as Prometheus wants them.
    fn check(text: &str) -> usize {
        let (mut family, mut kind, mut helped, mut seen) = ("", "", "", HashMap::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split_once(' ').unwrap().0;
                continue;
            }
            if let Some(line) = line.strip_prefix("# TYPE ") {
                (family, kind) = line.split_once(' ').unwrap();
                assert!(family == helped && !seen.contains_key(family), "{line}");
                assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
                assert!(family.bytes().all(|sign| sign.is_ascii_lowercase() || sign == b'_'), "{line}");
                seen.insert(family, 0);
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(sample.split('{').next(), Some(family), "{line}");
            assert!(value.parse::<u64>().is_ok() && matches!(kind, "gauge" | "counter"), "{line}");
        }
        seen.len()
    }

    #[test]
    fn the_page_has_the_form_that_prometheus_reads() {
        let mut now = Now::default();
        now.tally.on_node(NodeState::Refused, Reason::NodeLost);
        now.tally.deployments.insert(3, 2);
        now.tally.repairs.insert("slow", 1);
        let text = text(&Kept { events: 7, ..Kept::default() }, &now);
        assert!(check(&text) >= 9, "{text}");
        assert!(text.contains("\nslidecast_deployments_ended_total{exit_code=\"3\"} 2\n"), "{text}");
        assert!(text.contains("\nslidecast_machines{state=\"new\"} 0\n"), "{text}");
    }

    #[test]
    fn what_would_end_a_label_is_escaped() {
        let mut page = Page::default();
        page.sample("x", &[("a", &"\"\\\n")], 1);
        assert_eq!(page.0, "x{a=\"\\\"\\\\\\n\"} 1\n");
    }
}
