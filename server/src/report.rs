//! The report of a deployment (`--report`): one JSON object, a contract with programs. `docs/DEPLOY.md` explains it.

use crate::shown::{shown, shown_detail};
use crate::view::Facts;
use serde::Serialize;
use slidecast_proto::deployment::{Deployment, NodeRecord, Stage, Standing};
use slidecast_proto::plan::Plan;
use slidecast_proto::reason::{EndState, LookedAt, Reason, Verified};
use slidecast_proto::units::Time;
use std::net::IpAddr;

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The image's file, as it was given.
    pub image: String,
    /// The deployment's id, in hexadecimal digits.
    pub deployment: String,
    /// From the moment the plan was fixed to the moment the last node ended; 0 if nothing was started.
    pub seconds: f64,
    /// Bytes of all places of one target.
    pub raw_bytes: u64,
    /// Bytes of the payloads of one image.
    pub stored_bytes: u64,
    /// Bytes sent by the server on chain links.
    pub egress_bytes: u64,
    /// Keys were not used.
    pub insecure: bool,
    /// The chains as they were planned.
    pub chains: Vec<ChainReport>,
    /// Every node that came, by number.
    pub nodes: Vec<NodeReport>,
    /// Every change of a chain while it ran, oldest first.
    pub repair_log: Vec<RepairReport>,
}

/// A change of a chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepairReport {
    /// From the moment the plan was fixed to the first sign.
    pub at: f64,
    /// The node that it is about.
    pub node: u32,
    /// Why: a word of a closed list.
    pub kind: &'static str,
    /// The facts behind it.
    pub detail: String,
    /// From the first sign to the moment when blocks could flow again; null if that did not come about.
    pub seconds: Option<f64>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChainReport {
    /// The card that fed it.
    pub interface: String,
    /// Its nodes, the head first: the same objects as in [`Report::nodes`].
    pub nodes: Vec<NodeReport>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// Its number.
    pub id: u32,
    /// Its host name; empty if it has none.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The path of its target; empty if it has none.
    pub target: String,
    /// `done`, `written` or `failed`.
    pub state: &'static str,
    /// A code of the closed list; `none` if it did not fail.
    pub reason: &'static str,
    /// The facts behind the reason.
    pub detail: String,
    /// From the moment the plan was fixed to the moment it ended.
    pub seconds: f64,
    /// `direct`, `cached` or `no`.
    pub verified: &'static str,
    /// Blocks written.
    pub blocks_written: u32,
    /// Blocks that were on the target already.
    pub blocks_kept: u32,
    /// How much was read once more before the head was written: `sample`, `all` or `no`.
    pub last_look: &'static str,
    /// How many blocks that were.
    pub last_look_blocks: u32,
    /// How often its chain was repaired around it.
    pub repairs: u32,
    /// It was moved behind the tail.
    pub moved: bool,
    /// It came after the start.
    pub late: bool,
    /// How often it was given up or started again, and came back.
    pub returned: u32,
}

impl Report {
    /// The report of a deployment that is over.
    #[must_use]
    pub fn of(deployment: &Deployment, plan: &Plan, facts: &Facts, egress_bytes: u64) -> Self {
        let (fixed, over) = deployment.times();
        let seconds = |from: Option<Time>, to: Option<Time>| match (from, to) {
            (Some(from), Some(to)) => (to.since(from).as_secs_f64() * 1000.0).round() / 1000.0,
            _ => 0.0,
        };
        let node = |node: NodeRecord<'_>| {
            let end = node.outcome();
            let (state, reason, detail) = verdict(&node, deployment.stage());
            NodeReport {
                id: node.id.0,
                name: shown(&node.hello.hostname),
                address: node.address,
                target: shown(node.target()),
                state: state.as_str(),
                reason: reason.as_str(),
                detail: shown_detail(detail),
                seconds: end.map_or(0.0, |end| seconds(fixed, Some(end.at))),
                verified: end.map_or(Verified::No, |end| end.verified).as_str(),
                blocks_written: end.map_or(0, |end| end.blocks.0),
                blocks_kept: end.map_or(0, |end| end.blocks.1),
                last_look: end.map_or(LookedAt::No, |end| end.last_look.0).as_str(),
                last_look_blocks: end.map_or(0, |end| end.last_look.1),
                repairs: node.repairs,
                moved: node.moved,
                late: node.late,
                returned: node.returned,
            }
        };
        let chains = plan.chains.iter().map(|chain| ChainReport {
            interface: chain.card.0.clone(),
            nodes: chain.nodes.iter().filter_map(|id| deployment.node(*id)).map(node).collect(),
        });
        let nodes = deployment.nodes().map(node);
        let repairs = deployment.repairs().iter().map(|repair| RepairReport {
            at: seconds(fixed, Some(repair.began)),
            node: repair.node.0,
            kind: repair.kind.as_str(),
            detail: shown(&repair.detail),
            seconds: repair.ended.map(|ended| seconds(Some(repair.began), Some(ended))),
        });
        Self {
            image: facts.image.clone(),
            deployment: facts.deployment.clone(),
            seconds: seconds(fixed, over),
            raw_bytes: facts.raw_bytes,
            stored_bytes: facts.stored_bytes,
            egress_bytes,
            insecure: facts.key.is_none(),
            chains: chains.collect(),
            nodes: nodes.collect(),
            repair_log: repairs.collect(),
        }
    }

    /// The report as text, with a line end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a report has only numbers, texts and lists");
        text + "\n"
    }
}

