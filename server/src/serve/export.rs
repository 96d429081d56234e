//! What has happened as one file: an object on each line, from the oldest event to the newest that there is when the reader comes there.

use super::api::Api;
use super::stream::Lines;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::mpsc;

/// All events after the one with this number. However many there are, a thousand of them at most are in memory.
pub(super) fn answer(api: Arc<Api>, mut after: i64) -> Response {
    let (out, lines) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let events = match api.database.call(move |store| store.events(after)).await {
                Ok(events) => events,
                Err(error) => {
                    log::error!("exporting events: {}", crate::failure::one_line(&error));
                    // The file must not look as if it were complete.
                    let _ = out.send(Err(std::io::Error::other("the database can't be read"))).await;
                    return;
                }
            };
            let Some(last) = events.last() else { return };
            after = last.id;
            let text: String = events.iter().map(|event| format!("{}\n", json!(event))).collect();
            if out.send(Ok(Bytes::from(text))).await.is_err() {
                return;
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"slidecast-events.jsonl\""),
    ];
    (headers, Body::from_stream(Lines(lines))).into_response()
}
