//! What has happened: rows that are only added.

use super::{EventRow, Store, StoreError, now};
use rusqlite::{Connection, OptionalExtension, params};

/// The most events that one call gives.
const MAX_EVENTS: u32 = 1000;

impl Store {
    /// Something happened that is worth to be remembered.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn add_event(&mut self, kind: &str, deployment: Option<&str>, text: &str) -> Result<(), StoreError> {
        add_event(&self.connection, kind, deployment, None, text).map_err(self.failed())
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
                add_event(change, "node", Some(id), machine, text).map_err(&failed)?;
            }
            Ok(())
        })
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
        let failed = self.failed();
        let select = "SELECT id, at, kind, deployment, machine, text FROM events WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut query = self.connection.prepare_cached(select).map_err(&failed)?;
        let rows = query.query_map(params![after, MAX_EVENTS], |row| {
            Ok(EventRow {
                id: row.get(0)?,
                at: row.get(1)?,
                kind: row.get(2)?,
                deployment: row.get(3)?,
                machine: row.get(4)?,
                text: row.get(5)?,
            })
        });
        rows.and_then(Iterator::collect).map_err(&failed)
    }
}

pub(super) fn add_event(
    connection: &Connection,
    kind: &str,
    deployment: Option<&str>,
    machine: Option<i64>,
    text: &str,
) -> rusqlite::Result<()> {
    let add = "INSERT INTO events (at, kind, deployment, machine, text) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.execute(add, params![now(), kind, deployment, machine, text]).map(drop)
}
