//! The API: `/v1`, JSON, a bearer token on everything but `/v1/health`. `docs/API.md` describes it.

use super::attempts::Attempts;
use super::commands;
use super::database::Database;
use super::etag::tagged;
use super::export;
use super::guard::{guard, json as read_json};
use super::hooks;
use super::http::Limits;
use super::images::{Listed, list};
use super::live::Live;
use super::metrics;
use super::openapi;
use super::power::Power;
use super::problem::Problem;
use super::role::Role;
use super::routes::Body::{Empty, Json as Object, Text};
use super::routes::{self, Parameter, Route, Verb, header as head, query};
use super::start::Place;
use super::store::{DeploymentRow, Which};
use super::stream::{self, Bulletin};
use super::tls::Tls;
use super::waiting::standing;
use crate::boot::BootedMachines;
use crate::progress::node_json;
use crate::service::Handle;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// The most deployments of a page.
const MAX_DEPLOYMENTS: usize = 1000;
/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 200;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) database: Database,
    pub(super) live: Live,
    pub(super) handle: Handle,
    pub(super) place: Place,
    pub(super) power: Power,
    pub(super) bulletin: Bulletin,
    pub(super) attempts: Mutex<Attempts>,
    pub(super) listed: Mutex<Listed>,
    /// Without it requests come in the clear.
    pub(super) tls: Option<Arc<Tls>>,
    /// For how many days events are kept.
    pub(super) keep_events: u32,
    /// Machines that boot their own disk, if any are booted from here.
    pub(super) own_disk: Option<Arc<BootedMachines>>,
    /// A deployment was given to the service.
    pub(super) released: Notify,
}

pub(super) type Shared = State<Arc<Api>>;
pub(super) type Answer = Result<Response, Problem>;

/// Every path of the API. A new one is a row here, and its objects are in `super::schema`.
pub(super) fn routes() -> Vec<Route> {
    use Role::{Admin, Operator, Viewer};
    use Verb::{Get, Post};
    let row = Route::new;
    let mut all = vec![
        row(Get, "/v1/health", Viewer, "Whether the server answers", get(health))
            .open()
            .gives(&[(200, Object("Health"))]),
        row(Get, "/v1/openapi.json", Viewer, "This document", get(openapi)).gives(&[(200, Text("application/json"))]),
        row(Get, "/v1/machines", Viewer, "All machines, or a page of them", get(machines))
            .parameters(&MACHINE_PAGES)
            .gives(&[(200, Object("Machines"))]),
        row(Post, "/v1/machines/{id}/accept", Admin, "Let a machine take part", post(accept)).gives(&[(204, Empty)]),
        row(Post, "/v1/machines/{id}/forget", Admin, "Forget a machine", post(forget)).gives(&[(204, Empty)]),
        row(Get, "/v1/images", Viewer, "The images in the image folder", get(images)).gives(&[(200, Object("Images"))]),
        row(Get, "/v1/deployments", Viewer, "Deployments, the newest first", get(deployments))
            .parameters(&DEPLOYMENT_PAGES)
            .gives(&[(200, Object("Deployments"))]),
        row(Post, "/v1/deployments", Operator, "Start a deployment", post(deploy))
            .parameters(&KEYED)
            .takes("DeploymentRequest")
            .gives(&[(201, Object("Made")), (200, Object("Made"))]),
        row(Get, "/v1/deployments/{id}", Viewer, "A deployment with its nodes", get(deployment))
            .gives(&[(200, Object("Deployment"))]),
        row(
            Post,
            "/v1/deployments/{id}/confirm",
            Operator,
            "Agree to a deployment as the second person",
            post(confirm),
        )
        .gives(&[(204, Empty)]),
        row(
            Post,
            "/v1/deployments/{id}/start",
            Operator,
            "Begin without waiting for a time or for more machines",
            post(hurry),
        )
        .gives(&[(202, Empty)]),
        row(Post, "/v1/deployments/{id}/again", Operator, "Start it again for the machines that failed", post(again))
            .parameters(&KEYED)
            .gives(&[(201, Object("Made")), (200, Object("Made"))]),
        row(Post, "/v1/deployments/{id}/stop", Operator, "Stop a deployment", post(stop)).gives(&[(202, Empty)]),
        row(Get, "/v1/webhooks", Admin, "All webhooks, and how far each has been told", get(hooks::list))
            .gives(&[(200, Object("Webhooks"))]),
        row(Post, "/v1/webhooks", Admin, "Make a webhook", post(hooks::add))
            .takes("WebhookRequest")
            .gives(&[(201, Object("WebhookMade"))]),
        row(Post, "/v1/webhooks/{id}/remove", Admin, "Remove a webhook", post(hooks::remove)).gives(&[(204, Empty)]),
        row(Get, "/metrics", Viewer, "Numbers for Prometheus", get(metrics::answer))
            .gives(&[(200, Text("text/plain"))]),
        row(Get, "/v1/events", Viewer, "What has happened: as a stream, a list, or a file of lines", get(events))
            .parameters(&EVENT_PARAMETERS)
            .gives(&[(200, Object("Events")), (200, Text("text/event-stream")), (200, Text("application/x-ndjson"))]),
    ];
    all.extend(super::groups::routes());
    all
}

