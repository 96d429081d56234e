//! What a deployment is asked to do: the body of the request, which is kept in the database as it came and read again after a restart.

use super::problem::Problem;
use super::starting::{Count, StartRequest, When};
use super::waves::Waves;
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
    wait_for: Option<Count>,
    /// When it begins: when enough are ready, if this is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<StartRequest>,
    /// In parts one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) waves: Option<Waves>,
    /// Machines that are not connected are woken when it is given to the service.
    #[serde(default)]
    pub(super) wake: bool,
    /// How many machines may fail before waves that have not begun are called off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_failed: Option<u32>,
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
    /// It waits for no number of machines: those that are connected when it begins are enough.
    pub(super) with_connected: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) join_window: Option<Duration>,
}

impl Request {
    /// One wave of it, the first or a later one, as it is kept. Each is a deployment without waves; only the first waits for a time.
    pub(super) fn wave(&self, machines: Vec<i64>, first: bool) -> Result<Self, Problem> {
        let mut wave = Self { machines, waves: None, max_failed: None, ..self.clone() };
        let number = |count: &Option<Count>| matches!(count, Some(Count::Number(_)));
        if number(&self.wait_for) || self.start.as_ref().is_some_and(|start| number(&start.wait_for)) {
            return Err(Problem::bad("wait_for: with waves expected a part, such as \"80 %\", of each of them"));
        }
        if let Some(start) = wave.start.as_mut().filter(|start| !first && start.when == When::At) {
            *start = StartRequest { when: When::Now, wait_for: start.wait_for.take(), ..StartRequest::default() };
        }
        Ok(wave)
    }

    /// The same for these machines, as soon as they are ready.
    pub(super) fn again(self, machines: Vec<i64>) -> Self {
        Self { machines, group: None, start: None, wait_for: None, waves: None, max_failed: None, ..self }
    }

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
        let start = self.start.clone().unwrap_or_default();
        start.moment()?;
        let count = match (&start.wait_for, &self.wait_for) {
            (Some(_), Some(_)) => return Err(Problem::bad("wait_for: it is given twice, beside start and in it")),
            (count, None) | (None, count) => count.as_ref(),
        };
        let with_connected = count.is_none() && start.when != When::Ready;
        let wait_for = match count {
            Some(count) => count.of(all)?,
            None if with_connected => 1,
            None => all,
        };
        if self.max_failed.is_some() && self.waves.is_none() {
            return Err(Problem::bad("max_failed: it is about waves, and there are none"));
        }
        let selector: Selector = word("target", &self.target)?;
        Ok(Wishes {
            selector: selector.to_string(),
            verify: word("verify", &self.verify)?,
            free: word("free", &self.free)?,
            then: word("then", &self.then)?,
            fresh: self.fresh,
            wait_for,
            with_connected,
            timeout: duration("timeout", &self.timeout)?,
            join_window: duration("join_window", &self.join_window)?,
        })
    }
}
