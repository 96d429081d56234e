//! What has happened: rows that are only added.

use super::{About, EventRow, Store, StoreError, now};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

/// The most events that one call gives.
const MAX_EVENTS: u32 = 1000;
/// The most events that one call removes: requests wait meanwhile.
pub(in crate::serve) const MAX_REMOVED: usize = 1000;
/// So many of the newest events stay: a clock that is wrong by years must not empty the history.
const KEPT_NEWEST: i64 = 10_000;
/// The most events of a page.
const MAX_HISTORY: u32 = 200;

impl Store {
    /// Something happened that is worth to be remembered.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn add_event(&mut self, kind: &str, deployment: Option<&str>, text: &str) -> Result<(), StoreError> {
        add_event(&self.connection, "", kind, deployment, None, text).map_err(self.failed())
    }

    /// Machines of this deployment, each known by one of its hardware addresses, have come to the end of their part in it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn on_nodes(&mut self, id: &str, nodes: &[(Option<String>, String)]) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            for (mac, text) in nodes {
                let machine = change.query_row("SELECT machine FROM cards WHERE mac = ?1", [mac], |row| row.get(0));
                let machine: Option<i64> = machine.optional().map_err(&failed)?;
                add_event(change, "", "node", Some(id), machine, text).map_err(&failed)?;
            }
            Ok(())
        })
    }

    /// Something happened to the machines with these hardware addresses; if none of them is known, it is kept all the same.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn claim_events(&mut self, kind: &str, macs: &[String], text: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        let macs = serde_json::json!(macs).to_string();
        self.change(|change| {
            let select =
                "SELECT DISTINCT machine FROM cards WHERE mac IN (SELECT value FROM json_each (?1)) ORDER BY machine";
            let mut query = change.prepare_cached(select).map_err(&failed)?;
            let machines = query.query_map([macs], |row| row.get(0)).and_then(Iterator::collect);
            let machines: Vec<i64> = machines.map_err(&failed)?;
            if machines.is_empty() {
                add_event(change, "", kind, None, None, text).map_err(&failed)?;
            }
            machines.iter().try_for_each(|id| add_event(change, "", kind, None, Some(*id), text)).map_err(&failed)
        })
    }

    /// Removes some of the events that happened before `before` (in seconds since 1970) and are about no machine; the newest ones
    /// stay however old they are. Gives how many; there may be more if that is [`MAX_REMOVED`].
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove_events(&mut self, before: i64) -> Result<usize, StoreError> {
        let remove = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE machine IS NULL AND at < ?1
                          AND id <= (SELECT max (id) FROM events) - ?2 ORDER BY at LIMIT ?3)";
        self.connection.execute(remove, params![before, KEPT_NEWEST, MAX_REMOVED]).map_err(self.failed())
    }

    /// How often the database was changed by this program.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.connection.total_changes()
    }

    /// The number of the newest event; 0 if there is none.
    #[must_use]
    pub fn newest_event(&self) -> i64 {
        let newest = "SELECT coalesce(max(id), 0) FROM events";
        self.connection.query_row(newest, [], |row| row.get(0)).unwrap_or_default()
    }

    /// Events after the one with this number, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn events(&self, after: i64) -> Result<Vec<EventRow>, StoreError> {
        self.select_events("id > ?1 ORDER BY id", params![after, MAX_EVENTS])
    }

    /// The newest events about something, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn history(&self, about: About<'_>) -> Result<Vec<EventRow>, StoreError> {
        match about {
            About::Machine(id) => self.select_events("machine = ?1 ORDER BY id DESC", params![id, MAX_HISTORY]),
            About::Deployment(id) => self.select_events("deployment = ?1 ORDER BY id DESC", params![id, MAX_HISTORY]),
            About::Commands => self.select_events("who != ?1 ORDER BY id DESC", params!["", MAX_HISTORY]),
        }
    }

    fn select_events(&self, which: &str, values: &[&dyn ToSql]) -> Result<Vec<EventRow>, StoreError> {
        let failed = self.failed();
        let select = format!("SELECT id, at, kind, deployment, machine, text, who FROM events WHERE {which} LIMIT ?2");
        let mut query = self.connection.prepare_cached(&select).map_err(&failed)?;
        let rows = query.query_map(values, event);
        rows.and_then(Iterator::collect).map_err(&failed)
    }
}

/// An event of a row with its columns in their order.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        id: row.get(0)?,
        at: row.get(1)?,
        kind: row.get(2)?,
        deployment: row.get(3)?,
        machine: row.get(4)?,
        text: row.get(5)?,
        who: row.get(6)?,
    })
}

pub(super) fn add_event(
    connection: &Connection,
    who: &str,
    kind: &str,
    deployment: Option<&str>,
    machine: Option<i64>,
    text: &str,
) -> rusqlite::Result<()> {
    let add = "INSERT INTO events (at, kind, deployment, machine, text, who) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    connection.execute(add, params![now(), kind, deployment, machine, text, who]).map(drop)
}
