//! What begins by itself and when, and what is called off.

use super::events::add_event;
use super::{DeploymentRow, Store, StoreError, Which, Who, now};
use crate::serve::starting::in_zone;
use rusqlite::{OptionalExtension, params};

/// Why a deployment is over that the service never had.
pub(super) const STOPPED: &str = "it was stopped before it began";

/// A deployment that the service may have. `?1` is the time.
pub(super) const IS_DUE: &str = "state = 'active' AND released = 0 AND stop = 0
    AND (needs_second = 0 OR confirmed_by IS NOT NULL) AND (start_at IS NULL OR start_at BETWEEN ?1 - grace AND ?1)
    AND (wave = 1 OR EXISTS (SELECT 1 FROM deployments AS before WHERE before.series = deployments.series
                             AND before.wave = deployments.wave - 1 AND before.state = 'over'))";

impl Store {
    /// The deployments that may begin now, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn due(&self) -> Result<Vec<String>, StoreError> {
        let failed = self.failed();
        let select = format!("SELECT id FROM deployments WHERE {IS_DUE} ORDER BY coalesce(start_at, created), rowid");
        let mut query = self.connection.prepare_cached(&select).map_err(&failed)?;
        query.query_map([now()], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)
    }

    /// In how many seconds the next deployment begins by itself, or with the machines that are ready then.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn next_start(&self) -> Result<Option<i64>, StoreError> {
        let select = "SELECT min(CASE released WHEN 0 THEN start_at ELSE begin_by END) FROM deployments
            WHERE state = 'active' AND started = 0 AND CASE released WHEN 0 THEN start_at ELSE begin_by END > ?1";
        let next: Option<i64> = self.connection.query_row(select, [now()], |row| row.get(0)).map_err(self.failed())?;
        Ok(next.map(|at| at.saturating_sub(now())))
    }

    /// Ends what can't begin any longer: what was stopped before it began (the server may have been killed between the two), starts that
    /// were missed, and waves after one that never began or in which too many failed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn call_off(&mut self) -> Result<(), StoreError> {
        let failed = self.failed();
        let stopped = "SELECT id FROM deployments WHERE state = 'active' AND released = 0 AND stop = 1 AND ?1 = ?1";
        for id in self.ids(stopped, 0)? {
            self.end(&id, 1, None, STOPPED)?;
        }
        let late = "SELECT id FROM deployments WHERE state = 'active' AND released = 0 AND start_at + grace < ?1";
        for id in self.ids(late, now())? {
            let Some(row) = self.deployments(Which::One(&id))?.pop() else { continue };
            let at = in_zone(row.start_at.unwrap_or_default(), &row.start_zone);
            let why = match row.is_unconfirmed() {
                true => format!("it was to begin at {at}, and no second person had confirmed it"),
                false => format!(
                    "it was to begin at {at}; the server was not running then and came back too late to begin it"
                ),
            };
            add_event(&self.connection, "", "deployment-missed", Some(&id), None, &why).map_err(&failed)?;
            self.end(&id, 1, None, &why)?;
        }
        let after = "SELECT id FROM deployments WHERE state = 'active' AND released = 0 AND wave > 1 AND ?1 = ?1
            AND EXISTS (SELECT 1 FROM deployments AS before WHERE before.series = deployments.series
                AND before.wave < deployments.wave AND before.state = 'over'
                GROUP BY before.series HAVING max(before.stop) = 1 OR min(before.released) = 0
                    OR sum(before.failed) > deployments.max_failed)
            ORDER BY wave";
        for id in self.ids(after, 0)? {
            let Some(row) = self.deployments(Which::One(&id))?.pop() else { continue };
            let why = self.why_called_off(&row)?;
            add_event(&self.connection, "", "wave-called-off", Some(&id), None, &why).map_err(&failed)?;
            self.end(&id, 1, None, &why)?;
        }
        Ok(())
    }

    fn why_called_off(&self, row: &DeploymentRow) -> Result<String, StoreError> {
        let select = "SELECT max(stop), min(released), sum(failed) FROM deployments WHERE series = ?1 AND wave < ?2 AND state = 'over'";
        let (stop, begun, sum): (bool, bool, i64) = self
            .connection
            .query_row(select, params![row.series, row.wave], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(self.failed())?;
        Ok(match (stop, begun) {
            (true, _) => "a wave before it was stopped".to_owned(),
            (false, false) => "a wave before it never began".to_owned(),
            (false, true) => {
                format!("in the waves before it {sum} machines did not get the image, which is more than may fail")
            }
        })
    }

    fn ids(&self, select: &str, value: i64) -> Result<Vec<String>, StoreError> {
        let failed = self.failed();
        let mut query = self.connection.prepare_cached(select).map_err(&failed)?;
        query.query_map([value], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)
    }

    /// This deployment waits no longer: not for its time, and not for more machines than are ready. Gives whether the service has it already.
    ///
    /// # Errors
    /// [`StoreError`]: a machine of it is in no group of an operator that is limited to some.
    pub fn hurry(&mut self, id: &str, who: &Who) -> Result<bool, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            super::deployments::may_use(change, id, who).map_err(&failed)??;
            let set = "UPDATE deployments SET start_at = CASE WHEN released = 1 THEN start_at END,
                       patience = 0, begin_by = CASE WHEN released = 1 THEN ?2 END
                       WHERE id = ?1 AND state = 'active' AND started = 0 RETURNING released";
            let released = change.query_row(set, params![id, now()], |row| row.get(0));
            let released: Option<bool> = released.optional().map_err(&failed)?;
            if released.is_some() {
                add_event(change, &who.name, "deployment-hurried", Some(id), None, "").map_err(&failed)?;
            }
            Ok(released.unwrap_or_default())
        })
    }

    /// The machines of a deployment that is over and did not give them its image; those that were forgotten are left out.
    ///
    /// # Errors
    /// [`StoreError`]: there are none.
    pub fn failed_machines(&self, id: &str) -> Result<Vec<i64>, StoreError> {
        let failed = self.failed();
        let select = "SELECT machine FROM targets JOIN machines ON machines.id = machine JOIN deployments ON deployments.id = deployment
            WHERE deployment = ?1 AND deployments.state = 'over' AND forgotten IS NULL AND NOT EXISTS
                (SELECT 1 FROM events WHERE events.deployment = ?1 AND events.machine = targets.machine
                 AND kind = 'node' AND (text LIKE '%: done' OR text LIKE '%: written')) ORDER BY machine";
        let mut query = self.connection.prepare_cached(select).map_err(&failed)?;
        let machines: Vec<i64> =
            query.query_map([id], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)?;
        match machines.is_empty() {
            true => Err(StoreError::NothingFailed { deployment: id.to_owned() }),
            false => Ok(machines),
        }
    }
}
