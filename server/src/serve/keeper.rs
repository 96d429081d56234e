//! What begins by itself: deployments that were kept and not given to the service yet.

use super::api::Api;
use super::commands::begin;
use super::store::Which;
use std::sync::Arc;

/// Begins what may begin, after a start of the server.
pub(super) async fn keep(api: Arc<Api>) {
    let rows = match api.database.call(|store| store.deployments(Which::Active)).await {
        Ok(rows) => rows,
        Err(error) => return log::error!("looking for deployments: {}", crate::failure::one_line(&error)),
    };
    // The oldest first.
    for row in rows.into_iter().rev().filter(|row| !row.released) {
        if let Err(problem) = begin(&api, &row.id).await {
            log::error!("deployment {}: {problem}", row.id);
        }
    }
}
