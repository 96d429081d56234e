//! Who may use the API.

use super::super::role::Role;
use super::{Store, StoreError, now};
use rusqlite::{OptionalExtension, params};

impl Store {
    /// Keeps a token by its hash.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn add_token(&mut self, hash: &str, role: Role) -> Result<(), StoreError> {
        let add = "INSERT INTO tokens (hash, role, created) VALUES (?1, ?2, ?3)";
        self.connection.execute(add, params![hash, role.as_str(), now()]).map(drop).map_err(self.failed())
    }

    /// The role of the token with this hash.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn role_of(&self, hash: &str) -> Result<Option<Role>, StoreError> {
        let select = "SELECT role FROM tokens WHERE hash = ?1";
        let role: Option<String> =
            self.connection.query_row(select, [hash], |row| row.get(0)).optional().map_err(self.failed())?;
        Ok(role.and_then(|role| role.parse().ok()))
    }
}
