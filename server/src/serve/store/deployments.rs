//! Deployments, from the request to the report.

use super::events::add_event;
use super::{DeploymentRow, Store, StoreError, Which, now};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde_json::Value;

impl Store {
    /// The deployment that was asked for with this key.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn by_idempotency_key(&self, key: &str) -> Result<Option<String>, StoreError> {
        let select = "SELECT id FROM deployments WHERE idempotency_key = ?1";
        let found = self.connection.query_row(select, [key], |row| row.get(0)).optional();
        found.map_err(self.failed())
    }

    /// Keeps a deployment that was asked for; gives the hardware addresses of its machines.
    ///
    /// # Errors
    /// [`StoreError`]: a machine is unknown, not accepted or in use.
    pub fn add_deployment(
        &mut self,
        id: &str,
        image: &str,
        wishes: &str,
        machines: &[i64],
        key: Option<&str>,
        who: &str,
    ) -> Result<Vec<String>, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let add = "INSERT INTO deployments (id, image, wishes, state, created, idempotency_key)
                       VALUES (?1, ?2, ?3, 'active', ?4, ?5)";
            change.execute(add, params![id, image, wishes, now(), key]).map_err(&failed)?;
            for &machine in machines {
                let select = "SELECT state FROM machines WHERE id = ?1";
                let state = change.query_row(select, [machine], |row| row.get(0)).optional();
                let state: Option<String> = state.map_err(&failed)?;
                match state.as_deref() {
                    None => return Err(StoreError::NoMachine { machine }),
                    Some("accepted") => {}
                    Some(_) => return Err(StoreError::NotAccepted { machine }),
                }
                let add = "INSERT INTO targets (deployment, machine, active) VALUES (?1, ?2, 1)";
                match change.execute(add, params![id, machine]) {
                    Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                        return Err(StoreError::InUse { machine });
                    }
                    result => result.map_err(&failed)?,
                };
            }
            add_event(change, who, "deployment-accepted", Some(id), None, image).map_err(&failed)?;
            hardware(change, id).map_err(&failed)
        })
    }

    /// The hardware addresses of a deployment's machines.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn hardware_of(&self, id: &str) -> Result<Vec<String>, StoreError> {
        hardware(&self.connection, id).map_err(self.failed())
    }

    /// Somebody wants this deployment stopped. Gives whether it is active.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn stop(&mut self, id: &str, who: &str) -> Result<bool, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let set = "UPDATE deployments SET stop = 1 WHERE id = ?1 AND state = 'active'";
            let active = change.execute(set, [id]).map_err(&failed)? > 0;
            if active {
                add_event(change, who, "deployment-stopped", Some(id), None, "").map_err(&failed)?;
            }
            Ok(active)
        })
    }

    /// The plan of this deployment is fixed: from now on it is not begun anew.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn on_started(&mut self, id: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let set = "UPDATE deployments SET started = 1 WHERE id = ?1 AND state = 'active' AND started = 0";
            match change.execute(set, [id]).map_err(&failed)? {
                0 => Ok(()),
                _ => add_event(change, "", "deployment-started", Some(id), None, "").map_err(&failed),
            }
        })
    }

    /// This deployment is over.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn end(&mut self, id: &str, code: u8, report: Option<&Value>, detail: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        let report = report.map(Value::to_string);
        self.change(|change| {
            let set = "UPDATE deployments SET state = 'over', exit_code = ?2, report = ?3, detail = ?4, ended = ?5
                       WHERE id = ?1 AND state = 'active'";
            change.execute(set, params![id, code, report, detail, now()]).map_err(&failed)?;
            change.execute("UPDATE targets SET active = 0 WHERE deployment = ?1", [id]).map_err(&failed)?;
            add_event(change, "", "deployment-over", Some(id), None, &format!("exit code {code}")).map_err(&failed)
        })
    }

    /// Deployments, the newest first: all, the active ones, or the one with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn deployments(&self, which: Which<'_>) -> Result<Vec<DeploymentRow>, StoreError> {
        let failed = self.failed();
        let (filter, id) = match which {
            Which::All => ("1", ""),
            Which::Active => ("state = 'active'", ""),
            Which::One(id) => ("id = ?1", id),
            Which::Before(id) => ("(created, rowid) < (SELECT created, rowid FROM deployments WHERE id = ?1)", id),
        };
        let select = format!(
            "SELECT id, image, wishes, state, stop, exit_code, report, detail, created, ended, started,
             (SELECT json_group_array(machine) FROM (SELECT machine FROM targets WHERE deployment = deployments.id ORDER BY machine))
             FROM deployments WHERE ({filter}) AND ?1 = ?1 ORDER BY created DESC, rowid DESC LIMIT 1000"
        );
        let mut query = self.connection.prepare_cached(&select).map_err(&failed)?;
        let rows = query.query_map([id], |row| {
            let (report, machines): (Option<String>, String) = (row.get(6)?, row.get(11)?);
            Ok(DeploymentRow {
                id: row.get(0)?,
                image: row.get(1)?,
                wishes: row.get(2)?,
                state: row.get(3)?,
                started: row.get(10)?,
                stop: row.get(4)?,
                exit_code: row.get(5)?,
                report: report.and_then(|report| serde_json::from_str(&report).ok()),
                detail: row.get(7)?,
                created: row.get(8)?,
                ended: row.get(9)?,
                machines: serde_json::from_str(&machines).unwrap_or_default(),
            })
        });
        rows.and_then(Iterator::collect).map_err(&failed)
    }
}

fn hardware(connection: &Connection, id: &str) -> rusqlite::Result<Vec<String>> {
    let select = "SELECT mac FROM cards JOIN targets USING (machine) WHERE deployment = ?1";
    connection.prepare_cached(select)?.query_map([id], |row| row.get(0))?.collect()
}
