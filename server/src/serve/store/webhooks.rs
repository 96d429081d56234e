//! Webhooks, and how far each has been told.

use super::events::add_event;
use super::{EventRow, Store, StoreError, now};
use crate::serve::webhook::wait;
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

/// The most webhooks: each may keep a connection busy.
const MAX_WEBHOOKS: usize = 64;

/// Makes the table if it is missing.
pub(super) const TABLE: &str = include_str!("../webhooks.sql");

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookRow {
    /// Its number.
    pub id: i64,
    /// Where it goes.
    pub url: String,
    /// The kinds of events that it is told of; all if there are none.
    pub kinds: Vec<String>,
    /// What its bodies are signed with.
    #[serde(skip)]
    pub secret: String,
    /// The last event that was taken.
    pub taken: i64,
    /// How often in a row the next one was not taken.
    pub failures: i64,
    /// When it is tried again, in seconds since 1970.
    pub next_try: i64,
    /// Why it was not taken; empty if all was well.
    pub problem: String,
    /// Since when there is this webhook.
    pub created: i64,
}

impl WebhookRow {
    /// Whether it may be tried at this time. A time that lies further ahead than it ever waits is from before the clock was set back.
    fn is_due(&self, at: i64) -> bool {
        self.next_try <= at || self.next_try > at.saturating_add(wait(self.failures))
    }
}

const WEBHOOK: &str = "SELECT id, url, kinds, secret, taken, failures, next_try, problem, created FROM webhooks";

fn webhook(row: &Row<'_>) -> rusqlite::Result<WebhookRow> {
    let kinds: String = row.get(2)?;
    Ok(WebhookRow {
        id: row.get(0)?,
        url: row.get(1)?,
        kinds: serde_json::from_str(&kinds).unwrap_or_default(),
        secret: row.get(3)?,
        taken: row.get(4)?,
        failures: row.get(5)?,
        next_try: row.get(6)?,
        problem: row.get(7)?,
        created: row.get(8)?,
    })
}

impl Store {
    /// All webhooks by number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn webhooks(&self) -> Result<Vec<WebhookRow>, StoreError> {
        let failed = self.failed();
        let mut query = self.connection.prepare_cached(&format!("{WEBHOOK} ORDER BY id")).map_err(&failed)?;
        query.query_map([], webhook).and_then(Iterator::collect).map_err(&failed)
    }

    /// Keeps a webhook; it is told of what happens from now on. Gives its number.
    ///
    /// # Errors
    /// [`StoreError`]: there are as many as there may be.
    pub fn add_webhook(&mut self, url: &str, kinds: &[String], secret: &str, who: &str) -> Result<i64, StoreError> {
        let failed = self.failed();
        let kinds = serde_json::json!(kinds).to_string();
        self.change(|change| {
            let count: usize =
                change.query_row("SELECT count (*) FROM webhooks", [], |row| row.get(0)).map_err(&failed)?;
            if count >= MAX_WEBHOOKS {
                return Err(StoreError::TooManyWebhooks { most: MAX_WEBHOOKS });
            }
            let add = "INSERT INTO webhooks (url, kinds, secret, taken, created)
                       VALUES (?1, ?2, ?3, (SELECT coalesce (max (id), 0) FROM events), ?4)";
            change.execute(add, params![url, kinds, secret, now()]).map_err(&failed)?;
            let id = change.last_insert_rowid();
            // The path of such an address is often a secret, and everybody reads the events.
            let host = url.split('/').take(3).collect::<Vec<_>>().join("/");
            add_event(change, who, "webhook-new", None, None, &format!("webhook {id}: {host}")).map_err(&failed)?;
            Ok(id)
        })
    }

    /// This webhook is told no more. Gives whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove_webhook(&mut self, id: i64, who: &str) -> Result<bool, StoreError> {
        let failed = self.failed();
        self.change(|change| {
            let gone = change.execute("DELETE FROM webhooks WHERE id = ?1", [id]).map_err(&failed)? > 0;
            if gone {
                add_event(change, who, "webhook-removed", None, None, &format!("webhook {id}")).map_err(&failed)?;
            }
            Ok(gone)
        })
    }

    /// The webhooks that may be tried at this time, each with the event that it is told of next. Events that one is not told of
    /// are behind it then.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn webhooks_due(&mut self, at: i64) -> Result<Vec<(WebhookRow, EventRow)>, StoreError> {
        let failed = self.failed();
        let mut due = Vec::new();
        let newest = self.newest_event();
        for hook in self.webhooks()?.into_iter().filter(|hook| hook.is_due(at)) {
            let select = "SELECT id, at, kind, deployment, machine, text, who FROM events WHERE id > ?1
                          AND (?2 = '[]' OR kind IN (SELECT value FROM json_each (?2))) ORDER BY id LIMIT 1";
            let kinds = serde_json::json!(hook.kinds).to_string();
            let event = self.connection.query_row(select, params![hook.taken, kinds], super::events::event).optional();
            match event.map_err(&failed)? {
                Some(event) => due.push((hook, event)),
                None if hook.taken < newest => {
                    let set = "UPDATE webhooks SET taken = ?2 WHERE id = ?1";
                    self.connection.execute(set, [hook.id, newest]).map_err(&failed)?;
                }
                None => {}
            }
        }
        Ok(due)
    }

    /// The webhook has taken this event.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn on_webhook_taken(&mut self, id: i64, event: i64) -> Result<(), StoreError> {
        let set = "UPDATE webhooks SET taken = ?2, failures = 0, next_try = 0, problem = '' WHERE id = ?1";
        self.connection.execute(set, [id, event]).map(drop).map_err(self.failed())
    }

    /// The webhook has not taken its next event, and is tried again at this time.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn on_webhook_failed(&mut self, id: i64, next: i64, problem: &str) -> Result<(), StoreError> {
        let set = "UPDATE webhooks SET failures = failures + 1, next_try = ?2, problem = ?3 WHERE id = ?1";
        self.connection.execute(set, params![id, next, problem]).map(drop).map_err(self.failed())
    }
}
