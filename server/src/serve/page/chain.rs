//! Chains, drawn: the server, and a box for each node in the order in which the image passes through them.

use crate::view::{NodeView, Snapshot, State};
use maud::{Markup, html};
use serde_json::Value;

/// A node, as it is drawn.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) detail: String,
    /// Of 100: on the disk, and read back.
    durable: u32,
    verified: u32,
    pub(super) written: u64,
    /// Bytes per second.
    pub(super) rate: f64,
    /// Seconds.
    pub(super) left: Option<u64>,
    connected: bool,
}

impl Node {
    pub(super) fn of_view(node: &NodeView, blocks: u32) -> Self {
        let whole = matches!(node.state.as_str(), "done" | "written");
        let share = |part: u32| match whole {
            true => 100,
            false => u32::try_from(u64::from(part) * 100 / u64::from(blocks.max(1))).unwrap_or(100).min(100),
        };
        Self {
            id: node.id.into(),
            name: node.name.clone(),
            address: node.address.to_string(),
            state: node.state.as_str().to_owned(),
            reason: node.reason.as_str().to_owned(),
            detail: node.detail.clone(),
            durable: share(node.blocks.1),
            verified: share(node.blocks.2),
            written: node.written_bytes,
            rate: node.rate,
            left: node.left.map(|left| left.as_secs()).filter(|_| matches!(node.state, State::Running(_))),
            connected: node.connected,
        }
    }

    /// A node of a report, of which `raw` bytes are what a whole disk gets.
    pub(super) fn of_report(node: &Value, raw: u64) -> Self {
        let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| node[key].as_u64().unwrap_or_default();
        let whole = if matches!(text("state").as_str(), "done" | "written") { 100 } else { 0 };
        Self {
            id: number("id"),
            name: text("name"),
            address: text("address"),
            state: text("state"),
            reason: text("reason"),
            detail: text("detail"),
            durable: whole,
            verified: whole,
            written: raw / (number("blocks_written") + number("blocks_kept")).max(1) * number("blocks_written"),
            rate: 0.0,
            left: None,
            connected: true,
        }
    }

    pub(super) fn title(&self) -> &str {
        if self.name.is_empty() { &self.address } else { &self.name }
    }

    /// A letter, so that the colour is not all that tells states apart.
    fn letter(&self) -> char {
        match self.state.as_str() {
            "done" => '✓',
            "written" => 'w',
            "failed" | "refused" => '✕',
            "receiving" => 'R',
            "verifying" => 'V',
            "finishing" => 'F',
            "ready" => 'r',
            _ => '·',
        }
    }
}

/// The chains of a deployment that runs or would run: the card, and the nodes in their order.
pub(super) fn of_snapshot(snapshot: &Snapshot) -> Vec<(String, Vec<u64>)> {
    if snapshot.chains.is_empty() {
        let mut planned: Vec<_> =
            snapshot.nodes.iter().filter_map(|node| Some((node.place.or(node.expected)?, node))).collect();
        planned.sort_by_key(|(place, _)| *place);
        let mut chains: Vec<(u32, String, Vec<u64>)> = Vec::new();
        for ((chain, _), node) in planned {
            match chains.last_mut().filter(|last| last.0 == chain) {
                Some(last) => last.2.push(node.id.into()),
                None => chains.push((chain, node.interface.clone(), vec![node.id.into()])),
            }
        }
        return chains.into_iter().map(|(_, card, nodes)| (card, nodes)).collect();
    }
    let chains = snapshot.chains.iter();
    chains.map(|chain| (chain.interface.clone(), chain.nodes.iter().map(|id| u64::from(*id)).collect())).collect()
}

/// A chain of a report.
pub(super) fn of_report(chain: &Value) -> (String, Vec<u64>) {
    let nodes = chain["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids = nodes.iter().filter_map(|node| node["id"].as_u64());
    (chain["interface"].as_str().unwrap_or_default().to_owned(), ids.collect())
}

pub(super) fn chains(chains: &[(String, Vec<u64>)], nodes: &[Node]) -> Markup {
    let find = |id: &u64| nodes.iter().find(|node| node.id == *id);
    let placed: Vec<u64> = chains.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
    let apart: Vec<&Node> = nodes.iter().filter(|node| !placed.contains(&node.id)).collect();
    html! {
        @for (number, (card, ids)) in (1..).zip(chains) {
            section.line aria-label=(format!("Chain {number} through {card}")) {
                h2 { "Chain " (number) " " span.faint { (card) ", " (ids.len()) @if ids.len() == 1 { " machine" } @else { " machines" } } }
                ol.chain {
                    li.source { span.letter aria-hidden="true" { "S" } b { "server" } span.faint { "sends once" } }
                    @for node in ids.iter().filter_map(find) { (drawn(node)) }
                }
            }
        }
        @if !apart.is_empty() {
            section.line aria-label="Machines in no chain" {
                h2 { "In no chain" }
                ol.chain.apart { @for node in &apart { (drawn(node)) } }
            }
        }
    }
}

fn drawn(node: &Node) -> Markup {
    let kind = match node.state.as_str() {
        "done" | "written" => "good",
        "failed" | "refused" => "bad",
        "receiving" | "verifying" | "finishing" => "busy",
        _ => "wait",
    };
    html! {
        li class=(format!("node {kind}")) {
            svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true" {
                rect.durable x="0" width="100" y=(100 - node.durable) height=(node.durable) {}
                rect.verified x="0" width="100" y=(100 - node.verified) height=(node.verified) {}
            }
            span.letter aria-hidden="true" { (node.letter()) }
            b { (node.title()) }
            span.word { (node.state) @if !node.connected { ", not heard" } }
            @if kind == "busy" { span.percent { (node.durable) " % written" } span.word { (node.verified) " % verified" } }
            @if kind == "good" { span.percent { (node.verified) " % verified" } }
            @if kind == "bad" { span.percent { (node.reason) } }
        }
    }
}