const MACHINE_PAGES: [Parameter; 2] = [
    query("after", "integer", "the page begins after the machine with this number"),
    query("limit", "integer", "the most machines of a page; all by default"),
];
const DEPLOYMENT_PAGES: [Parameter; 2] = [
    query("after", "string", "the page begins after the deployment with this id, which is older"),
    query("limit", "integer", "the most deployments of a page; 1000 by default and at most"),
];
const EVENT_PARAMETERS: [Parameter; 3] = [
    query("after", "integer", "only events with a higher number; at most 1000 in a list"),
    query("format", "string", "jsonl: every event after that number, as one file with an object on each line"),
    head("Last-Event-ID", "integer", "the stream begins after the event with this number"),
];
const KEYED: [Parameter; 1] =
    [head("Idempotency-Key", "string", "a second request with this key is answered with what the first one made")];

pub(super) fn router(api: Arc<Api>, limits: Limits) -> Router {
    routes::router(routes())
        .layer(axum::middleware::from_fn(tagged))
        .merge(super::page::router())
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path has no such method")
        })
        .layer(axum::middleware::from_fn_with_state(limits, guard))
        .with_state(api)
}

async fn openapi(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], openapi::text()).into_response())
}

async fn health() -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn machines(State(api): Shared, Query(query): Query<HashMap<String, String>>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let (after, limit) = (number(&query, "after")?.unwrap_or_default(), limit(&query, usize::MAX)?);
    let mut machines = api.database.call(|store| store.machines()).await?;
    machines.retain(|machine| machine.id > after);
    let next = machines.get(limit).map(|_| machines[limit - 1].id);
    machines.truncate(limit);
    let now = api.live.lock();
    let connected = now.connected();
    let all = machines.into_iter().map(|machine| {
        let is_connected = machine.hardware.iter().any(|mac| connected.contains(mac));
        let mut object = json!(machine);
        object["connected"] = is_connected.into();
        object["claimed_by"] = json!(now.claimants(&machine.hardware));
        object
    });
    Ok(Json(json!({ "machines": all.collect::<Vec<_>>(), "next": next })).into_response())
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

pub(super) fn machine_number(id: &str) -> Result<i64, Problem> {
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

async fn deployments(State(api): Shared, Query(query): Query<HashMap<String, String>>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let (after, limit) = (query.get("after").cloned(), limit(&query, MAX_DEPLOYMENTS)?);
    let rows = api.database.call(move |store| store.deployments(after.as_deref().map_or(Which::All, Which::Before)));
    let mut rows = rows.await?;
    let more = rows.len() > limit || rows.len() == MAX_DEPLOYMENTS;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.id.clone());
    let all: Vec<Value> = rows.iter().map(|row| summary(row, &standing(&api, row))).collect();
    Ok(Json(json!({ "deployments": all, "next": next })).into_response())
}

/// The number in the query, if it has this key.
fn number(query: &HashMap<String, String>, key: &str) -> Result<Option<i64>, Problem> {
    let number = query.get(key).map(|text| text.parse());
    number.transpose().map_err(|_| Problem::bad(format!("{key}: expected a number")))
}

/// How many rows a page may have.
fn limit(query: &HashMap<String, String>, most: usize) -> Result<usize, Problem> {
    match number(query, "limit")? {
        None => Ok(most),
        Some(limit) => match usize::try_from(limit) {
            Ok(limit) if limit > 0 => Ok(limit.min(most)),
            _ => Err(Problem::bad(format!("limit: {limit} is less than 1"))),
        },
    }
}

/// A deployment, with the word for its state and what it waits for.
pub(super) fn summary(row: &DeploymentRow, (word, waits): &(&str, String)) -> Value {
    json!({
        "id": row.id,
        "image": row.image,
        "state": word,
        "waits": waits,
        "stop": row.stop,
        "machines": row.machines,
        "exit_code": row.exit_code,
        "detail": row.detail,
        "created": row.created,
        "ended": row.ended,
        "asked_by": row.asked_by,
        "needs_second": row.needs_second,
        "confirmed_by": row.confirmed_by,
        "start_at": row.start_at,
        "start_zone": row.start_zone,
        "series": row.series,
        "wave": row.wave,
        "waves": row.waves,
        "failed": row.failed,
        "left_out": row.left_out,
    })
}

async fn deployment(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let row = commands::find(&api, &id).await?;
    let mut object = summary(&row, &standing(&api, &row));
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

async fn confirm(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    commands::confirm(&api, &id, &who).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn hurry(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    commands::hurry(&api, &id, &who).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn again(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    let key = idempotency_key(&headers)?;
    if let Some(known) = commands::known(&api, key.clone()).await? {
        return Ok(location(StatusCode::OK, &known));
    }
    let made = commands::again(&api, &id, key, &who).await?;
    Ok(location(if made.new { StatusCode::CREATED } else { StatusCode::OK }, &made.id))
}

async fn stop(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    commands::stop(&api, &id, &who).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// As a list or a file if that is asked for, else as a stream that goes on.
async fn events(State(api): Shared, Query(query): Query<HashMap<String, String>>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let number = |name: &str, text: &str| {
        text.parse::<i64>().map_err(|_| Problem::bad(format!("{name}: expected the number of an event")))
    };
    let after = query.get("after").map(|after| number("after", after)).transpose()?;
    match query.get("format").map(String::as_str) {
        Some("jsonl") => return Ok(export::answer(api, after.unwrap_or_default())),
        Some(format) => return Err(Problem::bad(format!("format: {format:?} is not known; expected jsonl"))),
        None => {}
    }
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
    Ok(stream::answer(api, last.transpose()?.or(after), headers))
}
