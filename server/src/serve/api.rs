//! The API: `/v1`, JSON, a bearer token on everything but `/v1/health`. `docs/API.md` describes it.

use super::attempts::Attempts;
use super::commands;
use super::database::Database;
use super::guard::{guard, json as read_json};
use super::http::Limits;
use super::images::{Listed, list};
use super::live::Live;
use super::problem::Problem;
use super::role::Role;
use super::start::Place;
use super::store::{DeploymentRow, Which};
use super::stream::{self, Bulletin};
use crate::progress::node_json;
use crate::service::Handle;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 200;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) database: Database,
    pub(super) live: Live,
    pub(super) handle: Handle,
    pub(super) place: Place,
    pub(super) bulletin: Bulletin,
    pub(super) attempts: Mutex<Attempts>,
    pub(super) listed: Mutex<Listed>,
}

pub(super) type Shared = State<Arc<Api>>;
type Answer = Result<Response, Problem>;

pub(super) fn router(api: Arc<Api>, limits: Limits) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/machines", get(machines))
        .route("/v1/machines/{id}/accept", post(accept))
        .route("/v1/machines/{id}/forget", post(forget))
        .route("/v1/images", get(images))
        .route("/v1/deployments", get(deployments).post(deploy))
        .route("/v1/deployments/{id}", get(deployment))
        .route("/v1/deployments/{id}/stop", post(stop))
        .route("/v1/events", get(events))
        .merge(super::page::router())
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path has no such method")
        })
        .layer(axum::middleware::from_fn_with_state(limits, guard))
        .with_state(api)
}

async fn health() -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn machines(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let machines = api.database.call(|store| store.machines()).await?;
    let connected: HashSet<String> = api.live.lock().machines.values().flatten().cloned().collect();
    let all = machines.into_iter().map(|machine| {
        let is_connected = machine.hardware.iter().any(|mac| connected.contains(mac));
        let mut object = json!(machine);
        object["connected"] = is_connected.into();
        object
    });
    Ok(Json(json!({ "machines": all.collect::<Vec<_>>() })).into_response())
}

async fn accept(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let id = machine_number(&id)?;
    api.database.call(move |store| store.accept(id, &who.name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn forget(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let id = machine_number(&id)?;
    api.database.call(move |store| store.forget(id, &who.name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn machine_number(id: &str) -> Result<i64, Problem> {
    id.parse().map_err(|_| Problem::not_found(format!("there is no machine {id:?}")))
}

async fn images(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let images = list(&api).await?.into_iter();
    let images = images.map(|image| json!({ "name": image.name, "file_bytes": image.file_bytes }));
    Ok(Json(json!({ "images": images.collect::<Vec<_>>() })).into_response())
}

async fn deploy(State(api): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    let key = idempotency_key(&headers)?;
    if let Some(known) = commands::known(&api, key.clone()).await? {
        return Ok(location(StatusCode::OK, &known));
    }
    let made = commands::deploy(&api, read_json(&body)?, key, &who).await?;
    Ok(location(if made.new { StatusCode::CREATED } else { StatusCode::OK }, &made.id))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad(format!("Idempotency-Key: expected 1 to {MAX_KEY} visible characters"))),
    }
}

fn location(status: StatusCode, id: &str) -> Response {
    let path = format!("/v1/deployments/{id}");
    (status, [(header::LOCATION, path)], Json(json!({ "id": id }))).into_response()
}

async fn deployments(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let rows = api.database.call(|store| store.deployments(Which::All)).await?;
    let all: Vec<Value> = rows.into_iter().map(|row| summary(&row)).collect();
    Ok(Json(json!({ "deployments": all })).into_response())
}

fn summary(row: &DeploymentRow) -> Value {
    json!({
        "id": row.id,
        "image": row.image,
        "state": row.word(),
        "stop": row.stop,
        "machines": row.machines,
        "exit_code": row.exit_code,
        "detail": row.detail,
        "created": row.created,
        "ended": row.ended,
    })
}

async fn deployment(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let asked = id.clone();
    let mut rows = api.database.call(move |store| store.deployments(Which::One(&asked))).await?;
    let row = rows.pop().ok_or_else(|| Problem::not_found(format!("there is no deployment {id:?}")))?;
    let mut object = summary(&row);
    match &row.report {
        Some(Value::Object(report)) => {
            for (key, value) in report {
                object[key] = value.clone();
            }
        }
        _ => {
            let now = api.live.lock();
            let nodes = now.snapshots.get(&row.id).map(|snapshot| snapshot.nodes.iter().map(node_json).collect());
            object["nodes"] = Value::Array(nodes.unwrap_or_default());
        }
    }
    Ok(Json(object).into_response())
}

async fn stop(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    commands::stop(&api, &id, &who).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// As a list if that is asked for, else as a stream that goes on.
async fn events(State(api): Shared, Query(query): Query<HashMap<String, String>>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let number = |name: &str, text: &str| {
        text.parse::<i64>().map_err(|_| Problem::bad(format!("{name}: expected the number of an event")))
    };
    let after = query.get("after").map(|after| number("after", after)).transpose()?;
    let accepts = |kind: &str| {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        accept.is_some_and(|accept| accept.contains(kind))
    };
    if !accepts("text/event-stream") && (after.is_some() || accepts("application/json")) {
        let events = api.database.call(move |store| store.events(after.unwrap_or_default())).await?;
        return Ok(Json(json!({ "events": events })).into_response());
    }
    let last = headers.get("last-event-id").map(|id| number("Last-Event-ID", id.to_str().unwrap_or_default()));
    // A browser that calls again says what it has had last; its address is still that of the first call.
    Ok(stream::answer(api, last.transpose()?.or(after)))
}