/// How a node ended. A node that took no part has failed too: its disk was not written.
fn verdict<'a>(node: &NodeRecord<'a>, stage: Stage) -> (EndState, Reason, &'a str) {
    match node.standing {
        Standing::Ended(end) => (end.state, end.reason, &end.detail),
        Standing::Refused { reason, detail } => (EndState::Failed, *reason, detail),
        Standing::Preparing | Standing::Ready(_) | Standing::Running(_) => match stage {
            Stage::Over { started: false, stopped: false } => {
                (EndState::Failed, Reason::TimedOut, "nothing was started")
            }
            Stage::Over { started: true, .. } if node.place.is_none() => {
                (EndState::Failed, Reason::JoinedTooLate, "it was not ready when the deployment started")
            }
            _ => (EndState::Failed, Reason::Aborted, "the deployment was stopped"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slidecast_proto::deployment::RepairKind;

    const PAGE: &str = include_str!("../../docs/DEPLOY.md");

    #[test]
    fn the_page_for_programs_lists_every_reason() {
        for word in Reason::WORDS {
            assert!(PAGE.contains(&format!("`{word}`")), "{word}");
        }
    }

    #[test]
    fn the_page_for_programs_lists_every_kind_of_repair() {
        for kind in RepairKind::ALL {
            assert!(PAGE.contains(&format!("`{}`", kind.as_str())), "{kind:?}");
        }
    }

    #[test]
    fn the_keys_of_the_report_are_those_of_the_page() {
        let node = NodeReport {
            id: 1,
            name: String::new(),
            address: [10, 0, 0, 1].into(),
            target: "/dev/sda".to_owned(),
            state: "done",
            reason: "none",
            detail: String::new(),
            seconds: 1.5,
            verified: "direct",
            blocks_written: 3,
            blocks_kept: 4,
            last_look: "sample",
            last_look_blocks: 7,
            repairs: 0,
            moved: false,
            late: false,
            returned: 0,
        };
        let report = Report {
            image: "base.slide".to_owned(),
            deployment: "00".repeat(16),
            seconds: 2.5,
            raw_bytes: 3,
            stored_bytes: 2,
            egress_bytes: 2,
            insecure: false,
            chains: vec![ChainReport { interface: "eth1".to_owned(), nodes: vec![node.clone()] }],
            nodes: vec![node],
            repair_log: vec![RepairReport {
                at: 1.0,
                node: 1,
                kind: "lost",
                detail: String::new(),
                seconds: Some(0.1),
            }],
        };
        let value: serde_json::Value = serde_json::from_str(&report.to_text()).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let lists = [&value["chains"][0], &value["nodes"][0], &value["repair_log"][0]];
        let all = lists.into_iter().flat_map(keys).chain(keys(&value)).collect::<Vec<_>>();
        for key in all {
            let listed = PAGE.contains(&format!("`{key}`")) || PAGE.contains(&format!("`{key}[]`"));
            assert!(listed, "{key}");
        }
        assert_eq!(value["nodes"][0]["address"], "10.0.0.1");
    }
}
