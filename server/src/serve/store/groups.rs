//! Groups of machines, such as rooms, and rules that accept machines by the subnet that they call from.

use super::events::add_event;
use super::{Group, Machine, Rule, Store, StoreError, Who, now};
use crate::serve::subnet::Subnet;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use std::net::IpAddr;

fn refused(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

impl Store {
    /// All groups by name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn groups(&self) -> Result<Vec<Group>, StoreError> {
        let failed = self.failed();
        let select = "SELECT id, name, protected,
            (SELECT json_group_array(machine) FROM (SELECT machine FROM members JOIN machines ON machines.id = machine
             WHERE machine_group = groups.id AND forgotten IS NULL ORDER BY machine)),
            (SELECT json_group_array(name) FROM (SELECT users.name FROM user_groups JOIN users ON users.id = user
             WHERE machine_group = groups.id UNION ALL SELECT 'token ' || substr (token, 1, 8) FROM token_groups
             WHERE machine_group = groups.id ORDER BY 1))
            FROM groups ORDER BY name";
        let mut query = self.connection.prepare_cached(select).map_err(&failed)?;
        let rows = query.query_map([], |row| {
            let (machines, operators): (String, String) = (row.get(3)?, row.get(4)?);
            Ok(Group {
                id: row.get(0)?,
                name: row.get(1)?,
                protected: row.get(2)?,
                machines: serde_json::from_str(&machines).unwrap_or_default(),
                operators: serde_json::from_str(&operators).unwrap_or_default(),
            })
        });
        rows.and_then(Iterator::collect).map_err(&failed)
    }

    /// Makes a group; gives its number.
    ///
    /// # Errors
    /// [`StoreError`]: there is one of this name.
    pub fn add_group(&mut self, name: &str, protected: bool, who: &str) -> Result<i64, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let add = "INSERT INTO groups (name, protected, created) VALUES (?1, ?2, ?3)";
            match change.execute(add, params![name, protected, now()]) {
                Err(error) if refused(&error) => return Err(StoreError::GroupTaken { name: name.to_owned() }),
                result => result.map_err(&failed)?,
            };
            let id = change.last_insert_rowid();
            add_event(change, who, "group-new", None, None, name).map_err(&failed)?;
            Ok(id)
        })
    }

    /// Gives a group another name, or protects it, or no longer; nothing leaves it as it is.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such group, or another one of this name.
    pub fn set_group(
        &mut self,
        id: i64,
        name: Option<&str>,
        protected: Option<bool>,
        who: &str,
    ) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let was = group_name(change, id).map_err(&failed)?.ok_or(StoreError::NoGroup { group: id.to_string() })?;
            let set = "UPDATE groups SET name = coalesce(?2, name), protected = coalesce(?3, protected) WHERE id = ?1";
            match change.execute(set, params![id, name, protected]) {
                Err(error) if refused(&error) => {
                    return Err(StoreError::GroupTaken { name: name.unwrap_or_default().to_owned() });
                }
                result => result.map_err(&failed)?,
            };
            let renamed = name.filter(|name| *name != was).map(|name| format!("now {name}"));
            let guarded = protected.map(|yes| if yes { "protected" } else { "not protected" }.to_owned());
            let text: Vec<String> = renamed.into_iter().chain(guarded).collect();
            add_event(change, who, "group-changed", None, None, &format!("{was}: {}", text.join(", "))).map_err(&failed)
        })
    }

    /// Removes a group and its rules; its machines stay.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such group, or a user or a token is limited to it.
    pub fn remove_group(&mut self, id: i64, who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let name = group_name(change, id).map_err(&failed)?;
            let name = name.ok_or(StoreError::NoGroup { group: id.to_string() })?;
            let user = "SELECT name FROM user_groups JOIN users ON users.id = user WHERE machine_group = ?1
                        UNION ALL SELECT 'token ' || substr (token, 1, 8) FROM token_groups WHERE machine_group = ?1 LIMIT 1";
            let user: Option<String> = change.query_row(user, [id], |row| row.get(0)).optional().map_err(&failed)?;
            if let Some(user) = user {
                return Err(StoreError::GroupNeeded { name, user });
            }
            change.execute("DELETE FROM groups WHERE id = ?1", [id]).map_err(&failed)?;
            add_event(change, who, "group-removed", None, None, &name).map_err(&failed)
        })
    }

    /// Puts machines into a group, and takes others out.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such group or machine.
    pub fn set_members(&mut self, id: i64, add: &[i64], remove: &[i64], who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let name = group_name(change, id).map_err(&failed)?;
            let name = name.ok_or(StoreError::NoGroup { group: id.to_string() })?;
            for &machine in add {
                if join_group(change, id, machine).map_err(&failed)?.ok_or(StoreError::NoMachine { machine })? {
                    add_event(change, who, "group-joined", None, Some(machine), &name).map_err(&failed)?;
                }
            }
            for &machine in remove {
                let leave = "DELETE FROM members WHERE machine_group = ?1 AND machine = ?2";
                if change.execute(leave, [id, machine]).map_err(&failed)? > 0 {
                    add_event(change, who, "group-left", None, Some(machine), &name).map_err(&failed)?;
                }
            }
            Ok(())
        })
    }

    /// Accepts all new machines of a group; gives how many there were.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such group.
    pub fn accept_group(&mut self, id: i64, who: &str) -> Result<usize, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            group_name(change, id).map_err(&failed)?.ok_or(StoreError::NoGroup { group: id.to_string() })?;
            let select = "SELECT id FROM machines JOIN members ON machine = id
                          WHERE machine_group = ?1 AND state = 'new' AND forgotten IS NULL";
            let new = numbers(change, select, id).map_err(&failed)?;
            for machine in &new {
                accept(change, *machine, who).map_err(&failed)?;
            }
            Ok(new.len())
        })
    }

    /// The number of the group with this name.
    ///
    /// # Errors
    /// [`StoreError`]: there is none.
    pub fn group_number(&self, name: &str) -> Result<i64, StoreError> {
        let number = self.connection.query_row("SELECT id FROM groups WHERE name = ?1", [name], |row| row.get(0));
        let number = number.optional().map_err(self.failed())?;
        number.ok_or_else(|| StoreError::NoGroup { group: format!("{name:?}") })
    }

    /// The numbers of the accepted machines of the group with this name.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such group.
    pub fn machines_of_group(&self, name: &str) -> Result<Vec<i64>, StoreError> {
        let failed = self.failed();
        let id = self.connection.query_row("SELECT id FROM groups WHERE name = ?1", [name], |row| row.get(0));
        let id: Option<i64> = id.optional().map_err(&failed)?;
        self.accepted_of(id.ok_or(StoreError::NoGroup { group: name.to_owned() })?)
    }

    /// The numbers of the accepted machines of this group.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such group.
    pub fn accepted_of(&self, id: i64) -> Result<Vec<i64>, StoreError> {
        let failed = self.failed();
        let name = group_name(&self.connection, id).map_err(&failed)?;
        name.ok_or(StoreError::NoGroup { group: id.to_string() })?;
        let select = "SELECT id FROM machines JOIN members ON machine = id
                      WHERE machine_group = ?1 AND state = 'accepted' AND forgotten IS NULL ORDER BY id";
        numbers(&self.connection, select, id).map_err(&failed)
    }

    /// These machines, if they may be woken: they are accepted, and in groups that `who` may use.
    ///
    /// # Errors
    /// [`StoreError`]: one of them may not.
    pub fn to_wake(&self, ids: &[i64], who: &Who) -> Result<Vec<Machine>, StoreError> {
        let all = self.machines()?;
        let names: Option<Vec<String>> = match who.limits() {
            None => None,
            Some(limits) => {
                let groups = self.groups()?.into_iter().filter(|group| limits.contains(&group.id));
                Some(groups.map(|group| group.name).collect())
            }
        };
        let find = |&machine: &i64| {
            let row = all.iter().find(|row| row.id == machine).ok_or(StoreError::NoMachine { machine })?;
            let may = names.as_ref().is_none_or(|names| row.groups.iter().any(|group| names.contains(group)));
            match row.state.as_str() {
                "accepted" if may => Ok(row.clone()),
                "accepted" => Err(StoreError::NotYours { machine }),
                _ => Err(StoreError::NotAccepted { machine }),
            }
        };
        ids.iter().map(find).collect()
    }

    /// The same happened to each of these machines.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn machine_events(&mut self, kind: &str, ids: &[i64], text: &str, who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            ids.iter().try_for_each(|id| add_event(change, who, kind, None, Some(*id), text)).map_err(&failed)
        })
    }

    /// Sets what people have written about a machine.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such machine, or it is in no group of an operator that is limited to some.
    pub fn set_note(&mut self, machine: i64, note: &str, who: &Who) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            if let Some(limits) = who.limits() {
                let mine =
                    "SELECT 1 FROM members WHERE machine = ?1 AND machine_group IN (SELECT value FROM json_each(?2))";
                let limits = serde_json::json!(limits).to_string();
                let mine = change.query_row(mine, params![machine, limits], |_| Ok(())).optional().map_err(&failed)?;
                mine.ok_or(StoreError::NotYours { machine })?;
            }
            let set = "UPDATE machines SET note = ?2 WHERE id = ?1 AND forgotten IS NULL";
            if change.execute(set, params![machine, note]).map_err(&failed)? == 0 {
                return Err(StoreError::NoMachine { machine });
            }
            add_event(change, &who.name, "machine-note", None, Some(machine), note).map_err(&failed)
        })
    }

    /// All rules, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn rules(&self) -> Result<Vec<Rule>, StoreError> {
        rules(&self.connection).map_err(self.failed())
    }

    /// Machines that call from `subnet` are accepted from now on and join the group; those that have called from there are at once.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such group, or a rule for the subnet already.
    pub(in crate::serve) fn add_rule(
        &mut self,
        subnet: Subnet,
        group: Option<i64>,
        who: &str,
    ) -> Result<i64, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let name = match group {
                None => String::new(),
                Some(id) => {
                    group_name(change, id).map_err(&failed)?.ok_or(StoreError::NoGroup { group: id.to_string() })?
                }
            };
            let text = subnet.to_string();
            let add = "INSERT INTO rules (subnet, machine_group, created) VALUES (?1, ?2, ?3)";
            match change.execute(add, params![text, group, now()]) {
                Err(error) if refused(&error) => return Err(StoreError::RuleTaken { subnet: text }),
                result => result.map_err(&failed)?,
            };
            let id = change.last_insert_rowid();
            let text = if name.is_empty() { text } else { format!("{text}: {name}") };
            add_event(change, who, "rule-new", None, None, &text).map_err(&failed)?;
            let select = "SELECT id, address FROM machines WHERE state = 'new' AND forgotten IS NULL";
            let mut query = change.prepare(select).map_err(&failed)?;
            let new = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
            let new: Vec<(i64, String)> = new.and_then(Iterator::collect).map_err(&failed)?;
            drop(query);
            new.into_iter().try_for_each(|(id, address)| apply_rules(change, id, &address)).map_err(&failed)?;
            Ok(id)
        })
    }

    /// This rule accepts nobody any longer.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such rule.
    pub fn remove_rule(&mut self, id: i64, who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let subnet = change.query_row("SELECT subnet FROM rules WHERE id = ?1", [id], |row| row.get(0));
            let subnet: Option<String> = subnet.optional().map_err(&failed)?;
            let subnet = subnet.ok_or(StoreError::NoRule { rule: id })?;
            change.execute("DELETE FROM rules WHERE id = ?1", [id]).map_err(&failed)?;
            add_event(change, who, "rule-removed", None, None, &subnet).map_err(&failed)
        })
    }

    /// Limits a user to these groups; none: all may be used.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such user or group.
    pub fn set_user_groups(&mut self, user: i64, groups: &[i64], who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let name = change.query_row("SELECT name FROM users WHERE id = ?1", [user], |row| row.get(0));
            let name: Option<String> = name.optional().map_err(&failed)?;
            let name = name.ok_or(StoreError::NoUser { user })?;
            change.execute("DELETE FROM user_groups WHERE user = ?1", [user]).map_err(&failed)?;
            let mut names = Vec::new();
            for &group in groups {
                let found = group_name(change, group).map_err(&failed)?;
                names.push(found.ok_or(StoreError::NoGroup { group: group.to_string() })?);
                let add = "INSERT OR IGNORE INTO user_groups (user, machine_group) VALUES (?1, ?2)";
                change.execute(add, [user, group]).map_err(&failed)?;
            }
            let all = if names.is_empty() { "all".to_owned() } else { names.join(", ") };
            add_event(change, who, "user-groups", None, None, &format!("{name}: {all}")).map_err(&failed)
        })
    }
}

