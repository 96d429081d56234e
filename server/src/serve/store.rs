//! The database of `serve`: machines, deployments, events and tokens, in one SQLite file under `--state`.
//!
//! A change is durable when the call that makes it returns (write-ahead log, a flush per transaction). The calls wait for the disk, so
//! they are made on the database's own thread: see [`super::database`].

mod boards;
mod booting;
mod deployments;
mod events;
mod groups;
mod rows;
mod schedule;
mod started;
mod users;
mod webhooks;

pub(super) use users::token_name;
pub use webhooks::WebhookRow;

pub use boards::Board;
pub(super) use events::MAX_REMOVED;
pub(super) use started::PATIENCE;
pub use started::{Began, LeftOut};

pub use rows::{
    About, DeploymentRow, EventRow, Group, Machine, NewDeployment, Rule, Seen, Stopped, Token, User, Which, Who,
};

use events::add_event;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use std::fmt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SCHEMA: &str = include_str!("schema.sql");
/// What leads from each version to the next, from version 1 on.
const UPGRADES: [&str; 6] = [
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
    include_str!("schema-7.sql"),
];
/// The version of the schema.
const VERSION: u32 = 7;
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
    /// The link has been used, has ended, or was never made.
    NoInvitation,
    /// A user has this name already.
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is no such user.
    NoUser {
        /// What was asked for.
        user: i64,
    },
    /// It is the only administrator.
    LastAdmin,
    /// There is no such group.
    NoGroup {
        /// What was asked for.
        group: String,
    },
    /// A group has this name already.
    GroupTaken {
        /// The name.
        name: String,
    },
    /// A user or a token is limited to this group.
    GroupNeeded {
        /// The group.
        name: String,
        /// The user, or the token.
        user: String,
    },
    /// There is a rule for this subnet already.
    RuleTaken {
        /// The subnet.
        subnet: String,
    },
    /// There is no such rule.
    NoRule {
        /// What was asked for.
        rule: i64,
    },
    /// The machine is in no group of the one who asks.
    NotYours {
        /// The machine.
        machine: i64,
    },
    /// There is no such deployment, or it does not wait for a second person.
    NothingToConfirm {
        /// What was asked for.
        deployment: String,
    },
    /// All machines of the deployment have their image, or it is not over.
    NothingFailed {
        /// What was asked for.
        deployment: String,
    },
    /// There are as many webhooks as there may be.
    TooManyWebhooks {
        /// How many.
        most: usize,
    },
    /// Whoever asked for a deployment can't be the second person.
    SamePerson {
        /// The name.
        name: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database { path, source } => {
                write!(f, "using the database {}", path.display())?;
                hint(source).map_or(Ok(()), |hint| write!(f, " ({hint})"))
            }
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
            Self::NoInvitation => {
                f.write_str("this link has been used or is no longer valid; an administrator can make a new one")
            }
            Self::NameTaken { name } => write!(f, "there is a user {name:?} already; choose another name"),
            Self::NoUser { user } => write!(f, "there is no user {user}"),
            Self::NoGroup { group } => write!(f, "there is no group {group}"),
            Self::GroupTaken { name } => write!(f, "there is a group {name:?} already; choose another name"),
            Self::GroupNeeded { name, user } => {
                write!(
                    f,
                    "{user} is limited to the group {name}; give that user other groups, or remove that token, first"
                )
            }
            Self::RuleTaken { subnet } => write!(f, "there is a rule for {subnet} already; remove that one first"),
            Self::NoRule { rule } => write!(f, "there is no rule {rule}"),
            Self::NotYours { machine } => {
                write!(f, "machine {machine} is in none of your groups; an administrator decides about those")
            }
            Self::NothingToConfirm { deployment } => {
                write!(f, "deployment {deployment} does not wait for a second person")
            }
            Self::NothingFailed { deployment } => {
                write!(f, "deployment {deployment} is not over, or all its machines have their image")
            }
            Self::TooManyWebhooks { most } => write!(f, "there are {most} webhooks already; remove one first"),
            Self::SamePerson { name } => {
                write!(
                    f,
                    "{name} asked for this deployment; a machine of it is in a protected group, and another person has to confirm it"
                )
            }
            Self::LastAdmin => f.write_str("this is the last administrator; make another user an administrator first"),
        }
    }
}

/// What somebody can do about it.
fn hint(error: &rusqlite::Error) -> Option<&'static str> {
    Some(match error.sqlite_error_code()? {
        ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => {
            "restore a copy of it, or move it away: the server then begins with an empty one"
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "another program has locked it; end that one",
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            "make the file and its folder writable for this program"
        }
        ErrorCode::DiskFull => "make space on its disk",
        _ => return None,
    })
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
    pub(super) connection: Connection,
}

