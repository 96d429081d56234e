//! What begins by itself: deployments whose time has come, the next wave, what was kept and not given to the service before the server
//! ended, and what has waited long enough for machines that are not ready. The database says what that is; here is only the waiting.

use super::api::Api;
use super::commands::{begin, tell_to_begin};
use super::store::StoreError;
use crate::failure::one_line;
use std::sync::Arc;
use std::time::Duration;

/// How long it waits at most: somebody may set the clock.
const LOOK: Duration = Duration::from_secs(20);
/// So many events come to one look.
const TOGETHER: Duration = Duration::from_millis(200);

/// Begins what may begin, for as long as the server runs.
pub(super) async fn keep(api: Arc<Api>) {
    let mut newest = api.database.newest();
    loop {
        newest.borrow_and_update();
        let wait = match look(&api).await {
            Ok(wait) => wait,
            Err(error) => {
                log::error!("looking for deployments that are to begin: {}", one_line(&error));
                LOOK
            }
        };
        tokio::select! {
            changed = newest.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(TOGETHER).await;
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn look(api: &Arc<Api>) -> Result<Duration, StoreError> {
    let due = api
        .database
        .call(|store| {
            store.call_off()?;
            store.due()
        })
        .await?;
    for id in due {
        if let Err(problem) = begin(api, &id).await {
            log::error!("beginning deployment {id}: {problem}");
        }
    }
    for id in api.database.call(|store| store.to_begin()).await? {
        if let Err(problem) = tell_to_begin(api, &id).await {
            log::error!("beginning deployment {id} with the machines that are ready: {problem}");
        }
    }
    let next = api.database.call(|store| store.next_start()).await?;
    let next = next.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
    Ok(next.unwrap_or(LOOK).clamp(TOGETHER, LOOK))
}