fn numbers(connection: &Connection, select: &str, id: i64) -> rusqlite::Result<Vec<i64>> {
    connection.prepare_cached(select)?.query_map([id], |row| row.get(0))?.collect()
}

pub(super) fn group_name(connection: &Connection, id: i64) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT name FROM groups WHERE id = ?1", [id], |row| row.get(0)).optional()
}

/// Gives whether the machine was not in the group before; nothing if there is no such machine.
fn join_group(change: &Transaction<'_>, group: i64, machine: i64) -> rusqlite::Result<Option<bool>> {
    let known = "SELECT 1 FROM machines WHERE id = ?1 AND forgotten IS NULL";
    if change.query_row(known, [machine], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let add = "INSERT OR IGNORE INTO members (machine_group, machine) VALUES (?1, ?2)";
    change.execute(add, [group, machine]).map(|rows| Some(rows > 0))
}

fn accept(change: &Transaction<'_>, machine: i64, who: &str) -> rusqlite::Result<()> {
    change.execute("UPDATE machines SET state = 'accepted' WHERE id = ?1", [machine])?;
    add_event(change, who, "machine-accepted", None, Some(machine), "")
}

fn rules(connection: &Connection) -> rusqlite::Result<Vec<Rule>> {
    let select =
        "SELECT rules.id, subnet, groups.id, groups.name FROM rules LEFT JOIN groups ON groups.id = machine_group
                  ORDER BY rules.id";
    let rule = |row: &rusqlite::Row<'_>| {
        let (group, name): (Option<i64>, Option<String>) = (row.get(2)?, row.get(3)?);
        Ok(Rule { id: row.get(0)?, subnet: row.get(1)?, group: group.zip(name) })
    };
    connection.prepare_cached(select)?.query_map([], rule)?.collect()
}

/// A new machine has called from `address`: every rule that fits accepts it, and it joins the group of each.
pub(super) fn apply_rules(change: &Transaction<'_>, machine: i64, address: &str) -> rusqlite::Result<()> {
    let Ok(address) = address.parse::<IpAddr>() else { return Ok(()) };
    let fits = |rule: &Rule| rule.subnet.parse::<Subnet>().is_ok_and(|subnet| subnet.has(address));
    let fit: Vec<Rule> = rules(change)?.into_iter().filter(fits).collect();
    if let Some(first) = fit.first() {
        accept(change, machine, &format!("rule {}", first.subnet))?;
    }
    for rule in &fit {
        let Some((group, name)) = &rule.group else { continue };
        if join_group(change, *group, machine)? == Some(true) {
            add_event(change, &format!("rule {}", rule.subnet), "group-joined", None, Some(machine), name)?;
        }
    }
    Ok(())
}
