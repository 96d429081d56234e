//! What the database holds, row by row.

use super::LeftOut;
use crate::serve::role::Role;
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
    /// The image that it got last and ended done with.
    pub holds: Option<String>,
    /// Since when.
    pub holds_since: Option<i64>,
    /// What people have written about it.
    pub note: String,
    /// The names of its groups.
    pub groups: Vec<String>,
}

/// Machines that belong together, such as those of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// A deployment of its machines needs a second person.
    pub protected: bool,
    /// The numbers of its machines.
    pub machines: Vec<i64>,
    /// The names of the users and tokens that are limited to it, and perhaps to others.
    pub operators: Vec<String>,
}

/// Machines that call from a subnet are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub id: i64,
    /// The subnet.
    pub subnet: String,
    /// The group that they join, with its name.
    pub group: Option<(i64, String)>,
}

/// A deployment that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct NewDeployment<'a> {
    /// Its id, in hexadecimal digits.
    pub id: &'a str,
    /// The name of its image.
    pub image: &'a str,
    /// What is asked for, as JSON.
    pub wishes: &'a str,
    /// Its machines.
    pub machines: &'a [i64],
    /// The key of the request.
    pub key: Option<&'a str>,
    /// When it begins, in seconds since 1970, and the zone in which that was named; nothing if it waits for no time.
    pub start: Option<(i64, &'a str)>,
    /// How many seconds late it may begin.
    pub grace: i64,
    /// So many seconds after it was given to the service it begins with the machines that are ready; nothing: only when enough are.
    pub patience: Option<i64>,
    /// Its place in a series of waves, how many those are, and how many machines may fail before the rest is called off.
    pub wave: (u32, u32, u32),
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
    /// Who asked for it.
    pub asked_by: String,
    /// A machine of it is in a protected group.
    pub needs_second: bool,
    /// The second person.
    pub confirmed_by: Option<String>,
    /// It was given to the service.
    pub released: bool,
    /// When it begins, if it waits for a time.
    pub start_at: Option<i64>,
    /// The zone in which that was named.
    pub start_zone: String,
    /// Its place in its series of waves.
    pub wave: i64,
    /// How many waves there are.
    pub waves: i64,
    /// The first wave.
    pub series: Option<String>,
    /// Machines that did not get the image, once it is over.
    pub failed: Option<i64>,
    /// Its machines that had no place in the plan when it began.
    pub left_out: Vec<LeftOut>,
    /// Its machines.
    pub machines: Vec<i64>,
}

impl DeploymentRow {
    /// A second person must confirm it before anything of it begins.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.needs_second && self.confirmed_by.is_none()
    }

    /// `unconfirmed`, `scheduled`, `queued` (for a wave before it), `waiting`, `running` or `over`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.state.as_str() {
            "active" if self.is_unconfirmed() => "unconfirmed",
            "active" if !self.released && self.wave > 1 => "queued",
            "active" if !self.released && self.start_at.is_some() => "scheduled",
            "active" if self.started => "running",
            "active" => "waiting",
            _ => "over",
        }
    }
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
    /// Who gave the command; empty if it was none.
    pub who: String,
}

/// What events are about.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// A machine.
    Machine(i64),
    /// A deployment.
    Deployment(&'a str),
    /// Anything that somebody has ordered.
    Commands,
}

/// Somebody who may give commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The name of a user, or the word `token` and the beginning of its hash.
    pub name: String,
    /// The user's number; none for a token.
    pub user: Option<i64>,
    /// What it may do.
    pub role: Role,
    /// The groups that an operator is limited to; none: all.
    pub groups: Vec<i64>,
}

impl Who {
    /// The groups that it may start and stop deployments in; nothing if in all.
    #[must_use]
    pub fn limits(&self) -> Option<&[i64]> {
        (self.role == Role::Operator && !self.groups.is_empty()).then_some(&self.groups)
    }
}

/// Somebody with a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The number.
    pub id: i64,
    /// The name to sign in with.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// The password, hashed.
    pub password: String,
    /// Since when.
    pub created: i64,
    /// The groups that it is limited to as an operator; none: all.
    pub groups: Vec<i64>,
}

/// A token, by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The hash.
    pub hash: String,
    /// What its holder may do.
    pub role: Role,
    /// Since when.
    pub created: i64,
    /// Until when; for ever if there is none.
    pub ends: Option<i64>,
    /// The names of the groups that it is limited to as an operator; none: all.
    pub groups: Vec<String>,
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
    /// Those that were asked for before the one with this id.
    Before(&'a str),
}

/// What a wish to stop a deployment came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The service has it and must be told.
    Released,
    /// It had not begun, and is over now.
    Over,
    /// It was over, or there is none.
    Nothing,
}
