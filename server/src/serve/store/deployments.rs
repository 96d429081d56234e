//! Deployments, from the request to the report.

use super::events::add_event;
use super::schedule::{IS_DUE, STOPPED};
use super::{DeploymentRow, NewDeployment, Stopped, Store, StoreError, Which, Who, now};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
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

    /// Keeps a deployment that was asked for, or all waves of one. With a machine of a protected group all wait for a second person.
    ///
    /// # Errors
    /// [`StoreError`]: a machine is unknown, not accepted, in use, or in no group of an operator that is limited to some.
    pub fn add_deployments(&mut self, waves: &[NewDeployment<'_>], who: &Who) -> Result<(), StoreError> {
        let failed = self.failed();
        let Some(first) = waves.first() else { return Ok(()) };
        let series = (waves.len() > 1).then_some(first.id);
        self.change(|change| {
            waves.iter().try_for_each(|new| add(change, new, series, who, &failed))?;
            let protect = "UPDATE deployments SET needs_second = 1 WHERE (id = ?1 OR series = ?1) AND EXISTS
                (SELECT 1 FROM deployments AS one JOIN targets ON targets.deployment = one.id JOIN members USING (machine)
                 JOIN groups ON groups.id = machine_group WHERE (one.id = ?1 OR one.series = ?1) AND protected = 1)";
            change.execute(protect, [first.id]).map_err(&failed)?;
            Ok(())
        })
    }

    /// A second person agrees to this deployment, and to all waves of it.
    ///
    /// # Errors
    /// [`StoreError`]: it waits for nobody, or for somebody else.
    pub fn confirm(&mut self, id: &str, who: &Who) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let series = "SELECT id FROM deployments
                          WHERE id = ?1 OR series = (SELECT series FROM deployments WHERE id = ?1)";
            let mut query = change.prepare(series).map_err(&failed)?;
            let waves: Vec<String> =
                query.query_map([id], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)?;
            waves.iter().try_for_each(|wave| may_use(change, wave, who).map_err(&failed)?)?;
            let asked = "SELECT asked_by FROM deployments
                         WHERE id = ?1 AND state = 'active' AND stop = 0 AND needs_second = 1 AND confirmed_by IS NULL";
            let asked: Option<String> = change.query_row(asked, [id], |row| row.get(0)).optional().map_err(&failed)?;
            let asked = asked.ok_or_else(|| StoreError::NothingToConfirm { deployment: id.to_owned() })?;
            if asked == who.name {
                return Err(StoreError::SamePerson { name: asked });
            }
            let set = "UPDATE deployments SET confirmed_by = ?2 WHERE needs_second = 1 AND confirmed_by IS NULL AND
                       (id = ?1 OR series = (SELECT series FROM deployments WHERE id = ?1))";
            change.execute(set, params![id, who.name]).map_err(&failed)?;
            add_event(change, &who.name, "deployment-confirmed", Some(id), None, "").map_err(&failed)
        })
    }

    /// The hardware addresses of a deployment's machines.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn hardware_of(&self, id: &str) -> Result<Vec<String>, StoreError> {
        hardware(&self.connection, id).map_err(self.failed())
    }

    /// Takes a deployment that waits for nothing outside the service any longer: it is to be given to the service now. Gives it with the hardware
    /// addresses of its machines, or nothing if it is not to begin, or has.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn release(&mut self, id: &str) -> Result<Option<(DeploymentRow, Vec<String>)>, StoreError> {
        let set = format!("UPDATE deployments SET released = 1, begin_by = ?1 + patience WHERE id = ?2 AND {IS_DUE}");
        if self.connection.execute(&set, params![now(), id]).map_err(self.failed())? == 0 {
            return Ok(None);
        }
        let row = self.deployments(Which::One(id))?.pop();
        row.map(|row| self.hardware_of(id).map(|hardware| (row, hardware))).transpose()
    }

    /// Somebody wants this deployment stopped. One that the service does not have yet is over with that.
    ///
    /// # Errors
    /// [`StoreError`]: a machine of it is in no group of an operator that is limited to some.
    pub fn stop(&mut self, id: &str, who: &Who) -> Result<Stopped, StoreError> {
        let failed = self.failed();
        let stopped = self.change(|change| {
            may_use(change, id, who).map_err(&failed)??;
            let set = "UPDATE deployments SET stop = 1 WHERE id = ?1 AND state = 'active' RETURNING released";
            let released: Option<bool> = change.query_row(set, [id], |row| row.get(0)).optional().map_err(&failed)?;
            let Some(released) = released else { return Ok(Stopped::Nothing) };
            add_event(change, &who.name, "deployment-stopped", Some(id), None, "").map_err(&failed)?;
            Ok(if released { Stopped::Released } else { Stopped::Over })
        })?;
        if stopped == Stopped::Over {
            self.end(id, 1, None, STOPPED)?;
        }
        Ok(stopped)
    }

    /// Whether this deployment is to be stopped.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn is_to_stop(&self, id: &str) -> Result<bool, StoreError> {
        let select = "SELECT stop FROM deployments WHERE id = ?1";
        let stop = self.connection.query_row(select, [id], |row| row.get(0)).optional();
        stop.map(Option::unwrap_or_default).map_err(self.failed())
    }

    /// This deployment is over.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn end(&mut self, id: &str, code: u8, report: Option<&Value>, detail: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        let report = report.map(Value::to_string);
        self.change(|change| {
            let set = "UPDATE deployments SET state = 'over', exit_code = ?2, report = ?3, detail = ?4, ended = ?5,
                       failed = (SELECT count (*) FROM targets WHERE deployment = ?1 AND NOT EXISTS
                           (SELECT 1 FROM events WHERE events.deployment = ?1 AND events.machine = targets.machine
                            AND kind = 'node' AND (text LIKE '%: done' OR text LIKE '%: written')))
                       WHERE id = ?1 AND state = 'active'";
            change.execute(set, params![id, code, report, detail, now()]).map_err(&failed)?;
            change.execute("UPDATE targets SET active = 0 WHERE deployment = ?1", [id]).map_err(&failed)?;
            add_event(change, "", "deployment-over", Some(id), None, &format!("exit code {code}")).map_err(&failed)
        })
    }

    /// Deployments, the newest first: a thousand of all, every active one, or the one with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn deployments(&self, which: Which<'_>) -> Result<Vec<DeploymentRow>, StoreError> {
        let failed = self.failed();
        let (filter, id, limit) = match which {
            Which::All => ("1", "", 1000),
            Which::Active => ("state = 'active'", "", -1),
            Which::One(id) => ("id = ?1", id, 1),
            Which::Before(id) => {
                ("(created, rowid) < (SELECT created, rowid FROM deployments WHERE id = ?1)", id, 1000)
            }
        };
        let select = format!(
            "SELECT id, image, wishes, state, stop, exit_code, report, detail, created, ended, started, asked_by, needs_second,
             confirmed_by, released, start_at, start_zone, wave, waves, series, failed, left_out, (SELECT json_group_array(machine) FROM (SELECT machine FROM targets WHERE deployment = deployments.id ORDER BY machine))
             FROM deployments WHERE ({filter}) AND ?1 = ?1 ORDER BY created DESC, rowid DESC LIMIT {limit}"
        );
        let mut query = self.connection.prepare_cached(&select).map_err(&failed)?;
        let rows = query.query_map([id], |row| {
            let (report, left_out, machines): (Option<String>, String, String) =
                (row.get(6)?, row.get(21)?, row.get(22)?);
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
                asked_by: row.get(11)?,
                needs_second: row.get(12)?,
                confirmed_by: row.get(13)?,
                released: row.get(14)?,
                start_at: row.get(15)?,
                start_zone: row.get(16)?,
                wave: row.get(17)?,
                waves: row.get(18)?,
                series: row.get(19)?,
                failed: row.get(20)?,
                left_out: serde_json::from_str(&left_out).unwrap_or_default(),
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

/// Whether all machines of a deployment are in groups that `who` may use.
pub(super) fn may_use(connection: &Connection, id: &str, who: &Who) -> rusqlite::Result<Result<(), StoreError>> {
    let Some(groups) = who.limits() else { return Ok(Ok(())) };
    let foreign = "SELECT machine FROM targets WHERE deployment = ?1 AND NOT EXISTS
        (SELECT 1 FROM members WHERE members.machine = targets.machine
         AND machine_group IN (SELECT value FROM json_each(?2))) ORDER BY machine LIMIT 1";
    let groups = Value::from(groups).to_string();
    let machine = connection.query_row(foreign, params![id, groups], |row| row.get(0)).optional()?;
    Ok(machine.map_or(Ok(()), |machine| Err(StoreError::NotYours { machine })))
}

/// Keeps one deployment with its machines.
fn add(
    change: &Transaction<'_>,
    new: &NewDeployment<'_>,
    series: Option<&str>,
    who: &Who,
    failed: &impl Fn(rusqlite::Error) -> StoreError,
) -> Result<(), StoreError> {
    let NewDeployment { id, image, wishes, machines, key, start, grace, patience, wave: (wave, waves, max_failed) } =
        *new;
    let add = "INSERT INTO deployments (id, image, wishes, state, created, idempotency_key, asked_by, start_at, start_zone, grace,
                   series, wave, waves, max_failed, patience)
               VALUES (?1, ?2, ?3, 'active', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    let (at, zone) = start.map_or((None, ""), |(at, zone)| (Some(at), zone));
    let name = &who.name;
    let values =
        params![id, image, wishes, now(), key, name, at, zone, grace, series, wave, waves, max_failed, patience];
    change.execute(add, values).map_err(failed)?;
    for &machine in machines {
        let select = "SELECT state FROM machines WHERE id = ?1 AND forgotten IS NULL";
        let state = change.query_row(select, [machine], |row| row.get(0)).optional();
        let state: Option<String> = state.map_err(failed)?;
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
            result => result.map_err(failed)?,
        };
    }
    may_use(change, id, who).map_err(failed)??;
    add_event(change, &who.name, "deployment-accepted", Some(id), None, image).map_err(failed)
}
