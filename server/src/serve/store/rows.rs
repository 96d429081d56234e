//! What the database holds, row by row.

use serde::Serialize;
use serde_json::Value;

/// A machine, as it was last seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Its number.
    pub id: i64,
    /// Its host name.
    pub name: String,
    /// `new` or `accepted`.
    pub state: String,
    /// The hardware addresses by which it is known.
    pub hardware: Vec<String>,
    /// Where it called from last.
    pub address: String,
    /// The server's card that it came in on.
    pub interface: String,
    /// Its disks.
    pub disks: Value,
    /// When it came first, in seconds since 1970.
    pub first_seen: i64,
    /// When it came last.
    pub last_seen: i64,
    /// The active deployment that has it.
    pub deployment: Option<String>,
}

/// What an agent says of its machine.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its host name, fit to show.
    pub name: String,
    /// Hardware addresses of its cards.
    pub hardware: Vec<String>,
    /// Where it calls from.
    pub address: String,
    /// The server's card that it came in on.
    pub interface: String,
    /// Its disks.
    pub disks: Value,
}

/// A deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentRow {
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// The name of its image.
    pub image: String,
    /// What was asked for, as JSON.
    pub wishes: String,
    /// `active` or `over`.
    pub state: String,
    /// Its plan was fixed: machines may have been written to.
    pub started: bool,
    /// It is to be stopped.
    pub stop: bool,
    /// How it ended, as an exit code of `deploy`.
    pub exit_code: Option<i64>,
    /// Its report.
    pub report: Option<Value>,
    /// Why it could not go on.
    pub detail: String,
    /// When it was asked for, in seconds since 1970.
    pub created: i64,
    /// When it was over.
    pub ended: Option<i64>,
    /// Its machines.
    pub machines: Vec<i64>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventRow {
    /// Its number; later ones have higher numbers.
    pub id: i64,
    /// When, in seconds since 1970.
    pub at: i64,
    /// What kind of event.
    pub kind: String,
    /// The deployment that it is about.
    pub deployment: Option<String>,
    /// The machine that it is about.
    pub machine: Option<i64>,
    /// What happened.
    pub text: String,
}

/// Which deployments.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// All of them.
    All,
    /// Those that are active.
    Active,
    /// The one with this id.
    One(&'a str),
}
