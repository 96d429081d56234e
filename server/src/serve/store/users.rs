//! Who may use the server: users, their sessions, links that work once, and tokens.

use super::events::add_event;
use super::groups::group_name;
use super::{Store, StoreError, Token, User, Who, now};
use crate::serve::role::Role;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{ErrorCode, OptionalExtension, Row, params};

impl FromSql for Role {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let groups: String = row.get(5)?;
    Ok(User {
        id: row.get(0)?,
        name: row.get(1)?,
        role: row.get(2)?,
        password: row.get(3)?,
        created: row.get(4)?,
        groups: serde_json::from_str(&groups).unwrap_or_default(),
    })
}

const USER: &str = "SELECT id, name, role, password, created,
    (SELECT json_group_array(machine_group) FROM user_groups WHERE user = users.id) FROM users";

fn refused(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

impl Store {
    /// All users by name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn users(&self) -> Result<Vec<User>, StoreError> {
        let failed = self.failed();
        let mut query = self.connection.prepare_cached(&format!("{USER} ORDER BY name")).map_err(&failed)?;
        query.query_map([], user).and_then(Iterator::collect).map_err(&failed)
    }

    /// The user with this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        let select = format!("{USER} WHERE name = ?1");
        self.connection.query_row(&select, [name], user).optional().map_err(self.failed())
    }

    /// Makes a link that works once: for a new user of this name, or for a new password of the one there is. An earlier link for this name
    /// is void. With an empty name, whoever opens the link chooses one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn invite(&mut self, hash: &str, name: &str, role: Role, ends: i64, who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let add = "INSERT OR REPLACE INTO invitations (hash, name, role, ends) VALUES (?1, ?2, ?3, ?4)";
            change.execute(add, params![hash, name, role.as_str(), ends]).map_err(&failed)?;
            match who {
                "" => Ok(()),
                _ => add_event(change, who, "user-invited", None, None, &format!("{name}: {role}")).map_err(&failed),
            }
        })
    }

    /// The name and role of a link that still works.
    ///
    /// # Errors
    /// [`StoreError`]: there is none, or the database fails.
    pub fn invitation(&self, hash: &str) -> Result<(String, Role), StoreError> {
        let select = "SELECT name, role FROM invitations WHERE hash = ?1 AND ends > ?2";
        let found = self.connection.query_row(select, params![hash, now()], |row| Ok((row.get(0)?, row.get(1)?)));
        found.optional().map_err(self.failed())?.ok_or(StoreError::NoInvitation)
    }

    /// Uses a link up: the user is there now, or has a new password and has to sign in anew everywhere.
    ///
    /// # Errors
    /// [`StoreError`]: the link does not work, or somebody else has the name.
    pub fn join(&mut self, hash: &str, name: &str, password: &str) -> Result<User, StoreError> {
        let failed = self.failed();
        let (invited, role) = self.invitation(hash)?;
        self.change(|change| {
            if change.execute("DELETE FROM invitations WHERE hash = ?1", [hash]).map_err(&failed)? == 0 {
                return Err(StoreError::NoInvitation);
            }
            let name = if invited.is_empty() { name } else { &invited };
            let set = "UPDATE users SET password = ?2 WHERE name = ?1";
            let known = !invited.is_empty() && change.execute(set, [name, password]).map_err(&failed)? > 0;
            if !known {
                let add = "INSERT INTO users (name, role, password, created) VALUES (?1, ?2, ?3, ?4)";
                match change.execute(add, params![name, role.as_str(), password, now()]) {
                    Err(error) if refused(&error) => return Err(StoreError::NameTaken { name: name.to_owned() }),
                    result => result.map_err(&failed)?,
                };
            }
            let user = change.query_row(&format!("{USER} WHERE name = ?1"), [name], user).map_err(&failed)?;
            change.execute("DELETE FROM sessions WHERE user = ?1", [user.id]).map_err(&failed)?;
            add_event(change, name, if known { "user-password" } else { "user-new" }, None, None, "")
                .map_err(&failed)?;
            Ok(user)
        })
    }

    /// Gives a user another role.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such user, or it is the last administrator.
    pub fn set_role(&mut self, id: i64, role: Role, who: &str) -> Result<(), StoreError> {
        let text = format!("{{name}}: {role}");
        self.change_user(id, "UPDATE users SET role = ?2 WHERE id = ?1", Some(role.as_str()), "user-role", &text, who)
    }

    /// Gives a user another password. Of all sessions of that user only the one with the hash `session` goes on.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such user.
    pub fn set_password(&mut self, user: &User, password: &str, session: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let set = "UPDATE users SET password = ?2 WHERE id = ?1";
            if change.execute(set, params![user.id, password]).map_err(&failed)? == 0 {
                return Err(StoreError::NoUser { user: user.id });
            }
            let end = "DELETE FROM sessions WHERE user = ?1 AND hash != ?2";
            change.execute(end, params![user.id, session]).map_err(&failed)?;
            add_event(change, &user.name, "user-password", None, None, &user.name).map_err(&failed)
        })
    }

    /// Removes a user, with all sessions.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such user, or it is the last administrator.
    pub fn remove_user(&mut self, id: i64, who: &str) -> Result<(), StoreError> {
        self.change_user(id, "DELETE FROM users WHERE id = ?1", None, "user-removed", "{name}", who)
    }

    fn change_user(
        &mut self,
        id: i64,
        set: &str,
        value: Option<&str>,
        kind: &str,
        text: &str,
        who: &str,
    ) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let name = change.query_row("SELECT name FROM users WHERE id = ?1", [id], |row| row.get(0)).optional();
            let name: String = name.map_err(&failed)?.ok_or(StoreError::NoUser { user: id })?;
            let done = match value {
                Some(value) => change.execute(set, params![id, value]),
                None => change.execute(set, [id]),
            };
            match done {
                Err(error) if refused(&error) => return Err(StoreError::LastAdmin),
                result => result.map_err(&failed)?,
            };
            add_event(change, who, kind, None, None, &text.replace("{name}", &name)).map_err(&failed)
        })
    }

    /// Keeps a session by its hash; those that have ended go.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn add_session(&mut self, hash: &str, user: &User, ends: i64) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            change.execute("DELETE FROM sessions WHERE ends <= ?1", [now()]).map_err(&failed)?;
            let add = "INSERT INTO sessions (hash, user, ends) VALUES (?1, ?2, ?3)";
            change.execute(add, params![hash, user.id, ends]).map_err(&failed)?;
            add_event(change, &user.name, "signed-in", None, None, "").map_err(&failed)
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn end_session(&mut self, hash: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let select = "SELECT name FROM sessions JOIN users ON users.id = user WHERE hash = ?1";
            let name: Option<String> =
                change.query_row(select, [hash], |row| row.get(0)).optional().map_err(&failed)?;
            let Some(name) = name else { return Ok(()) };
            change.execute("DELETE FROM sessions WHERE hash = ?1", [hash]).map_err(&failed)?;
            // It also wakes the streams of that session, which end then.
            add_event(change, &name, "signed-out", None, None, "").map_err(&failed)
        })
    }

    /// Whose session this is.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn of_session(&self, hash: &str) -> Result<Option<Who>, StoreError> {
        let select = "SELECT name, users.id, role,
            (SELECT json_group_array(machine_group) FROM user_groups WHERE user_groups.user = users.id)
            FROM sessions JOIN users ON users.id = sessions.user WHERE hash = ?1 AND ends > ?2";
        let who = |row: &Row<'_>| {
            let groups: String = row.get(3)?;
            let groups = serde_json::from_str(&groups).unwrap_or_default();
            Ok(Who { name: row.get(0)?, user: Some(row.get(1)?), role: row.get(2)?, groups })
        };
        self.connection.query_row(select, params![hash, now()], who).optional().map_err(self.failed())
    }

    /// Keeps a token by its hash; without an end it works for ever. With groups it is limited to those.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such group.
    pub fn add_token(
        &mut self,
        hash: &str,
        role: Role,
        ends: Option<i64>,
        groups: &[i64],
        who: &str,
    ) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let add = "INSERT INTO tokens (hash, role, created, ends) VALUES (?1, ?2, ?3, ?4)";
            change.execute(add, params![hash, role.as_str(), now(), ends]).map_err(&failed)?;
            let mut names = Vec::new();
            for &group in groups {
                let found = group_name(change, group).map_err(&failed)?;
                names.push(found.ok_or(StoreError::NoGroup { group: group.to_string() })?);
                let add = "INSERT OR IGNORE INTO token_groups (token, machine_group) VALUES (?1, ?2)";
                change.execute(add, params![hash, group]).map_err(&failed)?;
            }
            let limits = if names.is_empty() { String::new() } else { format!(", limited to {}", names.join(", ")) };
            let text = format!("{}: {role}{limits}", token_name(hash));
            add_event(change, who, "token-new", None, None, &text).map_err(&failed)
        })
    }

    /// All tokens, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let failed = self.failed();
        let select = "SELECT hash, role, created, ends,
            (SELECT json_group_array(name) FROM (SELECT groups.name FROM token_groups JOIN groups ON groups.id = machine_group
             WHERE token = hash ORDER BY groups.name))
            FROM tokens ORDER BY created DESC, rowid DESC LIMIT 1000";
        let mut query = self.connection.prepare_cached(select).map_err(&failed)?;
        let token = |row: &Row<'_>| {
            let groups: String = row.get(4)?;
            let groups = serde_json::from_str(&groups).unwrap_or_default();
            Ok(Token { hash: row.get(0)?, role: row.get(1)?, created: row.get(2)?, ends: row.get(3)?, groups })
        };
        query.query_map([], token).and_then(Iterator::collect).map_err(&failed)
    }

    /// This token works no longer.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove_token(&mut self, hash: &str, who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| match change.execute("DELETE FROM tokens WHERE hash = ?1", [hash]).map_err(&failed)? {
            0 => Ok(()),
            _ => add_event(change, who, "token-removed", None, None, &token_name(hash)).map_err(&failed),
        })
    }

    /// What the holder of the token with this hash may do.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn of_token(&self, hash: &str) -> Result<Option<Who>, StoreError> {
        let select = "SELECT role, (SELECT json_group_array(machine_group) FROM token_groups WHERE token = hash)
            FROM tokens WHERE hash = ?1 AND (ends IS NULL OR ends > ?2)";
        let who = |row: &Row<'_>| {
            let groups: String = row.get(1)?;
            let groups = serde_json::from_str(&groups).unwrap_or_default();
            Ok(Who { name: token_name(hash), user: None, role: row.get(0)?, groups })
        };
        self.connection.query_row(select, params![hash, now()], who).optional().map_err(self.failed())
    }
}

/// How a token is named where it must not be shown.
pub(crate) fn token_name(hash: &str) -> String {
    format!("token {}", hash.get(..8).unwrap_or(hash))
}
