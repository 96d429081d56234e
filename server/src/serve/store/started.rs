//! The beginning of a deployment: with which of its machines, and without which.

use super::events::add_event;
use super::{Store, StoreError, now};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long a deployment that begins with the machines that are connected waits for those of them that are not ready, in seconds.
pub(in crate::serve) const PATIENCE: i64 = 60;
/// The most machines that the event of a start names.
const MAX_NAMED: usize = 10;

/// A machine that was connected when a deployment began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Began {
    /// One of its hardware addresses.
    pub mac: String,
    /// Why it has no place in the plan; nothing if it has one.
    pub left_out: Option<String>,
}

/// A machine that a deployment began without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its number.
    pub machine: i64,
    /// Its host name.
    pub name: String,
    /// Why.
    pub why: String,
}

impl LeftOut {
    /// Its host name and the reason, for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self.name.as_str() {
            "" => format!("machine {} ({})", self.machine, self.why),
            name => format!("{name} ({})", self.why),
        }
    }
}

/// A deployment that the service has, and that is to begin with the machines that are ready. `?1` is the time. One whose time lies
/// further ahead than any may was given that time before the clock was set back.
const IS_TO_BEGIN: &str = "state = 'active' AND released = 1 AND started = 0 AND stop = 0
    AND (begin_by <= ?1 OR begin_by > ?1 + patience)";

impl Store {
    /// The deployments that the service has and that are to begin with the machines that are ready: for so long they were waited for,
    /// or somebody does not want to wait.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn to_begin(&self) -> Result<Vec<String>, StoreError> {
        let failed = self.failed();
        let mut query = self
            .connection
            .prepare_cached(&format!("SELECT id FROM deployments WHERE {IS_TO_BEGIN}"))
            .map_err(&failed)?;
        query.query_map([now()], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)
    }

    /// Whether this deployment is one of [`Self::to_begin`].
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn is_to_begin(&self, id: &str) -> Result<bool, StoreError> {
        let select = format!("SELECT 1 FROM deployments WHERE id = ?2 AND {IS_TO_BEGIN}");
        let found = self.connection.query_row(&select, params![now(), id], |_| Ok(())).optional();
        found.map(|found| found.is_some()).map_err(self.failed())
    }

    /// The plan of this deployment is fixed: from now on it is not begun anew. Keeps which of its machines have no place in it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn on_started(&mut self, id: &str, began: &[Began]) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let left_out = left_out(change, id, began).map_err(&failed)?;
            let list = serde_json::json!(left_out).to_string();
            let set =
                "UPDATE deployments SET started = 1, left_out = ?2 WHERE id = ?1 AND state = 'active' AND started = 0";
            match change.execute(set, [id, &list]).map_err(&failed)? {
                0 => Ok(()),
                _ => add_event(change, "", "deployment-started", Some(id), None, &without(&left_out)).map_err(&failed),
            }
        })
    }
}

/// The machines of a deployment that are not among those with a place in its plan.
fn left_out(connection: &Connection, id: &str, began: &[Began]) -> rusqlite::Result<Vec<LeftOut>> {
    let mut reasons: BTreeMap<i64, Option<&str>> = BTreeMap::new();
    for each in began {
        let machine = connection.query_row("SELECT machine FROM cards WHERE mac = ?1", [&each.mac], |row| row.get(0));
        let Some(machine) = machine.optional()? else { continue };
        let reason = reasons.entry(machine).or_insert(each.left_out.as_deref());
        // It may have called twice: its place counts.
        if each.left_out.is_none() {
            *reason = None;
        }
    }
    let select = "SELECT machine, name FROM targets JOIN machines ON machines.id = machine WHERE deployment = ?1 ORDER BY machine";
    let mut query = connection.prepare_cached(select)?;
    let machines = query.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let machines: Vec<(i64, String)> = machines.collect::<rusqlite::Result<_>>()?;
    let left_out = machines.into_iter().filter_map(|(machine, name)| {
        let why = match reasons.get(&machine) {
            Some(None) => return None,
            Some(Some(why)) => (*why).to_owned(),
            None => "not connected".to_owned(),
        };
        Some(LeftOut { machine, name, why })
    });
    Ok(left_out.collect())
}

/// What the event of the start says.
fn without(left_out: &[LeftOut]) -> String {
    let named: Vec<String> = left_out.iter().take(MAX_NAMED).map(LeftOut::words).collect();
    match left_out.len() {
        0 => String::new(),
        count if count > MAX_NAMED => format!("without {} and {} others", named.join(", "), count - MAX_NAMED),
        _ => format!("without {}", named.join(", ")),
    }
}
