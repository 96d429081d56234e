//! The database of `serve`: machines, deployments, events and tokens, in one SQLite file under `--state`.
//!
//! A change is durable when the call that makes it returns (write-ahead log, a flush per transaction). The calls wait for the disk, so
//! they are made on the database's own thread: see [`super::database`].

mod events;
mod rows;
mod users;

pub use rows::{DeploymentRow, EventRow, Machine, Seen, Which};

use events::add_event;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SCHEMA: &str = include_str!("schema.sql");
/// The version of the schema.
const VERSION: u32 = 1;
/// How long another program that writes, such as `token new`, is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Why the database can't be used, or refuses a change.
#[derive(Debug)]
pub enum StoreError {
    /// Opening or reading it failed.
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A later version of this program has made it.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The state folder can't be made.
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The machine is in an active deployment already.
    InUse {
        /// The machine.
        machine: i64,
    },
    /// There is no such machine.
    NoMachine {
        /// What was asked for.
        machine: i64,
    },
    /// The machine was not accepted.
    NotAccepted {
        /// The machine.
        machine: i64,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database { path, .. } => write!(f, "using the database {}", path.display()),
            Self::Newer { path, version } => write!(
                f,
                "{} has version {version}, and this program knows version {VERSION}: a later slidecast has used it; install that one",
                path.display()
            ),
            Self::Folder { path, .. } => write!(f, "creating the state folder {}", path.display()),
            Self::InUse { machine } => {
                write!(f, "machine {machine} is in an active deployment; stop that, or wait for its end")
            }
            Self::NoMachine { machine } => write!(f, "there is no machine {machine}"),
            Self::NotAccepted { machine } => write!(f, "machine {machine} is not accepted yet"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database { source, .. } => Some(source),
            Self::Folder { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The database.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
}

fn now() -> i64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

impl Store {
    /// Opens the database in the state folder `state`; makes both if they are not there.
    ///
    /// # Errors
    /// [`StoreError`]: the folder or the file can't be used, or a later version has made it.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let folder = |source| StoreError::Folder { path: state.to_owned(), source };
        std::fs::create_dir_all(state).map_err(folder)?;
        let path = state.join("slidecast.db");
        let failed = |source| StoreError::Database { path: path.clone(), source };
        let mut connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        // Whoever comes second waits here, and then finds the tables.
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let version: u32 = change.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        match version {
            0 => change.execute_batch(SCHEMA).map_err(failed)?,
            VERSION => {}
            version => return Err(StoreError::Newer { path, version }),
        }
        change.commit().map_err(failed)?;
        Ok(Self { path, connection })
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::Database { path: path.clone(), source }
    }

    fn change<T>(&mut self, what: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let failed = self.failed();
        let change = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let done = what(&change)?;
        change.commit().map_err(&failed)?;
        Ok(done)
    }

    /// A machine has called: gives its number. One that has none of its hardware addresses in common with another is new.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn on_machine(&mut self, seen: &Seen) -> Result<i64, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let mut known = None;
            for mac in &seen.hardware {
                let machine = change.query_row("SELECT machine FROM cards WHERE mac = ?1", [mac], |row| row.get(0));
                let machine: Option<i64> = machine.optional().map_err(&failed)?;
                known = known.or(machine);
            }
            let disks = seen.disks.to_string();
            let id = match known {
                Some(id) => {
                    let set = "UPDATE machines SET name = ?2, address = ?3, interface = ?4, disks = ?5, last_seen = ?6 WHERE id = ?1";
                    let values = params![id, seen.name, seen.address, seen.interface, disks, now()];
                    change.execute(set, values).map_err(&failed)?;
                    id
                }
                None => {
                    let add = "INSERT INTO machines (name, state, address, interface, disks, first_seen, last_seen)
                               VALUES (?1, 'new', ?2, ?3, ?4, ?5, ?5)";
                    let values = params![seen.name, seen.address, seen.interface, disks, now()];
                    change.execute(add, values).map_err(&failed)?;
                    let id = change.last_insert_rowid();
                    add_event(change, "machine-new", None, Some(id), &seen.address).map_err(&failed)?;
                    id
                }
            };
            for mac in &seen.hardware {
                let add = "INSERT INTO cards (mac, machine) VALUES (?1, ?2) ON CONFLICT (mac) DO NOTHING";
                change.execute(add, params![mac, id]).map_err(&failed)?;
            }
            Ok(id)
        })
    }

    /// All machines by number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn machines(&self) -> Result<Vec<Machine>, StoreError> {
        let failed = self.failed();
        let select = "SELECT id, name, state, address, interface, disks, first_seen, last_seen,
                      (SELECT deployment FROM targets WHERE machine = machines.id AND active = 1),
                      (SELECT json_group_array(mac) FROM (SELECT mac FROM cards WHERE machine = machines.id ORDER BY mac))
                      FROM machines ORDER BY id";
        let mut query = self.connection.prepare_cached(select).map_err(&failed)?;
        let rows = query.query_map([], |row| {
            let (disks, hardware): (String, String) = (row.get(5)?, row.get(9)?);
            Ok(Machine {
                id: row.get(0)?,
                name: row.get(1)?,
                state: row.get(2)?,
                hardware: serde_json::from_str(&hardware).unwrap_or_default(),
                address: row.get(3)?,
                interface: row.get(4)?,
                disks: serde_json::from_str(&disks).unwrap_or_default(),
                first_seen: row.get(6)?,
                last_seen: row.get(7)?,
                deployment: row.get(8)?,
            })
        });
        rows.and_then(Iterator::collect).map_err(&failed)
    }

    /// From now on this machine may take part in deployments.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such machine, or the database refuses.
    pub fn accept(&mut self, machine: i64) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let set = "UPDATE machines SET state = 'accepted' WHERE id = ?1";
            if change.execute(set, [machine]).map_err(&failed)? == 0 {
                return Err(StoreError::NoMachine { machine });
            }
            add_event(change, "machine-accepted", None, Some(machine), "").map_err(&failed)
        })
    }

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
            add_event(change, "deployment-accepted", Some(id), None, image).map_err(&failed)?;
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
    pub fn stop(&mut self, id: &str) -> Result<bool, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let set = "UPDATE deployments SET stop = 1 WHERE id = ?1 AND state = 'active'";
            let active = change.execute(set, [id]).map_err(&failed)? > 0;
            if active {
                add_event(change, "deployment-stopped", Some(id), None, "").map_err(&failed)?;
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
                _ => add_event(change, "deployment-started", Some(id), None, "").map_err(&failed),
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
            add_event(change, "deployment-over", Some(id), None, &format!("exit code {code}")).map_err(&failed)
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
