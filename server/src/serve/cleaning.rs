//! Events are kept for a time. What has happened to a machine stays, and so do deployments with their reports.

use super::database::Database;
use super::store::{MAX_REMOVED, now};
use crate::failure::one_line;
use std::time::Duration;

/// How often it is looked for events that are too old.
const LOOK: Duration = Duration::from_secs(3600);
/// Between two parts of what is removed: requests come first.
const PAUSE: Duration = Duration::from_millis(100);

/// Removes events that are older than so many days, for as long as the server runs.
pub(super) async fn clean(database: Database, days: u32) {
    loop {
        match remove(&database, days).await {
            Ok(0) => {}
            Ok(count) => log::info!("{count} events that were older than {days} days were removed"),
            Err(error) => log::error!("removing events that are older than {days} days: {error}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn remove(database: &Database, days: u32) -> Result<usize, String> {
    let mut count = 0;
    loop {
        let before = now() - i64::from(days) * 86_400;
        let removed =
            database.call(move |store| store.remove_events(before)).await.map_err(|error| one_line(&error))?;
        count += removed;
        if removed < MAX_REMOVED {
            return Ok(count);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
