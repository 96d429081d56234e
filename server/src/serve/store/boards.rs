//! Management boards of machines.

use super::events::add_event;
use super::{Store, StoreError};
use rusqlite::{OptionalExtension, params};

/// A management board.
#[derive(Clone, PartialEq, Eq)]
pub struct Board {
    /// Its address, and the path of the system on it if there are several.
    pub url: String,
    /// The name of one of its users.
    pub user: String,
    /// The password of that.
    pub password: String,
    /// The SHA-256 of its certificate, in hexadecimal digits; empty: one of an authority that this system trusts.
    pub fingerprint: String,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("url", &self.url).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Store {
    /// The board of a machine.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn board(&self, machine: i64) -> Result<Option<Board>, StoreError> {
        let select = "SELECT url, user, password, fingerprint FROM boards WHERE machine = ?1";
        let board = self.connection.query_row(select, [machine], |row| {
            Ok(Board { url: row.get(0)?, user: row.get(1)?, password: row.get(2)?, fingerprint: row.get(3)? })
        });
        board.optional().map_err(self.failed())
    }

    /// This machine has this board, or none.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such machine.
    pub fn set_board(&mut self, machine: i64, board: Option<&Board>, who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let known = "SELECT 1 FROM machines WHERE id = ?1 AND forgotten IS NULL";
            let known = change.query_row(known, [machine], |_| Ok(())).optional().map_err(&failed)?;
            known.ok_or(StoreError::NoMachine { machine })?;
            let text = match board {
                None => {
                    change.execute("DELETE FROM boards WHERE machine = ?1", [machine]).map_err(&failed)?;
                    "none".to_owned()
                }
                Some(Board { url, user, password, fingerprint }) => {
                    let set = "INSERT OR REPLACE INTO boards (machine, url, user, password, fingerprint)
                               VALUES (?1, ?2, ?3, ?4, ?5)";
                    change.execute(set, params![machine, url, user, password, fingerprint]).map_err(&failed)?;
                    format!("{url} as {user}")
                }
            };
            add_event(change, who, "machine-board", None, Some(machine), &text).map_err(&failed)
        })
    }
}