pub(super) fn now() -> i64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Makes the file if it is not there: it has secrets, and the files that SQLite puts beside it get the same mode. If that fails, SQLite says why.
///
/// The file is closed before SQLite opens it: closing it later would drop the locks that this process has on it (fcntl(2)).
fn make_private(path: &Path) {
    drop(std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path));
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
        make_private(&path);
        let mut connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        // Whoever comes second waits here, and then finds the tables.
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let version: u32 = change.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if version > VERSION {
            return Err(StoreError::Newer { path, version });
        }
        for step in [SCHEMA].iter().chain(&UPGRADES).skip(version as usize) {
            change.execute_batch(step).map_err(failed)?;
        }
        change.execute_batch(webhooks::TABLE).map_err(failed)?;
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
                    add_event(change, "", "machine-new", None, Some(id), &seen.address).map_err(&failed)?;
                    id
                }
            };
            for mac in &seen.hardware {
                let add = "INSERT INTO cards (mac, machine) VALUES (?1, ?2) ON CONFLICT (mac) DO NOTHING";
                change.execute(add, params![mac, id]).map_err(&failed)?;
            }
            let state: String =
                change.query_row("SELECT state FROM machines WHERE id = ?1", [id], |row| row.get(0)).map_err(&failed)?;
            if state == "new" {
                groups::apply_rules(change, id, &seen.address).map_err(&failed)?;
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
                      (SELECT json_group_array(mac) FROM (SELECT mac FROM cards WHERE machine = machines.id ORDER BY mac)),
                      got.image, got.at, note,
                      (SELECT json_group_array(name) FROM (SELECT groups.name FROM members JOIN groups ON groups.id = machine_group
                       WHERE machine = machines.id ORDER BY groups.name))
                      FROM machines LEFT JOIN (
                          SELECT events.machine, deployments.image, events.at, max(events.id)
                          FROM events JOIN deployments ON deployments.id = events.deployment
                          WHERE events.kind = 'node' AND events.text LIKE '%: done' GROUP BY events.machine
                      ) AS got ON got.machine = machines.id
                      WHERE forgotten IS NULL ORDER BY machines.id";
        let mut query = self.connection.prepare_cached(select).map_err(&failed)?;
        let rows = query.query_map([], |row| {
            let (disks, hardware, groups): (String, String, String) = (row.get(5)?, row.get(9)?, row.get(13)?);
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
                holds: row.get(10)?,
                holds_since: row.get(11)?,
                note: row.get(12)?,
                groups: serde_json::from_str(&groups).unwrap_or_default(),
            })
        });
        rows.and_then(Iterator::collect).map_err(&failed)
    }

    /// From now on this machine may take part in deployments.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such machine, or the database refuses.
    pub fn accept(&mut self, machine: i64, who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let set = "UPDATE machines SET state = 'accepted' WHERE id = ?1 AND forgotten IS NULL";
            if change.execute(set, [machine]).map_err(&failed)? == 0 {
                return Err(StoreError::NoMachine { machine });
            }
            add_event(change, who, "machine-accepted", None, Some(machine), "").map_err(&failed)
        })
    }

    /// This machine is not known any more: if it calls again, it is a new one. What happened to it is kept.
    ///
    /// # Errors
    /// [`StoreError`]: there is no such machine, it is in a deployment, or the database refuses.
    pub fn forget(&mut self, machine: i64, who: &str) -> Result<(), StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let in_use = "SELECT 1 FROM targets WHERE machine = ?1 AND active = 1";
            if change.query_row(in_use, [machine], |_| Ok(())).optional().map_err(&failed)?.is_some() {
                return Err(StoreError::InUse { machine });
            }
            let set = "UPDATE machines SET state = 'new', forgotten = ?2 WHERE id = ?1 AND forgotten IS NULL";
            if change.execute(set, [machine, now()]).map_err(&failed)? == 0 {
                return Err(StoreError::NoMachine { machine });
            }
            change.execute("DELETE FROM cards WHERE machine = ?1", [machine]).map_err(&failed)?;
            change.execute("DELETE FROM members WHERE machine = ?1", [machine]).map_err(&failed)?;
            change.execute("DELETE FROM boards WHERE machine = ?1", [machine]).map_err(&failed)?;
            add_event(change, who, "machine-forgotten", None, Some(machine), "").map_err(&failed)
        })
    }
}
