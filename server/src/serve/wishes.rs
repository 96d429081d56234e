//! What a deployment is asked to do: the body of the request, which is kept in the database as it came and read again after a restart.

use super::problem::Problem;
use serde::{Deserialize, Serialize};
use slidecast_proto::quantity::parse_duration;
use slidecast_proto::reason::{Free, Then, Verify};
use slidecast_proto::selector::Selector;
use std::str::FromStr;
use std::time::Duration;

/// The most machines of one deployment.
const MAX_MACHINES: usize = 10_000;

/// The body of `POST /v1/deployments`. Names and words are those of `deploy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// The name of a file in `--images`.
    pub(super) image: String,
    /// Numbers of accepted machines.
    #[serde(default)]
    pub(super) machines: Vec<i64>,
    /// Instead: the name of a group. Its accepted machines are in `machines` when the request is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(default)]
    target: String,
    #[serde(default = "full")]
    verify: String,
    #[serde(default = "keep")]
    free: String,
    #[serde(default = "hold")]
    then: String,
    #[serde(default)]
    fresh: bool,
    /// Nothing: all of them.
    #[serde(default)]
    wait_for: Option<u32>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    join_window: Option<String>,
}

fn full() -> String {
    Verify::Full.to_string()
}

fn keep() -> String {
    Free::Keep.to_string()
}

fn hold() -> String {
    Then::Hold.to_string()
}

/// A request that makes sense.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    pub(super) selector: String,
    pub(super) verify: Verify,
    pub(super) free: Free,
    pub(super) then: Then,
    pub(super) fresh: bool,
    pub(super) wait_for: u32,
    pub(super) timeout: Option<Duration>,
    pub(super) join_window: Option<Duration>,
}

impl Request {
    /// The group that it names has these machines.
    pub(super) fn take_group(&mut self, machines: Vec<i64>) -> Result<(), Problem> {
        if !self.machines.is_empty() {
            return Err(Problem::bad("group: expected either a group or machines, not both"));
        }
        if machines.is_empty() {
            let group = self.group.as_deref().unwrap_or_default();
            return Err(Problem::bad(format!("group: no machine of {group} is accepted")));
        }
        self.machines = machines;
        Ok(())
    }

    /// What is asked for, if it makes sense.
    pub(super) fn wishes(&self) -> Result<Wishes, Problem> {
        fn word<T: FromStr<Err: std::fmt::Display>>(key: &str, word: &str) -> Result<T, Problem> {
            word.parse().map_err(|error| Problem::bad(format!("{key}: {error}")))
        }
        let duration = |key: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(parse_duration).transpose();
            parsed.map_err(|error| Problem::bad(format!("{key}: {error}")))
        };
        let count = self.machines.len();
        if count == 0 || count > MAX_MACHINES {
            return Err(Problem::bad(format!("machines: expected 1 to {MAX_MACHINES} numbers")));
        }
        let mut sorted = self.machines.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != count {
            return Err(Problem::bad("machines: a machine is named twice"));
        }
        let all = u32::try_from(count).unwrap_or(u32::MAX);
        let wait_for = self.wait_for.unwrap_or(all);
        if !(1..=all).contains(&wait_for) {
            return Err(Problem::bad(format!("wait_for: {wait_for} is not in 1..={all}")));
        }
        let selector: Selector = word("target", &self.target)?;
        Ok(Wishes {
            selector: selector.to_string(),
            verify: word("verify", &self.verify)?,
            free: word("free", &self.free)?,
            then: word("then", &self.then)?,
            fresh: self.fresh,
            wait_for,
            timeout: duration("timeout", &self.timeout)?,
            join_window: duration("join_window", &self.join_window)?,
        })
    }
}
