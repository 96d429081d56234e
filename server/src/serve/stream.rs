//! Events as they happen: server-sent events.
//!
//! What has happened is read from the database, each row once, however slow the reader is. Progress is made into text once a second for all
//! readers; a reader that is slow gets the newest and misses what was in between.

use super::api::Api;
use super::role::Role;
use crate::progress::progress_json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often progress is told.
const EVERY: Duration = Duration::from_secs(1);
/// After so long without anything to tell, a comment shows proxies and readers that the connection lives.
const QUIET: Duration = Duration::from_secs(15);
/// How long a browser waits before it calls again.
const RETRY: &str = "retry: 2000\n\n";

/// The newest progress.
#[derive(Debug, Default)]
struct Progress {
    /// Text by deployment. Texts that have not changed are the same.
    deployments: BTreeMap<String, Arc<str>>,
    /// Connected machines: how many, and the number of the change.
    machines: (usize, u64),
}

impl Progress {
    /// What is new since `before`.
    fn since(&self, before: &Self) -> String {
        let mut text = String::new();
        if self.machines != before.machines {
            // Writing to a string can't fail.
            let _ = write!(text, "event: machines\ndata: {}\n\n", json!({ "connected": self.machines.0 }));
        }
        for (id, now) in &self.deployments {
            if before.deployments.get(id).is_none_or(|before| !Arc::ptr_eq(before, now)) {
                let _ = write!(text, "event: progress\ndata: {now}\n\n");
            }
        }
        text
    }
}

/// Where the newest progress hangs for all readers.
#[derive(Debug, Default)]
pub(super) struct Bulletin(watch::Sender<Arc<Progress>>);

/// Hangs out the newest progress once a second, if anybody reads it.
pub(super) async fn publish(api: Arc<Api>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let board = &api.bulletin.0;
        if board.receiver_count() == 0 {
            continue;
        }
        let before = board.borrow().clone();
        let now = progress(&api, &before);
        if !now.since(&before).is_empty() || now.deployments.len() != before.deployments.len() {
            board.send_replace(Arc::new(now));
        }
    }
}

fn progress(api: &Api, before: &Progress) -> Progress {
    let (snapshots, machines) = {
        let now = api.live.lock();
        let snapshots: Vec<_> = now
            .snapshots
            .iter()
            .map(|(id, snapshot)| (id.clone(), now.facts.get(id).map_or(0, |facts| facts.blocks), snapshot.clone()))
            .collect();
        (snapshots, (now.machines.len(), now.changes))
    };
    let deployments = snapshots.into_iter().map(|(id, blocks, snapshot)| {
        let text = progress_json(&id, blocks, &snapshot).to_string();
        let text = before.deployments.get(&id).filter(|before| ***before == *text).cloned().unwrap_or(text.into());
        (id, text)
    });
    Progress { deployments: deployments.collect(), machines }
}

type Out = mpsc::Sender<Result<Bytes, Infallible>>;

/// The body of an answer that goes on.
pub(super) struct Lines<E = Infallible>(pub(super) mpsc::Receiver<Result<Bytes, E>>);

impl<E> Stream for Lines<E> {
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Answers with all events after the one with this number, and those to come; without a number, with those to come.
/// It ends when whoever sent `headers` may look no longer.
pub(super) fn answer(api: Arc<Api>, after: Option<i64>, headers: HeaderMap) -> Response {
    // One text waits here, and what the connection takes at once: whoever is slower holds up only `tell`.
    let (out, lines) = mpsc::channel(1);
    tokio::spawn(async move { tell(&api, after, &headers, &out).await });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, Body::from_stream(Lines(lines))).into_response()
}

/// Tells until nobody listens, or the database fails: then the reader calls again. Sessions and tokens end with an event, or at a time;
/// either is noticed before the next thing is told.
async fn tell(api: &Api, after: Option<i64>, headers: &HeaderMap, out: &Out) -> Option<()> {
    let (mut newest, mut progress) = (api.database.newest(), api.bulletin.0.subscribe());
    let mut after = after.unwrap_or_else(|| *newest.borrow());
    let mut told = Arc::default();
    out.send(Ok(Bytes::from_static(RETRY.as_bytes()))).await.ok()?;
    loop {
        // Whatever comes from here on wakes this again.
        newest.borrow_and_update();
        api.authorize(headers, Role::Viewer).await.ok()?;
        loop {
            let events = api.database.call(move |store| store.events(after)).await;
            let events = events.map_err(|error| log::error!("telling events: {error}")).ok()?;
            let Some(last) = events.last() else { break };
            after = last.id;
            let lines = events.iter().map(|event| format!("id: {}\ndata: {}\n\n", event.id, json!(event)));
            out.send(Ok(lines.collect::<String>().into())).await.ok()?;
        }
        let now = progress.borrow_and_update().clone();
        let text = now.since(&told);
        told = now;
        if !text.is_empty() {
            out.send(Ok(text.into())).await.ok()?;
        }
        tokio::select! {
            changed = newest.changed() => changed.ok()?,
            changed = progress.changed() => changed.ok()?,
            () = tokio::time::sleep(QUIET) => out.send(Ok(Bytes::from_static(b": quiet\n\n"))).await.ok()?,
            () = out.closed() => return None,
        }
    }
}
